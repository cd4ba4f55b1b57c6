"""What a judge of pairs makes of which output it sees first, where it is asked in both orders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from moa_cli.bench.data.epochs import origin_of
from moa_cli.bench.judge.kinds import JudgeKind
from moa_cli.bench.run.journal import Judgement
from moa_cli.bench.scoring.means import Mean, grouped_mean, share_of
from moa_cli.bench.scoring.statistics import interval_of

# Of what an answer is worth, percent: neither of a pair is better.
_EVEN = 50.0


@dataclass(frozen=True)
class OrderedPair:
    """A pair that was judged in both orders.

    item: of the answer. first, second: what the answer is worth where it is shown first, and
    second; percent.
    """

    item: str
    first: float
    second: float

    @property
    def follows_first(self) -> bool:
        """Whether the judge prefers the output shown first, whichever that is."""
        return self.first > _EVEN > self.second

    @property
    def follows_second(self) -> bool:
        """Whether it prefers the output shown second, whichever that is."""
        return self.first < _EVEN < self.second

    @property
    def agrees(self) -> bool:
        """Whether both orders have the same winner, or are draws."""
        return (self.first > _EVEN) == (self.second > _EVEN) and (self.first < _EVEN) == (
            self.second < _EVEN
        )


def ordered_pairs(kind: JudgeKind, verdicts: Iterable[Judgement]) -> list[OrderedPair]:
    """The pairs of which the judge told both orders. Equal outputs are shown to nobody."""
    told: dict[tuple[str, str, int], dict[bool, float]] = {}
    for verdict in verdicts:
        value = kind.worth(verdict) if verdict.error is None and verdict.key else None
        if value is not None:
            name = verdict.arm, verdict.item, verdict.turn // kind.games
            told.setdefault(name, {})[verdict.switched] = value
    return [
        OrderedPair(item, values[True], values[False])
        for (_, item, _), values in told.items()
        if len(values) == 2
    ]


def agreement_of(pairs: Iterable[OrderedPair]) -> Mean:
    """How many pairs have the same winner in both orders, percent."""
    return share_of((float(pair.agrees), origin_of(pair.item)) for pair in pairs).in_percent()


def following_of(pairs: Iterable[OrderedPair]) -> Mean:
    """At how many pairs the judge prefers the same position in both orders, percent."""
    return share_of(
        (float(pair.follows_first or pair.follows_second), origin_of(pair.item)) for pair in pairs
    ).in_percent()


def orders_note(pairs: list[OrderedPair]) -> str | None:
    """How often the judge follows the position, and what that does to an output's worth; None
    without pairs."""
    following = following_of(pairs)
    items = len({origin_of(pair.item) for pair in pairs})
    interval = interval_of(replace(following, n=items), 0.0, 100.0)
    if interval is None:
        return None
    firsts = sum(pair.follows_first for pair in pairs)
    seconds = sum(pair.follows_second for pair in pairs)
    told = (
        f"position: at {firsts + seconds:,} of {len(pairs):,} pairs the judge prefers the same"
        f" position in both orders ({following.value:.1f} %, 95 % {interval.low:.1f} to"
        f" {interval.high:.1f}), the first {firsts:,} times, the second {seconds:,}"
    )
    gain = grouped_mean((pair.first - pair.second, origin_of(pair.item)) for pair in pairs)
    error = "" if gain.standard_error is None else f" ± {gain.standard_error:.1f}"
    return f"{told}; shown first, an output gets {gain.value:+.1f}{error} points"
