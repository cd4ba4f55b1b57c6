"""Where nothing moves, a line says who is waited for and what a key does about it: once, and again
only when the key does something else."""

from __future__ import annotations

import asyncio
import io

from moa_cli.core.conversation import Failure, Proposal
from moa_cli.core.events import (
    Caller,
    Event,
    LayerFinished,
    LayerStarted,
    ProposerFailed,
    ProposerFinished,
)
from moa_cli.terminal.plain import Waiting

CANCEL, REPLY = "Ctrl-C: cancel", "Ctrl-C: write the reply now"
STARTED = LayerStarted(layer=1, proposers=tuple(Caller(name=name, model=name) for name in "abc"))
FINISHED = LayerFinished(layer=1, answered=2, asked=3, seconds=1.0)


def answered(index: int) -> ProposerFinished:
    """A proposer has answered."""
    return ProposerFinished(layer=1, index=index, proposal=Proposal(1, index, "x", "x", "text"))


def lost(index: int) -> ProposerFailed:
    """A proposer is lost."""
    proposal = Proposal(1, index, "x", "x", "", error=Failure("X", "why"))
    return ProposerFailed(layer=1, index=index, proposal=proposal)


def told(patience: float | None, *happened: Event | str) -> list[str]:
    """What is written. Texts among the events are what the key does from then on."""
    err, hint = io.StringIO(), [CANCEL]

    async def show() -> None:
        waiting = Waiting(err, lambda: hint[0], patience)
        for event in happened:
            if isinstance(event, str):
                hint[0] = event
                continue
            waiting.handle(event)
            # What is due at once is told.
            await asyncio.sleep(0.01)
        waiting.close()

    asyncio.run(show())
    return err.getvalue().splitlines()


def test_a_long_wait_is_told_and_again_when_the_key_does_something_else() -> None:
    assert told(0.0, STARTED, lost(0), REPLY, answered(1)) == [
        f"moa: waiting for a, b, c (0 of 3 have ended); {CANCEL}",
        f"moa: waiting for c (2 of 3 have ended); {REPLY}",
    ]


def test_the_same_is_told_once_in_all_layers() -> None:
    events = (STARTED, answered(0), FINISHED)
    assert told(0.0, *events, *events, *events) == [
        f"moa: waiting for a, b, c (0 of 3 have ended); {CANCEL}"
    ]


def test_what_ends_of_the_layer_before_is_not_taken_for_this_one() -> None:
    second = LayerStarted(layer=2, proposers=STARTED.proposers)
    assert told(0.0, STARTED, second, REPLY, answered(0), lost(1), FINISHED) == [
        f"moa: waiting for a, b, c (0 of 3 have ended); {CANCEL}"
    ]


def test_a_short_wait_is_not_told() -> None:
    assert told(60.0, STARTED, REPLY, answered(0), answered(1), FINISHED) == []


def test_with_the_steps_it_is_told_from_the_first_answer_on() -> None:
    assert told(None, STARTED, lost(0), REPLY, answered(1)) == [
        f"moa: waiting for c (2 of 3 have ended); {REPLY}"
    ]


def test_where_no_key_does_anything_nothing_is_told() -> None:
    assert told(0.0, "", STARTED, answered(0)) == []
