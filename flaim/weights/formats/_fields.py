"""Read bytes field by field, within a budget."""

import struct
from typing import Any


class Budget:
    """The remaining cost that reading a file may have, since a file may refer to the same content many times.

    Attributes:
        steps: Fields, values, opcodes and the like; each may take some hundred bytes of memory. A checkpoint needs 20
            to 100 per tensor.
        text: Bytes of names and documents.
    """

    steps = 2_000_000
    text = 32_000_000

    def spend(self, steps: int = 1, text: int = 0) -> None:
        """Subtract steps and bytes of text.

        Raises:
            ValueError: The budget is used up; no checkpoint needs so much.
        """
        self.steps -= steps
        self.text -= text
        if self.steps < 0 or self.text < 0:
            raise ValueError("it holds more than any checkpoint, or the same things many times over")


class Fields:
    """Reads fields from bytes, starting at a position. Each field costs one step of the budget."""

    def __init__(self, data: memoryview, position: int = 0, budget: Budget | None = None):
        self.data, self.position, self.budget = data, position, budget or Budget()

    def take(self, size: int) -> memoryview:
        """The next bytes."""
        self.budget.spend()
        end = self.position + size
        if size < 0 or end > len(self.data):
            raise ValueError(f"{size} bytes are announced, {max(len(self.data) - self.position, 0)} follow")
        view = self.data[self.position : end]
        self.position = end
        return view

    def all(self, code: str) -> tuple:
        """The next numbers, in the format `code` of `struct`; little-endian unless it begins with ">"."""
        code = code if code[0] == ">" else f"<{code}"
        return struct.unpack(code, self.take(struct.calcsize(code)))

    def one(self, code: str) -> Any:
        """The next number."""
        return self.all(code)[0]

    def integer(self, size: int) -> int:
        """The next integer, of any size."""
        return int.from_bytes(self.take(size), "little")

    def align(self, start: int) -> None:
        """Move to the next multiple of eight bytes, counted from `start`."""
        self.position = start + (self.position - start + 7) // 8 * 8
