"""Pickles that try to run code, to hang or to take all memory, alone and in PyTorch's files."""

import collections
import os
import pickle
import pickletools
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from flaim.weights import formats
from flaim.weights.formats._fields import Budget
from tests.weights.formats import guard
from tests.weights.formats.guard import refused

MARKER = "flaim-was-here"


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


class Sets:
    """Pickles as an object with a state that `__setstate__` gets."""

    def __setstate__(self, state):
        os.mkdir(MARKER)

    def __reduce__(self):
        return Sets, (), {"a": 1}


def text(value: str) -> bytes:
    """An opcode that pushes a string."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


DICT, MKDIR = b"ccollections\nOrderedDict\n", f"import os; os.mkdir('{MARKER}')"
DTYPE = b"cnumpy\ndtype\n" + text("f4") + b"\x85R"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\1b\x87R"

# What is wrong with each, and a word of the error.
CODE = {
    "system": (pickle.dumps(Calls(os.system, f"mkdir {MARKER}")), "posix.system"),
    "system, protocol 0": (pickle.dumps(Calls(os.system, f"mkdir {MARKER}"), 0), "posix.system"),
    "eval": (pickle.dumps(Calls(eval, MKDIR)), "builtins.eval"),
    "exec of an older pickle": (pickle.dumps(Calls(exec, MKDIR), 2), "__builtin__.exec"),
    "within a dictionary": (pickle.dumps({"a": np.ones(3), "b": [Calls(os.system, "true")]}), "posix.system"),
    "as a key": (pickle.dumps({Calls(os.system, "true"): 1}), "posix.system"),
    "nested": (pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system")), "builtins.getattr"),
    "as the argument of a harmless call": (
        pickle.dumps(Calls(collections.OrderedDict, Calls(eval, MKDIR))),
        "builtins.eval",
    ),
    "a state": (pickle.dumps(Sets()), "Sets"),
    "a class": (pickle.dumps(torch.nn.Linear), "torch.nn.modules.linear.Linear"),
    "a path with dots": (b"\x80\4" + text("numpy") + text("ndarray.__class__") + b"\x93.", "numpy.ndarray.__class__"),
    "a module of a harmless one": (b"cnumpy.core.multiarray\nos.system\n.", "os.system"),
    "a name from the memo": (
        b"\x80\4" + text("system") + b"\x940" + text("posix") + b"\x940h\1h\0\x93" + text("true") + b"\x85R.",
        "posix.system",
    ),
    "a name of parts": (b"\x80\4]\x94h\0" + text("posix") + b"ah\0" + text("system") + b"a0h\0h\0\x93.", "no string"),
    "a call of what was made": (DICT + b")R)R.", "no function"),
    "a call of text": (b"\x80\4" + text("collections.OrderedDict") + b")R.", "no function"),
    "a call of a name that is for comparing": (b"cnumpy\nndarray\n)R.", "calls numpy.ndarray"),
    "INST": (b"(S'true'\niposix\nsystem\n.", "INST"),
    "OBJ": (b"(cposix\nsystem\nS'true'\no.", "posix.system"),
    "OBJ of a harmless name": (b"(" + DICT + b"o.", "OBJ"),
    "NEWOBJ": (b"\x80\2" + DICT + b")\x81.", "NEWOBJ"),
    "NEWOBJ_EX": (b"\x80\4" + DICT + b")}\x92.", "NEWOBJ_EX"),
    "BUILD of a name": (DICT + b"}b.", "changes a Name"),
    "BUILD of text": (b"\x80\4" + text("a") + b"}b.", "changes a str"),
    "EXT1": (b"\x80\2\x82\1.", "EXT1"),
    "EXT2": (b"\x80\2\x83\1\0.", "EXT2"),
    "EXT4": (b"\x80\2\x84\1\0\0\0.", "EXT4"),
    "a persistent id": (b"\x80\2" + b"X\1\0\0\0aQ.", "persistent"),
    "a persistent id, protocol 0": (b"(Pa\n.", "persistent"),
    "an array of objects": (pickle.dumps({"a": np.array([Calls(os.system, "true")])}), "other things than numbers"),
    "an array of a user's class": (EMPTY.replace(b"cnumpy\nndarray", DICT[:-1]) + b".", "another class"),
    "a type of objects": (b"cnumpy\ndtype\n" + text("O8") + b"\x85R.", "other things than numbers"),
    "a type with fields": (pickle.dumps(np.zeros(2, [("a", "f4")])), "other things than numbers"),
    "bytes in another encoding": (b"c_codecs\nencode\n" + text("a") + text("rot13") + b"\x86R.", "Latin-1"),
    "a set": (pickle.dumps({1, 2}, 4), "a set"),
    "a buffer outside": (b"\x80\5\x97.", "a buffer"),
}
BEGIN = b"\x80\4"  # what the oldest pickles do without, and our readers tell formats apart by


def repeated(opcodes: bytes, times: int = 40_000) -> bytes:
    return opcodes * times


def doubling(times: int = 60) -> bytes:
    """A tuple of twice the tuple before, and so on: its text would be 2**times long."""
    return b")\x94" + b"".join(b"h%ch%c\x86\x94" % (i, i) for i in range(times))


COLLIDING = b"".join(b"\x8a\x0c" + ((2**61 - 1) * i).to_bytes(12, "little") + b"N" for i in range(1, 60_000))
BOMBS = {
    "depth": BEGIN + b"]" * 50_000 + b"a" * 49_999 + b".",
    "depth of dictionaries": BEGIN + (b"}" + text("a")) * 20_000 + b"}" + b"s" * 20_000 + b".",
    "a list in itself": BEGIN + b"]\x94" + repeated(b"h\0a", 1000) + b".",
    "a dictionary of itself, twice": BEGIN + b"}\x94" + text("a") + b"h\0s" + text("b") + b"h\0s.",
    "doubling": BEGIN + doubling() + b".",
    "doubling, as a shape": BEGIN + EMPTY + b"(K\1" + doubling() + DTYPE + b"\x89C\0tb.",
    "a huge shape": BEGIN + EMPTY + b"(K\1(" + repeated(b"K\2", 100_000) + b"t" + DTYPE + b"\x89C\0tb.",
    "sides of many digits": BEGIN + EMPTY + b"(K\1(" + repeated(b"\x8a\xff" + b"\x7f" * 255, 300) + b"t" + DTYPE
    + b"\x89C\0tb.",
    "a number of many bytes": BEGIN + b"\x8b" + struct.pack("<i", 1_000_000) + b"\x7f" * 1_000_000 + b".",
    "a number of many digits": b"(I" + b"9" * 60_000 + b"\n.",
    "a line without an end": b"(I" + b"9" * 3_000_000,
    "copies of a list": BEGIN + b"]\x94(" + repeated(b"NN\x86") + b"e0" + repeated(DICT + b"h\0\x85R0", 2000) + b".",
    "copies of a dictionary": BEGIN + b"}\x94("
    + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(10_000)) + b"u0"
    + repeated(DICT + b"h\0\x85R0", 2000) + b".",
    "wide text": BEGIN + b"("
    + repeated(b"X" + struct.pack("<I", 1_000_000) + b"a" * 999_996 + "😀".encode(), 40) + b"t.",
    "wide text in lines": b"(" + repeated(b"V" + b"a" * 1_000_000 + b"\\U0001F600\n", 40) + b"t.",
    "keys of one hash": BEGIN + b"}(" + COLLIDING + b"u.",
    "a memo of one hash": b"(N" + b"".join(b"p%d\n" % ((2**61 - 1) * i) for i in range(60_000)) + b".",
    "a memo that is not there": BEGIN + b"j" + struct.pack("<I", 4_000_000_000) + b".",
    "sizes beyond the end": BEGIN + b"B" + struct.pack("<I", 4_000_000_000) + b"abc.",
    "sizes below nothing": BEGIN + b"T" + struct.pack("<i", -5) + b"abc.",
    "a frame beyond the end": BEGIN + b"\x95" + struct.pack("<Q", 1 << 60) + b"N.",
    "an empty stack": BEGIN + b"00000.",
    "no stop": BEGIN + b"N" * 1000,
    "a later protocol": b"\x80\x09N.",
    "too many opcodes": BEGIN + repeated(b"N0", 120_000) + b".",
}  # fmt: skip

TEXT = b"X" + struct.pack("<I", 1_000_000) + b"a" * 1_000_000 + b"\x940"
SHAPE = b"J" + struct.pack("<i", 250_000) + b"\x85"
NUMPY = b"cnumpy.core.multiarray\n"
COPIES = {
    "encoded": BEGIN + b"(" + TEXT + DTYPE + b"\x940"
    + repeated(EMPTY + b"(K\1" + SHAPE + b"h\1\x89c_codecs\nencode\nh\0X\6\0\0\0latin1\x86Rtb", 300) + b"l.",
    "as text": BEGIN + b"(" + TEXT + DTYPE + b"\x940"
    + repeated(EMPTY + b"(K\1" + SHAPE + b"h\1\x89h\0tb", 300) + b"l.",
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path, monkeypatch):
    """No pickle leaves a trace, wherever it runs."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / MARKER).exists()


@pytest.mark.parametrize("name", CODE)
def test_code_is_refused(name, tmp_path):
    content, word = CODE[name]
    if content[:1] not in (b"\x80", b"("):
        content = BEGIN + content
    message = refused(tmp_path / "file", content)
    assert word in message and "at byte" in message


@pytest.mark.parametrize("name", CODE)
def test_code_in_torchs_files_is_refused(name, tmp_path):
    """The same within a zip file, and after the magic number of the older files."""
    content, word = CODE[name]
    if "persistent" in name or "bytes" in name:  # which are asked for what storage they mean
        word = ""
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("archive/data.pkl", content)
    assert word in refused(tmp_path / "zip")
    before = formats._pickle.MAGIC_OF_TORCH + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    assert word in refused(tmp_path / "old", before + content)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name, tmp_path, monkeypatch):
    monkeypatch.setattr(Budget, "steps", guard.BUDGET)
    monkeypatch.setattr(Budget, "text", guard.BUDGET)
    refused(tmp_path / "file", BOMBS[name])


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_made_when_they_are_used(name, tmp_path):
    """Many arrays of the same bytes take no more memory than one."""
    path = tmp_path / "file"
    path.write_bytes(COPIES[name])
    tracemalloc.start()
    with guard.seconds(), guard.unchecked():
        found = formats.read(path)
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size + guard.MEMORY
    tracemalloc.stop()
    assert all(np.asarray(found[name]).nbytes == 1_000_000 for name in list(found)[:2])


def test_every_opcode_is_known():
    """Each is either read or refused by its own name."""
    known = {ord(opcode.code) for opcode in pickletools.opcodes}
    assert known == {*map(ord, formats._pickle_machine._ACTIONS), ord(".")}


def test_dictionaries_of_python_2(tmp_path):
    """They are called with a list of pairs."""
    array = pickle.dumps(np.arange(3.0), 2)[2:-1]
    path = tmp_path / "file"
    path.write_bytes(b"\x80\2" + DICT + b"]](" + b"X\1\0\0\0a" + array + b"ea\x85R.")
    assert np.array_equal(formats.read(path)["a"], np.arange(3.0))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array", [np.zeros((0, 3)), np.ones((), "f2"), np.asfortranarray(np.eye(3)), np.arange(3, dtype=">i4")]
)
def test_arrays_of_all_kinds(array, protocol, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(pickle.dumps({"a": array}, protocol))
    found = formats.read(path)["a"]
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    assert np.array_equal(np.asarray(found), array)


# PyTorch's zip files


def members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, **changes) -> None:
    """Write a zip file anew, with other contents of members whose names end in a key."""
    content = members(path)
    with zipfile.ZipFile(path, "w", changes.pop("compression", zipfile.ZIP_STORED)) as archive:
        for name, value in content.items():
            for end, change in changes.items():
                value = change(value) if name.endswith(f"/{end}") else value
            if value is not None:
                archive.writestr(name, value)


def replaced(old: bytes, new: bytes):
    def change(value: bytes) -> bytes:
        assert old in value
        return value.replace(old, new)

    return change


TORCH = {
    "a storage that is too short": ({"data/0": lambda v: v[:-4]}, "found 20 bytes, expected 6 numbers"),
    "a storage that is too long": ({"data/0": lambda v: v + v}, "found 48 bytes, expected 6 numbers"),
    "a storage that is not there": ({"data/0": lambda v: None}, "no member 'file/data/0'"),
    "no pickle": ({"data.pkl": lambda v: None}, "neither Keras', NumPy's nor PyTorch's"),
    "a key that is a path": ({"data.pkl": replaced(b"X\1\0\0\x000q", b"X\5\0\0\0../..q")}, "no member"),
    "an offset beyond the end": ({"data.pkl": replaced(b"QK\0K\2K\3\x86", b"QK\1K\2K\3\x86")}, "shape (2, 3)"),
    "strides beyond the end": ({"data.pkl": replaced(b"K\3K\1\x86", b"K\4K\1\x86")}, "strides (4, 1)"),
    "a shape beyond the end": ({"data.pkl": replaced(b"QK\0K\2K\3\x86", b"QK\0K\3K\3\x86")}, "shape (3, 3)"),
    "one number a million times": ({"data.pkl": replaced(
        b"K\2K\3\x86q\x08K\3K\1\x86", b"M\xff\xffM\xff\xff\x86q\x08K\0K\0\x86"
    )}, "65535"),
    "another type": ({"data.pkl": replaced(b"FloatStorage", b"DoubleStorage")}, "found 24 bytes"),
    "no type at all": ({"data.pkl": replaced(b"FloatStorage", b"TextStorage")}, "torch.TextStorage"),
    "another byte order": ({"byteorder": lambda v: b"middle"}, "byteorder"),
    "compressed": ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_torchs_files_that_lie(name, tmp_path):
    changes, message = TORCH[name]
    path = tmp_path / "file"
    torch.save({"a": torch.arange(6.0).reshape(2, 3)}, path)
    rewrite(path)
    assert formats.read(path)["a"].shape == (2, 3)
    rewrite(path, **changes)
    assert message in refused(path)


def test_tensors_that_stand_for_others(tmp_path):
    path = tmp_path / "file"
    torch.save({"a": torch.ones(2, dtype=torch.complex64).conj()}, path)
    assert "stored as another one" in refused(path)


def test_many_dictionaries_without_tensors(tmp_path, monkeypatch):
    """Dictionaries of one another, which a search for tensors would be lost in."""
    monkeypatch.setattr(Budget, "steps", guard.BUDGET)
    level: dict = {}
    for _ in range(5):
        level = dict.fromkeys(range(2000), level)
    path = tmp_path / "file"
    torch.save(level, path)
    assert "many times over" in refused(path)
