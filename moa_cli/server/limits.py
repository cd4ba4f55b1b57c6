"""Limits how many turns run at once, and how many may wait."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from moa_cli.core.text import plural
from moa_cli.server.errors import ApiError, stopping, too_many
from moa_cli.server.keys import ClientKey

_MINUTE = 60.0
_LONGEST_WAIT = 60
# The weight of one turn in the moving average of the turns' seconds.
_WEIGHT = 0.1


class KeyLimiter:
    """Limits the turns of each named key: at the same time, and in any minute.

    Turns are counted by the key's name, so that a key can be replaced, or its limits changed, while
    turns run.
    """

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()
        self._began: dict[str, deque[float]] = {}

    def check(self, key: ClientKey) -> None:
        """Raise ApiError if a turn for that key would be refused now."""
        name, settings = key.name, key.settings
        if name is None:
            return
        if settings.concurrency is not None and self._running[name] >= settings.concurrency:
            turns = f"{plural(settings.concurrency, 'turn')} at the same time"
            raise _key_limit(name, turns, "concurrency", 1)
        began, now = self._began.get(name, deque()), time.monotonic()
        while began and began[0] <= now - _MINUTE:
            began.popleft()
        if settings.rpm is not None and len(began) >= settings.rpm:
            # The limit may have been lowered, so more turns than allowed may have begun. Wait until
            # enough of them are older than a minute.
            seconds = began[len(began) - settings.rpm] + _MINUTE - now
            turns = f"{plural(settings.rpm, 'turn')} in any minute"
            raise _key_limit(name, turns, "rpm", max(1, math.ceil(seconds)))

    @contextmanager
    def turn(self, key: ClientKey) -> Iterator[None]:
        """Count a turn, from now to its end. Raises ApiError if it is refused."""
        self.check(key)
        name = key.name
        if name is None:
            yield
            return
        if key.settings.rpm is not None:
            self._began.setdefault(name, deque()).append(time.monotonic())
        self._running[name] += 1
        try:
            yield
        finally:
            self._running[name] -= 1


def _key_limit(name: str, limit: str, setting: str, seconds: int) -> ApiError:
    message = f"the key `{name}` may have {limit} (server.keys.{name}.{setting})"
    return too_many(message, "key_limit_exceeded", seconds)


class TurnLimiter:
    """Lets `limit` turns run at once and `queue` more wait, in the order of arrival."""

    def __init__(self, limit: int, queue: int) -> None:
        self._limit = limit
        self._queue = queue
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._seconds = 1.0
        self.running = 0
        # Whether no more turns may begin.
        self.closed = False

    @property
    def waiting(self) -> int:
        """Turns in the queue."""
        return len(self._waiting)

    def check(self) -> None:
        """Raise ApiError if a turn that arrived now would be refused."""
        if self.closed:
            raise stopping()
        if self.running >= self._limit and len(self._waiting) >= self._queue:
            # Estimate when there will be room, from the average time of turns so far.
            rounds = (len(self._waiting) + 1) / self._limit
            seconds = max(1, min(_LONGEST_WAIT, math.ceil(rounds * self._seconds)))
            raise too_many("too many requests are waiting; try again later", "server_busy", seconds)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a turn may run, and hold its place. Raises ApiError if the turn is refused."""
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
                # The place was handed over just before the cancellation, so it is passed on.
                self._leave()
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def _leave(self) -> None:
        """Hand the place of a turn to the first waiting turn."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1

    def close(self) -> None:
        """Let no more turns begin; waiting turns are refused."""
        self.closed = True
        waiting, self._waiting = self._waiting, deque()
        for place in waiting:
            if not place.done():
                place.set_exception(stopping())
