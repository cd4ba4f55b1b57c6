"""Options on money, and the caps that they and the config file set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from moa_cli.cli import wiring
from moa_cli.config.schema import CONFIG_KEYS
from moa_cli.config.toml import sentence
from moa_cli.core.money import MOST_USD

if TYPE_CHECKING:
    from moa_cli.core.ledger import DaySpending
    from moa_cli.engine import Cap

__all__ = ["MaxCost", "MaxTotalTokens", "ShowUsage", "amount", "caps"]

_MOST_TOKENS = 10**12


def amount(value: float | None) -> float | None:
    """The value of an option in USD. Raises BadParameter for what would be no limit."""
    # NaN is not within.
    if value is not None and not 0 <= value <= MOST_USD:
        raise typer.BadParameter(f"{value} is not an amount between 0 and {MOST_USD:,.0f}")
    return value


def _tokens(value: int | None) -> int | None:
    if value is not None and value > _MOST_TOKENS:
        raise typer.BadParameter(f"{value} is more than {_MOST_TOKENS:,}")
    return value


MaxCost = Annotated[
    float | None,
    typer.Option(
        "--max-cost", metavar="USD", min=0, callback=amount, help="Most that one turn may cost."
    ),
]
MaxTotalTokens = Annotated[
    int | None,
    typer.Option(
        "--max-total-tokens",
        metavar="N",
        min=1,
        callback=_tokens,
        help="Most tokens that one turn may take, prompts and answers of all calls.",
    ),
]
ShowUsage = Annotated[
    bool | None, typer.Option("-u", "--usage/--no-usage", help=sentence(CONFIG_KEYS["usage"]))
]


def caps(
    max_cost: float | None,
    max_total_tokens: int | None,
    spending: DaySpending | None,
    *,
    one_turn: bool,
) -> tuple[Cap, ...]:
    """The caps of the options and the settings; see `accounts.caps`.

    one_turn: whether there is but one turn.
    """
    from moa_cli.store import accounts

    return accounts.caps(
        wiring.config(),
        spending,
        max_cost=max_cost,
        max_total_tokens=max_total_tokens,
        session=one_turn,
    )
