"""What bounds a whole run: how many calls are in flight, and whose turn it is."""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from moa_cli.engine.slots import Place

# Order of the item, number of the call, provider, and what is set when it is admitted.
_Waiter = tuple[int, int, str, asyncio.Future[None]]


class CallLimiter:
    """Admits calls, those of older items first, so that items end one after another.

    limit: calls in flight at once. per_provider: the same for each provider; None is no limit.
    provider_of: the provider of a model's name.
    """

    def __init__(
        self, limit: int, per_provider: int | None, provider_of: Callable[[str], str]
    ) -> None:
        self._limit = limit
        self._per_provider = per_provider or limit
        self._provider_of = provider_of
        self._in_flight: Counter[str] = Counter()
        self._waiting: list[_Waiter] = []
        self._number = 0
        # Until when, by the monotonic clock.
        self._held: dict[str, float] = {}

    @property
    def in_flight(self) -> int:
        return self._in_flight.total()

    @property
    def held(self) -> float:
        """Seconds for which the longest held provider is to be left alone still."""
        now = time.monotonic()
        return max((until - now for until in self._held.values()), default=0.0)

    def delay(self, model: str) -> float:
        """Seconds for which that model's provider is to be left alone still."""
        until = self._held.get(self._provider_of(model), 0.0)
        return max(0.0, until - time.monotonic())

    def hold(self, model: str, seconds: float) -> None:
        """Admit no call to that model's provider for so long."""
        provider, until = self._provider_of(model), time.monotonic() + seconds
        if until > self._held.get(provider, 0.0):
            self._held[provider] = until
            asyncio.get_running_loop().call_later(seconds, self._let_go, provider, until)

    def _let_go(self, provider: str, until: float) -> None:
        if self._held.get(provider) == until:
            del self._held[provider]
            self._admit()

    @asynccontextmanager
    async def enter(self, order: int, model: str) -> AsyncGenerator[Place, None]:
        """While inside, the call is in flight."""
        provider = self._provider_of(model)
        self._number += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (order, self._number, provider, future)
        insort(self._waiting, waiter)
        self._admit()
        try:
            await future
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not future.cancelled():
                self._leave(provider)
            raise
        try:
            yield _Held(self, model)
        finally:
            self._leave(provider)

    def _leave(self, provider: str) -> None:
        self._in_flight[provider] -= 1
        self._admit()

    def _admit(self) -> None:
        for waiter in list(self._waiting):
            if self.in_flight >= self._limit:
                return
            _, _, provider, future = waiter
            full = self._in_flight[provider] >= self._per_provider
            if not full and provider not in self._held:
                self._waiting.remove(waiter)
                if not future.cancelled():
                    self._in_flight[provider] += 1
                    future.set_result(None)


@dataclass(frozen=True)
class ItemSlots:
    """The way in for one item's calls; see `engine.slots.Slots`.

    order: its place, the lowest first.
    """

    limiter: CallLimiter
    order: int

    def slot(self, model: str) -> AbstractAsyncContextManager[Place, bool | None]:
        return self.limiter.enter(self.order, model)

    def delay(self, model: str) -> float:
        return self.limiter.delay(model)


@dataclass(frozen=True)
class _Held:
    """The place of a call; see `engine.slots.Place`."""

    limiter: CallLimiter
    model: str

    def accepted(self) -> None:
        """Nothing changes by it."""

    def refused(self, retry_after: float | None) -> None:
        if retry_after:
            self.limiter.hold(self.model, retry_after)
