"""Converts a choice to plain values, for JSON and exports."""

from __future__ import annotations

from string import ascii_uppercase
from typing import Any

from moa_cli.core.jsonl import usage_to_dict
from moa_cli.store.comparisons import Comparison


def outcome_of(comparison: Comparison) -> str:
    """The outcome of a choice: the letters of the chosen answer, `tie` or `none good`."""
    if comparison.winner is None:
        return "none good" if comparison.none_good else "tie"
    return ", ".join(ascii_uppercase[place] for place in comparison.winners)


def choice_to_dict(comparison: Comparison, *, texts: bool) -> dict[str, Any]:
    """A choice as JSON values. texts: whether to include the prompt and the answers, which are null
    if they were not kept."""
    kept = comparison.texts
    said = kept.answers if kept else (None,) * len(comparison.contenders)
    values: dict[str, Any] = {
        "id": comparison.number,
        "chosen_at": comparison.when,
        "outcome": outcome_of(comparison),
        "note": comparison.note,
    }
    if texts:
        values["prompt"] = kept and kept.prompt
        before = kept.before if kept else ()
        values["before"] = [{"role": role, "content": text} for role, text in before]
    rows = zip(comparison.contenders, comparison.answers, said, strict=True)
    values["answers"] = [
        {
            "letter": ascii_uppercase[place],
            "arm": contender.arm,
            "profile": contender.profile,
            "settings": contender.settings,
            "chosen": place in comparison.winners,
            "shown": shown,
            **({"text": text} if texts else {}),
            "seconds": contender.seconds,
            "usage": usage_to_dict(contender.usage),
        }
        for place, (contender, shown, text) in enumerate(rows)
    ]
    return values
