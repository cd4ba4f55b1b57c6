"""Hedging: two requests for one answer. The one that sends the first word is used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from moa_cli.core.errors import ClientError
from moa_cli.engine.calls.silence import Alarm

Request = Coroutine[Any, Any, None]


class Race:
    """A request, and a second one if the first has sent no word of its answer in time.

    The request that sends the first word wins, and the other is cancelled. If one fails, the other
    goes on.

    second: called once if the first request is late. Returns the second request, or None.
    """

    def __init__(self, second: Callable[[], Request | None]) -> None:
        self._second = second
        self._news = asyncio.Event()
        self._due = False
        self._speaker: asyncio.Task[None] | None = None

    def hedge_in(self, seconds: float) -> Alarm:
        """Send the second request after this many seconds, unless the alarm is cancelled."""
        return Alarm(seconds, self._hedge)

    def _hedge(self) -> None:
        self._due = True
        self._news.set()

    def claim(self) -> bool:
        """Called by a request when a word of its answer has come. Returns whether this request has
        won the race."""
        task = asyncio.current_task()
        if self._speaker is None:
            self._speaker = task
            self._news.set()
        return self._speaker is task

    async def run(self, first: Request) -> None:
        """Run the requests until the winner has ended. Raises what the winner raises.

        If none sends a word, raises what the first raises, unless the other has ended without an
        error.
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
    """The request whose result counts if none has sent a word: one that raised an unexpected error,
    else one with an empty answer, else the first."""
    for task in tasks:
        error = task.exception()
        if error is not None and not isinstance(error, ClientError):
            return task
    return next((task for task in tasks if task.exception() is None), tasks[0])
