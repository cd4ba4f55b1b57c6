"""Calls of tools are part of a reply like its text: consumed, counted, retried; and an aggregator
that can make none is told of before anything is paid for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from moa_cli.clients.pool import ClientPool
from moa_cli.core.conversation import Conversation, Message, Turn
from moa_cli.core.events import (
    AggregatorFailed,
    AggregatorFinished,
    AggregatorStarted,
    Event,
    Hedged,
    Retrying,
    TurnFailed,
)
from moa_cli.core.stream import TurnFold, deliver
from moa_cli.engine import Budget, Cap, run_turn
from moa_cli.profile import Profile
from tests.support.mixtures import AT_ONCE, asked, lab, mixture, of_kind, pool, run
from tests.support.tool_calls import TOOLS, called, calling, chunk, result, streamed
from tests.support.upstream import Reply, Upstream

HELD = replace(AT_ONCE, reply_held=True)
HALF = replace(calling("read"), drop_after=2)
REFUSED = Reply(status=400, error={"error": {"message": "agg does not support tools"}})


def offering(*proposers: str, **settings: Any) -> Profile:
    """A mixture whose aggregator is offered tools."""
    return mixture(*proposers, aggregator=lab("agg", extra={"tools": TOOLS}, **settings))


def folded(events: Sequence[Event]) -> Turn:
    fold = TurnFold()
    for event in events:
        fold.handle(event)
    fold.close()
    return fold.turn()


def endless(pieces: int) -> Reply:
    """A call whose arguments are so many words."""
    head = {"index": 0, "id": "c1", "function": {"name": "write", "arguments": ""}}
    words = [{"index": 0, "function": {"arguments": f"word{n} "}} for n in range(pieces)]
    return Reply(events=streamed(head, *words))


def test_calls_that_were_streamed_are_not_taken_back(upstream: Upstream) -> None:
    upstream.enqueue("agg", HALF)
    events = run(upstream, offering("a", fallbacks=["lab:second"]))
    assert of_kind(events, Retrying) == []
    assert len(of_kind(events, AggregatorStarted)) == 1
    assert isinstance(events[-1], TurnFailed)
    assert [call.name for call in folded(events).tool_calls] == ["read"]
    assert len(upstream.chats("agg")) == 1


def test_calls_that_nobody_saw_are_asked_for_again(upstream: Upstream) -> None:
    upstream.enqueue("agg", HALF, calling("write"))
    events = run(upstream, offering("a"), limits=HELD)
    assert [event.withdrawn for event in of_kind(events, Retrying)] == [True]
    assert [call.name for call in folded(events).tool_calls] == ["write"]


def test_calls_of_tools_that_nobody_offered_are_nothing_that_was_shown(upstream: Upstream) -> None:
    upstream.enqueue("agg", HALF, Reply(text="from agg"))
    events = run(upstream, mixture("a"))
    assert [event.withdrawn for event in of_kind(events, Retrying)] == [False]
    assert folded(events).reply == "from agg"


def test_a_text_that_was_taken_back_does_not_come_in_place_of_calls(upstream: Upstream) -> None:
    dropped = Reply(chunks=["half ", "a ", "loaf"], drop_after=2)
    refused = Reply(events=[*(calling("read").events or ())[:2], {"error": {"message": "no"}}])
    upstream.enqueue("agg", dropped, refused, refused, refused, refused, refused)
    events = run(upstream, offering("a"), limits=replace(HELD, retries=1))
    [failed] = of_kind(events, AggregatorFailed)
    assert failed.text == ""
    assert [call.name for call in folded(events).tool_calls] == ["read"]


def test_a_second_request_that_calls_a_tool_is_heard(upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(stall_after=0), calling("read"))
    events = run(upstream, offering("a", hedge_after=0.05))
    assert len(of_kind(events, Hedged)) == 1
    assert [call.name for call in folded(events).tool_calls] == ["read"]


def test_arguments_far_beyond_the_limit_are_cut(upstream: Upstream) -> None:
    # A busy machine may find far more in one piece: no more than this comes before it is cut.
    upstream.enqueue("agg", replace(endless(3_000), stall_after=1_500))
    events = run(upstream, offering("a", max_tokens=50))
    [finished] = of_kind(events, AggregatorFinished)
    assert finished.finish_reason == "length"
    assert 300 < finished.usage.completion_tokens < 2_000


def test_arguments_count_against_a_cap(upstream: Upstream) -> None:
    # All of them may come in one piece, and count 2,420 tokens.
    upstream.enqueue("agg", replace(endless(3_000), stall_after=1_100))
    budget = Budget(Cap("--max-total-tokens", "tokens", 1_500), "turns")
    events: list[Event] = []

    async def main() -> None:
        clients = pool(upstream)
        limits = replace(AT_ONCE, budgets=(budget,))
        try:
            async with aclosing(run_turn(offering(), asked(), clients, limits=limits)) as running:
                events.extend([event async for event in running])
        finally:
            await clients.aclose()

    asyncio.run(main())
    [failed] = of_kind(events, AggregatorFailed)
    assert failed.error.kind == "BudgetReached"
    assert failed.usage.completion_tokens < 2_500


def test_a_turn_that_is_interrupted_counts_the_arguments_that_came(upstream: Upstream) -> None:
    upstream.enqueue("agg", endless(200))
    events = run(upstream, offering())
    cut = next(place for place, event in enumerate(events) if isinstance(event, AggregatorFinished))
    turn = folded(events[:cut])
    assert turn.status == "interrupted"
    assert turn.usage.completion_tokens >= 200


def test_an_answer_may_hold_text_and_calls(upstream: Upstream) -> None:
    events = [chunk({"content": "I look. "}), *(calling("read").events or ())]
    upstream.enqueue("agg", Reply(events=events))
    turn = folded(run(upstream, offering("a")))
    assert (turn.reply, turn.finish_reason) == ("I look. ", "tool_calls")
    assert [call.name for call in turn.tool_calls] == ["read"]


def test_a_proposer_that_calls_a_tool_is_lost(upstream: Upstream) -> None:
    upstream.enqueue("a", calling("read"))
    upstream.always("agg", calling("read"))
    turn = folded(run(upstream, offering("a", "b")))
    assert turn.degraded
    assert turn.proposals[0][0].error is not None
    assert "called a tool" in turn.proposals[0][0].error.message


# --- aggregators that cannot call tools


def turns(
    up: Upstream, profile: Profile, *talks: Conversation, list_first: bool = False
) -> list[Turn]:
    """Turns with the same clients, one after the other."""

    async def main() -> list[Turn]:
        clients: ClientPool = pool(up)
        try:
            if list_first:
                await clients.catalog.read(clients.providers.parse("lab:agg")[0])
            return [
                await deliver(run_turn(profile, talk, clients, limits=AT_ONCE)) for talk in talks
            ]
        finally:
            await clients.aclose()

    return asyncio.run(main())


def test_what_the_aggregator_cannot_is_learned_and_not_paid_for_twice(upstream: Upstream) -> None:
    upstream.always("agg", REFUSED)
    first, second = turns(upstream, offering("a", "b"), asked(), asked())
    for turn in (first, second):
        assert turn.status == "failed"
        assert [cause.kind for cause in turn.causes] == ["ToolsUnsupported"]
        assert "agg cannot call tools" in turn.causes[0].message
        assert 'set `tools` to "ignore"' in str(turn.causes[0].hint)
    assert first.usage.calls == 2
    assert second.usage.calls == 0
    assert len(upstream.chats()) == 3


def test_a_fallback_that_can_is_asked_instead(upstream: Upstream) -> None:
    upstream.always("agg", REFUSED)
    upstream.always("second", calling("read"))
    first, second = turns(upstream, offering("a", fallbacks=["lab:second"]), asked(), asked())
    for turn in (first, second):
        assert (turn.status, turn.model) == ("finished", "lab:second")
        assert turn.tool_calls[0].name == "read"
        assert any("cannot call tools" in line for line in turn.lost)
    # Once is enough.
    assert len(upstream.chats("agg")) == 1


@pytest.mark.parametrize("fallback", [False, True])
def test_a_list_that_says_so_is_believed(fallback: bool) -> None:
    models: list[str | Mapping[str, object]] = [
        {"id": "agg", "supported_parameters": ["temperature"]},
        {"id": "second", "supported_parameters": ["tools"]},
        "a",
    ]
    with Upstream(models=models) as up:
        up.always("second", calling("read"))
        profile = offering("a", fallbacks=["lab:second"] if fallback else [])
        [turn] = turns(up, profile, asked(), list_first=True)
        assert turn.status == ("finished" if fallback else "failed")
        assert up.chats("agg") == []
        assert len(up.chats("a")) == int(fallback)


def test_a_history_with_tools_is_text_for_an_aggregator_that_cannot_call_them() -> None:
    talk = Conversation.of([Message("user", "Look."), called("read"), result("read", "x = 1")])
    with Upstream(models=[{"id": "agg", "supported_parameters": ["temperature"]}, "a"]) as up:
        [turn] = turns(up, mixture("a"), talk, list_first=True)
        assert turn.status == "finished"
        roles = [message["role"] for message in up.chats("agg")[0].messages]
        assert roles == ["system", "user", "assistant", "user"]


def test_ignored_tools_need_nobody_who_can_call_them(upstream: Upstream) -> None:
    profile = replace(offering("a"), tools="ignore")
    upstream.enqueue("agg", REFUSED)
    first, second = turns(upstream, profile, asked(), asked())
    assert [turn.status for turn in (first, second)] == ["failed", "finished"]


# --- histories


def test_calls_and_their_results_are_left_out_together(upstream: Upstream) -> None:
    long = {"message": "maximum context length is 1000 tokens, however you requested 9000"}
    upstream.enqueue("agg", Reply(status=400, error={"error": long}))
    old = [Message("user", "Look."), called("read"), result("read", "word " * 4_000)]
    recent = [Message("assistant", "Done."), Message("user", "And?"), Message("assistant", "So.")]
    talk = Conversation.of([*old, *recent, Message("user", "Fix it.")])
    assert folded(run(upstream, offering(), talk)).status == "finished"
    [_, again] = upstream.chats("agg")
    assert [message["role"] for message in again.messages][-3:] == ["user", "assistant", "user"]
    assert not any(message["role"] == "tool" for message in again.messages)
    assert not any("tool_calls" in message for message in again.messages)


def test_work_without_a_message_of_the_user_keeps_its_results(upstream: Upstream) -> None:
    talk = Conversation.of([Message("system", "Work."), called("read"), result("read", "x")])
    run(upstream, offering("a"), talk)
    [acting] = upstream.chats("agg")
    roles = [message["role"] for message in acting.messages]
    assert roles == ["system", "user", "assistant", "tool"]
    assert acting.messages[1]["content"] == "Work."
