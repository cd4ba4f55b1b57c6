"""Limits on waiting: a timer that costs next to nothing while it is put off again and again."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from moa_cli.core.errors import ClientTimeout
from moa_cli.core.frozen import quickly_made
from moa_cli.engine.calls.attempt import Attempt
from moa_cli.models.table import BUILT_IN
from moa_cli.profile import ModelSettings

# Seconds, if the profile sets none: before the first token; the same of an aggregator with a
# fallback, and of a model that this machine may have to load first; and from one token to the next.
_FIRST_TOKEN, _FIRST_TOKEN_BACKED, _FIRST_TOKEN_HERE, _STALL = 40.0, 20.0, 300.0, 30.0
# Seconds before the first token of an aggregator whose model was already silent in the same turn,
# so that a hung model delays a turn only once. It is also the least for a model that was silent in
# earlier turns: its time is halved with each, for some minutes, so that a long chat, a server or a
# batch does not wait for it in full again and again. A model that has spoken has at least twice the
# longest time that it took, as a slow model is not hung.
_FIRST_TOKEN_AGAIN = 5.0
# Seconds for what may follow a whole answer: its usage. It is for streams that do not end by
# themselves. It is much longer than the 1.5 s after which the decoder of streams gives out what it
# holds back: on a busy machine, both could end at once.
_ENDING = 5.0
# If a timer fires later than that, something blocked the whole event loop.
_BLOCKED = 0.25
# The least time, in seconds, to read what has arrived meanwhile.
_AFTER_BLOCK = 0.5
# The most seconds for which a timer is set. Few limits are shorter, so it need not be set again for
# another limit. All watches with more time than that share one.
_LONGEST_TIMER = 2.0


@quickly_made
@dataclass(frozen=True)
class Silence:
    """How long a call may say nothing, in seconds."""

    first_token: float
    stall: float

    def limit(self, attempt: Attempt) -> float:
        """The limit that holds for an attempt now."""
        if attempt.finish_reason is not None:
            return _ENDING
        return self.stall if attempt.speaking else self.first_token

    def error(self, provider: str, speaking: bool) -> ClientTimeout:
        """Why a call was given up. speaking: whether a token had come."""
        if speaking:
            return ClientTimeout(
                f"{provider}: nothing more for {self.stall:g} s in the middle of the answer"
                " (`stall`)",
                hint="raise `stall` in the profile, or use another model",
            )
        return ClientTimeout(
            f"{provider}: no first token within {self.first_token:g} s (`first_token`)",
            hint="raise `first_token` in the profile, or use a faster model",
        )


def silence_of(
    settings: ModelSettings,
    provider: str,
    *,
    backed: bool = False,
    again: bool = False,
    silences: int = 0,
    slowest: float = 0.0,
) -> Silence:
    """The limits of a call at that provider. backed: whether a fallback stands ready. again:
    whether its model was silent before in the turn. silences, slowest: see `Slots`."""
    first = _FIRST_TOKEN
    known = BUILT_IN.get(provider)
    if known is not None and (known.base_url is None or known.start_hint is not None):
        first = _FIRST_TOKEN_HERE
    else:
        if again:
            first = _FIRST_TOKEN_AGAIN
        elif backed:
            first = _FIRST_TOKEN_BACKED
        least = min(first, max(_FIRST_TOKEN_AGAIN, 2 * slowest))
        first = max(least, first / 2 ** min(silences, 10))
    return Silence(settings.first_token or first, settings.stall or _STALL)


class Alarm:
    """Calls something once so many seconds have passed in which the event loop could run.

    Like `Watch`, it does not count the time for which the process is stopped.
    """

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self._left = seconds
        self._call = call
        self._set()

    def cancel(self) -> None:
        """Do not call it any more."""
        self._timer.cancel()

    def _set(self) -> None:
        step = max(0.0, min(self._left, _LONGEST_TIMER))
        self._left -= step
        self._due = time.monotonic() + step
        self._timer = asyncio.get_running_loop().call_later(step, self._fire)

    def _fire(self) -> None:
        if time.monotonic() - self._due > _BLOCKED:
            # What has arrived meanwhile is read first.
            self._left = max(self._left, _AFTER_BLOCK)
        if self._left > 0:
            self._set()
        else:
            self._call()


class Watch:
    """Cancels the task that runs in its body once `limit` seconds have passed since `since`.

    Leaving the body then raises TimeoutError, as with `asyncio.timeout`. Unlike that, it is put off
    by setting `since`, which may be done for each token: the timer reads it only when it fires, and
    is then set for the rest.

    Time in which the event loop does not run (a sink that writes to a full pipe, a stopped process)
    does not count: the timer then fires late.

    limit: in seconds; None is no limit. spared: asked when the time is over whether it begins
    again. since: when the measured time began, by `time.monotonic`; `math.inf` stops it. expired:
    whether the time was over.
    """

    def __init__(self, limit: float | None, spared: Callable[[], bool] | None = None) -> None:
        self.since = time.monotonic()
        self._limit = limit
        self._spared = spared
        self.expired = False
        # What fires next, at `_due`, if anything does.
        self._timer: asyncio.TimerHandle | None = None
        self._round: _Round | None = None
        self._due = 0.0

    def __enter__(self) -> Watch:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._loop = task.get_loop()
        self.set_limit(self._limit)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._disarm()
        if self.expired:
            mine = self._task.uncancel() <= self._cancelling
            if mine and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError

    def set_limit(self, limit: float | None) -> None:
        """Another limit from now on, for the time since `since`."""
        self._limit = limit
        if self.expired:
            return
        if self._timer is not None or self._round is not None:
            # Usually it fires in time for the new limit, too.
            if limit is not None and self.since + limit >= self._due:
                return
            self._disarm()
        if limit is not None:
            self._arm(self.left)

    @property
    def left(self) -> float:
        """Seconds until the time is over; infinite without a limit."""
        if self._limit is None:
            return math.inf
        return self.since + self._limit - time.monotonic()

    def _arm(self, seconds: float) -> None:
        assert self._limit is not None
        seconds = max(0.0, min(seconds, self._limit))
        if seconds >= _LONGEST_TIMER:
            self._round = _round_of(self._loop)
            self._due = self._round.join(self)
            return
        self._due = time.monotonic() + seconds
        self._timer = self._loop.call_later(seconds, self.fire)

    def _disarm(self) -> None:
        if self._round is not None:
            self._round.leave(self)
            self._round = None
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def fire(self) -> None:
        """Its timer, or its round, has fired."""
        self._timer = self._round = None
        late = time.monotonic() - self._due
        if late > _BLOCKED:
            self.since += late
            self._arm(max(self.left, _AFTER_BLOCK))
        elif self.left > 0:
            self._arm(self.left)
        elif self._spared is not None and self._spared():
            self.since = time.monotonic()
            self._arm(self.left)
        else:
            self.expired = True
            self._task.cancel()


class _Round:
    """The one timer of all watches of an event loop whose time is not over soon.

    Nearly all of them end before it fires, and a server has many: a timer for each would cost
    more than all that the watch does besides.
    """

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        # When it fires; infinite while no timer is set.
        self._due = math.inf

    def join(self, watch: Watch) -> float:
        """Have `fire` of that watch called with the others'; returns when, by `time.monotonic`."""
        self._watches.add(watch)
        if self._due == math.inf:
            self._due = time.monotonic() + _LONGEST_TIMER
            asyncio.get_running_loop().call_later(_LONGEST_TIMER, self._fire)
        return self._due

    def leave(self, watch: Watch) -> None:
        """It need not be called any more."""
        self._watches.discard(watch)

    def _fire(self) -> None:
        watches, self._watches = self._watches, set()
        self._due = math.inf
        for watch in watches:
            watch.fire()


_ROUNDS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Round] = WeakKeyDictionary()


def _round_of(loop: asyncio.AbstractEventLoop) -> _Round:
    found = _ROUNDS.get(loop)
    if found is None:
        found = _ROUNDS[loop] = _Round()
    return found
