"""The exit codes, told once.

0 answered · 1 failed · 2 wrong usage or profile · 3 budget reached · 75 rate-limited ·
76 authentication · 77 model unavailable · 130 interrupted · 141 the reader went away ·
143 terminated
"""

from __future__ import annotations

from moa_cli.core.conversation import Turn
from moa_cli.core.errors import MoAError

__all__ = [
    "BUDGET",
    "FAILED",
    "INTERRUPTED",
    "READER_GONE",
    "TERMINATED",
    "USAGE",
    "of_error",
    "of_turn",
]

FAILED, USAGE, BUDGET, INTERRUPTED, READER_GONE, TERMINATED = 1, 2, 3, 130, 141, 143

_CODES = {
    "UsageError": USAGE,
    "ProfileError": USAGE,
    "BudgetReached": BUDGET,
    "RateLimited": 75,
    "AuthenticationFailed": 76,
    "ModelNotFound": 77,
    "LocalModelUnavailable": 77,
}


def of_error(error: MoAError) -> int:
    """The exit code of an error."""
    return _CODES.get(type(error).__name__, FAILED)


def of_turn(turn: Turn) -> int:
    """The exit code of a turn: that of the cause, where all causes are of one kind."""
    if turn.status == "finished":
        return 0
    if turn.status == "interrupted":
        return INTERRUPTED
    if turn.capped:
        return BUDGET
    codes = {_CODES.get(cause.kind, FAILED) for cause in turn.causes}
    return codes.pop() if len(codes) == 1 else FAILED
