"""Requests to judges, and the templates of their prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moa_cli.core.conversation import Message
from moa_cli.core.errors import BenchError


@dataclass(frozen=True)
class JudgeCall:
    """One request to a judge, without its model. None leaves a setting to the endpoint.

    extra: further fields of the request body.
    """

    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def require_places(template: str, names: Iterable[str]) -> None:
    """Raise BenchError if `template` lacks the place `{name}` for one of the names."""
    for name in names:
        if f"{{{name}}}" not in template:
            raise BenchError(f"the judge's prompt has no place for {{{name}}}")


def fill(template: str, values: Mapping[str, str]) -> str:
    """`template` with each `{name}` replaced by its value. This is done in one pass, so braces in a
    value stay as they are. Other braces of the template are text.
    """
    names = "|".join(re.escape(name) for name in values)
    return re.sub(f"{{({names})}}", lambda match: values[match[1]], template)


def text_field(row: Mapping[str, Any], name: str, what: str) -> str:
    """The text `row[name]`. what: the name of the row, for the message. Raises BenchError if there
    is no such text."""
    value = row.get(name)
    if not isinstance(value, str):
        raise BenchError(f"{what} has no text {name!r}", hint="fetch the dataset again")
    return value
