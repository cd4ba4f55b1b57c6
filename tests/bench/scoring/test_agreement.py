"""Measures of agreement equal published figures, and definitions worked out the long way."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from moa_cli.bench.scoring.agreement import (
    Scale,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
)

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": four observers, twelve units.
_OBSERVERS = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
# Fleiss 1971, as it is reprinted most: 14 raters, ten subjects, five categories.
_SUBJECTS = """
0 0 0 0 14
0 2 6 4 2
0 0 3 5 6
0 3 9 2 0
2 2 8 1 1
7 7 0 0 0
3 2 6 3 0
2 5 3 2 2
6 5 2 1 0
0 2 2 3 7
"""


def test_krippendorffs_own_example() -> None:
    rows = [line.split() for line in _OBSERVERS.split("\n") if line]
    units = [[float(cell) for cell in column if cell != "."] for column in zip(*rows, strict=True)]
    assert krippendorff_alpha(dict(enumerate(units)), "nominal").value == pytest.approx(
        0.743, abs=0.0005
    )
    assert krippendorff_alpha(dict(enumerate(units)), "interval").value == pytest.approx(
        0.849, abs=0.0005
    )


def test_fleiss_example() -> None:
    units = [
        [float(place) for place, count in enumerate(line.split()) for _ in range(int(count))]
        for line in _SUBJECTS.split("\n")
        if line
    ]
    assert fleiss_kappa(dict(enumerate(units))).value == pytest.approx(0.210, abs=0.0005)
    assert fleiss_kappa({1: [1, 1], 2: [1, 2, 2]}).value is None


def test_cohens_textbook_example() -> None:
    # 20 both yes, 15 both no, 5 and 10 of two minds.
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    first = {unit: float(left) for unit, (left, _) in enumerate(pairs)}
    second = {unit: float(right) for unit, (_, right) in enumerate(pairs)}
    assert cohen_kappa(first, second, "nominal").value == pytest.approx(0.4)
    # With two values, weights change nothing.
    assert cohen_kappa(first, second, "interval").value == pytest.approx(0.4)


def weighted_kappa(first: Sequence[int], second: Sequence[int], most: int) -> float:
    """By the table of both judges' ratings, cell by cell."""
    n = len(first)
    observed = expected = 0.0
    for left in range(1, most + 1):
        for right in range(1, most + 1):
            weight = (left - right) ** 2 / (most - 1) ** 2
            both = sum(pair == (left, right) for pair in zip(first, second, strict=True))
            observed += weight * both / n
            expected += weight * first.count(left) * second.count(right) / n**2
    return 1 - observed / expected


def alpha(units: Sequence[Sequence[float]], scale: Scale) -> float:
    """By all pairs, one after another."""

    def apart(left: float, right: float) -> float:
        return float(left != right) if scale == "nominal" else (left - right) ** 2

    whole = [value for unit in units for value in unit]
    observed = sum(
        sum(apart(*pair) for pair in permutations(unit, 2)) / (len(unit) - 1) for unit in units
    )
    expected = sum(apart(*pair) for pair in permutations(whole, 2))
    return 1 - observed / len(whole) * len(whole) * (len(whole) - 1) / expected


@pytest.mark.parametrize("seed", range(5))
def test_ratings_drawn_at_random(seed: int) -> None:
    draw = random.Random(seed)
    first = [draw.randint(1, 10) for _ in range(40)]
    second = [min(10, max(1, rating + draw.randint(-2, 2))) for rating in first]
    found = cohen_kappa(
        dict(enumerate(map(float, first))), dict(enumerate(map(float, second))), "interval"
    )
    assert found.value == pytest.approx(weighted_kappa(first, second, 10))
    units = [[float(draw.randint(1, 5)) for _ in range(draw.randint(2, 4))] for _ in range(15)]
    scales: tuple[Scale, ...] = ("nominal", "interval")
    for scale in scales:
        told = krippendorff_alpha(dict(enumerate(units)), scale)
        assert told.value == pytest.approx(alpha(units, scale))


def test_what_cannot_be_told() -> None:
    same = {1: 5.0, 2: 5.0}
    scales: tuple[Scale, ...] = ("nominal", "interval")
    for scale in scales:
        for told in (
            cohen_kappa(same, same, scale),
            cohen_kappa(same, {3: 5.0}, scale),
            krippendorff_alpha({1: [5.0], 2: [4.0]}, scale),
            krippendorff_alpha({}, scale),
        ):
            assert told.value is None
            assert told.interval(lambda unit: unit) is None
    assert fleiss_kappa({}).value is None
    assert fleiss_kappa({1: [5.0, 5.0]}).value is None


def _drawn(seed: int) -> tuple[list[int], list[int]]:
    draw = random.Random(seed)
    first = [draw.randint(1, 5) for _ in range(60)]
    return first, [min(5, max(1, rating + draw.choice((-1, 0, 0, 1)))) for rating in first]


def test_intervals_are_those_of_scipys_bootstrap() -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    bootstrap = pytest.importorskip("scipy.stats", reason="scipy is not installed").bootstrap
    first, second = _drawn(1)

    def plain_kappa(left: Sequence[int], right: Sequence[int]) -> float:
        agreed = sum(map(int.__eq__, left, right)) / len(left)
        by_chance = sum(left.count(n) * right.count(n) for n in range(1, 6)) / len(left) ** 2
        return (agreed - by_chance) / (1 - by_chance)

    def both(left: Sequence[int], right: Sequence[int], scale: Scale) -> float:
        return alpha(list(zip(left, right, strict=True)), scale)

    by_first, by_second = (dict(enumerate(map(float, of))) for of in (first, second))
    units = {unit: [by_first[unit], by_second[unit]] for unit in by_first}
    for measure, long_way in (
        (cohen_kappa(by_first, by_second, "nominal"), plain_kappa),
        (cohen_kappa(by_first, by_second, "interval"), lambda a, b: weighted_kappa(a, b, 5)),
        (krippendorff_alpha(units, "nominal"), lambda a, b: both(a, b, "nominal")),
        (krippendorff_alpha(units, "interval"), lambda a, b: both(a, b, "interval")),
    ):
        found = measure.interval(lambda unit: unit)
        assert found is not None
        assert measure.value == pytest.approx(long_way(first, second))

        def at(places: Sequence[int], long_way: Any = long_way) -> float:
            return float(long_way([first[n] for n in places], [second[n] for n in places]))

        theirs = bootstrap(
            (numpy.arange(60),),
            at,
            vectorized=False,
            n_resamples=400,
            method="percentile",
            rng=numpy.random.default_rng(5),
        )
        low, high = theirs.confidence_interval
        # The error of either, by chance, is a tenth of the width or so.
        wide = 0.2 * (high - low)
        assert found.low == pytest.approx(low, abs=wide)
        assert found.high == pytest.approx(high, abs=wide)


def test_an_interval_is_the_same_each_time_and_knows_what_goes_together() -> None:
    first, second = _drawn(2)
    by_first, by_second = (dict(enumerate(map(float, of))) for of in (first, second))
    scales: tuple[Scale, ...] = ("nominal", "interval")
    for scale in scales:
        told = cohen_kappa(by_first, by_second, scale)
        alone = told.interval(lambda unit: unit)
        assert alone == told.interval(lambda unit: unit)
        assert alone != told.interval(lambda unit: unit, seed=1)
        # Verdicts that come four times on each item say no more than once.
        many = cohen_kappa(
            {(unit, arm): value for unit, value in by_first.items() for arm in range(4)},
            {(unit, arm): value for unit, value in by_second.items() for arm in range(4)},
            scale,
        )
        grouped, apart = many.interval(lambda unit: unit[0]), many.interval(lambda unit: unit)
        assert alone is not None
        assert grouped is not None
        assert apart is not None
        assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high))
        assert apart.high - apart.low < 0.7 * (alone.high - alone.low)
        # Judges that differ nowhere leave nothing to learn a spread from.
        assert cohen_kappa(by_first, by_first, scale).interval(lambda unit: unit) is None
