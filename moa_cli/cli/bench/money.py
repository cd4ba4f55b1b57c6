"""What a run may spend, and what it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from moa_cli.bench.run.journal import CallJournal, CallRecord
from moa_cli.cli import wiring
from moa_cli.core.conversation import Usage
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.ledger import TurnLedger
from moa_cli.engine import Budget, Cap
from moa_cli.engine.budget import check_prices
from moa_cli.store import accounts
from moa_cli.store.spending import CallRecorder

if TYPE_CHECKING:
    from moa_cli.store.spending import Spending

# Of which it is known that they are counted: items are worked off in their order.
_MOST_TURNS = 10_000


class Purse:
    """The budgets of a run, and where its costs are written down.

    spending: None keeps no books. max_cost: USD, of all sessions of the run.

    budgets: for the engine. What is spent is what the journal holds, which earlier starts of the
    run have added to; answers are never shortened, since what is asked must not depend on what
    is left.
    """

    def __init__(
        self, journal: CallJournal, spending: Spending | None, max_cost: float | None
    ) -> None:
        self._journal = journal
        self._spending = spending
        self._max_cost = max_cost
        self._session = Usage()
        self._turns: dict[tuple[str, int], TurnLedger] = {}
        found = list(accounts.budgets(wiring.config(), spending, firm=True))
        session = wiring.config().budget.session
        if session is not None:
            cap = Cap("budget.session", "usd", session)
            found.append(Budget(cap, "shared", spent=lambda: self._session.cost, firm=True))
        if max_cost is not None:
            cap = Cap("--max-cost", "usd", max_cost)
            found.append(Budget(cap, "shared", spent=lambda: journal.spent.cost, firm=True))
        self.budgets = tuple(found)

    def check(self, facts: Mapping[str, ModelInfo]) -> None:
        """Raise BudgetReached if a cap depends on a price that nobody knows."""
        check_prices(self.budgets, facts.items())

    def left(self) -> float | None:
        """USD that `--max-cost` leaves; None without it."""
        if self._max_cost is None:
            return None
        return max(0.0, self._max_cost - self._journal.spent.cost)

    def ended(self, record: CallRecord) -> None:
        """A call was made."""
        self._session += record.usage

    def ledger(self, warn: Callable[[str], None]) -> Callable[[str, int], TurnLedger] | None:
        """Where the calls of a turn of an item are written down; None where they are not.

        warn: told once if that cannot be done.
        """
        if self._spending is None:
            return None
        book = CallRecorder(self._spending, warn)

        def of(item: str, turn: int) -> TurnLedger:
            key = (item, turn)
            if key not in self._turns:
                if len(self._turns) == _MOST_TURNS:
                    del self._turns[next(iter(self._turns))]
                self._turns[key] = book.begin_turn()
            return self._turns[key]

        return of
