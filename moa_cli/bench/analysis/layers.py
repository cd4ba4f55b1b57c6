"""What each layer added, and how far the proposers agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from moa_cli.bench.analysis.similarity import MeanSimilarity, Similarity, mean_similarities
from moa_cli.bench.analysis.turns import MixedTurn, items_of
from moa_cli.bench.report.values import IsRight
from moa_cli.bench.scoring.means import Mean, mean_of


@dataclass(frozen=True)
class PairAgreement:
    """Two proposers of a layer, by their places (from 1) and models."""

    places: tuple[int, int]
    models: tuple[str, str]
    similarity: tuple[MeanSimilarity, ...]


@dataclass(frozen=True)
class LayerAgreement:
    """Mean pairwise similarity of a layer's proposals, both ways averaged. layer: from 1."""

    layer: int
    similarity: tuple[MeanSimilarity, ...]
    pairs: tuple[PairAgreement, ...]


@dataclass(frozen=True)
class LayerGain:
    """What a layer gave, or the reply.

    layer: from 1; rounds + 1 is the reply. characters: length of its answers. similarity: of its
    answers to each one of the layer before; () for the first. accuracy: share of right answers,
    0 to 1, None without known ones. gained: over the pairs of an answer and one of the layer
    before, the share where it is right and that was wrong; lost: the reverse. So accuracy grows
    by gained - lost.
    """

    layer: int
    is_reply: bool
    characters: Mean
    similarity: tuple[MeanSimilarity, ...]
    accuracy: Mean | None
    gained: Mean | None
    lost: Mean | None


def agreement(turns: Sequence[MixedTurn], similarity: Similarity) -> tuple[LayerAgreement, ...]:
    """By layer; a layer of one proposer has nobody to agree with, and is left out."""
    return tuple(
        found
        for number in range(1, _depth(turns) + 1)
        if (found := _agreement(turns, number, similarity)).pairs
    )


def _depth(turns: Sequence[MixedTurn]) -> int:
    return max((len(turn.layers) for turn in turns), default=0)


def _agreement(turns: Sequence[MixedTurn], number: int, similarity: Similarity) -> LayerAgreement:
    rows: dict[tuple[tuple[int, int], tuple[str, str]], list[tuple[tuple[float, ...], str]]] = {}
    for turn in turns:
        if len(turn.layers) < number:
            continue
        for (a, left), (b, right) in combinations(enumerate(turn.layers[number - 1], 1), 2):
            key = ((a, b), (left.model, right.model))
            alike = similarity.both_ways(left.text, right.text)
            rows.setdefault(key, []).append((alike, turn.unit[0]))
    pairs = tuple(
        PairAgreement(places, models, _means(similarity, rows[places, models]))
        for places, models in sorted(rows)
    )
    return LayerAgreement(
        number, _means(similarity, [row for of in rows.values() for row in of]), pairs
    )


def _means(
    similarity: Similarity, rows: Sequence[tuple[tuple[float, ...], str]]
) -> tuple[MeanSimilarity, ...]:
    return mean_similarities(
        similarity.names, [alike for alike, _ in rows], [item for _, item in rows]
    )


def layers(
    turns: Sequence[MixedTurn], similarity: Similarity, is_right: IsRight | None
) -> tuple[LayerGain, ...]:
    """Each layer, then the reply. is_right: None without known answers."""
    return tuple(
        _layer(turns, number, similarity, is_right) for number in range(1, _depth(turns) + 2)
    )


def _texts(turn: MixedTurn, number: int) -> tuple[str, ...]:
    """The answers of that layer; those of the one behind the last are the reply."""
    if number > len(turn.layers):
        return (turn.reply,)
    return tuple(proposal.text for proposal in turn.layers[number - 1])


def _layer(
    turns: Sequence[MixedTurn], number: int, similarity: Similarity, is_right: IsRight | None
) -> LayerGain:
    within = [turn for turn in turns if len(turn.layers) >= number - 1]
    lengths = [(len(text), turn.unit[0]) for turn in within for text in _texts(turn, number)]
    before: list[tuple[tuple[float, ...], str]] = []
    if number > 1:
        before = [
            (similarity.of(text, earlier), turn.unit[0])
            for turn in within
            for text in _texts(turn, number)
            for earlier in _texts(turn, number - 1)
        ]
    graded = [] if is_right is None else list(_graded(within, number, is_right))
    changed = [turn for turn in graded if turn.gained is not None]
    return LayerGain(
        layer=number,
        is_reply=number > _depth(turns),
        characters=mean_of([a for a, _ in lengths], groups=[item for _, item in lengths]),
        similarity=_means(similarity, before) if before else (),
        accuracy=mean_of(turn.accuracy for turn in graded) if graded else None,
        gained=mean_of(turn.gained or 0.0 for turn in changed) if changed else None,
        lost=mean_of(turn.lost for turn in changed) if changed else None,
    )


@dataclass(frozen=True)
class _Graded:
    accuracy: float
    gained: float | None
    lost: float


def _graded(turns: Sequence[MixedTurn], number: int, is_right: IsRight) -> Iterator[_Graded]:
    last = dict(zip(items_of(turns), (turn.unit for turn in turns), strict=True))
    for turn in turns:
        # Known answers are to an item's last turn.
        if turn.unit != last[turn.unit[0]]:
            continue
        now = _rights(turn, number, is_right)
        if now is None:
            continue
        earlier = _rights(turn, number - 1, is_right) if number > 1 else None
        accuracy = sum(now) / len(now)
        if earlier is None:
            yield _Graded(accuracy, None, 0.0)
            continue
        was = sum(earlier) / len(earlier)
        yield _Graded(accuracy, accuracy * (1 - was), (1 - accuracy) * was)


def _rights(turn: MixedTurn, number: int, is_right: IsRight) -> list[bool] | None:
    found = [is_right(turn.unit[0], text) for text in _texts(turn, number)]
    return None if not found or None in found else list(map(bool, found))
