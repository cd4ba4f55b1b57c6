"""Reviews in every kind of weather: a turn that has proposals gets a reply, and says what it lost;
and whoever leaves in the middle of a review leaves no call behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from moa_cli.core.events import AggregatorFinished, ProposerDelta, ProposerFinished, TurnFinished
from moa_cli.core.strategy import REVIEW_NAMES, Purpose
from moa_cli.core.stream import TurnFold
from moa_cli.engine import run_turn
from moa_cli.engine.merging import merged
from tests.support.mixtures import AT_ONCE, asked, lab, mixture, no_task_left, of_kind, pool, run
from tests.support.scenarios import (
    BLANK,
    BROKEN,
    CUT,
    DROPPED,
    EMPTY,
    ERROR_EVENT,
    HANG_UP,
    HANG_UP_LATER,
    LIMITED,
    MUSING,
    NO_CREDIT,
    NULLS,
    ONLY_END,
    POISON,
    REFUSED,
    SILENT,
    STALLED,
    UNCLOSED,
    UNKNOWN,
    WEB_PAGE,
)
from tests.support.strategies import decision, lost, script, turned
from tests.support.upstream import Reply, Upstream

FAULTS = {
    "blank": BLANK,
    "broken": BROKEN,
    "cut": CUT,
    "dropped": DROPPED,
    "empty": EMPTY,
    "error in the stream": ERROR_EVENT,
    "hung up": HANG_UP,
    "hung up later": HANG_UP_LATER,
    "limited": LIMITED,
    "no credit": NO_CREDIT,
    "nulls": NULLS,
    "only an unclosed thought": UNCLOSED,
    "only reasoning": MUSING,
    "only the end of a thought": ONLY_END,
    "refused": REFUSED,
    "silent": SILENT,
    "stalled": STALLED,
    "unknown model": UNKNOWN,
    "web page": WEB_PAGE,
}
# Who reviews, and for what; the settings of the profile.
REVIEWERS: dict[str, tuple[tuple[str, ...], Purpose, dict[str, Any]]] = {
    "compared": (("judge",), "compare", {"strategy": "fusion"}),
    "chosen by the judge": (("judge",), "choose", {"strategy": "select"}),
    "chosen by proposers": (
        ("a", "b", "c"),
        "choose",
        {"strategy": "select", "chosen_by": "proposers"},
    ),
    "ranked": (("a", "b", "c"), "rank", {"strategy": "council"}),
}
READABLE: dict[Purpose, str] = {
    "choose": "model_1",
    "rank": "Ranking: 1 > 2",
}


@pytest.mark.parametrize("reviewed", REVIEWERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_all_reviewers_costs_nobody_the_reply(
    upstream: Upstream, reviewed: str, fault: str
) -> None:
    models, purpose, settings = REVIEWERS[reviewed]
    script(upstream, {model: [f"from {model}"] for model in "abc" if model in models})
    for model in models:
        upstream.always(model, FAULTS[fault])
    proposers = [lab(model, timeout=5) for model in "abc"]
    profile = mixture(*proposers, judge="lab:judge", timeout=5, **settings)
    events = run(upstream, profile, limits=replace(AT_ONCE, retries=1, longest_wait=0.1))
    assert isinstance(events[-1], TurnFinished)
    [finished] = of_kind(events, AggregatorFinished)
    assert finished.text == "from agg"
    [request] = upstream.chats("agg")
    assert request.messages[0]["content"].endswith("1. from a\n2. from b\n3. from c")
    assert POISON not in str(request.messages)
    told = lost(events)
    about = [said for said in told if f"({REVIEW_NAMES[purpose]})" in said]
    assert len(about) == len(models)
    assert len(told) == len(models) + 1
    assert decision(events).chosen is None


# A comparison in words is of use, too.
@pytest.mark.parametrize("reviewed", sorted(REVIEWERS.keys() - {"compared"}))
def test_a_kept_review_that_cannot_be_read_is_asked_for_again(
    upstream: Upstream, reviewed: str
) -> None:
    models, purpose, settings = REVIEWERS[reviewed]
    script(upstream, {model: [f"from {model}"] for model in "abc"})
    for model in models:
        upstream.enqueue(model, Reply(text="I cannot say."), Reply(text=READABLE[purpose]))
    profile = mixture("a", "b", "c", judge="lab:judge", **settings)
    first = TurnFold()
    for event in turned(upstream, profile):
        first.handle(event)
    before = first.turn()
    [kept] = before.proposals
    assert [review.text for review in before.reviews] == ["I cannot say."] * len(models)
    for attempt in range(2):
        events = turned(upstream, profile, kept, reviews=before.reviews)
        assert not lost(events)
        assert bool(of_kind(events, ProposerFinished)) is not attempt
        again = TurnFold()
        for event in events:
            again.handle(event)
        before = merged(before, again.turn())


LEAVING = REVIEWERS | {
    "verified": (("judge",), "verify", {"route": [{"proposers": 1, "verify": True}]}),
    "most consistent": (
        ("judge",),
        "choose",
        {"strategy": "vote", "final_answer": "text"},
    ),
}


@pytest.mark.parametrize("reviewed", LEAVING)
def test_whoever_leaves_in_a_review_leaves_no_call(upstream: Upstream, reviewed: str) -> None:
    models, _, settings = LEAVING[reviewed]
    script(upstream, {})
    for model in models:
        first = [] if model == "judge" else [Reply(text=f"from {model}")]
        upstream.enqueue(model, *first, STALLED)
    profile = mixture("a", "b", "c", judge="lab:judge", **settings)

    async def leave() -> None:
        clients = pool(upstream)
        try:
            async with aclosing(run_turn(profile, asked(), clients, limits=AT_ONCE)) as running:
                async for event in running:
                    if isinstance(event, ProposerDelta) and event.layer == 2:
                        break
            upstream.wait_for(lambda: upstream.in_flight == 0)
        finally:
            await clients.aclose()
        await no_task_left()

    asyncio.run(leave())
    assert all(upstream.chats(model)[-1].disconnected for model in models)
    assert upstream.chats("agg") == []
