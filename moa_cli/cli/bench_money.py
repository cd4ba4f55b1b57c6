"""What a run may spend, and what it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from moa_cli.bench.caps import firm
from moa_cli.bench.journal import Entry, Journal
from moa_cli.cli import wiring
from moa_cli.cli.budget import caps
from moa_cli.clients.base import ModelInfo
from moa_cli.conversation import Charge, Usage
from moa_cli.engine import Cap
from moa_cli.engine.budget import check_prices
from moa_cli.errors import StoreError

if TYPE_CHECKING:
    from moa_cli.store import Spending

__all__ = ["Purse"]


class Purse:
    """The caps of a run, and where its costs are written down.

    spending: None keeps no books. max_cost: USD, of all sessions of the run.

    caps: for the engine.
    """

    def __init__(self, journal: Journal, spending: Spending | None, max_cost: float | None) -> None:
        self._journal = journal
        self._spending = spending
        self._max_cost = max_cost
        self._session = Usage()
        self._turns: set[tuple[str, int]] = set()
        self._models: set[tuple[str, int, str]] = set()
        found = list(caps(None, None, spending, one_turn=False))
        session = wiring.config().budget_session
        if session is not None:
            so_far = lambda: self._session.cost  # noqa: E731
            found.append(Cap.shared_cost("budget.session", session, so_far))
        if max_cost is not None:
            spent = lambda: journal.spent.cost  # noqa: E731
            found.append(Cap.shared_cost("--max-cost", max_cost, spent))
        self.caps = firm(found)

    def check(self, facts: Mapping[str, ModelInfo]) -> None:
        """Raise BudgetReached if a cap depends on a price that nobody knows."""
        check_prices(
            self.caps, [(name, one.trouble) for name, one in facts.items() if one.price is None]
        )

    def left(self) -> float | None:
        """USD that `--max-cost` leaves; None without it."""
        if self._max_cost is None:
            return None
        return max(0.0, self._max_cost - self._journal.spent.cost)

    def ended(self, entry: Entry, warn: Callable[[str], None]) -> None:
        """A call was made. warn: told once if costs cannot be written down any more."""
        self._session += entry.usage
        if self._spending is None:
            return
        turn, model = (entry.item, entry.turn), (entry.item, entry.turn, entry.model)
        try:
            if turn not in self._turns:
                self._spending.begin_turn()
            charge = Charge(0, entry.model, entry.usage, entry.answered_by)
            self._spending.add(charge, first=model not in self._models)
        except StoreError as error:
            # A day's budget that depends on it ends the run.
            self._spending.broken = error.message
            self._spending = None
            warn(f"what this run costs is not kept: {error.message}")
        self._turns.add(turn)
        self._models.add(model)
