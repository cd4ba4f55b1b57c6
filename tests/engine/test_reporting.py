"""The report after the reply: one call, which nothing else depends on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from moa_cli.core.conversation import Proposal, Turn
from moa_cli.core.events import (
    AggregatorFinished,
    Event,
    LayerStarted,
    ProposerStarted,
    Reported,
    TurnFinished,
    from_dict,
    to_dict,
)
from moa_cli.core.strategy import Point, Report, Strategy
from moa_cli.core.stream import TurnFold, deliver
from moa_cli.engine import Control, Limits, run_report, run_turn
from moa_cli.engine.budget import Budget, Cap
from moa_cli.engine.merging import merged, reported
from moa_cli.profile import Profile
from tests.support.mixtures import AT_ONCE, asked, lab, mixture, no_task_left, of_kind, pool, run
from tests.support.scenarios import BROKEN, REFUSED, play
from tests.support.upstream import Reply, Upstream

TOLD = json.dumps(
    {
        "points": [{"kind": "unique", "text": "It may snow.", "responses": [2]}],
        "groups": [[1, 3], [2]],
    }
)
REPORT = Report(
    points=(Point("unique", "It may snow.", ("lab:b",)),),
    groups=(("lab:a", "lab:c"), ("lab:b",)),
    consensus=1 / 3,
)
REPORTED = mixture("a", "b", "c", report=True, judge="lab:judge")


def take(
    upstream: Upstream,
    profile: Profile,
    *,
    watch: Callable[[Event], None] = lambda event: None,
    **given: Any,
) -> tuple[Turn, list[Event]]:
    """A turn to its end, and its events. watch: called with each before the engine goes on."""
    events: list[Event] = []

    async def turn() -> Turn:
        clients = pool(upstream)
        given.setdefault("limits", AT_ONCE)
        async with aclosing(clients), aclosing(run_turn(profile, asked(), clients, **given)) as run:

            async def forward(event: Event) -> None:
                events.append(event)
                watch(event)

            found = await deliver(run, forward=forward)
        await no_task_left()
        return found

    found = asyncio.run(turn())
    upstream.wait_for(lambda: upstream.open_connections == 0)
    assert all(from_dict(to_dict(event)) == event for event in events)
    return found, events


def script(upstream: Upstream, judge: Reply | None = None) -> None:
    """The three proposers, the aggregator, and the judge, who by default gives a report."""
    play(upstream, {name: Reply(text=f"from {name}") for name in ("a", "b", "c", "agg")})
    upstream.always("judge", judge or Reply(text=TOLD))


def test_a_report_follows_the_reply_and_costs_one_call(upstream: Upstream) -> None:
    script(upstream)
    turn, events = take(upstream, REPORTED)
    assert (turn.status, turn.reply, turn.lost) == ("finished", "from agg", ())
    assert turn.report == REPORT
    [request] = upstream.chats("judge")
    prompt = request.messages[-1]["content"]
    assert prompt.startswith("What is rain?\n\n")
    assert "from a" in prompt
    assert "lab:" not in prompt
    assert "tools" not in request.body
    kinds = [type(event) for event in events]
    assert kinds.index(AggregatorFinished) < kinds.index(Reported) < kinds.index(TurnFinished)
    assert [layer.purpose for layer in of_kind(events, LayerStarted)] == ["", "report"]
    [review] = turn.reviews
    assert (review.purpose, review.layer, review.text) == ("report", 3, TOLD)
    assert [(charge.layer, charge.model) for charge in turn.ledger][-2:] == [
        (2, "lab:agg"),
        (3, "lab:judge"),
    ]
    assert turn.reply_usage == turn.ledger[-2].usage
    assert turn.usage.calls == 5


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        (REFUSED, "judge (report): "),
        (Reply(text="I would rather not."), "judge (report): its answer cannot be read"),
        (Reply(chunks=[]), "judge (report): "),
        (Reply(text=TOLD[:-20]), "judge (report): its answer cannot be read"),
    ],
)
def test_a_report_that_fails_is_told_and_the_reply_stays(
    upstream: Upstream, judge: Reply, why: str
) -> None:
    script(upstream, judge)
    profile = mixture(
        "a", "b", report=True, judge="lab:judge", aggregator=lab("agg", fallbacks=["lab:second"])
    )
    turn, _ = take(upstream, profile)
    assert (turn.status, turn.reply, turn.report) == ("finished", "from agg", None)
    [lost] = turn.lost
    assert lost.startswith(why)
    assert turn.degraded
    # One call more at most: nobody else is asked for it.
    assert upstream.chats("second") == []


def test_without_a_report_nothing_is_asked(upstream: Upstream) -> None:
    script(upstream)
    turn, _ = take(upstream, mixture("a", "b", judge="lab:judge"))
    assert (turn.report, upstream.chats("judge")) == (None, [])


def test_no_report_is_made_without_a_reply(upstream: Upstream) -> None:
    script(upstream)
    upstream.always("agg", REFUSED)
    turn, _ = take(upstream, REPORTED)
    assert (turn.status, turn.report, upstream.chats("judge")) == ("failed", None, [])


@pytest.mark.parametrize("strategy", ["synthesize", "fusion", "council"])
def test_proposals_that_agree_are_reported_on_too(upstream: Upstream, strategy: Strategy) -> None:
    script(upstream)
    for name in "abc":
        upstream.enqueue(name, Reply(text="The answer is 42."))
    profile = replace(REPORTED, strategy=strategy, stop_when_agreed=1.0)
    turn, _ = take(upstream, profile)
    assert (turn.reply, turn.report) == ("The answer is 42.", REPORT)
    assert [charge.model for charge in turn.ledger[3:]] == ["lab:judge"]
    assert turn.decision is not None
    saved = {"synthesize": 1, "fusion": 1, "council": 4}
    assert turn.decision.saved_calls == saved[strategy]


def test_one_proposal_alone_is_not_compared(upstream: Upstream) -> None:
    script(upstream)
    play(upstream, {"b": REFUSED, "c": BROKEN})
    turn, _ = take(upstream, REPORTED)
    assert (turn.status, upstream.chats("judge")) == ("finished", [])
    assert turn.lost[-1] == "the report was skipped: there are fewer than two proposals to compare"


def test_a_reply_that_calls_tools_is_not_reported_on(upstream: Upstream) -> None:
    script(upstream)
    call = {
        "choices": [
            {
                "index": 0,
                "delta": {
                    "tool_calls": [
                        {
                            "index": 0,
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "look", "arguments": "{}"},
                        }
                    ]
                },
                "finish_reason": "tool_calls",
            }
        ]
    }
    upstream.always("agg", Reply(events=[call, "[DONE]"]))
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    profile = mixture(
        "a",
        "b",
        report=True,
        judge="lab:judge",
        aggregator=lab("agg", extra={"tools": tools}),
    )
    turn, _ = take(upstream, profile)
    assert [called.name for called in turn.tool_calls] == ["look"]
    assert (turn.report, turn.lost, upstream.chats("judge")) == (None, (), [])


def test_enough_ends_the_report_and_the_reply_stays(upstream: Upstream) -> None:
    script(upstream, Reply(stall_after=0))
    control = Control()

    def watch(event: Event) -> None:
        if isinstance(event, ProposerStarted) and event.layer == 3:
            assert control.leads_to_reply
            control.enough()

    turn, _ = take(upstream, REPORTED, control=control, watch=watch)
    assert (turn.status, turn.reply, turn.report) == ("finished", "from agg", None)
    assert turn.lost == ("judge (report): not waited for",)


def tokens(limit: float, scope: Any = "turn") -> Limits:
    cap = Cap("--max-total-tokens", "tokens", limit)
    return Limits(first_delay=0.001, longest_wait=1.0, budgets=(Budget(cap, scope),))


@pytest.mark.parametrize("scope", ["turn", "shared"])
def test_a_cap_that_leaves_no_room_for_the_report_skips_it(upstream: Upstream, scope: Any) -> None:
    script(upstream)
    settings = {"max_tokens": 30}
    profile = mixture(
        lab("a", **settings),
        lab("b", **settings),
        report=True,
        judge="lab:judge",
        aggregator=lab("agg", max_tokens=200),
    )
    # Enough for the reply, and too little for the longer prompt of the report.
    turn, _ = take(upstream, profile, limits=tokens(620, scope))
    assert (turn.status, turn.reply, turn.report) == ("finished", "from agg", None)
    [lost] = turn.lost
    assert lost.startswith(
        "the report was skipped: --max-total-tokens 620 tokens would be exceeded"
    )
    assert upstream.chats("judge") == []


def test_a_report_that_goes_beyond_a_cap_is_stopped_and_the_reply_stays(
    upstream: Upstream,
) -> None:
    script(upstream, Reply(chunks=["word "] * 4000))
    turn, _ = take(upstream, REPORTED, limits=tokens(6000))
    assert (turn.status, turn.reply, turn.report) == ("finished", "from agg", None)
    assert any(lost.startswith("judge (report): ") for lost in turn.lost)


def remerged(upstream: Upstream, profile: Profile, turn: Turn, **given: Any) -> Turn:
    kept: Sequence[Proposal] = turn.proposals[-1]
    return take(upstream, profile, references=kept, **given)[0]


def test_a_turn_that_was_merged_before_gets_a_report_without_a_proposer(
    upstream: Upstream,
) -> None:
    script(upstream)
    first, _ = take(upstream, mixture("a", "b", "c"))
    second = remerged(upstream, REPORTED, first)
    assert second.report == REPORT
    assert [charge.model for charge in second.ledger] == ["lab:agg", "lab:judge"]


def test_a_turn_that_is_closed_while_its_report_is_made_keeps_its_reply(
    upstream: Upstream,
) -> None:
    script(upstream, Reply(stall_after=0))

    async def turn() -> Turn:
        clients, fold = pool(upstream), TurnFold()
        async with aclosing(clients), aclosing(run_turn(REPORTED, asked(), clients)) as events:
            async for event in events:
                fold.handle(event)
                if isinstance(event, ProposerStarted) and event.layer == 3:
                    break
        await no_task_left()
        fold.close()
        return fold.turn()

    found = asyncio.run(turn())
    upstream.wait_for(lambda: upstream.open_connections == 0)
    assert (found.status, found.reply, found.report) == ("finished", "from agg", None)
    assert found.lost == ("judge (report): cancelled",)
    assert found.ledger[-1].model == "lab:judge"


def test_a_kept_report_is_not_asked_for_again(upstream: Upstream) -> None:
    script(upstream)
    first, _ = take(upstream, REPORTED)
    second = remerged(upstream, REPORTED, first, reviews=first.reviews)
    assert (second.report, second.reviews) == (REPORT, ())
    assert [charge.model for charge in second.ledger] == ["lab:agg"]
    whole = merged(first, second)
    assert [review.purpose for review in whole.reviews] == ["report"]
    assert len(upstream.chats("judge")) == 1


def test_a_review_serves_only_its_model_and_its_proposals(upstream: Upstream) -> None:
    script(upstream)
    upstream.always("other", Reply(text=TOLD))
    first, _ = take(upstream, REPORTED)
    other = replace(REPORTED, judge="lab:other")
    assert remerged(upstream, other, first, reviews=first.reviews).report == REPORT
    assert len(upstream.chats("other")) == 1
    fewer = replace(first, proposals=(first.proposals[0][:2],))
    assert remerged(upstream, REPORTED, fewer, reviews=first.reviews).report is not None
    assert len(upstream.chats("judge")) == 2


def test_a_report_may_be_made_alone(upstream: Upstream) -> None:
    script(upstream)
    first, _ = take(upstream, mixture("a", "b", "c", judge="lab:judge"))

    def alone(profile: Profile, **given: Any) -> Turn:
        async def turn() -> Turn:
            clients = pool(upstream)
            async with aclosing(clients):
                events = run_report(
                    profile, asked(), clients, first.proposals[-1], limits=AT_ONCE, **given
                )
                found = await deliver(events)
            await no_task_left()
            return found

        found = asyncio.run(turn())
        upstream.wait_for(lambda: upstream.open_connections == 0)
        return found

    made = alone(REPORTED)
    assert (made.status, made.report) == ("finished", REPORT)
    assert [charge.model for charge in made.ledger] == ["lab:judge"]
    whole = reported(first, made)
    assert (whole.reply, whole.report, whole.usage.calls) == ("from agg", REPORT, 5)
    assert len(upstream.chats("agg")) == 1
    assert alone(REPORTED, reviews=whole.reviews).usage.calls == 0
    unread = replace(whole.reviews[0], text="no")
    assert alone(REPORTED, reviews=[unread]).usage.calls == 1
    upstream.always("judge", REFUSED)
    failed = alone(REPORTED)
    assert (failed.status, failed.report) == ("failed", None)
    assert failed.error is not None
    assert failed.error.message == "there is no report"


@pytest.mark.parametrize("judge", [Reply(text=TOLD), REFUSED, BROKEN])
def test_a_turn_with_a_report_keeps_what_events_promise(upstream: Upstream, judge: Reply) -> None:
    script(upstream, judge)
    # It checks them.
    events = run(upstream, REPORTED)
    assert bool(of_kind(events, Reported)) == (judge.status == 200)
