"""The way of a turn's events: from many coroutines into one stream, and from it to many sinks."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Sequence,
)
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from moa_cli.core.conversation import Charge, Citation, Failure, Proposal, Turn, TurnStatus, Usage
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFailed,
    AggregatorFinished,
    AggregatorStarted,
    Caller,
    Decided,
    Event,
    Hedged,
    LayerStarted,
    ProposerDelta,
    ProposerFailed,
    ProposerFinished,
    ProposerStarted,
    Queued,
    Reported,
    Retrying,
    TurnFailed,
    TurnFinished,
    TurnStarted,
)
from moa_cli.core.money import priced
from moa_cli.core.strategy import REVIEW_NAMES, Decision, Purpose, Report
from moa_cli.core.tokens import usage_of
from moa_cli.core.tools import ToolCallBuilder


class Sink(Protocol):
    """A receiver of the events of a turn, in order. It cannot change the turn."""

    def handle(self, event: Event) -> None:
        """Take the next event. This runs on the event loop, so it must not block.

        Args:
            event: What happened.

        Raises:
            Exception: The turn is cancelled, and `deliver` raises the exception.
        """

    def close(self) -> None:
        """Called when no more events come: the turn ended, failed, or was cancelled.

        It is called once, even if `handle` raised.
        """


class TurnSink(Sink, Protocol):
    """A sink that needs the turn so far. `deliver` recognises it by its method `follow`."""

    def follow(self, fold: TurnFold) -> None:
        """Called before the first event.

        Args:
            fold: Holds the turn up to the event that `handle` is given. When `close` is called, it
                holds the whole turn.
        """


class EventQueue:
    """The events of a turn, on their way from the coroutines that emit them to one consumer.

    The coroutine given to `start` runs in its own task, and may start more tasks. All of them emit
    events here. The consumer iterates over the queue and gets the events in this order. If the
    coroutine raises an error, the consumer gets it after the last event. Leaving the queue as a
    context manager cancels the task and waits for its end.

    There are two ways to hold back the producers. A producer of many events checks `has_room`, and
    if a slow consumer leaves no room, waits for `room`. So at most `most` events wait in the queue,
    and one more for each task. A producer that must not run ahead of the consumer at all waits for
    `delivered`.

    `emit` itself never waits. So an event is either in the queue or not, even if the task that
    emits it is cancelled, and the last event can be emitted while there is no room. This class is
    used instead of `asyncio.Queue` because it is faster, and its code runs for each token.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._events: deque[Event] = deque()
        self._task: asyncio.Task[None] | None = None
        # _news: the consumer waits for the next event. _asked: a task waits until the consumer has
        # taken all events and asks for more. _room: tasks wait for room in the queue.
        self._news: asyncio.Future[None] | None = None
        self._asked: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._held = False

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine that emits the events. If it raises an error, the stream of events ends
        with it."""
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(lambda _: _wake(self._news))

    def emit(self, event: Event) -> None:
        """Add the next event."""
        self._events.append(event)
        _wake(self._news)

    @property
    def has_room(self) -> bool:
        """Whether more may be emitted without waiting for the consumer."""
        return len(self._events) < self._most

    async def room(self) -> None:
        """Wait until the consumer has taken about half of the events in the queue."""
        self._held = True
        self._room.clear()
        await self._room.wait()

    async def delivered(self) -> None:
        """Wait until the consumer has handled all events, and asks for the next one.

        Only one task at a time may wait here.
        """
        self._asked = asyncio.get_running_loop().create_future()
        if self._news is None or self._events:
            await self._asked
        self._asked = None

    def __aiter__(self) -> EventQueue:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._task is None or self._task.done():
                if self._task is not None:
                    self._task.result()
                raise StopAsyncIteration
            self._news = asyncio.get_running_loop().create_future()
            try:
                if self._asked is not None:
                    consumer = asyncio.current_task()
                    if consumer is not None and consumer.cancelling():
                        # The consumer is being cancelled. Let this happen first, so that the
                        # waiting task does not begin its next step.
                        await asyncio.sleep(0)
                    _wake(self._asked)
                await self._news
            finally:
                self._news = None
        event = self._events.popleft()
        if self._held and len(self._events) <= self._most // 2:
            self._held = False
            self._room.set()
        return event

    async def __aenter__(self) -> EventQueue:
        return self

    async def __aexit__(self, *raised: object) -> None:
        if self._task is None:
            return
        self._task.cancel()
        cancelled = None
        while not self._task.done():
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError as again:
                # Go on waiting, because the task still closes its connections. The cancellation is
                # raised afterwards.
                cancelled = again
        if not self._task.cancelled():
            # Read the error, because asyncio would log it as never retrieved. The iteration over
            # the events has raised it already.
            self._task.exception()
        if cancelled is not None:
            raise cancelled


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


async def deliver(
    events: AsyncIterator[Event],
    *sinks: Sink,
    fold: TurnFold | None = None,
    forward: Callable[[Event], Awaitable[None]] | None = None,
) -> Turn:
    """Pass every event to every sink, and return the turn that the events describe.

    At the end, the sinks are closed, the last one first. This happens even if this coroutine is
    cancelled or a sink raises an error. `events` is closed before the sinks. So no call goes on
    after the sinks are closed, and the fold holds the whole turn when they are.

    Args:
        events: The events of one turn, as `run_turn` yields them.
        *sinks: The receivers of each event, in this order.
        fold: Collects the turn, for a caller that needs the turn even if this is cancelled.
        forward: Awaited with each event, after the sinks. The turn waits for it.

    Returns:
        The turn that the events describe.

    Raises:
        Exception: Any error of `events`, a sink or `forward`.
    """
    fold = fold or TurnFold()
    for sink in sinks:
        # `isinstance` with a protocol costs more than a small event.
        follow = getattr(sink, "follow", None)
        if follow is not None:
            follow(fold)
    began = time.monotonic()
    try:
        async with aclosing(events) if isinstance(events, AsyncGenerator) else nullcontext():
            async for event in events:
                fold.handle(event)
                for sink in sinks:
                    sink.handle(event)
                if forward is not None:
                    await forward(event)
    finally:
        fold.pass_time(time.monotonic() - began)
        _close((*sinks, fold))
    return fold.turn()


def _close(sinks: Sequence[Sink]) -> None:
    """Close the sinks, the last one first. If one raises an error, the others are still closed."""
    if sinks:
        try:
            sinks[-1].close()
        finally:
            _close(sinks[:-1])


@dataclass
class _Open:
    """A call that has not ended."""

    caller: Caller
    started: ProposerStarted | AggregatorStarted
    # The time, by `time.monotonic`, until which the call waits to be made or retried.
    resumes: float = 0.0
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    # The names and arguments of tool calls.
    called: list[str] = field(default_factory=list)
    # The estimated usage of earlier requests of the call that were given up and may be billed.
    spent: Usage = field(default_factory=Usage)

    def usage(self) -> Usage:
        """The estimated usage of the call so far; nothing if no request was sent."""
        waits = not (self.text or self.reasoning or self.called) and time.monotonic() < self.resumes
        if not self.started.prompt_tokens or waits:
            return self.spent
        return self.spent + self.taken()

    def taken(self) -> Usage:
        """The estimated usage of its last request so far."""
        prompt = self.started.prompt_tokens
        said = [*self.reasoning, *self.text, *self.called]
        # Endpoints stream at least one token in each piece.
        pieces = sum(map(bool, said))
        return priced(usage_of(None, prompt, "".join(said), pieces), self.started.price)

    def proposal(self, layer: int, index: int, now: float, purpose: Purpose) -> Proposal:
        """The result of the call so far, as a proposal of an interrupted turn."""
        return Proposal(
            layer=layer,
            index=index,
            proposer=self.caller.name,
            model=self.caller.model,
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            usage=self.usage(),
            seconds=now - self.started.at,
            error=Failure("Interrupted", "cancelled"),
            purpose=purpose,
        )


class TurnFold:
    """A sink that folds the events of a turn into a `Turn`, and holds the turn so far. There is no
    other fold.

    For calls that were cut off with the turn, the usage is estimated, because their endpoints may
    bill it. ledger: a charge for each call that has ended, in the order of their ends.
    """

    def __init__(self) -> None:
        # The first event, or None before it; and the last event of a turn that has failed, or None.
        self._began: TurnStarted | None = None
        self._failed: TurnFailed | None = None
        self._status: TurnStatus = "open"
        self._usage = Usage()
        self._seconds = 0.0
        self._lost: tuple[str, ...] = ()
        self._reused = False
        self._decision: Decision | None = None
        self._report: Report | None = None
        # The cached result of `turn`; None if an event has come since.
        self._made: Turn | None = None
        self._proposals: list[list[Proposal]] = []
        # By layer and index, because two layers may run in parallel.
        self._callers: dict[tuple[int, int], Caller] = {}
        self._open: dict[tuple[int, int], _Open] = {}
        self._replying: _Open | None = None
        # The number of the layer of a whole reply. A report may follow it.
        self._replied_at: int | None = None
        self._model: str | None = None
        self._answered_by: str | None = None
        self._finish_reason: str | None = None
        self._citations: tuple[Citation, ...] = ()
        self._tool_calls = ToolCallBuilder()
        self._logprobs: list[str] = []
        self._called: list[str] = []
        self._text: list[str] = []
        self._reasoning: list[str] = []
        # The number of the last layer before the reply, and the purpose of each layer.
        self._last = 0
        self._purposes: dict[int, Purpose] = {}
        self._reviews: list[Proposal] = []
        self._now = 0.0
        self.ledger: list[Charge] = []

    def handle(self, event: Event) -> None:
        """Take the next event."""
        self._now, self._made = event.at, None
        match event:
            # The most frequent events come first.
            case AggregatorDelta():
                self._text.append(event.text)
                self._reasoning.append(event.reasoning)
                if event.tool_calls:
                    self._tool_calls.take(event.tool_calls)
                    self._called += [piece.name + piece.arguments for piece in event.tool_calls]
                if event.token_logprobs:
                    self._logprobs += event.token_logprobs
            case ProposerDelta():
                open_call = self._open.get((event.layer, event.index))
                if open_call is not None:
                    open_call.text.append(event.text)
                    open_call.reasoning.append(event.reasoning)
            case ProposerStarted() if (event.layer, event.index) in self._callers:
                place = event.layer, event.index
                self._open[place] = _Open(self._callers[place], event)
            case ProposerFinished() | ProposerFailed():
                self._open.pop((event.layer, event.index), None)
                self._add(event.proposal)
            case TurnStarted():
                self._began, self._last = event, event.rounds
            case LayerStarted():
                for index, caller in enumerate(event.proposers):
                    self._callers[event.layer, index] = caller
                self._last = max(self._last, event.layer)
                self._purposes[event.layer] = event.purpose
                if not event.purpose and event.layer > len(self._proposals):
                    self._proposals.append([])
            case Retrying():
                call = self._call_of(event)
                if call is not None:
                    call.resumes = time.monotonic() + event.delay
                    if event.withdrawn:
                        self._withdraw(call)
            case Queued():
                call = self._call_of(event)
                if call is not None:
                    call.resumes = math.inf if event.reason else time.monotonic()
            case Hedged():
                call = self._call_of(event)
                if call is not None:
                    call.spent += call.taken()
            case AggregatorStarted():
                self._begin_reply()
                self._model = event.model
                self._reused = event.reused
                self._replying = _Open(Caller(name=event.name, model=event.model), event)
            case AggregatorFinished():
                self._replied_at = self._last + 1
                # The finished text is used, because sometimes only the end of an answer shows which
                # part of it was reasoning.
                self._text, self._reasoning = [event.text], [event.reasoning]
                # An alternative or a stand-in of the first model may have answered.
                self._model = event.model
                self._answered_by, self._finish_reason = event.answered_by, event.finish_reason
                self._citations = event.citations
                self._replied(event.model, event.usage, event.answered_by)
            case AggregatorFailed():
                self._replied(event.model, event.usage)
            case Decided():
                self._decision = event.decision
            case Reported():
                self._report = event.report
            case TurnFinished():
                self._end("finished", event)
            case TurnFailed():
                self._failed = event
                self._end("failed", event)

    def _call_of(self, event: Retrying | Queued | Hedged) -> _Open | None:
        if event.index is None:
            return self._replying
        return self._open.get((event.layer, event.index))

    def _withdraw(self, call: _Open) -> None:
        """Remove the text of a call that was withdrawn. Its usage stays, because it was paid
        for."""
        if call is self._replying:
            call.text, call.reasoning, call.called = self._text, self._reasoning, self._called
            self._begin_reply()
        call.spent += call.taken()
        call.text, call.reasoning, call.called = [], [], []

    def _begin_reply(self) -> None:
        self._text, self._reasoning, self._called = [], [], []
        self._tool_calls, self._logprobs = ToolCallBuilder(), []

    def _add(self, proposal: Proposal) -> None:
        if proposal.purpose:
            self._reviews.append(proposal)
        else:
            self._proposals[proposal.layer - 1].append(proposal)
        model, usage = proposal.model, proposal.usage
        self._charge(Charge(proposal.layer, model, usage, proposal.answered_by))

    def _replied(self, model: str, usage: Usage, answered_by: str | None = None) -> None:
        self._replying = None
        self._charge(Charge(self._last + 1, model, usage, answered_by))

    def _charge(self, charge: Charge) -> None:
        if charge.usage.calls:
            self.ledger.append(charge)

    def _end(self, status: TurnStatus, event: TurnFinished | TurnFailed) -> None:
        self._status, self._usage = status, event.usage
        self._seconds, self._lost = event.seconds, event.lost

    def pass_time(self, seconds: float) -> None:
        """Set the time since the turn began. No event tells it if the turn is cut off while its
        models are silent."""
        self._now = max(self._now, seconds)

    def close(self) -> None:
        """End the turn. If no event has ended it, it was interrupted. But if a whole reply was
        there and a step after it was interrupted, the turn counts as finished."""
        if self._status != "open":
            return
        for (layer, index), call in sorted(self._open.items()):
            self._add(call.proposal(layer, index, self._now, self._purposes[layer]))
        self._open = {}
        if self._replying is not None:
            call = self._replying
            call.text, call.reasoning, call.called = self._text, self._reasoning, self._called
            self._replied(call.caller.model, call.usage())
        followed = self._replied_at is not None and self._last >= self._replied_at
        self._status, self._seconds, self._made = "interrupted", self._now, None
        if followed:
            self._status, self._lost = "finished", self._losses()
        self._usage = sum((charge.usage for charge in self.ledger), Usage())

    def _losses(self) -> tuple[str, ...]:
        """A sentence for each proposal or review that failed."""
        return tuple(
            f"{proposal.proposer}{of}: {proposal.error.message}"
            for layer in (*self._proposals, self._reviews)
            for proposal in layer
            if proposal.error is not None
            for of in [f" ({REVIEW_NAMES[proposal.purpose]})" if proposal.purpose else ""]
        )

    def turn(self) -> Turn:
        """The turn so far: partial if it is not finished."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def _make(self) -> Turn:
        text = "".join(self._text)
        began, failed = self._began, self._failed
        return Turn(
            user=began.prompt if began else "",
            profile=began.profile if began else "",
            parts=began.parts if began else (),
            status=self._status,
            usage=self._usage,
            seconds=self._seconds,
            lost=self._lost,
            error=failed.error if failed else None,
            causes=failed.causes if failed else (),
            reused=self._reused,
            model=self._model,
            answered_by=self._answered_by,
            finish_reason=self._finish_reason,
            citations=self._citations,
            tool_calls=self._tool_calls.calls(),
            token_logprobs=tuple(self._logprobs),
            reply=text if text or self._status == "finished" else None,
            reasoning="".join(self._reasoning),
            ledger=tuple(self.ledger),
            reviews=tuple(self._reviews),
            decision=self._decision,
            report=self._report,
            proposals=tuple(
                tuple(sorted(layer, key=lambda proposal: proposal.index))
                for layer in self._proposals
            ),
        )
