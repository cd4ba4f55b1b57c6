"""Replies that have to be JSON: the format that a request asks for, and the check of an answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn

from moa_cli.core.errors import UsageError
from moa_cli.core.values import JSON, ValueFault
from moa_cli.engine.structured.json_check import Uncheckable, problem_of
from moa_cli.engine.structured.json_schema import check_schema
from moa_cli.profile import Profile

# The field of a chat completion's body that asks for a format.
FIELD = "response_format"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNNAMED = "reply"
# Models put JSON into a fence although they were asked not to.
_FENCE = re.compile(r"```[A-Za-z0-9]*[ \t]*\n(?P<inside>.*)\n?```", re.DOTALL)
# Longer answers, in characters, are not checked, because that would block a processor for too long.
_LONGEST = 8 * 1024 * 1024
# An error message shows this many characters before the place where an answer is not JSON.
_BEFORE = 30


@dataclass(frozen=True)
class FormatCheck:
    """The result of the check of an answer.

    Attributes:
        text: The answer without the spaces and the Markdown fence around it.
        problem: What is wrong with the answer, in one sentence that calls the answer `it` and its
            JSON value `$`; None if it is what was asked for.
        checkable: Whether the check was possible. If not, another request would not help.
    """

    text: str
    problem: str | None = None
    checkable: bool = True


@dataclass(frozen=True)
class ResponseFormat:
    """What a reply has to be: a JSON object, or JSON by a schema.

    Attributes:
        kind: `json_object` or `json_schema`.
        name: The schema's name, for endpoints; if empty, `reply`.
        schema: The JSON Schema; empty for `json_object`.
        strict: Whether endpoints are asked to keep to the schema exactly; None leaves it to them.
            The reply is checked in any case.
        description: What the schema is for, for endpoints.
    """

    kind: Literal["json_object", "json_schema"]
    name: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict, hash=False)
    strict: bool | None = None
    description: str = ""

    @classmethod
    def of(cls, values: object) -> ResponseFormat | None:
        """The format that a request asks for.

        Args:
            values: The `response_format` of a chat completion, or the `text.format` of a response,
                which has the same fields side by side.

        Returns:
            The format; None for plain text.

        Raises:
            ValueFault: `values` is no format, or its schema cannot be used. The `path` of the error
                begins at `values`.
        """
        if values is None:
            return None
        if not isinstance(values, Mapping):
            raise ValueFault("is not an object")
        kind = values.get("type")
        if kind == "text":
            return None
        if kind == "json_object" and values.get("schema") is None:
            return cls("json_object")
        # Some providers take a schema with the type `json_object`, too.
        if kind not in ("json_object", "json_schema"):
            raise ValueFault("must be text, json_object or json_schema", path=("type",))
        above = () if "json_schema" not in values else ("json_schema",)
        told = values["json_schema"] if above else values

        def refuse(fault: ValueFault) -> NoReturn:
            fault.path = (*above, *fault.path)
            raise fault

        if not isinstance(told, Mapping):
            refuse(ValueFault("is not an object"))
        name = told.get("name")
        if name is not None and (not isinstance(name, str) or not _NAME.fullmatch(name)):
            refuse(
                ValueFault(
                    "must have 1 to 64 of the letters a-z, A-Z, 0-9, _ and -", path=("name",)
                )
            )
        strict, description = told.get("strict"), told.get("description")
        if strict is not None and not isinstance(strict, bool):
            refuse(ValueFault("must be true or false", path=("strict",)))
        if description is not None and not isinstance(description, str):
            refuse(ValueFault("must be a text", path=("description",)))
        if told.get("schema") is None:
            refuse(ValueFault("is missing", path=("schema",), code="missing"))
        try:
            check_schema(told["schema"])
        except ValueFault as fault:
            fault.path = ("schema", *fault.path)
            refuse(fault)
        return cls("json_schema", name or _UNNAMED, told["schema"], strict, description or "")

    def check(self) -> None:
        """Check a format that was made in code.

        Raises:
            UsageError: It is no format, or its schema cannot be used.
        """
        told = {"name": self.name or None, "schema": self.schema, "strict": self.strict}
        values = {"type": self.kind, "json_schema": {**told, "description": self.description}}
        try:
            if self.kind not in ("json_object", "json_schema"):
                raise ValueFault("must be json_object or json_schema", path=("type",))
            if self.kind == "json_schema":
                self.of(values)
        except ValueFault as fault:
            raise UsageError(f"response_format: {fault.sentence(JSON)}") from None

    def body(self) -> dict[str, Any]:
        """The value of the field of a chat completion's request that asks for this format.

        Returns:
            The value of `response_format`.
        """
        if self.kind == "json_object":
            return {"type": "json_object"}
        told: dict[str, Any] = {"name": self.name or _UNNAMED, "schema": dict(self.schema)}
        if self.strict is not None:
            told["strict"] = self.strict
        if self.description:
            told["description"] = self.description
        return {"type": "json_schema", "json_schema": told}

    def over(self, profile: Profile) -> Profile:
        """A profile whose aggregator is asked for this format.

        Args:
            profile: The mixture.

        Returns:
            A copy of the profile; its proposers are asked as before.
        """
        aggregator = profile.aggregator
        extra = {**aggregator.extra, FIELD: self.body()}
        return replace(profile, aggregator=replace(aggregator, extra=extra))

    def verdict(self, answer: str) -> FormatCheck:
        """Whether an answer is what was asked for.

        The check takes at most a few seconds of processor time, for any answer and schema.

        Args:
            answer: The whole answer of a model.

        Returns:
            The result of the check.
        """
        text = answer.strip().removeprefix("\ufeff")
        if len(text) > _LONGEST:
            problem = f"it has {len(text):,} characters; at most {_LONGEST:,} can be checked"
            return FormatCheck(text, problem, checkable=False)
        fenced = _FENCE.fullmatch(text)
        if fenced:
            text = fenced["inside"].strip()
        try:
            value = read_json(text)
        except ValueError as error:
            return FormatCheck(text, str(error))
        if self.kind == "json_object":
            found = isinstance(value, dict)
            return FormatCheck(text, None if found else "it is JSON, but not an object")
        try:
            return FormatCheck(text, problem_of(value, self.schema))
        except Uncheckable as error:
            return FormatCheck(text, str(error), checkable=False)


def read_json(text: str) -> Any:
    """The value of a text that is exactly JSON.

    Raises ValueError, whose message says what is wrong with it.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_float)
    except json.JSONDecodeError as error:
        where = text[max(0, error.pos - _BEFORE) : error.pos]
        at = f" behind {json.dumps(where, ensure_ascii=False)}" if where else ""
        raise ValueError(f"it is not JSON: {error.msg} (line {error.lineno}){at}") from None
    except _Unreadable:
        raise
    except ValueError:
        raise ValueError("it holds a number that is too large") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class _Unreadable(ValueError):
    """The text holds a value that Python's JSON reader takes, although it is not JSON or cannot be
    stored."""


def _no_constant(constant: str) -> NoReturn:
    raise _Unreadable(f"it is not JSON: {constant} is no value")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Unreadable("it holds a number that is too large")
    return value
