"""Small pieces of text: a number with its noun, JSON that is safe to print, a fence."""

from __future__ import annotations

import json
import re

# json.dumps escapes C0 only; these too act on a terminal, or cannot be encoded.
_ACTIVE = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)


def plural(number: int, noun: str) -> str:
    """`1 turn`, `2 turns`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def dumps(values: object, *, indent: int | None = None) -> str:
    """JSON text in readable Unicode that holds no character which acts on a terminal."""
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    return _ACTIVE.sub(lambda match: json.dumps(match.group())[1:-1], text)


def fenced(text: str, name: str = "") -> str:
    """`text` in a fence that is longer than any run of backticks inside it, under its name."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    label = f"{' '.join(name.split())}:\n" if name else ""
    return f"{label}{fence}\n{text.rstrip()}\n{fence}"
