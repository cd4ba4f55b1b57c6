"""Turns and events as JSON, with control characters escaped, so that it is safe to print."""

from __future__ import annotations

import dataclasses
from typing import Any, TextIO

from moa_cli.core.conversation import Turn, Usage, without_empty
from moa_cli.core.events import Event
from moa_cli.core.files.data_uris import without_data
from moa_cli.core.money import cost_value, usd_value
from moa_cli.core.outcomes import cut_lines
from moa_cli.core.text import dumps
from moa_cli.core.values import field_names


def turn_to_dict(turn: Turn) -> dict[str, Any]:
    """A turn as `--json` prints it."""
    values = _plain(turn)
    values["prompt"] = values.pop("user")
    if turn.parts:
        values["parts"] = _shown_parts(values["parts"])
    del values["stored_as"]
    first = ("reply", "status", "profile", "model", "answered_by", "proposals", "usage", "seconds")
    values["cut"] = cut_lines(turn)
    return {key: values[key] for key in dict.fromkeys((*first, "lost", "cut", *values))}


def _shown_parts(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parts with the size of an image in place of its data, which would fill the screen."""
    return [{**part, "url": without_data(part["url"])} for part in parts]


def _plain(value: Any) -> Any:
    if isinstance(value, Usage):
        return usage_to_dict(value)
    kind: Any = type(value)
    names = field_names(kind)
    if names is not None:
        return without_empty([(name, _plain(getattr(value, name))) for name in names])
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def usage_to_dict(usage: Usage) -> dict[str, Any]:
    """Usage as JSON values.

    `cost` is in USD, and None if the price of a call is unknown. `known_cost` is the cost of the
    calls with a known price.
    """
    values = dataclasses.asdict(usage)
    del values["cost"]
    return {
        **values,
        "total_tokens": usage.total_tokens,
        "known_cost": usd_value(usage.cost),
        "cost": cost_value(usage),
    }


class JsonLines:
    """A sink that writes each event as a line of JSON."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def handle(self, event: Event) -> None:
        values = {"kind": event.kind, **_plain(event)}
        if "parts" in values:
            values["parts"] = _shown_parts(values["parts"])
        self._out.write(dumps(values) + "\n")
        self._out.flush()

    def close(self) -> None:
        """Do nothing: each line was written at once."""
