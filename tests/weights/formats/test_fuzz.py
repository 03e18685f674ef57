"""Valid files of every format with bytes changed or missing, and files of random structure."""

import json
import struct
import tracemalloc
import zlib

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from flaim.weights import formats
from tests.weights.formats import containers, guard

CASES = 200  # of each way in which a format is written: 3,800 in all

INTERESTING = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)


def changed(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with bits flipped, a number replaced, bytes moved, repeated or removed."""
    data = bytearray(content)
    at = int(rng.integers(len(data)))
    match rng.integers(6):
        case 0:
            return content[:at]
        case 1 | 2:
            for _ in range(rng.integers(1, 9)):
                data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        case 3 | 4:
            size = int(rng.choice((1, 2, 4, 8)))
            value = int(rng.choice((*map(float, INTERESTING), len(data), at)))
            data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
        case _:
            size, other = int(rng.integers(1, 200)), int(rng.integers(len(data)))
            data[at : at + size * int(rng.integers(2))] = data[other : other + size]
    return bytes(data)


@pytest.mark.parametrize("write", containers.FORMATS, ids=lambda write: write.__name__)
def test_changed_files(write, tmp_path):
    path = tmp_path / "file"
    write(path)
    content = path.read_bytes()
    rng = np.random.default_rng(zlib.crc32(write.__name__.encode()))
    guard.outcome(path)
    tracemalloc.start()
    refused = 0
    try:
        for case in range(CASES):
            data = changed(content, rng)
            path.write_bytes(data)
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            result = guard.outcome(path)
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < len(data) + 4_000_000, (case, peak)
            refused += isinstance(result, str)
            if data == content[: len(data)] and not isinstance(result, str):  # what is cut off was not needed
                assert all(np.array_equal(value, containers.TENSORS[name]) for name, value in result.items()), case
                assert result.keys() == containers.TENSORS.keys(), case
    finally:
        tracemalloc.stop()
    assert refused > CASES / 10


dtypes = st.sampled_from(("F32", "F16", "BF16", "I8", "BOOL", "I64"))
numbers = st.integers(-1, 40) | st.sampled_from((2**31, 2**63, 2**64))
entries = st.fixed_dictionaries(
    {"dtype": dtypes, "shape": st.lists(numbers, max_size=3), "data_offsets": st.lists(numbers, min_size=2, max_size=2)}
)


@st.composite
def layouts(draw) -> tuple[dict, int]:
    """Headers that are right, and the size of their data; perhaps one number in them is wrong."""
    header, position = {}, 0
    for i in range(draw(st.integers(1, 4))):
        dtype, shape = draw(dtypes), draw(st.lists(st.integers(0, 4), max_size=3))
        width = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "BOOL": 1, "I64": 8}[dtype]
        end = position + int(np.prod(shape)) * width
        header[f"t{i}"] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    if draw(st.booleans()):
        header[draw(st.sampled_from(list(header)))] |= draw(entries)
    return header, position + draw(st.sampled_from((0, 0, 0, 0, 1, -1)))


@settings(max_examples=400, derandomize=True, deadline=None, database=None)
@given(layouts() | st.tuples(st.dictionaries(st.text(max_size=3), entries, max_size=4), st.integers(0, 64)))
def test_safetensors_headers(tmp_path_factory, layout):
    """We take what the library takes, and nothing else."""
    header, size = layout
    text = json.dumps(header).encode()
    content = struct.pack("<Q", len(text)) + text + np.random.default_rng(0).bytes(max(size, 0))
    path = tmp_path_factory.getbasetemp() / "header.safetensors"
    path.write_bytes(content)
    result = guard.outcome(path)
    try:
        expected = dict(deserialize(content))
    except SafetensorError:
        assert isinstance(result, str)
        return
    if any(side >= 2**63 for value in expected.values() for side in value["shape"]):  # NumPy has no such array
        assert isinstance(result, str)
        return
    assert not isinstance(result, str), result
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert (list(result[name].shape), result[name].tobytes()) == (value["shape"], bytes(value["data"])), name


pieces = st.sampled_from(
    (
        b"N", b"}", b"]", b")", b"(", b"0", b"1", b"2", b"a", b"e", b"s", b"u", b"t", b"l", b"d", b"R", b"b", b"\x94",
        b"\x85", b"\x86", b"\x87", b"\x93", b"h\0", b"h\1", b"h\2", b"q\0", b"q\1", b"q\2", b"K\1", b"K\4", b"K\2",
        b"C\4abcd", b"C\x08abcdefgh", b"\x8c\1a", b"\x8c\1<", b"\x8c\2f4", b"\x8c\5numpy", b"\x8c\5dtype",
        b"Q", b"X\1\0\0\0b",
        b"\x89", b"\x88", b"I-1\n", b"L5L\n", b"F1.5\n", b"S'abcd'\n", b"Vabcd\n", b"I01\n", b"\x8a\1\x80", b"U\1a",
        b"ccollections\nOrderedDict\n", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n",
        b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\nscalar\n",
        b"cnumpy.core.numeric\n_frombuffer\n", b"cjax._src.array\n_reconstruct_array\n", b"cml_dtypes\nbfloat16\n",
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\1b\x87R",
        b"cnumpy\ndtype\n\x8c\2f4\x85R", b"(K\1K\1\x85h\1\x89C\4abcdtb", b"\x8c\6latin1",
    )
)  # fmt: skip


@settings(max_examples=600, derandomize=True, deadline=None, database=None)
@given(st.lists(pieces, max_size=40))
def test_random_pickles(tmp_path_factory, opcodes):
    path = tmp_path_factory.getbasetemp() / "pickle"
    path.write_bytes(b"\x80\4" + b"".join(opcodes) + b".")
    guard.outcome(path)
    path.write_bytes(b"\x80\4}\x94(\x8c\1a" + b"".join(opcodes) + b"u.")
    guard.outcome(path)


values = st.recursive(
    st.none() | st.integers(-5, 300) | st.text(max_size=3) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
arrays = st.builds(
    lambda shape, dtype, data, code: msgpack.ExtType(code, msgpack.packb((shape, dtype, data))),
    st.lists(st.integers(-1, 3), max_size=3) | values,
    st.sampled_from(("float32", "bfloat16", "int8", "object", "V2", "")) | values,
    st.binary(max_size=16) | values,
    st.integers(1, 4),
)
chunked = st.fixed_dictionaries(
    {
        "__msgpack_chunked_array__": st.just(True),
        "shape": st.dictionaries(st.sampled_from("012"), st.integers(0, 4), max_size=3) | values,
        "chunks": st.dictionaries(st.sampled_from("012"), arrays | values, max_size=3) | values,
    }
)


@settings(max_examples=400, derandomize=True, deadline=None, database=None)
@given(st.dictionaries(st.text(max_size=3), values | arrays | chunked, min_size=1, max_size=3))
def test_random_msgpack(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "msgpack"
    path.write_bytes(msgpack.packb(tree))
    guard.outcome(path)


def test_readers_are_left_as_they_were():
    """Nothing that the files above ask for changed the table of names."""
    assert all(value is None or callable(value) for value in formats._pickle.FUNCTIONS.values())
    assert not {"posix.system", "builtins.eval", "builtins.getattr"} & set(formats._torch.TORCH_FUNCTIONS)
