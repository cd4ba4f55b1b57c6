"""How alike the reply is to each of the proposals that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moa_cli.bench.analysis.likeness import Likeness, Measured, means
from moa_cli.bench.analysis.turns import MixedTurn
from moa_cli.bench.scoring.means import Mean, mean_of

__all__ = ["Near", "Pair", "nearness", "pairs"]


@dataclass(frozen=True)
class Pair:
    """The likeness of one reply to one proposal, in the order of the measures' names.

    place: of the proposer in its layer, from 1.
    """

    item: str
    turn: int
    place: int
    model: str
    likeness: tuple[float, ...]


@dataclass(frozen=True)
class Near:
    """One proposer of the last layer, known by its place (from 1) and model.

    nearest: how often the reply is nearest to its proposal, 0 to 1, by the first measure; where
    several are equally near, they share.
    """

    place: int
    model: str
    likeness: tuple[Measured, ...]
    nearest: Mean


def pairs(turns: Sequence[MixedTurn], likeness: Likeness) -> Iterator[Pair]:
    """Each reply with each proposal of the last layer."""
    for turn in turns:
        for place, one in enumerate(turn.last, 1):
            yield Pair(*turn.unit, place, one.model, likeness.of(turn.reply, one.text))


def nearness(measured: Sequence[Pair], names: Sequence[str]) -> tuple[Near, ...]:
    """By proposer. names: of the measures."""
    by_turn: dict[tuple[str, int], list[Pair]] = {}
    by_proposer: dict[tuple[int, str], list[Pair]] = {}
    for one in measured:
        by_turn.setdefault((one.item, one.turn), []).append(one)
        by_proposer.setdefault((one.place, one.model), []).append(one)
    share: dict[Pair, float] = {}
    for together in by_turn.values():
        most = max(one.likeness[0] for one in together)
        nearest = [one for one in together if one.likeness[0] == most]
        share |= {one: 1 / len(nearest) for one in nearest}
    found = []
    for (place, model), own in sorted(by_proposer.items()):
        items = [one.item for one in own]
        found.append(
            Near(
                place=place,
                model=model,
                likeness=means(names, [one.likeness for one in own], items),
                nearest=mean_of([share.get(one, 0.0) for one in own], groups=items),
            )
        )
    return tuple(found)
