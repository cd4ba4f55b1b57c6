"""What was begun may be asked for again, as long as nobody consumed it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moa_cli.core.conversation import Conversation, Usage
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFailed,
    AggregatorFinished,
    Event,
    ProposerFailed,
    ProposerFinished,
    ReferencesTrimmed,
    Retrying,
    TurnFinished,
)
from moa_cli.core.stream import TurnFold
from tests.support.mixtures import AT_ONCE, asked, lab, mixture, of_kind, run
from tests.support.scenarios import BROKEN, DROPPED, POISON, REFUSED, play
from tests.support.upstream import Reply, Upstream

HELD = replace(AT_ONCE, reply_held=True)
MUSED = Reply(reasoning=["let me ", "think"], chunks=["never"], drop_after=2)


def folded(events: list[Event]) -> TurnFold:
    fold = TurnFold()
    for event in events:
        fold.handle(event)
    return fold


def test_a_proposer_is_asked_again_after_its_first_token(upstream: Upstream) -> None:
    play(upstream, {"a": [DROPPED, Reply(text="from a")]})
    events = run(upstream, mixture("a", "b"))
    [retry] = of_kind(events, Retrying)
    assert retry.withdrawn
    first = of_kind(events, ProposerFinished)
    proposal = next(event.proposal for event in first if event.index == 0)
    assert proposal.text == "from a"
    # What was thrown away was paid for.
    assert (proposal.usage.calls, proposal.usage.estimated_calls) == (2, 1)
    assert POISON not in str(upstream.chats("agg")[0].messages)
    assert folded(events).turn().proposals[0][0].text == "from a"


def test_an_aggregator_that_only_reasoned_is_asked_again(upstream: Upstream) -> None:
    play(upstream, {"agg": [MUSED, Reply(text="from agg")]})
    events = run(upstream, mixture("a"))
    assert [event.withdrawn for event in of_kind(events, Retrying)] == [True]
    [finished] = of_kind(events, AggregatorFinished)
    assert (finished.text, finished.reasoning) == ("from agg", "")
    assert folded(events).turn().reasoning == ""


def test_a_reply_that_nobody_saw_is_asked_for_again(upstream: Upstream) -> None:
    play(upstream, {"agg": [DROPPED, Reply(text="from agg")]})
    events = run(upstream, mixture("a"), limits=HELD)
    assert [event.withdrawn for event in of_kind(events, Retrying)] == [True]
    assert folded(events).turn().reply == "from agg"


def test_a_fallback_follows_a_reply_that_nobody_saw(upstream: Upstream) -> None:
    play(upstream, {"agg": DROPPED})
    profile = mixture("a", aggregator=lab("agg", fallbacks=["lab:second"]))
    events = run(upstream, profile, limits=HELD)
    [failed] = of_kind(events, AggregatorFailed)
    assert POISON in failed.text
    assert folded(events).turn().reply == "from second"
    assert isinstance(events[-1], TurnFinished)


def test_the_longest_text_of_a_lost_call_is_told_in_the_end(upstream: Upstream) -> None:
    play(upstream, {"a": [DROPPED, BROKEN, REFUSED]})
    events = run(upstream, mixture("a", "b"))
    [lost] = of_kind(events, ProposerFailed)
    assert POISON in lost.proposal.text
    assert lost.proposal.usage.calls == 1
    [error] = [lost.proposal.error]
    assert error is not None
    assert error.kind == "RequestRefused"


def test_an_interrupted_turn_counts_what_was_taken_back(upstream: Upstream) -> None:
    play(upstream, {"agg": [DROPPED, Reply(text="from agg")]})
    events = run(upstream, mixture(), limits=HELD)
    cut = next(place for place, event in enumerate(events) if isinstance(event, AggregatorFinished))
    fold = folded(events[:cut])
    fold.close()
    turn = fold.turn()
    assert turn.reply == "from agg"
    usage = sum((charge.usage for charge in turn.ledger), Usage())
    assert usage.calls == 2
    told = of_kind(events, AggregatorDelta)
    assert usage.completion_tokens >= len(told)


TOO_LONG = {
    "message": "This model's maximum context length is 1000 tokens, however you requested 1900",
    "code": "context_length_exceeded",
}
LONG = "word " * 700


def too_long(times: int) -> list[Reply]:
    return [Reply(status=400, error={"error": TOO_LONG})] * times


@pytest.mark.parametrize("behind", ["", " (request id: 20261129103304563274)"])
def test_references_are_shortened_for_an_endpoint_that_finds_them_too_long(
    upstream: Upstream, behind: str
) -> None:
    error = TOO_LONG | {"message": TOO_LONG["message"] + behind}
    refused = Reply(status=400, error={"error": error})
    play(upstream, {"a": Reply(text=LONG), "b": Reply(text=LONG), "agg": [refused, Reply()]})
    events = run(upstream, mixture("a", "b"))
    [cut] = of_kind(events, ReferencesTrimmed)
    assert (cut.index, cut.model, cut.left_out) == (None, "lab:agg", 0)
    first, second = (str(request.messages) for request in upstream.chats("agg"))
    assert 0.3 * len(first) < len(second) < 0.6 * len(first)
    assert second.count("[…]") == 2
    [finished] = of_kind(events, AggregatorFinished)
    assert finished.usage.calls == 1


def test_the_oldest_messages_are_left_out_where_that_is_not_enough(upstream: Upstream) -> None:
    talk = Conversation()
    for number in range(4):
        talk = talk.ask(f"{number} {LONG}").answer("so")
    play(upstream, {"agg": [*too_long(1), Reply()]})
    events = run(upstream, mixture(), talk.ask("And now?"))
    [cut] = of_kind(events, ReferencesTrimmed)
    assert (cut.kept, cut.left_out) == (0, 6)
    assert [message["content"][:1] for message in upstream.chats("agg")[-1].messages] == [
        *("3", "s", "A")
    ]


def test_a_prompt_is_shortened_once(upstream: Upstream) -> None:
    play(upstream, {"a": Reply(text=LONG), "agg": too_long(3)})
    events = run(upstream, mixture("a"))
    assert len(of_kind(events, ReferencesTrimmed)) == 1
    assert len(upstream.chats("agg")) == 2
    [failed] = of_kind(events, AggregatorFailed)
    assert failed.error.kind == "ContextTooLong"


def test_a_prompt_alone_is_not_shortened(upstream: Upstream) -> None:
    play(upstream, {"agg": too_long(3)})
    events = run(upstream, mixture(), asked(LONG))
    assert of_kind(events, ReferencesTrimmed) == []
    assert len(upstream.chats("agg")) == 1


def test_the_context_of_the_profile_is_the_one_that_counts(upstream: Upstream) -> None:
    play(upstream, {"a": Reply(text=LONG)})
    events = run(upstream, mixture("a", aggregator=lab("agg", context=600)))
    [cut] = of_kind(events, ReferencesTrimmed)
    assert (cut.model, cut.context) == ("lab:agg", 600)
