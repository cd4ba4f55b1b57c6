"""Who won how often, against whom, and what a win cost: what blind choices say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from random import Random
from typing import Any

from moa_cli.bench.scoring.means import Mean, mean_of
from moa_cli.bench.scoring.statistics import (
    ConfidenceInterval,
    bradley_terry,
    interval_of,
    swap_test,
)
from moa_cli.core.conversation import Usage
from moa_cli.core.jsonl import usage_to_dict
from moa_cli.store.comparisons import Comparison

# The number of bootstrap samples for the interval of a strength.
_DRAWS = 200
# Arm, profile and settings.
ArmName = tuple[str, str, str]


@dataclass(frozen=True)
class PairResult:
    """How often one arm was chosen where another was offered, too. p: how likely wins and losses
    are so uneven if the two are equally good (a sign test; two-sided)."""

    other: ArmName
    wins: int
    losses: int
    ties: int

    @property
    def p(self) -> float:
        return swap_test([1.0] * self.wins + [-1.0] * self.losses)

    def to_dict(self) -> dict[str, Any]:
        arm, profile, settings = self.other
        other = {"arm": arm, "profile": profile, "settings": settings}
        counts = {"wins": self.wins, "losses": self.losses, "ties": self.ties}
        return {**other, **counts, "p": self.p}


@dataclass(frozen=True)
class Strength:
    """How likely an arm beats an average one, 0 to 1 (`bradley_terry`), with its 95 % interval."""

    value: float
    interval: ConfidenceInterval


@dataclass
class LeaderboardRow:
    """An arm of a profile with certain settings, over all choices that it was part of.

    wins: how often its answer was chosen. shared: how many of them with others that gave the same
    answer. none_good: how many of the ties because no answer was good. points: 1 where its answer
    was chosen, 0 where another was; in a tie the part that falls to each of the answers shown.
    Arms that gave the same answer have the same points, so that none loses by agreeing with
    others; where all gave the same, half a point. chances: the points to expect if each answer
    were as good.
    usage, seconds: summed. strength, against: None and empty unless `with_pairs` tells them.
    """

    arm: str
    profile: str
    settings: str
    wins: int = 0
    shared: int = 0
    ties: int = 0
    none_good: int = 0
    points: list[float] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    strength: Strength | None = None
    against: tuple[PairResult, ...] = ()

    @property
    def name(self) -> ArmName:
        """What tells it from all others."""
        return self.arm, self.profile, self.settings

    @property
    def compared(self) -> int:
        """How many choices it was part of."""
        return len(self.points)

    @property
    def win_rate(self) -> Mean:
        """The mean of the points, 0 to 1."""
        return mean_of(self.points)

    @property
    def chance(self) -> float | None:
        """The win rate that it would have if all answers were equally good."""
        return mean_of(self.chances).value

    @property
    def interval(self) -> ConfidenceInterval | None:
        """The 95 % interval of the win rate."""
        return interval_of(self.win_rate, 0.0, 1.0)

    @property
    def cost_per_win(self) -> float | None:
        """USD of all its answers, for each win; None without wins, or if a price is unknown."""
        return self.usage.cost / self.wins if self.wins and not self.usage.unpriced_calls else None

    def to_dict(self) -> dict[str, Any]:
        rate = self.win_rate
        usage = usage_to_dict(self.usage)
        interval, strength = self.interval, self.strength
        return {
            "arm": self.arm,
            "profile": self.profile,
            "settings": self.settings,
            "compared": self.compared,
            "wins": self.wins,
            "shared_wins": self.shared,
            "ties": self.ties,
            "none_good": self.none_good,
            "win_rate": rate.value,
            "standard_error": rate.standard_error,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "chance": self.chance,
            "strength": strength and {"value": strength.value, **vars(strength.interval)},
            "against": [pair.to_dict() for pair in self.against],
            "cost": usage["cost"],
            "cost_per_win": self.cost_per_win,
            "seconds": self.seconds / self.compared,
            "usage": usage,
        }


def leaderboard(comparisons: Iterable[Comparison]) -> list[LeaderboardRow]:
    """The best win rate first."""
    found: dict[ArmName, LeaderboardRow] = {}
    for comparison in comparisons:
        tied, winners = comparison.winner is None, comparison.winners
        # If all answers were the same, no arm is better, as in a tie of two.
        chance = 1 / max(2, len(set(comparison.answers)))
        for place, contender in enumerate(comparison.contenders):
            standing = found.setdefault(contender.name, LeaderboardRow(*contender.name))
            won = place in winners
            standing.wins += won
            standing.shared += won and len(winners) > 1
            standing.ties += tied
            standing.none_good += comparison.none_good
            standing.points.append(chance if tied else float(won))
            standing.chances.append(chance)
            standing.usage += contender.usage
            standing.seconds += contender.seconds
    return sorted(found.values(), key=lambda standing: -(standing.win_rate.value or 0.0))


def with_pairs(
    rows: Sequence[LeaderboardRow], comparisons: Sequence[Comparison]
) -> list[LeaderboardRow]:
    """The rows, each with its strength and with what it came to against each other arm."""
    wins, ties = _pairs(comparisons)
    strengths = _strengths(comparisons)
    for row in rows:
        row.strength = strengths.get(row.name)
        row.against = tuple(
            PairResult(other.name, wins[row.name, other.name], wins[other.name, row.name], tied)
            for other in rows
            for tied in [ties[row.name, other.name]]
            if tied or wins[row.name, other.name] or wins[other.name, row.name]
        )
    return list(rows)


def _pairs(
    comparisons: Iterable[Comparison],
) -> tuple[Counter[tuple[ArmName, ArmName]], Counter[tuple[ArmName, ArmName]]]:
    """How often an arm was chosen where another was offered, and how often neither was better: a
    tie, or the same answer. What two arms are to each other where a third was chosen is not
    known."""
    wins: Counter[tuple[ArmName, ArmName]] = Counter()
    ties: Counter[tuple[ArmName, ArmName]] = Counter()
    for comparison in comparisons:
        names = [contender.name for contender in comparison.contenders]
        for first, second in permutations(range(len(names)), 2):
            share = comparison.share_better(first, second)
            if share == 1.0:
                wins[names[first], names[second]] += 1
            elif share == 0.5:
                ties[names[first], names[second]] += 1
    return wins, ties


def _strengths(comparisons: Sequence[Comparison]) -> Mapping[ArmName, Strength]:
    """Of each arm, with an interval by drawing the choices again (bootstrap, seeded)."""
    found = _fitted(comparisons)
    drawn = Random(0)  # noqa: S311
    fits = [_fitted(drawn.choices(comparisons, k=len(comparisons))) for _ in range(_DRAWS)]
    strengths = {}
    for name, value in found.items():
        values = sorted(fit[name] for fit in fits if name in fit)
        cut = math.floor(0.025 * len(values))
        ends = (values[cut], values[-1 - cut]) if values else (0.0, 1.0)
        interval = ConfidenceInterval(min(value, ends[0]), max(value, ends[1]))
        strengths[name] = Strength(value, interval)
    return strengths


def _fitted(comparisons: Iterable[Comparison]) -> dict[ArmName, float]:
    wins, ties = _pairs(comparisons)
    halves = {pair: times / 2 for pair, times in ties.items()}
    return bradley_terry(
        {pair: wins.get(pair, 0) + halves.get(pair, 0.0) for pair in (*wins, *halves)}
    )
