"""The turns of an arm that mixes: what was proposed in each layer, and what was replied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moa_cli.bench.report.values import Unit
from moa_cli.bench.run.results import Answer, Result

__all__ = ["MixedTurn", "corpus", "items_of", "turns_of"]


@dataclass(frozen=True)
class MixedTurn:
    """One turn of an item. layers: the proposals, by layer, one layer at least."""

    unit: Unit
    layers: tuple[tuple[Answer, ...], ...]
    reply: str

    @property
    def last(self) -> tuple[Answer, ...]:
        """The proposals that the aggregator was shown."""
        return self.layers[-1]


def turns_of(results: Iterable[Result]) -> list[MixedTurn]:
    """The turns with proposals, in the order of the results."""
    return [
        MixedTurn((one.item, number), turn.proposals, reply)
        for one in results
        for number, (turn, reply) in enumerate(zip(one.turns, one.replies, strict=False))
        if turn.proposals and turn.proposals[-1]
    ]


def items_of(turns: Sequence[MixedTurn]) -> list[str]:
    """The item of each turn: turns of one item are one observation."""
    return [one.unit[0] for one in turns]


def corpus(results: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """Every text of a run, those that arms share once."""
    return list({key: key[-1] for key in _texts(results)}.values())


def _texts(results: Mapping[str, Mapping[str, Result]]) -> Iterator[tuple[str, int, str, str]]:
    for of_arm in results.values():
        for one in of_arm.values():
            for number, turn in enumerate(one.turns):
                for answer in turn.answers():
                    yield one.item, number, answer.model, answer.text
