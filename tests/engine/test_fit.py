"""A prompt is fitted to its model's context, after the references are put into it, and visibly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from moa_cli.core.conversation import Conversation, Turn
from moa_cli.core.errors import ContextTooLong
from moa_cli.core.events import (
    AggregatorFailed,
    AggregatorStarted,
    Event,
    ProposerFailed,
    ReferencesTrimmed,
    TurnFailed,
    TurnFinished,
)
from moa_cli.core.tokens import estimate_tokens, prompt_tokens
from moa_cli.engine.fit import fit
from tests.support.mixtures import asked, lab, mixture, of_kind, run
from tests.support.upstream import Reply, Upstream

LONG = "word " * 900
CONTEXTS = {"a": 8192, "small": 1200, "tiny": 200, "agg": 8192, "narrow": 1500}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    models = [{"id": name, "context_length": tokens} for name, tokens in CONTEXTS.items()]
    with Upstream(models=models) as running:
        running.always("*", Reply(text=LONG))
        yield running


def warmed(upstream: Upstream, *arguments: object, **named: object) -> list[Event]:
    """The events of a turn, the provider's list read before (it is not waited for)."""
    run(upstream, mixture(aggregator="agg"))
    upstream.requests.clear()
    return run(upstream, *arguments, **named)  # type: ignore[arg-type]


def sent(upstream: Upstream, model: str) -> str:
    """All that the model was sent at last."""
    return "\n".join(str(message["content"]) for message in upstream.chats(model)[-1].messages)


def test_references_are_cut_for_the_model_that_has_no_room(upstream: Upstream) -> None:
    events = warmed(upstream, mixture("a", "a", aggregator=lab("narrow", max_tokens=200)))
    (cut,) = of_kind(events, ReferencesTrimmed)
    assert (cut.layer, cut.index, cut.model, cut.context) == (2, None, "lab:narrow", 1500)
    assert isinstance(events[-1], TurnFinished)
    text = sent(upstream, "narrow")
    references = [line for line in text.split("\n") if line.startswith(("1. ", "2. "))]
    assert len(references) == 2
    for reference in references:
        assert reference.endswith(" […]")
        assert cut.kept - 15 < estimate_tokens(reference) <= cut.kept + 5
    assert estimate_tokens(text) < 1500 - 200


def test_others_of_the_layer_are_given_all(upstream: Upstream) -> None:
    events = warmed(upstream, mixture("a", "small", rounds=2))
    (cut,) = of_kind(events, ReferencesTrimmed)
    assert (cut.layer, cut.index, cut.model) == (2, 1, "lab:small")
    assert "[…]" not in sent(upstream, "a")
    assert "[…]" in sent(upstream, "small")
    assert LONG.strip() in sent(upstream, "agg")


def test_a_proposer_without_room_for_the_prompt_is_skipped(upstream: Upstream) -> None:
    events = warmed(upstream, mixture("a", "tiny"), asked("why? " * 300))
    (lost,) = of_kind(events, ProposerFailed)
    assert lost.proposal.error is not None
    assert lost.proposal.error.kind == "ContextTooLong"
    assert "do not fit its context of 200" in lost.proposal.error.message
    assert upstream.chats("tiny") == []
    assert isinstance(events[-1], TurnFinished)
    assert len(events[-1].lost) == 1


def test_one_that_fits_in_the_first_round_may_be_skipped_in_the_second(upstream: Upstream) -> None:
    events = warmed(upstream, mixture("a", "tiny", rounds=2))
    (lost,) = of_kind(events, ProposerFailed)
    assert (lost.layer, lost.proposal.usage.calls) == (2, 0)
    assert len(upstream.chats("tiny")) == 1


def test_an_aggregator_without_room_gives_way_to_its_fallback(upstream: Upstream) -> None:
    profile = mixture("a", aggregator=lab("tiny", fallbacks=["lab:agg"]))
    events = warmed(upstream, profile)
    (failed,) = of_kind(events, AggregatorFailed)
    assert failed.error.kind == "ContextTooLong"
    assert [event.prompt_tokens > 0 for event in of_kind(events, AggregatorStarted)] == [
        False,
        True,
    ]
    assert isinstance(events[-1], TurnFinished)
    assert upstream.chats("tiny") == []


def test_where_nobody_has_room_the_turn_says_so(upstream: Upstream) -> None:
    events = warmed(upstream, mixture("tiny", aggregator="tiny"), asked("why? " * 300))
    (failed,) = of_kind(events, TurnFailed)
    assert {cause.kind for cause in failed.causes} == {"ContextTooLong"}
    assert failed.causes[0].hint is not None
    assert upstream.chats() == []


def test_what_was_said_is_never_cut() -> None:
    talk = Conversation((Turn(user="one", reply=LONG),)).ask("two")
    with pytest.raises(ContextTooLong):
        fit(mixture("a"), mixture("a").layer(1)[0], talk, [], 1000)
    fitted = fit(mixture("a"), mixture("a").layer(1)[0], talk, [LONG * 9], 4000)
    assert [message.content for message in fitted.messages[1:]] == ["one", LONG, "two"]


@pytest.mark.parametrize("context", range(500, 9000, 250))
def test_what_is_sent_fits_whatever_the_context(context: int) -> None:
    profile = mixture("a", max_tokens=100)
    references = [LONG, "short", LONG * 2, "水は冷たい " * 200]
    try:
        fitted = fit(profile, profile.aggregators()[0], asked(), references, context)
    except ContextTooLong:
        assert context < 1000
        return
    assert prompt_tokens(fitted.messages) <= (context - 100) / 1.1
    assert "2. short\n" in fitted.messages[0].content
    if fitted.kept is None:
        assert context > 3500
    else:
        assert "[…]" in fitted.messages[0].content


def test_an_unknown_context_changes_nothing() -> None:
    profile = mixture("a")
    fitted = fit(profile, profile.aggregators()[0], asked(), [LONG * 99], None)
    assert LONG.strip() in fitted.messages[0].content
