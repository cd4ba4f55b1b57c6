"""Limits on waiting: a timer that costs next to nothing while it is put off again and again."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

# A timer that fires later than that was held up: something blocked the whole event loop.
_BLOCKED = 0.25
# Seconds that what has arrived meanwhile has to be read then, at least.
_AFTER_BLOCK = 0.5


class Watch:
    """Cancels the task that runs in its body once `limit` seconds have passed since `since`.

    Leaving the body then raises TimeoutError, as with `asyncio.timeout`. Unlike that, it is put
    off by setting `since`, which may be done for each token: the timer looks at it only when it
    fires, and is set again for what is left.

    Time in which the event loop does not run at all (a sink that writes to a pipe that nobody
    reads, a process that is stopped) does not count: it shows by the timer that fires late.

    Attributes:
        since: When the time began that is measured, by `time.monotonic`; `math.inf` stops it.
    """

    def __init__(self, limit: float | None, spared: Callable[[], bool] | None = None) -> None:
        """limit: in seconds; None is no limit. spared: asked when the time is over whether it
        begins anew all the same."""
        self.since = time.monotonic()
        self._limit = limit
        self._spared = spared
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def __enter__(self) -> Watch:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._loop = task.get_loop()
        self.set_limit(self._limit)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._expired:
            mine = self._task.uncancel() <= self._cancelling
            if mine and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError

    def set_limit(self, limit: float | None) -> None:
        """Another limit from now on, for the time since `since`."""
        self._limit = limit
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if limit is not None and not self._expired:
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
        self._due = time.monotonic() + seconds
        self._timer = self._loop.call_later(seconds, self._fire)

    def _fire(self) -> None:
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
            self._timer = None
            self._expired = True
            self._task.cancel()
