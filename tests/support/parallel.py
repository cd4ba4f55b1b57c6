"""Tests side by side: in how many processes, in which order, and what runs for long.

Most tests wait for a process, a terminal or a connection, so there are more workers than cores.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeVar

__all__ = ["SlowTests", "spread", "workers"]

Test = TypeVar("Test")

_PER_CORE = 2
_MOST_WORKERS = 16
# Starting the workers costs more than so many modules of tests usually take.
_FEW_MODULES = 2
# A test that runs for so many seconds is named, and again after as many.
_LONG = 30.0


def workers(arguments: Sequence[str], narrowed: bool, cores: int) -> int:
    """In how many worker processes the tests run; 0 is in this one.

    Args:
        arguments: The folders, modules and tests that were named on the command line.
        narrowed: Whether an option such as `-k` chooses a few of their tests.
        cores: How many CPU cores this process may use.
    """
    modules = {argument.partition("::")[0] for argument in arguments}
    few = len(modules) <= _FEW_MODULES and all(name.endswith(".py") for name in modules)
    return 0 if narrowed or few else min(cores * _PER_CORE, _MOST_WORKERS)


def spread(
    tests: Sequence[Test], patience: Callable[[Test], float], module: Callable[[Test], object]
) -> list[Test]:
    """The same tests with the slow ones at equal distances, in the first three quarters.

    Each worker begins with a part of the list, and takes half of what another has left when its own
    part is done. So what a module sets up is made once, if its tests follow each other: the slow
    tests of a module stay together, and so do its quick ones. Slow tests load the machine, so they
    should not meet, and none should begin last: those that may take longest come first.

    Args:
        tests: In the order in which they were collected.
        patience: How long a test may take, in seconds; 0 is a quick one.
        module: What a test is part of.
    """
    slow: dict[object, list[Test]] = {}
    for test in tests:
        if patience(test):
            slow.setdefault(module(test), []).append(test)
    waiting = sorted(slow.values(), key=lambda group: max(map(patience, group)), reverse=True)
    quick = [test for test in tests if not patience(test)]
    distance = max(1, len(quick) * 3 // (4 * len(waiting))) if waiting else 0
    ordered: list[Test] = []
    done = due = 0
    for _, group in groupby(quick, module):
        while waiting and done >= due:
            ordered += waiting.pop(0)
            due += distance
        together = list(group)
        ordered += together
        done += len(together)
    return ordered + [test for group in waiting for test in group]


class SlowTests:
    """Names the tests that have been running for long, as the workers tell of them."""

    def __init__(self, say: Callable[[str], None], long: float = _LONG) -> None:
        self._say = say
        self._long = long
        self._started: dict[str, float] = {}
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._name_them, daemon=True)

    def pytest_sessionstart(self) -> None:
        self._watch.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._started[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._started.pop(nodeid, None)

    def pytest_sessionfinish(self) -> None:
        self._ended.set()

    def _name_them(self) -> None:
        while not self._ended.wait(self._long):
            now = time.monotonic()
            lasting = [
                f"running for {now - started:.0f} s: {test}"
                for test, started in self._started.copy().items()
                if now - started >= self._long
            ]
            if lasting:
                self._say("\n".join(lasting))
