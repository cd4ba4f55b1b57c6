"""Differences between answers to the same items: standard errors, intervals, tests and power.

It needs only the standard library. Answers are paired by item, because an item may be easy or hard
for both models, and that has no effect on the difference of a pair; see Miller 2024, "Adding Error
Bars to Evals" (arXiv:2411.00640).
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from statistics import NormalDist, fmean, stdev
from typing import Final, TypeVar

from moa_cli.bench.scoring.logistic import Observation, fitted, logistic
from moa_cli.bench.scoring.means import Mean, grouped_mean, mean_of

CONFIDENCE: Final = 0.95
POWER: Final = 0.8
# The normal quantile for a two-sided interval with that confidence.
QUANTILE: Final = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
# This times the standard error is the difference that is found with that power.
_DETECTABLE: Final = QUANTILE + NormalDist().inv_cdf(POWER)
# The swap test tries all ways to swap up to this many pairs that differ; for more pairs, this many
# random ways.
_MOST_EXACT, _DRAWS = 12, 10_000
_CHUNK = 8
# Smaller parts of a sum than this share count as rounding errors.
_ROUNDING: Final = 1e-9

_Value = TypeVar("_Value")
_Player = TypeVar("_Player", bound=Hashable)


@dataclass(frozen=True)
class ConfidenceInterval:
    """The 95 % confidence interval of a figure, in its unit."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """How much more the first is worth than the second, over the items that both have answered.

    difference: in the values' unit; its n counts values, of which an item may have several. z: the
    difference divided by its standard error; None if that is 0 or unknown. p: the p value of the
    two-sided swap test (`swap_test`). better, worse, equal: at how many items the first is better,
    worse, or equal.
    """

    difference: Mean
    interval: ConfidenceInterval
    z: float | None
    p: float
    better: int
    worse: int
    equal: int

    @property
    def items(self) -> int:
        return self.better + self.worse + self.equal

    @property
    def detectable(self) -> float | None:
        """The smallest true difference that a comparison of this many items finds in 8 of 10
        cases."""
        error = self.difference.standard_error
        return _DETECTABLE * error if error else None

    def items_for(self, difference: float) -> int | None:
        """How many items are needed to find a true difference of that size in 8 of 10 cases; None
        if the spread is unknown."""
        least = self.detectable
        if not least or not difference:
            return None
        return math.ceil(self.items * (least / difference) ** 2)


@dataclass(frozen=True)
class EpochFigures:
    """A score that was measured several times over the same items.

    pooled: the mean over all values; its standard error takes the values of an item as one
    observation. by_epoch: the mean of each epoch. between: the standard error of the mean that is
    due to the replies alone, not to the choice of items: the standard deviation of the epochs'
    means, divided by the root of their number; None for a single epoch.
    """

    pooled: Mean
    by_epoch: tuple[Mean, ...]
    between: float | None


def interval_of(mean: Mean, low: float, high: float) -> ConfidenceInterval | None:
    """The 95 % interval of a mean of values from `low` to `high`; None without values.

    This is Wilson's interval, which is valid at both ends: for 0 of 10 it is 0 to 28 %. If values
    are not only `low` and `high`, it is computed for the number of such values that would have the
    same standard error.
    """
    if mean.value is None:
        return None
    share = (mean.value - low) / (high - low)
    error = (mean.standard_error or 0.0) / (high - low)
    size = share * (1 - share) / error**2 if error else float(mean.n)
    # The spread of values from `low` to `high` is at most that of values at both ends.
    size = max(size, 1.0)
    square = QUANTILE**2
    middle = (share + square / (2 * size)) / (1 + square / size)
    half = math.sqrt(max(0.0, share * (1 - share)) / size + square / (4 * size**2))
    half *= QUANTILE / (1 + square / size)
    width = high - low
    return ConfidenceInterval(
        low + width * (max(0.0, middle - half) if share > 0 else 0.0),
        low + width * (min(1.0, middle + half) if share < 1 else 1.0),
    )


def paired_difference(
    first: Mapping[_Value, float],
    second: Mapping[_Value, float],
    item: Callable[[_Value], Hashable] = lambda name: name,
    *,
    low: float,
    high: float,
) -> PairedDifference | None:
    """How the first differs from the second; None if they have no item in common.

    first, second: values from `low` to `high`, by what was asked. item: gives the item that a key
    belongs to; all values of an item (turns, epochs) are one observation.
    """
    common = [name for name in first if name in second]
    if not common:
        return None
    by_item: dict[Hashable, list[float]] = defaultdict(list)
    for name in common:
        found = first[name] - second[name]
        # A rounding error between equal values is not a difference.
        by_item[item(name)].append(found if abs(found) > _ROUNDING * (high - low) else 0.0)
    difference = grouped_mean(
        (value, group) for group, values in by_item.items() for value in values
    )
    sums = [math.fsum(values) for values in by_item.values()]
    if abs(math.fsum(sums)) <= _ROUNDING * math.fsum(map(abs, sums)):
        difference = replace(difference, value=0.0)
    error = difference.standard_error
    value = difference.value or 0.0
    binary = len(by_item) == len(common) and all(
        values[name] in (low, high) for values in (first, second) for name in common
    )
    if binary or not error:
        means = [total / len(values) for total, values in zip(sums, by_item.values(), strict=True)]
        interval = _binary_interval(means, high - low)
    else:
        half = t_quantile((1 + CONFIDENCE) / 2, len(by_item) - 1) * error
        interval = ConfidenceInterval(max(low - high, value - half), min(high - low, value + half))
    return PairedDifference(
        difference=difference,
        interval=interval,
        z=value / error if error else None,
        p=swap_test(sums),
        better=sum(total > 0 for total in sums),
        worse=sum(total < 0 for total in sums),
        equal=sum(total == 0 for total in sums),
    )


def _binary_interval(differences: Sequence[float], width: float) -> ConfidenceInterval:
    """Bonett and Price's interval (2012): Wald's interval after one more win and one more loss are
    added.

    It is also valid if no pair differs, because ten equal pairs do not prove that two models are
    equal. differences: one for each item, at most `width`.
    """
    size = len(differences) + 2
    won = (math.fsum(max(0.0, value) for value in differences) / width + 1) / size
    lost = (math.fsum(max(0.0, -value) for value in differences) / width + 1) / size
    half = QUANTILE * math.sqrt((won + lost - (won - lost) ** 2) / size)
    middle = won - lost
    return ConfidenceInterval(width * max(-1.0, middle - half), width * min(1.0, middle + half))


def swap_test(differences: Iterable[float], *, seed: int = 0) -> float:
    """The two-sided p value: how likely the sum of the differences would be at least as large, in
    either direction, if the two values of each pair were swapped at random.

    It assumes no distribution. If all differences have the same size, it is McNemar's exact test.
    Otherwise all swaps are tried for up to 12 pairs that differ, and 10,000 random ones for more
    (then the lowest p is 1 in 10,001).
    """
    sizes = [value for value in differences if value]
    if not sizes:
        return 1.0
    if len({abs(value) for value in sizes}) == 1:
        return _sign_test(sum(value > 0 for value in sizes), len(sizes))
    # Sums from this value on are as extreme as the observed one. It leaves room for rounding
    # errors.
    observed = abs(math.fsum(sizes)) - _ROUNDING * math.fsum(map(abs, sizes))
    if len(sizes) <= _MOST_EXACT:
        sums = [abs(math.fsum(signed)) for signed in product(*((x, -x) for x in sizes))]
        return sum(total >= observed for total in sums) / len(sums)
    # For speed, the signs of eight pairs are one random byte, and a table has their signed sum.
    tables = [_signed_sums(sizes[at : at + _CHUNK]) for at in range(0, len(sizes), _CHUNK)]
    drawn = random.Random(seed)  # noqa: S311
    extreme = 0
    for _ in range(_DRAWS):
        signs = drawn.randbytes(len(tables))
        total = sum(table[byte] for table, byte in zip(tables, signs, strict=True))
        extreme += abs(total) >= observed
    return (extreme + 1) / (_DRAWS + 1)


def _signed_sums(values: Sequence[float]) -> list[float]:
    """For each byte, the sum of the values with the signs that its bits give."""
    return [
        sum(-value if byte >> place & 1 else value for place, value in enumerate(values))
        for byte in range(1 << _CHUNK)
    ]


def _sign_test(won: int, of: int) -> float:
    """The two-sided p value of the sign test: how likely a fair coin would be at least as
    uneven."""
    fewer = min(won, of - won)
    whole = math.lgamma(of + 1) - of * math.log(2)
    tail = math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(of - k + 1)) for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)


def holm(values: Sequence[float]) -> list[float]:
    """The p values, corrected for their number (Holm 1979). With this correction, the chance that
    any of them is below 5 % by accident is at most 5 %."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    found = [0.0] * len(values)
    least = 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        found[place] = least
    return found


def unpaired_difference(first: Iterable[float], second: Iterable[float]) -> Mean:
    """The difference of two means over different items; n counts all values."""
    means = mean_of(first), mean_of(second)
    count = sum(mean.n for mean in means)
    values = [mean.value for mean in means if mean.value is not None]
    errors = [mean.standard_error for mean in means if mean.standard_error is not None]
    if len(values) < 2:
        return Mean(None, None, count)
    error = math.hypot(*errors) if len(errors) == 2 else None
    return Mean(values[0] - values[1], error, count)


def epoch_figures(values: Iterable[tuple[Hashable, int, float]]) -> EpochFigures:
    """The figures of values that were measured in several epochs. values: (item, epoch, value)."""
    known = list(values)
    epochs: dict[int, list[float]] = defaultdict(list)
    for _, epoch, value in known:
        epochs[epoch].append(value)
    means = [fmean(found) for _, found in sorted(epochs.items())]
    return EpochFigures(
        pooled=grouped_mean((value, item) for item, _, value in known),
        by_epoch=tuple(mean_of(found) for _, found in sorted(epochs.items())),
        between=stdev(means) / math.sqrt(len(means)) if len(means) > 1 else None,
    )


def bradley_terry(wins: Mapping[tuple[_Player, _Player], float]) -> dict[_Player, float]:
    """How likely each player beats an average opponent, 0 to 1, by Bradley and Terry's model
    (1952).

    wins: how often the first of a pair has beaten the second; a tie is half a win for each. Each
    player also gets half a win and half a loss against the average, so that the strength of a
    player that has always won is finite.
    """
    places = {player: place for place, player in enumerate(dict.fromkeys(chain(*wins)))}
    rows = [
        Observation(((places[winner], 1.0), (places[loser], -1.0)), 1.0, times)
        for (winner, loser), times in wins.items()
    ]
    rows += [Observation(((place, 1.0),), 0.5) for place in places.values()]
    logs, _ = fitted(rows, len(places))
    return {player: logistic(logs[place]) for player, place in places.items()}


def t_quantile(share: float, degrees: int) -> float:
    """The quantile of Student's t distribution. share: from 0.5 to 1."""
    low, high = 0.0, 1.0
    while _t_below(high, degrees) < share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, degrees) < share else (low, middle)
    return (low + high) / 2


def _t_below(value: float, degrees: int) -> float:
    """The distribution function of Student's t for a value that is not negative, by its finite
    series for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan2(value, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0
    for place in range(degrees // 2):
        total += term
        step = 2 * place + 1 + odd
        term *= cosine**2 * step / (step + 1)
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + within / 2
