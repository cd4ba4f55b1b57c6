"""Who won how often, and what a win cost: what blind choices say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from moa_cli.bench.scoring.means import Mean, mean_of
from moa_cli.core.conversation import Usage
from moa_cli.core.jsonl import usage_to_dict
from moa_cli.store.comparisons import Comparison


@dataclass
class LeaderboardRow:
    """An arm of a profile with certain settings, over all choices that it was part of.

    points: 1 for a win, 0 for a loss; a tie shares the point among all. usage, seconds: summed.
    """

    arm: str
    profile: str
    settings: str
    wins: int = 0
    ties: int = 0
    points: list[float] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0

    @property
    def compared(self) -> int:
        """How many choices it was part of."""
        return len(self.points)

    @property
    def win_rate(self) -> Mean:
        """The mean of the points, 0 to 1."""
        return mean_of(self.points)

    @property
    def cost_per_win(self) -> float | None:
        """USD of all its answers, for each win; None without wins, or if a price is unknown."""
        return self.usage.cost / self.wins if self.wins and not self.usage.unpriced_calls else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        rate = self.win_rate
        usage = usage_to_dict(self.usage)
        return {
            "arm": self.arm,
            "profile": self.profile,
            "settings": self.settings,
            "compared": self.compared,
            "wins": self.wins,
            "ties": self.ties,
            "win_rate": rate.value,
            "standard_error": rate.standard_error,
            "cost": usage["cost"],
            "cost_per_win": self.cost_per_win,
            "seconds": self.seconds / self.compared,
            "usage": usage,
        }


def leaderboard(comparisons: Iterable[Comparison]) -> list[LeaderboardRow]:
    """The best win rate first."""
    found: dict[tuple[str, str, str], LeaderboardRow] = {}
    for comparison in comparisons:
        for place, contender in enumerate(comparison.contenders):
            name = (contender.arm, contender.profile, contender.settings)
            standing = found.setdefault(name, LeaderboardRow(*name))
            tied = comparison.winner is None
            won = comparison.winner == place
            standing.wins += won
            standing.ties += tied
            standing.points.append(1 / len(comparison.contenders) if tied else float(won))
            standing.usage += contender.usage
            standing.seconds += contender.seconds
    return sorted(found.values(), key=lambda standing: -(standing.win_rate.value or 0.0))
