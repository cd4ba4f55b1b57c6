"""One layer of proposers, or of reviewers: who is asked, how long the layer waits, and which
answers are used.

All proposers are asked in parallel. The layer ends when all have ended, when `patience` is over
after a quorum has answered, when `Control.enough` is called, or at a cap. A proposer that has not
ended by then is cut off. Its text so far can become a reference, marked as unfinished, if the
profile says so (`use_partial`) or `Control.enough` was called: this text was paid for, and the user
has seen it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from moa_cli.core import events
from moa_cli.core.conversation import Failure, Proposal, Usage
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import BudgetReached, ClientError, ClientTimeout
from moa_cli.core.outcomes import UNFINISHED
from moa_cli.core.strategy import REVIEW_NAMES, SKIPPABLE, Purpose
from moa_cli.core.text import holds_sentence, plural
from moa_cli.core.values import unchecked
from moa_cli.engine.agreement.agreed import stop_early
from moa_cli.engine.calls.call import Begun, Call, Planned, Step, failure
from moa_cli.engine.prompts import strip_reasoning
from moa_cli.engine.state import TurnState
from moa_cli.engine.subsets import references_of_calls
from moa_cli.profile import ModelSettings

_ABANDONED = Failure("Abandoned", "not waited for")
# Seconds between two checks of which calls have patience left; and the seconds of patience below
# which a call has none left.
_STEP, _NO_TIME = 0.1, 1e-6


async def run_reviews(
    state: TurnState, planned: Sequence[Planned], purpose: Purpose
) -> list[Proposal]:
    """Run a layer of reviews to its end. Returns the reviews that came, in the order of the calls.

    planned: the calls, see `TurnState.plan`. purpose: the purpose of the reviews. Raises
    BudgetReached after the last event of the layer, if an answer exceeded a cap.
    """
    layer = LayerRun(state, planned[0].place.layer, planned, overlaps=False, purpose=purpose)
    state.layer = layer if layer.skippable else None
    try:
        await _run_alone(layer)
    finally:
        state.layer = None
        # Keep the reviews even if the turn ends here: they were paid for, and can be used again.
        state.reviews.keep([*layer.references, *layer.lost.values()], state.used_reviews)
    return layer.references


async def run_first(
    state: TurnState, models: Sequence[ModelSettings], begun: LayerRun | None
) -> LayerRun:
    """Ask only the first models of the first layer, and return the layer with their answers.

    models: the models to ask. begun: the same layer with fewer models, whose answers are kept.
    Raises BudgetReached as `run_layers` does.
    """
    planned = await _planned(state, 1, models, begun)
    layer = LayerRun(state, 1, planned, overlaps=False, begun=begun)
    state.layer = layer
    await _run_alone(layer)
    return layer


async def _run_alone(layer: LayerRun) -> None:
    """Run a layer to its end, with no other layer in parallel. Raises BudgetReached after its last
    event, if an answer exceeded a cap."""
    await layer.run()
    if layer.capped is not None:
        raise layer.capped


async def _planned(
    state: TurnState, number: int, models: Sequence[ModelSettings], begun: LayerRun | None
) -> list[Planned]:
    before = [] if begun is None else begun.planned
    prompt = state.conversation.turns[-1].user
    references = references_of_calls(state.profile, state.references, prompt, number, len(models))
    more = await state.plan(
        number,
        models[len(before) :],
        before=before,
        references=None if references is None else references[len(before) :],
    )
    return [*before, *more]


async def run_layers(state: TurnState, begun: LayerRun | None = None) -> None:
    """Run the layers of proposers, one after another. The answers of the last layer with a whole
    answer become the state's references.

    With `overlap`, a layer begins as soon as the layer before has its quorum. The stragglers of the
    layer before may go on within their patience until the new layer has its answers. Their answers
    come too late for its prompts. They are kept, and are used if the new layer gives no whole
    answer.

    begun: the first layer, if some of its models have answered already. Raises BudgetReached before
    the first request and the first event of a layer, if the layer would exceed a cap; or after the
    last event of the layers, if an answer exceeded one.
    """
    try:
        async with asyncio.TaskGroup() as group:
            await _run_layers(state, group, begun)
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


async def _run_layers(state: TurnState, group: asyncio.TaskGroup, begun: LayerRun | None) -> None:
    # The layer before, while its stragglers run on.
    behind: LayerRun | None = None
    for number in range(1, state.rounds + 1):
        try:
            planned = await _planned(state, number, state.profile.layer(number), begun)
            if behind is not None and behind.capped is not None:
                raise behind.capped
        except BudgetReached:
            if behind is not None:
                await behind.end()
            raise
        overlaps = state.profile.overlap and number < state.rounds
        layer = LayerRun(state, number, planned, overlaps=overlaps, begun=begun)
        begun = None
        state.layer = layer
        if overlaps or behind is not None:
            layer.start(group, behind)
            await layer.passed.wait()
        else:
            # Nothing runs in parallel, so it needs no separate task.
            await layer.run()
        if behind is not None:
            await behind.end()
        for run in (behind, layer):
            if run is not None and run.capped is not None:
                await layer.end()
                raise run.capped
        if layer.goes_on and await stop_early(state, layer.references) is not None:
            # The answers so far agree. The stragglers may not, so the layer runs to its end before
            # the turn decides whether the next layer is needed.
            await layer.ended()
            if layer.capped is not None:
                raise layer.capped
        elif layer.goes_on:
            behind, state.references = layer, layer.references
            continue
        used = layer.leave_references(behind)
        behind = None
        if not used or state.control.said_enough:
            if state.references and number < state.rounds:
                state.lost.append(f"layers after {number} were skipped")
            break
        if number < state.rounds:
            agreed = await stop_early(state, layer.references)
            if agreed is not None:
                left = range(number + 1, state.rounds + 1)
                told = f"the last {plural(len(left), 'round')} of {state.rounds} not run"
                models = [model for later in left for model in state.profile.layer(later)]
                saved = await state.would_take(models, state.references)
                state.skip(told, agreed, saved)
                break


class LayerRun:
    """A layer that runs.

    overlaps: whether the next layer begins as soon as the quorum of this one has answered. begun:
    the same layer, already ended, with only the first of these calls. purpose: what the layer asks
    for; empty for proposals.

    planned: its calls. passed: set when the next layer may begin, or this one has ended. goes_on:
    whether the next layer begins before this one ends. capped: the error of the cap that stopped
    its answers, or None. lost: the calls without an answer, as proposals, by their places.
    skippable: whether a reply is possible without the answers of this layer, so that "enough" ends
    it at once.
    """

    def __init__(
        self,
        state: TurnState,
        number: int,
        planned: Sequence[Planned],
        *,
        overlaps: bool,
        purpose: Purpose = "",
        begun: LayerRun | None = None,
    ) -> None:
        self._state = state
        self._number = number
        self.planned = planned
        self._overlaps = overlaps
        self._purpose: Purpose = purpose
        self.skippable = purpose in SKIPPABLE
        before: list[Call] = [] if begun is None else begun._calls
        self._calls: list[Call] = [*before, *map(state.call, planned[len(before) :])]
        self._asked = [index for index, call in enumerate(planned) if call.error is None]
        # A layer of reviews has no quorum: it waits for all reviews, within the limits that each
        # call has.
        self._quorum = None if purpose else state.profile.quorum_of(number)
        self._patience = 0.0 if purpose else state.profile.patience_of(number)
        # Calls to which an endpoint has reacted, even if it refused them.
        self._heard: set[int] = set() if begun is None else begun._heard
        # Why each ended call gave no answer; None if it gave one. It is noted as soon as the call
        # has ended. The event of its proposal comes later, when the price is known.
        self._outcomes: dict[int, Failure | None] = {} if begun is None else begun._outcomes
        # Calls that were lost because their model was silent.
        self._silent: set[int] = set() if begun is None else begun._silent
        self._told: set[int] = set() if begun is None else begun._told
        self._answers: dict[int, Proposal] = {} if begun is None else begun._answers
        self.lost: dict[int, Proposal] = {} if begun is None else begun.lost
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._run: asyncio.Task[None] | None = None
        # The next layer, if it began before the end of this one; and whether it has its answers
        # before this one has ended.
        self._next: LayerRun | None = None
        self._outrun = False
        # Whether a cap was reached in the layer before, which runs in parallel.
        self._stopped = False
        # Set when a quorum has answered.
        self._stands = asyncio.Event()
        # Set when the layer waits for no more answers.
        self._over = asyncio.Event()
        self.passed = asyncio.Event()
        self.goes_on = False
        self.capped: BudgetReached | None = None

    def start(self, group: asyncio.TaskGroup, before: LayerRun | None) -> None:
        """Begin to run in a task of the group. before: the layer before, if its stragglers still
        run."""
        if before is not None:
            before._next = self
        self._run = group.create_task(self.run())

    async def end(self) -> None:
        """Cut off the calls that still run, and return once the layer has ended."""
        self._outrun = not self._over.is_set()
        self._over.set()
        await self.ended()

    async def ended(self) -> None:
        """Wait until the layer has ended, without cutting off any call."""
        if self._run is not None:
            await asyncio.wait([self._run])

    async def run(self) -> None:
        """Run the layer to its end."""
        try:
            await self._ask_and_tell()
        finally:
            self._state.forget(self._calls)
            self.passed.set()

    async def _ask_and_tell(self) -> None:
        state, began = self._state, self._state.now()
        callers = tuple(
            events.Caller(name=call.name, model=call.settings.model) for call in self.planned
        )
        await state.emit_and_wait(
            events.LayerStarted(
                at=began, layer=self._number, proposers=callers, purpose=self._purpose
            )
        )
        for index, call in enumerate(self.planned):
            if call.error is not None and index not in self._told:
                self._lose_unasked(index, call.error)
        # Without an open call, only "enough" would end the wait.
        if self._open:
            await self._ask_all()
        for index in self._open:
            self._cut_off(index)
        self._note_silence()
        finished = events.LayerFinished(
            at=state.now(),
            layer=self._number,
            answered=len(self._answers),
            asked=len(self.planned),
            seconds=state.now() - began,
        )
        if self.goes_on:
            # The next layer runs already, so there is nothing to hold back.
            state.emit(finished)
        else:
            await state.emit_and_wait(finished)

    @property
    def references(self) -> list[Proposal]:
        """Its answers by now, in the order of the profile."""
        return [self._answers[index] for index in sorted(self._answers)]

    def leave_references(self, before: LayerRun | None) -> bool:
        """Make the answers of this layer the references of the next step, if they are usable.
        Returns whether they are.

        before: the layer before, if this one began before its end.
        """
        state, number = self._state, self._number
        if before is not None:
            # The layer before may have more answers now than when this layer began.
            state.references = before.references
        if self._answers and (self._whole or not state.references):
            state.references = self.references
            return True
        if state.references:
            state.lost.append(
                f"round {number} gave no complete answer: the reply is written from round"
                f" {number - 1}"
            )
        return False

    @property
    def usable(self) -> bool:
        """Whether a reply could be written from the answers of this layer so far."""
        begun = (index for index, call in enumerate(self._calls) if call.begun)
        return bool(self._answers) or any(map(self._speaks, begun))

    @property
    def _whole(self) -> int:
        """The number of finished answers."""
        return sum(not proposal.unfinished for proposal in self._answers.values())

    def _speaks(self, index: int) -> bool:
        """Whether a call has not failed, and has written at least a sentence of its answer."""
        return self._outcomes.get(index) is None and self._wrote(index)

    def _wrote(self, index: int) -> bool:
        return holds_sentence(strip_reasoning(self._calls[index].text))

    @property
    def _uses_partial(self) -> bool:
        # If the next layer runs already, an unfinished answer comes too late for its prompts.
        return self._state.profile.use_partial and not self.goes_on and not self._purpose

    @property
    def _at_cap(self) -> bool:
        return self.capped is not None or self._stopped

    async def _ask_all(self) -> None:
        """Ask the proposers in parallel until the layer is over, and cancel the calls that still
        run then."""
        try:
            async with asyncio.TaskGroup() as group:
                for index in self._open:
                    self._tasks[index] = group.create_task(self._ask(index))
                quorum = self._quorum is not None
                others = [group.create_task(self._wait_for_quorum())] if quorum else []
                with self._state.control.calling(self._end_if_enough):
                    await self._over.wait()
                for task in (*self._tasks.values(), *others):
                    task.cancel()
        except BaseExceptionGroup as bugs:
            raise bugs.exceptions[0] from None

    def _end_if_enough(self) -> None:
        """ "Enough" was called: end the layer if there is an answer to go on with. If there is none
        yet, `_arrived` ends it."""
        if self.skippable or (not self._purpose and (self.usable or self._state.arrived)):
            self._over.set()

    def _arrived(self) -> None:
        """An answer, or a sentence of one, has come, so the turn can go on to the reply."""
        self._state.arrived = True
        if self._state.control.said_enough and not self._purpose:
            self._over.set()

    async def _wait_for_quorum(self) -> None:
        """Once a quorum has answered, cut off each call that has used up its patience.

        A call that still waits for a slot does not use up its patience: it is not slow, but our
        other calls are before it. When a call is cut off, its slot lets the next one begin.
        """
        await self._stands.wait()
        left = dict.fromkeys(self._asked, self._patience)
        while True:
            await self._hang_up([index for index in self._open if left[index] <= _NO_TIME])
            running = [index for index in self._open if not self._waits_for_us(index)]
            step = min([_STEP, *(left[index] for index in running)])
            # Time in which a slow consumer holds back the calls does not count for them.
            await self._state.unhindered()
            await asyncio.sleep(step)
            for index in running:
                left[index] -= step

    def _waits_for_us(self, index: int) -> bool:
        """Whether a call has not begun because our other calls are before it, not because its
        provider is held back."""
        model = self.planned[index].settings.model
        return not self._calls[index].begun and self._state.slots.delay(model) <= 0

    @property
    def _open(self) -> list[int]:
        """The calls that were asked, and whose end no event has reported yet."""
        return [index for index in self._asked if index not in self._told]

    async def _hang_up(self, late: Sequence[int]) -> None:
        """Cut off the given calls; the others go on."""
        if not late:
            return
        tasks = [self._tasks[index] for index in late]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for index in late:
            if index not in self._told:
                self._cut_off(index)
        self._check_over()

    async def _ask(self, index: int) -> None:
        call = self._calls[index]
        error = None
        try:
            await call.run(partial(self._tell, index))
        except ClientError as raised:
            error = failure(raised)
            if isinstance(raised, ClientTimeout):
                self._silent.add(index)
                self._outcomes[index] = error
                # Do this at once, before a call of the same silent model takes the free slot.
                await self._hang_up([call for call in self._open if self._would_be_silent(call)])
        except BudgetReached as reached:
            self.capped, error = reached, failure(reached)
        if error is None and not strip_reasoning(call.text):
            error = failure(call.heard.no_answer())
        self._outcomes[index] = error
        usage = await self._state.taken(call)
        # There must be no await from here on. So a proposal that has arrived is reported and used
        # even if the layer ends at this moment.
        self._close(index, usage)
        self._check_over()
        if self._quorum is not None and self._whole >= min(self._quorum, len(self._asked)):
            self._stands.set()
            enough = self._over.is_set() or self._state.control.said_enough
            if self._overlaps and self._open and not enough:
                self.goes_on = True
                self.passed.set()

    def _check_over(self) -> None:
        if self.capped is not None or len(self._told) == len(self.planned):
            self._over.set()
        if self.capped is not None and self._next is not None:
            self._next._stopped = True
            self._next._over.set()

    def _close(self, index: int, usage: Usage) -> None:
        """A call has ended by itself, with or without an answer."""
        error = self._outcomes[index]
        if error is None:
            self._finish(index, usage)
        elif index in self._silent and self._uses_partial and self._wrote(index):
            self._finish(index, usage, error)
        else:
            self._lose(self._proposal(index, usage, error), error)

    def _proposal(self, index: int, usage: Usage, error: Failure | None) -> Proposal:
        return self._calls[index].proposal(usage, error, self._purpose)

    def _cut_off(self, index: int) -> None:
        """End a call that was cut off, or never begun, and report it."""
        call = self._calls[index]
        if not call.begun:
            self._lose_unasked(index, self._why(index))
            return
        # If the call has ended by itself, it only waited for the price of its model.
        usage = call.settle(call.heard.price)
        if index in self._outcomes:
            self._close(index, usage)
            return
        why = self._why(index)
        if why.kind == "Straggler" and index not in self._heard:
            self._silent.add(index)
        # An unfinished review is useless.
        wanted = not self._purpose and (self._uses_partial or self._state.control.said_enough)
        # Unfinished texts alone do not replace the whole answers of the layer before.
        useful = bool(self._answers) or not self._state.references
        if not self._at_cap and not self.goes_on and wanted and useful and self._speaks(index):
            self._finish(index, usage, why)
        else:
            self._lose(self._proposal(index, usage, why), why)

    def _why(self, index: int) -> Failure:
        """The reason why the layer did not wait for a proposer."""
        if self._at_cap or self._state.control.said_enough:
            return _ABANDONED
        if self._would_be_silent(index):
            return Failure("NotAsked", "not asked: its model was silent in this round")
        stood = f"{self._whole} of {len(self._asked)} answers stood, "
        if self._outrun:
            stood += "and the next round has its answers"
        else:
            stood += f"{self._patience:g} s of patience had passed"
        was = "too slow" if self._calls[index].begun else "not asked in time"
        return Failure("Straggler", f"{was}: {stood}")

    def _would_be_silent(self, index: int) -> bool:
        """Whether a call has not begun, and its model is silent: another call of the model was lost
        by silence, and none has answered. Otherwise the layer would wait for each call of a silent
        model, one after another."""
        if self._calls[index].begun:
            return False
        model = self.planned[index].settings.model
        models = {other: self._calls[other].settings.model for other in self._outcomes}
        if any(models[other] == model for other in self._answers if other in models):
            return False
        return any(models[other] == model for other in self._silent if other in models)

    def _note_silence(self) -> None:
        """Note the models that were silent in this layer, so that the next layers do not ask them.
        A model that gave a whole answer to another call is asked again.
        """
        answered = {
            self._calls[index].settings.model
            for index, proposal in self._answers.items()
            if not proposal.unfinished
        }
        for index in self._silent:
            for settings in (self.planned[index].settings, self._calls[index].settings):
                if settings.model not in answered:
                    timed_out = self._outcomes.get(index) is not None
                    self._state.silent.setdefault(settings.model, (self._number, timed_out))

    def _tell(self, index: int, step: Step) -> None:
        # This runs for each token, so the most frequent case comes first.
        if isinstance(step, Delta):
            if step.text or step.reasoning:
                self._tell_text(index, step)
            return
        state, planned = self._state, self.planned[index]
        if isinstance(step, Begun):
            self._emit_started(index)
            state.emit_trimmed(planned)
            return
        if isinstance(step, events.Retrying):
            self._heard.add(index)
        state.emit(step)

    def _tell_text(self, index: int, delta: Delta) -> None:
        state = self._state
        self._heard.add(index)
        state.emit(
            unchecked(
                events.ProposerDelta,
                at=state.now(),
                layer=self._number,
                index=index,
                text=delta.text,
                reasoning=delta.reasoning,
            )
        )
        # If "enough" was called too early, the first sentence of an answer ends the layer.
        if state.control.said_enough and self._speaks(index):
            self._arrived()

    def _emit_started(self, index: int) -> None:
        planned = self.planned[index]
        self._state.emit(
            events.ProposerStarted(
                at=self._state.now(),
                layer=self._number,
                index=index,
                prompt_tokens=planned.fitted.tokens if self._calls[index].begun else 0,
                price=planned.info.price,
            )
        )

    def _finish(self, index: int, usage: Usage, unfinished: Failure | None = None) -> None:
        """A proposer has answered. unfinished: why its answer broke off, if it is unfinished."""
        state = self._state
        proposal = self._proposal(index, usage, None)
        if unfinished is not None:
            proposal = replace(proposal, unfinished=True)
            state.lost.append(f"{proposal.proposer}: {unfinished.message}; {UNFINISHED}")
        self._told.add(index)
        self._answers[index] = proposal
        state.usage += usage
        self._arrived()
        state.emit(
            events.ProposerFinished(
                at=state.now(), layer=self._number, index=index, proposal=proposal
            )
        )

    def _lose_unasked(self, index: int, error: Failure) -> None:
        """A proposer is lost, and was never asked."""
        name, model = self.planned[index].name, self.planned[index].settings.model
        self._emit_started(index)
        about = self.planned[index].about
        lost = Proposal(
            self._number, index, name, model, "", error=error, purpose=self._purpose, about=about
        )
        self._lose(lost, error)

    def _lose(self, proposal: Proposal, error: Failure) -> None:
        state = self._state
        self._told.add(proposal.index)
        self.lost[proposal.index] = proposal
        state.usage += proposal.usage
        of = f" ({REVIEW_NAMES[self._purpose]})" if self._purpose else ""
        state.lose(f"{proposal.proposer}{of}", error)
        state.emit(
            events.ProposerFailed(
                at=state.now(), layer=self._number, index=proposal.index, proposal=proposal
            )
        )
