"""The leaderboard of blind choices: how often each arm won, against which others, and at which
cost."""

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
# The name of an arm, the name of its profile, and a hash of its settings.
ArmName = tuple[str, str, str]


@dataclass(frozen=True)
class PairResult:
    """The results of an arm against another arm that was offered in the same choices. p: how likely
    wins and losses would be at least as uneven if both were equally good (two-sided sign test)."""

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
    """How likely an arm beats an average arm, 0 to 1 (`bradley_terry`), with its 95 % interval:
    None if all choices are alike (or there is only one), so that they do not tell their spread."""

    value: float
    interval: ConfidenceInterval | None

    def to_dict(self) -> dict[str, Any]:
        ends = self.interval
        low, high = (ends.low, ends.high) if ends else (None, None)
        return {"value": self.value, "low": low, "high": high}


@dataclass
class LeaderboardRow:
    """An arm of a profile with certain settings, over all choices that it was part of.

    wins: how often its answer was chosen. shared: how many of its wins are shared with other arms
    that gave the same answer. ties: how often no answer was chosen. none_good: how many of the ties
    were because no answer was good. points: for each choice, 1 if its answer was chosen, 0 if
    another was, and in a tie 1 divided by the number of different answers, or a half if all arms
    gave the same answer. Arms with the same answer get the same points, so that agreeing with
    others is no disadvantage. chances: for each choice, the points to expect if all answers were
    equally good.

    usage, seconds: sums over all choices. strength, against: set by `with_pairs`.
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
        """Arm, profile and settings, which identify the row."""
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
        """The cost of all its answers in USD, divided by its wins; None without wins, or if a price
        is unknown."""
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
            "strength": strength and strength.to_dict(),
            "against": [pair.to_dict() for pair in self.against],
            "cost": usage["cost"],
            "cost_per_win": self.cost_per_win,
            "seconds": self.seconds / self.compared,
            "usage": usage,
        }


def leaderboard(comparisons: Iterable[Comparison]) -> list[LeaderboardRow]:
    """The rows of all arms, the best win rate first."""
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
    """The rows, each with its strength and its results against each other arm."""
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
    """For each pair of arms, how often the first was chosen over the second, and how often neither
    was better: a tie, or the same answer. A choice of a third arm does not count for a pair,
    because it does not say which of the two is better."""
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
    """The strength of each arm, with an interval by drawing choices again (bootstrap, seeded)."""
    found = _fitted(comparisons)
    drawn = Random(0)  # noqa: S311
    fits = [_fitted(drawn.choices(comparisons, k=len(comparisons))) for _ in range(_DRAWS)]
    strengths = {}
    for name, value in found.items():
        values = sorted(fit[name] for fit in fits if name in fit)
        cut = math.floor(0.025 * len(values))
        ends = (values[cut], values[-1 - cut]) if values else (0.0, 1.0)
        interval = ConfidenceInterval(min(value, ends[0]), max(value, ends[1]))
        is_known = not values or values[0] < values[-1]
        strengths[name] = Strength(value, interval if is_known else None)
    return strengths


def _fitted(comparisons: Iterable[Comparison]) -> dict[ArmName, float]:
    wins, ties = _pairs(comparisons)
    halves = {pair: times / 2 for pair, times in ties.items()}
    return bradley_terry(
        {pair: wins.get(pair, 0) + halves.get(pair, 0.0) for pair in (*wins, *halves)}
    )
