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
    from moa_cli.engine import Budget
    from moa_cli.store.spending import Spending
    from moa_cli.store.store import Store

_E = TypeVar("_E", bound=MoAError)


@dataclass(frozen=True)
class Records:
    """Where a conversation's words are kept, and where its costs are; None: they are not."""

    store: Store | None = None
    spending: Spending | None = None


def open_records(
    config: Config, *, save: bool, open_store: Callable[[], Store], warn: Callable[[str], None]
) -> Records:
    """Where a conversation and its costs are kept.

    save: whether the conversation is. What is not saved leaves its costs neither, unless the day
    has a budget. open_store: gives the store, or raises StoreError. warn: told if nothing can be
    kept. Raises StoreError if the day's budget could not be.
    """
    if not save and config.budget.day is None:
        return Records()
    try:
        store = open_store()
    except StoreError as error:
        if config.budget.day is not None:
            raise unkept(StoreError, error) from None
        warn(f"this conversation is not saved: {error.message}")
        return Records()
    store.spending.zone = config.zone()
    return Records(store if save else None, store.spending)


def budgets(
    config: Config,
    spending: DaySpending | None,
    *,
    max_cost: float | None = None,
    max_total_tokens: int | None = None,
    session: bool = False,
    firm: bool = False,
) -> tuple[Budget, ...]:
    """The budgets of each turn, and the day's.

    spending: where the day's costs are kept. session: whether there is but one turn, to which
    the session's budget belongs. firm: see `Budget`.
    """
    from moa_cli.engine import Budget, Cap

    caps = []
    if session and config.budget.session is not None:
        caps.append(Cap("budget.session", "usd", config.budget.session))
    if max_cost is not None:
        caps.append(Cap("--max-cost", "usd", max_cost))
    if max_total_tokens is not None:
        caps.append(Cap("--max-total-tokens", "tokens", max_total_tokens))
    found = [Budget(cap, firm=firm) for cap in caps]
    if config.budget.day is not None and spending is not None:
        found.append(_day_budget(config.budget.day, spending, firm=firm))
    return tuple(found)


def unkept(kind: type[_E], error: StoreError) -> _E:
    """What to raise, of that kind, where the day's spending cannot be written or read."""
    return kind(
        f"budget.day cannot be kept: {error.message}",
        hint="fix that, or take `budget.day` out of the config file",
    )


def _day_budget(limit: float, spending: DaySpending, *, firm: bool) -> Budget:
    """The day's budget: other processes spend from it too, so it is kept in the store."""
    from moa_cli.engine import Budget, Cap

    class DayBudget(Budget):
        """Spent is what the store's ledger holds, where each call is as soon as it has ended."""

        def standing(self) -> Standing:
            return _kept(spending, spending.standing)

        def _book(self, holder: str, amount: float) -> Standing:
            return _kept(spending, lambda: spending.reserve(holder, amount, limit))

        def release(self, holder: str) -> None:
            with contextlib.suppress(StoreError):
                spending.release(holder)

    return DayBudget(Cap("budget.day", "usd", limit, since="today"), "shared", firm=firm)


def _kept(spending: DaySpending, ask: Callable[[], Standing]) -> Standing:
    """What `ask` gives. Raises BudgetReached where it cannot be told, or would be too low."""
    try:
        standing = ask()
        if spending.broken:
            raise StoreError(spending.broken)
    except StoreError as error:
        raise unkept(BudgetReached, error) from None
    return standing
