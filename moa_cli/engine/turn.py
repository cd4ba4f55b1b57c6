"""One turn of the mixture as an async generator of events.

`run_turn` hands out the events of a turn. Behind it, coroutines put the events into one queue: the
turn, its layers, and a task for each call of a layer. The queue lets a turn run ahead of its
consumer within bounds. A new layer waits, because it costs money: it begins only when the consumer
has seen all events before it and asks for the next one.

The layers follow eq. 1 of the paper (arXiv:2406.04692): every model of a layer is given the answers
of the layer before. The aggregator is the only model of the last layer, and writes the reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from moa_cli.core.conversation import Conversation, Failure, Proposal
from moa_cli.core.endpoints import Clients
from moa_cli.core.errors import (
    BudgetReached,
    ImagesNotSeen,
    MoAError,
    NotEnoughProposals,
    SchemaMismatch,
    ToolsUnsupported,
    TurnError,
)
from moa_cli.core.events import Event, TurnFailed, TurnFinished, TurnStarted
from moa_cli.core.stream import EventQueue
from moa_cli.engine.advice import check_tools
from moa_cli.engine.agreement.kept_reviews import KeptReviews
from moa_cli.engine.calls.call import Limits, failure
from moa_cli.engine.prompts import Reference
from moa_cli.engine.reporting import follow_with_report, make_report
from moa_cli.engine.route import ask_proposers, reply
from moa_cli.engine.state import Control, TurnState
from moa_cli.engine.structured.format import ResponseFormat
from moa_cli.engine.trace import traced
from moa_cli.profile import Profile, model_faults


def check_names(profile: Profile, clients: Clients) -> None:
    """Raise ProfileError, which names the place in the profile, if `clients` can tell that a model
    name leads to no model (see `NameCheck`)."""
    # This runs in each turn. `isinstance` with a protocol takes a tenth of the time of a small
    # turn.
    check = getattr(clients, "check_name", None)
    if check is not None:
        for fault in model_faults(profile, check):
            raise fault


@traced
async def run_turn(
    profile: Profile,
    conversation: Conversation,
    clients: Clients,
    *,
    control: Control | None = None,
    limits: Limits | None = None,
    references: Sequence[Reference] | None = None,
    response_format: ResponseFormat | None = None,
    reviews: Sequence[Proposal] = (),
    reviewed: bool = False,
) -> AsyncGenerator[Event, None]:
    """Answer the open turn of `conversation` (see `Conversation.ask`) by the profile's mixture.

    Trouble at an endpoint is an event; only a bug raises. Closing the generator at any point
    cancels every call; use `contextlib.aclosing` around it.

    Args:
        profile: The mixture that answers.
        conversation: What was said before, and the prompt: its last turn is open.
        clients: The way from model names to endpoints; left open.
        control: Through it, the caller can tell the turn to go on with the answers that have
            arrived.
        limits: On calls in flight, retries, and what calls may take; by default those of
            `Limits`, without budgets.
        references: Existing answers to the prompt. Then no proposer is asked, and the aggregator
            writes its reply from these. A `Proposal` also tells the name of its proposer, which
            `reference_names` shows, and whether it is unfinished; a plain text does not.
        response_format: The format of a reply that has to be JSON. Then the text of the reply is
            checked, and comes as one delta. If it is wrong, the aggregator is asked once more.
        reviews: What models have said about those references before (see `Turn.reviews`). The
            strategy does not ask the same model about the same texts again.
        reviewed: Whether no more reviews are to be made. Then no model is asked for a review, not
            even for one that was lost or cannot be read.

    Yields:
        The turn's events (see `moa_cli.core.events`), from `TurnStarted` to `TurnFinished` or
        `TurnFailed`. A layer begins only when the consumer has taken the last event of the layer
        before and asks for the next one.

    Raises:
        ValueError: The conversation has no open turn.
        ProfileError: One of the profile's model names leads to no model (see `NameCheck`), or tools
            are offered to a profile that takes none. It is raised before the first event and before
            the first request, so that no part of the mixture is asked.
    """
    if not conversation.turns or conversation.turns[-1].reply is not None:
        raise ValueError("the conversation has no open turn; use conversation.ask(prompt)")
    check_names(profile, clients)
    check_tools(profile)
    async with EventQueue() as queue:
        state = TurnState(
            profile,
            conversation,
            clients,
            control or Control(),
            limits or Limits(),
            references,
            queue,
            response_format,
            KeptReviews(reviews, complete=reviewed),
        )
        queue.start(_run(state))
        async for event in queue:
            yield event


@traced
async def run_report(
    profile: Profile,
    conversation: Conversation,
    clients: Clients,
    references: Sequence[Reference],
    *,
    control: Control | None = None,
    limits: Limits | None = None,
    reviews: Sequence[Proposal] = (),
) -> AsyncGenerator[Event, None]:
    """Report where existing answers disagree, by one call and without a reply.

    Args:
        profile: The mixture, whose judge is asked.
        conversation: What was said before, and the prompt: its last turn is open.
        clients: The way from model names to endpoints; left open.
        references: The answers to the prompt. A `Proposal` also tells the name of its proposer.
        control: Through it, the caller can tell the report to end.
        limits: See `run_turn`.
        reviews: What models have said about those references before, see `run_turn`.

    Yields:
        The events of a turn without rounds and without a reply. They end with `Reported` and
        `TurnFinished`, or with `TurnFailed` if there is no report.

    Raises:
        ValueError: There are not at least two references.
        ProfileError: One of the profile's model names leads to no model (see `NameCheck`).
    """
    if len(references) < 2:
        raise ValueError("there are fewer than two references to compare")
    check_names(profile, clients)
    async with EventQueue() as queue:
        state = TurnState(
            profile,
            conversation,
            clients,
            control or Control(),
            limits or Limits(),
            references,
            queue,
            reviews=KeptReviews(reviews),
        )
        queue.start(_report(state))
        async for event in queue:
            yield event


async def _run(state: TurnState) -> None:
    """The whole turn."""
    # An earlier request on the same message may have made the proposals, or may be making them.
    await state.claim_fan_out()
    finished = False
    try:
        finished = await _run_all(
            state, _replied, TurnError("the turn ended without a complete reply")
        )
    except asyncio.CancelledError:
        # The turn is cancelled, because its consumer has left. It did not fail.
        finished = True
        raise
    finally:
        state.end_fan_out(failed=not finished)


async def _report(state: TurnState) -> None:
    """The whole turn that only makes a report."""
    await _run_all(state, make_report, TurnError("there is no report"))


async def _run_all(
    state: TurnState, work: Callable[[TurnState], Awaitable[bool]], error: MoAError
) -> bool:
    """Run a turn from its first event to its last. Returns whether `work` succeeded.

    work: does all between these events, and returns whether it succeeded. error: the error of the
    turn if `work` fails and no other error says why.
    """
    await state.emit_and_wait(
        TurnStarted(
            at=state.now(),
            profile=state.profile.name,
            prompt=state.conversation.turns[-1].user,
            parts=state.conversation.turns[-1].parts,
            rounds=state.rounds,
            aggregator=state.profile.aggregator.model,
        )
    )
    mismatch: Failure | None = None
    try:
        if await work(state):
            state.emit(
                TurnFinished(
                    at=state.now(), usage=state.usage, seconds=state.now(), lost=tuple(state.lost)
                )
            )
            return True
        if state.causes and state.causes[-1].kind == SchemaMismatch.__name__:
            mismatch = state.causes[-1]
    except NotEnoughProposals as raised:
        error = raised
    except (BudgetReached, ImagesNotSeen, ToolsUnsupported) as raised:
        error = raised
        # If a call was stopped by this error, the event of the call reports it already.
        if failure(raised) not in state.causes:
            state.causes.append(failure(raised))
    finally:
        state.end()
    state.emit(
        TurnFailed(
            at=state.now(),
            # If the reply is not the JSON that was asked for, this mismatch says the most.
            error=mismatch or failure(error),
            causes=tuple(state.causes),
            usage=state.usage,
            seconds=state.now(),
            lost=tuple(state.lost),
        )
    )
    return False


async def _replied(state: TurnState) -> bool:
    """Run all layers of proposers, the strategy, and the report. Returns whether there is a whole
    reply.

    Raises NotEnoughProposals if there is nothing to aggregate, BudgetReached at a cap.
    """
    await state.check_tools()
    await state.foresee()
    accepted = await ask_proposers(state)
    if state.rounds and not state.references and state.profile.on_all_failed == "fail":
        raise NotEnoughProposals("no proposer answered")
    state.layer = None
    state.keep_fan_out(accepted)
    references = state.references
    if not await reply(state, accepted):
        return False
    await follow_with_report(state, references)
    return True
