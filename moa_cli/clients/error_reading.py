"""Reads the message, codes and status of an error from the different shapes of error bodies.

Routers pass on the error of another provider: as text or JSON in `error.metadata.raw` (OpenRouter),
as JSON inside a message, or as the text of a Python exception. The innermost reason is the one that
helps a person.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from moa_cli.core.text import dumps

# The fields that may hold the reason, the most informative first.
_HOLDERS = (
    *("error", "errors", "base_resp", "message", "detail", "msg", "status_msg"),
    *("error_msg", "error_message", "errorMessage", "Message", "text", "title", "fault"),
    "faultstring",
)
_CODES = ("code", "type", "status", "reason", "error_code", "status_code", "__type", "err_type")
_STATUSES = (
    "raw_status_code",
    "http_code",
    "status_code",
    "statusCode",
    "status",
    "code",
    "error_code",
)
_DELAYS = ("retryDelay", "retry_after", "retryAfter", "retry_after_seconds")
# MiniMax's codes, and what they mean as a status.
_MINIMAX = {1001: 504, 1002: 429, 1004: 401, 1008: 402, 1039: 429, 1041: 429, 2013: 400, 2049: 401}
_MINIMAX_FILTER = (1026, 1027)
# FastChat's five-digit codes begin with an HTTP status; these codes have a more precise meaning.
_FASTCHAT = {40301: "invalid_model", 40303: "context_length_exceeded", 42902: "insufficient_quota"}
_GENERIC = re.compile(
    r"(provider returned error|upstream error|bad request|error|unknown error|internal error"
    r"|(event: *error)? *data|error code:? *\d{3}|\w*exception)[:. —-]*",
    re.IGNORECASE,
)
_STATUS_IN_TEXT = re.compile(
    r"(?:error code|status(?: code)?|http(?: error)?)[:= ]+([45]\d\d)\b", re.I
)
_JSON_IN_TEXT = re.compile(r"\[?\{\s*[\"']")
# Codes that add nothing to the message for a person.
_SAY_NOTHING = ("invalid_request_error", "api_error", "unknown_error", "server_error", "error")
_LONGEST_READ = 100_000
_DEEPEST = 8
WEB_PAGE = "web page"


@dataclass(frozen=True)
class Said:
    """The parts of an error body.

    message: the reason, for people; "" if there is none. codes: for programs, in any order. status:
    the innermost HTTP status in the body. provider: the name of the other provider that a router
    had asked. delays: the values of fields for a time to wait. headers: those of the other
    provider's answer, with names in lower case.
    """

    message: str = ""
    codes: tuple[str, ...] = ()
    status: int | None = None
    provider: str | None = None
    delays: tuple[object, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """Message and codes as one text, to be searched."""
        return " ".join((self.message, *self.codes))

    @property
    def code(self) -> str:
        """A code in words, for people if there is no message; "" if there is none."""
        return next((code for code in self.codes if _is_word(code) and code != WEB_PAGE), "")


def read_error(body: object) -> Said:
    """Read an error body: parsed JSON, or a text."""
    return _read(body, 0)


def read_refusal(status: int, body: object) -> Said:
    """Read the body of a refusal; if it has no message, its code is the message, else the body or
    the phrase of the status."""
    said = read_error(body)
    if re.fullmatch(r"Error code: \d+", said.message):
        # The SDK's message for a body without a message.
        said = replace(said, message="")
    if said.message or said.code:
        return replace(said, message=said.message or said.code)
    if isinstance(body, Mapping | list) and body:
        return replace(said, message=dumps(body))
    try:
        return replace(said, message=HTTPStatus(status).phrase)
    except ValueError:
        return replace(said, message=f"status {status}")


def _read(body: object, depth: int) -> Said:
    if depth > _DEEPEST:
        return Said()
    if isinstance(body, str):
        return _read_text(body, depth)
    if isinstance(body, list):
        return _joined([_read(item, depth + 1) for item in body[:16]])
    if isinstance(body, Mapping):
        return _read_table(body, depth)
    return Said()


def _read_text(text: str, depth: int) -> Said:
    text = text[:_LONGEST_READ].strip()
    if text[:1] == "<":
        # Only the title of a proxy's error page is useful to a person.
        title = re.search(r"<title>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        return Said(title.group(1).strip() if title else "", (WEB_PAGE,))
    if re.fullmatch(r"error code: 1\d{3}", text):
        # What Cloudflare's firewall sends to programs instead of its page.
        return Said(text, (WEB_PAGE,))
    told = _STATUS_IN_TEXT.search(text)
    status = int(told.group(1)) if told else None
    found = _JSON_IN_TEXT.search(text)
    if found is None:
        return Said(text, status=status)
    inner = _read(_value_at(text, found.start()), depth + 1)
    if not inner.message:
        return Said(text, status=status, delays=inner.delays, headers=inner.headers)
    before = text[: found.start()].strip(" \n\t:-—,")
    message = inner.message
    if before and not _GENERIC.fullmatch(before) and before not in message:
        message = f"{before}: {message}"
    return replace(inner, message=message, status=inner.status or status)


def _value_at(text: str, at: int) -> object:
    """The JSON value or Python literal that begins at this position; None if there is none."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, at)[0]
    except (ValueError, RecursionError):
        pass
    end = max(text.rfind("}"), text.rfind("]")) + 1
    try:
        return ast.literal_eval(text[at:end])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _read_table(table: Mapping[str, Any], depth: int) -> Said:
    codes, status = _codes(table)
    inner = Said()
    choices = table.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    held = first.get("error") if isinstance(first, Mapping) else None
    for part in (held, *map(table.get, _HOLDERS)):
        found = _read(part, depth + 1)
        inner = replace(
            found,
            codes=(*inner.codes, *found.codes),
            status=found.status or inner.status,
            provider=found.provider or inner.provider,
            delays=(*inner.delays, *found.delays),
            headers={**inner.headers, **found.headers},
        )
        if inner.message:
            break
    metadata = table.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    raw = _read(metadata.get("raw"), depth + 1)
    message = inner.message
    if raw.message and raw.message not in message:
        generic = not message or _GENERIC.fullmatch(message)
        message = raw.message if generic else f"{message}: {raw.message}"
    named = next((str(table[key]) for key in ("code", "type") if _is_word(table.get(key))), "")
    if message and named and named not in message and not inner.codes:
        message = f"{message} ({named})"
    provider = metadata.get("provider_name")
    return Said(
        message,
        (*codes, *inner.codes, *raw.codes, *_detail_codes(table.get("details"))),
        raw.status or inner.status or status,
        provider if isinstance(provider, str) else inner.provider,
        (*_delays(table), *inner.delays, *raw.delays),
        {**inner.headers, **raw.headers, **_headers(metadata.get("headers"))},
    )


def _codes(table: Mapping[str, Any]) -> tuple[tuple[str, ...], int | None]:
    """The codes of a table, and the HTTP status that one of them is or means."""
    codes: list[str] = []
    status: int | None = None
    for key in (*_CODES, *_STATUSES):
        value = table.get(key)
        if isinstance(value, str) and value and value not in codes:
            codes.append(value)
        number = int(value) if isinstance(value, str) and re.fullmatch(r"\d{3,5}", value) else value
        if type(number) is not int or key not in _STATUSES:
            continue
        if 400 <= number < 600:
            status = status or number
        elif 40000 <= number < 60000 and (key == "error_code" or table.get("object") == "error"):
            status = status or number // 100
            codes += [_FASTCHAT[number]] if number in _FASTCHAT else []
        elif "status_msg" in table:
            status = status or _MINIMAX.get(number)
            codes += ["content_filter"] if number in _MINIMAX_FILTER else []
    return tuple(codes), status


def _detail_codes(details: object) -> list[str]:
    """The reasons in Google's list of details, such as API_KEY_INVALID."""
    rows = details if isinstance(details, list) else []
    reasons = (row.get("reason") for row in rows if isinstance(row, Mapping))
    return [reason for reason in reasons if isinstance(reason, str)]


def _delays(table: Mapping[str, Any]) -> list[object]:
    """The times to wait in fields of the table, or in Google's list of details (RetryInfo)."""
    details = table.get("details")
    rows = [table, *(details if isinstance(details, list) else [])]
    return [
        row[name]
        for row in rows
        if isinstance(row, Mapping)
        for name in _DELAYS
        if row.get(name) is not None
    ]


def _headers(told: object) -> dict[str, str]:
    """The headers that a router passes on (OpenRouter)."""
    table = told if isinstance(told, Mapping) else {}
    return {name.lower(): str(value) for name, value in table.items() if isinstance(name, str)}


def _is_word(value: object) -> bool:
    return isinstance(value, str) and not value.isdigit() and value not in _SAY_NOTHING


def _joined(said: list[Said]) -> Said:
    messages = list(dict.fromkeys(item.message for item in said if item.message))
    return Said(
        "; ".join(messages),
        tuple(code for item in said for code in item.codes),
        next((item.status for item in said if item.status), None),
        next((item.provider for item in said if item.provider), None),
        tuple(delay for item in said for delay in item.delays),
        {name: value for item in said for name, value in item.headers.items()},
    )
