"""Numbers of a file that somebody else may have written: those that are no amounts count as 0,
and no time lies in the future."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

_T = TypeVar("_T")
# What is told of a file's numbers, by kind.
FUTURE, NO_AMOUNT = "time in the future (taken as now)", "number out of bounds (taken as 0)"
# More tokens, dollars or seconds than one call can take, and few enough that sums stay exact.
_MOST = 10**9
# The last second that a calendar of four-digit years can tell, in any time zone.
_LATEST = 253_402_200_000


def bounded(value: _T, told: Counter[str]) -> _T:
    """A dataclass whose numbers, and those in it, are amounts: 0 to 10^9, neither NaN nor
    infinity. Each one that is none is told of."""
    changes = {
        name: kept for name, held in vars(value).items() if (kept := _kept(held, told)) is not held
    }
    return cast("_T", dataclasses.replace(cast("Any", value), **changes)) if changes else value


def _kept(held: Any, told: Counter[str]) -> Any:
    kind = type(held)
    if kind is int or kind is float:
        if 0 <= held <= _MOST:
            return held
        told[NO_AMOUNT] += 1
        return kind(0)
    if kind is tuple:
        items = [_kept(item, told) for item in held]
        same = all(item is before for item, before in zip(items, held, strict=True))
        return held if same else tuple(items)
    return bounded(held, told) if dataclasses.is_dataclass(kind) else held


def not_later(at: float, told: Counter[str]) -> float:
    """That time, or now if it lies in the future: a conversation would stay the latest one."""
    now = time.time()
    if at <= now:
        return at
    told[FUTURE] += 1
    return now


def seconds_of(value: Any) -> float | None:
    """A time as seconds since 1970, from a number or from ISO 8601; None if it is none.

    Without a zone it is in UTC.
    """
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _LATEST else None
