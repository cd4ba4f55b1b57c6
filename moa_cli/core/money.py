"""Prices of calls, and costs as texts. An unknown cost is never shown as zero."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from moa_cli.core.conversation import Usage
from moa_cli.core.text import are
from moa_cli.core.values import Key

_MILLION = 1_000_000
# The highest values that are accepted, in USD: of a limit, of the price of a million tokens, and of
# the price of a request.
MOST_USD, MOST_PRICE, _MOST_FEE = 1e9, 1e6, 1e3
MOST_TOKENS = 1_000_000_000
# Digits after the point of a cost that programs get.
_DIGITS = 12
_CACHED = "USD per million prompt tokens that the provider had in its cache"


@dataclass(frozen=True)
class PriceTier:
    """The price of all tokens of calls with prompts of more tokens than `above`."""

    above: Annotated[int, Key("for prompts of more tokens than this", 0, MOST_TOKENS)]
    prompt: Annotated[float, Key("USD per million prompt tokens", 0, MOST_PRICE)]
    completion: Annotated[float, Key("USD per million completion tokens", 0, MOST_PRICE)]
    cached: Annotated[float | None, Key(_CACHED, 0, MOST_PRICE)] = None


@dataclass(frozen=True)
class Price:
    """The price of a model, in USD per million tokens.

    Attributes:
        prompt: USD per million prompt tokens.
        completion: USD per million tokens of answers.
        cached: USD per million prompt tokens that the provider had in its cache. None means that
            they cost as much as other prompt tokens.
        request: USD for each call, on top.
        tiers: Prices of calls with long prompts. They replace the prices for tokens above.
    """

    prompt: Annotated[float, Key("USD per million prompt tokens", 0, MOST_PRICE, example=0.1)]
    completion: Annotated[
        float, Key("USD per million completion tokens", 0, MOST_PRICE, example=0.3)
    ]
    cached: Annotated[float | None, Key(_CACHED, 0, MOST_PRICE, example=0.05)] = None
    request: Annotated[float, Key("USD for each request, on top", 0, _MOST_FEE, example=0.005)] = (
        0.0
    )
    tiers: Annotated[
        tuple[PriceTier, ...],
        Key(
            "prices for all tokens of calls whose prompt has more than `above` tokens",
            example=[{"above": 200000, "prompt": 0.2, "completion": 0.6}],
        ),
    ] = ()

    @property
    def highest_completion(self) -> float:
        """The highest price of a million tokens of answers, in USD."""
        return max(self.completion, *(tier.completion for tier in self.tiers), 0.0)

    def of(self, usage: Usage) -> float:
        """The cost of usage at this price.

        Args:
            usage: Tokens and calls.

        Returns:
            The cost in USD.
        """
        # Decimal numbers are used so that the cost equals the provider's to the last digit.
        from decimal import Decimal

        per_call = usage.prompt_tokens / max(usage.calls, 1)
        reached = [tier for tier in self.tiers if per_call > tier.above]
        rate = max(reached, key=lambda tier: tier.above) if reached else self
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        cached_price = rate.prompt if rate.cached is None else rate.cached
        parts = (
            (usage.prompt_tokens - cached, rate.prompt),
            (cached, cached_price),
            (usage.completion_tokens, rate.completion),
            (usage.calls * _MILLION, self.request),
        )
        total = sum((count * Decimal(repr(price)) for count, price in parts), Decimal())
        return float(total / _MILLION)


FREE = Price(0.0, 0.0)


def price_values(price: Price) -> dict[str, Any]:
    """The price as plain values for a file. The field `tiers` is left out if it is empty, as in
    files of earlier versions."""
    values = asdict(price)
    if not price.tiers:
        del values["tiers"]
    return values


def check_price(price: Price) -> None:
    """Raise ValueError, which names the field, if a value of `price` is not a number, is NaN,
    infinite or negative, or is absurdly large."""
    for rate in (price, *price.tiers):
        for name, value in vars(rate).items():
            if name == "tiers" or (value is None and name == "cached"):
                continue
            most = {"request": _MOST_FEE, "above": MOST_TOKENS}.get(name, MOST_PRICE)
            # Comparisons with NaN are false, so NaN is refused, too.
            if type(value) not in (int, float) or not 0 <= value <= most:
                raise ValueError(f"{name} is no price: {value!r}")


def scaled(price: Price, share: float) -> Price:
    """The price multiplied by `share`."""

    def rates(of: Price | PriceTier) -> dict[str, Any]:
        cached = None if of.cached is None else of.cached * share
        return {"prompt": of.prompt * share, "completion": of.completion * share, "cached": cached}

    tiers = tuple(replace(tier, **rates(tier)) for tier in price.tiers)
    return replace(price, **rates(price), request=price.request * share, tiers=tiers)


def priced(usage: Usage, price: Price | None) -> Usage:
    """`usage` with its cost at `price`. Without a price, its calls count as unpriced."""
    if price is None:
        if not usage.cost and usage.unpriced_calls == usage.calls:
            return usage
        return replace(usage, cost=0.0, unpriced_calls=usage.calls)
    return replace(usage, cost=price.of(usage), unpriced_calls=0)


def in_usd(table: Mapping[str, Any]) -> bool:
    """Whether amounts in a provider's table are in USD: whether it names no other currency."""
    named = table.get("currency")
    return not isinstance(named, str) or named.strip().upper() in ("", "$", "USD", "US$")


def usd(amount: float) -> str:
    """An amount as a text for users: `$0`, `$0.00042`, `$0.31`, `$12.50`."""
    if amount <= 0:
        return "$0"
    if amount >= 1:
        return f"${amount:,.2f}"
    # Small amounts have two significant digits.
    decimals = max(2, 1 - math.floor(math.log10(amount)))
    return f"${amount:.{decimals}f}"


def usd_value(amount: float) -> float:
    """An amount as a number for programs.

    A sum of binary fractions is wrong in its last digit ($0.1 + $0.2). Rounding removes that digit:
    no provider bills a millionth of a millionth of a dollar.
    """
    return round(amount, _DIGITS)


def cost_value(usage: Usage) -> float | None:
    """The cost of `usage` in USD for programs; None if the price of a call is unknown."""
    return None if usage.unpriced_calls else usd_value(usage.cost)


def price_cell(amount: float | None, *, from_table: bool) -> str:
    """A price in USD per million tokens for lists of models, with at least two decimals. `~` means
    that the price is from the table that comes with `moa`."""
    if amount is None:
        return "?"
    text = f"{amount:.2f}" if round(amount, 2) == amount else f"{amount:.6f}".rstrip("0")
    return f"~{text}" if from_table else text


def prices_are(models: Collection[str]) -> str:
    """The beginning of a sentence: `the price of a is`, `the prices of a, b are`."""
    count = len(models)
    return f"the price{'s' * (count > 1)} of {', '.join(models)} {are(count)}"


def cost_text(usage: Usage) -> str:
    """The cost of `usage` as a text for users.

    `~` before a sum means that it includes estimates. `+ ?` after a sum means that calls of
    unknown price are missing from it.
    """
    if usage.unpriced_calls and usage.unpriced_calls >= usage.calls:
        return "cost unknown"
    about = "~" if usage.estimated_calls and usage.cost else ""
    lacking = " + ?" if usage.unpriced_calls else ""
    return f"{about}{usd(usage.cost)}{lacking}"
