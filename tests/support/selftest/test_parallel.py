"""A run of all tests uses several workers, spreads the slow tests, and names those that last."""

from __future__ import annotations

import threading
from itertools import groupby

import pytest

from tests.support.parallel import SlowTests, spread, workers


@pytest.mark.parametrize(
    ("arguments", "narrowed", "expected"),
    [
        (["tests"], False, 4),
        (["tests/cli", "tests/chat"], False, 4),
        (["tests/a.py", "tests/b.py", "tests/c.py"], False, 4),
        (["tests"], True, 0),
        (["tests/a.py", "tests/b.py"], False, 0),
        (["tests/a.py::test_one", "tests/a.py::test_two", "tests/a.py::test_three"], False, 0),
    ],
)
def test_workers_start_only_where_many_tests_were_named(
    arguments: list[str], narrowed: bool, expected: int
) -> None:
    assert workers(arguments, narrowed, cores=2) == expected


@pytest.mark.parametrize("slow", [0, 1, 3, 40])
@pytest.mark.parametrize("quick", [0, 1, 5, 200])
def test_slow_tests_are_spread_and_none_is_lost(slow: int, quick: int) -> None:
    tests = [f"slow {number}" for number in range(slow)]
    tests += [f"quick {number}" for number in range(quick)]
    ordered = spread(tests, lambda test: 300.0 if test.startswith("slow") else 0.0, str)
    assert sorted(ordered) == sorted(tests)
    assert [test for test in ordered if test in tests[:slow]] == tests[:slow]
    if 0 < slow < quick:
        assert ordered[-1].startswith("quick")
        assert ordered[1].startswith("quick")


def test_slow_tests_that_may_take_longest_begin_first() -> None:
    patience = {"a": 0.0, "b": 300.0, "c": 0.0, "d": 900.0, "e": 300.0, "f": 0.0, "g": 0.0}
    ordered = spread(list(patience), patience.__getitem__, str)
    assert [test for test in ordered if patience[test]] == ["d", "b", "e"]


def test_tests_of_a_module_follow_each_other() -> None:
    slow = {"a3": 300.0, "b1": 900.0, "b4": 300.0, "c1": 300.0}
    tests = [f"{module}{number}" for module in "abcd" for number in range(9)]
    ordered = spread(tests, lambda test: slow.get(test, 0.0), lambda test: test[0])
    assert sorted(ordered) == tests
    kinds = [(test[0], test in slow) for test in ordered]
    assert len(list(groupby(kinds))) == len(set(kinds)) == 7
    assert ordered[:2] == ["b1", "b4"]


def test_a_test_that_lasts_is_named_until_it_ends() -> None:
    told: list[str] = []
    named_again = threading.Event()

    def say(line: str) -> None:
        told.append(line)
        if len(told) == 2:
            named_again.set()

    tests = SlowTests(say, long=0.02)
    tests.pytest_runtest_logstart("tests/a.py::test_short")
    tests.pytest_runtest_logfinish("tests/a.py::test_short")
    tests.pytest_runtest_logstart("tests/a.py::test_long")
    tests.pytest_sessionstart()
    assert named_again.wait(20)
    tests.pytest_sessionfinish()
    assert all(line.endswith(" s: tests/a.py::test_long") for line in told)
