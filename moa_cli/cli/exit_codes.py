"""The exit codes of all commands.

0 answered · 1 failed · 2 wrong usage or profile · 3 budget reached · 75 rate-limited ·
76 authentication · 77 model unavailable · 130 interrupted · 141 the reader went away ·
143 terminated
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moa_cli.core import errors

if TYPE_CHECKING:
    from moa_cli.core.conversation import Turn

FAILED, USAGE, BUDGET, INTERRUPTED, READER_GONE, TERMINATED = 1, 2, 3, 130, 141, 143

_CODES: dict[type[errors.MoAError], int] = {
    errors.UsageError: USAGE,
    errors.ProfileError: USAGE,
    errors.ImagesNotSeen: USAGE,
    errors.BudgetReached: BUDGET,
    errors.RateLimited: 75,
    errors.NoCredit: 75,
    errors.AuthenticationFailed: 76,
    errors.ModelNotFound: 77,
    errors.LocalModelUnavailable: 77,
}
# A turn has the classes of its errors as names, because events are also written to disk.
_BY_KIND = {error.__name__: code for error, code in _CODES.items()}


def of_error(error: errors.MoAError) -> int:
    """The exit code of an error."""
    return _CODES.get(type(error), FAILED)


def of_turn(turn: Turn) -> int:
    """The exit code of a turn. If all causes of its failure have the same code, it is that code."""
    if turn.status == "finished":
        return 0
    if turn.status == "interrupted":
        return INTERRUPTED
    if turn.capped:
        return BUDGET
    codes = {_BY_KIND.get(cause.kind, FAILED) for cause in turn.causes}
    return codes.pop() if len(codes) == 1 else FAILED
