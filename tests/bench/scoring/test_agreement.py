"""Measures of agreement equal published figures, and definitions worked out the long way."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import permutations

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
    assert krippendorff_alpha(units, "nominal") == pytest.approx(0.743, abs=0.0005)
    assert krippendorff_alpha(units, "interval") == pytest.approx(0.849, abs=0.0005)


def test_fleiss_example() -> None:
    units = [
        [float(place) for place, count in enumerate(line.split()) for _ in range(int(count))]
        for line in _SUBJECTS.split("\n")
        if line
    ]
    assert fleiss_kappa(units) == pytest.approx(0.210, abs=0.0005)
    assert fleiss_kappa([[1, 1], [1, 2, 2]]) is None


def test_cohens_textbook_example() -> None:
    # 20 both yes, 15 both no, 5 and 10 of two minds.
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    first = {unit: float(left) for unit, (left, _) in enumerate(pairs)}
    second = {unit: float(right) for unit, (_, right) in enumerate(pairs)}
    assert cohen_kappa(first, second, "nominal") == pytest.approx(0.4)
    # With two values, weights change nothing.
    assert cohen_kappa(first, second, "interval") == pytest.approx(0.4)


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
    assert found == pytest.approx(weighted_kappa(first, second, 10))
    units = [[float(draw.randint(1, 5)) for _ in range(draw.randint(2, 4))] for _ in range(15)]
    scales: tuple[Scale, ...] = ("nominal", "interval")
    for scale in scales:
        assert krippendorff_alpha(units, scale) == pytest.approx(alpha(units, scale))


def test_what_cannot_be_told() -> None:
    same = {1: 5.0, 2: 5.0}
    scales: tuple[Scale, ...] = ("nominal", "interval")
    for scale in scales:
        assert cohen_kappa(same, same, scale) is None
        assert cohen_kappa(same, {3: 5.0}, scale) is None
        assert krippendorff_alpha([[5.0], [4.0]], scale) is None
        assert krippendorff_alpha([], scale) is None
    assert fleiss_kappa([]) is None
    assert fleiss_kappa([[5.0, 5.0]]) is None
