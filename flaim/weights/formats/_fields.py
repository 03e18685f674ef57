"""Bytes read one field after the other, and how much may be read."""

import struct
from typing import Any


class Budget:
    """What reading a file may still cost: what is in it once may be referred to any number of times.

    Attributes:
        steps: Fields, values, opcodes and the like, each of which may take some hundred bytes of memory. A checkpoint
            has 20 to 100 for a tensor.
        text: Bytes of names and documents.
    """

    steps = 2_000_000
    text = 32_000_000

    def spend(self, steps: int = 1, text: int = 0) -> None:
        """Take steps, and text of so many bytes.

        Raises:
            ValueError: It is more than a checkpoint needs.
        """
        self.steps -= steps
        self.text -= text
        if self.steps < 0 or self.text < 0:
            raise ValueError("it holds more than any checkpoint does, or the same things many times over")


class Fields:
    """Fields in bytes, from a position on. Every one is a step of the budget's."""

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
        """The next numbers in the notation of `struct`; their first bytes are the lowest, unless it says otherwise."""
        code = code if code[0] == ">" else f"<{code}"
        return struct.unpack(code, self.take(struct.calcsize(code)))

    def one(self, code: str) -> Any:
        """The next number."""
        return self.all(code)[0]

    def integer(self, size: int) -> int:
        """The next integer, of any size."""
        return int.from_bytes(self.take(size), "little")

    def align(self, start: int) -> None:
        """Go on at the next multiple of eight bytes after `start`."""
        self.position = start + (self.position - start + 7) // 8 * 8
