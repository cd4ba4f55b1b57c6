"""Sums over each model's calls in all starts of a batch, and which models really answered them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from moa_cli.bench.run.journal import CallRecord
from moa_cli.core.conversation import Usage
from moa_cli.core.jsonl import usage_to_dict

_COUNTS = ("calls", "estimated_calls", "unpriced_calls", "prompt_tokens", "completion_tokens")
_SUMS = (*_COUNTS, "known_cost")
_KEPT = (*_SUMS, "failed", "answered_by")

# By model name: the sums over its calls, how many failed, and how many were answered by each model
# id that endpoints reported.
ModelTally = dict[str, dict[str, Any]]


def count_call(tally: ModelTally, entry: CallRecord) -> None:
    """Count a call that has ended."""
    took, failed = usage_to_dict(entry.usage), entry.error is not None
    answered = {} if failed else {entry.answered_by or "unknown": 1}
    add_tally(tally, {entry.model: {**took, "failed": failed, "answered_by": answered}})


def add_tally(tally: ModelTally, other: ModelTally) -> None:
    """Add another tally to this one."""
    for name, took in other.items():
        empty = {**dict.fromkeys(_KEPT, 0), "answered_by": {}}
        told = tally.setdefault(name, empty)
        for key in (*_SUMS, "failed"):
            told[key] += took[key]
        answered = Counter[str](told["answered_by"])
        answered.update(took["answered_by"])
        told["answered_by"] = dict(answered)


def tally_in(card: Mapping[str, Any]) -> ModelTally:
    """The tally in a data card. Raises LookupError or TypeError if the card has none."""
    models = card["models"]
    whole = {name: _with_counts(models[name]) for name in models}
    return {name: {key: told[key] for key in _KEPT} for name, told in whole.items()}


def _with_counts(told: Mapping[str, Any]) -> dict[str, Any]:
    """A model's sums in a card. Former ones tell neither estimated nor unpriced calls: there, all
    calls of a model without a price count as unpriced."""
    calls = told["calls"]
    return {"estimated_calls": 0, "unpriced_calls": 0 if told.get("price") else calls, **told}


def spent_in(card: Mapping[str, Any]) -> Usage:
    """The usage of all calls that a data card counts."""
    usages = (
        Usage(cost=told["known_cost"], **{name: told[name] for name in _COUNTS})
        for told in tally_in(card).values()
    )
    return sum(usages, Usage())
