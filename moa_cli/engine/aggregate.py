"""The last layer: the aggregator, and its fallbacks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from moa_cli.core.conversation import Failure, Usage
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import BudgetReached, ClientError
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFailed,
    AggregatorFinished,
    AggregatorStarted,
    Event,
)
from moa_cli.engine.call import Call, Retry, failure
from moa_cli.engine.state import Planned, TurnState
from moa_cli.profile import Aggregator, short_name

__all__ = ["run_aggregator"]

_TIMEOUT = 600.0


async def run_aggregator(state: TurnState) -> AsyncGenerator[Event, None]:
    """The reply, by the first aggregator that gives one; its AggregatorFinished is the last event.

    Raises BudgetReached, before the call, where one would go beyond a cap; or behind its
    AggregatorFailed, if the reply did.
    """
    for place, settings in enumerate(state.profile.aggregators()):
        [planned] = await state.plan(state.rounds + 1, [settings], first=place)
        async with aclosing(_reply(state, settings, planned, fallback=place > 0)) as events:
            async for event in events:
                yield event
        if isinstance(event, AggregatorFinished) or _has_begun(event):
            return


def _has_begun(last: Event) -> bool:
    """Whether an aggregator was lost after the first token of its reply."""
    return isinstance(last, AggregatorFailed) and bool(last.text)


async def _reply(
    state: TurnState, settings: Aggregator, planned: Planned, *, fallback: bool
) -> AsyncGenerator[Event, None]:
    call = state.call(planned, _TIMEOUT, state.rounds + 1, None)
    error = planned.error
    capped: BudgetReached | None = None
    yield AggregatorStarted(
        at=state.now(),
        name=short_name(settings.model),
        model=settings.model,
        references=len(state.references),
        fallback=fallback,
        prompt_tokens=planned.tokens,
        price=planned.info.price,
    )
    for trimmed in state.trimmed(state.rounds + 1, None, planned):
        yield trimmed
    usage = Usage()
    if error is None:
        try:
            async with aclosing(call.run()) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Retry):
                        yield state.retrying(state.rounds + 1, None, settings, piece)
                    elif isinstance(piece, Delta) and (piece.text or piece.reasoning):
                        yield AggregatorDelta(
                            at=state.now(), text=piece.text, reasoning=piece.reasoning
                        )
        except ClientError as raised:
            error = failure(raised)
        except BudgetReached as reached:
            capped, error = reached, failure(reached)
        usage = await state.taken(call, settings.model)
    state.usage += usage
    if error is not None:
        state.lose(short_name(settings.model), error)
        yield _failed(state, settings, call, usage, error)
        if capped is not None:
            raise capped
    else:
        yield _finished(state, settings, call, usage)


def _failed(
    state: TurnState, settings: Aggregator, call: Call, usage: Usage, error: Failure
) -> AggregatorFailed:
    return AggregatorFailed(
        at=state.now(),
        model=settings.model,
        error=error,
        text=call.text,
        usage=usage,
        seconds=call.seconds,
    )


def _finished(
    state: TurnState, settings: Aggregator, call: Call, usage: Usage
) -> AggregatorFinished:
    return AggregatorFinished(
        at=state.now(),
        model=settings.model,
        text=call.text,
        reasoning=call.reasoning,
        answered_by=call.answered_by,
        usage=usage,
        seconds=call.seconds,
        first_token=call.first_token,
        finish_reason=call.finish_reason,
    )
