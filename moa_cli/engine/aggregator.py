"""The last layer: the aggregator, and its fallbacks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from moa_cli.core import events
from moa_cli.core.conversation import Citation, Usage
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import BudgetReached, ClientError
from moa_cli.core.values import unchecked
from moa_cli.engine.advice import offers_tools
from moa_cli.engine.calls.call import Begun, Call, Planned, Step, failure
from moa_cli.engine.opening import Opening
from moa_cli.engine.state import TurnState
from moa_cli.engine.structured.reply import CheckedReply
from moa_cli.engine.subsets import shuffled
from moa_cli.profile import Profile


async def run_aggregator(
    state: TurnState, wording: Profile | None = None, opening: Opening | None = None
) -> bool:
    """Have the reply written by the first aggregator that gives one. Returns whether one did.

    wording: a profile whose merge prompt is used in place of the turn's. opening: separates the
    comparison from the reply, if the answer is to begin with one. Raises BudgetReached before a
    call that would exceed a cap, or after its events.AggregatorFailed if the reply exceeds one.
    """
    state.depth += 1
    given = state.references
    # The prompt of a strategy may name the references by their numbers, so it keeps their order.
    if state.profile.shuffle and wording is None:
        given = shuffled(given, state.conversation.turns[-1].user, state.depth)
    for index, settings in enumerate(state.aggregators):
        [planned] = await state.plan(
            state.depth, [settings], first=index, wording=wording, references=[given]
        )
        if opening is not None:
            planned = replace(planned, opening=opening)
        call = state.call(planned)
        if await _reply(state, planned, call):
            return True
        if (call.text or call.called) and not state.reply_held:
            # The user has seen a part of this reply, so no fallback may replace it.
            break
    return False


async def _reply(state: TurnState, planned: Planned, call: Call) -> bool:
    """Have one aggregator write the reply. Returns whether the reply is whole."""
    error, capped = planned.error, None
    model = planned.settings.model
    await state.emit_and_wait(
        events.AggregatorStarted(
            at=state.now(),
            name=planned.name,
            model=model,
            references=len(state.references),
            fallback=planned.place.index > 0,
            prompt_tokens=planned.fitted.tokens,
            price=planned.info.price,
            reused=state.reused,
        )
    )
    state.emit_trimmed(planned)
    usage, text, calls = Usage(), "", [call]
    if error is None:
        tell = partial(_tell, state, planned)
        try:
            if state.response_format is None:
                await call.run(tell)
                text = call.text
            else:
                checked = CheckedReply(state, planned, call, tell)
                calls = checked.calls
                await checked.run(state.response_format)
                text = checked.text
        except ClientError as raised:
            error = failure(raised)
        except BudgetReached as reached:
            capped, error = reached, failure(reached)
        for made in calls:
            usage += await state.taken(made)
    call = calls[-1]
    state.usage += usage
    # An alternative or a stand-in of the model may have answered in its place.
    model = call.settings.model
    if error is None:
        state.calls_tools = bool(call.called)
        state.emit(
            events.AggregatorFinished(
                at=state.now(),
                model=model,
                text=text,
                reasoning=call.heard.reasoning,
                answered_by=call.heard.answered_by,
                usage=usage,
                seconds=sum(made.seconds for made in calls),
                first_token=calls[0].first_token,
                finish_reason=call.heard.finish_reason,
                citations=_cited(state, call),
                tool_calls=call.called,
            )
        )
        return True
    state.lose(planned.name, error)
    await state.emit_and_wait(
        events.AggregatorFailed(
            at=state.now(),
            model=model,
            error=error,
            text=call.text,
            usage=usage,
            seconds=sum(made.seconds for made in calls),
        )
    )
    if capped is not None:
        raise capped
    return False


def _cited(state: TurnState, call: Call) -> tuple[Citation, ...]:
    """The sources of a reply: all that its endpoint names, and the sources of references whose
    addresses appear in the reply."""
    found = {cited.url: cited for cited in call.heard.citations}
    if state.profile.searches:
        for reference in state.references:
            for cited in () if isinstance(reference, str) else reference.citations:
                if cited.url and cited.url in call.text:
                    found.setdefault(cited.url, cited)
    return tuple(found.values())


def _tell(state: TurnState, planned: Planned, step: Step) -> None:
    if isinstance(step, Delta):
        called = step.tool_calls
        if called and not offers_tools(planned.settings):
            called = ()
        if step.text or step.reasoning or called or step.token_logprobs:
            state.emit(
                unchecked(
                    events.AggregatorDelta,
                    at=state.now(),
                    text=step.text,
                    reasoning=step.reasoning,
                    tool_calls=called,
                    token_logprobs=step.token_logprobs,
                )
            )
    elif not isinstance(step, Begun):
        state.emit(step)
