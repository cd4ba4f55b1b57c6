"""JSON and server-sent events, as bytes."""

from __future__ import annotations

import json

_ENCODER = json.JSONEncoder(separators=(",", ":"))


def compact(values: object) -> str:
    """JSON without spaces. ASCII only: half of a surrogate pair, which a model may send, cannot
    be written as it is."""
    return _ENCODER.encode(values)


def event(values: object) -> bytes:
    return f"data: {compact(values)}\n\n".encode()


def comment(text: str) -> bytes:
    """A comment of a stream of server-sent events: clients take it for a sign of life."""
    return f": {text}\n\n".encode()
