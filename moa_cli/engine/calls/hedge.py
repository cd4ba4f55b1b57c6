"""Hedging: two requests for one answer; the first that speaks is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from moa_cli.core.errors import ClientError
from moa_cli.engine.calls.silence import Alarm

Request = Coroutine[Any, Any, None]


class Race:
    """A request, and a second one if the first does not speak in time.

    The first that speaks wins, and the other is cancelled. If one fails, the other goes on.

    second: called once if the first has not spoken in time. Returns what is sent then, or None.
    """

    def __init__(self, second: Callable[[], Request | None]) -> None:
        self._second = second
        self._news = asyncio.Event()
        self._due = False
        self._speaker: asyncio.Task[None] | None = None

    def hedge_in(self, seconds: float) -> Alarm:
        """Send the second request in so many seconds, unless the alarm is cancelled."""
        return Alarm(seconds, self._hedge)

    def _hedge(self) -> None:
        self._due = True
        self._news.set()

    def claim(self) -> bool:
        """Called by a request that has something to say. Returns whether it is the one that is
        heard."""
        task = asyncio.current_task()
        if self._speaker is None:
            self._speaker = task
            self._news.set()
        return self._speaker is task

    async def run(self, first: Request) -> None:
        """Run them to the end of the one that is heard. Raises what that one raises.

        If none speaks, raises what the first raises, unless the other has ended without an error.
        """
        tasks = [self._task(first)]
        try:
            while self._speaker is None and not all(task.done() for task in tasks):
                await self._news.wait()
                self._news.clear()
                if self._due and self._speaker is None and not tasks[0].done():
                    self._due = False
                    second = self._second()
                    if second is not None:
                        tasks.append(self._task(second))
            others = [task for task in tasks if task is not self._speaker]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await (self._speaker or _best(tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, request: Request) -> asyncio.Task[None]:
        task = asyncio.create_task(request)
        task.add_done_callback(lambda _: self._news.set())
        return task


def _best(tasks: list[asyncio.Task[None]]) -> asyncio.Task[None]:
    """The request whose end counts if none has spoken: one with a bug, else one with an empty
    answer, else the first."""
    for task in tasks:
        error = task.exception()
        if error is not None and not isinstance(error, ClientError):
            return task
    return next((task for task in tasks if task.exception() is None), tasks[0])
