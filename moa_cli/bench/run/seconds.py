"""How long items take, from the journal."""

from __future__ import annotations

from moa_cli.bench.run.journal import Journal
from moa_cli.bench.run.results import Result, TurnResult

__all__ = ["path_seconds", "sum_seconds"]


def path_seconds(result: Result, journal: Journal) -> float:
    """Seconds that the item would take alone: the slowest call of each layer, turn by turn."""
    return sum(max(layer, default=0.0) for turn in result.turns for layer in _layers(turn, journal))


def sum_seconds(result: Result, journal: Journal) -> float:
    """Seconds of all its calls, as if one were made after another."""
    return sum(sum(layer) for turn in result.turns for layer in _layers(turn, journal))


def _layers(turn: TurnResult, journal: Journal) -> list[list[float]]:
    """The seconds of each call, by layer; the reply's is the last."""
    layers = [*turn.proposals, () if turn.reply is None else (turn.reply,)]
    found = [[journal.find(answer.key) for answer in layer] for layer in layers]
    return [[one.seconds for one in layer if one is not None] for layer in found]
