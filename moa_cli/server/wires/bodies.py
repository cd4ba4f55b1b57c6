"""The JSON body of a request, read into the fields of its wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from moa_cli.core.values import JSON, ValueFault, read_fields
from moa_cli.engine.structured import ResponseFormat
from moa_cli.server.errors import ApiError

_T = TypeVar("_T")
_CODES = {
    "unknown": "unknown_parameter",
    "missing": "missing_required_parameter",
    "unsupported": "unsupported_parameter",
    "invalid": "invalid_value",
}
_LONGEST_NAME = 60
_DEEPEST = 100


def read_body(kind: type[_T], given: Mapping[str, Any]) -> _T:
    """The fields of a body. Raises ApiError, a 400 that names the field which is wrong."""
    try:
        return kind(**read_fields(kind, given, JSON))
    except ValueFault as fault:
        raise refusal(fault) from None


def refusal(fault: ValueFault) -> ApiError:
    """The 400 that names the field which is to blame."""
    *above, last = fault.path
    if isinstance(last, str) and len(last) > _LONGEST_NAME:
        fault.path = (*above, last[: _LONGEST_NAME - 1] + "…")
    message = fault.sentence(JSON) + (f"; {fault.hint}" if fault.hint else "")
    return ApiError(400, message, param=JSON.path(fault.path), code=_CODES[fault.code])


def refuse(problem: str, *path: str | int) -> NoReturn:
    """Raise the 400 for the field at `path`."""
    raise refusal(ValueFault(problem, path=path))


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises ApiError if it is none."""

    def no_constant(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        given = json.loads(body.decode("utf-8"), parse_constant=no_constant)
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not UTF-8 text", code="invalid_json") from None
    except (ValueError, RecursionError):
        # Besides malformed text: numbers too long for Python, lists nested too deep.
        raise ApiError(400, "the body is not valid JSON", code="invalid_json") from None
    if not isinstance(given, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    return given


def check_depth(given: Mapping[str, Any]) -> None:
    """Raise ApiError if values are nested so deep that they might not be written again: what is
    read near Python's limit of recursion may be beyond it when it is passed on."""
    level: list[Any] = [given]
    for _ in range(_DEEPEST):
        inside: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inside.extend(value.values())
            elif isinstance(value, list):
                inside.extend(value)
        if not inside:
            return
        level = inside
    raise ApiError(400, f"the body is nested deeper than {_DEEPEST} levels", code="invalid_json")


def format_of(values: object, *path: str) -> ResponseFormat | None:
    """What a reply has to be, from the field at `path`; None for plain text.

    Raises ApiError, a 400 that names what in it is wrong.
    """
    try:
        return ResponseFormat.of(values)
    except ValueFault as fault:
        fault.path = (*path, *fault.path)
        raise refusal(fault) from None


def given_values(**values: Any) -> dict[str, Any]:
    """Those of the values that are set."""
    return {name: value for name, value in values.items() if value is not None}
