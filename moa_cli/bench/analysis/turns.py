"""The turns of an arm that mixes: what was proposed in each layer, what was replied, and how alike
the reply is to each of the proposals that it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moa_cli.bench.analysis.similarity import MeanSimilarity, Similarity, mean_similarities
from moa_cli.bench.report.values import Unit
from moa_cli.bench.run.records import CallAnswer, Result
from moa_cli.bench.scoring.means import Mean, mean_of


@dataclass(frozen=True)
class MixedTurn:
    """One turn of an item. layers: the proposals, by layer, one layer at least."""

    unit: Unit
    layers: tuple[tuple[CallAnswer, ...], ...]
    reply: str

    @property
    def last(self) -> tuple[CallAnswer, ...]:
        """The proposals that the aggregator was shown."""
        return self.layers[-1]


def turns_of(results: Iterable[Result]) -> list[MixedTurn]:
    """The turns with proposals, in the order of the results."""
    return [
        MixedTurn((result.item, number), turn.proposals, reply)
        for result in results
        for number, (turn, reply) in enumerate(zip(result.turns, result.replies, strict=False))
        if turn.proposals and turn.proposals[-1]
    ]


def items_of(turns: Sequence[MixedTurn]) -> list[str]:
    """The item of each turn: turns of one item are one observation."""
    return [turn.unit[0] for turn in turns]


def corpus(answers: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """Every text of a run, those that arms share once."""
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
    """The similarity of one reply to one proposal, in the order of the measures' names.

    place: of the proposer in its layer, from 1.
    """

    item: str
    turn: int
    place: int
    model: str
    similarity: tuple[float, ...]


@dataclass(frozen=True)
class NearestProposer:
    """One proposer of the last layer, known by its place (from 1) and model.

    nearest: how often the reply is nearest to its proposal, 0 to 1, by the first measure; where
    several are equally near, they share.
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


def by_proposer(measured: Sequence[ReplyPair], names: Sequence[str]) -> tuple[NearestProposer, ...]:
    """By proposer. names: of the measures."""
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
    found = []
    for (place, model), own in sorted(of_proposer.items()):
        items = [pair.item for pair in own]
        found.append(
            NearestProposer(
                place=place,
                model=model,
                similarity=mean_similarities(names, [pair.similarity for pair in own], items),
                nearest=mean_of([share.get(pair, 0.0) for pair in own], groups=items),
            )
        )
    return tuple(found)
