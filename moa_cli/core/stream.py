"""Many streams to one, one stream to many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from moa_cli.core.conversation import Charge, Failure, Proposal, Turn, TurnStatus, Usage
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFailed,
    AggregatorFinished,
    AggregatorStarted,
    Caller,
    Event,
    LayerStarted,
    ProposerDelta,
    ProposerFailed,
    ProposerFinished,
    ProposerStarted,
    Retrying,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from moa_cli.core.money import Price, priced
from moa_cli.core.tokens import counted

__all__ = ["Sink", "TurnFold", "deliver", "merge"]

T = TypeVar("T")


class Sink(Protocol):
    """Something that is shown the events of a turn, in order. It cannot change the turn."""

    def handle(self, event: Event) -> None:
        """Take the next event.

        Args:
            event: What happened. It is called on the event loop, so it must not block.
        """

    def close(self) -> None:
        """Take note that no more events come: the turn ended, failed, or was cancelled."""


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


async def deliver(events: AsyncIterator[Event], *sinks: Sink, fold: TurnFold | None = None) -> Turn:
    """Show every event to every sink, and return the turn that the events tell.

    The sinks are closed at the end, also when this is cancelled or one of them raises. `events` is
    closed first, so that no call runs on after the sinks are closed.

    Args:
        events: The events of one turn, as `run_turn` yields them.
        *sinks: What is shown each event, in this order.
        fold: What the turn is gathered in, for a caller that needs the turn also if this is
            cancelled.

    Returns:
        The turn that the events tell.
    """
    fold = fold or TurnFold()
    async with AsyncExitStack() as stack:
        for sink in (fold, *sinks):
            stack.callback(sink.close)
        if isinstance(events, AsyncGenerator):
            await stack.enter_async_context(aclosing(events))
        async for event in events:
            fold.handle(event)
            for sink in sinks:
                sink.handle(event)
    return fold.turn()


@dataclass
class _Open:
    """A call that has not ended."""

    model: str
    began: float
    prompt_tokens: int
    price: Price | None
    proposer: str = ""
    # Until then (by the clock of this process) it waits to be made again.
    resumes: float = 0.0
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)

    def usage(self) -> Usage:
        """What it took so far, estimated; nothing if it was not made at all."""
        if not self.prompt_tokens or time.monotonic() < self.resumes:
            return Usage()
        answer = "".join([*self.reasoning, *self.text])
        # As endpoints stream, a piece is a token at least.
        pieces = sum(map(bool, [*self.reasoning, *self.text]))
        return priced(counted(None, self.prompt_tokens, answer, pieces), self.price)

    def proposal(self, layer: int, index: int, now: float) -> Proposal:
        """What had come of it when the turn was interrupted."""
        return Proposal(
            layer=layer,
            index=index,
            proposer=self.proposer,
            model=self.model,
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            usage=self.usage(),
            seconds=now - self.began,
            error=Failure("Interrupted", "cancelled"),
        )


class TurnFold:
    """A sink that holds the turn as far as its events have come.

    What calls took that were cut off with the turn is estimated: their endpoints may bill it.
    """

    def __init__(self) -> None:
        self._turn = Turn(user="")
        self._callers: tuple[Caller, ...] = ()
        self._proposals: list[list[Proposal]] = []
        self._open: dict[int, _Open] = {}
        self._replying: _Open | None = None
        self._model: str | None = None
        self._answered_by: str | None = None
        self._finish_reason: str | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._rounds = 0
        self._now = 0.0
        self.ledger: list[Charge] = []

    def handle(self, event: Event) -> None:
        """Take the next event."""
        self._now = event.at
        match event:
            case TurnStarted():
                self._turn = Turn(user=event.prompt, profile=event.profile)
                self._rounds = event.rounds
            case LayerStarted():
                self._callers = event.proposers
                self._proposals.append([])
            case ProposerStarted() if event.index < len(self._callers):
                self._open[event.index] = self._started(event, self._callers[event.index])
            case ProposerDelta() if event.index in self._open:
                self._open[event.index].text.append(event.text)
                self._open[event.index].reasoning.append(event.reasoning)
            case Retrying():
                one = self._replying if event.index is None else self._open.get(event.index)
                if one is not None:
                    one.resumes = time.monotonic() + event.delay
            case ProposerFinished() | ProposerFailed():
                self._open.pop(event.index, None)
                self._add(event.proposal)
            case AggregatorStarted():
                self._text, self._reasoning = [], []
                self._model = event.model
                caller = Caller(name=event.name, model=event.model)
                self._replying = self._started(event, caller)
            case AggregatorDelta():
                self._text.append(event.text)
                self._reasoning.append(event.reasoning)
            case AggregatorFinished():
                self._answered_by, self._finish_reason = event.answered_by, event.finish_reason
                self._replied(event.model, event.usage, event.answered_by)
            case AggregatorFailed():
                self._replied(event.model, event.usage)
            case TurnFinished():
                self._end("finished", event)
            case TurnFailed():
                self._turn = replace(self._turn, error=event.error, causes=event.causes)
                self._end("failed", event)
            case _:
                pass

    def _started(self, event: ProposerStarted | AggregatorStarted, caller: Caller) -> _Open:
        return _Open(caller.model, event.at, event.prompt_tokens, event.price, caller.name)

    def _add(self, one: Proposal) -> None:
        self._proposals[one.layer - 1].append(one)
        self._charge(Charge(one.layer, one.model, one.usage, one.answered_by))

    def _replied(self, model: str, usage: Usage, answered_by: str | None = None) -> None:
        self._replying = None
        self._charge(Charge(self._rounds + 1, model, usage, answered_by))

    def _charge(self, charge: Charge) -> None:
        if charge.usage.calls:
            self.ledger.append(charge)

    def _end(self, status: TurnStatus, event: TurnFinished | TurnFailed) -> None:
        self._turn = replace(
            self._turn, status=status, usage=event.usage, seconds=event.seconds, lost=event.lost
        )

    def close(self) -> None:
        """A turn that has not ended by now was interrupted."""
        if self._turn.status != "open":
            return
        for index, one in sorted(self._open.items()):
            self._add(one.proposal(len(self._proposals), index, self._now))
        self._open = {}
        if self._replying is not None:
            one = self._replying
            one.text, one.reasoning = self._text, self._reasoning
            self._replied(one.model, one.usage())
        self._turn = replace(
            self._turn,
            status="interrupted",
            usage=sum((one.usage for one in self.ledger), Usage()),
            seconds=self._now,
        )

    def turn(self) -> Turn:
        """The turn so far: partial if it is not finished."""
        text = "".join(self._text)
        whole = self._turn.status == "finished"
        return replace(
            self._turn,
            model=self._model,
            answered_by=self._answered_by,
            finish_reason=self._finish_reason,
            reply=text if text or whole else None,
            reasoning="".join(self._reasoning),
            ledger=tuple(self.ledger),
            proposals=tuple(
                tuple(sorted(layer, key=lambda proposal: proposal.index))
                for layer in self._proposals
            ),
        )
