"""JSON text in readable Unicode, safe to print: control characters are escaped."""

from __future__ import annotations

import json
import re

__all__ = ["dumps"]

# json.dumps escapes C0 only; these too act on a terminal, or cannot be encoded.
_ACTIVE = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)


def dumps(values: object, *, indent: int | None = None) -> str:
    """JSON text in readable Unicode that holds no character which acts on a terminal."""
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    return _ACTIVE.sub(lambda match: json.dumps(match.group())[1:-1], text)
