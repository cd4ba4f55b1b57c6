"""The mixture itself: one turn as an async generator of events.

Layers, eq. 1 of the paper (arXiv:2406.04692): every model of a layer is given the answers
of the layer before; the aggregator, as the last layer's only model, writes the reply.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from moa_cli.core.conversation import Conversation
from moa_cli.core.endpoints import Clients, NameCheck
from moa_cli.core.errors import BudgetReached, MoAError, NotEnoughProposals, TurnError
from moa_cli.core.events import AggregatorFinished, Event, TurnFailed, TurnFinished, TurnStarted
from moa_cli.engine.aggregate import run_aggregator
from moa_cli.engine.call import Limits, failure
from moa_cli.engine.control import Control
from moa_cli.engine.layer import run_layer
from moa_cli.engine.state import TurnState
from moa_cli.engine.trace import traced
from moa_cli.profile import Profile, model_faults

__all__ = ["check_names", "run_turn"]


def check_names(profile: Profile, clients: Clients) -> None:
    """Raise ProfileError, naming its place, if `clients` can tell that a model name of `profile`
    leads nowhere."""
    if isinstance(clients, NameCheck):
        for fault in model_faults(profile, clients.check_name):
            raise fault


@traced
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

    Raises ProfileError, before the first event and before anything is sent, if one of the
    profile's model names leads nowhere (see `NameCheck`): a mixture is not half asked.

    references: answers that are there already; then no proposer is asked, and the aggregator
    writes its reply from these.
    """
    if not conversation.turns or conversation.turns[-1].reply is not None:
        raise ValueError("the conversation has no open turn; use conversation.ask(prompt)")
    check_names(profile, clients)
    state = TurnState(
        profile, conversation, clients, control or Control(), limits or Limits(), references
    )
    yield TurnStarted(
        at=state.now(),
        profile=profile.name,
        prompt=conversation.turns[-1].user,
        rounds=state.rounds,
        aggregator=profile.aggregator.model,
    )
    error: MoAError = TurnError("there is no whole reply")
    try:
        await state.foresee()
        async with aclosing(_layers(state)) as events:
            async for event in events:
                yield event
                if isinstance(event, AggregatorFinished):
                    yield _finished(state)
                    return
    except NotEnoughProposals as raised:
        error = raised
    except BudgetReached as raised:
        error = raised
        # That a call was stopped at it is told with the call.
        if failure(raised) not in state.causes:
            state.causes.append(failure(raised))
    finally:
        state.release()
    yield _failed(state, error)


def _finished(state: TurnState) -> TurnFinished:
    return TurnFinished(
        at=state.now(), usage=state.usage, seconds=state.now(), lost=tuple(state.lost)
    )


def _failed(state: TurnState, error: MoAError) -> TurnFailed:
    return TurnFailed(
        at=state.now(),
        error=failure(error),
        causes=tuple(state.causes),
        usage=state.usage,
        seconds=state.now(),
        lost=tuple(state.lost),
    )


async def _layers(state: TurnState) -> AsyncGenerator[Event, None]:
    """All layers of proposers, and the aggregator.

    Raises NotEnoughProposals if there is nothing to aggregate, BudgetReached at a cap.
    """
    for number in range(1, state.rounds + 1):
        async with aclosing(run_layer(state, number)) as events:
            async for event in events:
                yield event
        if not state.references:
            break
        if state.control.said_enough:
            if number < state.rounds:
                state.lost.append(f"layers after {number} were skipped")
            break
    if state.rounds and not state.references and state.profile.on_all_failed == "fail":
        raise NotEnoughProposals("no proposer answered")
    async with aclosing(run_aggregator(state)) as events:
        async for event in events:
            yield event
