"""A pytest plugin that prints, at the end, how many seconds the tests of each family took."""

import re
from collections import Counter

from flaim import _index


def family_of(test: str) -> str | None:
    """The family that a test's name, file or parameters say, by itself or by one of its architectures."""
    for word in re.findall(r"\w+", test):
        word = word.removeprefix("test_") if word.startswith("test_") and not _index.is_architecture(word) else word
        if word in _index.families():
            return word
        if _index.is_architecture(word):
            return _index.family_of(word)
    return None


def pytest_terminal_summary(terminalreporter) -> None:
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                seconds[family_of(report.nodeid) or ""] += report.duration
    shared = seconds.pop("", 0.0)
    if len(seconds) > 1:
        terminalreporter.section("seconds of each family's tests, all workers together")
        for family, spent in seconds.most_common():
            terminalreporter.write_line(f"{spent:7.0f}  {family}")
        mean = sum(seconds.values()) / len(seconds)
        terminalreporter.write_line(f"{mean:7.0f}  on average; {shared:.0f} for what is of no one family")
