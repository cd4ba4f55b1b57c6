"""What was spent, by day and model; no words, and kept when conversations are deleted."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from moa_cli.conversation import Charge, Usage
from moa_cli.errors import StoreError
from moa_cli.events import Event, TurnStarted
from moa_cli.store.schema import alive, immediate, store_errors
from moa_cli.stream import TurnFold

__all__ = ["LedgerTail", "Spender", "Spending", "Spent"]


@dataclass(frozen=True)
class Spent:
    """What one model took in one month. month: `2026-11`, in local time.

    turns: how many it took part in.
    """

    month: str
    model: str
    turns: int
    usage: Usage


class LedgerTail:
    """What is new in the ledger of one turn, as it grows."""

    def __init__(self) -> None:
        self._seen = 0
        self._models: set[str] = set()

    def new_in(self, ledger: Sequence[Charge]) -> Iterator[tuple[Charge, bool]]:
        """The charges since the last time, each with whether it is its model's first."""
        while self._seen < len(ledger):
            charge = ledger[self._seen]
            first = charge.model not in self._models
            self._models.add(charge.model)
            self._seen += 1
            yield charge, first


class Spender:
    """A sink that writes down what each call of a turn took, when it ends.

    warn: called once, with a sentence, if nothing more can be written.
    """

    def __init__(self, spending: Spending, warn: Callable[[str], None]) -> None:
        self._spending: Spending | None = spending
        self._warn = warn
        self._fold = TurnFold()
        self._ledger = LedgerTail()

    def handle(self, event: Event) -> None:
        """Take the next event."""
        self._fold.handle(event)
        if isinstance(event, TurnStarted):
            self._try(lambda spending: spending.begin_turn())
        self._write()

    def close(self) -> None:
        """Write down what was cut off."""
        self._fold.close()
        self._write()

    def _write(self) -> None:
        for charge, first in self._ledger.new_in(self._fold.ledger):
            self._try(partial(Spending.add, charge=charge, first=first))

    def _try(self, write: Callable[[Spending], None]) -> None:
        if self._spending is None:
            return
        try:
            write(self._spending)
        except StoreError as error:
            self._spending.broken = error.message
            self._spending = None
            self._warn(f"what this turn cost is not kept: {error.message}")


class Spending:
    """The ledger of all turns, in the file of a store.

    broken: why something that was spent could not be written down; then no budget can be kept.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.broken: str | None = None

    def use(self, connection: sqlite3.Connection) -> None:
        """Go on with another file, as the store does."""
        self._connection = connection

    def begin_turn(self) -> None:
        """One more turn today."""
        with store_errors():
            self._connection.execute(
                "INSERT INTO days VALUES (?, 1) ON CONFLICT (day) DO UPDATE SET turns = turns + 1",
                (_today(),),
            )

    def add(self, charge: Charge, *, first: bool) -> None:
        """A call has ended. first: whether it is its model's first of the turn."""
        usage = charge.usage
        with store_errors():
            self._connection.execute(
                "INSERT INTO spending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (day, model) DO UPDATE SET turns = turns + excluded.turns,"
                " calls = calls + excluded.calls,"
                " prompt_tokens = prompt_tokens + excluded.prompt_tokens,"
                " completion_tokens = completion_tokens + excluded.completion_tokens,"
                " estimated_calls = estimated_calls + excluded.estimated_calls,"
                " unpriced_calls = unpriced_calls + excluded.unpriced_calls,"
                " cost = cost + excluded.cost",
                (
                    _today(),
                    charge.model,
                    int(first),
                    usage.calls,
                    usage.prompt_tokens,
                    usage.completion_tokens,
                    usage.estimated_calls,
                    usage.unpriced_calls,
                    usage.cost,
                ),
            )

    def add_all(self, turns: int, charges: Sequence[tuple[Charge, bool]]) -> None:
        """So many more turns, and calls that have ended (see `add`), in one transaction."""
        with store_errors(), immediate(self._connection):
            for _ in range(turns):
                self.begin_turn()
            for charge, first in charges:
                self.add(charge, first=first)

    def reserve(self, holder: str, cost: float, limit: float) -> float:
        """What was spent today, and is reserved by other turns that run, in USD; if that leaves
        room for `cost` within `limit`, that is reserved for `holder` in place of what it held.

        One step for all processes: two turns cannot both take the last of a budget.
        """
        with store_errors(), immediate(self._connection):
            self._connection.execute("DELETE FROM reserved WHERE holder = ?", (holder,))
            rows = self._connection.execute("SELECT holder, process, cost FROM reserved").fetchall()
            for row in rows:
                if not alive(row["process"]):
                    self._connection.execute(
                        "DELETE FROM reserved WHERE holder = ?", (row["holder"],)
                    )
            (spent,) = self._connection.execute(
                "SELECT (SELECT total(cost) FROM spending WHERE day = ?)"
                " + (SELECT total(cost) FROM reserved)",
                (_today(),),
            ).fetchone()
            if spent + cost <= limit:
                self._connection.execute(
                    "INSERT INTO reserved VALUES (?, ?, ?)", (holder, os.getpid(), cost)
                )
        return float(spent)

    def release(self, holder: str) -> None:
        """Give back what `holder` had reserved."""
        with store_errors():
            self._connection.execute("DELETE FROM reserved WHERE holder = ?", (holder,))

    def by_month(self) -> list[Spent]:
        """What each model took in each month, the latest month first, the dearest model first."""
        with store_errors():
            rows = self._connection.execute(
                "SELECT substr(day, 1, 7) AS month, model, sum(turns) AS turns,"
                " sum(calls) AS calls, sum(prompt_tokens) AS prompt_tokens,"
                " sum(completion_tokens) AS completion_tokens,"
                " sum(estimated_calls) AS estimated_calls,"
                " sum(unpriced_calls) AS unpriced_calls, total(cost) AS cost"
                " FROM spending GROUP BY month, model"
                " ORDER BY month DESC, cost DESC, prompt_tokens + completion_tokens DESC"
            ).fetchall()
        return [_spent(row) for row in rows]

    def turns_by_month(self) -> dict[str, int]:
        """How many turns there were in each month."""
        with store_errors():
            rows = self._connection.execute(
                "SELECT substr(day, 1, 7), sum(turns) FROM days GROUP BY 1"
            ).fetchall()
        return {str(month): int(turns) for month, turns in rows}


def _spent(row: sqlite3.Row) -> Spent:
    usage = Usage(
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        calls=row["calls"],
        estimated_calls=row["estimated_calls"],
        cost=row["cost"],
        unpriced_calls=row["unpriced_calls"],
    )
    return Spent(row["month"], row["model"], row["turns"], usage)


def _today() -> str:
    return time.strftime("%Y-%m-%d")
