"""Several judges of one run: how far they agree, their mean verdicts, and how they compare with a
person's choices in `moa compare`. The person saw other answers than the judges of a run. For the
same answers, if they were kept, see `compare.judging`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from moa_cli.bench.data.epochs import origin_of
from moa_cli.bench.judge.registry import kind_of, worths_of
from moa_cli.bench.run.folder import RunReader
from moa_cli.bench.run.settings import JudgeSettings
from moa_cli.bench.scoring.agreement import (
    Agreement,
    Scale,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
)
from moa_cli.bench.scoring.means import Mean, grouped_mean, mean_of
from moa_cli.bench.scoring.statistics import ConfidenceInterval
from moa_cli.core.errors import BenchError
from moa_cli.store.comparisons import Comparison

# What a verdict is about: an arm, an item and a turn of it.
VerdictName = tuple[str, str, int]
# What a reply is worth, in percent, if it and the other output are equally good.
_EVEN = 50.0
# The same value for shares of comparisons, which are from 0 to 1.
_HALF = 0.5


@dataclass(frozen=True)
class JudgePair:
    """How far two judges agree.

    units: how many answers both have judged. same: the share of these with the same verdict, 0 to
    1; ratings are the same if they round to the same whole number. kappa: Cohen's kappa, with
    quadratic weights for ratings; None if it is undefined. interval: its 95 % interval; see
    `interval_of`.
    """

    first: str
    second: str
    units: int
    same: float | None
    kappa: float | None
    interval: ConfidenceInterval | None


@dataclass(frozen=True)
class PanelArm:
    """What an arm is worth. panel: by the mean of all judges. by_judge: by each judge, over the
    same answers."""

    arm: str
    panel: Mean
    by_judge: Mapping[str, Mean]


@dataclass(frozen=True)
class Panel:
    """The verdicts of several judges of a run, which can be compared.

    unit: the unit of what an answer is worth. against: the name of what answers are compared with;
    None without pairs. values: for each judge, what each answer is worth.
    """

    unit: str
    against: str | None
    values: Mapping[str, Mapping[VerdictName, float]]

    @property
    def scale(self) -> Scale:
        """The scale of verdicts: nominal for pairs, which only say who is better, and interval for
        ratings."""
        return "interval" if self.against is None else "nominal"

    def _verdicts(self, judge: str) -> dict[VerdictName, float]:
        values = self.values[judge]
        if self.against is None:
            return dict(values)
        return {name: float((value > _EVEN) - (value < _EVEN)) for name, value in values.items()}

    def pairs(self) -> list[JudgePair]:
        """Each judge with each other one."""
        found = []
        for first, second in combinations(self.values, 2):
            left, right = self._verdicts(first), self._verdicts(second)
            common = [name for name in left if name in right]
            same = [round(left[name]) == round(right[name]) for name in common]
            share = sum(same) / len(same) if same else None
            kappa = cohen_kappa(left, right, self.scale)
            found.append(
                JudgePair(first, second, len(common), share, kappa.value, interval_of(kappa))
            )
        return found

    def common(self) -> list[VerdictName]:
        """The answers that all judges have judged."""
        first, *others = self.values.values()
        return [name for name in first if all(name in values for values in others)]

    def fleiss(self) -> Agreement[VerdictName] | None:
        """Fleiss' kappa over the answers that all have judged; None for ratings, because it needs a
        nominal scale."""
        if self.scale == "interval":
            return None
        verdicts = list(map(self._verdicts, self.values))
        return fleiss_kappa({name: [judge[name] for judge in verdicts] for name in self.common()})

    def alpha(self) -> Agreement[VerdictName]:
        """Krippendorff's alpha over the answers that two or more have judged."""
        verdicts = list(map(self._verdicts, self.values))
        names = dict.fromkeys(name for judge in verdicts for name in judge)
        units = {name: [judge[name] for judge in verdicts if name in judge] for name in names}
        return krippendorff_alpha(units, self.scale)

    def arms(self) -> list[PanelArm]:
        """What each arm is worth, over the answers that all have judged."""
        judges = len(self.values)
        by_arm: dict[str, list[VerdictName]] = {}
        for name in self.common():
            by_arm.setdefault(name[0], []).append(name)
        return [
            PanelArm(
                arm,
                grouped_mean(
                    (sum(of[name] for of in self.values.values()) / judges, origin_of(name[1]))
                    for name in names
                ),
                {
                    judge: grouped_mean((values[name], origin_of(name[1])) for name in names)
                    for judge, values in self.values.items()
                },
            )
            for arm, names in by_arm.items()
        ]

    def share_better(self, judge: str, first: str, second: str) -> Mean:
        """How often that judge finds the first arm better than the second, 0 to 1. A draw counts as
        a half.

        Ratings, and win rates against a third arm, are compared item by item.
        """
        told = self.values[judge]
        shares = []
        for item, turn in dict.fromkeys((item, turn) for _, item, turn in told):
            left, right = (
                _EVEN if arm == self.against else told.get((arm, item, turn))
                for arm in (first, second)
            )
            if left is not None and right is not None:
                share = 0.5 if left == right else float(left > right)
                shares.append((share, origin_of(item)))
        return grouped_mean(shares)


def interval_of(agreement: Agreement[VerdictName]) -> ConfidenceInterval | None:
    """The 95 % interval of a measure of agreement. The bootstrap draws whole items with all their
    judged answers, because these depend on how hard the item is to judge."""
    return agreement.interval(lambda name: origin_of(name[1]))


def read_panel(run: RunReader, judges: Sequence[str]) -> Panel:
    """The verdicts of these judges of a run, or of all judges if none is named. Raises BenchError
    if there is none, or their verdicts have different measures."""
    found = [run.judge(name) for name in judges] or list(run.judges.values())
    if not found:
        raise BenchError(
            f"{run.path}: nobody has judged it", hint=f"moa bench judge {run.path} --judge MODEL"
        )
    for other in found[1:]:
        if _measure(other.settings) != _measure(found[0].settings):
            names = f"{found[0].settings.model} and {other.settings.model}"
            raise BenchError(
                f"{run.path}: {names} have judged by different measures",
                hint="--judge names those that belong together; repeat it",
            )
    kind, settings = kind_of(found[0]), found[0].settings
    against = settings.against or (settings.reference and settings.reference.name)
    return Panel(
        kind.unit,
        (against or "the reference") if kind.compares else None,
        {judge.settings.model: worths_of(judge) for judge in found},
    )


def _measure(settings: JudgeSettings) -> tuple[object, ...]:
    return settings.kind, settings.reference, settings.against, settings.rubric


@dataclass(frozen=True)
class ChosenPair:
    """Two arms, and how often the first is better than the second, from 0 to 1, with ties as a
    half. chosen: by the person's choices. by_judge: by each judge on the run's items."""

    first: str
    second: str
    chosen: Mean
    by_judge: Mapping[str, Mean]

    def agrees(self, judge: str) -> bool | None:
        """Whether that judge and the person prefer the same arm; None if one of them prefers
        neither."""
        chosen, told = self.chosen.value, self.by_judge[judge].value
        if chosen is None or told is None or _HALF in (chosen, told):
            return None
        return (chosen > _HALF) == (told > _HALF)


def chosen_pairs(
    panel: Panel, arms: Sequence[str], comparisons: Iterable[Comparison], profile: str
) -> list[ChosenPair]:
    """The pairs of a run's arms between which the person has chosen, if all judges judged both.

    profile: the name of the run's profile; choices between arms of other profiles are left out.
    """
    made = list(comparisons)
    found = []
    for first, second in combinations(arms, 2):
        chosen = mean_of(_points(made, profile, first, second))
        told = {judge: panel.share_better(judge, first, second) for judge in panel.values}
        if chosen.n and all(mean.n for mean in told.values()):
            found.append(ChosenPair(first, second, chosen, told))
    return found


def _points(
    comparisons: Iterable[Comparison], profile: str, first: str, second: str
) -> Iterator[float]:
    """For each comparison: 1 if the first arm was chosen, 0 if the second was, a half if neither is
    better. A comparison in which a third arm was chosen is left out."""
    for comparison in comparisons:
        places = {
            contender.arm: place
            for place, contender in enumerate(comparison.contenders)
            if contender.profile == profile
        }
        if first in places and second in places:
            share = comparison.share_better(places[first], places[second])
            if share is not None:
                yield share
