"""Caps on what may be spent, checked before each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from moa_cli.core.conversation import Usage
from moa_cli.core.errors import BudgetReached
from moa_cli.core.ledger import Standing
from moa_cli.core.money import Price, usd
from moa_cli.engine.estimate import ASSUMED_TOKENS

__all__ = ["Cap", "check_prices", "longest_answer"]

# A model that may give so long an answer is not told a limit.
_LONG_ENOUGH = 32_000


@dataclass(frozen=True)
class Cap:
    """A limit. name: the option or setting that says it. limit: in USD or tokens.

    spent: all that counts against the limit by now, given what this turn has taken, what is to
    come (in the limit's unit; it is reserved where there is room for it), and the turn's own
    name. Raises BudgetReached where that cannot be told. release: gives back what the turn of
    that name had reserved. shared: whether other turns spend from it at the same time; then
    there must be room for the later layers too, which they could take away else. since: words
    for when the spending began, "" if it was with the turn.
    """

    name: str
    unit: Literal["usd", "tokens"]
    limit: float
    spent: Callable[[Usage, float, str], Standing]
    release: Callable[[str], None] = lambda turn: None
    shared: bool = False
    since: str = ""

    @classmethod
    def turn_cost(cls, name: str, limit: float) -> Cap:
        """So many USD for this turn."""
        return cls(name, "usd", limit, lambda used, more, turn: Standing(used.cost))

    @classmethod
    def turn_tokens(cls, name: str, limit: int) -> Cap:
        """So many tokens, of prompts and answers, for this turn."""
        return cls(
            name, "tokens", limit, lambda used, more, turn: Standing(float(used.total_tokens))
        )

    @classmethod
    def shared_cost(cls, name: str, limit: float, so_far: Callable[[], float]) -> Cap:
        """So many USD for turns that may run at once.

        so_far: what all of them have cost, in USD, each call as soon as it ends.
        """
        held: dict[str, float] = {}

        def spent(used: Usage, more: float, turn: str) -> Standing:
            held.pop(turn, None)
            standing = Standing(so_far(), sum(held.values()))
            if standing.total + more <= limit:
                held[turn] = more
            return standing

        def release(turn: str) -> None:
            held.pop(turn, None)

        return cls(name, "usd", limit, spent, release, shared=True)

    def amount(self, usage: Usage) -> float:
        """What `usage` is in the limit's unit."""
        return usage.cost if self.unit == "usd" else usage.total_tokens

    def left(self, used: Usage, ahead: Usage, later: Usage, turn: str) -> float:
        """What is left of it if `ahead` is taken, beyond what was `used`.

        later: what the layers after that will take at least. Raises BudgetReached if less than
        nothing is left.
        """
        more = self.amount(ahead + later if self.shared else ahead)
        standing = self.spent(used, more, turn)
        if more and not standing.total + more <= self.limit:
            since = f" {self.since}" if self.since else ""
            others = ""
            if standing.reserved:
                others = f" {self._told(standing.reserved)} reserved by turns that run now,"
            raise BudgetReached(
                f"{self.told()} would be passed: {self._told(standing.spent)} spent{since},{others}"
                f" up to {self._told(more)} more to come",
                hint=f"raise {self.name}, or lower max_tokens, rounds or the number of proposers",
            )
        return self.limit - standing.total - more

    def holds(self, used: Usage, ahead: Usage, turn: str) -> bool:
        """Whether there is room for `ahead`, of calls that run, which is reserved then.

        Raises BudgetReached where that cannot be told.
        """
        more = self.amount(ahead)
        return self.spent(used, more, turn).total + more <= self.limit

    def told(self) -> str:
        """The limit in words: `--max-cost $0.01`."""
        return f"{self.name} {self._told(self.limit)}"

    def _told(self, value: float) -> str:
        return usd(value) if self.unit == "usd" else f"{value:,.0f} tokens"


def check_prices(caps: Sequence[Cap], unpriced: Sequence[tuple[str, str | None]]) -> None:
    """Raise BudgetReached if a cap on cost depends on models of unknown price.

    unpriced: their names, and why their provider's list could not be had, if so.
    """
    cap = next((one for one in caps if one.unit == "usd"), None)
    if cap is None or not unpriced:
        return
    names = ", ".join(dict.fromkeys(model for model, _ in unpriced))
    why = next((trouble for _, trouble in unpriced if trouble), None)
    raise BudgetReached(
        f"{cap.name} cannot be kept: the price of {names} is unknown"
        + (f" ({why})" if why else ""),
        hint="tell it under [prices] in the config file, or cap the tokens by --max-total-tokens",
    )


def longest_answer(
    caps: Sequence[Cap], left: Sequence[float], prices: Sequence[Price | None]
) -> int | None:
    """How long each answer of unlimited length may be, in tokens, so that no cap is passed.

    left: of each cap, with ASSUMED_TOKENS taken for each of them. prices: of the models that
    give them. None: as long as they like.
    """
    extra = float(_LONG_ENOUGH)
    for cap, rest in zip(caps, left, strict=True):
        if cap.unit == "tokens":
            extra = min(extra, rest / len(prices))
        else:
            dear = sum(price.completion for price in prices if price) / 1e6
            extra = min(extra, rest / dear) if dear else extra
    return None if extra >= _LONG_ENOUGH else ASSUMED_TOKENS + int(extra)
