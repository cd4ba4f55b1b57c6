"""ProposalStream that come side by side are each told once, whole, and not mixed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moa_cli.core.conversation import Failure, Proposal
from moa_cli.core.events import (
    Caller,
    Event,
    LayerFinished,
    LayerStarted,
    ProposerDelta,
    ProposerFailed,
    ProposerFinished,
)
from moa_cli.server.wires.proposals import ProposalStream, proposal_text

_PIECES = st.lists(st.sampled_from(["ab", "c ", "\n", "é"]), min_size=1, max_size=4)


def _layer(layer: int, answers: list[list[str]], lost: list[bool]) -> list[list[Event]]:
    """The events of each proposer of a layer."""
    told: list[list[Event]] = []
    for index, pieces in enumerate(answers):
        events: list[Event] = [
            ProposerDelta(layer=layer, index=index, text=piece) for piece in pieces
        ]
        error = Failure("ServerFailed", "it failed") if lost[index] else None
        proposal = Proposal(layer, index, f"p{index}", "m", "".join(pieces), error=error)
        end = ProposerFailed if error else ProposerFinished
        told.append([*events, end(layer=layer, index=index, proposal=proposal)])
    return told


@given(st.data())
def test_any_interleaving_tells_every_proposal_whole(data: st.DataObject) -> None:
    proposals, told, expected = ProposalStream(), "", []
    for layer in (1, 2):
        answers = data.draw(st.lists(_PIECES, min_size=1, max_size=4))
        lost = data.draw(st.lists(st.booleans(), min_size=len(answers), max_size=len(answers)))
        waiting = _layer(layer, answers, lost)
        callers = tuple(Caller(name=f"p{index}", model="m") for index in range(len(answers)))
        told += proposals.take(LayerStarted(layer=layer, proposers=callers))
        while waiting:
            events = waiting[data.draw(st.integers(0, len(waiting) - 1))]
            event = events.pop(0)
            told += proposals.take(event)
            if isinstance(event, ProposerFinished | ProposerFailed):
                expected.append(proposal_text(event.proposal))
            waiting = [text for text in waiting if text]
        told += proposals.take(LayerFinished(layer=layer, answered=1, asked=1, seconds=0))
    assert sorted(told.split("### ")) == sorted("".join(expected).split("### "))
    # One live at a time: what is told begins each proposal where the one before has ended.
    assert all(told.count(line) == expected.count(line) for line in expected)


def test_the_first_that_speaks_is_told_as_it_comes() -> None:
    proposals = ProposalStream()
    callers = (Caller(name="slow", model="m"), Caller(name="quick", model="m"))
    proposals.take(LayerStarted(layer=1, proposers=callers))
    assert proposals.take(ProposerDelta(layer=1, index=1, text="a")) == "### quick (round 1)\n\na"
    assert proposals.take(ProposerDelta(layer=1, index=0, text="x")) == ""
    assert proposals.take(ProposerDelta(layer=1, index=1, text="b")) == "b"
    ended = ProposerFinished(layer=1, index=1, proposal=Proposal(1, 1, "quick", "m", "ab"))
    assert proposals.take(ended) == "\n\n### slow (round 1)\n\nx"
    assert proposals.take(ProposerDelta(layer=1, index=0, text="y")) == "y"
