"""What the turns of a server cost, written down beside them and never in their way."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import tzinfo

from moa_cli.core.errors import StoreError
from moa_cli.core.ledger import Standing
from moa_cli.store.calls import Journal, SpendingEntry, TurnCalls
from moa_cli.store.spending import Spending
from moa_cli.store.store import Store

# Between two transactions, so that a busy server writes many turns with each; and behind one of so
# many turns and calls, or more.
_PAUSE_SECONDS = 0.02
_BUSY_PAUSE_SECONDS, _MANY = 0.2, 16
_BOOKING_SECONDS = 1.0


class ServerLedger:
    """The ledger of a server's turns; see `ledger.Ledger` and `ledger.DaySpending`.

    A line of the journal is written at once. What is added to the database goes through a
    connection and a thread of its own, many turns together when there are many. What cannot be
    written is tried again with the next call; `warn` is told once.

    spending: the store's sums, read on the event loop for the day's budget. None: nothing is kept.
    """

    def __init__(self, spending: Spending | None, warn: Callable[[str], None]) -> None:
        self._spending = spending
        self._warn = warn
        self._trouble: str | None = None
        self._journal = Journal(None) if spending is None else spending.journal(self._unwritable)
        self._turns = 0
        self._entries: list[SpendingEntry] = []
        self._writing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._store: Store | None = None
        self._unwritten: deque[SpendingEntry] = deque()
        # Whether a budget is kept: other processes may look at what is left of it.
        self._has_budget = False
        # Held while the thread writes entries and takes them out of those that are not written: in
        # between, they would count twice.
        self._booking = threading.Lock()

    @property
    def broken(self) -> str | None:
        """Why something that was spent could not be written down, or None."""
        return self._trouble or (self._spending.broken if self._spending else None)

    def use_zone(self, zone: tzinfo) -> None:
        """Let days begin and end in that time zone from now on."""
        if self._spending is not None:
            self._spending.zone = zone
        if self._store is not None:
            self._store.spending.zone = zone

    def of_key(self, name: str) -> KeyLedger:
        """The ledger of the turns of a named key."""
        return KeyLedger(self, name)

    def standing(self, *, key: str = "") -> Standing:
        """See `Spending.standing`; what is not written yet is counted."""
        if self._spending is None:
            return Standing(0.0)
        with self._settled():
            standing = self._spending.standing(key=key)
            unwritten = self._unwritten_cost(self._spending, key)
        return Standing(standing.spent + unwritten, standing.reserved)

    def reserve(self, holder: str, cost: float, limit: float, *, key: str = "") -> Standing:
        """See `Spending.reserve`; what is not written yet is counted."""
        if self._spending is None:
            return Standing(0.0)
        self._has_budget = True
        with self._settled():
            unwritten = self._unwritten_cost(self._spending, key)
            standing = self._spending.reserve(holder, cost, limit - unwritten, key=key)
        return Standing(standing.spent + unwritten, standing.reserved)

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """While no entry is being written. Not waited for longer than a reservation itself waits
        for the database, so that calls count twice rather than not at all."""
        held = self._booking.acquire(timeout=_BOOKING_SECONDS)
        try:
            yield
        finally:
            if held:
                self._booking.release()

    def _unwritten_cost(self, spending: Spending, key: str) -> float:
        """USD of today's calls that are not written yet. key: only of that one's, if not ""."""
        today = spending.today()
        return sum(
            call.usage.cost
            for call in tuple(self._unwritten)
            if call.day == today and key in ("", call.key)
        )

    def release(self, holder: str) -> None:
        """See `Spending.release`."""
        if self._spending is not None:
            self._spending.release(holder)

    def begin_turn(self, *, key: str = "") -> TurnCalls:
        """One more turn. key: the name of the key that it is made for, or ""."""
        if self._spending is None:
            return TurnCalls(self._journal, str, self._ended, self._unwritable, key=key)
        self._turns += 1
        self._begin_writing()
        today = self._spending.today
        return TurnCalls(self._journal, today, self._ended, self._unwritable, key=key)

    def _ended(self, entry: SpendingEntry) -> None:
        if self._spending is None:
            self._journal.booked(entry.numbers)
            return
        self._unwritten.append(entry)
        self._entries.append(entry)
        self._begin_writing()

    def _unwritable(self, error: OSError) -> None:
        """A line of the journal cannot be written."""
        self._broke(f"{error.filename or 'the journal'}: {error.strerror}")

    def _broke(self, why: str) -> None:
        if self._trouble is None:
            self._warn(f"the cost of turns cannot be recorded: {why}")
        self._trouble = why

    def _begin_writing(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._turns or self._entries:
            turns, self._turns = self._turns, 0
            entries, self._entries = self._entries, []
            try:
                await loop.run_in_executor(self._thread, self._write, turns, entries)
            except StoreError as error:
                self._turns += turns
                self._entries = entries + self._entries
                self._broke(error.message)
                return
            self._trouble = None
            is_busy = turns + len(entries) >= _MANY and not self._has_budget
            await asyncio.sleep(_BUSY_PAUSE_SECONDS if is_busy else _PAUSE_SECONDS)

    def _write(self, turns: int, entries: list[SpendingEntry]) -> None:
        """In the thread of its own, which its connection belongs to."""
        if self._store is None:
            self._store = Store.open()
            if self._spending is not None:
                self._store.spending.zone = self._spending.zone
        with self._booking:
            self._store.spending.book(turns, entries, self._journal)
            for _ in entries:
                self._unwritten.popleft()

    async def aclose(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        if self._turns or self._entries:
            await self._write_all()
        if self._store is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()


@dataclass(frozen=True)
class KeyLedger:
    """The ledger of the turns of one named key; see `ledger.Ledger` and `ledger.DaySpending`.

    All of it is in the server's ledger too, so that the budget of the day holds over all keys.
    """

    _ledger: ServerLedger
    _key: str

    @property
    def broken(self) -> str | None:
        """See `DaySpending.broken`."""
        return self._ledger.broken

    def begin_turn(self) -> TurnCalls:
        """One more turn."""
        return self._ledger.begin_turn(key=self._key)

    def standing(self) -> Standing:
        """See `DaySpending.standing`."""
        return self._ledger.standing(key=self._key)

    def reserve(self, holder: str, cost: float, limit: float) -> Standing:
        """See `DaySpending.reserve`."""
        return self._ledger.reserve(holder, cost, limit, key=self._key)

    def release(self, holder: str) -> None:
        """See `DaySpending.release`."""
        self._ledger.release(holder)
