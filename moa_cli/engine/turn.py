"""The mixture itself: one turn as an async generator of events.

Layers, eq. 1 of the paper (arXiv:2406.04692): every model of a layer is given the answers
of the layer before; the aggregator, as the last layer's only model, writes the reply.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from moa_cli.clients.base import Clients
from moa_cli.conversation import Conversation, Failure, Proposal, Usage
from moa_cli.engine.call import Call, Limits, Retry, failure
from moa_cli.engine.control import Control
from moa_cli.errors import BadResponse, ClientError, MoAError, NotEnoughProposals, TurnError
from moa_cli.events import (
    AggregatorDelta,
    AggregatorFailed,
    AggregatorFinished,
    AggregatorStarted,
    Caller,
    Event,
    LayerFinished,
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
from moa_cli.profile import ModelSettings, Profile, Proposer, short_name
from moa_cli.prompts import messages_for, strip_reasoning
from moa_cli.stream import merge

__all__ = ["run_turn"]

_PROPOSER_TIMEOUT, _AGGREGATOR_TIMEOUT = 180.0, 600.0


async def run_turn(
    profile: Profile,
    conversation: Conversation,
    clients: Clients,
    *,
    control: Control | None = None,
    limits: Limits | None = None,
    references: Sequence[str] | None = None,
) -> AsyncGenerator[Event, None]:
    """Answer the open turn of `conversation` (see `Conversation.ask`) by the profile's mixture.

    Yields the turn's events; trouble at an endpoint is an event, only a bug raises. Closing
    the generator at any point cancels every call; use `contextlib.aclosing` around it.

    references: answers that are there already; then no proposer is asked, and the aggregator
    writes its reply from these.
    """
    if not conversation.turns or conversation.turns[-1].reply is not None:
        raise ValueError("the conversation has no open turn; use conversation.ask(prompt)")
    turn = _Turn(profile, conversation, clients, control or Control(), limits or Limits())
    if references is not None:
        turn.give(references)
    async with aclosing(turn.run()) as events:
        async for event in events:
            yield event


class _Turn:
    def __init__(
        self,
        profile: Profile,
        conversation: Conversation,
        clients: Clients,
        control: Control,
        limits: Limits,
    ) -> None:
        self._profile = profile
        self._conversation = conversation
        self._clients = clients
        self._control = control
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._began = time.monotonic()
        self._usage = Usage()
        self._lost: list[str] = []
        self._causes: list[Failure] = []
        self._references: list[str] = []
        self._arrived = asyncio.Event()
        self._rounds = profile.rounds
        self._failed = False

    def give(self, references: Sequence[str]) -> None:
        """Use these, and ask no proposer."""
        self._references = list(references)
        self._rounds = 0

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _call(self, settings: ModelSettings, timeout: float) -> Call:
        messages = messages_for(self._profile, settings, self._conversation, self._references)
        return Call(settings, messages, self._clients, self._limits, self._slots, timeout=timeout)

    async def run(self) -> AsyncGenerator[Event, None]:
        profile = self._profile
        yield TurnStarted(
            at=self._now(),
            profile=profile.name,
            prompt=self._conversation.turns[-1].user,
            rounds=self._rounds,
            aggregator=profile.aggregator.model,
        )
        for number in range(1, self._rounds + 1):
            async with aclosing(self._layer(number)) as events:
                async for event in events:
                    yield event
            if not self._references:
                break
            if self._control.said_enough:
                if number < self._rounds:
                    self._lost.append(f"layers after {number} were skipped")
                break
        if self._rounds and not self._references and profile.on_all_failed == "fail":
            yield self._ended_without_reply(NotEnoughProposals("no proposer answered"))
            return
        async with aclosing(self._aggregate()) as events:
            async for event in events:
                yield event
        if self._failed:
            yield self._ended_without_reply(TurnError("there is no whole reply"))
        else:
            yield TurnFinished(
                at=self._now(), usage=self._usage, seconds=self._now(), lost=tuple(self._lost)
            )

    def _ended_without_reply(self, error: MoAError) -> TurnFailed:
        return TurnFailed(
            at=self._now(),
            error=failure(error),
            causes=tuple(self._causes),
            usage=self._usage,
            seconds=self._now(),
            lost=tuple(self._lost),
        )

    async def _layer(self, number: int) -> AsyncGenerator[Event, None]:
        """One layer; leaves its answers in `_references`.

        Those of the layer before stay there if this one was cut short before its first answer.
        """
        began = self._now()
        proposers = self._profile.layer(number)
        calls = [self._call(one, _PROPOSER_TIMEOUT) for one in proposers]
        callers = tuple(Caller(name=one.name or one.model, model=one.model) for one in proposers)
        yield LayerStarted(at=began, layer=number, proposers=callers)
        for index in range(len(proposers)):
            yield ProposerStarted(at=self._now(), layer=number, index=index)
        answers: dict[int, str] = {}
        running = set(range(len(proposers)))
        streams = [
            self._proposer(number, index, proposer, call)
            for index, (proposer, call) in enumerate(zip(proposers, calls, strict=True))
        ]
        async with aclosing(merge(*streams, self._enough())) as events:
            async for event in events:
                if event is None:
                    break
                if isinstance(event, ProposerFinished | ProposerFailed):
                    running.discard(event.index)
                    if isinstance(event, ProposerFinished):
                        answers[event.index] = event.proposal.text
                    self._note(event.proposal, proposers[event.index])
                yield event
                if not running:
                    break
        for index in sorted(running):
            yield self._abandoned(number, index, proposers[index], calls[index])
        if answers or not self._control.said_enough:
            self._references = [answers[index] for index in sorted(answers)]
        yield LayerFinished(
            at=self._now(),
            layer=number,
            answered=len(answers),
            asked=len(proposers),
            seconds=self._now() - began,
        )

    async def _enough(self) -> AsyncGenerator[None, None]:
        """None once there is no more to wait for; it comes behind all that arrived before."""
        await self._control.wait()
        await self._arrived.wait()
        yield None

    async def _proposer(
        self, layer: int, index: int, proposer: Proposer, call: Call
    ) -> AsyncGenerator[Event | None, None]:
        error: Failure | None = None
        try:
            async with aclosing(call.run()) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Retry):
                        yield self._retrying(layer, index, proposer, piece)
                    elif piece.text or piece.reasoning:
                        yield ProposerDelta(
                            at=self._now(),
                            layer=layer,
                            index=index,
                            text=piece.text,
                            reasoning=piece.reasoning,
                        )
        except ClientError as raised:
            error = failure(raised)
        if error is None and not strip_reasoning(call.text):
            error = failure(BadResponse("it gave reasoning, but no answer"))
        if error is None:
            self._arrived.set()
        proposal = call.proposal(layer, index, proposer, error)
        kind = ProposerFailed if error else ProposerFinished
        yield kind(at=self._now(), layer=layer, index=index, proposal=proposal)

    def _abandoned(self, layer: int, index: int, proposer: Proposer, call: Call) -> Event:
        error = Failure("Abandoned", "not waited for")
        proposal = call.proposal(layer, index, proposer, error)
        self._note(proposal, proposer)
        return ProposerFailed(at=self._now(), layer=layer, index=index, proposal=proposal)

    def _note(self, proposal: Proposal, proposer: Proposer) -> None:
        self._usage += proposal.usage
        if proposal.error is not None:
            self._lose(proposer.name or proposer.model, proposal.error)

    def _lose(self, name: str, error: Failure) -> None:
        self._lost.append(f"{name}: {error.message}")
        self._causes.append(error)

    def _retrying(
        self, layer: int, index: int | None, settings: ModelSettings, retry: Retry
    ) -> Retrying:
        return Retrying(
            at=self._now(),
            layer=layer,
            index=index,
            model=settings.model,
            attempt=retry.attempt,
            delay=retry.delay,
            error=retry.error,
        )

    async def _aggregate(self) -> AsyncGenerator[Event, None]:
        """The reply, by the first aggregator that gives one."""
        for place, settings in enumerate(self._profile.aggregators()):
            yield AggregatorStarted(
                at=self._now(),
                name=short_name(settings.model),
                model=settings.model,
                references=len(self._references),
                fallback=place > 0,
            )
            call = self._call(settings, _AGGREGATOR_TIMEOUT)
            error: Failure | None = None
            try:
                async with aclosing(call.run()) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, Retry):
                            layer = self._rounds + 1
                            yield self._retrying(layer, None, settings, piece)
                        elif piece.text or piece.reasoning:
                            yield AggregatorDelta(
                                at=self._now(), text=piece.text, reasoning=piece.reasoning
                            )
            except ClientError as raised:
                error = failure(raised)
            self._usage += call.usage
            if error is None:
                yield self._aggregated(settings, call)
                return
            self._lose(short_name(settings.model), error)
            yield AggregatorFailed(
                at=self._now(),
                model=settings.model,
                error=error,
                text=call.text,
                usage=call.usage,
                seconds=call.seconds,
            )
            if call.text:
                break
        self._failed = True

    def _aggregated(self, settings: ModelSettings, call: Call) -> AggregatorFinished:
        return AggregatorFinished(
            at=self._now(),
            model=settings.model,
            text=call.text,
            reasoning=call.reasoning,
            answered_by=call.answered_by,
            usage=call.usage,
            seconds=call.seconds,
            first_token=call.first_token,
            finish_reason=call.finish_reason,
        )
