"""The mixture itself: one turn as an async generator of events.

`run_turn` is the only generator. Behind it, coroutines emit the events into one queue: the turn,
its layers, and a task for each call of a layer. The queue lets a turn run ahead of its consumer
within bounds, but not from one layer to the next: what costs money begins only when the consumer
has seen all before it, and asks for more.

Layers, eq. 1 of the paper (arXiv:2406.04692): every model of a layer is given the answers
of the layer before; the aggregator, as the last layer's only model, writes the reply.
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
    """Raise ProfileError, naming its place, if `clients` can tell that a model name of `profile`
    leads nowhere (see `NameCheck`)."""
    # Once a turn: `isinstance` with a protocol would cost a tenth of a small one.
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
        control: By which the turn is told to go on with what has arrived.
        limits: On calls in flight, retries, and what calls may take; by default those of
            `Limits`, without budgets.
        references: Answers that are there already; then no proposer is asked, and the
            aggregator writes its reply from these. Proposals bring the names of their
            proposers, which `reference_names` shows, and whether they are unfinished.
        response_format: What the reply has to be, if it is JSON. Then its text is told as one
            delta, once it was checked; and if it is wrong, the aggregator is asked once more.
        reviews: What models have said about those references before (see `Turn.reviews`). What the
            strategy would ask the same model about the same texts is not asked again.
        reviewed: Whether no more reviews are to be made. Then no model is asked for one, not even
            for a review that was lost or cannot be read.

    Yields:
        The turn's events, as `moa_cli.core.events` tells them: from `TurnStarted` to
        `TurnFinished` or `TurnFailed`. A layer begins only when the consumer has asked for the
        event behind the last one of the layer before.

    Raises:
        ValueError: The conversation has no open turn.
        ProfileError: Before the first event, and before anything is sent: one of the profile's
            model names leads nowhere (see `NameCheck`), for a mixture is not half asked; or tools
            are offered to one that takes none.
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
        references: The answers to the prompt; proposals bring the names of their proposers.
        control: By which the report is told to end.
        limits: See `run_turn`.
        reviews: What models have said about those references before, see `run_turn`.

    Yields:
        Events as of a turn without rounds, and without a reply: `Reported`, then `TurnFinished`; or
        `TurnFailed` if there is no report.

    Raises:
        ValueError: There are not at least two references.
        ProfileError: One of the profile's model names leads nowhere (see `NameCheck`).
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
    # Proposals that were made for the same message may be there, or be under way.
    await state.claim_fan_out()
    finished = False
    try:
        finished = await _run_all(
            state, _replied, TurnError("the turn ended without a complete reply")
        )
    except asyncio.CancelledError:
        # A consumer that has left is not told that there is no reply.
        finished = True
        raise
    finally:
        state.end_fan_out(failed=not finished)


async def _report(state: TurnState) -> None:
    """The whole turn of a report alone."""
    await _run_all(state, make_report, TurnError("there is no report"))


async def _run_all(
    state: TurnState, work: Callable[[TurnState], Awaitable[bool]], error: MoAError
) -> bool:
    """The turn from its first event to its last; whether `work` came to what it is for.

    error: what the turn fails with if it did not, and no other error says why.
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
        # That a call was stopped at it is told with the call.
        if failure(raised) not in state.causes:
            state.causes.append(failure(raised))
    finally:
        state.end()
    state.emit(
        TurnFailed(
            at=state.now(),
            # For a reply that has to be JSON, the error in the reply is what matters.
            error=mismatch or failure(error),
            causes=tuple(state.causes),
            usage=state.usage,
            seconds=state.now(),
            lost=tuple(state.lost),
        )
    )
    return False


async def _replied(state: TurnState) -> bool:
    """Run all layers of proposers, the strategy, and the report; whether there is a whole reply.

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
