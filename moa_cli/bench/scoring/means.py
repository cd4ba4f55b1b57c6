"""Means with their standard error and their number of values, and the figures of an arm."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Mean:
    """A mean of n values, in their unit.

    value: None if there are no values. standard_error: None if there are too few values.
    """

    value: float | None
    standard_error: float | None
    n: int

    def text(self, digits: int) -> str:
        """`57.2 ± 1.6`; only the value if the error is unknown, – if there is no value."""
        if self.value is None:
            return "–"
        error = self.standard_error
        return f"{self.value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")

    def of_items(self, epochs: int) -> Mean:
        """The same mean with the number of items as its n. epochs: how often each item was
        asked."""
        return self if epochs == 1 else Mean(self.value, self.standard_error, self.n // epochs)

    def in_percent(self) -> Mean:
        """This mean of shares from 0 to 1, converted to percent."""
        value = None if self.value is None else 100 * self.value
        error = None if self.standard_error is None else 100 * self.standard_error
        return Mean(value, error, self.n)


def mean_of(values: Iterable[float]) -> Mean:
    """The mean and its standard error s / sqrt(n), where s is divided by n - 1."""
    return grouped_mean((value, place) for place, value in enumerate(values))


def grouped_mean(values: Iterable[tuple[float, Hashable]]) -> Mean:
    """The mean of values, each with its group. Values of one group, such as two turns of one
    conversation, are not independent, so the standard error is the cluster-robust one."""
    known = list(values)
    if not known:
        return Mean(None, None, 0)
    mean = math.fsum(value for value, _ in known) / len(known)
    deviations: dict[Hashable, list[float]] = defaultdict(list)
    for value, group in known:
        deviations[group].append(value - mean)
    count = len(deviations)
    if count < 2:
        return Mean(mean, None, len(known))
    squares = math.fsum(math.fsum(group) ** 2 for group in deviations.values())
    return Mean(mean, math.sqrt(squares * count / (count - 1)) / len(known), len(known))


def proportion_of(outcomes: Iterable[bool]) -> Mean:
    """The share of true outcomes, 0 to 1, with the binomial standard error sqrt(p (1 - p) / n)."""
    known = list(outcomes)
    if not known:
        return Mean(None, None, 0)
    share = sum(known) / len(known)
    return Mean(share, math.sqrt(share * (1 - share) / len(known)), len(known))


def share_of(scores: Iterable[tuple[float, Hashable]]) -> Mean:
    """The mean of scores from 0 to 1, each with its group (see `grouped_mean`). If each group has
    one score, and all scores are 0 or 1, the standard error is that of `proportion_of`."""
    known = list(scores)
    values = [score for score, _ in known]
    if set(values) <= {0, 1} and len({group for _, group in known}) == len(known):
        return proportion_of(map(bool, values))
    return grouped_mean(known)


@dataclass(frozen=True)
class Metric:
    """A figure. asked: how many values it should have; with fewer it is partial.

    unit: "%", "of 10", "of 5", "characters".
    """

    name: str
    mean: Mean
    asked: int
    unit: str

    @property
    def partial(self) -> bool:
        return self.mean.n < self.asked

    @property
    def coverage(self) -> str:
        """`win rate 798 of 805`."""
        return f"{self.name} {self.mean.n:,} of {self.asked:,}"


@dataclass(frozen=True)
class Figures:
    """The figures of an arm, and notes on them."""

    metrics: tuple[Metric, ...] = ()
    by_category: Mapping[str, tuple[Metric, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __add__(self, other: Figures) -> Figures:
        joined = {
            name: (*self.by_category.get(name, ()), *other.by_category.get(name, ()))
            for name in dict.fromkeys([*self.by_category, *other.by_category])
        }
        return Figures(self.metrics + other.metrics, joined, self.notes + other.notes)
