"""Options on money, and the caps that they and the config file set."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import typer

from moa_cli.cli import wiring
from moa_cli.config import CONFIG_KEYS
from moa_cli.errors import BudgetReached, MoAError, StoreError
from moa_cli.tables import sentence

if TYPE_CHECKING:
    from moa_cli.conversation import Usage
    from moa_cli.engine import Cap

__all__ = ["MaxCost", "MaxTotalTokens", "ShowUsage", "caps", "unkept"]

_E = TypeVar("_E", bound=MoAError)

MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", metavar="USD", min=0, help="Most that one turn may cost."),
]
MaxTotalTokens = Annotated[
    int | None,
    typer.Option(
        "--max-total-tokens",
        metavar="N",
        min=1,
        help="Most tokens that one turn may take, prompts and answers of all calls.",
    ),
]
ShowUsage = Annotated[
    bool | None, typer.Option("-u", "--usage/--no-usage", help=sentence(CONFIG_KEYS["usage"]))
]


class DaySpending(Protocol):
    """Where the day's costs are kept; see `store.Spending`."""

    @property
    def broken(self) -> str | None:
        """Why something that was spent could not be written down, or None."""

    def reserve(self, holder: str, cost: float, limit: float) -> float:
        """USD spent today and reserved by others; reserves `cost` where the limit has room."""

    def release(self, holder: str) -> None:
        """Give back what `holder` had reserved."""


def caps(
    max_cost: float | None,
    max_total_tokens: int | None,
    spending: DaySpending | None,
    *,
    one_turn: bool,
) -> tuple[Cap, ...]:
    """The caps on each turn, and the day's.

    spending: where the day's costs are kept. one_turn: whether there is but one turn, which the
    session's budget is a cap on.
    """
    from moa_cli.engine import Cap

    found = []
    session = wiring.config().budget_session
    if one_turn and session is not None:
        found.append(Cap.turn_cost("budget.session", session))
    if max_cost is not None:
        found.append(Cap.turn_cost("--max-cost", max_cost))
    if max_total_tokens is not None:
        found.append(Cap.turn_tokens("--max-total-tokens", max_total_tokens))
    day = wiring.config().budget_day
    if day is not None and spending is not None:
        found.append(_day_cap(day, spending))
    return tuple(found)


def unkept(kind: type[_E], error: StoreError) -> _E:
    """What to raise, of that kind, where the day's spending cannot be written or read."""
    return kind(
        f"budget.day cannot be kept: {error.message}",
        hint="mend that, or take `budget.day` out of the config file",
    )


def _day_cap(limit: float, spending: DaySpending) -> Cap:
    """The day's: other processes spend from it too, so what a layer may take is reserved."""
    from moa_cli.engine import Cap

    def spent(used: Usage, more: float, turn: str) -> float:
        # This turn's own calls are in it as soon as they end.
        try:
            if spending.broken:
                raise StoreError(spending.broken)
            return spending.reserve(turn, more, limit)
        except StoreError as error:
            raise unkept(BudgetReached, error) from None

    def release(turn: str) -> None:
        with contextlib.suppress(StoreError):
            spending.release(turn)

    return Cap("budget.day", "usd", limit, spent, release, shared=True)
