"""What was spent, by day and model; no words, and kept when conversations are deleted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from moa_cli.core.conversation import Usage
from moa_cli.core.errors import StoreError, StoreLocked
from moa_cli.core.ledger import Standing
from moa_cli.store.absorb import absorb, add_booking, database_of, forget_ended
from moa_cli.store.calls import Booking, Journal, TurnCalls, journal_for, leave_journal
from moa_cli.store.lease import has_lease
from moa_cli.store.schema import immediate, patience, store_errors

# A turn waits no longer than that to learn whether the day's budget has room.
_RESERVE_SECONDS = 3.0
_COUNTS = (
    "turns",
    "calls",
    "prompt_tokens",
    "completion_tokens",
    "estimated_calls",
    "unpriced_calls",
)
# What makes sense in a row: others are left out of sums, which they would spoil.
_SOUND = " AND ".join(
    [
        *(f"typeof({name}) = 'integer' AND {name} BETWEEN 0 AND 1e12" for name in _COUNTS),
        "typeof(cost) IN ('real', 'integer') AND cost BETWEEN 0 AND 1e12",
    ]
)


@dataclass(frozen=True)
class Spent:
    """What one model took in one month. month: `2026-11`, in the zone of the budget.

    turns: how many it took part in.
    """

    month: str
    model: str
    turns: int
    usage: Usage


class CallBook:
    """Writes the calls of turns into a journal and a store; see `ledger.Ledger`.

    turn: the number, in the store, of the turn that runs, if it is kept there.
    warn: called once, with a sentence, if something cannot be written; it is tried again with
    the next call, and what is left at the end stands in the journal for the next process.
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
        """One more turn."""
        spending = self._spending
        journal = spending.journal(self._trouble)
        self._write(turns=1)
        return TurnCalls(journal, spending.today, self._ended, self._trouble, self._turn)

    def _ended(self, booking: Booking) -> None:
        self._spending.pending.append(booking)
        self._write()

    def _write(self, turns: int = 0) -> None:
        try:
            # A turn does not wait for other processes: what is pending stands in the journal.
            self._spending.write(turns, seconds=0.0)
        except StoreLocked:
            pass
        except StoreError as error:
            self._tell(error.message)

    def _trouble(self, error: OSError) -> None:
        """A line of the journal cannot be written."""
        why = f"{error.filename or 'the journal'}: {error.strerror}"
        self._spending.broken = why
        self._tell(why)

    def _tell(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"the cost of this turn cannot be recorded: {why}")


class Spending:
    """The ledger of all turns, in the file of a store.

    zone: whose days they are. broken: why something that was spent could not be written down;
    then no budget can be kept. pending: what is not written down yet, for `write`. follow: called
    before anything is written, to go on with the file that stands in the place of this one.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.database = database_of(connection)
        self.zone: tzinfo = UTC
        self.broken: str | None = None
        self.pending: list[Booking] = []
        self.follow: Callable[[], None] = lambda: None
        self._turns = 0
        self._journal: Journal | None = None
        self._no_lease: OSError | None = None
        self._tidied = False

    def use(self, connection: sqlite3.Connection) -> None:
        """Go on with another file, as the store does."""
        self._connection = connection

    def close(self) -> None:
        """Give the file back."""
        self.leave()
        self._connection.close()

    def leave(self) -> None:
        """Nothing more is written here: this process's lease ends with the last that uses it."""
        if self._journal is not None:
            leave_journal(self.database, self)
            self._journal = None

    def today(self) -> str:
        """The day now, in the zone."""
        return datetime.now(self.zone).date().isoformat()

    def journal(self, trouble: Callable[[OSError], None]) -> Journal:
        """This process's journal. trouble: told why there is none that outlives it, if so."""
        if self._journal is None:
            try:
                self._journal = journal_for(self.database, self)
            except OSError as error:
                self._journal, self._no_lease = Journal(None), error
                trouble(error)
        return self._journal

    def write(self, turns: int = 0, *, seconds: float | None = None) -> None:
        """Write down so many more turns, and all that is pending. Raises StoreError, and holds on
        to it then. seconds: how long to wait while another process writes, if not as long as
        all else does."""
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

    def book(self, turns: int, bookings: Sequence[Booking], journal: Journal | None) -> None:
        """So many more turns, and calls that have ended, in one transaction. Raises StoreError.

        journal: where the calls stand, which is told that they are in the database now.
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
            for booking in bookings:
                add_booking(self._connection, booking)
                if lease is not None:
                    self._connection.executemany(
                        "INSERT INTO booked VALUES (?, ?)",
                        [(lease.token, number) for number in booking.numbers],
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
            journal.booked([number for booking in bookings for number in booking.numbers])

    def standing(self) -> Standing:
        """What was spent today, and is reserved by turns that run, in USD."""
        self._take_up()
        with store_errors(), patience(self._connection, _RESERVE_SECONDS):
            return self._standing(self.today())

    def _take_up(self) -> None:
        """Write what is pending, and count what processes that have ended had begun."""
        if self.pending:
            self.write()
        self.follow()
        with store_errors(), patience(self._connection, _RESERVE_SECONDS):
            absorb(self._connection, self.database)

    def _standing(self, day: str, *, but: str = "") -> Standing:
        """but: whose reservation does not count."""
        spent, reserved = self._connection.execute(
            f"SELECT (SELECT total(cost) FROM spending WHERE day = ? AND {_SOUND}),"  # noqa: S608
            " (SELECT total(cost) FROM reserved WHERE day = ? AND holder != ?)",
            (day, day, but),
        ).fetchone()
        return Standing(float(spent), float(reserved))

    def reserve(self, holder: str, cost: float, limit: float) -> Standing:
        """What was spent today, and is reserved by other turns that run, in USD; if that leaves
        room for `cost` within `limit`, that is reserved for `holder` in place of what it held,
        which stays reserved if it does not: its calls may be running.

        One step for all processes: two turns cannot both take the last of a budget. What a
        process that has ended had reserved is free again, and what it had begun is spent.
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
        """The token of this process's lease. Raises StoreError if it can have none."""
        lease = self.journal(lambda error: None).lease
        if lease is None:
            error = self._no_lease or OSError()
            raise StoreError(f"{error.filename}: {error.strerror}")
        return lease.token

    def release(self, holder: str) -> None:
        """Give back what `holder` had reserved."""
        self.follow()
        with store_errors():
            self._connection.execute("DELETE FROM reserved WHERE holder = ?", (holder,))

    def by_month(self) -> list[Spent]:
        """What each model took in each month, the latest month first, the dearest model first."""
        with store_errors():
            rows = self._connection.execute(
                "SELECT substr(day, 1, 7) AS month, model, sum(turns) AS turns,"  # noqa: S608
                " sum(calls) AS calls, sum(prompt_tokens) AS prompt_tokens,"
                " sum(completion_tokens) AS completion_tokens,"
                " sum(estimated_calls) AS estimated_calls,"
                " sum(unpriced_calls) AS unpriced_calls, total(cost) AS cost"
                f" FROM spending WHERE {_SOUND} GROUP BY month, model"
                " ORDER BY month DESC, cost DESC, prompt_tokens + completion_tokens DESC"
            ).fetchall()
        return [_spent(row) for row in rows]

    def unsound(self) -> int:
        """How many rows hold what is no count or no amount, and are left out of all sums."""
        with store_errors():
            (rows,) = self._connection.execute(
                f"SELECT count(*) FROM spending WHERE NOT ({_SOUND})"  # noqa: S608
            ).fetchone()
        return int(rows)

    def turns_by_month(self) -> dict[str, int]:
        """How many turns there were in each month."""
        with store_errors():
            rows = self._connection.execute(
                "SELECT substr(day, 1, 7), sum(turns) FROM days"
                " WHERE typeof(turns) = 'integer' AND turns BETWEEN 0 AND 1e12 GROUP BY 1"
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
