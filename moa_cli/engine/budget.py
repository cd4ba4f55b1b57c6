"""Caps on what calls may take, what was spent under them, and what is reserved for later calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from moa_cli.core.conversation import Usage
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import BudgetReached
from moa_cli.core.ledger import Standing
from moa_cli.core.money import Price, prices_are, usd
from moa_cli.core.unique import unique_name
from moa_cli.engine.estimate import ASSUMED_TOKENS

# If the caps allow an answer of at least this many tokens, the model gets no limit.
_LONG_ENOUGH = 32_000

Scope = Literal["turn", "turns", "shared"]


@dataclass(frozen=True)
class Cap:
    """A limit on what calls take.

    name: the option or setting that sets it. unit: of `limit` and of all amounts that count against
    it: USD, or tokens of prompts and answers. since: words that say when the spending began; "" if
    it began with the turn.
    """

    name: str
    unit: Literal["usd", "tokens"]
    limit: float
    since: str = ""

    def amount(self, usage: Usage) -> float:
        return usage.cost if self.unit == "usd" else usage.total_tokens

    def __str__(self) -> str:
        """The cap in words: `--max-cost $0.01`."""
        return f"{self.name} {self._text(self.limit)}"

    def passed(self, standing: Standing, amount: float, *, discreet: bool = False) -> BudgetReached:
        """The error for calls that may take `amount`, for which the cap leaves no room.

        standing: what was spent and reserved before. discreet: do not tell what was spent.
        """
        hint = f"raise {self.name}, or lower max_tokens, rounds or the number of proposers"
        more = f"up to {self._text(amount)} more"
        if discreet:
            return BudgetReached(f"{self} leaves no room for {more}", hint=hint)
        since = f" {self.since}" if self.since else ""
        reserved = f" {self._text(standing.reserved)} reserved by turns that run now,"
        others = reserved if standing.reserved else ""
        return BudgetReached(
            f"{self} would be exceeded: {self._text(standing.spent)} spent{since},{others}"
            f" {more} to come",
            hint=hint,
        )

    def _text(self, value: float) -> str:
        return usd(value) if self.unit == "usd" else f"{value:,.0f} tokens"


@dataclass(frozen=True)
class Reservation:
    """An amount that is kept free in a budget, in its cap's unit, until it is released.

    holder: a unique name of the owner.
    """

    budget: Budget
    holder: str
    amount: float

    def release(self) -> None:
        """Give the amount back. A second call has no effect."""
        self.budget.release(self.holder)


class Budget:
    """What was spent and reserved under a cap, kept in memory.

    A turn reserves what its next calls may take before they are sent, and releases it at its end.
    The real usage of a call counts as spent as soon as the call has ended. All amounts are in the
    cap's unit.

    scope: "turn", each turn has the whole limit for itself; "turns", turns spend one after another;
    "shared", turns spend at the same time. With "shared", a turn also reserves its later layers,
    because other turns could use up the rest before. spent: returns what was spent, if another part
    counts it; by default, the sum of what `spend` was told. firm: never shorten an answer to what
    remains, because requests must not depend on that.
    """

    def __init__(
        self,
        cap: Cap,
        scope: Scope = "turn",
        *,
        spent: Callable[[], float] | None = None,
        firm: bool = False,
    ) -> None:
        self.cap = cap
        self.scope: Scope = scope
        self.firm = firm
        self._spent = 0.0
        self._told = spent
        self._reserved: dict[str, float] = {}

    def for_turn(self) -> Budget:
        """The budget that one turn spends from."""
        return Budget(self.cap, firm=self.firm) if self.scope == "turn" else self

    def spend(self, usage: Usage) -> None:
        """Count the usage of a call that has ended."""
        self._spent += self.cap.amount(usage)

    def standing(self) -> Standing:
        """What counts against the cap. Raises BudgetReached if that cannot be found out."""
        spent = self._spent if self._told is None else self._told()
        return Standing(spent, sum(self._reserved.values()))

    def remaining(self) -> float:
        """What is neither spent nor reserved; below 0 if the cap was exceeded.

        Raises BudgetReached if that cannot be found out.
        """
        return self.cap.limit - self.standing().total

    def reserve(
        self, amount: float, *, instead_of: Reservation | None = None, discreet: bool = False
    ) -> Reservation:
        """Keep `amount` free for later calls.

        instead_of: an older reservation that this one replaces in one step. If there is no room for
        the new one, the older one stays, because its calls may be running. discreet: see
        `Cap.passed`. Raises BudgetReached if there is no room, or if that cannot be found out.
        """
        found, standing = self._try(amount, instead_of)
        if found is None:
            raise self.cap.passed(standing, amount, discreet=discreet)
        return found

    def try_reserve(
        self, amount: float, *, instead_of: Reservation | None = None
    ) -> Reservation | None:
        """As `reserve`, but None if there is no room."""
        return self._try(amount, instead_of)[0]

    def _try(
        self, amount: float, instead_of: Reservation | None
    ) -> tuple[Reservation | None, Standing]:
        holder = unique_name() if instead_of is None else instead_of.holder
        standing = self._book(holder, amount)
        # Written so that NaN does not fit.
        fits = not amount or standing.total + amount <= self.cap.limit
        return (Reservation(self, holder, amount) if fits else None), standing

    def _book(self, holder: str, amount: float) -> Standing:
        """Reserve `amount` for `holder` in place of its older amount, if there is room. Returns
        what else counts against the cap."""
        before = self._reserved.pop(holder, None)
        standing = self.standing()
        if standing.total + amount <= self.cap.limit:
            self._reserved[holder] = amount
        elif before is not None:
            self._reserved[holder] = before
        return standing

    def release(self, holder: str) -> None:
        """Give back what `holder` had reserved; see `Reservation.release`."""
        self._reserved.pop(holder, None)


class TurnBudgets:
    """The budgets that one turn spends from, and what it holds of each.

    undisclosed: the names of caps whose errors do not tell what was spent.
    """

    def __init__(self, budgets: Sequence[Budget], undisclosed: Collection[str] = ()) -> None:
        self.budgets = [budget.for_turn() for budget in budgets]
        self._undisclosed = undisclosed
        self._held: dict[Budget, Reservation] = {}

    def __bool__(self) -> bool:
        return bool(self.budgets)

    @property
    def in_usd(self) -> bool:
        """Whether one of them depends on prices."""
        return any(budget.cap.unit == "usd" for budget in self.budgets)

    def foresee(self, used: Usage, ahead: Usage) -> None:
        """Raise BudgetReached if there is no room for `used` and `ahead`.

        used: what the turn will have taken before. ahead: what its next step may take. The turn has
        not begun, so both are still to come.
        """
        for budget in self.budgets:
            cap, standing = budget.cap, budget.standing()
            before = cap.amount(used) if budget.scope != "shared" else 0.0
            amount = cap.amount(ahead)
            if amount and not standing.total + before + amount <= cap.limit:
                discreet = cap.name in self._undisclosed
                raise cap.passed(standing, before + amount, discreet=discreet)

    def hold(self, ahead: Usage, later: Usage) -> None:
        """Reserve what the turn may take, in place of its older reservation.

        ahead: the usage of the calls that run or are to be made. later: the foreseen usage of later
        layers. Raises BudgetReached if there is no room.
        """
        for budget in self.budgets:
            self._held[budget] = budget.reserve(
                _total(budget, ahead, later),
                instead_of=self._held.get(budget),
                discreet=budget.cap.name in self._undisclosed,
            )

    def try_hold(self, ahead: Usage, later: Usage) -> Cap | None:
        """As `hold`, but returns the first cap that leaves no room; None if all do."""
        for budget in self.budgets:
            held = self._held.get(budget)
            found = budget.try_reserve(_total(budget, ahead, later), instead_of=held)
            if found is None:
                return budget.cap
            self._held[budget] = found
        return None

    def longest_answer(self, prices: Sequence[Price | None]) -> int | None:
        """How many tokens each answer without max_tokens may have, so that no cap is exceeded. None
        means that there is no limit.

        prices: of the models with such answers. ASSUMED_TOKENS are reserved for each answer
        already.
        """
        extra = float(_LONG_ENOUGH)
        for budget in self.budgets:
            if budget.firm:
                continue
            remaining = max(0.0, budget.remaining())
            if budget.cap.unit == "tokens":
                extra = min(extra, remaining / len(prices))
            else:
                dollars_per_token = sum(price.highest_completion for price in prices if price) / 1e6
                if dollars_per_token:
                    extra = min(extra, remaining / dollars_per_token)
        return None if extra >= _LONG_ENOUGH else ASSUMED_TOKENS + int(extra)

    def spend(self, usage: Usage) -> None:
        """Count the usage of a call of the turn that has ended."""
        for budget in self.budgets:
            budget.spend(usage)

    def release(self) -> None:
        """Give back all that is reserved, because the turn makes no more calls."""
        while self._held:
            self._held.popitem()[1].release()


def _total(budget: Budget, ahead: Usage, later: Usage) -> float:
    return budget.cap.amount(ahead + later if budget.scope == "shared" else ahead)


def check_prices(budgets: Iterable[Budget], models: Iterable[tuple[str, ModelInfo]]) -> None:
    """Raise BudgetReached if a budget in USD depends on models of unknown price."""
    cap = next((budget.cap for budget in budgets if budget.cap.unit == "usd"), None)
    unpriced = {name: info.trouble for name, info in models if info.price is None}
    if cap is None or not unpriced:
        return
    why = next(filter(None, unpriced.values()), None)
    raise BudgetReached(
        f"{cap.name} cannot be kept: {prices_are(unpriced)} unknown" + (f" ({why})" if why else ""),
        hint="set it under [prices] in the config file, or cap the tokens with --max-total-tokens",
    )
