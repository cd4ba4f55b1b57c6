"""How far judges agree beyond chance: Cohen's, Fleiss' and Krippendorff's measures.

All are 1 if judges always agree, and 0 if they agree as often as by chance. They are undefined if
all verdicts are the same, because chance alone would explain that. Each measure is a function of
sums over the judged units, so a bootstrap over items only adds up the sums of its items.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from statistics import quantiles
from typing import Final, Generic, Literal, TypeVar

from moa_cli.bench.scoring.statistics import ConfidenceInterval

# nominal: verdicts are names, such as which output is better. interval: verdicts are numbers whose
# distance counts, such as ratings.
Scale = Literal["nominal", "interval"]
_Unit = TypeVar("_Unit", bound=Hashable)
_DRAWS: Final = 1_000
# An interval is given only if the measure is defined for at least this share of the draws.
_LEAST_TOLD: Final = 0.9


@dataclass(frozen=True)
class Agreement(Generic[_Unit]):
    """A measure of agreement.

    sums: for each judged unit, the numbers that it adds to the sums. told: computes the measure
    from the sums over all units; None if it is undefined.
    """

    sums: Mapping[_Unit, tuple[float, ...]]
    told: Callable[[Sequence[float]], float | None]

    @property
    def value(self) -> float | None:
        """The measure over all units; None if it is undefined."""
        return self.told(_added(self.sums.values())) if self.sums else None

    def interval(
        self, group: Callable[[_Unit], Hashable], *, seed: int = 0
    ) -> ConfidenceInterval | None:
        """The 95 % interval by drawing groups of units with replacement (bootstrap, percentiles).

        None if there are fewer than two groups, too many draws are undefined, or all draws give the
        same value. group: names the group of a unit, such as the item that it answers.
        """
        by_group: dict[Hashable, list[tuple[float, ...]]] = defaultdict(list)
        for unit, sums in self.sums.items():
            by_group[group(unit)].append(sums)
        if len(by_group) < 2:
            return None
        columns = list(zip(*map(_added, by_group.values()), strict=True))
        draw, places = random.Random(seed), range(len(by_group))  # noqa: S311 — no secret
        found: list[float] = []
        for _ in range(_DRAWS):
            times = Counter(draw.choices(places, k=len(places)))
            weights = [times[place] for place in places]
            value = self.told([math.fsum(map(mul, column, weights)) for column in columns])
            if value is not None:
                found.append(value)
        if len(found) < _LEAST_TOLD * _DRAWS or min(found) == max(found):
            return None
        *_, high = low, *_ = quantiles(found, n=40, method="inclusive")
        return ConfidenceInterval(low, high)


def cohen_kappa(
    first: Mapping[_Unit, float], second: Mapping[_Unit, float], scale: Scale
) -> Agreement[_Unit]:
    """Cohen's kappa of two judges over the units that both have judged.

    Source: Cohen 1960; on an interval scale with quadratic weights (Cohen 1968).
    """
    pairs = {unit: (first[unit], second[unit]) for unit in first if unit in second}
    if scale == "interval":
        # Differences to the mean are used, because squares of large values would lose precision.
        middle = _middle(pairs.values())
        apart = {unit: (left - middle, right - middle) for unit, (left, right) in pairs.items()}
        return Agreement(
            {
                unit: (1.0, left, right, left**2, right**2, (left - right) ** 2)
                for unit, (left, right) in apart.items()
            },
            _weighted_kappa,
        )
    names = sorted({name for pair in pairs.values() for name in pair})
    return Agreement(
        {
            unit: (float(left != right), *_counts([left], names), *_counts([right], names))
            for unit, (left, right) in pairs.items()
        },
        _kappa,
    )


def _weighted_kappa(sums: Sequence[float]) -> float | None:
    number, left, right, left_squares, right_squares, differences = sums
    expected = (left_squares + right_squares) / number - 2 * left * right / number**2
    return _beyond_chance(differences / number, expected)


def _kappa(sums: Sequence[float]) -> float | None:
    differ, *counts = sums
    lefts, rights = counts[: len(counts) // 2], counts[len(counts) // 2 :]
    number = sum(lefts)
    return _beyond_chance(differ / number, 1 - sum(map(mul, lefts, rights)) / number**2)


def fleiss_kappa(units: Mapping[_Unit, Sequence[float]]) -> Agreement[_Unit]:
    """Fleiss' kappa (1971) of several judges, on a nominal scale. units: the verdicts on each unit.
    The measure is undefined if there are fewer than two judges, or units have different numbers of
    verdicts.
    """
    most = max(map(len, units.values()), default=0)
    known = {} if most < 2 or any(len(of) != most for of in units.values()) else units
    names = sorted({name for verdicts in known.values() for name in verdicts})
    return Agreement(
        {
            unit: (1.0, _differences(verdicts, "nominal"), *_counts(verdicts, names))
            for unit, verdicts in known.items()
        },
        _fleiss,
    )


def _fleiss(sums: Sequence[float]) -> float | None:
    number, differences, *counts = sums
    whole = sum(counts)
    judges = whole / number
    expected = 1 - math.fsum((count / whole) ** 2 for count in counts)
    return _beyond_chance(differences / (number * judges * (judges - 1)), expected)


def krippendorff_alpha(units: Mapping[_Unit, Sequence[float]], scale: Scale) -> Agreement[_Unit]:
    """Krippendorff's alpha.

    units: the verdicts on each unit. Judges may have missed some units. Units with a single verdict
    are left out.
    """
    known = {unit: verdicts for unit, verdicts in units.items() if len(verdicts) > 1}
    observed = {
        unit: _differences(verdicts, scale) / (len(verdicts) - 1)
        for unit, verdicts in known.items()
    }
    if scale == "interval":
        middle = _middle(known.values())
        return Agreement(
            {
                unit: (
                    observed[unit],
                    float(len(verdicts)),
                    math.fsum(value - middle for value in verdicts),
                    math.fsum((value - middle) ** 2 for value in verdicts),
                )
                for unit, verdicts in known.items()
            },
            _interval_alpha,
        )
    names = sorted({name for verdicts in known.values() for name in verdicts})
    return Agreement(
        {unit: (observed[unit], *_counts(of, names)) for unit, of in known.items()}, _nominal_alpha
    )


def _interval_alpha(sums: Sequence[float]) -> float | None:
    observed, number, total, squares = sums
    whole = 2 * (number * squares - total**2)
    return _beyond_chance(observed / number, whole / (number * (number - 1)))


def _nominal_alpha(sums: Sequence[float]) -> float | None:
    observed, *counts = sums
    number = sum(counts)
    whole = number**2 - math.fsum(count**2 for count in counts)
    return _beyond_chance(observed / number, whole / (number * (number - 1)))


def _differences(values: Sequence[float], scale: Scale) -> float:
    """The sum over all ordered pairs of values of how much they differ."""
    if scale == "nominal":
        return float(len(values) ** 2 - sum(number**2 for number in Counter(values).values()))
    middle = math.fsum(values) / len(values)
    return 2 * len(values) * math.fsum((value - middle) ** 2 for value in values)


def _beyond_chance(observed: float, expected: float) -> float | None:
    """Agreement beyond chance; None if it is undefined. observed, expected: how much judges differ,
    and how much they would differ by chance."""
    return None if math.isclose(expected, 0.0, abs_tol=1e-12) else 1 - observed / expected


def _counts(verdicts: Sequence[float], names: Sequence[float]) -> list[float]:
    return [float(verdicts.count(name)) for name in names]


def _middle(units: Iterable[Sequence[float]]) -> float:
    values = [value for unit in units for value in unit]
    return math.fsum(values) / len(values) if values else 0.0


def _added(rows: Iterable[Sequence[float]]) -> tuple[float, ...]:
    return tuple(map(math.fsum, zip(*rows, strict=True)))
