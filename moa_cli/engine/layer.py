"""One layer of proposers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from moa_cli.core import events
from moa_cli.core.conversation import Failure, Proposal
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import BudgetReached, ClientError
from moa_cli.core.values import unchecked
from moa_cli.engine.call import Begun, Planned, Step, failure
from moa_cli.engine.prompts import strip_reasoning
from moa_cli.engine.state import TurnState

_ABANDONED = Failure("Abandoned", "not waited for")


async def run_layer(state: TurnState, number: int) -> None:
    """Run layer `number`; leaves its answers as the state's references.

    Those of the layer before stay there if this one was cut short before its first answer.
    Raises BudgetReached, before anything is sent or told, if the layer would go beyond a cap;
    or behind its last event, if an answer did.
    """
    planned = await state.plan(number, state.profile.layer(number))
    await _Layer(state, number, planned).run()


class _Layer:
    def __init__(self, state: TurnState, number: int, planned: Sequence[Planned]) -> None:
        self._state = state
        self._number = number
        self._planned = planned
        self._calls = [state.call(call) for call in planned]
        self._asked = [index for index, call in enumerate(planned) if call.error is None]
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        self._answers: dict[int, Proposal] = {}
        self._capped: BudgetReached | None = None
        # Set when nothing more is waited for.
        self._over = asyncio.Event()

    async def run(self) -> None:
        state, began = self._state, self._state.now()
        callers = tuple(
            events.Caller(name=call.name, model=call.settings.model) for call in self._planned
        )
        await state.emit_and_wait(
            events.LayerStarted(at=began, layer=self._number, proposers=callers)
        )
        for index, call in enumerate(self._planned):
            if call.error is not None:
                self._lose_unasked(index, call.error)
        # With nothing to wait for, "enough" would be waited for.
        if self._asked:
            await self._ask_all()
        for index in self._asked:
            if index not in self._begun:
                self._lose_unasked(index, _ABANDONED)
            elif index not in self._ended:
                # Its call is cut off, and so is settled.
                usage = self._calls[index].settle(self._calls[index].price)
                self._lose(self._calls[index].proposal(usage, _ABANDONED), _ABANDONED)
        answers = self._answers
        if answers or not state.control.said_enough:
            state.references = [answers[index] for index in sorted(answers)]
        await state.emit_and_wait(
            events.LayerFinished(
                at=state.now(),
                layer=self._number,
                answered=len(answers),
                asked=len(self._planned),
                seconds=state.now() - began,
            )
        )
        if self._capped is not None:
            raise self._capped

    async def _ask_all(self) -> None:
        """Ask the proposers side by side, until all have ended, a cap is reached, or what has
        arrived is enough; then hang up on the others."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._ask(index)) for index in self._asked]
                tasks.append(group.create_task(self._wait_for_enough()))
                await self._over.wait()
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as bugs:
            raise bugs.exceptions[0] from None

    async def _wait_for_enough(self) -> None:
        await self._state.control.wait()
        await self._state.arrived.wait()
        self._over.set()

    async def _ask(self, index: int) -> None:
        state, call = self._state, self._calls[index]
        error = None
        try:
            await call.run(partial(self._tell, index))
        except ClientError as raised:
            error = failure(raised)
        except BudgetReached as reached:
            self._capped, error = reached, failure(reached)
        if error is None and not strip_reasoning(call.text):
            error = failure(call.no_answer())
        usage = await state.taken(call)
        # From here on without a pause: a proposal that has arrived is told of, and used, also if
        # the layer is over in this moment.
        proposal = call.proposal(usage, error)
        self._ended.add(index)
        if error is None:
            self._answers[index] = proposal
            state.usage += usage
            state.arrived.set()
            state.emit(
                events.ProposerFinished(
                    at=state.now(), layer=self._number, index=index, proposal=proposal
                )
            )
        else:
            self._lose(proposal, error)
        if self._capped is not None or len(self._ended) == len(self._asked):
            self._over.set()

    def _tell(self, index: int, step: Step) -> None:
        state, planned = self._state, self._planned[index]
        if isinstance(step, Begun):
            self._begun.add(index)
            self._emit_started(index)
            state.emit_trimmed(planned)
        elif not isinstance(step, Delta):
            state.emit_step(planned, step)
        elif step.text or step.reasoning:
            state.emit(
                unchecked(
                    events.ProposerDelta,
                    at=state.now(),
                    layer=self._number,
                    index=index,
                    text=step.text,
                    reasoning=step.reasoning,
                )
            )

    def _emit_started(self, index: int) -> None:
        planned = self._planned[index]
        self._state.emit(
            events.ProposerStarted(
                at=self._state.now(),
                layer=self._number,
                index=index,
                prompt_tokens=planned.fitted.tokens if index in self._begun else 0,
                price=planned.info.price,
            )
        )

    def _lose_unasked(self, index: int, error: Failure) -> None:
        """A proposer is lost without having been asked."""
        name, model = self._planned[index].name, self._planned[index].settings.model
        self._emit_started(index)
        self._lose(Proposal(self._number, index, name, model, "", error=error), error)

    def _lose(self, proposal: Proposal, error: Failure) -> None:
        state = self._state
        state.usage += proposal.usage
        state.lose(proposal.proposer, error)
        state.emit(
            events.ProposerFailed(
                at=state.now(), layer=self._number, index=proposal.index, proposal=proposal
            )
        )
