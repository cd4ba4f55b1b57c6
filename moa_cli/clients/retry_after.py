"""How long an endpoint asks to wait, read from headers, body fields or the error text.

A time that is not in the future (0, a past date) is ignored: then the caller's own backoff decides.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime

# `r=0;t=30`, or in an earlier draft `remaining=0, reset=30` (the IETF's RateLimit header).
_LIMIT = re.compile(r"\b(?:r|remaining)=(\d+)\s*[;,]\s*(?:t|reset)=(\d+)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Matches `1m2.5s`, `2 minutes and 5 seconds`, `500ms`. The longer names of a unit stand first.
_PART = (
    r"(\d+(?:\.\d+)?)\s*(milliseconds?|millis|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m"
    r"|hours?|hrs?|h|days?|d)(?![a-z])"
)
_DURATION = re.compile(rf"{_PART}(?:,?\s*(?:and\s+)?{_PART})*", re.IGNORECASE)
_PARTS = re.compile(_PART, re.IGNORECASE)
_BEFORE_IT = re.compile(
    r"(?:\bretry|\btry again|\bwait|\bresets?|\bavailable)(?: your requests?)?(?: again)?"
    r"(?: (?:in|after|for))?:?\s+(?:about |approximately |another )?(?=\d)",
    re.IGNORECASE,
)
_BARE_NUMBER = re.compile(r"(\d+(?:\.\d+)?)(?![\w.%/-]*\d)(?=\s*(?:[.,;)]|$))")
# A number from these bounds on is a point in time, in seconds or in milliseconds since 1970.
_DATES_FROM, _MILLIS_FROM = 10.0**9, 10.0**12


def seconds_to_wait(
    headers: Mapping[str, str], said: str = "", delays: Iterable[object] = (), *, limited: bool
) -> float | None:
    """Seconds that an endpoint asks to wait; None if it does not say.

    headers: with names in any case. said: the endpoint's message. delays: values of the body's
    fields for a delay. limited: whether the endpoint refused because of a limit on requests or
    tokens; only then the time when that limit ends is used.
    """
    headers = {name.lower(): value for name, value in headers.items()}
    now = _date(headers.get("date", "")) or time.time()
    wait = next(_waits(_told(headers, said, delays, now)), None)
    if wait is None and limited:
        wait = max(_waits(_resets(headers, now)), default=None)
    return wait


def _waits(told: Iterable[float | None]) -> Iterator[float]:
    """The delays that are in the future."""
    for seconds in told:
        if seconds is not None and math.isfinite(seconds) and seconds > 0:
            yield seconds


def _told(
    headers: Mapping[str, str], said: str, delays: Iterable[object], now: float
) -> Iterator[float | None]:
    milliseconds = _number(headers.get("retry-after-ms", ""))
    yield None if milliseconds is None else milliseconds / 1000
    # RFC 9110, 10.2.3: seconds or a date.
    told = headers.get("retry-after", "")
    yield _moment(told, now)
    for delay in delays:
        if isinstance(delay, Mapping):
            # google.protobuf.Duration
            whole, rest = (_number(str(delay.get(key, 0))) for key in ("seconds", "nanos"))
            yield (whole or 0) + (rest or 0) / 1e9
        elif isinstance(delay, str | int | float):
            yield _moment(str(delay), now)
    yield _in_text(said)


def _resets(headers: Mapping[str, str], now: float) -> Iterator[float | None]:
    """When limits end, by headers such as `x-ratelimit-reset-requests` (OpenAI, Cerebras) and
    `anthropic-ratelimit-tokens-reset`. Each has a header for what remains of that limit. A limit
    with something left is not the one that refused the request."""
    for name, told in headers.items():
        if "ratelimit" in name and "reset" in name:
            left = _number(headers.get(name.replace("reset", "remaining"), "0"))
            if left is None or left <= 0:
                yield _moment(told, now)
    for left, seconds in _LIMIT.findall(headers.get("ratelimit", "")):
        if not float(left):
            yield float(seconds)


def _moment(text: str, now: float) -> float | None:
    """Seconds until the time in `text`: a number of seconds, a duration, a date, or a point in time
    as a number."""
    text = text.strip()
    number = _number(text)
    if number is not None:
        if number >= _MILLIS_FROM:
            return number / 1000 - now
        return number - now if number >= _DATES_FROM else number
    if _DURATION.fullmatch(text):
        return _duration(text)
    date = _date(text)
    if date is not None:
        return date - now
    # A proxy may join two headers of the same name.
    parts = text.split(",") if "," in text else []
    return max(filter(None, (_moment(part, now) for part in parts)), default=None)


def _number(text: str) -> float | None:
    with suppress(ValueError):
        return float(text)
    return None


def _date(text: str) -> float | None:
    # A text in the right format may still be no date ("Mon, 99 Jan …").
    with suppress(ValueError, OverflowError):
        return email.utils.parsedate_to_datetime(text).timestamp()
    with suppress(ValueError, OverflowError):
        date = datetime.fromisoformat(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return None


def _in_text(said: str) -> float | None:
    """The delay in a message such as "Please retry in 20.04s", "try again in 1m2.5s" or "retry
    after 26 seconds"."""
    for found in _BEFORE_IT.finditer(said):
        duration = _DURATION.match(said, found.end())
        if duration is not None:
            return _duration(duration.group())
        bare = _BARE_NUMBER.match(said, found.end())
        if bare is not None:
            return float(bare.group(1))
    return None


def _duration(text: str) -> float:
    parts = _PARTS.findall(text)
    return sum(float(number) * _UNITS[_unit(name.lower())] for number, name in parts)


def _unit(name: str) -> str:
    return "ms" if name.startswith(("ms", "mil")) else name[0]
