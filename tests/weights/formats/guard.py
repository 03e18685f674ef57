"""What reading any file may do: give tensors or a `CheckpointError`, in time, within memory, running nothing."""

import codecs
import importlib
import re
import resource
import signal
import sys
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import jaxtyping
import numpy as np

from flaim.weights import CheckpointError, formats

SECONDS = 10.0  # of the processor's time for a file; the slowest take two
MEMORY = 16_000_000  # bytes that reading may take beside the file's own size, with the budget below

BUDGET = 200_000  # steps and bytes of text, for files that try to use them up; readers allow more

_FORBIDDEN = ("import", "exec", "pickle", "marshal", "subprocess", "socket", "ctypes", "shutil")
_FORBIDDEN_OF_OS = ("system", "exec", "fork", "posix_spawn", "spawn", "remove", "rename", "mkdir", "rmdir", "putenv")

for name in formats.FORMATS:
    importlib.import_module(f"flaim.weights.formats._{name}")

codecs.lookup("raw_unicode_escape")  # Python has a module for it

_events: list[tuple[str, str]] | None = None


def _hook(event: str, arguments: tuple) -> None:
    if _events is None or event == "sys._getframe":
        return
    # The checks of types make functions of their own wherever one is defined within another.
    if event != "exec" or not re.search("/(jaxtyping|beartype)/", sys._getframe(1).f_code.co_filename):
        _events.append((event, str(arguments[0])[:500] if arguments else ""))


sys.addaudithook(_hook)


class TooLong(BaseException):
    """No reader catches it."""


@contextmanager
def seconds(limit: float = SECONDS):
    """Stop what takes longer, however busy the machine is with other things."""

    def stop(*_):
        raise TooLong(f"more than {limit} seconds")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def unchecked():
    """Without checks of types at run time, which take more time and memory than the readers themselves."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@contextmanager
def nothing_else(folder: Path):
    """Nothing is run, imported, connected to, changed or opened outside of a folder."""
    global _events
    _events = seen = []
    try:
        yield
    finally:
        _events = None
    for event, argument in seen:
        module, _, what = event.partition(".")
        assert module not in _FORBIDDEN, (event, argument)
        assert module != "os" or what not in _FORBIDDEN_OF_OS, (event, argument)
        assert event != "open" or argument.startswith(str(folder)), (event, argument)


def outcome(path: Path) -> dict[str, np.ndarray] | str:
    """The tensors of a file, their numbers read, or the message of the error; anything else is a failure."""
    result: dict[str, np.ndarray] = {}
    errors = []
    with seconds(), unchecked(), nothing_else(path.parent):
        for function in (formats.metadata, formats.read):
            try:
                found = function(path)
                if function is formats.read:
                    result = {name: np.asarray(value) for name, value in found.items()}
            except CheckpointError as error:
                errors.append(str(error))
                assert str(path.parent) in errors[-1]
                assert len(errors[-1]) < 25_000
    return errors[0] if errors else result


def refused(path: Path, content: bytes | None = None) -> str:
    """The message with which a file is refused, whose content is written first; reading it takes little memory."""
    if content is not None:
        path.write_bytes(content)
    tracemalloc.start()
    try:
        message = outcome(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(message, str), message
    assert peak < path.stat().st_size + MEMORY, f"{peak:,} bytes for a file of {path.stat().st_size:,}"
    return message


def resident() -> int:
    """The most memory that the process has had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def opened():
    """The files that are opened meanwhile."""
    global _events
    _events = seen = []
    files: list[str] = []
    try:
        yield files
    finally:
        _events = None
        files += [argument for event, argument in seen if event == "open"]
