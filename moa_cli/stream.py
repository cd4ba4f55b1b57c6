"""Many streams to one, one stream to many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Protocol, TypeVar

from moa_cli.conversation import Proposal, Turn, TurnStatus
from moa_cli.events import (
    AggregatorDelta,
    AggregatorFailed,
    AggregatorFinished,
    AggregatorStarted,
    Event,
    LayerStarted,
    ProposerFailed,
    ProposerFinished,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)

__all__ = ["Sink", "TurnFold", "deliver", "merge"]

T = TypeVar("T")


class Sink(Protocol):
    """Something that events are shown to, in order; it never answers back."""

    def handle(self, event: Event) -> None:
        """Take the next event."""

    def close(self) -> None:
        """No more events will come: the turn ended, failed, or was cancelled."""


async def merge(*streams: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The items of all streams as they come; ends when all have ended.

    What one of the streams raises is raised here. Closing this generator (or an error)
    cancels and closes all of them before it returns.
    """
    # Unbounded, and fed by done-callbacks: a bounded queue with an end mark put in a
    # `finally` dead-locks when the consumer stops early.
    queue: asyncio.Queue[T | asyncio.Task[None]] = asyncio.Queue()

    async def drain(stream: AsyncGenerator[T, None]) -> None:
        async with aclosing(stream):
            async for item in stream:
                queue.put_nowait(item)

    tasks = {asyncio.create_task(drain(stream)) for stream in streams}
    for task in tasks:
        task.add_done_callback(queue.put_nowait)
    running = len(tasks)
    try:
        while running:
            item = await queue.get()
            if isinstance(item, asyncio.Task):
                running -= 1
                item.result()
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def deliver(events: AsyncIterator[Event], *sinks: Sink) -> Turn:
    """Show every event to every sink, and return the turn that the events tell.

    The sinks are closed at the end, also when this is cancelled or one of them raises;
    `events` is closed first, so that nothing runs on behind a closed screen.
    """
    fold = TurnFold()
    async with AsyncExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        if isinstance(events, AsyncGenerator):
            await stack.enter_async_context(aclosing(events))
        async for event in events:
            fold.handle(event)
            for sink in sinks:
                sink.handle(event)
    return fold.turn()


class TurnFold:
    """A sink that holds the turn as far as its events have come."""

    def __init__(self) -> None:
        self._turn = Turn(user="")
        self._proposals: list[list[Proposal]] = []
        self._text: list[str] = []
        self._reasoning: list[str] = []

    def handle(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case TurnStarted():
                self._turn = Turn(user=event.prompt, profile=event.profile)
            case LayerStarted():
                self._proposals.append([])
            case ProposerFinished() | ProposerFailed():
                self._proposals[event.layer - 1].append(event.proposal)
            case AggregatorStarted():
                self._text, self._reasoning = [], []
                self._turn = replace(self._turn, model=event.model)
            case AggregatorDelta():
                self._text.append(event.text)
                self._reasoning.append(event.reasoning)
            case AggregatorFinished():
                self._turn = replace(
                    self._turn, answered_by=event.answered_by, finish_reason=event.finish_reason
                )
            case AggregatorFailed():
                pass
            case TurnFinished():
                self._end("finished", event)
            case TurnFailed():
                self._turn = replace(self._turn, error=event.error, causes=event.causes)
                self._end("failed", event)
            case _:
                pass

    def _end(self, status: TurnStatus, event: TurnFinished | TurnFailed) -> None:
        self._turn = replace(
            self._turn, status=status, usage=event.usage, seconds=event.seconds, lost=event.lost
        )

    def close(self) -> None:
        """A turn that has not ended by now was interrupted."""
        if self._turn.status == "open":
            self._turn = replace(self._turn, status="interrupted")

    def turn(self) -> Turn:
        """The turn so far: partial if it is not finished."""
        text = "".join(self._text)
        whole = self._turn.status == "finished"
        return replace(
            self._turn,
            reply=text if text or whole else None,
            reasoning="".join(self._reasoning),
            proposals=tuple(
                tuple(sorted(layer, key=lambda proposal: proposal.index))
                for layer in self._proposals
            ),
        )
