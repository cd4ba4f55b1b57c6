"""`stop_when_agreed`: what is left out where proposals agree, and what that saves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moa_cli.core.errors import ProfileError
from moa_cli.core.events import (
    AggregatorFinished,
    AggregatorStarted,
    Decided,
    Event,
    LayerStarted,
    TurnFinished,
)
from moa_cli.core.strategy import Decision, Placing
from moa_cli.profile import build, to_table
from tests.support.command import KEY, Moa
from tests.support.mixtures import asked, lab, mixture, of_kind, run
from tests.support.timed import Timed, after, play
from tests.support.upstream import Reply, Upstream

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
OVERLAPPING: dict[str, Any] = {
    "stop_when_agreed": 0.9,
    "rounds": 2,
    "overlap": True,
    "quorum": 2,
    "patience": 5,
}
PROSE = "Rain is water that falls from clouds, in drops."


def turn(upstream: Upstream, *answers: str | Reply, **settings: Any) -> tuple[list[Event], str]:
    """A turn of as many proposers as answers, and its reply; the aggregator says `written`."""
    models = "abcdef"[: len(answers)]
    for model, answer in zip(models, answers, strict=True):
        upstream.always(model, Reply(text=answer) if isinstance(answer, str) else answer)
    upstream.always("agg", Reply(text="written"))
    given = {"stop_when_agreed": 0.9, **settings}
    events = run(upstream, mixture(*models, **given), asked("What is 6 times 7?"))
    [reply] = of_kind(events, AggregatorFinished)
    assert isinstance(events[-1], TurnFinished)
    assert events[-1].lost == ()
    return events, reply.text


def decision(events: list[Event]) -> Decision:
    [decided] = of_kind(events, Decided)
    return decided.decision


def test_the_same_final_answers_need_no_aggregator(upstream: Upstream) -> None:
    events, reply = turn(upstream, "It is 42.", "6 x 7 = 42", "#### 42")
    assert reply == "It is 42."
    assert decision(events) == Decision(
        "synthesize",
        "all 3 answer 42",
        tuple(Placing(f"lab:{model}", at, "42", 3) for at, model in enumerate("abc")),
        chosen=0,
        skipped=("the aggregator was not asked: all 3 answer 42 (1 call saved)",),
        saved_calls=1,
    )
    assert of_kind(events, AggregatorStarted)[0].copied
    assert len(upstream.chats()) == 3


@pytest.mark.parametrize(
    "answers", [("42", "41"), ("42", "No idea."), ("42",), (PROSE, PROSE), ("No.", "Yes.")]
)
def test_else_the_aggregator_writes_as_ever(upstream: Upstream, answers: tuple[str, ...]) -> None:
    events, reply = turn(upstream, *answers)
    assert reply == "written"
    assert not of_kind(events, Decided)


def test_it_is_off_where_it_is_not_set(upstream: Upstream) -> None:
    events, reply = turn(upstream, "42", "42", stop_when_agreed=None)
    assert reply == "written"
    assert not of_kind(events, Decided)


def test_an_answer_that_was_cut_agrees_with_none(upstream: Upstream) -> None:
    _, reply = turn(upstream, Reply(text="It is 42", finish_reason="length"), "42")
    assert reply == "written"


def test_further_rounds_are_skipped_where_final_answers_are_the_same(upstream: Upstream) -> None:
    events, reply = turn(upstream, "It is 42.", "42", rounds=3)
    assert reply == "It is 42."
    assert decision(events).skipped == (
        "the last 2 rounds of 3 not run: both answer 42 (4 calls saved)",
        "the aggregator was not asked: both answer 42 (1 call saved)",
    )
    assert decision(events).saved_calls == 5
    assert len(upstream.chats()) == 2


def test_further_rounds_are_skipped_where_proposals_are_similar(upstream: Upstream) -> None:
    events, reply = turn(upstream, PROSE, PROSE.upper(), PROSE + "!", rounds=2)
    assert reply == "written"
    told = decision(events)
    assert told.summary == "written from 3 proposals"
    assert told.skipped == (
        "the last 1 round of 2 not run: the 3 proposals are similar (0.99 of 1) (3 calls saved)",
    )
    assert (told.chosen, told.saved_calls) == (None, 3)
    assert len(upstream.chats("agg")) == 1


def test_proposals_below_the_measure_go_through_all_rounds(upstream: Upstream) -> None:
    events, _ = turn(upstream, PROSE, "Something quite different.", rounds=2)
    assert [event.layer for event in of_kind(events, LayerStarted)] == [1, 2]
    assert not of_kind(events, Decided)


def test_a_vote_skips_rounds_too_and_tells_both(upstream: Upstream) -> None:
    events, reply = turn(upstream, "It is 42.", "42", rounds=2, strategy="vote")
    assert reply == "It is 42."
    assert decision(events).summary == "both answer 42"
    assert decision(events).saved_calls == 2


def test_with_tools_the_aggregator_acts_from_all_proposals(upstream: Upstream) -> None:
    aggregator = lab("agg", extra={"tools": [TOOL]})
    events, reply = turn(upstream, "42", "42", aggregator=aggregator)
    assert reply == "written"
    assert of_kind(events, AggregatorStarted)[0].references == 2


def test_overlapping_layers_stop_where_the_stragglers_agree_as_well() -> None:
    profile = mixture("a", "b", "c", **OVERLAPPING)
    script = {"a": after(1, "It is 42."), "b": after(1, "42"), "c": after(3, "42!")}
    events, _, clients = play(profile, script)
    assert decision(events).summary == "all 3 answer 42"
    assert not clients.asked["lab:agg"]


def test_overlapping_layers_go_on_where_a_straggler_differs() -> None:
    profile = mixture("a", "b", "c", **OVERLAPPING)
    script: dict[str, Timed | list[Timed]] = {
        "a": after(1, "It is 42."),
        "b": after(1, "42"),
        "c": after(3, "No, it is 41."),
    }
    events, _, clients = play(profile, script)
    assert not of_kind(events, Decided)
    assert [event.layer for event in of_kind(events, LayerStarted)] == [1, 2]
    # All three of the first layer are references of the second.
    assert "3. No, it is 41." in clients.references_of("lab:a")


def test_what_is_saved_is_told_with_its_price(tmp_path: Path) -> None:
    with Upstream(api_key=KEY) as upstream:
        moa = Moa(tmp_path, upstream.url)
        price = {"prompt": 1000, "completion": 10_000}
        moa.configure(
            providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}},
            prices={"lab:agg": price, "lab:a": price, "lab:b": price},
        )
        moa.profile("agreed", "a", "b", stop_when_agreed=1.0)
        upstream.always("*", Reply(text="It is 42."))
        ran = moa.run("ask", "-p", "agreed", "--json", "What is 6 times 7?")
        assert ran.code == 0, ran.err
        turn = json.loads(ran.text)
    assert turn["reply"] == "It is 42."
    assert len(turn["ledger"]) == 2
    told = turn["decision"]
    assert told["saved_calls"] == 1
    # Two answers as references, and an answer as long as theirs, at a price of a cent a token.
    assert 0.1 < told["saved_cost"] < 1
    assert f"(1 call and about ${told['saved_cost']:.2f} saved)" in told["skipped"][0]


def test_the_measure_is_between_0_and_1() -> None:
    table = to_table(mixture("a", stop_when_agreed=0.5))
    assert table["stop_when_agreed"] == 0.5
    with pytest.raises(ProfileError, match="stop_when_agreed"):
        build("wrong", {**table, "stop_when_agreed": 1.5})


@pytest.mark.parametrize("strategy", ["fusion", "council"])
def test_other_strategies_that_write_stop_early_too(upstream: Upstream, strategy: str) -> None:
    answers = ("It is 42.", "42", "#### 42")
    events, reply = turn(upstream, *answers, strategy=strategy, judge="lab:judge", rounds=2)
    assert reply == "It is 42."
    assert len(upstream.chats()) == 3
    # The second round, and what the strategy would have asked behind it.
    calls = {"fusion": 3 + 1 + 1, "council": 3 + 3 + 1}[strategy]
    assert decision(events).saved_calls == calls
    assert decision(events).strategy == strategy


@pytest.mark.parametrize("strategy", ["fusion", "council", "select"])
def test_other_strategies_tell_the_rounds_that_were_skipped(
    upstream: Upstream, strategy: str
) -> None:
    upstream.always("judge", Reply(text="model_1"))
    for model in "abc":
        upstream.always(model, Reply(text=PROSE))
    profile = mixture(*"abc", strategy=strategy, judge="lab:judge", rounds=2, stop_when_agreed=0.9)
    events = run(upstream, profile)
    told = [event.decision for event in of_kind(events, Decided)][-1]
    assert told.saved_calls == 3
    assert "the last 1 round of 2 not run" in told.skipped[0]
