"""Stores the costs of turns, by day and model.

The spending contains no prompts and no answers. It does not change when conversations are deleted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from moa_cli.core.conversation import Usage
from moa_cli.core.errors import StoreError, StoreLocked
from moa_cli.core.ledger import Standing
from moa_cli.store.calls import Journal, SpendingEntry, TurnCalls, journal_for, leave_journal
from moa_cli.store.ended_processes import (
    COUNTS,
    SUMS,
    add_spending,
    count_turns,
    database_of,
    forget_ended,
    settle_ended_processes,
)
from moa_cli.store.schema import Connection, Queries, immediate, patience, store_errors

# The longest time, in seconds, that a turn waits to find out whether the budget of the day has
# room.
_RESERVE_SECONDS = 3.0
# The fields of a usage that the spending does not have.
NOT_SUMMED = tuple(name for name in vars(Usage()) if name not in SUMS)
# The condition for plausible rows. Other rows are left out of sums.
_SOUND = " AND ".join(
    [f"{name} BETWEEN 0 AND 1e12" for name in SUMS]
    + [f"typeof({name}) = 'integer'" for name in COUNTS]
    + ["typeof(cost) IN ('real', 'integer')", "typeof(day) = 'text'", "typeof(model) = 'text'"]
)


@dataclass(frozen=True)
class MonthlySpending:
    """The usage of one model in one month, and the number of turns.

    month: such as `2026-11`, in the time zone of the budget. usage: without the fields in
    `NOT_SUMMED`.
    """

    month: str
    model: str
    turns: int
    usage: Usage


@dataclass(eq=False)
class CallRecorder:
    """Writes the calls of turns into a journal and a store; see `ledger.Ledger`.

    warn: called once with a sentence if something cannot be written. It is tried again with the
    next call. Calls that are not written at the end are in the journal, for the next process. turn:
    returns the number of the running turn in the store, or None.
    """

    _spending: Spending
    _warn: Callable[[str], None]
    _turn: Callable[[], int | None] = lambda: None
    _warned: bool = False

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
            # A turn does not wait for other processes, because the journal has what is pending.
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

    zone: the time zone of the days. broken: why some spending could not be written; then no budget
    can be kept. pending: the entries that `write` has still to write. follow: called before
    anything is written; it changes to the new file if another file has replaced this one.
    """

    def __init__(self, connection: Connection, follow: Callable[[], None]) -> None:
        super().__init__(connection)
        self.zone: tzinfo = UTC
        self.broken: str | None = None
        self.pending: list[SpendingEntry] = []
        self._database = database_of(connection)
        self._follow = follow
        self._turns = 0
        self._journal: Journal | None = None
        self._no_lease: OSError | None = None
        self._tidied = False
        # The second and the zone for which `_today` was computed.
        self._now: tuple[int, tzinfo | None] | None = None
        self._today = ""

    def close(self) -> None:
        """Close the file. The lease of this process ends with its last user."""
        if self._journal is not None:
            leave_journal(self._database, self)
            self._journal = None
        self._connection.close()

    def today(self) -> str:
        """The current day in the time zone, such as `2026-11-28`."""
        # Cached for a second, because this is called for each call of a model.
        known = (int(time.time()), self.zone)
        if known != self._now:
            self._now, self._today = known, datetime.now(self.zone).date().isoformat()
        return self._today

    def journal(self, trouble: Callable[[OSError], None]) -> Journal:
        """The journal of this process. trouble: called if it cannot be written to a file."""
        if self._journal is None:
            try:
                self._journal = journal_for(self._database, self)
            except OSError as error:
                self._journal, self._no_lease = Journal(None), error
                trouble(error)
        return self._journal

    def write(self, turns: int = 0, *, seconds: float | None = None) -> None:
        """Add `turns` to the number of turns, and write everything that is pending. After an error,
        it stays pending.

        seconds: how long to wait for another process that writes; None for the usual time.
        """
        self._turns += turns
        if self._journal is not None:
            self._journal.uncounted(turns, self.today())
        try:
            self._follow()
            with patience(self._connection, seconds):
                self.book(self._turns, self.pending, self._journal)
        except StoreLocked:
            raise
        except StoreError as error:
            self.broken = error.message
            raise
        if self._journal is not None:
            self._journal.uncounted(-self._turns, self.today())
        self._turns, self.pending, self.broken = 0, [], None

    def book(self, turns: int, entries: Sequence[SpendingEntry], journal: Journal | None) -> None:
        """Write turns and calls in one transaction. The journal is told that they are written."""
        lease = journal.lease if journal is not None else None
        if journal is not None:
            # First, so that a kill in between leaves no estimate of a call that is counted as told.
            journal.write_held()
        numbers = [number for entry in entries for number in entry.numbers]
        self._follow()
        with store_errors(), immediate(self._connection):
            if turns:
                count_turns(self._connection, self.today(), turns)
            add_spending(self._connection, entries)
            if lease is not None and journal is not None:
                # One statement for all numbers. Between two statements, the writing thread may have
                # to wait for the event loop of a server, which takes longer than the statement.
                self._connection.execute(
                    "INSERT INTO booked SELECT ?, value FROM json_each(?)",
                    (lease.token, json.dumps(numbers)),
                )
                self._connection.execute(
                    "DELETE FROM booked WHERE lease = ?"
                    " AND call IN (SELECT value FROM json_each(?))",
                    (lease.token, json.dumps(journal.forgotten())),
                )
            if not self._tidied:
                forget_ended(self._connection, self._database)
                self._tidied = True
        if journal is not None:
            journal.booked(numbers)

    def standing(self, *, key: str = "") -> Standing:
        """The USD that were spent today, and that running turns have reserved.

        key: only the spending for that key of `moa serve`.
        """
        with self._settled() as connection:
            return self._standing(connection, self.today(), key=key)

    @contextmanager
    def _settled(self) -> Iterator[Connection]:
        """Yield the connection, after everything that is pending, or that ended processes left, is
        written."""
        if self.pending:
            self.write()
        self._follow()
        with store_errors(), patience(self._connection, _RESERVE_SECONDS):
            settle_ended_processes(self._connection, self._database)
            yield self._connection

    def _standing(
        self, connection: Connection, day: str, *, but: str = "", key: str = ""
    ) -> Standing:
        """The standing of a day. but: a holder whose reservation does not count. key: see
        `standing`."""
        whole = f"SELECT total(cost) FROM spending WHERE day = ? AND {_SOUND}"
        of_key = (
            "SELECT total(cost) FROM key_spending WHERE day = ? AND key = ?"
            " AND cost BETWEEN 0 AND 1e12"
        )
        spent, reserved = connection.execute(
            f"SELECT ({of_key if key else whole}),"
            " (SELECT total(cost) FROM reserved WHERE day = ? AND key = ? AND holder != ?)",
            (*((day, key) if key else (day,)), day, key, but),
        ).fetchone()
        return Standing(float(spent), float(reserved))

    def reserve(self, holder: str, cost: float, limit: float, *, key: str = "") -> Standing:
        """Reserve a part of the budget of the day (`limit`), if there is room; all are USD.

        This is one step for all processes, so two turns cannot both take the rest of a budget. The
        reservations of ended processes are freed first, and the calls that they had begun count as
        spent. A new reservation of `holder` replaces an earlier one. If there is no room, the
        earlier one stays, because its calls may be running. Returns what was spent today, and what
        others have reserved. The reservation was made if this and `cost` are within `limit`.

        key: use the budget of this key of `moa serve`. Then only its spending counts.
        """
        day = self.today()
        with self._settled() as connection, immediate(connection):
            standing = self._standing(connection, day, but=holder, key=key)
            if standing.total + cost <= limit:
                connection.execute("DELETE FROM reserved WHERE holder = ?", (holder,))
                connection.execute(
                    "INSERT INTO reserved VALUES (?, ?, ?, ?, ?)",
                    (holder, self.lease(), day, cost, key),
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
        self._follow()
        with store_errors():
            self._connection.execute("DELETE FROM reserved WHERE holder = ?", (holder,))

    def by_month(self) -> list[MonthlySpending]:
        """The spending of each model in each month. The latest month comes first, and in each month
        the most expensive model."""
        rows = self._rows(
            f"SELECT substr(day, 1, 7) AS month, model,"
            f" {', '.join(f'sum({name}) AS {name}' for name in SUMS)}"
            f" FROM spending WHERE {_SOUND} GROUP BY month, model"
            " ORDER BY month DESC, cost DESC, prompt_tokens + completion_tokens DESC"
        )
        return [
            MonthlySpending(month, model, turns, Usage(**dict(zip(SUMS[1:], sums, strict=True))))
            for month, model, turns, *sums in rows
        ]

    def unsound(self) -> int:
        """How many rows have impossible numbers, and are left out of all sums."""
        [[rows]] = self._rows(f"SELECT count(*) FROM spending WHERE NOT ({_SOUND})")
        return int(rows)

    def turns_by_month(self) -> dict[str, int]:
        """How many turns there were in each month."""
        rows = self._rows(
            "SELECT substr(day, 1, 7), sum(turns) FROM days"
            " WHERE typeof(turns) = 'integer' AND turns BETWEEN 0 AND 1e12 GROUP BY 1"
        )
        return {str(month): int(turns) for month, turns in rows}
