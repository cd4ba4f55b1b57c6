"""What turns may spend, and where it is written down, put together from the settings.

Commands, the server and the library share this, so that a budget holds whoever asks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from moa_cli.config.schema import Config
from moa_cli.core.errors import BudgetReached, MoAError, StoreError
from moa_cli.core.ledger import DaySpending, Standing

if TYPE_CHECKING:
    from moa_cli.core.conversation import Usage
    from moa_cli.engine import Cap
    from moa_cli.store.spending import Spending
    from moa_cli.store.store import Store

__all__ = ["Books", "caps", "open_books", "unkept"]

_E = TypeVar("_E", bound=MoAError)


@dataclass(frozen=True)
class Books:
    """What is written down: a conversation's words, and what was spent; None is not kept."""

    store: Store | None = None
    spending: Spending | None = None


def open_books(
    config: Config, *, save: bool, open_store: Callable[[], Store], warn: Callable[[str], None]
) -> Books:
    """Where a conversation and its costs are kept.

    save: whether the conversation is. What is not saved leaves its costs neither, unless the day
    has a budget. open_store: gives the store, or raises StoreError. warn: told if nothing can be
    kept. Raises StoreError if the day's budget could not be.
    """
    if not save and config.budget.day is None:
        return Books()
    try:
        store = open_store()
    except StoreError as error:
        if config.budget.day is not None:
            raise unkept(StoreError, error) from None
        warn(f"this conversation is not saved: {error.message}")
        return Books()
    store.spending.zone = config.zone()
    return Books(store if save else None, store.spending)


def caps(
    config: Config,
    spending: DaySpending | None,
    *,
    max_cost: float | None = None,
    max_total_tokens: int | None = None,
    session: bool = False,
) -> tuple[Cap, ...]:
    """The caps on each turn, and the day's.

    spending: where the day's costs are kept. session: whether there is but one turn, which the
    session's budget is a cap on.
    """
    from moa_cli.engine import Cap

    found = []
    if session and config.budget.session is not None:
        found.append(Cap.turn_cost("budget.session", config.budget.session))
    if max_cost is not None:
        found.append(Cap.turn_cost("--max-cost", max_cost))
    if max_total_tokens is not None:
        found.append(Cap.turn_tokens("--max-total-tokens", max_total_tokens))
    if config.budget.day is not None and spending is not None:
        found.append(_day_cap(config.budget.day, spending))
    return tuple(found)


def unkept(kind: type[_E], error: StoreError) -> _E:
    """What to raise, of that kind, where the day's spending cannot be written or read."""
    return kind(
        f"budget.day cannot be kept: {error.message}",
        hint="fix that, or take `budget.day` out of the config file",
    )


def _day_cap(limit: float, spending: DaySpending) -> Cap:
    """The day's: other processes spend from it too, so what a layer may take is reserved."""
    from moa_cli.engine import Cap

    def spent(used: Usage, more: float, turn: str) -> Standing:
        # This turn's own calls are in it as soon as they end.
        try:
            standing = spending.reserve(turn, more, limit)
            if spending.broken:
                raise StoreError(spending.broken)
        except StoreError as error:
            raise unkept(BudgetReached, error) from None
        return standing

    def release(turn: str) -> None:
        with contextlib.suppress(StoreError):
            spending.release(turn)

    return Cap("budget.day", "usd", limit, spent, release, shared=True, since="today")
