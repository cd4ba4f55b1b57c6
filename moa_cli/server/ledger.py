"""What the turns of a server cost, written down beside them and never in their way."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from moa_cli.core.errors import StoreError
from moa_cli.core.ledger import Standing
from moa_cli.store.calls import Journal, SpendingEntry, TurnCalls
from moa_cli.store.spending import Spending
from moa_cli.store.store import Store

# Between two transactions, so that a busy server writes many turns with each.
_PAUSE_SECONDS = 0.02
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
        # Held while the thread writes entries and takes them out of those that are not written: in
        # between, they would count twice.
        self._booking = threading.Lock()

    @property
    def broken(self) -> str | None:
        """Why something that was spent could not be written down, or None."""
        return self._trouble or (self._spending.broken if self._spending else None)

    def standing(self) -> Standing:
        """See `Spending.standing`; what is not written yet is counted."""
        if self._spending is None:
            return Standing(0.0)
        with self._settled():
            standing = self._spending.standing()
            unwritten = self._unwritten_cost(self._spending)
        return Standing(standing.spent + unwritten, standing.reserved)

    def reserve(self, holder: str, cost: float, limit: float) -> Standing:
        """See `Spending.reserve`; what is not written yet is counted."""
        if self._spending is None:
            return Standing(0.0)
        with self._settled():
            unwritten = self._unwritten_cost(self._spending)
            standing = self._spending.reserve(holder, cost, limit - unwritten)
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

    def _unwritten_cost(self, spending: Spending) -> float:
        """USD of today's calls that are not written yet."""
        today = spending.today()
        return sum(call.usage.cost for call in tuple(self._unwritten) if call.day == today)

    def release(self, holder: str) -> None:
        """See `Spending.release`."""
        if self._spending is not None:
            self._spending.release(holder)

    def begin_turn(self) -> TurnCalls:
        """One more turn."""
        if self._spending is None:
            return TurnCalls(self._journal, str, self._ended, self._unwritable)
        self._turns += 1
        self._begin_writing()
        return TurnCalls(self._journal, self._spending.today, self._ended, self._unwritable)

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
            await asyncio.sleep(_PAUSE_SECONDS)

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
