"""What each layer added, and how far the proposers agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from moa_cli.bench.analysis.likeness import Likeness, Measured, means
from moa_cli.bench.analysis.turns import MixedTurn, items_of
from moa_cli.bench.report.values import Grade
from moa_cli.bench.scoring.means import Mean, mean_of

__all__ = ["Agreement", "Layer", "PairAgreement", "agreement", "layers"]


@dataclass(frozen=True)
class PairAgreement:
    """Two proposers of a layer, by their places (from 1) and models."""

    places: tuple[int, int]
    models: tuple[str, str]
    likeness: tuple[Measured, ...]


@dataclass(frozen=True)
class Agreement:
    """Mean pairwise likeness of a layer's proposals, both ways averaged. layer: from 1."""

    layer: int
    likeness: tuple[Measured, ...]
    pairs: tuple[PairAgreement, ...]


@dataclass(frozen=True)
class Layer:
    """What a layer gave, or the reply.

    layer: from 1; rounds + 1 is the reply. characters: length of its answers. likeness: of its
    answers to each one of the layer before; () for the first. accuracy: share of right answers,
    0 to 1, None without known ones. gained: over the pairs of an answer and one of the layer
    before, the share where it is right and that was wrong; lost: the reverse. So accuracy grows
    by gained - lost.
    """

    layer: int
    is_reply: bool
    characters: Mean
    likeness: tuple[Measured, ...]
    accuracy: Mean | None
    gained: Mean | None
    lost: Mean | None


def agreement(turns: Sequence[MixedTurn], likeness: Likeness) -> tuple[Agreement, ...]:
    """By layer; a layer of one proposer has nobody to agree with, and is left out."""
    return tuple(
        found
        for number in range(1, _depth(turns) + 1)
        if (found := _agreement(turns, number, likeness)).pairs
    )


def _depth(turns: Sequence[MixedTurn]) -> int:
    return max((len(one.layers) for one in turns), default=0)


def _agreement(turns: Sequence[MixedTurn], number: int, likeness: Likeness) -> Agreement:
    rows: dict[tuple[tuple[int, int], tuple[str, str]], list[tuple[tuple[float, ...], str]]] = {}
    for turn in turns:
        if len(turn.layers) < number:
            continue
        for (a, one), (b, other) in combinations(enumerate(turn.layers[number - 1], 1), 2):
            key = ((a, b), (one.model, other.model))
            alike = likeness.both_ways(one.text, other.text)
            rows.setdefault(key, []).append((alike, turn.unit[0]))
    pairs = tuple(
        PairAgreement(places, models, _means(likeness, rows[places, models]))
        for places, models in sorted(rows)
    )
    return Agreement(number, _means(likeness, [row for of in rows.values() for row in of]), pairs)


def _means(
    likeness: Likeness, rows: Sequence[tuple[tuple[float, ...], str]]
) -> tuple[Measured, ...]:
    return means(likeness.names, [alike for alike, _ in rows], [item for _, item in rows])


def layers(
    turns: Sequence[MixedTurn], likeness: Likeness, grade: Grade | None
) -> tuple[Layer, ...]:
    """Each layer, then the reply. grade: None without known answers."""
    return tuple(_layer(turns, number, likeness, grade) for number in range(1, _depth(turns) + 2))


def _texts(turn: MixedTurn, number: int) -> tuple[str, ...]:
    """The answers of that layer; those of the one behind the last are the reply."""
    if number > len(turn.layers):
        return (turn.reply,)
    return tuple(one.text for one in turn.layers[number - 1])


def _layer(
    turns: Sequence[MixedTurn], number: int, likeness: Likeness, grade: Grade | None
) -> Layer:
    within = [one for one in turns if len(one.layers) >= number - 1]
    lengths = [(len(text), one.unit[0]) for one in within for text in _texts(one, number)]
    before: list[tuple[tuple[float, ...], str]] = []
    if number > 1:
        before = [
            (likeness.of(text, earlier), one.unit[0])
            for one in within
            for text in _texts(one, number)
            for earlier in _texts(one, number - 1)
        ]
    graded = [] if grade is None else list(_graded(within, number, grade))
    changed = [one for one in graded if one.gained is not None]
    return Layer(
        layer=number,
        is_reply=number > _depth(turns),
        characters=mean_of([a for a, _ in lengths], groups=[item for _, item in lengths]),
        likeness=_means(likeness, before) if before else (),
        accuracy=mean_of(one.accuracy for one in graded) if graded else None,
        gained=mean_of(one.gained or 0.0 for one in changed) if changed else None,
        lost=mean_of(one.lost for one in changed) if changed else None,
    )


@dataclass(frozen=True)
class _Graded:
    accuracy: float
    gained: float | None
    lost: float


def _graded(turns: Sequence[MixedTurn], number: int, grade: Grade) -> Iterator[_Graded]:
    last = dict(zip(items_of(turns), (one.unit for one in turns), strict=True))
    for one in turns:
        # Known answers are to an item's last turn.
        if one.unit != last[one.unit[0]]:
            continue
        now = _rights(one, number, grade)
        if now is None:
            continue
        earlier = _rights(one, number - 1, grade) if number > 1 else None
        accuracy = sum(now) / len(now)
        if earlier is None:
            yield _Graded(accuracy, None, 0.0)
            continue
        was = sum(earlier) / len(earlier)
        yield _Graded(accuracy, accuracy * (1 - was), (1 - accuracy) * was)


def _rights(turn: MixedTurn, number: int, grade: Grade) -> list[bool] | None:
    found = [grade(turn.unit[0], text) for text in _texts(turn, number)]
    return None if not found or None in found else [bool(one) for one in found]
