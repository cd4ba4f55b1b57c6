"""What tests of strategies share: how a turn was decided, what it lost, and who was sent what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from moa_cli.core.conversation import Proposal
from moa_cli.core.events import Decided, Event, LayerStarted, TurnFailed, TurnFinished
from moa_cli.core.strategy import Decision
from moa_cli.engine import Control, Limits, run_turn
from moa_cli.engine.prompts import Reference
from moa_cli.profile import Profile
from tests.support.mixtures import AT_ONCE, asked, of_kind, pool
from tests.support.upstream import Reply, Upstream

__all__ = [
    "ONE_BY_ONE",
    "Answers",
    "decision",
    "enough_at",
    "lost",
    "placings",
    "purposes",
    "script",
    "sent",
    "turned",
    "user",
]

# The upstream's log is the order of the calls.
ONE_BY_ONE = Limits(concurrency=1, retries=0)
Answers = Mapping[str, Sequence[str | Reply]]


def script(up: Upstream, answers: Answers) -> None:
    """Answer call by call, by model; and "from <model>" behind that."""
    up.always("*", Reply(text=lambda request: f"from {request.model}"))
    for model, replies in answers.items():
        up.enqueue(model, *(Reply(chunks=[r]) if isinstance(r, str) else r for r in replies))


def sent(up: Upstream) -> list[tuple[str, list[dict[str, Any]]]]:
    """The model and the messages of each call, in order."""
    return [(request.model, request.messages) for request in up.chats()]


def user(content: str) -> dict[str, str]:
    """A message of the user."""
    return {"role": "user", "content": content}


def decision(events: Sequence[Event]) -> Decision:
    """How the turn was decided, which is told once."""
    [told] = of_kind(events, Decided)
    return told.decision


def placings(events: Sequence[Event]) -> list[tuple[str, int, float | None]]:
    """The name, votes and rank of each proposal, as the decision orders them."""
    told = decision(events).placings
    return [(placing.proposer, placing.votes, placing.rank) for placing in told]


def enough_at(control: Control, kind: type[Any]) -> Callable[[Event], None]:
    """A watcher that says "enough" at each event of a class."""

    def watch(event: Event) -> None:
        if isinstance(event, kind):
            control.enough()

    return watch


def lost(events: Sequence[Event]) -> tuple[str, ...]:
    """What the turn lost."""
    last = events[-1]
    assert isinstance(last, TurnFinished | TurnFailed)
    return last.lost


def purposes(events: Sequence[Event]) -> list[str]:
    """What each layer was for."""
    return [event.purpose for event in of_kind(events, LayerStarted)]


def turned(
    up: Upstream,
    profile: Profile,
    references: Sequence[Reference] | None = None,
    *,
    limits: Limits = AT_ONCE,
    reviews: Sequence[Proposal] = (),
) -> list[Event]:
    """The events of a turn, which are not checked: its proposals may be there already, and a call
    that a cap does not allow has no events of its own."""
    events: list[Event] = []

    async def turn() -> None:
        clients = pool(up)
        try:
            running = run_turn(
                profile,
                asked(),
                clients,
                limits=limits,
                references=references,
                reviews=reviews,
            )
            async with aclosing(running):
                events.extend([event async for event in running])
        finally:
            await clients.aclose()

    asyncio.run(turn())
    return events
