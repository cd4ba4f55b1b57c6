"""Limits on how long a model may be silent, and a timer that is cheap to put off at each token."""

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

# Limits in seconds, if the profile sets none. Before the first token: usually; for an aggregator
# with a fallback; for a model that this machine may have to load first. The last one is for the
# time from one token to the next.
_FIRST_TOKEN, _FIRST_TOKEN_BACKED, _FIRST_TOKEN_HERE, _STALL = 40.0, 20.0, 300.0, 30.0
# Seconds before the first token of an aggregator whose model was already silent in the same turn.
# So a hung model delays a turn only once. It is also the lowest limit for a model that was silent
# in earlier turns. For some minutes, the limit of such a model is halved with each silent request,
# so that a long chat, a server or a batch does not wait for the full time again and again. A model
# that has answered gets at least twice its longest time so far, because a slow model is not hung.
_FIRST_TOKEN_AGAIN = 5.0
# Seconds that a stream may stay open after a whole answer, so that its usage can arrive. Some
# streams do not end by themselves. The limit is much longer than the 1.5 s after which the stream
# decoder passes on the data that it holds back. On a busy machine, two close limits could expire at
# the same time.
_ENDING = 5.0
# If a timer fires later than this many seconds, something blocked the whole event loop.
_BLOCKED = 0.25
# After such a block, a task has at least this many seconds to read the data that arrived meanwhile.
_AFTER_BLOCK = 0.5
# The longest time, in seconds, for which a timer is set. Few limits are shorter, so a timer rarely
# has to be set again when the limit changes. All watches with more time left share one timer.
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
    """The limits of a call at that provider. backed: whether there is a fallback that has not been
    asked. again: whether a call of the model timed out earlier in the turn. silences, slowest: see
    `Slots`."""
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
    """Calls a function after a number of seconds in which the event loop could run.

    Like `Watch`, it does not count time in which the process is stopped.
    """

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self._left = seconds
        self._call = call
        self._set()

    def cancel(self) -> None:
        """Do not call the function any more."""
        self._timer.cancel()

    def _set(self) -> None:
        step = max(0.0, min(self._left, _LONGEST_TIMER))
        self._left -= step
        self._due = time.monotonic() + step
        self._timer = asyncio.get_running_loop().call_later(step, self._fire)

    def _fire(self) -> None:
        if time.monotonic() - self._due > _BLOCKED:
            # Other tasks first read the data that has arrived meanwhile.
            self._left = max(self._left, _AFTER_BLOCK)
        if self._left > 0:
            self._set()
        else:
            self._call()


class Watch:
    """Cancels the task that runs in its body once `limit` seconds have passed since `since`.

    Leaving the body then raises TimeoutError, as with `asyncio.timeout`. In contrast to that, the
    limit is put off by setting `since`. This is cheap enough to do for each token: the timer reads
    `since` only when it fires, and is then set for the rest of the time.

    Time in which the event loop does not run (a sink that writes to a full pipe, a stopped process)
    does not count. The watch notices such a block because its timer fires late.

    limit: in seconds; None is no limit. spared: called when the time is over; if it returns true,
    the time begins again. since: when the measured time began, by `time.monotonic`; `math.inf`
    stops the watch. expired: whether the time is over.
    """

    def __init__(self, limit: float | None, spared: Callable[[], bool] | None = None) -> None:
        self.since = time.monotonic()
        self._limit = limit
        self._spared = spared
        self.expired = False
        # Either a timer of this watch or a shared one is set, for the time `_due`; or none is.
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
        """Change the limit. The time still counts from `since`."""
        self._limit = limit
        if self.expired:
            return
        if self._timer is not None or self._round is not None:
            # Usually the timer that is set fires early enough for the new limit, too.
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
        """Called when the timer of the watch, or its shared timer, fires."""
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
    """A timer that is shared by all watches of an event loop whose time is not over soon.

    A server has many watches, and nearly all of them end before the timer fires. A separate timer
    for each would take more time than everything else that a watch does.
    """

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        # When the timer fires; infinite while no timer is set.
        self._due = math.inf

    def join(self, watch: Watch) -> float:
        """Add a watch whose `fire` is called when the timer fires. Returns that time, by
        `time.monotonic`."""
        self._watches.add(watch)
        if self._due == math.inf:
            self._due = time.monotonic() + _LONGEST_TIMER
            asyncio.get_running_loop().call_later(_LONGEST_TIMER, self._fire)
        return self._due

    def leave(self, watch: Watch) -> None:
        """Remove a watch."""
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
