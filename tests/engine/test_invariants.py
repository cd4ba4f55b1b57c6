"""The invariants of a turn, over real HTTP on loopback.

`tests.support.mixtures.run` holds every turn's events against the grammar of events, takes
each through JSON and back, and checks that no task and no connection is left.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

import pytest

from moa_cli.core.conversation import Conversation, Failure
from moa_cli.core.events import (
    AggregatorFailed,
    AggregatorFinished,
    AggregatorStarted,
    Event,
    LayerFinished,
    LayerStarted,
    ProposerFailed,
    ProposerFinished,
    ProposerStarted,
    Retrying,
    TurnFailed,
    TurnFinished,
    to_dict,
)
from moa_cli.engine import Limits
from tests.support.mixtures import LAB_KEY, lab, mixture, of_kind, run
from tests.support.scenarios import (
    BACKED,
    LIMITED,
    POISON,
    REFUSED,
    SCENARIOS,
    Scenario,
    play,
    refusal,
)
from tests.support.upstream import Reply, Upstream


@dataclass(frozen=True)
class Played:
    """A scenario, its events, and the upstream with its log."""

    scenario: Scenario
    events: list[Event]
    up: Upstream


@cache
def played(name: str) -> Played:
    scenario = SCENARIOS[name]
    with Upstream() as up:
        play(up, scenario.script)
        return Played(scenario, run(up, scenario.profile), up)


def failures(events: list[Event]) -> list[Failure]:
    """In profile order, layer by layer; then those of the aggregators."""
    lost = sorted(of_kind(events, ProposerFailed), key=lambda event: (event.layer, event.index))
    found = [event.proposal.error for event in lost]
    found += [event.error for event in of_kind(events, AggregatorFailed)]
    return [item for item in found if item is not None]


def references_given(up: Upstream, model: str) -> str:
    """What the last call of `model` had after "Responses from models:"; "" without that."""
    system = [m["content"] for m in up.chats(model)[-1].messages if m["role"] == "system"]
    assert len(system) <= 1
    before, _, after = "".join(system).partition("\n\nResponses from models:")
    assert bool(before) == bool(after)
    return after


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_turn_keeps_the_grammar_and_ends_as_it_must(name: str) -> None:
    record = played(name)
    scenario, events, up = record.scenario, record.events, record.up
    assert tuple(failure.kind for failure in failures(events)) == scenario.kinds
    retries = len(of_kind(events, Retrying))
    assert retries > 0 if scenario.retries is None else retries == scenario.retries
    asked_last = [event.model for event in of_kind(events, AggregatorStarted)][-1:]
    if scenario.references is None:
        assert asked_last == []
    else:
        assert references_given(up, asked_last[0].removeprefix("lab:")) == scenario.references
    replies = [event.text for event in of_kind(events, AggregatorFinished)]
    assert replies == ([] if scenario.reply is None else [scenario.reply])


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_error_and_nothing_unfinished_enters_a_prompt(name: str) -> None:
    for request in played(name).up.chats():
        for message in request.messages:
            assert POISON not in message["content"]
            assert "None" not in message["content"]
            assert "think" not in message["content"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_request_is_a_call_or_a_retry_that_is_told(name: str) -> None:
    record = played(name)
    calls = [e for e in record.events if isinstance(e, ProposerStarted | AggregatorStarted)]
    made = len(calls) + len(of_kind(record.events, Retrying))
    # On a busy machine a call may run out of time before its request is out.
    timeouts = record.scenario.kinds.count("ClientTimeout")
    assert made - timeouts <= len(record.up.chats()) <= made


def test_the_turn_names_who_was_lost_and_why(upstream: Upstream) -> None:
    play(upstream, {"b": REFUSED})
    last = run(upstream, mixture("a", lab("b", name="the second"), "c"))[-1]
    assert isinstance(last, TurnFinished)
    [lost] = last.lost
    assert lost.startswith("the second: ")
    assert POISON in lost


def test_a_failed_turn_names_every_cause_and_never_asks_the_aggregator(upstream: Upstream) -> None:
    for number, model in enumerate("abc"):
        error = {"error": {"message": f"reason {number}"}}
        upstream.always(model, Reply(status=400, error=error))
    last = run(upstream, mixture("a", "b", "c", aggregator=lab("agg", fallbacks=["lab:x"])))[-1]
    assert isinstance(last, TurnFailed)
    assert last.error.kind == "NotEnoughProposals"
    assert len(last.causes) == len(last.lost) == 3
    for number in range(3):
        assert [f"reason {number}" in cause.message for cause in last.causes].count(True) == 1
    assert {request.model for request in upstream.chats()} == {"a", "b", "c"}


def test_the_aggregator_alone_gets_the_bare_conversation(upstream: Upstream) -> None:
    play(upstream, {"a": REFUSED, "b": REFUSED})
    last = run(upstream, mixture("a", "b", on_all_failed="solo"))[-1]
    assert isinstance(last, TurnFinished)
    assert len(last.lost) == 2
    assert upstream.chats("agg")[0].messages == [{"role": "user", "content": "What is rain?"}]


def test_a_layer_that_fails_ends_the_rounds(upstream: Upstream) -> None:
    play(upstream, {"a": REFUSED})
    events = run(upstream, mixture("a", rounds=3))
    assert [event.layer for event in of_kind(events, LayerStarted)] == [1]


def test_a_fallback_is_shown(upstream: Upstream) -> None:
    play(upstream, {"agg": REFUSED})
    events = run(upstream, BACKED)
    started = of_kind(events, AggregatorStarted)
    assert [(event.model, event.fallback) for event in started] == [
        ("lab:agg", False),
        ("lab:second", True),
    ]
    [finished] = of_kind(events, AggregatorFinished)
    assert finished.model == "lab:second"
    assert references_given(upstream, "second") == references_given(upstream, "agg")


def test_no_fallback_is_asked_after_the_first_token(upstream: Upstream) -> None:
    play(upstream, {"agg": Reply(chunks=["so ", "far ", "so good"], drop_after=2)})
    events = run(upstream, BACKED)
    assert upstream.chats("second") == []
    [failed] = of_kind(events, AggregatorFailed)
    assert failed.text == "so far "
    last = events[-1]
    assert isinstance(last, TurnFailed)
    assert last.error.kind == "TurnError"


def test_the_pause_that_an_endpoint_asks_for_is_the_one_made(upstream: Upstream) -> None:
    busy = refusal(429, Retry_After="0.06")
    play(upstream, {"agg": [busy, busy, Reply()]})
    events = run(upstream, mixture(), limits=Limits(first_delay=0.001))
    assert [(event.attempt, event.delay) for event in of_kind(events, Retrying)] == [
        (2, 0.06),
        (3, 0.06),
    ]


@pytest.mark.parametrize("asked", ["0", "-3", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_pause_of_nothing_is_no_pause_to_make(upstream: Upstream, asked: str) -> None:
    busy = refusal(429, Retry_After=asked)
    play(upstream, {"agg": [busy, busy, Reply()]})
    events = run(upstream, mixture(), limits=Limits(first_delay=0.04))
    first, second = (event.delay for event in of_kind(events, Retrying))
    assert 0.02 <= first <= 0.04
    assert 0.04 <= second <= 0.08


def test_a_busy_provider_is_asked_again_until_the_wait_is_too_long(upstream: Upstream) -> None:
    play(upstream, {"agg": refusal(503)})
    events = run(upstream, mixture(), limits=Limits(retries=1, first_delay=0.01, longest_wait=2))
    retries = of_kind(events, Retrying)
    assert len(retries) > 2
    assert sum(event.delay for event in retries) <= 2
    [failed] = of_kind(events, AggregatorFailed)
    assert failed.error.kind == "ServerFailed"


def test_without_retries_a_busy_provider_is_asked_once(upstream: Upstream) -> None:
    play(upstream, {"agg": LIMITED})
    assert of_kind(run(upstream, mixture(), limits=Limits(retries=0)), Retrying) == []
    assert len(upstream.chats("agg")) == 1


def test_what_answered_is_named_by_its_real_model_id(upstream: Upstream) -> None:
    upstream.always("a", Reply(text="from a", model="a-2026-11-20"))
    upstream.always("agg", Reply(text="from agg", model="agg-v2"))
    events = run(upstream, mixture("a"))
    [proposed] = of_kind(events, ProposerFinished)
    assert (proposed.proposal.model, proposed.proposal.answered_by) == ("lab:a", "a-2026-11-20")
    [finished] = of_kind(events, AggregatorFinished)
    assert (finished.model, finished.answered_by) == ("lab:agg", "agg-v2")


def test_unset_zero_and_more_are_different_temperatures(upstream: Upstream) -> None:
    given = {"a": None, "b": 0, "c": 0.7, "d": 1e-5, "e": 1e-4, "f": 2e-4}
    entries = [
        lab(model) if value is None else lab(model, temperature=value)
        for model, value in given.items()
    ]
    run(upstream, mixture(*entries))
    bodies = {request.model: request.body for request in upstream.chats()}
    assert "temperature" not in bodies["a"]
    assert "temperature" not in bodies["agg"]
    sent = {model: bodies[model]["temperature"] for model in "bcdef"}
    assert sent == {"b": 0, "c": 0.7, "d": 0, "e": 0, "f": 2e-4}


def test_a_temperature_of_zero_is_not_replaced_by_the_profiles(upstream: Upstream) -> None:
    aggregator = lab("agg", temperature=0)
    run(upstream, mixture("a", lab("b", temperature=0), aggregator=aggregator, temperature=0.3))
    sent = {request.model: request.body["temperature"] for request in upstream.chats()}
    assert sent == {"a": 0.3, "b": 0, "agg": 0}


def test_max_tokens_of_proposers_and_aggregator_are_separate(upstream: Upstream) -> None:
    aggregator = lab("agg", max_tokens=9)
    run(upstream, mixture("a", lab("b", max_tokens=7), aggregator=aggregator, max_tokens=100))
    sent = {request.model: request.body["max_tokens"] for request in upstream.chats()}
    assert sent == {"a": 100, "b": 7, "agg": 9}


def test_max_tokens_that_are_not_set_are_not_sent(upstream: Upstream) -> None:
    run(upstream, mixture("a", aggregator=lab("agg", max_tokens=9)))
    assert "max_tokens" not in upstream.chats("a")[0].body
    assert upstream.chats("agg")[0].body["max_tokens"] == 9


def test_samples_are_calls_of_their_own_with_seeds_of_their_own(upstream: Upstream) -> None:
    events = run(upstream, mixture(lab("a", samples=3, seed=7), lab("b", samples=2)))
    assert sorted(request.body["seed"] for request in upstream.chats("a")) == [7, 8, 9]
    assert ["seed" in request.body for request in upstream.chats("b")] == [False, False]
    [finished] = of_kind(events, LayerFinished)
    assert (finished.answered, finished.asked) == (5, 5)


def test_usage_is_the_sum_over_all_calls(upstream: Upstream) -> None:
    play(upstream, {"b": [LIMITED], "c": REFUSED})
    last = run(upstream, mixture("a", "b", "c", rounds=2))[-1]
    assert isinstance(last, TurnFinished)
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == upstream.usage_total
    assert (last.usage.calls, last.usage.estimated_calls) == (5, 0)


def test_a_missing_key_is_a_failure_like_any_other(upstream: Upstream) -> None:
    events = run(upstream, mixture("a"), key="")
    assert [failure.kind for failure in failures(events)] == ["AuthenticationFailed"]
    assert upstream.requests == []


def test_the_key_is_in_no_event() -> None:
    with Upstream(api_key="another") as up:
        events = run(up, mixture("a", "b", on_all_failed="solo"))
        assert up.chats("a")[0].headers["authorization"] == f"Bearer {LAB_KEY}"
    assert [failure.kind for failure in failures(events)] == ["AuthenticationFailed"] * 3
    assert LAB_KEY not in json.dumps([to_dict(event) for event in events])


def test_a_conversation_without_an_open_turn_is_a_bug_of_the_caller(upstream: Upstream) -> None:
    with pytest.raises(ValueError, match="no open turn"):
        run(upstream, mixture("a"), Conversation())
