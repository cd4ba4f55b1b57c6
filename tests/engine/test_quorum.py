"""How long a layer is waited for: quorum and patience, unfinished answers, silent models, and
layers that are lost wholly."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moa_cli.core.errors import ConnectionLost
from moa_cli.core.events import (
    AggregatorFailed,
    AggregatorStarted,
    Event,
    LayerFinished,
    LayerStarted,
    ProposerDelta,
    ProposerFailed,
    ProposerFinished,
    ProposerStarted,
    Retrying,
    TurnFailed,
    TurnFinished,
)
from moa_cli.engine import Control, Limits
from moa_cli.engine.prompts import UNFINISHED
from moa_cli.profile import build, to_table
from tests.support.mixtures import lab, mixture, of_kind, run
from tests.support.timed import HANGS, Timed, after, play, refused, silent
from tests.support.upstream import Reply, Upstream

# An answer that has come to its first sentence and is still being written.
SENTENCE = "Rain is water that falls."
WRITING = Timed([(1.0, SENTENCE), (0.5, " It")], hangs=True)
WORDS = Timed([(1.0, "Rain is ")], hangs=True)


def lost(events: list[Event]) -> tuple[str, ...]:
    last = events[-1]
    assert isinstance(last, TurnFinished)
    return last.lost


def kinds(events: list[Event]) -> list[tuple[int, int, str]]:
    """Layer, index and kind of each loss."""
    return [
        (event.layer, event.index, event.proposal.error.kind)
        for event in of_kind(events, ProposerFailed)
        if event.proposal.error is not None
    ]


def when(events: list[Event], times: list[float], kind: type[Event]) -> float:
    return next(at for event, at in zip(events, times, strict=True) if isinstance(event, kind))


# --- quorum and patience


def test_once_the_quorum_stands_the_others_have_so_much_patience() -> None:
    profile = mixture("a", "b", "c", "d", quorum=2, patience=1.5)
    scripts = {"a": after(1, "from a"), "b": after(2, "from b"), "c": after(3, "from c")}
    events, times, clients = play(profile, {**scripts, "d": HANGS})
    assert when(events, times, LayerFinished) == pytest.approx(3.5)
    assert clients.references_of("lab:agg") == "\n1. from a\n2. from b\n3. from c"
    assert lost(events) == ("lab:d: too slow: 3 of 4 answers stood, 1.5 s of patience had passed",)
    assert kinds(events) == [(1, 3, "Straggler")]
    # It was asked, and an endpoint may bill it.
    last = events[-1]
    assert isinstance(last, TurnFinished)
    assert (last.usage.calls, last.usage.estimated_calls) == (5, 5)


def test_patience_may_be_nothing() -> None:
    profile = mixture("a", "b", quorum=1, patience=0)
    events, times, _ = play(profile, {"a": after(2, "from a"), "b": HANGS})
    assert when(events, times, LayerFinished) == 2
    assert kinds(events) == [(1, 1, "Straggler")]


def test_without_a_quorum_all_are_waited_for() -> None:
    profile = mixture("a", "b", patience=0)
    events, times, _ = play(profile, {"a": after(1, "from a"), "b": after(39, "from b")})
    assert when(events, times, LayerFinished) == 39
    assert lost(events) == ()


@pytest.mark.parametrize("quorum", [3, 4, 100])
def test_a_quorum_of_more_than_are_asked_is_one_of_all(quorum: int) -> None:
    profile = mixture("a", "b", "c", quorum=quorum, patience=0)
    scripts = {"a": after(1, "from a"), "b": after(2, "from b"), "c": after(39, "from c")}
    events, times, _ = play(profile, scripts)
    assert when(events, times, LayerFinished) == 39
    assert lost(events) == ()


def test_a_quorum_that_cannot_be_reached_ends_with_the_last_call() -> None:
    profile = mixture("a", "b", "c", quorum=3, patience=1)
    scripts = {"a": refused(1), "b": after(2, "from b"), "c": after(30, "from c")}
    events, times, _ = play(profile, scripts)
    assert when(events, times, LayerFinished) == 30
    assert kinds(events) == [(1, 0, "RequestRefused")]


def test_each_layer_has_its_own_quorum_and_patience() -> None:
    own = build(
        "own",
        {
            **to_table(mixture("a", "b", "c", quorum=3, patience=9)),
            "layers": [{"quorum": 1, "patience": 0.5}, {"quorum": 1}],
            "rounds": 2,
        },
    )
    profile = replace(own, name="mixture")
    script = {
        "a": after(1, "from a"),
        "b": after(4, "from b"),
        "c": Timed([(1.2, "x")], hangs=True),
    }
    events, times, _ = play(profile, script)
    ends = [at for event, at in zip(events, times, strict=True) if isinstance(event, LayerFinished)]
    assert ends == pytest.approx([1.5, 11.5])
    assert kinds(events) == [
        (1, 1, "Straggler"),
        (1, 2, "Straggler"),
        (2, 1, "NotAsked"),
        (2, 2, "Straggler"),
    ]


def test_a_proposer_that_waits_for_its_turn_loses_no_patience() -> None:
    profile = mixture("a", "b", "c", "d", quorum=1, patience=1)
    scripts = {"a": after(1, "from a"), "b": HANGS, "c": after(0.5, "from c"), "d": HANGS}
    events, times, clients = play(profile, scripts, limits=Limits(concurrency=1))
    assert clients.references_of("lab:agg") == "\n1. from a\n2. from c"
    assert kinds(events) == [(1, 1, "Straggler"), (1, 3, "Straggler")]
    assert when(events, times, LayerFinished) == pytest.approx(3.5, abs=0.2)


def test_without_patience_a_proposer_that_waits_for_its_turn_is_not_asked() -> None:
    profile = mixture("a", "b", "c", quorum=1, patience=0)
    scripts = {"a": after(1, "from a"), "b": HANGS}
    events, _, clients = play(profile, scripts, limits=Limits(concurrency=1))
    assert clients.asked["lab:c"] == []
    assert lost(events)[1] == (
        "lab:c: not asked in time: 1 of 3 answers stood, 0 s of patience had passed"
    )


def test_a_straggler_is_hung_up_on(upstream: Upstream) -> None:
    upstream.always("a", Reply(text="from a"))
    upstream.always("b", Reply(text="from b"))
    upstream.always("c", Reply(chunks=["half ", "a loaf"], stall_after=1))
    hung_up: list[bool] = []

    def watch(event: Event) -> None:
        if isinstance(event, AggregatorStarted):
            upstream.wait_for(lambda: upstream.chats("c")[0].disconnected)
            hung_up.append(True)

    profile = mixture("a", "b", "c", quorum=2, patience=0.2)
    events = run(upstream, profile, watch=watch)
    assert hung_up == [True]
    assert kinds(events) == [(1, 2, "Straggler")]


# --- unfinished answers


def test_an_unfinished_answer_serves_where_the_profile_says_so() -> None:
    profile = mixture("a", "b", "c", quorum=1, patience=3, use_partial=True)
    events, _, clients = play(profile, {"a": after(1, "from a"), "b": WRITING, "c": WORDS})
    assert clients.references_of("lab:agg") == f"\n1. from a\n2. {SENTENCE} It{UNFINISHED}"
    finished = of_kind(events, ProposerFinished)
    assert [(event.index, event.proposal.unfinished) for event in finished] == [
        (0, False),
        (1, True),
    ]
    # Nothing but words came of the third.
    assert kinds(events) == [(1, 2, "Straggler")]
    assert lost(events)[0] == (
        "lab:b: too slow: 1 of 3 answers stood, 3 s of patience had passed; used unfinished"
    )


def test_an_unfinished_answer_that_was_taken_back_is_told_again_where_it_serves() -> None:
    profile = mixture("a", "b", quorum=1, patience=3, use_partial=True)
    broke = Timed([(1, SENTENCE)], error=ConnectionLost("broke"))
    events, _, clients = play(
        profile, {"a": after(2, "from a"), "b": broke}, limits=Limits(first_delay=60)
    )
    assert clients.references_of("lab:agg") == f"\n1. from a\n2. {SENTENCE}{UNFINISHED}"
    told = [type(event) for event in events if getattr(event, "index", None) == 1]
    assert told == [ProposerStarted, ProposerDelta, Retrying, ProposerDelta, ProposerFinished]


def test_an_unfinished_answer_is_lost_by_default() -> None:
    events, _, clients = play(
        mixture("a", "b", quorum=1, patience=3), {"a": after(1, "from a"), "b": WRITING}
    )
    assert clients.references_of("lab:agg") == "\n1. from a"
    [failed] = of_kind(events, ProposerFailed)
    assert failed.proposal.text == f"{SENTENCE} It"


def test_what_a_model_wrote_before_it_fell_silent_serves_too() -> None:
    stalled = Timed([(1.0, SENTENCE)], hangs=True)
    profile = mixture("a", "b", use_partial=True, stall=20)
    events, _, clients = play(profile, {"b": stalled})
    assert clients.references_of("lab:agg").endswith(f"\n2. {SENTENCE}{UNFINISHED}")
    [said] = lost(events)
    assert said.startswith("lab:b: test: nothing more for 20 s")
    assert said.endswith("; used unfinished")


# --- silent models


def test_a_model_that_was_silent_is_not_asked_again_in_the_turn() -> None:
    profile = mixture("a", "b", rounds=3)
    events, times, clients = play(profile, {"b": silent(40)})
    assert len(clients.asked["lab:b"]) == 1
    assert times[-1] == pytest.approx(40)
    assert kinds(events) == [
        (1, 1, "ClientTimeout"),
        (2, 1, "NotAsked"),
        (3, 1, "NotAsked"),
    ]
    starts = [event for event in of_kind(events, ProposerStarted) if event.layer > 1]
    assert [event.prompt_tokens > 0 for event in sorted(starts, key=lambda s: s.index)] == [
        True,
        True,
        False,
        False,
    ]
    assert lost(events)[1] == "lab:b: not asked again: it was silent in round 1"


def test_samples_that_still_wait_are_not_sent_to_a_model_that_was_silent(
    upstream: Upstream,
) -> None:
    upstream.always("b", Reply(stall_after=0))
    profile = mixture("a", lab("b", samples=3, first_token=0.2))
    events = run(upstream, profile, limits=Limits(concurrency=1))
    assert len(upstream.chats("b")) == 1
    assert kinds(events) == [(1, 2, "NotAsked"), (1, 3, "NotAsked"), (1, 1, "ClientTimeout")]
    assert "lab:b #2: not asked: its model was silent in this round" in lost(events)
    assert len(of_kind(events, AggregatorStarted)) == 1


def test_samples_that_still_wait_are_sent_if_another_one_was_answered(upstream: Upstream) -> None:
    upstream.enqueue("b", Reply(text="one"), Reply(stall_after=0))
    run(upstream, mixture(lab("b", samples=3, first_token=0.2)), limits=Limits(concurrency=1))
    assert len(upstream.chats("b")) == 3


def test_an_aggregator_that_was_silent_as_a_proposer_has_little_time_for_its_first_token() -> None:
    profile = mixture("a", "agg")
    events, times, _ = play(profile, {"agg": HANGS})
    [failed] = of_kind(events, AggregatorFailed)
    assert "no first token within 5 s" in failed.error.message
    assert times[-1] == pytest.approx(45)
    _, times, _ = play(profile, {"agg": [HANGS, after(4, "a reply")]})
    assert times[-1] == pytest.approx(44)


def test_a_straggler_without_a_word_is_not_asked_again_but_a_slow_writer_is() -> None:
    profile = mixture("a", "b", "c", rounds=2, quorum=1, patience=2)
    _, times, clients = play(profile, {"a": after(1, "from a"), "b": HANGS, "c": WORDS})
    assert len(clients.asked["lab:b"]) == 1
    assert len(clients.asked["lab:c"]) == 2
    assert times[-1] == pytest.approx(6)


def test_a_model_of_which_another_sample_answered_is_asked_again() -> None:
    profile = mixture(lab("a", samples=3), rounds=2)
    answers = [after(1, "one"), silent(2), after(1, "three"), after(1, "again")]
    _, _, clients = play(profile, {"a": answers})
    assert len(clients.asked["lab:a"]) == 6


def test_a_silent_proposer_does_not_write_the_reply_where_another_model_can() -> None:
    profile = mixture("a", "b", aggregator=lab("b", fallbacks=["lab:c"]))
    events, times, clients = play(profile, {"b": silent(40), "c": after(1, "from c")})
    assert len(clients.asked["lab:b"]) == 1
    assert times[-1] == pytest.approx(41)
    [failed] = of_kind(events, AggregatorFailed)
    assert failed.error.kind == "NotAsked"
    assert [event.fallback for event in of_kind(events, AggregatorStarted)] == [False, True]


def test_a_silent_proposer_writes_the_reply_where_nobody_else_can() -> None:
    events, _, clients = play(
        mixture("a", "b", aggregator="b"), {"b": [silent(40), after(1, "ok")]}
    )
    assert len(clients.asked["lab:b"]) == 2
    assert isinstance(events[-1], TurnFinished)


def test_an_aggregator_that_was_only_slower_than_a_quorum_writes_the_reply() -> None:
    profile = mixture("a", "b", quorum=1, patience=1, aggregator=lab("b", fallbacks=["lab:c"]))
    events, _, _ = play(profile, {"a": after(1, "from a"), "b": [HANGS, after(1, "ok")]})
    assert [event.model for event in of_kind(events, AggregatorStarted)] == ["lab:b"]


# --- enough


@pytest.mark.parametrize("at", [1.2, 0.5])
def test_enough_goes_on_with_answers_that_are_still_being_written(at: float) -> None:
    # Or waits for the first sentence, if there is none.
    control = Control()
    scripts = {"a": WRITING, "b": WORDS, "c": HANGS}
    events, times, clients = play(mixture("a", "b", "c"), scripts, control=control, enough_at=[at])
    assert clients.references_of("lab:agg") == f"\n1. {SENTENCE}{UNFINISHED}"
    assert when(events, times, LayerFinished) == pytest.approx(max(at, 1.0))
    assert [event.proposal.unfinished for event in of_kind(events, ProposerFinished)] == [True]
    assert kinds(events) == [(1, 1, "Abandoned"), (1, 2, "Abandoned")]
    assert lost(events)[0] == "lab:a: not waited for; used unfinished"


def test_enough_uses_whole_and_unfinished_answers_together() -> None:
    control = Control()
    scripts = {"a": WRITING, "b": after(2, "from b"), "c": HANGS}
    _, _, clients = play(mixture("a", "b", "c"), scripts, control=control, enough_at=[3])
    assert clients.references_of("lab:agg") == f"\n1. {SENTENCE} It{UNFINISHED}\n2. from b"


def test_unfinished_answers_alone_do_not_replace_those_of_the_round_before() -> None:
    control = Control()
    scripts = {"a": [after(1, "first a"), WRITING], "b": [after(1, "first b"), WORDS]}
    events, _, clients = play(
        mixture("a", "b", rounds=2), scripts, control=control, enough_at=[2.2]
    )
    assert clients.references_of("lab:agg") == "\n1. first a\n2. first b"
    assert "round 2 gave no complete answer: the reply is written from round 1" in lost(events)


def test_a_front_end_can_tell_whether_enough_would_lead_to_a_reply() -> None:
    control = Control()
    told: list[tuple[str, bool]] = []

    def watch(event: Event, at: float) -> None:
        del at
        told.append((event.kind, control.leads_to_reply))

    assert not control.leads_to_reply
    chatty = Timed([(1.0, "Rain is"), (1.0, " water that falls. "), (1.0, "Often.")])
    play(mixture("a"), {"a": chatty}, control=control, watch=watch)
    assert not control.leads_to_reply
    assert told == [
        ("turn_started", False),
        ("layer_started", False),
        ("proposer_started", False),
        ("proposer_delta", False),
        ("proposer_delta", True),
        ("proposer_delta", True),
        ("proposer_finished", True),
        ("layer_finished", True),
        ("aggregator_started", False),
        ("aggregator_delta", False),
        ("aggregator_finished", False),
        ("turn_finished", False),
    ]


# --- layers that are lost wholly


def test_a_layer_that_is_lost_wholly_leaves_the_answers_of_the_one_before() -> None:
    scripts = {"a": [after(1, "first a"), refused()], "b": [after(1, "first b"), silent(3)]}
    events, _, clients = play(mixture("a", "b", rounds=3), scripts)
    assert [event.layer for event in of_kind(events, LayerStarted)] == [1, 2]
    assert clients.references_of("lab:agg") == "\n1. first a\n2. first b"
    assert lost(events)[2:] == (
        "round 2 gave no complete answer: the reply is written from round 1",
        "layers after 2 were skipped",
    )


def test_a_first_layer_that_is_lost_wholly_fails_the_turn() -> None:
    events, _, clients = play(
        mixture("a", "b", rounds=2, quorum=1), {"a": refused(), "b": silent(1)}
    )
    assert isinstance(events[-1], TurnFailed)
    assert clients.asked["lab:agg"] == []
    assert of_kind(events, ProposerDelta) == []
