"""One layer of proposers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from moa_cli.core.conversation import Failure, Proposal
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import BadResponse, BudgetReached, ClientError
from moa_cli.core.events import (
    Caller,
    Event,
    LayerFinished,
    LayerStarted,
    ProposerDelta,
    ProposerFailed,
    ProposerFinished,
    ProposerStarted,
)
from moa_cli.core.stream import merge
from moa_cli.engine.call import Begun, Retry, failure
from moa_cli.engine.prompts import strip_reasoning
from moa_cli.engine.state import Planned, TurnState
from moa_cli.profile import Proposer

__all__ = ["run_layer"]

_TIMEOUT = 180.0
_ABANDONED = Failure("Abandoned", "not waited for")


async def run_layer(state: TurnState, number: int) -> AsyncGenerator[Event, None]:
    """The events of layer `number`; leaves its answers as the state's references.

    Those of the layer before stay there if this one was cut short before its first answer.
    Raises BudgetReached, before anything is sent or told, if the layer would go beyond a cap;
    or behind its last event, if an answer did.
    """
    proposers = state.profile.layer(number)
    layer = _Layer(state, number, proposers, await state.plan(number, proposers))
    async with aclosing(layer.run()) as events:
        async for event in events:
            yield event


class _Layer:
    def __init__(
        self,
        state: TurnState,
        number: int,
        proposers: Sequence[Proposer],
        planned: Sequence[Planned],
    ) -> None:
        self._state = state
        self._number = number
        self._proposers = proposers
        self._planned = planned
        self._calls = [
            state.call(one, _TIMEOUT, number, index) for index, one in enumerate(planned)
        ]
        self._capped: BudgetReached | None = None
        self._running = {place for place, one in enumerate(planned) if one.error is None}
        self._begun: set[int] = set()
        self._answers: dict[int, str] = {}

    async def run(self) -> AsyncGenerator[Event, None]:
        state, proposers = self._state, self._proposers
        began = state.now()
        callers = tuple(Caller(name=one.name or one.model, model=one.model) for one in proposers)
        yield LayerStarted(at=began, layer=self._number, proposers=callers)
        for index, one in enumerate(self._planned):
            if one.error is not None:
                for event in self._lost_unasked(index, one.error):
                    yield event
        streams = [self._proposer(index) for index in sorted(self._running)]
        # With nothing to wait for, "enough" would be waited for.
        if streams:
            async with aclosing(merge(*streams, self._enough())) as told:
                async for news in told:
                    if news is None:
                        break
                    if isinstance(news, ProposerFinished | ProposerFailed):
                        self._ended(news)
                    yield news
                    if not self._running or self._capped is not None:
                        break
        for index in sorted(self._running):
            if index not in self._begun:
                for event in self._lost_unasked(index, _ABANDONED):
                    yield event
            else:
                yield await self._abandoned(index)
        answers = self._answers
        if answers or not state.control.said_enough:
            state.references = [answers[index] for index in sorted(answers)]
        yield LayerFinished(
            at=state.now(),
            layer=self._number,
            answered=len(answers),
            asked=len(proposers),
            seconds=state.now() - began,
        )
        if self._capped is not None:
            raise self._capped

    def _started(self, index: int) -> ProposerStarted:
        one = self._planned[index]
        tokens = one.tokens if index in self._begun else 0
        return ProposerStarted(
            at=self._state.now(),
            layer=self._number,
            index=index,
            prompt_tokens=tokens,
            price=one.info.price,
        )

    def _lost_unasked(self, index: int, error: Failure) -> list[Event]:
        """That a proposer is lost without having been asked."""
        proposal = self._proposal(index, error)
        self._note(proposal)
        return [self._started(index), self._failed(proposal)]

    def _ended(self, event: ProposerFinished | ProposerFailed) -> None:
        self._running.discard(event.index)
        if isinstance(event, ProposerFinished):
            self._answers[event.index] = event.proposal.text
        self._note(event.proposal)

    async def _enough(self) -> AsyncGenerator[None, None]:
        """None once there is no more to wait for; it comes behind all that arrived before."""
        await self._state.control.wait()
        await self._state.arrived.wait()
        yield None

    async def _proposer(self, index: int) -> AsyncGenerator[Event | None, None]:
        call = self._calls[index]
        error: Failure | None = None
        try:
            async with aclosing(call.run()) as pieces:
                async for piece in pieces:
                    for event in self._told(index, piece):
                        yield event
        except ClientError as raised:
            error = failure(raised)
        except BudgetReached as reached:
            self._capped, error = reached, failure(reached)
        if error is None and not strip_reasoning(call.text):
            error = failure(BadResponse("it gave reasoning, but no answer"))
        usage = await self._state.taken(call, self._proposers[index].model)
        if error is None:
            self._state.arrived.set()
        proposal = call.proposal(self._number, index, self._proposers[index], usage, error)
        if error is not None:
            yield self._failed(proposal)
        else:
            yield ProposerFinished(
                at=self._state.now(), layer=self._number, index=index, proposal=proposal
            )

    def _told(self, index: int, piece: Begun | Delta | Retry) -> list[Event]:
        """The events of one piece of a call."""
        if isinstance(piece, Begun):
            self._begun.add(index)
            started = self._started(index)
            return [started, *self._state.trimmed(self._number, index, self._planned[index])]
        if isinstance(piece, Retry):
            return [self._state.retrying(self._number, index, self._proposers[index], piece)]
        if not (piece.text or piece.reasoning):
            return []
        delta = ProposerDelta(
            at=self._state.now(),
            layer=self._number,
            index=index,
            text=piece.text,
            reasoning=piece.reasoning,
        )
        return [delta]

    async def _abandoned(self, index: int) -> Event:
        call, proposer = self._calls[index], self._proposers[index]
        usage = await self._state.taken(call, proposer.model, ended=False)
        proposal = call.proposal(self._number, index, proposer, usage, _ABANDONED)
        self._note(proposal)
        return self._failed(proposal)

    def _proposal(self, index: int, error: Failure) -> Proposal:
        proposer = self._proposers[index]
        name = proposer.name or proposer.model
        return Proposal(self._number, index, name, proposer.model, "", error=error)

    def _failed(self, proposal: Proposal) -> ProposerFailed:
        return ProposerFailed(
            at=self._state.now(), layer=self._number, index=proposal.index, proposal=proposal
        )

    def _note(self, proposal: Proposal) -> None:
        self._state.usage += proposal.usage
        if proposal.error is not None:
            self._state.lose(proposal.proposer, proposal.error)
