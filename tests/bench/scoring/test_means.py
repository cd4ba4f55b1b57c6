"""Means carry a standard error and the number of values behind them."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.bench.scoring.means import Mean, grouped_mean, mean_of, proportion_of

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


@given(VALUES)
def test_the_standard_error_is_the_usual_one(values: list[float]) -> None:
    found = mean_of(values)
    assert found.n == len(values)
    assert found.value == pytest.approx(statistics.fmean(values), abs=1e-6)
    expected = statistics.stdev(values) / math.sqrt(len(values))
    assert found.standard_error == pytest.approx(expected, abs=1e-6)


@given(VALUES)
def test_a_value_counted_twice_in_its_group_makes_nothing_surer(values: list[float]) -> None:
    once = mean_of(values)
    twice = grouped_mean([(value, place) for place, value in enumerate(values)] * 2)
    assert twice.n == 2 * len(values)
    assert twice.value == pytest.approx(once.value, abs=1e-6)
    assert twice.standard_error == pytest.approx(once.standard_error, abs=1e-6)


def test_too_few_values_have_no_standard_error() -> None:
    assert mean_of([]) == Mean(None, None, 0)
    assert mean_of([7.5]) == Mean(7.5, None, 1)
    assert grouped_mean([(7, "one"), (8, "one")]) == Mean(7.5, None, 2)
    assert proportion_of([]) == Mean(None, None, 0)


def test_a_proportion_has_the_binomial_standard_error() -> None:
    found = proportion_of([True] * 30 + [False] * 20)
    assert (found.value, found.n) == (0.6, 50)
    assert found.standard_error == pytest.approx(math.sqrt(0.6 * 0.4 / 50))
