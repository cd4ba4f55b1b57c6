"""Records the cost of a server's turns in the background, so that turns never wait for it."""

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

# Seconds between two transactions, so that a busy server writes many turns with each. The pause is
# longer after a transaction with at least `_MANY` turns and entries, unless there is a budget.
_PAUSE_SECONDS = 0.02
_BUSY_PAUSE_SECONDS, _MANY = 0.2, 16
_BOOKING_SECONDS = 1.0


class ServerLedger:
    """The ledger of a server's turns; see `ledger.Ledger` and `ledger.DaySpending`.

    A line of the journal is written at once. A separate thread with its own connection writes to
    the database, many turns at once on a busy server. A failed write is tried again with the next
    call; `warn` is called once.

    spending: the sums in the store, read on the event loop for the day's budget; None if costs are
    not recorded.
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
        # Whether there is a budget. Then other processes need the current sums, so entries are
        # written sooner.
        self._has_budget = False
        # Held while the thread writes entries and removes them from `_unwritten`. Between these two
        # steps the entries would count twice.
        self._booking = threading.Lock()

    @property
    def broken(self) -> str | None:
        """Why a cost could not be recorded, or None."""
        return self._trouble or (self._spending.broken if self._spending else None)

    def use_zone(self, zone: tzinfo) -> None:
        """Use this time zone for the begin and end of days from now on."""
        if self._spending is not None:
            self._spending.zone = zone
        if self._store is not None:
            self._store.spending.zone = zone

    def of_key(self, name: str) -> KeyLedger:
        """The ledger of the turns of a named key."""
        return KeyLedger(self, name)

    def standing(self, *, key: str = "") -> Standing:
        """See `Spending.standing`; includes entries that are not written yet."""
        if self._spending is None:
            return Standing(0.0)
        with self._settled():
            standing = self._spending.standing(key=key)
            unwritten = self._unwritten_cost(self._spending, key)
        return Standing(standing.spent + unwritten, standing.reserved)

    def reserve(self, holder: str, cost: float, limit: float, *, key: str = "") -> Standing:
        """See `Spending.reserve`; includes entries that are not written yet."""
        if self._spending is None:
            return Standing(0.0)
        self._has_budget = True
        with self._settled():
            unwritten = self._unwritten_cost(self._spending, key)
            standing = self._spending.reserve(holder, cost, limit - unwritten, key=key)
        return Standing(standing.spent + unwritten, standing.reserved)

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """Wait until no entry is being written, and prevent writing while inside. It waits no
        longer than a reservation waits for the database. After that, calls may count twice, which
        is better than not at all."""
        held = self._booking.acquire(timeout=_BOOKING_SECONDS)
        try:
            yield
        finally:
            if held:
                self._booking.release()

    def _unwritten_cost(self, spending: Spending, key: str) -> float:
        """USD of today's calls that are not written yet. key: count only calls of this key, if not
        ""."""
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
        """The calls of a new turn. key: the name of the client's key, or ""."""
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
        """Note that a line of the journal cannot be written."""
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
        """Write to the database, in the ledger's own thread, because the connection belongs to that
        thread."""
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
        if self._turns and self._spending is not None:
            self._journal.uncounted(self._turns, self._spending.today())
        if self._store is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()


@dataclass(frozen=True)
class KeyLedger:
    """The ledger of the turns of one named key; see `ledger.Ledger` and `ledger.DaySpending`.

    All of its costs are also in the server's ledger, so that the day's budget covers all keys.
    """

    _ledger: ServerLedger
    _key: str

    @property
    def broken(self) -> str | None:
        """See `DaySpending.broken`."""
        return self._ledger.broken

    def begin_turn(self) -> TurnCalls:
        """The calls of a new turn."""
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
