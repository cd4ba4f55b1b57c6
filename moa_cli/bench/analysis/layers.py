"""The turns of an arm that mixes: how similar the reply is to each of its proposals, what each
layer added, and how far the proposers agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

from moa_cli.bench.analysis.similarity import MeanSimilarity, Similarity
from moa_cli.bench.data.epochs import origin_of
from moa_cli.bench.report.values import IsRight, Unit
from moa_cli.bench.run.journal import CallAnswer, Result
from moa_cli.bench.scoring.means import Mean, grouped_mean


@dataclass(frozen=True)
class MixedTurn:
    """One turn of an item. layers: the proposals of each layer; there is at least one layer."""

    unit: Unit
    layers: tuple[tuple[CallAnswer, ...], ...]
    reply: str

    @property
    def item(self) -> str:
        """The item in the dataset, because all turns and epochs of it are one observation."""
        return origin_of(self.unit[0])

    @property
    def last(self) -> tuple[CallAnswer, ...]:
        return self.layers[-1]


def turns_of(results: Iterable[Result]) -> list[MixedTurn]:
    """The turns with proposals, in the order of the results."""
    return [
        MixedTurn((result.item, number), turn.proposals, reply)
        for result in results
        for number, (turn, reply) in enumerate(zip(result.turns, result.replies, strict=False))
        if turn.proposals and turn.proposals[-1]
    ]


def corpus(answers: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """Every text of a run. A text that arms share is there once."""
    texts = {
        (result.item, number, answer.model, answer.text): answer.text
        for of_arm in answers.values()
        for result in of_arm.values()
        for number, turn in enumerate(result.turns)
        for answer in turn.answers()
    }
    return list(texts.values())


@dataclass(frozen=True)
class ReplyPair:
    """The similarity of one reply to one proposal.

    place: the proposer's place in its layer, from 1. similarity: in the order of the measures'
    names.
    """

    item: str
    turn: int
    place: int
    model: str
    similarity: tuple[float, ...]


@dataclass(frozen=True)
class NearestProposer:
    """One proposer of the last layer, identified by its place (from 1) and model.

    nearest: how often the reply is most similar to its proposal by the first measure, 0 to 1. If
    several proposals are equally similar, each counts with its fraction.
    """

    place: int
    model: str
    similarity: tuple[MeanSimilarity, ...]
    nearest: Mean


def pairs(turns: Sequence[MixedTurn], similarity: Similarity) -> Iterator[ReplyPair]:
    """Each reply with each proposal of the last layer."""
    for turn in turns:
        for place, proposal in enumerate(turn.last, 1):
            alike = similarity.of(turn.reply, proposal.text)
            yield ReplyPair(*turn.unit, place, proposal.model, alike)


def by_proposer(
    measured: Sequence[ReplyPair], similarity: Similarity
) -> tuple[NearestProposer, ...]:
    """The result for each proposer, in the order of places."""
    by_turn: dict[tuple[str, int], list[ReplyPair]] = {}
    of_proposer: dict[tuple[int, str], list[ReplyPair]] = {}
    for pair in measured:
        by_turn.setdefault((pair.item, pair.turn), []).append(pair)
        of_proposer.setdefault((pair.place, pair.model), []).append(pair)
    share: dict[ReplyPair, float] = {}
    for together in by_turn.values():
        most = max(pair.similarity[0] for pair in together)
        nearest = [pair for pair in together if pair.similarity[0] == most]
        share |= {pair: 1 / len(nearest) for pair in nearest}
    return tuple(
        NearestProposer(
            place=place,
            model=model,
            similarity=similarity.means([(pair.similarity, origin_of(pair.item)) for pair in own]),
            nearest=grouped_mean((share.get(pair, 0.0), origin_of(pair.item)) for pair in own),
        )
        for (place, model), own in sorted(of_proposer.items())
    )


@dataclass(frozen=True)
class PairAgreement:
    """Two proposers of a layer, by their places (from 1) and models."""

    places: tuple[int, int]
    models: tuple[str, str]
    similarity: tuple[MeanSimilarity, ...]


@dataclass(frozen=True)
class LayerAgreement:
    """The mean pairwise similarity of a layer's proposals, averaged over both directions. layer:
    from 1."""

    layer: int
    similarity: tuple[MeanSimilarity, ...]
    pairs: tuple[PairAgreement, ...]


@dataclass(frozen=True)
class LayerGain:
    """What a layer, or the reply, changed.

    layer: from 1; rounds + 1 is the reply. characters: the length of its answers. similarity: of
    its answers to those of the layer before; () for the first layer. accuracy: the share of right
    answers, 0 to 1; None without known answers. gained: among the pairs of an answer and one of the
    layer before, the share in which the answer is right and the earlier one was wrong. lost: the
    share in which it is the reverse. So accuracy grows by gained - lost.
    """

    layer: int
    is_reply: bool
    characters: Mean
    similarity: tuple[MeanSimilarity, ...]
    accuracy: Mean | None
    gained: Mean | None
    lost: Mean | None


def agreement(turns: Sequence[MixedTurn], similarity: Similarity) -> tuple[LayerAgreement, ...]:
    """The agreement in each layer. A layer of one proposer has no pairs and is left out."""
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
        proposals = enumerate(turn.layers[number - 1], 1) if len(turn.layers) >= number else ()
        for (a, left), (b, right) in combinations(proposals, 2):
            alike = similarity.both_ways(left.text, right.text)
            rows.setdefault(((a, b), (left.model, right.model)), []).append((alike, turn.item))
    pairs = tuple(
        PairAgreement(places, models, similarity.means(rows[places, models]))
        for places, models in sorted(rows)
    )
    return LayerAgreement(number, similarity.means(list(chain(*rows.values()))), pairs)


def layers(
    turns: Sequence[MixedTurn], similarity: Similarity, is_right: IsRight | None
) -> tuple[LayerGain, ...]:
    """The change by each layer, then by the reply. is_right: None without known answers."""
    return tuple(
        _layer(turns, number, similarity, is_right) for number in range(1, _depth(turns) + 2)
    )


def _texts(turn: MixedTurn, number: int) -> tuple[str, ...]:
    """The answers of that layer. The layer after the last one is the reply."""
    if number > len(turn.layers):
        return (turn.reply,)
    return tuple(proposal.text for proposal in turn.layers[number - 1])


def _layer(
    turns: Sequence[MixedTurn], number: int, similarity: Similarity, is_right: IsRight | None
) -> LayerGain:
    within = [turn for turn in turns if len(turn.layers) >= number - 1]
    before = [
        (similarity.of(text, earlier), turn.item)
        for turn in within
        for text in _texts(turn, number)
        for earlier in (_texts(turn, number - 1) if number > 1 else ())
    ]
    shares = [] if is_right is None else list(_shares(within, number, is_right))
    changes = [(item, now, was) for item, now, was in shares if was is not None]
    return LayerGain(
        layer=number,
        is_reply=number > _depth(turns),
        characters=grouped_mean(
            (len(text), turn.item) for turn in within for text in _texts(turn, number)
        ),
        similarity=similarity.means(before) if before else (),
        accuracy=_mean([(now, item) for item, now, _ in shares]),
        gained=_mean([(now * (1 - was), item) for item, now, was in changes]),
        lost=_mean([((1 - now) * was, item) for item, now, was in changes]),
    )


def _mean(values: Sequence[tuple[float, str]]) -> Mean | None:
    return grouped_mean(values) if values else None


def _shares(
    turns: Sequence[MixedTurn], number: int, is_right: IsRight
) -> Iterator[tuple[str, float, float | None]]:
    """For each epoch of an item: the item, the share of right answers in that layer, and the share
    in the layer before, if there is one."""
    # Right answers are known only for the last turn of an item, which is the one that is kept.
    for turn in {turn.unit[0]: turn for turn in turns}.values():
        now = _share(turn, number, is_right)
        if now is not None:
            yield turn.item, now, _share(turn, number - 1, is_right) if number > 1 else None


def _share(turn: MixedTurn, number: int, is_right: IsRight) -> float | None:
    found = [is_right(turn.unit[0], text) for text in _texts(turn, number)]
    known = [score for score in found if score is not None]
    return sum(known) / len(known) if known and len(known) == len(found) else None
