"""safetensors files that lie, and indices of several of them."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from flaim.weights import CheckpointError, formats
from flaim.weights.formats._fields import Budget
from tests.weights.formats import guard
from tests.weights.formats.guard import refused


def entry(begin: int, end: int, shape=(2,), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def with_header(header: dict | str, data: bytes = bytes(16)) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


TWO = {"a": entry(0, 8), "b": entry(8, 16)}
SAFETENSORS = {
    "a gap": (TWO | {"b": entry(12, 16, [1])}, "b: it begins at byte 12 of the data and leaves a gap"),
    "an overlap": (TWO | {"b": entry(4, 12)}, "b: it begins at byte 4 of the data and overlaps"),
    "the same place twice": ({"a": entry(0, 16, [4]), "b": entry(0, 16, [4])}, "b: it begins at byte 0 of the data"),
    "beyond the end": (TWO | {"b": entry(8, 24, [4])}, "b: it is at bytes 8 to 24 of 16"),
    "less than there is": ({"a": entry(0, 8)}, "the tensors end at byte"),
    "backwards": (TWO | {"b": entry(16, 8)}, "b: it is at bytes 16 to 8"),
    "another shape": (TWO | {"b": entry(8, 16, [3])}, "b: it is at bytes 8 to 16 of 16, but shape (3,)"),
    "a huge shape": (TWO | {"b": entry(8, 16, [2**62, 2**62])}, "b: it is at bytes 8 to 16"),
    "a negative shape": (TWO | {"b": entry(8, 16, [-2])}, "b: a shape"),
    "a shape of text": (TWO | {"b": entry(8, 16, ["2"])}, "b: a shape"),
    "no shape": (TWO | {"b": {"dtype": "F32", "data_offsets": [8, 16]}}, "b: 'shape'"),
    "negative offsets": (TWO | {"b": entry(-8, 0)}, "b: a shape"),
    "three offsets": (TWO | {"b": entry(8, 16) | {"data_offsets": [8, 12, 16]}}, "b: too many values"),
    "an unknown type": (TWO | {"b": entry(8, 16, [2], "X32")}, "b: it is of an unknown type, X32"),
    "a type that is a list": (TWO | {"b": entry(8, 16) | {"dtype": ["F32"]}}, "b: "),
    "no entry": (TWO | {"b": 3}, "b: "),
    "a name twice": ('{"a":%s,"a":%s}' % ((json.dumps(entry(0, 16, [4])),) * 2), "'a' is there twice"),
    "depth": ('{"a":' + "[" * 100_000, "RecursionError"),
    "a number of many digits": ('{"a":' + "9" * 100_000 + "}", "digits"),
    "a list": ("[1]", "none of the formats"),
    "notes that are no texts": (TWO | {"__metadata__": {"a": 1}}, "__metadata__"),
    "no JSON": ("{" + "x" * 50, "JSONDecodeError"),
    "another encoding": ('{"a":1}'.encode("utf-16").decode("latin-1"), "none of the formats"),
}  # fmt: skip


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_that_lie(name, tmp_path):
    header, message = SAFETENSORS[name]
    assert message in refused(tmp_path / "file", with_header(header))


def test_all_that_is_wrong_with_safetensors(tmp_path):
    """Everything in one message, but not a million lines of it."""
    message = refused(tmp_path / "file", with_header({f"t{i}": entry(i, i + 1) for i in range(500)}))
    assert all(f"t{i}: " in message for i in range(20)) and "and 480 more" in message


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1, 1 << 40, 200])
def test_safetensors_header_beyond_the_end(size, tmp_path):
    content = struct.pack("<Q", size) + with_header(TWO)[8:]
    assert f"a header of {size} bytes" in refused(tmp_path / "file.safetensors", content)


def test_safetensors_header_of_many_values(tmp_path, monkeypatch):
    monkeypatch.setattr(Budget, "steps", guard.BUDGET)
    assert "more than any checkpoint" in refused(tmp_path / "file", with_header('{"a":[' + "[]," * 200_000 + "[]]}"))
    monkeypatch.setattr(Budget, "text", 1_000_000)
    notes = {"__metadata__": {"a": "x" * 1_000_000}}
    assert "more than any checkpoint" in refused(tmp_path / "file", with_header(notes))


# Indices


@pytest.mark.parametrize(
    "shard", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", ".", "C:x", "a\\b", "a\0b"]
)
def test_shards_outside_the_folder(shard, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file({"a": np.ones(2, "f4")}, tmp_path / "secret.safetensors")
    content = json.dumps({"weight_map": {"a": shard}}).encode()
    assert "not in its folder" in refused(folder / "model.safetensors.index.json", content)
    with pytest.raises(CheckpointError, match="not in its folder"):
        formats.shards_of(folder / "model.safetensors.index.json")


def test_index_that_lies(tmp_path):
    path = tmp_path / "index.json"
    save_file({"a": np.ones(2, "f4"), "b": np.ones(2, "f4")}, tmp_path / "one")
    write = lambda weight_map: json.dumps({"weight_map": weight_map}).encode()  # noqa: E731
    assert "b: in one, but not in the index" in refused(path, write({"a": "one"}))
    assert "c: not in one" in refused(path, write({"a": "one", "b": "one", "c": "one"}))
    assert "there is no file two" in refused(path, write({"a": "one", "b": "two"}))
    assert "an index itself" in refused(path, write({"a": "index.json"}))
    assert "no index" in refused(path, write({"a": 1}))
    assert "no index" in refused(path, write(["one"]))  # type: ignore[arg-type]
    assert "twice" in refused(path, b'{"weight_map": {"a": "one", "a": "one"}}')
    many = refused(path, write({f"a{i}": "one" for i in range(10_000)}))
    assert "more" in many
