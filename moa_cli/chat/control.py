"""What Ctrl-C means, by how far a turn has come."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from moa_cli.core.events import AggregatorStarted, Event, ProposerFinished
from moa_cli.engine import Control


class Stopper:
    """A sink that knows how far the turn is, and what `stop` should do there.

    While proposers run and something has arrived, the first stop is "enough": the reply is
    written from that. Else, or at the second, the turn is cancelled.
    """

    def __init__(self) -> None:
        self.control = Control()
        self.cancelled = False
        self._task: asyncio.Task[Any] | None = None
        self._arrived = 0
        self._replying = False

    def watch(self, task: asyncio.Task[Any]) -> None:
        """The task that runs the turn."""
        self._task = task

    def handle(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, ProposerFinished):
            self._arrived += 1
        elif isinstance(event, AggregatorStarted):
            self._replying = True

    def close(self) -> None:
        """Nothing is left to stop."""
        self._task = None

    def stop(self) -> None:
        """Ctrl-C, or Esc."""
        if self._arrived and not self._replying and not self.control.said_enough:
            self.control.enough()
        elif self._task is not None:
            self.cancelled = True
            self._task.cancel()


@contextmanager
def interrupting(stop: Callable[[], None]) -> Iterator[None]:
    """While inside, SIGINT calls `stop` instead of ending the program."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    # Windows has no handlers in an event loop; there the key itself is read.
    with suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGINT, stop)
    try:
        yield
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
            # That leaves Python's own, whose KeyboardInterrupt is lost in a finalizer; asyncio's
            # cancels the main task.
            signal.signal(signal.SIGINT, before)
