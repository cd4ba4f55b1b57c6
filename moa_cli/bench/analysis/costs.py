"""What an arm took: seconds on the critical path and in all, and usage by model and by layer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moa_cli.bench.run.journal import CallJournal, path_seconds, sum_seconds
from moa_cli.bench.run.records import CallAnswer, Result
from moa_cli.bench.scoring.means import Mean, mean_of
from moa_cli.core.conversation import Usage


@dataclass(frozen=True)
class SecondsPerItem:
    """Seconds an item. ninetieth: the least that 90 % of items do not exceed."""

    median: float | None
    ninetieth: float | None
    mean: Mean


@dataclass(frozen=True)
class UsageShare:
    """What a model, or a layer, took in all, shared answers included.

    cost: USD an item, without a value where a price is unknown.
    """

    name: str
    usage: Usage
    cost: Mean


def seconds(
    results: Sequence[Result], journal: CallJournal
) -> tuple[SecondsPerItem, SecondsPerItem]:
    """On the critical path (what an item would take alone), and as the sum of its calls."""
    return (
        _seconds([path_seconds(result, journal) for result in results]),
        _seconds([sum_seconds(result, journal) for result in results]),
    )


def _seconds(values: Sequence[float]) -> SecondsPerItem:
    if not values:
        return SecondsPerItem(None, None, mean_of(()))
    ninetieth = sorted(values)[math.ceil(0.9 * len(values)) - 1]
    return SecondsPerItem(statistics.median(values), ninetieth, mean_of(values))


def by_model(results: Sequence[Result]) -> tuple[UsageShare, ...]:
    """By model, the dearest first; answers that were given beforehand took nothing."""
    found = _spent(results, lambda _layer, answer: answer.model)
    return tuple(sorted(found, key=lambda share: (-share.usage.cost, -share.usage.total_tokens)))


def by_layer(results: Sequence[Result]) -> tuple[UsageShare, ...]:
    """By layer, then the reply."""
    return _spent(results, lambda layer, _answer: layer)


def _spent(
    results: Sequence[Result], name: Callable[[str, CallAnswer], str]
) -> tuple[UsageShare, ...]:
    by_item: list[dict[str, Usage]] = []
    for result in results:
        took: dict[str, Usage] = {}
        for turn in result.turns:
            answers = [
                (f"layer {number}", answer)
                for number, layer in enumerate(turn.proposals, 1)
                for answer in layer
            ]
            if turn.reply is not None:
                answers.append(("reply", turn.reply))
            for layer_name, answer in answers:
                key = name(layer_name, answer)
                took[key] = took.get(key, Usage()) + answer.usage
        by_item.append(took)
    found = []
    for key in dict.fromkeys(key for took in by_item for key in took):
        usages = [took.get(key, Usage()) for took in by_item]
        usage = sum(usages, Usage())
        if usage.calls:
            costs = [] if usage.unpriced_calls else [item.cost for item in usages]
            found.append(UsageShare(key, usage, mean_of(costs)))
    return tuple(found)
