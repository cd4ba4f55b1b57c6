"""JSON and server-sent events, as bytes."""

from __future__ import annotations

import json

_ENCODER = json.JSONEncoder(separators=(",", ":"))


def compact(values: object) -> str:
    """JSON without spaces. It is ASCII, as a lone surrogate, which a model may send, cannot be
    written as UTF-8."""
    return _ENCODER.encode(values)


def event(values: object) -> bytes:
    return f"data: {compact(values)}\n\n".encode()


def comment(text: str) -> bytes:
    """A comment in a stream of server-sent events, as a sign of life."""
    return f": {text}\n\n".encode()
