"""Stores what turns cost, by day and model.

No prompt and no answer is stored, and deleting conversations does not change it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from moa_cli.core.conversation import Usage
from moa_cli.core.errors import StoreError, StoreLocked
from moa_cli.core.ledger import Standing
from moa_cli.store.calls import Journal, SpendingEntry, TurnCalls, journal_for, leave_journal
from moa_cli.store.ended_processes import (
    add_spending_entry,
    database_of,
    forget_ended,
    settle_ended_processes,
)
from moa_cli.store.lease import has_lease
from moa_cli.store.schema import Queries, immediate, patience, store_errors

# How long a turn waits at most to learn whether the budget of the day has room.
_RESERVE_SECONDS = 3.0
_COUNTS = (
    "turns",
    "calls",
    "prompt_tokens",
    "completion_tokens",
    "estimated_calls",
    "unpriced_calls",
)
_SUMS = ", ".join(f"sum({name}) AS {name}" for name in _COUNTS)
# The condition for plausible rows; all others are left out of sums.
_SOUND = " AND ".join(
    [
        *(f"typeof({name}) = 'integer' AND {name} BETWEEN 0 AND 1e12" for name in _COUNTS),
        "typeof(cost) IN ('real', 'integer') AND cost BETWEEN 0 AND 1e12",
    ]
)


@dataclass(frozen=True)
class MonthlySpending:
    """What one model took in one month.

    Attributes:
        month: Such as `2026-11`, in the time zone of the budget.
        model: The model name.
        turns: How many turns it took part in.
        usage: What its calls took.
    """

    month: str
    model: str
    turns: int
    usage: Usage


class CallRecorder:
    """Writes the calls of turns into a journal and a store; see `ledger.Ledger`.

    Args:
        spending: Where they are written.
        warn: Called once with a sentence if something cannot be written. It is tried again with
            the next call. What is left at the end is in the journal, for the next process.
        turn: Returns the number in the store of the turn that runs, or None.
    """

    def __init__(
        self,
        spending: Spending,
        warn: Callable[[str], None],
        turn: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._spending = spending
        self._warn = warn
        self._turn = turn
        self._warned = False

    def begin_turn(self) -> TurnCalls:
        """Note that a turn begins."""
        spending = self._spending
        journal = spending.journal(self._trouble)
        self._write(turns=1)
        return TurnCalls(journal, spending.today, self._ended, self._trouble, self._turn)

    def _ended(self, entry: SpendingEntry) -> None:
        self._spending.pending.append(entry)
        self._write()

    def _write(self, turns: int = 0) -> None:
        try:
            # A turn does not wait for other processes: the journal holds what is pending.
            self._spending.write(turns, seconds=0.0)
        except StoreLocked:
            pass
        except StoreError as error:
            self._tell(error.message)

    def _trouble(self, error: OSError) -> None:
        """Note that a line of the journal cannot be written."""
        why = f"{error.filename or 'the journal'}: {error.strerror}"
        self._spending.broken = why
        self._tell(why)

    def _tell(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"the cost of this turn cannot be recorded: {why}")


class Spending(Queries):
    """The spending of all turns, in the file of a store. Its methods raise StoreError.

    Attributes:
        database: The file.
        zone: The time zone of the days.
        broken: Why some spending could not be written, or None. If so, no budget can be kept.
        pending: What `write` has still to write.
        follow: Called before anything is written, to continue with the file that has taken the
            place of this one.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self.database = database_of(connection)
        self.zone: tzinfo = UTC
        self.broken: str | None = None
        self.pending: list[SpendingEntry] = []
        self.follow: Callable[[], None] = lambda: None
        self._turns = 0
        self._journal: Journal | None = None
        self._no_lease: OSError | None = None
        self._tidied = False

    def close(self) -> None:
        """Close the file."""
        self.leave()
        self._connection.close()

    def leave(self) -> None:
        """Stop writing. The lease of this process ends with its last user."""
        if self._journal is not None:
            leave_journal(self.database, self)
            self._journal = None

    def today(self) -> str:
        """The current day in the time zone, such as `2026-11-28`."""
        return datetime.now(self.zone).date().isoformat()

    def journal(self, trouble: Callable[[OSError], None]) -> Journal:
        """The journal of this process. trouble: called if it cannot be written to a file."""
        if self._journal is None:
            try:
                self._journal = journal_for(self.database, self)
            except OSError as error:
                self._journal, self._no_lease = Journal(None), error
                trouble(error)
        return self._journal

    def write(self, turns: int = 0, *, seconds: float | None = None) -> None:
        """Write so many more turns and everything that is pending. On an error it stays pending.

        Args:
            turns: How many turns have begun.
            seconds: How long to wait for another process that writes; None for the usual time.
        """
        self._turns += turns
        try:
            self.follow()
            with patience(self._connection, seconds):
                self.book(self._turns, self.pending, self._journal)
        except StoreLocked:
            raise
        except StoreError as error:
            self.broken = error.message
            raise
        self._turns, self.pending, self.broken = 0, [], None

    def book(self, turns: int, entries: Sequence[SpendingEntry], journal: Journal | None) -> None:
        """Write turns and calls in one transaction.

        Args:
            turns: How many turns have begun.
            entries: The calls that have ended.
            journal: The journal that holds the calls; it is told that they are written.
        """
        lease = journal.lease if journal is not None else None
        self.follow()
        with store_errors(), immediate(self._connection):
            if turns:
                self._connection.execute(
                    "INSERT INTO days VALUES (?, ?)"
                    " ON CONFLICT (day) DO UPDATE SET turns = turns + excluded.turns",
                    (self.today(), turns),
                )
            for entry in entries:
                add_spending_entry(self._connection, entry)
                if lease is not None:
                    self._connection.executemany(
                        "INSERT INTO booked VALUES (?, ?)",
                        [(lease.token, number) for number in entry.numbers],
                    )
            if lease is not None and journal is not None:
                self._connection.executemany(
                    "DELETE FROM booked WHERE lease = ? AND call = ?",
                    [(lease.token, number) for number in journal.forgotten()],
                )
            if not self._tidied:
                forget_ended(self._connection, self.database)
                self._tidied = True
        if journal is not None:
            journal.booked([number for entry in entries for number in entry.numbers])

    def standing(self) -> Standing:
        """What was spent today, and what running turns have reserved, in USD."""
        self._take_up()
        with store_errors(), patience(self._connection, _RESERVE_SECONDS):
            return self._standing(self.today())

    def _take_up(self) -> None:
        """Write what is pending, and count what ended processes had begun."""
        if self.pending:
            self.write()
        self.follow()
        with store_errors(), patience(self._connection, _RESERVE_SECONDS):
            settle_ended_processes(self._connection, self.database)

    def _standing(self, day: str, *, but: str = "") -> Standing:
        """The standing of a day without the reservation of `but`."""
        spent, reserved = self._connection.execute(
            f"SELECT (SELECT total(cost) FROM spending WHERE day = ? AND {_SOUND}),"
            " (SELECT total(cost) FROM reserved WHERE day = ? AND holder != ?)",
            (day, day, but),
        ).fetchone()
        return Standing(float(spent), float(reserved))

    def reserve(self, holder: str, cost: float, limit: float) -> Standing:
        """Reserve a part of the budget of the day, if there is room.

        This is one step for all processes, so two turns cannot both take the last of a budget.
        What an ended process had reserved is freed first, and the calls that it had begun count
        as spent.

        Args:
            holder: Who reserves it. A new reservation replaces an earlier one; if there is no
                room, the earlier one stays, since its calls may be running.
            cost: USD to reserve.
            limit: USD of the budget.

        Returns:
            What was spent today, and what others have reserved. The reservation was made if this
            and `cost` are within `limit`.
        """
        day = self.today()
        self._take_up()
        with (
            store_errors(),
            patience(self._connection, _RESERVE_SECONDS),
            immediate(self._connection),
        ):
            tokens = self._connection.execute("SELECT DISTINCT lease FROM reserved").fetchall()
            for (token,) in tokens:
                if not has_lease(self.database, token):
                    self._connection.execute("DELETE FROM reserved WHERE lease = ?", (token,))
            standing = self._standing(day, but=holder)
            if standing.total + cost <= limit:
                self._connection.execute("DELETE FROM reserved WHERE holder = ?", (holder,))
                self._connection.execute(
                    "INSERT INTO reserved VALUES (?, ?, ?, ?)", (holder, self.lease(), day, cost)
                )
        return standing

    def lease(self) -> str:
        """The token of the lease of this process. Raises StoreError if it cannot have one."""
        lease = self.journal(lambda error: None).lease
        if lease is None:
            error = self._no_lease or OSError()
            raise StoreError(f"{error.filename}: {error.strerror}")
        return lease.token

    def release(self, holder: str) -> None:
        """Free what `holder` has reserved."""
        self.follow()
        with store_errors():
            self._connection.execute("DELETE FROM reserved WHERE holder = ?", (holder,))

    def by_month(self) -> list[MonthlySpending]:
        """What each model took in each month: the latest month and its dearest model first."""
        rows = self._rows(
            f"SELECT substr(day, 1, 7) AS month, model, {_SUMS}, total(cost) AS cost"
            f" FROM spending WHERE {_SOUND} GROUP BY month, model"
            " ORDER BY month DESC, cost DESC, prompt_tokens + completion_tokens DESC"
        )
        return [
            MonthlySpending(
                row["month"],
                row["model"],
                row["turns"],
                Usage(**{name: row[name] for name in (*_COUNTS[1:], "cost")}),
            )
            for row in rows
        ]

    def unsound(self) -> int:
        """How many rows hold impossible numbers, and are left out of all sums."""
        [[rows]] = self._rows(f"SELECT count(*) FROM spending WHERE NOT ({_SOUND})")
        return int(rows)

    def turns_by_month(self) -> dict[str, int]:
        """How many turns there were in each month."""
        rows = self._rows(
            "SELECT substr(day, 1, 7), sum(turns) FROM days"
            " WHERE typeof(turns) = 'integer' AND turns BETWEEN 0 AND 1e12 GROUP BY 1"
        )
        return {str(month): int(turns) for month, turns in rows}
