"""How the arms of a report differ, pair by pair over the items that both have answered, and
sentences that say what this means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import itemgetter
from typing import Any

from moa_cli.bench.report.values import AnswerValues, Unit, ValuedRun, over_epochs
from moa_cli.bench.run.arms import SINGLE
from moa_cli.bench.run.journal import ANCHOR, Result
from moa_cli.bench.scoring.means import Mean, grouped_mean
from moa_cli.bench.scoring.statistics import (
    ConfidenceInterval,
    PairedDifference,
    holm,
    interval_of,
    paired_difference,
    unpaired_difference,
)
from moa_cli.core.text import plural

# The lowest and the highest value of a unit, by the end of its name.
_SCALES = {"%": (0.0, 100.0), "of 10": (1.0, 10.0), "of 5": (1.0, 5.0)}
# With more arms than this, each arm is compared with the first one only.
_MOST_ALL = 6
# An effect of an output's position is reported from this many standard errors on (95 %).
_CLEAR = 1.96


@dataclass(frozen=True)
class ArmWorth:
    """What an arm's answers are worth. name: the arm's name in the report. values: by item and
    turn, as means over all epochs, because the epochs of an item are one observation.

    cost: USD for each item; None if it is unknown, or nothing was paid.
    """

    name: str
    arm: str
    values: Mapping[Unit, float]
    cost: float | None = None

    @property
    def mean(self) -> Mean:
        return grouped_mean((value, unit[0]) for unit, value in self.values.items())


@dataclass(frozen=True)
class ArmPair:
    """Two arms that are compared. found: how the first differs from the second. p_holm: the p
    value, corrected for the number of pairs by Holm's method. cost_ratio: the cost of the first
    divided by that of the second."""

    first: ArmWorth
    second: ArmWorth
    found: PairedDifference
    p_holm: float
    cost_ratio: float | None

    def to_dict(self) -> dict[str, Any]:
        found = self.found
        return {
            "first": self.first.name,
            "second": self.second.name,
            "difference": found.difference.value,
            "standard_error": found.difference.standard_error,
            **vars(found.interval),
            "z": found.z,
            "p": found.p,
            "p_holm": self.p_holm,
            "better": found.better,
            "worse": found.worse,
            "equal": found.equal,
            "items": found.items,
            "detectable": found.detectable,
            "cost_ratio": self.cost_ratio,
        }


@dataclass(frozen=True)
class Differences:
    """The differences between all arms with values of one unit.

    intervals: the 95 % interval of each arm's mean. pairs: all pairs of arms, or only those with
    the first arm. all_of: how many pairs there are in all. conclusions: sentences.
    """

    unit: str
    arms: tuple[ArmWorth, ...]
    intervals: tuple[ConfidenceInterval, ...]
    pairs: tuple[ArmPair, ...]
    all_of: int
    conclusions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The differences as JSON values, without the values of items."""
        return {
            "unit": self.unit,
            "arms": [
                {"arm": arm.name, **vars(arm.mean), **vars(interval)}
                for arm, interval in zip(self.arms, self.intervals, strict=True)
            ],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "conclusions": list(self.conclusions),
        }


def scale_of(unit: str) -> tuple[float, float] | None:
    """The lowest and the highest value in a unit; None if the unit has no bounds."""
    return next((scale for end, scale in _SCALES.items() if unit.endswith(end)), None)


def differences_of(unit: str, arms: Iterable[ArmWorth]) -> Differences | None:
    """How the arms differ; None if there are no values, or their unit has no bounds. unit: the unit
    of all values."""
    scale = scale_of(unit)
    known = [arm for arm in arms if arm.values]
    if scale is None or not known:
        return None
    intervals = [interval_of(arm.mean, *scale) for arm in known]
    pairs = list(combinations(known, 2))
    chosen = pairs if len(known) <= _MOST_ALL else [pair for pair in pairs if pair[0] is known[0]]
    compared = list(_compared(chosen, scale))
    return Differences(
        unit=unit,
        arms=tuple(known),
        intervals=tuple(found for found in intervals if found is not None),
        pairs=tuple(compared),
        all_of=len(pairs),
        conclusions=tuple(_conclusions(known, scale)),
    )


def differences_in(valued: ValuedRun) -> Differences | None:
    """How the arms of a run differ; None if it is not known what their answers are worth."""
    run = valued.run
    judge = run.judges.get(valued.values.judge or "")
    values = with_reference(valued.values, judge.settings.against if judge else None)
    return differences_of(
        values.unit,
        [
            ArmWorth(
                arm,
                arm,
                over_epochs(known, run.settings.epochs),
                _cost(run.answers.get(arm, {}).values()),
            )
            for arm, known in values.by_arm.items()
        ],
    )


def _cost(results: Iterable[Result]) -> float | None:
    """USD for each item; None if a price is unknown or there are no results."""
    usages = [result.usage for result in results]
    if not usages or any(usage.unpriced_calls for usage in usages):
        return None
    return sum(usage.cost for usage in usages) / len(usages)


def _compared(
    pairs: Iterable[tuple[ArmWorth, ArmWorth]], scale: tuple[float, float]
) -> Iterator[ArmPair]:
    found = [
        (first, second, difference)
        for first, second in pairs
        if (difference := _difference(first, second, scale)) is not None
    ]
    corrected = holm([difference.p for _, _, difference in found])
    for (first, second, difference), p in zip(found, corrected, strict=True):
        ratio = first.cost / second.cost if first.cost and second.cost else None
        yield ArmPair(first, second, difference, p, ratio)


def _difference(
    first: ArmWorth, second: ArmWorth, scale: tuple[float, float]
) -> PairedDifference | None:
    low, high = scale
    return paired_difference(first.values, second.values, itemgetter(0), low=low, high=high)


def _conclusions(arms: Sequence[ArmWorth], scale: tuple[float, float]) -> Iterator[str]:
    """Sentences on how each mixture compares with the best single model, and on which arm to
    take."""
    own = [arm for arm in arms if not arm.arm.startswith(ANCHOR)]
    singles = [arm for arm in own if arm.arm.startswith(SINGLE)]
    mixtures = [arm for arm in own if not arm.arm.startswith(SINGLE)]
    if singles:
        best = max(singles, key=_value)
        for mixture in mixtures:
            found = _difference(mixture, best, scale)
            if found is not None:
                yield _against_best(mixture, best, found, several=len(singles) > 1)
    if len(own) > 1:
        yield from _choice(own, scale)


def _value(arm: ArmWorth) -> float:
    return arm.mean.value or 0.0


def _against_best(
    mixture: ArmWorth, best: ArmWorth, found: PairedDifference, *, several: bool
) -> str:
    other = f"the best single model ({best.name})" if several else best.name
    interval, value = found.interval, found.difference.value or 0.0
    error = found.difference.standard_error
    size = f"{abs(value):.1f}" + (f" ± {error:.1f}" if error is not None else "") + " points"
    price = _price(mixture, best)
    if interval.low > 0:
        return f"{mixture.name} beats {other} by {size}{price}"
    if interval.high < 0:
        return f"{mixture.name} falls behind {other} by {size}{price}"
    told = f"between {mixture.name} and {other} no difference is shown{price}: {value:+.1f} points"
    told += f", 95 % {interval.low:+.1f} to {interval.high:+.1f}"
    least, needed = found.detectable, found.items_for(value)
    if least is not None:
        told += f"; {plural(found.items, 'item')} would show a difference of {least:.1f} points"
    if needed is not None and round(value, 1):
        told += f", and {needed:,} items one of {abs(value):.1f}"
    return told


def ratio_text(ratio: float) -> str:
    """A ratio above 0 with one decimal, or with two significant digits: `5.2`, `0.031`."""
    return f"{ratio:,.{max(1, 1 - math.floor(math.log10(ratio)))}f}"


def _price(arm: ArmWorth, other: ArmWorth) -> str:
    if not (arm.cost and other.cost):
        return ""
    return f" at {ratio_text(arm.cost / other.cost)} times its cost"


def _choice(arms: Sequence[ArmWorth], scale: tuple[float, float]) -> Iterator[str]:
    """A sentence that names the cheapest arm that is not shown to be worse than another."""

    def is_worse(arm: ArmWorth) -> bool:
        found = (_difference(arm, other, scale) for other in arms if other is not arm)
        return any(difference is not None and difference.interval.high < 0 for difference in found)

    left = [arm for arm in arms if not is_worse(arm)]
    if not left:
        return
    if len(left) == 1:
        yield f"on these prompts take {left[0].name}: it is shown to be better than all others"
    elif all(arm.cost is not None for arm in left):
        cheapest = min(left, key=lambda arm: (arm.cost or 0.0, -_value(arm)))
        yield (
            f"on these prompts take {cheapest.name}: nothing that costs more is shown to be better"
        )
    else:
        names = ", ".join(arm.name for arm in left)
        yield f"on these prompts none of {names} is shown to be better, and a price is unknown"


def position_note(judged: Mapping[str, Sequence[tuple[float, bool]]]) -> str | None:
    """A sentence on how the position of an output affects a judge of pairs; None if that is not
    known.

    judged: for each item, the values (%) of its outputs, and whether each was shown first.
    """
    means = {
        first: [
            sum(values) / len(values)
            for shown in judged.values()
            if (values := [value for value, was_first in shown if was_first is first])
        ]
        for first in (True, False)
    }
    found = unpaired_difference(means[True], means[False])
    if found.value is None or found.standard_error is None:
        return None
    size = f"{found.value:+.1f} ± {found.standard_error:.1f} points"
    if abs(found.value) < _CLEAR * found.standard_error:
        return f"position: which output the judge sees first has no clear effect ({size})"
    return f"position: shown first, an output gets {size} compared with being shown second"


def with_reference(values: AnswerValues, against: str | None) -> AnswerValues:
    """The values, with those of the arm that all others were compared with. Its values are 50 %,
    because it wins half of the time against itself."""
    if against is None or not values.by_arm:
        return values
    judged = dict.fromkeys((unit for known in values.by_arm.values() for unit in known), 50.0)
    return AnswerValues(
        values.unit, values.judge, {**values.by_arm, against: judged}, values.by_text
    )
