"""What the turns of a server cost, written down beside them and never in their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from moa_cli.conversation import Charge
from moa_cli.engine import Cap
from moa_cli.errors import StoreError
from moa_cli.store import LedgerTail, Spending, Store

__all__ = ["Account", "Books"]


class Books:
    """The ledger of a server's turns.

    spending: read on the event loop, for the day's budget; None keeps no books. What is written
    goes through a connection and a thread of its own, many turns at once when there are many.
    What cannot be written is tried again with the next call; warn is told of it.
    """

    def __init__(self, spending: Spending | None, warn: Callable[[str], None]) -> None:
        self._spending = spending
        self._warn = warn
        self._trouble: str | None = None
        self._turns = 0
        self._charges: list[tuple[Charge, bool]] = []
        self._writing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="books")
        self._store: Store | None = None
        self._unwritten = 0.0
        self._session = 0.0

    @property
    def broken(self) -> str | None:
        """Why something that was spent could not be written down, or None."""
        return self._trouble or (self._spending.broken if self._spending else None)

    def reserve(self, holder: str, cost: float, limit: float) -> float:
        """See `Spending.reserve`; what is not written yet is counted."""
        if self._spending is None:
            return 0.0
        unwritten = self._unwritten
        return self._spending.reserve(holder, cost, limit - unwritten) + unwritten

    def release(self, holder: str) -> None:
        """See `Spending.release`."""
        if self._spending is not None:
            self._spending.release(holder)

    def session_cap(self, name: str, limit: float) -> Cap:
        """A limit, in USD, on all turns of this server together."""
        return Cap.shared_cost(name, limit, lambda: self._session)

    def begin_turn(self) -> Account:
        """One more turn."""
        if self._spending is not None:
            self._turns += 1
            self._begin_writing()
        return Account(self)

    def add(self, charge: Charge, *, first: bool) -> None:
        """A call has ended. first: whether it is its model's first of the turn."""
        self._session += charge.usage.cost
        if self._spending is not None:
            self._unwritten += charge.usage.cost
            self._charges.append((charge, first))
            self._begin_writing()

    def _begin_writing(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._turns or self._charges:
            turns, self._turns = self._turns, 0
            charges, self._charges = self._charges, []
            try:
                await loop.run_in_executor(self._thread, self._write, turns, charges)
            except StoreError as error:
                self._turns += turns
                self._charges = charges + self._charges
                if self._trouble is None:
                    self._warn(f"what turns cost is not kept: {error.message}")
                self._trouble = error.message
                return
            self._trouble = None
            self._unwritten = sum(charge.usage.cost for charge, _ in self._charges)

    def _write(self, turns: int, charges: list[tuple[Charge, bool]]) -> None:
        """In the thread of its own, which its connection belongs to."""
        if self._store is None:
            self._store = Store.open()
        self._store.spending.add_all(turns, charges)

    async def aclose(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        if self._store is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()


class Account:
    """What one turn takes, as its ledger grows."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._ledger = LedgerTail()

    def follow(self, ledger: list[Charge]) -> None:
        """Write down what is new in a turn's ledger."""
        for charge, first in self._ledger.new_in(ledger):
            self._books.add(charge, first=first)
