"""The effect of Ctrl-C and Esc while a turn runs, in `moa ask` and in the chat."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from moa_cli.core import events
from moa_cli.core.conversation import Turn
from moa_cli.core.events import Event
from moa_cli.core.stream import Sink, TurnFold, deliver
from moa_cli.engine import Control

# The effect of a stop: `reply` writes a reply from the proposals so far, `cancel` ends the turn
# without a reply, `cut` ends the reply where it is, `skip` leaves out what would follow the reply.
Effect = Literal["reply", "cancel", "cut", "skip"]

_HINTS: dict[Effect, str] = {
    "reply": "write the reply now",
    "cancel": "cancel",
    "cut": "stop",
    "skip": "skip the report",
}


class Stopper:
    """Runs a turn that the user can stop. It is also a sink, so that it knows what a stop does at
    each moment.

    If proposers run, and an answer or a sentence of one has arrived, the first stop ends the wait,
    and the aggregator writes the reply. If a report is made after the reply, a stop skips the
    report. At any other time, and at the second stop, the turn is cancelled.

    key: the key that is named on screen. replied: whether there is a reply already, and only a
    report is made.
    """

    def __init__(self, key: str = "Ctrl-C", *, replied: bool = False) -> None:
        self.control = Control()
        self.cancelled = False
        self.key = key
        self._running: asyncio.Task[Turn] | None = None
        self._replying = False
        self._writing = False
        self._replied = replied
        self._ended = False

    def handle(self, event: Event) -> None:
        match event:
            case events.AggregatorDelta():
                self._writing = self._writing or bool(event.text)
            case events.AggregatorStarted():
                self._replying = True
            case events.AggregatorFinished():
                self._replying, self._replied = False, True
            case events.TurnFinished() | events.TurnFailed():
                self._ended = True

    def close(self) -> None:
        self._ended = True

    @property
    def effect(self) -> Effect:
        """The effect of a stop now."""
        if self._replying:
            return "cut" if self._writing else "cancel"
        if self.control.said_enough or not self.control.leads_to_reply:
            return "cancel"
        return "skip" if self._replied else "reply"

    def hint(self) -> str:
        """What the key does now, such as `Esc: write the reply now`; "" after the end of the
        turn."""
        return "" if self._ended or self.cancelled else f"{self.key}: {_HINTS[self.effect]}"

    def stop(self) -> None:
        """Handle Ctrl-C or Esc."""
        if self.effect in ("reply", "skip"):
            self.control.enough()
        elif self._running is not None and not self._ended:
            self.cancelled = True
            self._running.cancel()

    async def run(self, turn: AsyncGenerator[Event, None], *sinks: Sink, fold: TurnFold) -> Turn:
        """Run a turn to its end, or until a stop cancels it. Returns the turn, which may be
        partial.

        SIGINT stops the turn, not the program. fold: collects the turn. Raises CancelledError,
        after all calls are closed, if the program is told to end.
        """
        running = asyncio.create_task(deliver(turn, self, *sinks, fold=fold))
        self._running = running
        with _interrupting(self.stop):
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
            task = asyncio.current_task()
            if not running.done() or (task is not None and task.cancelling()):
                running.cancel()
                await asyncio.wait([running])
                raise asyncio.CancelledError
        return fold.turn() if running.cancelled() else running.result()


@contextmanager
def _interrupting(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT call `stop` within the block instead of ending the program."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    try:
        loop.add_signal_handler(signal.SIGINT, stop)
    except NotImplementedError:
        # Event loops on Windows have no signal handlers.
        signal.signal(signal.SIGINT, lambda number, frame: loop.call_soon_threadsafe(stop))
    try:
        yield
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
        # Removing the handler would leave Python's default handler, whose KeyboardInterrupt may be
        # lost in a finalizer. So asyncio's handler is restored, which cancels the main task.
        signal.signal(signal.SIGINT, before)
