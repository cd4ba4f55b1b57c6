"""The JSON body of a request, read into the fields of its wire."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn, TypeVar

from moa_cli.core.nesting import MOST_LEVELS, is_deeper
from moa_cli.core.values import JSON, Key, KeyPath, ValueFault, read_fields
from moa_cli.engine.structured.format import ResponseFormat
from moa_cli.server.errors import ApiError

_T = TypeVar("_T")
# Types for a field with several kinds of values: a text, which may be empty, or an object.
AnyText = Annotated[str, Key(blank=True)]
AnyObject = Annotated[Mapping[str, Any], Key()]
INT_MAX = 2**31 - 1
_CODES = {
    "unknown": "unknown_parameter",
    "missing": "missing_required_parameter",
    "unsupported": "unsupported_parameter",
    "invalid": "invalid_value",
}
_LONGEST_NAME = 60
_NAMED_LEVELS = 3


def only(*values: Any) -> Key:
    """The key of an unsupported field. values: the accepted values, which mean the same as no
    field."""
    return Key("Not supported otherwise.", only=values)


def read_body(kind: type[_T], given: Mapping[str, Any]) -> _T:
    """The fields of a body. Raises ApiError, a 400 that names the wrong field."""
    try:
        return kind(**read_fields(kind, given, JSON))
    except ValueFault as fault:
        raise refusal(fault) from None


def refusal(fault: ValueFault) -> ApiError:
    """The 400 that names the wrong field."""
    *above, last = fault.path
    if isinstance(last, str):
        fault.path = (*above, _short(last))
    message = fault.sentence(JSON) + (f"; {fault.hint}" if fault.hint else "")
    return ApiError(400, message, param=JSON.path(fault.path), code=_CODES[fault.code])


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def refuse(problem: str, *path: str | int) -> NoReturn:
    """Raise the 400 for the field at `path`."""
    raise refusal(ValueFault(problem, path=path))


class _Infinite(ValueError):
    """A number that is too large for a float, and so cannot be written as JSON again."""


def _finite(written: str) -> float:
    value = float(written)
    if math.isinf(value):
        raise _Infinite
    return value


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# Made once; `json.loads` with these options would make a decoder for each body.
_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises ApiError if there is none, or if it is nested too
    deeply."""
    infinite = False
    try:
        text = body.decode("utf-8")
        try:
            given = _DECODER.decode(text)
        except _Infinite:
            infinite = True
            given = json.loads(text, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not UTF-8 text", code="invalid_json") from None
    except (ValueError, RecursionError):
        # Malformed JSON, a number that is too long for Python, or lists that are nested too deeply.
        why = "the body is not valid JSON"
        if text.startswith("\ufeff"):
            why += ": it begins with a byte order mark; send it without one"
        raise ApiError(400, why, code="invalid_json") from None
    if not isinstance(given, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    # A quick check: a body with fewer brackets than allowed levels cannot be too deep.
    if text.count("{") + text.count("[") > MOST_LEVELS:
        _check_depth(given)
    if infinite:
        refuse("must be a smaller number", *_path_of_infinite(given))
    return given


def _path_of_infinite(given: Mapping[str, Any]) -> KeyPath:
    """The path of an infinite number."""
    waiting: list[tuple[KeyPath, Any]] = [((), given)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, float) and math.isinf(value):
            return path
        if isinstance(value, dict):
            waiting += [((*path, name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [((*path, place), inner) for place, inner in enumerate(value)]
    return ()


def _check_depth(given: Mapping[str, Any]) -> None:
    """Raise ApiError, a 400 that names the field, if a body is nested too deeply."""
    if not is_deeper(given):
        return
    path: list[str | int] = []
    inside: Any = given
    # Only the first names are shown: they are fields of the wire, such as `tools[0].function`, and
    # the deeper ones are the client's own.
    while len(path) < _NAMED_LEVELS:
        left = MOST_LEVELS - len(path) - 1
        fields = inside.items() if isinstance(inside, dict) else enumerate(inside)
        name, inside = next((name, value) for name, value in fields if is_deeper(value, left))
        path.append(_short(name) if isinstance(name, str) else name)
    refuse(f"is nested too deeply: a body may have {MOST_LEVELS} levels", *path)


def format_of(values: object, *path: str) -> ResponseFormat | None:
    """The requested format of a reply, from the field at `path`; None for plain text.

    Raises ApiError, a 400 that names the wrong part of it.
    """
    try:
        return ResponseFormat.of(values)
    except ValueFault as fault:
        fault.path = (*path, *fault.path)
        raise refusal(fault) from None


def text_or_none(values: Mapping[str, Any], name: str, *path: str | int) -> str | None:
    """The text in a field of the object at `path`; None if the field is missing."""
    value = values.get(name)
    if not isinstance(value, str | None):
        refuse("must be a text", *path, name)
    return value


def given_values(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
