"""A route: what of the mixture is asked, when it is enough, and what that saves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from moa_cli.core.conversation import Turn
from moa_cli.core.errors import ProfileError
from moa_cli.core.events import (
    AggregatorFinished,
    AggregatorStarted,
    Decided,
    Event,
    LayerFinished,
    LayerStarted,
    ProposerFinished,
    ProposerStarted,
    TurnFailed,
    TurnFinished,
)
from moa_cli.core.strategy import Decision, Placing
from moa_cli.core.stream import TurnFold
from moa_cli.engine import Budget, Cap, Control, run_turn
from moa_cli.engine.agreement.verdict import read_verdict
from moa_cli.engine.merging import mergeable
from moa_cli.profile import Overrides, Profile, build, dump, to_table
from moa_cli.profile.layering import override
from moa_cli.terminal.board.view import TurnView
from tests.support.mixtures import AT_ONCE, asked, lab, mixture, no_task_left, of_kind, pool, run
from tests.support.strategies import turned
from tests.support.timed import HANGS, Timed, after, play
from tests.support.upstream import Reply, Upstream

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
REFUSED = Reply(status=400, error={"error": {"message": "no"}})
VERIFIED: list[dict[str, Any]] = [{"proposers": 1, "verify": True}]
AGREED: list[dict[str, Any]] = [{"proposers": 2, "agreement": 0.8}]
BOTH: list[dict[str, Any]] = [{"proposers": 1, "verify": True}, {"proposers": 2, "agreement": 0.8}]


def turn(
    upstream: Upstream,
    route: list[dict[str, Any]],
    answers: dict[str, str | Reply] | None = None,
    **settings: Any,
) -> tuple[list[Event], str]:
    """A turn of the proposers a, b and c with that route, and its reply."""
    said: dict[str, str | Reply] = {"agg": "written", "judge": "Verdict: no", **(answers or {})}
    for model in "abc":
        said.setdefault(model, f"from {model}")
    for model, answer in said.items():
        upstream.always(model, Reply(text=answer) if isinstance(answer, str) else answer)
    given = {"judge": "lab:judge", **settings}
    events = run(upstream, mixture("a", "b", "c", route=route, **given))
    [reply] = of_kind(events, AggregatorFinished)
    assert isinstance(events[-1], TurnFinished)
    return events, reply.text


def decision(events: list[Event]) -> Decision:
    [decided] = of_kind(events, Decided)
    return decided.decision


def asked_models(upstream: Upstream) -> list[str]:
    """Who was asked, in order; those of one layer by name."""
    return [request.model for request in upstream.chats()]


def test_a_verified_answer_is_the_reply_and_nothing_else_is_asked(upstream: Upstream) -> None:
    events, reply = turn(upstream, VERIFIED, {"judge": "It is.\n\nVerdict: yes"}, rounds=2)
    assert reply == "from a"
    assert asked_models(upstream) == ["a", "judge"]
    why = "lab:judge finds the answer right"
    assert decision(events) == Decision(
        "synthesize",
        f"lab:a alone was asked: {why}",
        (Placing("lab:a", 0),),
        chosen=0,
        # Two of the first round, three of the second, and the aggregator.
        skipped=(f"stage 1 of the route was enough: {why} (6 calls saved)",),
        saved_calls=6,
    )
    [first, check] = of_kind(events, LayerStarted)
    assert (first.layer, len(first.proposers), check.purpose) == (1, 1, "verify")
    [verify] = upstream.chats("judge")
    text = str(verify.messages[-1]["content"])
    assert text.startswith(
        "What is rain?\n\nThe message above has been answered. The 1 response(s)"
    )
    assert "[response 1 begins: " in text
    assert "from a" in text


def test_what_is_not_enough_is_kept_and_the_whole_mixture_follows(upstream: Upstream) -> None:
    events, reply = turn(upstream, BOTH, {"b": "quite another thing"}, rounds=2)
    assert reply == "written"
    models = asked_models(upstream)
    assert models[:2] == ["a", "judge"]
    assert models[2:4] == ["b", "c"]
    assert sorted(models[4:7]) == ["a", "b", "c"]
    assert models[7:] == ["agg"]
    # Its answers stand in the order of the profile.
    [system] = [said for said in upstream.chats("c")[1].messages if said["role"] == "system"]
    told = system["content"]
    assert told.endswith("\n1. from a\n2. quite another thing\n3. from c")
    assert decision(events).summary == (
        "stage 1 of the route was not enough: lab:judge does not find the answer right; stage 2 of"
        " the route was not enough: its answers do not agree; written from 3 proposals"
    )
    assert (decision(events).skipped, decision(events).saved_calls) == ((), 0)
    firsts = [event for event in of_kind(events, LayerStarted) if event.layer == 1]
    assert [len(event.proposers) for event in firsts] == [1, 2, 3]
    begun = [event.index for event in of_kind(events, ProposerStarted) if event.layer == 1]
    assert begun == [0, 1, 2]
    ends = [event for event in of_kind(events, LayerFinished) if event.layer == 1]
    assert [(event.answered, event.asked) for event in ends] == [(1, 1), (2, 2), (3, 3)]


def test_several_that_agree_are_merged_by_the_strategy(upstream: Upstream) -> None:
    answers: dict[str, str | Reply] = {"a": "It is 42.", "b": "42"}
    events, reply = turn(upstream, AGREED, answers)
    assert reply == "written"
    assert asked_models(upstream)[2:] == ["agg"]
    told = decision(events)
    assert told.summary == "written from 2 proposals"
    assert told.skipped == ("stage 1 of the route was enough: both answer 42 (1 call saved)",)
    _, reply = turn(upstream, AGREED, answers, strategy="vote")
    assert reply == "It is 42."
    events, reply = turn(upstream, AGREED, answers, stop_when_agreed=1.0)
    assert reply == "It is 42."
    assert decision(events).saved_calls == 2


def test_a_stage_is_for_prompts_up_to_a_length_only(upstream: Upstream) -> None:
    stage = {"proposers": 1, "max_prompt_tokens": 50}
    events, reply = turn(upstream, [stage])
    assert (reply, asked_models(upstream)) == ("from a", ["a"])
    assert decision(events).summary == "lab:a alone was asked: the prompt has at most 50 tokens"
    conversation = asked("word " * 200)
    events = run(upstream, mixture("a", "b", "c", route=[stage]), conversation)
    [started] = of_kind(events, LayerStarted)
    assert len(started.proposers) == 3
    assert "stage 1 of the route is not for it: the prompt has about" in decision(events).summary


def test_all_conditions_have_to_hold(upstream: Upstream) -> None:
    stage = {"proposers": 2, "agreement": 0.8, "verify": True}
    answers: dict[str, str | Reply] = {"a": "42", "b": "42"}
    _, _ = turn(upstream, [stage], answers)
    assert "c" in asked_models(upstream)
    upstream.requests.clear()
    _, _ = turn(upstream, [stage], {**answers, "judge": "Verdict: yes"})
    assert "c" not in asked_models(upstream)
    assert "The 2 response(s)" in str(upstream.chats("judge")[-1].messages[-1]["content"])


@pytest.mark.parametrize(
    ("said", "why", "lost"),
    [
        ("Who knows?", "no judge has checked the answer", "its answer cannot be read"),
        (REFUSED, "no judge has checked the answer", "judge (check): "),
    ],
)
def test_without_a_verdict_more_is_asked(
    upstream: Upstream, said: str | Reply, why: str, lost: str
) -> None:
    events, reply = turn(upstream, VERIFIED, {"judge": said})
    assert reply == "written"
    assert why in decision(events).summary
    last = events[-1]
    assert isinstance(last, TurnFinished)
    assert lost in " ".join(last.lost)


@pytest.mark.parametrize("answer", [REFUSED, Reply(text="Rain is", finish_reason="length")])
def test_a_stage_without_a_whole_answer_is_not_enough(upstream: Upstream, answer: Reply) -> None:
    events, reply = turn(upstream, VERIFIED, {"a": answer, "judge": "Verdict: yes"})
    assert reply == "written"
    assert not upstream.chats("judge")
    assert len(upstream.chats("a")) == 1
    assert "stage 1 of the route was not enough: it gave no complete answer" in (
        decision(events).summary
    )


def test_if_nobody_answers_the_turn_fails(upstream: Upstream) -> None:
    for model in "abc":
        upstream.always(model, REFUSED)
    events = run(upstream, mixture("a", "b", "c", route=VERIFIED))
    assert isinstance(events[-1], TurnFailed)
    assert len(events[-1].causes) == 3


def test_with_tools_the_aggregator_acts_on_what_was_enough(upstream: Upstream) -> None:
    aggregator = lab("agg", extra={"tools": [TOOL]})
    events, reply = turn(upstream, VERIFIED, {"judge": "Verdict: yes"}, aggregator=aggregator)
    assert reply == "written"
    assert asked_models(upstream) == ["a", "judge", "agg"]
    assert not of_kind(events, AggregatorStarted)[0].copied
    assert decision(events).saved_calls == 2


def test_samples_are_asked_one_by_one(upstream: Upstream) -> None:
    upstream.always("a", Reply(text="42"))
    profile = mixture(lab("a", samples=5), aggregator="agg", route=AGREED)
    run(upstream, profile)
    assert asked_models(upstream) == ["a", "a", "agg"]


def test_a_quorum_waits_for_answers_that_are_new() -> None:
    profile = mixture("a", "b", "c", "d", route=AGREED, quorum=3, patience=1)
    script: dict[str, Timed] = {
        "a": after(1, "one thing"),
        "b": after(1, "quite another, longer"),
        "c": after(5, "from c"),
        "d": HANGS,
    }
    events, _, _ = play(profile, script)
    last = events[-1]
    assert isinstance(last, TurnFinished)
    assert last.lost == ("lab:d: too slow: 3 of 4 answers stood, 1 s of patience had passed",)


def test_enough_leads_to_the_reply_without_the_rest_of_the_route() -> None:
    profile = mixture("a", "b", "c", route=AGREED, rounds=2)
    control = Control()
    script: dict[str, Timed] = {"a": after(1, "Rain is water."), "b": HANGS}
    events, _, clients = play(profile, script, control=control, enough_at=[2])
    assert not clients.asked["lab:c"]
    last = events[-1]
    assert isinstance(last, TurnFinished)
    assert "the rest of the route was skipped" in last.lost


@pytest.mark.parametrize(
    "settings",
    [
        {"route": BOTH},
        {"route": VERIFIED, "strategy": "council", "report": True},
        {"stop_when_agreed": 0.9, "rounds": 2},
        {"stop_when_agreed": 1.0, "rounds": 2, "strategy": "fusion"},
    ],
)
def test_a_turn_may_be_closed_after_any_of_its_events(
    upstream: Upstream, settings: dict[str, Any]
) -> None:
    for model in ("a", "b", "c", "agg", "judge"):
        upstream.always(model, Reply(text="one two"))
    if settings.get("stop_when_agreed") == 1.0:
        upstream.always("c", Reply(text="quite another thing"))
    profile = mixture("a", "b", "c", judge="lab:judge", **settings)

    async def closed_after(count: int) -> bool:
        clients = pool(upstream)
        try:
            taken = 0
            async with aclosing(run_turn(profile, asked(), clients, limits=AT_ONCE)) as events:
                while taken < count:
                    if await anext(events, None) is None:
                        return False
                    taken += 1
            upstream.wait_for(lambda: upstream.in_flight == 0)
        finally:
            await clients.aclose()
        await no_task_left()
        return True

    count = 0
    while asyncio.run(closed_after(count)):
        count += 1
    assert count > 15


def capped(
    upstream: Upstream, profile: Profile, tokens: int, answers: dict[str, str]
) -> tuple[Turn, Sequence[str]]:
    """A turn that a cap ends, and who was asked; its proposals are kept, and make a reply."""
    for model in ("a", "b", "c", "agg", "judge"):
        text = answers.get(model, f"from {model}")
        upstream.always(model, Reply(text=text, usage=(100, 10)))
    budget = Budget(Cap("--max-total-tokens", "tokens", tokens), "turns")
    events = turned(upstream, profile, limits=replace(AT_ONCE, budgets=(budget,)))
    assert isinstance(events[-1], TurnFailed)
    assert events[-1].error.kind == "BudgetReached"
    assert "--max-total-tokens" in events[-1].error.message
    fold = TurnFold()
    for event in events:
        fold.handle(event)
    done, models = fold.turn(), asked_models(upstream)
    kept = mergeable(done.proposals)
    assert kept
    assert done.usage.total_tokens == 110 * len(models) <= tokens
    again = turned(upstream, replace(profile, strategy="synthesize"), kept)
    assert isinstance(again[-1], TurnFinished)
    assert asked_models(upstream)[len(models) :] == ["agg"]
    return done, models


@pytest.mark.parametrize(
    ("tokens", "asked_before"),
    # There is no room for the check; none for the second stage; none for the whole mixture.
    [(300, ["a"]), (550, ["a", "judge"]), (700, ["a", "judge", "b"])],
)
def test_a_cap_in_a_route_is_named_and_what_was_answered_is_kept(
    upstream: Upstream, tokens: int, asked_before: list[str]
) -> None:
    profile = mixture(
        lab("a", max_tokens=150),
        lab("b", max_tokens=400),
        lab("c", max_tokens=500),
        route=BOTH,
        judge="lab:judge",
        max_tokens=150,
    )
    answers = {"b": "quite another thing", "judge": "Verdict: no"}
    done, models = capped(upstream, profile, tokens, answers)
    assert models == asked_before
    assert [len(layer) for layer in done.proposals] == [len({*models} - {"judge"})]


def test_a_cap_before_a_round_that_agreement_did_not_skip_keeps_the_proposals(
    upstream: Upstream,
) -> None:
    profile = mixture("a", "b", rounds=2, stop_when_agreed=1.0, max_tokens=200)
    done, models = capped(upstream, profile, 900, {"a": "Water that falls.", "b": "Who knows?"})
    assert sorted(models) == ["a", "b"]
    assert len(done.proposals) == 1


def test_the_turn_and_the_screen_follow_a_layer_that_begins_again(upstream: Upstream) -> None:
    events, _ = turn(upstream, BOTH, {"b": "quite another thing"})
    fold, view = TurnFold(), TurnView()
    for event in events:
        fold.handle(event)
        view.apply(event)
    kept = fold.turn()
    assert [[said.text for said in layer] for layer in kept.proposals] == [
        ["from a", "quite another thing", "from c"]
    ]
    assert [review.purpose for review in kept.reviews] == ["verify"]
    assert len(kept.ledger) == 5
    assert [call.state for call in view.layers[1]] == ["done"] * 3
    answers = [event for event in of_kind(events, ProposerFinished) if event.layer == 1]
    assert len(answers) == 3


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ([{"proposers": 3, "verify": True}], "asks for 3 of 3 answers"),
        ([{"proposers": 1}], "has no condition"),
        ([{"proposers": 1, "agreement": 0.5}], "has nothing to agree with"),
        ([*AGREED, *VERIFIED], "asks for 1 answer, after a stage that asks for 2"),
        ([{"verify": True}], "proposers"),
        ([{"proposers": 1, "agreement": 2}], "agreement"),
        ([{"proposers": 1, "verified": True}], "unknown key `route[1].verified`"),
    ],
)
def test_a_stage_that_could_do_nothing_is_refused(
    route: list[dict[str, Any]], problem: str
) -> None:
    with pytest.raises(ProfileError) as raised:
        mixture("a", "b", "c", route=route)
    assert problem in str(raised.value)
    assert "route" in str(raised.value)


def test_a_route_is_written_back_and_makes_no_call_certain() -> None:
    profile = mixture("a", "b", "c", route=BOTH)
    table = to_table(profile)
    assert table["route"] == BOTH
    assert build("mixture", table) == profile
    assert "route = [" in dump(profile)
    assert override(profile, Overrides(rounds=0)).route == profile.route
    assert [stage.purpose for stage in profile.stages()] == ["", "verify", ""]
    assert not any(stage.certain for stage in profile.stages())


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Verdict: yes", True),
        ("It says verdict: yes, but no.\n\n**Verdict:** No.", False),
        ("Verdict: yes. No error was found.", True),
        ("Verdict is [no]", False),
        ("Verdict：yes", True),
        ("Verdict: yes/no", None),
        ('Verdict: "yes" or "no"?', None),
        ("Yes and no.", None),
        ("Yes, it is right.", True),
        ("I checked it.\nNo", False),
        ("It may be right.", None),
        ("Nothing is wrong.", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_tolerantly(text: str, verdict: bool | None) -> None:
    assert read_verdict(text) is verdict
