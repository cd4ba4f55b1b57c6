"""Asks for JSON in words if an endpoint does not accept `response_format`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from moa_cli.clients.transport import Refused
from moa_cli.core.conversation import Message

_FIELD = "response_format"
# How endpoints name the field or its content.
_NAMES = re.compile(r"response[ _]?format|json[ _](schema|object|mode)")
# Complaints about one schema or one prompt, not about the model.
_PASSING = re.compile(r"(invalid|bad|malformed) (json )?schema|must contain the word")


def format_asked(body: Mapping[str, Any]) -> str | None:
    """The requested format of the reply, as a name for the set of things that a model refuses; None
    if the body requests none. The name includes the kind of JSON, because some models accept only
    one kind."""
    found = body.get(_FIELD)
    return f"{_FIELD} {found.get('type')}" if isinstance(found, dict) else None


def refused_format(refusal: Refused, body: Mapping[str, Any]) -> str | None:
    """The format that `body` requests, if the refusal is about it, else None."""
    if refusal.status not in (400, 422) or not _NAMES.search(str(refusal.body).lower()):
        return None
    return format_asked(body)


def is_lasting(refusal: Refused) -> bool:
    """Whether the refusal of a format applies to all requests to the model."""
    return not _PASSING.search(str(refusal.body).lower())


def in_words(
    messages: Sequence[Message], body: Mapping[str, Any]
) -> tuple[tuple[Message, ...], dict[str, Any]]:
    """The messages with a further one that asks for the format, and the body without the field."""
    wanted = body[_FIELD]
    told = "Answer with JSON alone: no words and no Markdown around it."
    described = wanted.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if schema is None:
        told += " It has to be one object."
    else:
        told += f" It has to be valid by this JSON Schema:\n{json.dumps(schema)}"
    rest = {name: value for name, value in body.items() if name != _FIELD}
    return (*messages, Message("system", told)), rest
