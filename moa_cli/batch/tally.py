"""What each model's calls took, and who really answered them, over all starts of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from moa_cli.bench.run.journal import CallRecord
from moa_cli.core.jsonl import usage_to_dict

_SUMS = ("calls", "prompt_tokens", "completion_tokens", "known_cost")
_KEPT = (*_SUMS, "failed", "answered_by")

# By model name: sums of its calls, how many failed, and answers by the id that endpoints told.
ModelTally = dict[str, dict[str, Any]]


def count_call(tally: ModelTally, entry: CallRecord) -> None:
    """Count a call that has ended."""
    took, failed = usage_to_dict(entry.usage), entry.error is not None
    answered = {} if failed else {entry.answered_by or "unknown": 1}
    add_tally(tally, {entry.model: {**took, "failed": failed, "answered_by": answered}})


def add_tally(tally: ModelTally, other: ModelTally) -> None:
    """Add what another one tells."""
    for name, took in other.items():
        empty = {**dict.fromkeys(_KEPT, 0), "answered_by": {}}
        told = tally.setdefault(name, empty)
        for key in (*_SUMS, "failed"):
            told[key] += took[key]
        answered = Counter[str](told["answered_by"])
        answered.update(took["answered_by"])
        told["answered_by"] = dict(answered)


def tally_in(card: Mapping[str, Any]) -> ModelTally:
    """What a card tells. Raises LookupError or TypeError if it tells nothing of the kind."""
    told = card["models"]
    return {name: {key: told[name][key] for key in _KEPT} for name in told}
