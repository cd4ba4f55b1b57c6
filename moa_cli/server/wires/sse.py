"""JSON and server-sent events, as bytes."""

from __future__ import annotations

import json

_ENCODER = json.JSONEncoder(separators=(",", ":"))


def compact(values: object) -> str:
    """JSON without spaces. It is ASCII, because a model may send a lone surrogate, which UTF-8
    cannot encode."""
    return _ENCODER.encode(values)


def event(values: object) -> bytes:
    return f"data: {compact(values)}\n\n".encode()


def comment(text: str) -> bytes:
    """A comment in a stream of server-sent events, which keeps the connection alive."""
    return f": {text}\n\n".encode()
