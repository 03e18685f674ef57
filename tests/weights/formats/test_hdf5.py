"""HDF5 files in all the forms in which h5py and Keras write them, with h5py as the oracle."""

import json

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest

from flaim.weights import CheckpointError, formats

RNG = np.random.default_rng(0)
NUMBERS = RNG.standard_normal((70, 33), np.float32)


def types(file: h5py.File) -> None:
    for name in ("f2", "<f4", ">f4", "<f8", ">f8", "i1", "u1", "<i2", ">i2", "<u4", "<i8", ">u8", "?"):
        file[f"of {name.strip('<>')}/{name}"] = (RNG.standard_normal((3, 5)) * 100 % 2).astype(name)


def shapes(file: h5py.File) -> None:
    file["scalar"] = np.float32(3.5)
    file["empty"] = np.zeros((0, 3), np.float32)
    file["nothing"] = h5py.Empty("f4")
    file["text"] = "text"
    file["texts"] = ["a", "b"]
    file["axes"] = RNG.standard_normal((1, 2, 1, 3, 2, 2))
    file["records"] = np.zeros(3, "f4,i4")
    file.create_group("nobody/home")
    file["a name with spaces/ünïcode/0"] = NUMBERS


def chunks(file: h5py.File) -> None:
    options = {
        "plain": {},
        "gzip": {"compression": "gzip"},
        "all": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "checksum": {"fletcher32": True},
        "shuffled": {"shuffle": True},
    }
    for name, values in options.items():
        for size in ((70, 33), (16, 16), (7, 11), (100, 40)):
            values = {**values, "maxshape": (100, 40)} if size == (100, 40) else values
            file.create_dataset(f"{name}/{size[0]}", data=NUMBERS, chunks=size, **values)
    file.create_dataset("many", data=NUMBERS, chunks=(1, 1))
    file.create_dataset("numbers", data=np.arange(5000), chunks=(3,))


def compact(file: h5py.File) -> None:
    space = h5py.h5s.create_simple((4,))
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    dataset = h5py.h5d.create(file.id, b"compact", h5py.h5t.NATIVE_FLOAT, space, properties)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(4, dtype="f4"))


def many_attributes(file: h5py.File) -> None:
    group = file.create_group("many")
    for i in range(300):
        group.attrs[f"attribute {i:03d}"] = float(i) if i % 2 else f"value {i}" * 20
    group["a"] = NUMBERS


def many_links(file: h5py.File) -> None:
    for i in range(1500):
        file[f"group/dataset number {i * 7919 % 1500:05d}"] = np.float32(i)
    for i in range(20):
        file[f"group {i}/a/b/c"] = np.float32(i)


def deleted(file: h5py.File) -> None:
    many_links(file)
    for i in range(0, 1500, 3):
        del file[f"group/dataset number {i:05d}"]


FORMS = [types, shapes, chunks, compact, many_attributes, many_links, deleted]


def value_of(value):
    """An attribute as h5py reads it, in Python's terms."""
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, bytes | np.bytes_):
        return value.decode()
    if isinstance(value, np.ndarray):
        return [item.decode() if isinstance(item, bytes) else item for item in value.ravel().tolist()]
    return value.item() if isinstance(value, np.generic) else value


def assert_same(path) -> None:
    """All arrays and attributes are as h5py reads them."""
    found, notes = formats.read(path), formats.metadata(path)
    expected, said = {}, {}

    def visit(name: str, item) -> None:
        if isinstance(item, h5py.Dataset):
            if item.shape is not None and item.dtype.kind in "biuf":
                expected[name] = item[()]
        elif len(item.attrs):
            said[f"attributes/{name}".rstrip("/")] = {key: value_of(value) for key, value in item.attrs.items()}

    with h5py.File(path) as file:
        visit("", file)
        file.visititems(visit)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype), name
        assert np.array_equal(np.asarray(found[name]), value), name
    assert {name: value for name, value in notes.items() if name.startswith("attributes")} == said


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"libver": "v108", "track_order": True}], ids=str)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_forms(form, options, tmp_path):
    with h5py.File(tmp_path / "file", "w", **options) as file:
        form(file)
    assert_same(tmp_path / "file")


@pytest.mark.parametrize("size", [512, 1024, 4096])
def test_user_blocks(size, tmp_path):
    path = tmp_path / "file"
    with h5py.File(path, "w", userblock_size=size) as file:
        types(file)
    content = bytearray(path.read_bytes())
    content[:size] = b"u" * size
    path.write_bytes(content)
    assert_same(path)


def test_attributes(tmp_path):
    path = tmp_path / "file"
    with h5py.File(path, "w") as file:
        file.attrs["text"], file.attrs["bytes"] = "text", b"bytes"
        file.attrs["fixed"], file.attrs["names"] = np.bytes_(b"fixed"), [b"one", b"two and more"]
        file.attrs["texts"], file.attrs["number"] = ["one", "zwei", ""], 3
        file.attrs["numbers"], file.attrs["truth"] = np.arange(6.0).reshape(2, 3), True
        file.attrs["none"], file.attrs["empty"] = np.zeros(0, np.float32), h5py.Empty("f4")
        file.attrs["model_config"] = json.dumps({"layers": ["x" * 100] * 2000})
    assert_same(path)
    assert formats.metadata(path)["model_config"] == {"layers": ["x" * 100] * 2000}


def test_attributes_of_more_than_64_kb(tmp_path):
    path = tmp_path / "file"
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["large"] = np.arange(20_000)
        file.attrs["names"] = np.array([b"a name of some length %d" % i for i in range(5000)])
        file.attrs["small"] = "small"
    assert_same(path)


def test_arrays_that_can_grow(tmp_path):
    """The old form of them is read, the new one is refused by name."""
    for libver in ("earliest", "latest"):
        with h5py.File(tmp_path / libver, "w", libver=libver) as file:
            file.create_dataset("a", data=NUMBERS, chunks=(7, 7), maxshape=(None, 33))
    assert_same(tmp_path / "earliest")
    with pytest.raises(CheckpointError, match=r"latest, a: .* an array that can grow"):
        formats.read(tmp_path / "latest")


def test_bfloat16_of_keras(tmp_path):
    """Keras writes it as two bytes that an attribute explains."""
    path = tmp_path / "model.weights.h5"
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, dtype=keras.DTypePolicy("bfloat16"))])
    model.save_weights(path)
    found = formats.read(path)
    expected = [np.asarray(weight.value) for weight in model.layers[-1].weights]
    assert [found[f"layers/dense/vars/{i}"].dtype for i in (0, 1)] == [ml_dtypes.bfloat16] * 2
    assert all(np.array_equal(found[f"layers/dense/vars/{i}"], value) for i, value in enumerate(expected))
