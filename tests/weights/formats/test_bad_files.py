"""Files that lie, of every format but pickles, which have tests of their own."""

import io
import json
import struct
import tracemalloc
import zipfile

import h5py
import jax
import msgpack
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flaim.models import create
from flaim.weights import CheckpointError, formats, load, save_pretrained
from flaim.weights.formats._fields import Budget
from tests.weights.formats import containers, guard
from tests.weights.formats.guard import refused

# What a file may be instead of a checkpoint.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\0" * 100, "in none of the formats"),
        (b"\x93NUMPY\1\0", "a lone array"),
        (b'{"a": 1}', "no index"),
        (b'{"a": 1', "not an intact JSON file"),
        (b"PK\x03\x04" + b"\0" * 100, "no directory at its end"),
    ],
)
def test_no_checkpoint(content, message, tmp_path):
    assert message in refused(tmp_path / "file", content)


@pytest.mark.parametrize("path", ["../outside", "{outside}"])
def test_configuration_that_names_other_files(path, tmp_path):
    """Nothing in a `config.json` leads out of its folder: neither fields that we know nor those of other libraries."""
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    model = create("test_resnet", n_classes=3, input_size=32, widths=(16, 16, 16, 16))
    for place in (folder, outside):
        save_pretrained(place, model, model.init(jax.random.key(0)))
    name = path.format(outside=outside)
    own = json.loads((folder / "config.json").read_text())
    fields = {"path": name, "repo": name, "file": f"{name}/model.safetensors", "_name_or_path": name, "weights": name}
    (folder / "config.json").write_text(json.dumps(own | fields))
    with guard.opened() as files:
        config = load(folder).config
    assert config.location.path == str(folder) and config.location.repo is config.location.file is None
    assert str(folder / "model.safetensors") in files and not any("outside" in file for file in files)

    weights = folder / "model.safetensors"
    save_file(load_file(weights), weights)  # without the notes in it, which would count for more
    timm = {"architecture": "test_resnet", "num_classes": 3, "model_args": {"widths": [16]}}
    cfg = {"file": f"{name}/model.safetensors", "hf_hub_filename": name, "hf_hub_id": f"local-dir:{name}", "url": name}
    for document in (
        own | {"model": name},
        own | {"overrides": {"block": {"function": f"{name}/os.system"}}},
        timm | {"pretrained_cfg": cfg},
        timm | {"architecture": name},
        {"model_type": "vit", "_name_or_path": name, "architectures": [name]},
        {"model_type": name},
    ):
        (folder / "config.json").write_text(json.dumps(document))
        with guard.opened() as files, pytest.raises(CheckpointError):
            load(folder)
        assert not any("outside" in file for file in files)


# Zip files


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytearray:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return bytearray(file.getvalue())


def array(value: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def patched(content: bytes, signature: bytes, offset: int, value: int, size: int = 4) -> bytes:
    """The content with another number at an offset from a signature."""
    content = bytearray(content)
    start = content.rindex(signature) + offset
    content[start : start + size] = value.to_bytes(size, "little")
    return bytes(content)


STORED = zipped(("a.npy", array(np.arange(6.0))), compression=zipfile.ZIP_STORED)
DEFLATED = zipped(("a.npy", array(np.arange(600.0) // 100)))
CENTRAL, END = b"PK\1\2", b"PK\5\6"
ZIPS = {
    "no zip bomb, but close": (zipped(("a.npy", b"\0" * 50_000_000)), "a.npy"),
    "a larger size than stored": (patched(STORED, CENTRAL, 24, 1 << 30), "claims to have 1073741824 bytes"),
    "more than deflate can do": (patched(DEFLATED, CENTRAL, 24, 1 << 30), "claims to have 1073741824 bytes"),
    "a larger size than compressed": (patched(DEFLATED, CENTRAL, 24, len(array(np.arange(600.0))) + 8), "a.npy"),
    "more bytes than the file": (patched(STORED, CENTRAL, 20, 1 << 30), "claims to have"),
    "a header elsewhere": (patched(STORED, CENTRAL, 42, 7), "a.npy is not an intact zip file"),
    "a header beyond the end": (patched(STORED, CENTRAL, 42, 1 << 30), "a.npy is not an intact zip file"),
    "a directory elsewhere": (patched(STORED, END, 16, 3), "the directory is damaged at byte 3"),
    "a directory beyond the end": (patched(STORED, END, 12, 1 << 30), "a directory of 1073741824 bytes"),
    "encrypted": (patched(STORED, CENTRAL, 8, 1, 2), "encrypted"),
    "another compression": (patched(STORED, CENTRAL, 10, 12, 2), "compressed in a way"),
    "another checksum": (patched(DEFLATED, CENTRAL, 16, 5), "a.npy is not an intact zip file"),
    "a name twice": (zipped(("b.npy", b"1"), ("a.npy", b"2")).replace(b"b.npy", b"a.npy"), "'a.npy'"),
    "other files": (zipped(("a.txt", b"1")), "neither Keras', NumPy's nor PyTorch's"),
    "truncated": (STORED[:-30], "no directory at its end"),
    "an array of objects": (zipped(("a.npy", array(np.array([{}, 1], object)))), "a.npy, is not an intact NumPy"),
    "an array of text": (zipped(("a.npy", array(np.array(["a"])))), "not a type of numbers"),
    "an array with fields": (zipped(("a.npy", array(np.zeros(2, "f4,i4")))), "not a type of numbers"),
    "an array of another shape": (bytes(STORED).replace(b"'shape': (6,), ", b"'shape': (600,)"), "600"),
    "a header that is code": (bytes(STORED).replace(b"{'descr': '<f8'", b"__import__('os'"), "a.npy"),
    "a header of brackets": (zipped(("a.npy", b"\x93NUMPY\1\0\xff\x1f" + b"(" * 8191)), "a.npy"),
    "a later version": (bytes(STORED).replace(b"NUMPY\1", b"NUMPY\7"), "a.npy"),
}  # fmt: skip


@pytest.mark.parametrize("name", ZIPS)
def test_zip_files_that_lie(name, tmp_path):
    content, message = ZIPS[name]
    assert message in refused(tmp_path / "file", bytes(content))


def test_zip_bombs(tmp_path):
    """What unpacks to far more than the file is not unpacked."""
    path = tmp_path / "file"
    zeros = b"\0" * 100_000_000
    assert "would unpack to 100000000 bytes" in refused(path, zipped(("model.weights.h5", zeros)))
    assert "would unpack to 100000000 bytes" in refused(path, zipped(("archive/data.pkl", zeros)))
    # Members in one another's place: 50 that unpack to 50 MB each, of 50 KB in all.
    content = zipped(("a.npy", b"\0" * 50_000_000))
    start = content.index(CENTRAL)
    end = content.index(END)
    central = [content[start:end].replace(b"a.npy", b"%05d" % i) for i in range(50)]
    assert "claims to have" in refused(path, content[:start] + b"".join(central) + _end(50, central, start))


def _end(count: int, central: list[bytes], start: int) -> bytes:
    return struct.pack("<4s4H2IH", END, 0, 0, count, count, sum(map(len, central)), start, 0)


def test_zip_files_of_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(Budget, "steps", guard.BUDGET)
    central = [struct.pack("<4s6H3I5H2I", CENTRAL, *[0] * 9, 6, *[0] * 6) + b"%06d" % i for i in range(100_000)]
    path = tmp_path / "file"
    refused(path, b"PK\x03\x04" + b"".join(central) + _end(0, central, 4))


def test_keras_documents_that_lie(tmp_path):
    path = tmp_path / "file"
    containers.hdf5(tmp_path / "weights")
    weights = ("model.weights.h5", (tmp_path / "weights").read_bytes())
    assert "config.json" in refused(path, zipped(("config.json", b"{"), weights))
    assert "config.json" in refused(path, zipped(("config.json", b"\xff\xfe"), weights))
    assert "config.json" in refused(path, zipped(("config.json", b"[" * 1_000_000), weights))
    assert "model.weights.h5" in refused(path, zipped(("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(100))))


# msgpack


def extension(shape, dtype, data, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, data)))


def pieces(side: int, *chunks) -> dict:
    numbered = {str(i): chunk for i, chunk in enumerate(chunks)}
    return {"__msgpack_chunked_array__": True, "shape": {"0": side}, "chunks": numbered}


MSGPACK = {
    "too few bytes": (extension((2, 2), "float32", bytes(12)), "takes 16"),
    "too many bytes": (extension((2,), "float32", bytes(12)), "takes 8"),
    "a huge shape": (extension((2**40, 2**40), "float32", bytes(12)), "takes"),
    "a negative shape": (extension((-1,), "float32", b""), "a shape"),
    "a shape of text": (extension("aa", "float32", b""), "a shape"),
    "a long shape": (extension((1,) * 10_000, "float32", bytes(4)), "a shape"),
    "objects": (extension((1,), "object", bytes(8)), "not a type of numbers"),
    "fields": (extension((1,), "f4," * 1000, bytes(8)), "not a type of numbers"),
    "text for bytes": (extension((4,), "int8", "abcd"), "has others"),
    "an unknown extension": (msgpack.ExtType(9, b""), "extension 9"),
    "pieces of other types": (
        pieces(2, extension((1,), "f4", bytes(4)), extension((1,), "f2", bytes(2))),
        "do not fit",
    ),
    "pieces of another shape": (pieces(2**40, extension((1,), "f4", bytes(4))), "have 1 numbers"),
    "pieces without a shape": ({"__msgpack_chunked_array__": True}, "KeyError"),
    "pieces that are numbers": (pieces(1, 1), "corrupt"),
    "a key that is a list": ({(1, 2): 1}, "a key is a list"),
}  # fmt: skip


@pytest.mark.parametrize("name", MSGPACK)
def test_msgpack_that_lies(name, tmp_path):
    value, message = MSGPACK[name]
    found = refused(tmp_path / "file", msgpack.packb({"a": value}))
    assert message in found and "at byte" in found


@pytest.mark.parametrize(
    "content",
    [
        b"\x81\xa1a" + b"\x91" * 1_000_000,  # lists in lists
        b"\x81\xa1a\xdd\xff\xff\xff\xff",  # a long list, of nothing
        b"\x81\xa1a\xdd\0\3\0\0" + b"\x80" * 0x30000,  # many maps
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\x81\xa1a\xdb\xff\xff\xff\xff",
        b"\x81\xa1a\xc1",
        b"\x81\xa1a\x01\0",
        b"\x82\xa1a\x01\xa1a\x01",
        b"\x81\xa1\xff\x01",
    ],
)
def test_msgpack_that_is_damaged(content, tmp_path, monkeypatch):
    monkeypatch.setattr(Budget, "steps", guard.BUDGET)
    message = refused(tmp_path / "file", content)
    assert "at byte" in message or "many times over" in message


# HDF5


def hdf5(path, change, **options) -> None:
    with h5py.File(path, "w", **options) as file:
        file["group/a"] = np.arange(6.0)
        change(file)


def compressed(file) -> None:
    """A dataset of 100 MB of zeros in some hundred KB."""
    file.create_dataset("b", data=np.zeros(12_500_000), chunks=(12_500_000,), compression="gzip")


def two_paths(file) -> None:
    file["other"] = file["group"]


def around(file) -> None:
    file["group/loop"] = file["group"]


HDF5 = {
    "an external link": (lambda f: f.__setitem__("b", h5py.ExternalLink("secret", "/a")), "link"),
    "an external link in a group": (lambda f: f["group"].__setitem__("b", h5py.ExternalLink("secret", "/a")), "link"),
    "a soft link": (lambda f: f.__setitem__("b", h5py.SoftLink("/group/a")), "link"),
    "a soft link to itself": (lambda f: f.__setitem__("b", h5py.SoftLink("/b")), "link"),
    "a circle": (around, "group"),
    "two paths": (two_paths, "group that is in two"),
    "external storage": (
        lambda f: f.create_dataset("b", (6,), "f8", external=[("secret", 0, 48)]),
        "b: truncated, corrupt or of an unknown kind (ValueError: its numbers are in another file",
    ),
    "a virtual dataset": (
        lambda f: f.create_virtual_dataset("b", _virtual()),
        "b: truncated, corrupt or of an unknown kind (ValueError: a layout",
    ),
    "chunks that are missing": (lambda f: f.create_dataset("b", (100,), "f4", chunks=(10,)), "0 chunks, expected 10"),
    "another compression": (lambda f: f.create_dataset("b", data=np.arange(9.0), compression="lzf"), "filter 32000"),
    "depth": (lambda f: f.create_group("/".join("a" * 200)), "too deep"),
    "a model that is no JSON": (lambda f: f.attrs.__setitem__("model_config", "{"), "model_config"),
}  # fmt: skip


def _virtual() -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((6,), "f8")
    layout[:] = h5py.VirtualSource("secret", "a", (6,))
    return layout


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("name", HDF5)
def test_hdf5_that_leads_elsewhere(name, libver, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(48))
    if name == "external storage" and libver == "latest":
        libver = "v110"
    change, message = HDF5[name]
    if name == "chunks that are missing" and libver == "latest":
        message = "b: "
    hdf5("file", change, libver=libver)
    assert message in refused(tmp_path / "file")


def test_compressed_hdf5_is_unpacked_when_it_is_used(tmp_path):
    """A model knows what shape it wants before anything is unpacked."""
    path = tmp_path / "file"
    hdf5(path, compressed)
    tracemalloc.start()
    found = formats.read(path)
    assert tracemalloc.get_traced_memory()[1] < guard.MEMORY
    tracemalloc.stop()
    assert found["b"].shape == (12_500_000,)
    with h5py.File(path) as file:
        place = file["b"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 1000 : place + 1050] = b"\xff" * 50
    path.write_bytes(content)
    damaged = formats.read(path)
    with pytest.raises(CheckpointError, match=r"file, b"):
        np.asarray(damaged["b"])


def test_hdf5_names_many_times_over(tmp_path, monkeypatch):
    """Long names of groups with many members are no way to fill the memory."""
    monkeypatch.setattr(Budget, "text", 1_000_000)

    def change(file) -> None:
        group = file.create_group("x" * 60_000)
        for i in range(50):
            group.create_group(str(i))

    hdf5(tmp_path / "file", change)
    assert "many times over" in refused(tmp_path / "file")
