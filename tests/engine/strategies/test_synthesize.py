"""*synthesize* with subsets, another order, and windows; and proposers that are made to differ."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, ProviderSettings
from moa_cli.core.conversation import Conversation, Message, Turn
from moa_cli.core.stream import deliver
from moa_cli.engine import Budget, Cap, Control, Limits, run_turn
from moa_cli.engine.forecast import forecast_turn
from moa_cli.profile import Profile
from moa_cli.profile.variety import INSTRUCTIONS, TEMPERATURES
from tests.support.mixtures import AT_ONCE, LAB_KEY, asked, lab, mixture, pool
from tests.support.upstream import Reply, Request, Upstream

FIVE = ("a", "b", "c", "d", "e")
_NUMBERED = re.compile(r"^\d+\. (.*)$", re.MULTILINE)


def turn_of(
    up: Upstream,
    profile: Profile,
    conversation: Conversation | None = None,
    *,
    limits: Limits = AT_ONCE,
    control: Control | None = None,
) -> Turn:
    """A whole turn."""

    async def once() -> Turn:
        async with aclosing(pool(up)) as clients:
            talk = conversation or asked()
            return await deliver(run_turn(profile, talk, clients, limits=limits, control=control))

    return asyncio.run(once())


class _Counting:
    def __init__(self) -> None:
        self._asked = 0

    def __call__(self, request: Request) -> Reply:
        self._asked += 1
        return Reply(text=f"{request.model}{self._asked}")


def named(up: Upstream, *models: str) -> None:
    """Each of those models answers with its name and how often it was asked."""
    for model in models:
        up.always(model, _Counting())


def read(request: Request) -> list[str]:
    """The references that a request holds, in their order."""
    return _NUMBERED.findall(request.messages[0]["content"])


def test_each_refining_proposer_reads_its_own_subset(upstream: Upstream) -> None:
    named(upstream, *FIVE, "agg")
    turn = turn_of(upstream, mixture(*FIVE, rounds=3, references=2))
    subsets = {}
    for model in FIVE:
        first, *later = upstream.chats(model)
        assert [message["role"] for message in first.messages] == ["user"]
        for number, request in enumerate(later, 1):
            found = read(request)
            assert len(found) == len(set(found)) == 2
            # Answers of the round before, in the order of the profile.
            assert {name[-1] for name in found} == {str(number)}
            assert found == sorted(found)
            subsets[model, number] = tuple(name[0] for name in found)
    assert len(set(subsets.values())) > 2
    # The reply is written from all.
    assert read(upstream.chats("agg")[0]) == [f"{model}3" for model in FIVE]
    assert turn.reply == "agg1"
    assert turn.usage.calls == 16


def test_the_same_turn_draws_the_same_subsets(upstream: Upstream) -> None:
    drawn = []
    for _ in range(2):
        named(upstream, *FIVE, "agg")
        upstream.requests.clear()
        turn_of(upstream, mixture(*FIVE, rounds=2, references=3, shuffle=True))
        drawn.append([read(upstream.chats(model)[1]) for model in FIVE])
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("count", [5, 9])
def test_as_many_references_as_there_are_change_nothing(upstream: Upstream, count: int) -> None:
    requests = []
    for most in (None, count):
        named(upstream, *FIVE, "agg")
        upstream.requests.clear()
        profile = replace(mixture(*FIVE, rounds=2), references=most)
        turn_of(upstream, profile)
        chats = sorted(upstream.chats(), key=lambda chat: (chat.model, len(str(chat.messages))))
        requests.append([chat.messages for chat in chats])
    assert requests[0] == requests[1]


def test_one_reference_is_a_refinement_of_one_answer(upstream: Upstream) -> None:
    named(upstream, "a", "b", "agg")
    turn_of(upstream, mixture("a", "b", rounds=2, references=1))
    assert {len(read(upstream.chats(model)[1])) for model in ("a", "b")} == {1}


def test_shuffled_references_are_all_there(upstream: Upstream) -> None:
    named(upstream, *FIVE, "agg")
    turn_of(upstream, mixture(*FIVE, rounds=2, shuffle=True))
    orders = [read(upstream.chats(model)[1]) for model in FIVE]
    assert all(sorted(order) == [f"{model}1" for model in FIVE] for order in orders)
    assert len(set(map(tuple, orders))) > 1
    last = read(upstream.chats("agg")[0])
    assert sorted(last) == [f"{model}2" for model in FIVE] != last


# --- windows


def test_an_aggregator_reads_no_more_than_its_window(upstream: Upstream) -> None:
    named(upstream, *FIVE, "agg")
    turn = turn_of(upstream, mixture(*FIVE, window=2))
    assert [read(request) for request in upstream.chats("agg")] == [
        ["a1", "b1"],
        ["agg1", "c1"],
        ["agg2", "d1"],
        ["agg3", "e1"],
    ]
    assert turn.reply == "agg4"
    assert [(review.purpose, review.layer, review.text) for review in turn.reviews] == [
        ("merge", 2, "agg1"),
        ("merge", 3, "agg2"),
        ("merge", 4, "agg3"),
    ]
    assert [charge.layer for charge in turn.ledger] == [1, 1, 1, 1, 1, 2, 3, 4, 5]
    assert turn.usage.calls == 9
    assert turn.reply_usage.calls == 1
    assert not turn.lost


def test_what_is_foreseen_holds_the_merges(upstream: Upstream) -> None:
    profile = mixture(*FIVE, window=3)
    named(upstream, *FIVE, "agg")
    foreseen = forecast_turn(profile, asked(), {})
    turn = turn_of(upstream, profile)
    assert sum(layer.usage.calls for layer in foreseen) == turn.usage.calls == 7
    assert [layer.layer for layer in foreseen] == [1, 2, 3]


@pytest.mark.parametrize("window", [5, 8])
def test_a_window_that_holds_all_changes_nothing(upstream: Upstream, window: int) -> None:
    named(upstream, *FIVE, "agg")
    turn = turn_of(upstream, mixture(*FIVE, window=window))
    assert [read(request) for request in upstream.chats("agg")] == [[f"{m}1" for m in FIVE]]
    assert turn.reviews == ()


def test_a_fallback_merges_where_the_aggregator_fails(upstream: Upstream) -> None:
    named(upstream, "a", "b", "c", "spare")
    upstream.always("agg", Reply(status=404, error={"error": {"message": "no such model"}}))
    aggregator = lab("agg", fallbacks=["lab:spare"])
    turn = turn_of(upstream, mixture("a", "b", "c", window=2, aggregator=aggregator))
    assert read(upstream.chats("spare")[0]) == ["a1", "b1"]
    assert read(upstream.chats("spare")[-1]) == ["spare1", "c1"]
    assert turn.status == "finished"
    assert any("merge (merge)" in sentence or "agg" in sentence for sentence in turn.lost)


def test_without_a_merge_the_reply_is_written_from_all_answers(upstream: Upstream) -> None:
    named(upstream, "a", "b", "c")
    refused = Reply(status=400, error={"error": {"message": "out of order"}})
    upstream.enqueue("agg", refused, Reply(text="from all"))
    turn = turn_of(upstream, mixture("a", "b", "c", window=2))
    assert turn.reply == "from all"
    assert read(upstream.chats("agg")[-1]) == ["a1", "b1", "c1"]
    assert "the reply is written from all answers at once" in turn.lost


def test_merges_are_made_without_tools(upstream: Upstream) -> None:
    named(upstream, "a", "b", "c", "agg")
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    aggregator = lab("agg", extra={"tools": [tool]}, max_tokens=7)
    turn_of(upstream, mixture("a", "b", "c", window=2, aggregator=aggregator))
    merge, reply = upstream.chats("agg")
    assert "tools" not in merge.body
    assert "max_tokens" not in merge.body
    assert reply.body["tools"] == [tool]


def test_a_cap_that_leaves_no_room_for_the_merges_is_told_first(upstream: Upstream) -> None:
    named(upstream, *FIVE, "agg")
    limits = Limits(budgets=(Budget(Cap("the cap", "tokens", 500)),))
    turn = turn_of(upstream, mixture(*FIVE, window=2, max_tokens=8), limits=limits)
    assert turn.capped
    assert upstream.chats() == []
    # Without the merges there would be room.
    assert turn_of(upstream, mixture(*FIVE, max_tokens=8), limits=limits).reply == "agg1"


# --- proposers that differ


def test_each_proposer_of_a_layer_gets_another_instruction(upstream: Upstream) -> None:
    named(upstream, "a", "b", "agg")
    proposers = lab("a", samples=2), lab("b", system="Be short.", instruction="No lists.")
    turn_of(upstream, mixture(*proposers, variety="perspectives", system="Be kind."))
    texts = INSTRUCTIONS["perspectives"]
    first, second = sorted(chat.messages[0]["content"] for chat in upstream.chats("a"))
    assert {first, second} == {f"Be kind.\n\n{texts[0]}", f"Be kind.\n\n{texts[1]}"}
    [other] = upstream.chats("b")
    assert other.messages[0] == {
        "role": "system",
        "content": f"Be short.\n\nNo lists.\n\n{texts[2]}",
    }
    [reply] = upstream.chats("agg")
    assert not any(text in str(reply.messages) for text in texts)


def test_an_instruction_does_not_replace_the_system_prompt_of_a_program(upstream: Upstream) -> None:
    named(upstream, "a", "agg")
    talk = Conversation.of([Message("system", "You are Ada."), Message("user", "Rain?")])
    turn_of(upstream, mixture(lab("a", instruction="Be brief.")), talk)
    assert upstream.chats("a")[0].messages[0]["content"] == "You are Ada.\n\nBe brief."
    assert upstream.chats("agg")[0].messages[0]["content"].startswith("You are Ada.\n\nYou have")


def test_temperatures_go_to_those_without_one_of_their_own(upstream: Upstream) -> None:
    named(upstream, "a", "b", "agg")
    proposers = lab("a", samples=3), lab("b", temperature=0.1)
    turn_of(upstream, mixture(*proposers, variety="temperatures", temperature=0.5))
    found = sorted(chat.body["temperature"] for chat in upstream.chats("a"))
    assert found == sorted(TEMPERATURES[:3])
    assert upstream.chats("b")[0].body["temperature"] == 0.1
    assert upstream.chats("agg")[0].body["temperature"] == 0.5


def test_proposers_may_have_a_limit_of_their_own(upstream: Upstream) -> None:
    named(upstream, "a", "b", "agg")
    proposers = "a", lab("b", max_tokens=9)
    turn_of(upstream, mixture(*proposers, proposer_max_tokens=30, max_tokens=50))
    limits = {chat.model: chat.body["max_tokens"] for chat in upstream.chats()}
    assert limits == {"a": 30, "b": 9, "agg": 50}


def test_the_effort_of_reasoning_is_asked_for_and_left_out_where_it_is_refused(
    upstream: Upstream,
) -> None:
    named(upstream, "a", "agg")
    message = "Unrecognized request argument supplied: reasoning_effort"
    refused = Reply(status=400, error={"error": {"message": message, "param": "reasoning_effort"}})
    upstream.enqueue("b", refused, Reply(text="b1"))
    proposers = lab("a", reasoning_effort="high"), "b"
    turn = turn_of(upstream, mixture(*proposers, reasoning_effort="low"))
    asked_for = {chat.model: chat.body.get("reasoning_effort") for chat in upstream.chats()}
    assert asked_for == {"a": "high", "b": None, "agg": "low"}
    assert turn.status == "finished"
    assert not turn.lost


# --- searches

_SOURCE = {"type": "url_citation", "url_citation": {"url": "https://a.example/x", "title": "X\n1"}}


_SOURCED = Reply(
    events=[
        {"choices": [{"index": 0, "delta": {"content": "It is X."}}]},
        {"choices": [{"index": 0, "delta": {"annotations": [_SOURCE]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        "[DONE]",
    ]
)


def searching(up: Upstream, profile: Profile, web: Mapping[str, Any] | None) -> Turn:
    """A whole turn with a provider whose models are asked to search by those fields."""
    settings = ProviderSettings(base_url=up.url, api_key_env="LAB_API_KEY", web=web)
    config = Config(providers={"lab": settings})

    async def once() -> Turn:
        async with aclosing(ClientPool(config, {"LAB_API_KEY": LAB_KEY})) as clients:
            return await deliver(run_turn(profile, asked(), clients, limits=AT_ONCE))

    return asyncio.run(once())


def test_proposers_search_in_the_way_of_their_provider(upstream: Upstream) -> None:
    named(upstream, "b")
    upstream.always("a", _SOURCED)
    upstream.always("agg", Reply(text="See https://a.example/x for X."))
    fields = {"web_search_options": {"search_context_size": "low"}}
    turn = searching(upstream, mixture("a", lab("b", web=False), web=True), fields)
    bodies = {chat.model: chat.body for chat in upstream.chats()}
    assert bodies["a"]["web_search_options"] == {"search_context_size": "low"}
    assert "web_search_options" not in bodies["b"]
    assert "web_search_options" not in bodies["agg"]
    prompt = bodies["agg"]["messages"][0]["content"]
    assert "1. It is X.\nSources of this response:\n- X 1: https://a.example/x\n2. b1" in prompt
    assert prompt.endswith("name its address in your answer.")
    [cited] = turn.citations
    assert cited.url == "https://a.example/x"
    assert turn.proposals[0][0].citations == turn.citations


def test_without_searches_sources_are_not_put_before_the_aggregator(upstream: Upstream) -> None:
    upstream.always("a", _SOURCED)
    upstream.always("agg", Reply(text="See https://a.example/x for X."))
    turn = searching(upstream, mixture("a"), {"web_search_options": {}})
    assert upstream.chats("agg")[0].messages[0]["content"].endswith("1. It is X.")
    assert turn.citations == ()


def test_a_provider_without_a_known_search_loses_the_proposer_by_name(upstream: Upstream) -> None:
    named(upstream, "b", "agg")
    turn = searching(upstream, mixture(lab("a", web=True), "b"), None)
    assert turn.status == "finished"
    assert upstream.chats("a") == []
    [lost] = turn.lost
    assert lost == "lab:a: lab: moa does not know how its models search the web"
    assert turn.usage.calls == 2
