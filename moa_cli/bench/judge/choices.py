"""What a person chose in `moa compare`, as the yardstick of judges: which of two arms wins, and how
often.

The person saw other answers than the judges of a run. `compare.judging` has judges decide on the
same answers, where these were kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from moa_cli.bench.judge.panel import Panel
from moa_cli.bench.scoring.means import Mean, mean_of
from moa_cli.store.comparisons import Comparison

_EVEN = 0.5


@dataclass(frozen=True)
class ChosenPair:
    """Two arms, and how often the first is better than the second, 0 to 1, ties as a half: by the
    person's choices, and by each judge on the run's items."""

    first: str
    second: str
    chosen: Mean
    by_judge: Mapping[str, Mean]

    def agrees(self, judge: str) -> bool | None:
        """Whether that judge prefers the arm that the person prefers; None where one of them
        prefers none."""
        chosen, told = self.chosen.value, self.by_judge[judge].value
        if chosen is None or told is None or _EVEN in (chosen, told):
            return None
        return (chosen > _EVEN) == (told > _EVEN)


def chosen_pairs(
    panel: Panel, arms: Sequence[str], comparisons: Iterable[Comparison], profile: str
) -> list[ChosenPair]:
    """Each two arms of a run between which the person has chosen, and which all judges judged.

    profile: the name of the run's; choices between arms of others are left out.
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
    """1 where the first was chosen, 0 where the second was, a half where neither is better; a
    choice of a third tells nothing."""
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
