"""Opens the store and makes the budgets that the settings ask for.

Commands, the server and the library share this module, so the same budgets hold for all of them.
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
_DAY = "budget.day"


@dataclass(frozen=True)
class Records:
    """Where a conversation and its costs are stored. None means that they are not stored."""

    store: Store | None = None
    spending: Spending | None = None


def open_records(
    config: Config, *, save: bool, open_store: Callable[[], Store], warn: Callable[[str], None]
) -> Records:
    """Open the store for a conversation (unless `save` is off) and for its costs.

    If nothing can be stored, `warn` is called with a sentence. A budget for the day is an
    exception, because it needs the costs: they are always stored, and StoreError is raised if they
    cannot be.
    """
    needed = budget_of_a_day(config)
    if not save and needed is None:
        return Records()
    try:
        store = open_store()
    except StoreError as error:
        if needed is not None:
            raise unkept(StoreError, error, needed) from None
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
    """The budgets that limit a turn: first those of the turn itself, last the budget of the day.

    max_cost: USD for a turn. session: whether the session has only this turn, so that the budget of
    the session limits the turn. firm: see `Budget`.
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
        found.append(day_budget(_DAY, config.budget.day, spending, firm=firm))
    return tuple(found)


def budget_of_a_day(config: Config) -> str | None:
    """The name of a setting that limits the cost of a day; None if there is none. With such a
    setting, costs must be stored."""
    if config.budget.day is not None:
        return _DAY
    limited = (name for name, key in config.server.keys.items() if key.budget is not None)
    return next((f"server.keys.{name}.budget" for name in limited), None)


def unkept(kind: type[_E], error: StoreError, setting: str = _DAY) -> _E:
    """The error for a setting that limits a day, if the spending of the day cannot be written or
    read. kind: the class of the error."""
    return kind(
        f"{setting} cannot be kept: {error.message}",
        hint=f"fix that, or take `{setting}` out of the config file",
    )


def day_budget(setting: str, limit: float, spending: DaySpending, *, firm: bool = False) -> Budget:
    """A budget for a day, in USD. Other processes share it, so it is stored in the database.

    setting: the name of the setting that limits it. spending: the record of the costs that count.
    """
    from moa_cli.engine import Budget, Cap

    class DayBudget(Budget):
        """A budget that counts the costs in the store. The store gets the cost of each call as soon
        as it has ended."""

        def standing(self) -> Standing:
            return _kept(setting, spending, spending.standing)

        def _book(self, holder: str, amount: float) -> Standing:
            return _kept(setting, spending, lambda: spending.reserve(holder, amount, limit))

        def release(self, holder: str) -> None:
            with contextlib.suppress(StoreError):
                spending.release(holder)

    return DayBudget(Cap(setting, "usd", limit, since="today"), "shared", firm=firm)


def _kept(setting: str, spending: DaySpending, ask: Callable[[], Standing]) -> Standing:
    """The result of `ask`. Raises BudgetReached if the store cannot tell it, or lacks costs."""
    try:
        standing = ask()
        if spending.broken:
            raise StoreError(spending.broken)
    except StoreError as error:
        raise unkept(BudgetReached, error, setting) from None
    return standing
