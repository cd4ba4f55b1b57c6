"""How many turns may run at once, and how many may wait for that."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from moa_cli.server.errors import busy, stopping

_LONGEST_WAIT = 60
# How much one turn counts in the moving average of their seconds.
_WEIGHT = 0.1


class TurnLimiter:
    """Lets `limit` turns run at once, and `queue` more wait: first come, first served."""

    def __init__(self, limit: int, queue: int) -> None:
        self._limit = limit
        self._queue = queue
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._seconds = 1.0
        self._closed = False
        self.running = 0

    @property
    def waiting(self) -> int:
        """Turns in the queue."""
        return len(self._waiting)

    def check(self) -> None:
        """Raise ApiError if a turn that came now would be refused."""
        if self._closed:
            raise stopping()
        if self.running >= self._limit and len(self._waiting) >= self._queue:
            raise busy(self._retry_after())

    def _retry_after(self) -> int:
        """Seconds until there is room, by the time that turns took so far."""
        rounds = (len(self._waiting) + 1) / self._limit
        return max(1, min(_LONGEST_WAIT, math.ceil(rounds * self._seconds)))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a turn may run, and hold its place. Raises ApiError if it may not."""
        self.check()
        if self.running < self._limit:
            self.running += 1
        else:
            await self._wait()
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds += _WEIGHT * (time.monotonic() - began - self._seconds)
            self._leave()

    async def _wait(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                # It was given the place in the same moment.
                self._leave()
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def _leave(self) -> None:
        """Hand the place of a turn to the first that waits."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1

    def close(self) -> None:
        """Let no more turns begin; those that wait are refused."""
        self._closed = True
        waiting, self._waiting = self._waiting, deque()
        for place in waiting:
            if not place.done():
                place.set_exception(stopping())
