"""Run a pickle's opcodes safely: they can only build dictionaries, lists, tuples and inert values.

Python's unpickler imports what a pickle names and calls it. This one has a table of allowed names, each with our own
function that returns an inert value. Any other name, and any opcode that creates objects in another way, is an error.
Bytes are views of the file.
"""

import codecs
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from flaim.weights.errors import CheckpointError
from flaim.weights.formats._fields import Fields
from flaim.weights.formats._pickle_arrays import Array, DType, Name, array_of, dtype_of_state

_MAX_LINE = 1 << 16  # bytes of a name or a number in pickles of protocol 0
_MAX_INTEGER = 255  # bytes of a number


class Machine(Fields):
    """Runs the opcodes of one pickle.

    The cost of a step is bounded, since no step copies a value that the pickle can refer to again.

    Args:
        data: The bytes that contain the pickle.
        where: Name of the file in errors.
        functions: The allowed names, `"module.name"`, each with the function that is called in its place; None if a
            pickle must not call the name.
        persistent: Returns the value of a persistent id.
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
        super().__init__(data, start)
        self.where, self.functions, self.persistent = where, functions, persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> tuple[Any, int]:
        """The pickle's value, and where the pickle ends."""
        while True:
            at = self.position
            try:
                opcode = self.take(1)[0]
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

    # Reading arguments

    def text(self, code: str) -> str:
        """The next string, preceded by its length."""
        view = self.take(self.one(code))
        self._is_wide(len(view) > 0 and int(np.frombuffer(view, np.uint8).max()) > 0xC3, len(view))
        return str(view, "utf-8", "surrogatepass")

    def long_text(self, escapes: bool) -> str:
        """The string up to the next newline: quoted and with Python 2's escapes, or with protocol 0's."""
        line = self.line(len(self.data))
        if not escapes:
            self._is_wide(re.search(rb"\\(U|u(?!00))", line) is not None, len(line))
            return line.decode("raw_unicode_escape")
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise ValueError("a string has no quotes")
        return codecs.escape_decode(line[1:-1])[0].decode("latin-1")  # type: ignore[attr-defined]

    def _is_wide(self, wide: bool, size: int) -> None:
        """Charge the budget for text beyond Latin-1, which takes up to four bytes per character."""
        self.budget.spend(0, size if wide else 0)

    def long_integer(self, size: int) -> int:
        """The next integer of `size` bytes."""
        if size > _MAX_INTEGER:
            raise ValueError(f"a number of {size} bytes")
        return int.from_bytes(self.take(size), "little", signed=True)

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
        """Remove and return the values above the last mark."""
        values, self.stack = self.stack, self.marks.pop()
        return values

    def mark(self) -> None:
        """Begin a group of values."""
        self.marks.append(self.stack)
        self.stack = []

    def pop(self) -> Any:
        """Remove the top value or mark."""
        return self.stack.pop() if self.stack else self.pop_mark()

    def tuple(self, size: int) -> None:
        """Replace the top values by a tuple of them."""
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
            target[key_of(key)] = value

    def collect(self, kind: type) -> None:
        """Replace the values above the last mark by a list or a tuple of them."""
        values = self.pop_mark()
        self.push(kind(values))

    def dictionary(self) -> None:
        """Replace the keys and values above the last mark by a dictionary of them."""
        values = self.pop_mark()
        self.push({})
        self.set_items(values)

    def two(self) -> list[Any]:
        """Remove and return the top two values."""
        values = self.stack[-2:]
        del self.stack[-2:]
        return values

    def _uppermost(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise ValueError(f"there is no {kind.__name__} to add to")
        return self.stack[-1]

    # Names, calls, states

    def name(self, module: Any, name: Any) -> None:
        """Push a name, if it is in the table."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name is no string")
        full = f"{module}.{name}"
        if full not in self.functions:
            raise _Refused(f"it asks for {full[:200]}")
        self.push(Name(full))

    def reduce(self) -> None:
        """Call our function for a name."""
        function, arguments = self.two()
        if type(function) is not Name or self.functions[function] is None:
            raise _Refused(f"it calls {function if type(function) is Name else 'what is no function'}")
        if type(arguments) is not tuple:
            raise ValueError("arguments are no tuple")
        self.budget.spend(sum(len(argument) for argument in arguments if type(argument) is list))
        self.push(self.functions[function](*arguments))  # type: ignore[misc]

    def build(self) -> None:
        """Set the state of the top object. A dictionary's state, torch's module metadata, is ignored."""
        target, state = self.two()
        if isinstance(target, Array):
            target.value = array_of(state)
        elif isinstance(target, DType):
            target.value = dtype_of_state(target.value, state)
        elif type(target) is not dict:
            raise _Refused(f"it changes a {type(target).__name__}")
        self.push(target)

    def persistent_id(self) -> None:
        """Replace a persistent id by its value."""
        if self.persistent is None:
            raise _Refused("it asks for what is outside of it (a persistent id)")
        self.push(self.persistent(self.stack.pop()))

    def frame(self) -> None:
        """Check the size of the next frame, which is only a hint for reading ahead."""
        size = self.one("Q")
        if size > len(self.data) - self.position:
            raise ValueError(f"{size} bytes are announced, {len(self.data) - self.position} follow")

    def protocol(self) -> None:
        """Check the version of the opcodes."""
        if (version := self.one("B")) > 5:
            raise ValueError(f"protocol {version}")


class _Refused(Exception):
    """A pickle asks for something that is not allowed."""


def key_of(value: Any) -> Any:
    """The value, if it may be a dictionary's key."""
    if type(value) not in (str, int, float, bool, type(None)):
        raise ValueError(f"a key is a {type(value).__name__}")
    if type(value) is int and abs(value) >> 60:  # larger numbers can be chosen to have equal hashes
        raise ValueError("a key is a number of too many digits")
    return value


def _refuse(what: str) -> Callable[[Machine], None]:
    def refuse(machine: Machine) -> None:
        raise _Refused(f"it {what}")

    return refuse


def _get(machine: Machine, index: int) -> None:
    machine.push(machine.memo[index])


def _put(machine: Machine, index: int) -> None:
    machine.memo[key_of(index)] = machine.stack[-1]


def _integer(text: bytes) -> int | bool:
    return {b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text)


_STOP = ord(".")

_ACTIONS: dict[bytes, Callable[[Machine], Any]] = {
    b"\x80": Machine.protocol,
    b"\x95": Machine.frame,
    # Constants and numbers
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.one("B")),
    b"M": lambda m: m.push(m.one("H")),
    b"J": lambda m: m.push(m.one("i")),
    b"G": lambda m: m.push(m.one(">d")),
    b"I": lambda m: m.push(_integer(m.line())),
    b"L": lambda m: m.push(int(m.line().rstrip(b"L"))),
    b"F": lambda m: m.push(float(m.line())),
    b"\x8a": lambda m: m.push(m.long_integer(m.one("B"))),
    b"\x8b": lambda m: m.push(m.long_integer(m.one("i"))),
    # Text and bytes
    b"\x8c": lambda m: m.push(m.text("B")),
    b"X": lambda m: m.push(m.text("I")),
    b"\x8d": lambda m: m.push(m.text("Q")),
    b"V": lambda m: m.push(m.long_text(escapes=False)),
    b"S": lambda m: m.push(m.long_text(escapes=True)),
    b"U": lambda m: m.push(str(m.take(m.one("B")), "latin-1")),
    b"T": lambda m: m.push(str(m.take(m.one("i")), "latin-1")),
    b"C": lambda m: m.push(m.take(m.one("B"))),
    b"B": lambda m: m.push(m.take(m.one("I"))),
    b"\x8e": lambda m: m.push(m.take(m.one("Q"))),
    b"\x96": lambda m: m.push(m.take(m.one("Q"))),
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
    b"h": lambda m: _get(m, m.one("B")),
    b"j": lambda m: _get(m, m.one("I")),
    b"p": lambda m: _put(m, int(m.line())),
    b"q": lambda m: _put(m, m.one("B")),
    b"r": lambda m: _put(m, m.one("I")),
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
