"""Turns and events as JSON, safe to print: control characters are escaped."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any, TextIO

from moa_cli.conversation import Turn
from moa_cli.events import Event, to_dict

__all__ = ["JsonLines", "dumps", "turn_to_dict"]

# json.dumps escapes C0 only; these too act on a terminal, or cannot be encoded.
_ACTIVE = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)


def dumps(values: object, *, indent: int | None = None) -> str:
    """JSON text in readable Unicode that holds no character which acts on a terminal."""
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    return _ACTIVE.sub(lambda match: json.dumps(match.group())[1:-1], text)


def turn_to_dict(turn: Turn) -> dict[str, Any]:
    """What `--json` prints: reply, proposals by layer, usage, seconds, and what was lost."""
    values = dataclasses.asdict(turn)
    values["prompt"] = values.pop("user")
    del values["stored_as"]
    first = (
        "reply",
        "status",
        "profile",
        "model",
        "answered_by",
        "proposals",
        "usage",
        "seconds",
        "lost",
    )
    values["usage"]["total_tokens"] = turn.usage.total_tokens
    return {key: values[key] for key in (*first, *(k for k in values if k not in first))}


class JsonLines:
    """A sink that writes each event as a line of JSON."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def handle(self, event: Event) -> None:
        """Take the next event."""
        self._out.write(dumps(to_dict(event)) + "\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing is held back."""
