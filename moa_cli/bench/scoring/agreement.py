"""How far judges agree beyond chance: Cohen's, Fleiss' and Krippendorff's measures.

All are 1 where judges agree wholly, and 0 where they agree as often as chance would. None of them
can be told where every verdict is the same: chance alone would explain that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Literal, TypeVar

# Verdicts are names (nominal: who is better), or numbers whose distance counts (interval).
Scale = Literal["nominal", "interval"]
_Unit = TypeVar("_Unit", bound=Hashable)


def cohen_kappa(
    first: Mapping[_Unit, float], second: Mapping[_Unit, float], scale: Scale
) -> float | None:
    """Cohen's kappa of two judges over what both have judged; None where it cannot be told.

    Source: Cohen 1960; on an interval scale with quadratic weights (Cohen 1968).
    """
    pairs = [(first[unit], second[unit]) for unit in first if unit in second]
    if not pairs:
        return None
    lefts, rights = zip(*pairs, strict=True)
    if scale == "interval":
        observed = math.fsum((left - right) ** 2 for left, right in pairs) / len(pairs)
        expected = _square_mean(lefts) + _square_mean(rights) - 2 * _mean(lefts) * _mean(rights)
    else:
        observed = sum(left != right for left, right in pairs) / len(pairs)
        by_left, by_right = Counter(lefts), Counter(rights)
        alike = sum(count * by_right[value] for value, count in by_left.items())
        expected = 1 - alike / len(pairs) ** 2
    return _beyond_chance(observed, expected)


def fleiss_kappa(units: Iterable[Sequence[float]]) -> float | None:
    """Fleiss' kappa (1971) of several judges, of names; None where it cannot be told.

    units: the verdicts on each, as many of all units.
    """
    counts = [Counter(verdicts) for verdicts in units]
    if not counts:
        return None
    judges = counts[0].total()
    if judges < 2 or any(count.total() != judges for count in counts):
        return None
    alike = math.fsum(
        (sum(number**2 for number in count.values()) - judges) / (judges * (judges - 1))
        for count in counts
    )
    whole = sum(counts, Counter[float]())
    by_chance = math.fsum((number / whole.total()) ** 2 for number in whole.values())
    return _beyond_chance(1 - alike / len(counts), 1 - by_chance)


def krippendorff_alpha(units: Iterable[Sequence[float]], scale: Scale) -> float | None:
    """Krippendorff's alpha; None where it cannot be told.

    units: the verdicts on each, as many as there are: judges may have missed some. Units with a
    single verdict tell nothing.
    """
    known = [verdicts for verdicts in units if len(verdicts) > 1]
    whole = [value for verdicts in known for value in verdicts]
    if not whole:
        return None
    observed = math.fsum(
        _differences(verdicts, scale) / (len(verdicts) - 1) for verdicts in known
    ) / len(whole)
    expected = _differences(whole, scale) / (len(whole) * (len(whole) - 1))
    return _beyond_chance(observed, expected)


def _differences(values: Sequence[float], scale: Scale) -> float:
    """The sum over all ordered pairs of values of how much they differ."""
    if scale == "nominal":
        return float(len(values) ** 2 - sum(number**2 for number in Counter(values).values()))
    # About the mean, so that nothing is lost where large values differ little.
    mean = _mean(values)
    return 2 * len(values) * math.fsum((value - mean) ** 2 for value in values)


def _beyond_chance(observed: float, expected: float) -> float | None:
    """observed, expected: how much judges differ, and would differ by chance."""
    return None if math.isclose(expected, 0.0, abs_tol=1e-12) else 1 - observed / expected


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _square_mean(values: Sequence[float]) -> float:
    return math.fsum(value**2 for value in values) / len(values)
