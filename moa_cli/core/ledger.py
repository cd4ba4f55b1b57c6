"""The protocols by which the engine records calls that cost money, and reads what was spent.

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

    model: the model name in the profile. prompt_tokens: about how many tokens the prompt has.
    completion_tokens: how many tokens the answer may have, as far as this is known. price: None if
    it is not known now. layer: its number, from 1. index: the place in the layer, from 0; None for
    the aggregator.
    """

    model: str
    prompt_tokens: int
    completion_tokens: int
    price: Price | None = None
    layer: int = 0
    index: int | None = None

    @property
    def usage(self) -> Usage:
        """The estimated usage of the request."""
        guessed = estimated_usage(self.prompt_tokens, self.completion_tokens)
        return priced(guessed, self.price)


class TurnLedger(Protocol):
    """The record of the calls of one turn. Its methods do not raise errors."""

    def begin(self, call: CallBegun) -> int:
        """A request is about to be sent. Returns the number of its entry."""

    def grown(self, number: int, completion_tokens: int) -> None:
        """The answer may become longer than was recorded: up to `completion_tokens`."""

    def priced(self, number: int, price: Price) -> None:
        """The price of the request's model has become known."""

    def void(self, number: int) -> None:
        """The endpoint refused the request, or was not reached: nothing is billed."""

    def end(self, numbers: Sequence[int], model: str, usage: Usage) -> None:
        """Requests that belong together (a call and its retries) have taken `usage`."""


class Ledger(Protocol):
    """The record of turns and their calls."""

    def begin_turn(self) -> TurnLedger:
        """A new turn begins. Returns the record of its calls."""


@dataclass(frozen=True)
class Standing:
    """The amounts that count against a limit: spent already, and reserved by other turns."""

    spent: float
    reserved: float = 0.0

    @property
    def total(self) -> float:
        return self.spent + self.reserved


class DaySpending(Protocol):
    """The record of the costs of the day."""

    @property
    def broken(self) -> str | None:
        """Why a cost could not be recorded, or None."""

    def standing(self) -> Standing:
        """The USD that are spent today, and reserved. Raises StoreError."""

    def reserve(self, holder: str, cost: float, limit: float) -> Standing:
        """Reserve `cost` in place of the older amount of `holder`, if the limit has room for it;
        otherwise the older amount stays. Returns the USD that are spent today, and reserved by
        others. Raises StoreError."""

    def release(self, holder: str) -> None:
        """Give back what `holder` had reserved. Raises StoreError."""
