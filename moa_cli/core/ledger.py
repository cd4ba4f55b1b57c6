"""What the engine tells of calls that cost money, and what it is told of budgets.

The engine calls `TurnLedger.begin` right before a request is sent, so that a call counts even if
the process is killed before its answer has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from moa_cli.core.conversation import Usage
from moa_cli.core.frozen import quickly_made
from moa_cli.core.money import Price, priced
from moa_cli.core.tokens import estimated_usage


@quickly_made
@dataclass(frozen=True)
class CallBegun:
    """A request that is about to be sent.

    model: as the profile names it. prompt_tokens: about how many it is sent. completion_tokens:
    how many it may answer, as far as that can be known. price: as known now, None if it is not.
    layer: from 1, index: in its layer, from 0; None for the aggregator.
    """

    model: str
    prompt_tokens: int
    completion_tokens: int
    price: Price | None = None
    layer: int = 0
    index: int | None = None

    @property
    def usage(self) -> Usage:
        """What it may take, estimated."""
        guessed = estimated_usage(self.prompt_tokens, self.completion_tokens)
        return priced(guessed, self.price)


class TurnLedger(Protocol):
    """Where the calls of one turn are written down. None of it raises."""

    def begin(self, call: CallBegun) -> int:
        """A request is about to be sent; returns the number it is known by from then on."""

    def grown(self, number: int, completion_tokens: int) -> None:
        """The answer may become longer than was said: up to so many tokens."""

    def priced(self, number: int, price: Price) -> None:
        """The price of its model has become known."""

    def void(self, number: int) -> None:
        """The endpoint refused the request, or was not reached: nothing is billed."""

    def end(self, numbers: Sequence[int], model: str, usage: Usage) -> None:
        """Requests that belong together (a call and its retries) have taken `usage`."""


class Ledger(Protocol):
    """Where turns and their calls are written down."""

    def begin_turn(self) -> TurnLedger:
        """One more turn."""


@dataclass(frozen=True)
class Standing:
    """What counts against a limit: spent already, and reserved by turns that run elsewhere."""

    spent: float
    reserved: float = 0.0

    @property
    def total(self) -> float:
        return self.spent + self.reserved


class DaySpending(Protocol):
    """Where the day's costs are kept."""

    @property
    def broken(self) -> str | None:
        """Why something that was spent could not be written down, or None."""

    def standing(self) -> Standing:
        """USD spent today, and reserved. Raises StoreError."""

    def reserve(self, holder: str, cost: float, limit: float) -> Standing:
        """USD spent today, and reserved by others; reserves `cost` in place of what `holder`
        had where the limit has room for it, and leaves that where it has not. Raises
        StoreError."""

    def release(self, holder: str) -> None:
        """Give back what `holder` had reserved. Raises StoreError."""
