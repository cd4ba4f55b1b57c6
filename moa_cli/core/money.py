"""Prices of calls, and costs in words. An unknown cost is never shown as zero."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

from moa_cli.core.conversation import Usage
from moa_cli.core.values import Key

_MILLION = 1_000_000
# The highest limit, price of a million tokens and price of a request that are valid, in USD.
MOST_USD, MOST_PRICE, _MOST_FEE = 1e9, 1e6, 1e3


@dataclass(frozen=True)
class Price:
    """The price of a model, in USD per million tokens.

    Attributes:
        prompt: USD per million prompt tokens.
        completion: USD per million tokens of answers.
        cached: USD per million prompt tokens that the provider had in its cache. None means that
            they cost as much as other prompt tokens.
        request: USD for each call, on top.
    """

    prompt: Annotated[float, Key("USD per million prompt tokens", 0, MOST_PRICE, example=0.1)]
    completion: Annotated[
        float, Key("USD per million completion tokens", 0, MOST_PRICE, example=0.3)
    ]
    cached: Annotated[
        float | None,
        Key(
            "USD per million prompt tokens that the provider had in its cache",
            0,
            MOST_PRICE,
            example=0.05,
        ),
    ] = None
    request: float = 0.0

    def of(self, usage: Usage) -> float:
        """What usage costs at this price.

        Args:
            usage: Tokens and calls.

        Returns:
            The cost in USD.
        """
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        cached_price = self.prompt if self.cached is None else self.cached
        parts = (
            (usage.prompt_tokens - cached) * self.prompt,
            cached * cached_price,
            usage.completion_tokens * self.completion,
        )
        return math.fsum(parts) / _MILLION + self.request * usage.calls


FREE = Price(0.0, 0.0)


def check_price(price: Price) -> None:
    """Check that all numbers of `price` are possible.

    Raises:
        ValueError: A field, which the message names, is NaN, infinite, negative, absurdly large,
            or not a number.
    """
    for name, value in vars(price).items():
        most = _MOST_FEE if name == "request" else MOST_PRICE
        if value is None and name == "cached":
            continue
        # A comparison with NaN is false.
        if type(value) not in (int, float) or not 0 <= value <= most:
            raise ValueError(f"{name} is no price: {value!r}")


def priced(usage: Usage, price: Price | None) -> Usage:
    """`usage` with its cost at `price`. Without a price, its calls count as unpriced."""
    if price is None:
        return replace(usage, cost=0.0, unpriced_calls=usage.calls)
    return replace(usage, cost=price.of(usage), unpriced_calls=0)


def usd(amount: float) -> str:
    """An amount as users read it: `$0`, `$0.00042`, `$0.31`, `$12.50`."""
    if amount <= 0:
        return "$0"
    if amount >= 1:
        return f"${amount:,.2f}"
    # Two significant digits.
    decimals = max(2, 1 - math.floor(math.log10(amount)))
    return f"${amount:.{decimals}f}"


def cost_text(usage: Usage) -> str:
    """The cost of `usage` as users read it.

    `~` before a sum means that it includes estimates. `+ ?` after a sum means that calls of
    unknown price are missing from it.
    """
    if usage.unpriced_calls and usage.unpriced_calls >= usage.calls:
        return "cost unknown"
    about = "~" if usage.estimated_calls and usage.cost else ""
    lacking = " + ?" if usage.unpriced_calls else ""
    return f"{about}{usd(usage.cost)}{lacking}"
