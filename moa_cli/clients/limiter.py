"""The limiter: how many calls a process may have in flight, and which call is next.

All calls of a process go through one limiter, from any turn, thread or event loop, because a
provider counts them together, too. The limiter bounds the calls in flight of the process
(`--concurrency`) and of each provider (`moa_cli.clients.window`). Calls of earlier turns go first,
so that turns end one after another and no running turn waits for a new one. Calls of the same turn
go in the order in which they arrive.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Self

from moa_cli.clients.learned_limits import keep_learned, load_learned
from moa_cli.clients.window import Learned, Window
from moa_cli.core.text import plural
from moa_cli.models.table import Provider

# Seconds between two writes of the learned limits to disk while a provider always has calls in
# flight.
_KEPT_EVERY = 60.0
# If a provider with a limit of requests a minute opens later than this many seconds, that limit is
# reported as the reason: a call counts as taken within this time at the latest.
_SOON = 2.0
_NOTHING = Learned(0)
# Seconds after which earlier silence of a model is forgotten, so that the full time is waited for
# it again.
_SILENCE_KEPT = 300.0


class Limiter:
    """Admits the calls of a process.

    Times are those of the monotonic clock. Everything but `LanePlace.__aenter__` runs under a lock
    and never waits for a call. limit: most calls in flight at once. per_provider: the same for each
    provider whose settings have no limit. in_flight: calls that are in flight now.
    """

    def __init__(self, limit: int, *, per_provider: int | None = None) -> None:
        self._limit = limit
        self._per_provider = per_provider
        # The key holds everything that changes a provider's limits.
        self._lanes: dict[tuple[object, ...], Lane] = {}
        self.in_flight = 0
        # By model: how many requests in a row were given up before their first word, and the time
        # of the first of them.
        self._silences: dict[str, tuple[int, float]] = {}
        # By model: the most seconds to a first word.
        self._slowest: dict[str, float] = {}
        self._calls, self._turns = count(), count()
        self._lock = threading.RLock()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        with self._lock:
            return sum(len(lane.waiting) for lane in self._lanes.values())

    @property
    def waiting_for_providers(self) -> int:
        """How many calls wait for their providers' limits, not for the limit of the process."""
        return self.waiting if self.in_flight < self._limit else 0

    @property
    def held(self) -> float:
        """The longest time, in seconds, for which a provider will still be left alone."""
        now = time.monotonic()
        with self._lock:
            lanes = list(self._lanes.values())
        return max([0.0, *(lane.window.held_until - now for lane in lanes)])

    @property
    def bound_by(self) -> str:
        """The provider that most calls wait for, and the reason; "" if no call waits for a
        provider."""
        now = time.monotonic()
        with self._lock:
            lanes = [lane for lane in self._lanes.values() if lane.waiting]
            if not lanes or self.in_flight >= self._limit:
                return ""
            lane = max(lanes, key=lambda lane: len(lane.waiting))
            window = lane.window
            refused = window.held_until > now or window.learned.ceiling is not None
            why = "429" if refused else "its limits" if window.told else "finding its limit"
        return f"provider {lane.provider.name} ({why})"

    def resize(self, limit: int) -> None:
        """Change the limit of calls in flight. Calls in flight continue. Providers get new windows,
        which begin with the limits on disk."""
        with self._lock:
            self._limit = limit
            self._admit()

    def slots(self, provider_of: Callable[[str], Provider], order: int | None = None) -> TurnSlots:
        """The slots for turns.

        provider_of: maps a model's name to its provider. A provider without an address takes any
        number of calls. order: the place among all turns, the lowest first; with None, each turn is
        placed behind those that began before it.
        """
        return TurnSlots(self, provider_of, order)

    def silences(self, model: str) -> int:
        """How many of the last requests to a model, in a row, were given up before their first
        word."""
        number, at = self._silences.get(model, (0, 0.0))
        return number if time.monotonic() - at < _SILENCE_KEPT else 0

    def slowest(self, model: str) -> float:
        """The most seconds that a request to a model took to its first word; 0 if no request got
        one."""
        return self._slowest.get(model, 0.0)

    def note(self, model: str, seconds: float | None) -> None:
        """Note after how many seconds a request to a model got its first word; None if it was given
        up before."""
        with self._lock:
            if seconds is not None:
                self._slowest[model] = max(seconds, self.slowest(model))
                self._silences.pop(model, None)
            else:
                number, now = self.silences(model), time.monotonic()
                since = self._silences[model][1] if number else now
                self._silences[model] = (number + 1, since)

    def next_order(self) -> int:
        """The place of a turn that begins now."""
        return next(self._turns)

    def lane(self, provider: Provider) -> Lane:
        """The lane of a provider."""
        with self._lock:
            name, url = provider.name, provider.base_url
            key = (name, url, provider.concurrency, provider.rpm, self._limit)
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = self._new_lane(provider)
            return lane

    def _new_lane(self, provider: Provider) -> Lane:
        own = provider.concurrency or self._per_provider
        most = min(own or self._limit, self._limit)
        if not provider.base_url:
            return Lane(provider, Window(most, told=True))
        learned = None if own else load_learned(provider)
        window = Window(
            most,
            told=own is not None,
            rpm=provider.rpm,
            learned=learned,
        )
        return Lane(provider, window, learned)

    def reason(self, lane: Lane) -> str | None:
        """What a new call would wait for, in words; None if it would not wait."""
        with self._lock:
            name, window, now = lane.provider.name, lane.window, time.monotonic()
            if window.held_until > now:
                return f"{name} is paused for {window.held_until - now:.0f} s"
            if self.in_flight >= self._limit:
                return f"waiting for the limit of {plural(self._limit, 'call')} in flight"
            opens = window.opens_at(now)
            if opens <= now and not lane.waiting:
                return None
            if lane.provider.rpm is not None and now + _SOON < opens < math.inf:
                rate = plural(lane.provider.rpm, "request")
                return f"waiting for the limit of {rate} a minute of {name}"
            return f"waiting for the limit of {name}"

    def _enter(self, place: LanePlace) -> bool:
        """Admit a call if it need not wait; returns whether it was admitted."""
        with self._lock:
            lane, now = place.lane, time.monotonic()
            if self.in_flight >= self._limit or lane.waiting or lane.window.opens_at(now) > now:
                return False
            place.number = lane.window.send(now)
            self.in_flight += 1
            return True

    def _queue(self, place: LanePlace) -> None:
        with self._lock:
            place.key = (place.order, next(self._calls))
            insort(place.lane.waiting, place, key=lambda waiting: waiting.key)
            self._admit()

    def _leave(self, place: LanePlace, *, answered: bool) -> None:
        """Note that a call has ended, or has stopped waiting."""
        with self._lock:
            lane = place.lane
            if place.number is not None:
                lane.window.end(place.number, time.monotonic(), answered=answered)
                self.in_flight -= 1
                self._keep(lane)
            elif place in lane.waiting:
                lane.waiting.remove(place)
            self._admit()

    def _admit(self) -> None:
        # Usually no call waits, so this is the fast path.
        for lane in self._lanes.values():
            if lane.waiting:
                break
        else:
            return
        open_lanes = [lane for lane in self._lanes.values() if lane.waiting]
        now = time.monotonic()
        while self.in_flight < self._limit:
            open_lanes = [lane for lane in open_lanes if lane.opens_at(now) <= now]
            if not open_lanes:
                break
            lane = min(open_lanes, key=lambda lane: lane.waiting[0].key)
            place = lane.waiting.pop(0)
            if place.wake():
                place.number = lane.window.send(now)
                self.in_flight += 1
        else:
            # All slots of the process are taken. The next call that ends admits the next one.
            return
        for lane in self._lanes.values():
            opens = lane.opens_at(now)
            if opens < math.inf:
                self._ring(lane, now, opens)

    def _ring(self, lane: Lane, now: float, opens: float) -> None:
        """Set a timer that admits calls at the time `opens`, in the event loop of the first waiting
        call."""
        loop = lane.waiting[0].loop
        rings = lane.alarms.get(loop, math.inf)
        if now < rings <= opens:
            return
        lane.alarms[loop] = opens

        def look() -> None:
            with self._lock:
                lane.alarms.pop(loop, None)
                now = time.monotonic()
                lane.window.late(now - opens, now)
                self._admit()

        if loop is _running_loop():
            loop.call_later(opens - now, look)
        else:
            loop.call_soon_threadsafe(loop.call_later, opens - now, look)

    def _keep(self, lane: Lane) -> None:
        """Write the learned limits to disk when the provider is idle, or once in a while when it is
        always busy, because writing takes time."""
        window, now = lane.window, time.monotonic()
        if window.told or (window.in_flight and now < lane.kept_at + _KEPT_EVERY):
            return
        learned = window.learned
        if learned in (lane.kept, _NOTHING):
            return
        lane.kept, lane.kept_at = learned, now
        keep_learned(lane.provider, learned)


@dataclass(frozen=True)
class TurnSlots:
    """The slots for the calls of turns; see `engine.Slots` and `Limiter.slots`."""

    limiter: Limiter
    provider_of: Callable[[str], Provider]
    order: int | None = None

    def next_turn(self) -> TurnSlots:
        if self.order is not None:
            return self
        return replace(self, order=self.limiter.next_order())

    def slot(self, model: str) -> LanePlace:
        return LanePlace(self.limiter, self._lane(model), self.order or 0)

    def delay(self, model: str) -> float:
        return max(0.0, self._lane(model).window.held_until - time.monotonic())

    def asked_delay(self, model: str) -> float:
        return max(0.0, self._lane(model).window.asked_until - time.monotonic())

    def refused_for(self, model: str) -> float:
        with self.limiter._lock:
            return self._lane(model).window.refused_for(time.monotonic())

    def reason(self, model: str) -> str | None:
        return self.limiter.reason(self._lane(model))

    def silences(self, model: str) -> int:
        return self.limiter.silences(model)

    def slowest(self, model: str) -> float:
        return self.limiter.slowest(model)

    def note(self, model: str, seconds: float | None) -> None:
        self.limiter.note(model, seconds)

    def _lane(self, model: str) -> Lane:
        return self.limiter.lane(self.provider_of(model))


@dataclass(eq=False)
class Lane:
    """The calls of one provider. waiting: the waiting calls, the next one first. kept: the learned
    limits on disk. alarms: by event loop, the time of the timer that admits calls."""

    provider: Provider
    window: Window
    kept: Learned | None = None
    kept_at: float = field(default_factory=time.monotonic)
    waiting: list[LanePlace] = field(default_factory=list)
    alarms: dict[asyncio.AbstractEventLoop, float] = field(default_factory=dict)

    def opens_at(self, now: float) -> float:
        """When the next waiting call may be sent; infinity if no call waits, or another must end
        first."""
        return self.window.opens_at(now) if self.waiting else math.inf


class LanePlace:
    """The place of one request; inside it, the request is in flight. See `engine.CallSlot`."""

    def __init__(self, limiter: Limiter, lane: Lane, order: int) -> None:
        self._limiter = limiter
        self.lane = lane
        self.order = order
        self.key = (order, 0)
        # The number of the call in its window; None while it waits.
        self.number: int | None = None
        self.loop: asyncio.AbstractEventLoop
        self._admitted: asyncio.Future[None]

    def enter_at_once(self) -> Self | None:
        """Enter the slot if the call need not wait; None if it must wait."""
        return self if self._limiter._enter(self) else None

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        self._admitted = self.loop.create_future()
        self._limiter._queue(self)
        try:
            await self._admitted
        except BaseException:
            self._limiter._leave(self, answered=False)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._limiter._leave(self, answered=kind is None)

    def accepted(self) -> None:
        self._tell(lambda window, number, now: window.take(number, now))

    def refused(self, retry_after: float | None) -> None:
        self._tell(lambda window, number, now: window.refuse(number, retry_after, now))

    def _tell(self, what: Callable[[Window, int, float], None]) -> None:
        limiter = self._limiter
        with limiter._lock:
            # Read under the lock, because another thread may have admitted the call a moment ago.
            assert self.number is not None
            what(self.lane.window, self.number, time.monotonic())
            limiter._admit()

    def wake(self) -> bool:
        """Wake the call; returns whether it was still waiting."""
        if self.loop is _running_loop():
            return self._go_on()
        try:
            self.loop.call_soon_threadsafe(self._go_on)
        except RuntimeError:
            # Its event loop has ended.
            return False
        return True

    def _go_on(self) -> bool:
        if self._admitted.done():
            return False
        self._admitted.set_result(None)
        return True


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
