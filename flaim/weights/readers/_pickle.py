"""Pickles of nested dictionaries of arrays, read by a machine of our own that can build nothing else.

Python's unpickler imports what a pickle names and calls it. This one has a table of names, each with a function of ours
that makes an inert value, and refuses every other name; the opcodes that make objects in other ways are refused too.
Bytes are views of the file.
"""

import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.readers import _mapped
from flaim.weights.readers._nested import flatten

# How files begin that torch.save wrote before version 1.6: a number, pickled.
MAGIC_OF_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")

_MAX_STEPS = 2_000_000  # a checkpoint takes some 20 opcodes a tensor; each may cost a hundred bytes of memory
_MAX_LINE = 1 << 20  # of text in pickles of protocol 0, where it is not of the data itself


class Name(str):
    """What a pickle names, `"module.name"`. It stands for nothing but itself."""


class Array:
    """An array in the making: first it is empty, then it gets its state."""

    def __init__(self, value: np.ndarray | None = None):
        self.value = value


class DType:
    """A type in the making: first it is named, then it gets its byte order."""

    def __init__(self, value: np.dtype):
        self.value = value


def read(path: Path, data: memoryview) -> dict[str, Any]:
    """The arrays in a pickle of nested dictionaries."""
    value, end = Machine(data, str(path), FUNCTIONS).run()
    if end != len(data):
        raise CheckpointError(f"{path}: {len(data) - end} bytes follow the end of the pickle, at byte {end}")
    return flatten(value, str(path), len(data))


def metadata(path: Path, data: memoryview) -> dict[str, Any]:
    """Nothing."""
    return {}


class Machine:
    """Runs the opcodes of one pickle.

    Args:
        data: The bytes that the pickle is in.
        where: What errors call it.
        functions: What a pickle may name, `"module.name"`, and what is called where the pickle calls it; None for a
            name that is not for calling.
        persistent: Makes a value of a persistent id.
        start: Where in `data` the pickle begins.
    """

    def __init__(
        self,
        data: memoryview,
        where: str,
        functions: Mapping[str, Callable | None],
        persistent: Callable[[Any], Any] | None = None,
        start: int = 0,
    ):
        self.data, self.where, self.functions, self.persistent = data, where, functions, persistent
        self.position = start
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> tuple[Any, int]:
        """The pickle's value, and where the pickle ends."""
        for _ in range(_MAX_STEPS):
            at = self.position
            try:
                opcode = self.data[at]
                self.position += 1
                if opcode == _STOP:
                    return self.stack.pop(), self.position
                _OPCODES[opcode](self)
            except CheckpointError:
                raise
            except _Refused as error:
                message = f"{self.where}: {error}, at byte {at}; flaim reads arrays and nothing else"
                raise CheckpointError(message) from None
            except Exception as error:
                raise CheckpointError(
                    f"{self.where} is truncated or corrupt at byte {at} of {len(self.data)} "
                    f"({type(error).__name__}: {str(error)[:200]})"
                ) from error
        raise CheckpointError(f"{self.where} has more than {_MAX_STEPS} opcodes: it is no checkpoint")

    # Reading arguments

    def take(self, size: int) -> memoryview:
        """The next bytes."""
        end = self.position + size
        if size < 0 or end > len(self.data):
            raise ValueError(f"{size} bytes are announced, {len(self.data) - self.position} follow")
        view = self.data[self.position : end]
        self.position = end
        return view

    def number(self, code: str) -> Any:
        """The next number, in the notation of `struct`."""
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def text(self, code: str) -> str:
        """The next string, which begins with its length."""
        return str(self.take(self.number(code)), "utf-8", "surrogatepass")

    def line(self, limit: int = _MAX_LINE) -> bytes:
        """The bytes up to the next newline."""
        pieces: list[bytes] = []
        start = self.position
        while self.position - start <= limit:
            piece = bytes(self.data[self.position : self.position + (1 << 16)])
            if not piece:
                break
            end = piece.find(b"\n")
            if end >= 0:
                self.position += end + 1
                return b"".join([*pieces, piece[:end]])
            pieces.append(piece)
            self.position += len(piece)
        raise ValueError("a line has no end")

    # The stack

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        """The values above the last mark."""
        values, self.stack = self.stack, self.marks.pop()
        return values

    def mark(self) -> None:
        """Begin a group of values."""
        self.marks.append(self.stack)
        self.stack = []

    def pop(self) -> Any:
        """Take the uppermost value or mark away."""
        return self.stack.pop() if self.stack else self.pop_mark()

    def tuple(self, size: int) -> None:
        """The uppermost values as a tuple."""
        if len(self.stack) < size:
            raise ValueError("the stack is empty")
        values = tuple(self.stack[len(self.stack) - size :])
        del self.stack[len(self.stack) - size :]
        self.push(values)

    def append(self, values: list[Any]) -> None:
        """Add values to the list below them."""
        self._uppermost(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        """Add keys and values to the dictionary below them."""
        target = self._uppermost(dict)
        if len(values) % 2:
            raise ValueError("a key has no value")
        for key, value in zip(values[::2], values[1::2]):
            target[_key(key)] = value

    def collect(self, kind: type) -> None:
        """The values above the last mark as a list or a tuple."""
        values = self.pop_mark()
        self.push(kind(values))

    def dictionary(self) -> None:
        """A dictionary of the keys and values above the last mark."""
        values = self.pop_mark()
        self.push({})
        self.set_items(values)

    def two(self) -> list[Any]:
        """The two uppermost values."""
        values = self.stack[-2:]
        del self.stack[-2:]
        return values

    def _uppermost(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise ValueError(f"there is no {kind.__name__} to add to")
        return self.stack[-1]

    # Names, calls, states

    def name(self, module: Any, name: Any) -> None:
        """A name, if it is one of those in the table."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name is no string")
        full = f"{module}.{name}"
        if full not in self.functions:
            raise _Refused(f"it asks for {full[:200]}")
        self.push(Name(full))

    def reduce(self) -> None:
        """Call a function of ours."""
        function, arguments = self.two()
        if type(function) is not Name or self.functions[function] is None:
            raise _Refused(f"it calls {function if type(function) is Name else 'what is no function'}")
        if type(arguments) is not tuple:
            raise ValueError("arguments are no tuple")
        self.push(self.functions[function](*arguments))  # type: ignore[misc]

    def build(self) -> None:
        """Give the uppermost object its state. A dictionary's is torch's notes about its modules."""
        target, state = self.two()
        if isinstance(target, Array):
            target.value = _array(state)
        elif isinstance(target, DType):
            target.value = _dtype(target.value, state)
        elif type(target) is not dict:
            raise _Refused(f"it changes a {type(target).__name__}")
        self.push(target)

    def persistent_id(self) -> None:
        """A value of a persistent id."""
        if self.persistent is None:
            raise _Refused("it asks for what is outside of it (a persistent id)")
        self.push(self.persistent(self.stack.pop()))

    def frame(self) -> None:
        """The size of what follows; it only helps to read ahead."""
        size = self.number("<Q")
        if size > len(self.data) - self.position:
            raise ValueError(f"{size} bytes are announced, {len(self.data) - self.position} follow")

    def protocol(self) -> None:
        """The version of the opcodes."""
        if (version := self.number("B")) > 5:
            raise ValueError(f"protocol {version}")


class _Refused(Exception):
    """What a pickle asks for and does not get."""


def _key(value: Any) -> Any:
    if type(value) not in (str, int, float, bool, type(None)):
        raise ValueError(f"a key is a {type(value).__name__}")
    return value


def _refuse(what: str) -> Callable[[Machine], None]:
    def refuse(machine: Machine) -> None:
        raise _Refused(f"it {what}")

    return refuse


def _get(machine: Machine, index: int) -> None:
    machine.push(machine.memo[index])


def _put(machine: Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _integer(text: bytes) -> int | bool:
    return {b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text)


def _string(text: bytes) -> str:
    """A string of Python 2, quoted; arrays of that time have their data in such."""
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
        raise ValueError("a string has no quotes")
    return text[1:-1].decode("unicode_escape")


_STOP = ord(".")

_ACTIONS: dict[bytes, Callable[[Machine], Any]] = {
    b"\x80": Machine.protocol,
    b"\x95": Machine.frame,
    # Constants and numbers
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number("B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"J": lambda m: m.push(m.number("<i")),
    b"G": lambda m: m.push(m.number(">d")),
    b"I": lambda m: m.push(_integer(m.line())),
    b"L": lambda m: m.push(int(m.line().rstrip(b"L"))),
    b"F": lambda m: m.push(float(m.line())),
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("B")), "little", signed=True)),
    b"\x8b": lambda m: m.push(int.from_bytes(m.take(m.number("<i")), "little", signed=True)),
    # Text and bytes
    b"\x8c": lambda m: m.push(m.text("B")),
    b"X": lambda m: m.push(m.text("<I")),
    b"\x8d": lambda m: m.push(m.text("<Q")),
    b"V": lambda m: m.push(m.line(len(m.data)).decode("raw_unicode_escape")),
    b"S": lambda m: m.push(_string(m.line(len(m.data)))),
    b"U": lambda m: m.push(str(m.take(m.number("B")), "latin-1")),
    b"T": lambda m: m.push(str(m.take(m.number("<i")), "latin-1")),
    b"C": lambda m: m.push(m.take(m.number("B"))),
    b"B": lambda m: m.push(m.take(m.number("<I"))),
    b"\x8e": lambda m: m.push(m.take(m.number("<Q"))),
    b"\x96": lambda m: m.push(m.take(m.number("<Q"))),
    # Containers
    b"(": Machine.mark,
    b")": lambda m: m.push(()),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b"t": lambda m: m.collect(tuple),
    b"l": lambda m: m.collect(list),
    b"d": Machine.dictionary,
    b"\x85": lambda m: m.tuple(1),
    b"\x86": lambda m: m.tuple(2),
    b"\x87": lambda m: m.tuple(3),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.pop_mark()),
    b"s": lambda m: m.set_items(m.two()),
    b"u": lambda m: m.set_items(m.pop_mark()),
    # The stack and the memo
    b"0": Machine.pop,
    b"1": Machine.pop_mark,
    b"2": lambda m: m.push(m.stack[-1]),
    b"g": lambda m: _get(m, int(m.line())),
    b"h": lambda m: _get(m, m.number("B")),
    b"j": lambda m: _get(m, m.number("<I")),
    b"p": lambda m: _put(m, int(m.line())),
    b"q": lambda m: _put(m, m.number("B")),
    b"r": lambda m: _put(m, m.number("<I")),
    b"\x94": lambda m: _put(m, len(m.memo)),
    # Names, calls, states
    b"c": lambda m: m.name(m.line().decode(), m.line().decode()),
    b"\x93": lambda m: m.name(*m.two()),
    b"R": Machine.reduce,
    b"b": Machine.build,
    b"Q": Machine.persistent_id,
    b"P": _refuse("asks for what is outside of it (a persistent id)"),
    b"i": _refuse("makes an object by INST"),
    b"o": _refuse("makes an object by OBJ"),
    b"\x81": _refuse("makes an object by NEWOBJ"),
    b"\x92": _refuse("makes an object by NEWOBJ_EX"),
    b"\x82": _refuse("asks for an extension by EXT1"),
    b"\x83": _refuse("asks for an extension by EXT2"),
    b"\x84": _refuse("asks for an extension by EXT4"),
    b"\x8f": _refuse("makes a set"),
    b"\x90": _refuse("makes a set"),
    b"\x91": _refuse("makes a frozen set"),
    b"\x97": _refuse("asks for a buffer that is outside of it"),
    b"\x98": _refuse("asks for a buffer that is outside of it"),
}

_OPCODES = [_ACTIONS.get(bytes([code]), _refuse(f"has the unknown opcode {code:#04x}")) for code in range(256)]


# What numpy's and JAX's arrays are made with.


def _reconstruct(subtype: Any, shape: Any, code: Any) -> Array:
    if subtype != "numpy.ndarray" or type(subtype) is not Name:
        raise ValueError("an array of another class than numpy.ndarray")
    return Array()


def _array(state: Any) -> np.ndarray:
    version, shape, dtype, fortran, data = state
    if version != 1 or isinstance(data, list):
        raise ValueError("an array of objects")
    return _from_bytes(data, dtype, shape, "F" if fortran is True else "C")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    return Array(_from_bytes(data, dtype, shape, order))


def _scalar(dtype: Any, data: Any) -> Array:
    return Array(_from_bytes(data, dtype, (), "C"))


def _from_bytes(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if isinstance(data, str):
        data = data.encode("latin-1")
    if not isinstance(dtype, DType) or type(shape) is not tuple or not isinstance(data, bytes | memoryview):
        raise ValueError("an array's state is not numpy's")
    array = _mapped.view(memoryview(data), 0, dtype.value, shape, order)
    if array.nbytes != len(data):
        raise ValueError(f"{len(data)} bytes for an array of shape {shape} and type {dtype.value}")
    array.flags.writeable = False
    return array


def _named_dtype(name: Any, align: Any = False, copy: Any = False) -> DType:
    if type(name) is Name:
        return DType(_mapped.EXTENDED[name.rpartition(".")[2]])
    if type(name) is not str or not re.fullmatch(r"[<>=|]?[a-z]\d{1,2}", name):
        raise ValueError("a type of other things than numbers")
    return DType(_mapped.dtype_of(name))


def _dtype(dtype: np.dtype, state: Any) -> np.dtype:
    _, order, subtype, names, fields, *_ = state
    if (subtype, names, fields) != (None, None, None) or order not in ("<", ">", "=", "|"):
        raise ValueError("a type of other things than numbers")
    return dtype if order in "|=" else dtype.newbyteorder(order)


def _jax_array(function: Any, arguments: Any, state: Any, notes: Any) -> Array:
    if type(function) is not Name or not function.endswith("._reconstruct"):
        raise ValueError("a JAX array that is not made of numpy's")
    return Array(_array(state))


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in another encoding than Latin-1")
    return text.encode("latin-1")


def _dict(items: Any = ()) -> dict:
    pairs = items.items() if type(items) is dict else items
    return {_key(key): value for key, value in pairs}


_OF_NUMPY: dict[str, Callable] = {
    "multiarray._reconstruct": _reconstruct,
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _from_buffer,
}
FUNCTIONS: dict[str, Callable | None] = {
    "_codecs.encode": _encode,
    "collections.OrderedDict": _dict,
    "flax.core.frozen_dict.FrozenDict": _dict,
    "jax._src.array._reconstruct_array": _jax_array,
    "jax._src.device_array.reconstruct_device_array": _jax_array,
    "numpy.dtype": _named_dtype,
    "numpy.ndarray": None,
    **{f"numpy.{core}.{name}": function for core in ("core", "_core") for name, function in _OF_NUMPY.items()},
    **{f"ml_dtypes.{name}": None for name in _mapped.EXTENDED},
}
