"""With a strategy, what models say about proposals is paid for once: in a loop of tools, by equal
requests at the same time, and for several choices of one request."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.server.test_tool_loops import messages, step
from tests.support.command import Moa
from tests.support.server import Server, serving
from tests.support.tool_calls import TOOLS, calling
from tests.support.upstream import Reply, Request, Upstream

REQUESTS = 20
COMPARISON = (
    '{"points": [{"kind": "consensus", "text": "Read it.", "responses": [1, 2, 3]}],'
    ' "groups": [[1, 2, 3]]}'
)
# The settings of the profile, who reviews, and what is said.
STRATEGIES: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "synthesize": ({}, (), ""),
    "window": ({"window": 2}, ("agg",), "merged"),
    "fusion": ({"strategy": "fusion"}, ("judge",), COMPARISON),
    "fusion in words": ({"strategy": "fusion"}, ("judge",), "They are alike."),
    "fusion in one call": ({"strategy": "fusion", "one_call": True}, (), ""),
    "select": ({"strategy": "select"}, ("judge",), "model_2"),
    "select by proposers": (
        {"strategy": "select", "chosen_by": "proposers"},
        ("a", "b", "c"),
        "model_1",
    ),
    "council": ({"strategy": "council"}, ("a", "b", "c"), "Ranking: 2 > 1"),
    "vote": (
        {"strategy": "vote", "final_answer": "text"},
        ("judge",),
        "The most consistent response is Response 1",
    ),
    "vote by answers": ({"strategy": "vote"}, (), ""),
    "stop when agreed": ({"strategy": "council", "stop_when_agreed": 0.9}, ("a", "b", "c"), "?"),
    "report": ({"report": True}, (), ""),
}


def asked(upstream: Upstream, model: str) -> list[Request]:
    """The requests for a model that offer it no tools: what an aggregator writes does."""
    return [request for request in upstream.chats(model) if "tools" not in request.body]


def profile(moa: Moa, upstream: Upstream, **settings: Any) -> None:
    """Three proposers, and an aggregator that calls a tool where it is offered some."""
    moa.profile("lab", "a", "b", "c", **{"judge": "lab:judge", **settings})

    def reply(request: Request) -> Reply:
        return calling("read") if "tools" in request.body else Reply(text="written")

    upstream.always("*", Reply(text="line 1"))
    upstream.always("agg", reply)


def script(upstream: Upstream, reviewers: Sequence[str], said: str) -> None:
    """What those who review say, behind their own proposals."""
    for model in reviewers:
        first = [Reply(text="line 1")] if model in "abc" else []
        upstream.enqueue(model, *first, Reply(text=said))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_loop_of_twenty_requests_costs_the_strategy_once(
    moa: Moa, upstream: Upstream, strategy: str
) -> None:
    settings, reviewers, said = STRATEGIES[strategy]
    profile(moa, upstream, **settings)
    script(upstream, reviewers, said)
    with serving(moa) as server:
        told = [step(server, number)["moa"] for number in range(REQUESTS)]
    paid = 3 + len(reviewers)
    assert len(upstream.chats()) == REQUESTS + paid
    assert [ledger["calls"] for ledger in told] == [1 + paid] + [1] * (REQUESTS - 1)
    # The decision is the same in each request, and so is what the aggregator is told.
    assert len({str(ledger.get("decision")) for ledger in told}) == 1
    acting = [request for request in upstream.chats("agg") if "tools" in request.body]
    assert len(acting) == REQUESTS
    assert acting[0].body["tools"] == TOOLS
    for model in {*"abc", *reviewers}:
        assert len(asked(upstream, model)) == (model in "abc") + (model in reviewers)


@pytest.mark.parametrize("verdict", ["yes", "no"])
def test_a_route_is_decided_once(moa: Moa, upstream: Upstream, verdict: str) -> None:
    profile(moa, upstream, strategy="council", route=[{"proposers": 1, "verify": True}])
    upstream.always("judge", Reply(text=f"Verdict: {verdict}"))
    with serving(moa) as server:
        told = [step(server, number)["moa"] for number in range(3)]
    assert len(upstream.chats("judge")) == 1
    enough = verdict == "yes"
    assert [ledger["calls"] for ledger in told] == [3 if enough else 3 + 1 + 3 + 1, 1, 1]
    for ledger in told:
        summary = ledger["decision"]["summary"]
        assert ("alone was asked: lab:judge finds" in summary) == enough
    # One proposal is no council, but all that the route asks for.
    assert not (enough and any(ledger["lost"] for ledger in told))


def test_a_client_that_leaves_while_a_route_is_checked_leaves_no_call(
    moa: Moa, upstream: Upstream
) -> None:
    profile(moa, upstream, route=[{"proposers": 1, "verify": True}])
    upstream.enqueue("judge", Reply(stall_after=0))
    upstream.always("judge", Reply(text="Verdict: yes"))
    with serving(moa) as server:
        with server.streaming(messages=messages(0), tools=TOOLS) as response:
            # Held: a generator that is given up closes the connection.
            pieces = response.iter_bytes()
            next(pieces)
            upstream.wait_for(lambda: bool(upstream.chats("judge")))
        upstream.wait_for(lambda: upstream.in_flight == 0)
        assert step(server, 0)["moa"]["calls"] == 3
        assert step(server, 1)["moa"]["calls"] == 1
    assert upstream.chats("judge")[0].disconnected


@pytest.mark.parametrize(
    ("strategy", "said"), [("fusion", Reply(status=400)), ("select", Reply(text="Hm."))]
)
def test_a_lost_review_is_not_asked_for_in_each_request(
    moa: Moa, upstream: Upstream, strategy: str, said: Reply
) -> None:
    profile(moa, upstream, strategy=strategy)
    upstream.always("judge", said)
    with serving(moa) as server:
        told = [step(server, number)["moa"] for number in range(3)]
    assert len(upstream.chats("judge")) == 1
    # That the reply comes about without it is true of each request.
    assert all(ledger["degraded"] for ledger in told)


def test_a_lost_proposer_is_no_member_of_the_council_in_later_requests(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", "a", "b", "c", "d", strategy="council")
    for model in "abc":
        upstream.enqueue(model, Reply(text=f"from {model}"), Reply(text="Ranking: 2 > 1"))
    upstream.always("d", Reply(status=400))
    upstream.always("agg", calling("read"))
    with serving(moa) as server:
        told = [step(server, number)["moa"] for number in range(3)]
    assert len(upstream.chats("d")) == 1
    assert [ledger["calls"] for ledger in told] == [7, 1, 1]
    assert all("ranked by 3 of 4" in ledger["decision"]["summary"] for ledger in told)


def test_reviews_outlast_a_failure_of_the_aggregator(moa: Moa, upstream: Upstream) -> None:
    profile(moa, upstream, strategy="council")
    upstream.enqueue("agg", Reply(status=400))
    with serving(moa) as server:
        assert server.ask(messages=messages(0), tools=TOOLS).status_code == 502
        assert step(server, 0)["moa"]["calls"] == 1
    assert [len(upstream.chats(model)) for model in ("a", "b", "c", "agg")] == [2, 2, 2, 2]


def test_reviews_that_have_come_outlast_a_client_that_leaves(moa: Moa, upstream: Upstream) -> None:
    profile(moa, upstream, strategy="council")
    go, never = threading.Event(), threading.Event()
    upstream.enqueue("b", Reply(text="line 1"), Reply(status=400, after=go))
    upstream.enqueue("c", Reply(text="line 1"), Reply(after=never))
    with serving(moa) as server:
        with server.streaming(messages=messages(0), tools=TOOLS) as response:
            # Held: a generator that is given up closes the connection.
            pieces = response.iter_bytes()
            next(pieces)
            upstream.wait_for(lambda: [len(upstream.chats(model)) for model in "abc"] == [2] * 3)
            # The review of `a` is there; then that of `b` is lost, which the server counts.
            upstream.wait_for(lambda: upstream.in_flight == 2)
            go.set()
            lost = 'moa_model_failures_total{kind="RequestRefused",model="lab:b"} 1.0'
            upstream.wait_for(lambda: lost in server.get("/metrics").text)
        upstream.wait_for(lambda: upstream.in_flight == 0)
        never.set()
        assert step(server, 1)["moa"]["calls"] == 2
    assert [len(upstream.chats(model)) for model in ("a", "b", "c", "agg")] == [2, 2, 3, 1]
    first, second = upstream.chats("c")[1:]
    # It is asked about the user's message and the proposals, not about results that came later.
    assert first.messages == second.messages


def test_requests_at_the_same_time_share_reviews(moa: Moa, upstream: Upstream) -> None:
    profile(moa, upstream, strategy="council", report=True)
    with serving(moa) as server, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: step(server, 1), range(8)))
    assert [len(upstream.chats(model)) for model in ("a", "b", "c", "agg")] == [2, 2, 2, 8]


def choices(server: Server, **fields: Any) -> dict[str, Any]:
    """A request for three choices."""
    answer = server.ask(n=3, **fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert len(body["choices"]) == 3
    return body


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("tools", [False, True])
def test_choices_share_the_reviews_of_the_first(
    moa: Moa, upstream: Upstream, strategy: str, tools: bool
) -> None:
    settings, reviewers, said = STRATEGIES[strategy]
    profile(moa, upstream, **settings)
    script(upstream, reviewers, said)
    fields: dict[str, Any] = {"tools": TOOLS} if tools else {}
    with serving(moa) as server:
        body = choices(server, **fields)
    chosen = settings.get("strategy") in ("select", "vote")
    if tools:
        calls = 3 + len(reviewers) + 3
    elif "stop_when_agreed" in settings:
        calls = 3
    else:
        calls = 3 + len(reviewers) + (0 if chosen else 3) + ("report" in settings)
    assert len(upstream.chats()) == body["moa"]["calls"] == calls


@pytest.mark.parametrize("strategy", ["fusion", "select", "council"])
def test_choices_do_not_ask_again_for_a_review_that_was_lost(
    moa: Moa, upstream: Upstream, strategy: str
) -> None:
    profile(moa, upstream, strategy=strategy)
    reviewer = "c" if strategy == "council" else "judge"
    first = [Reply(text="from c")] if strategy == "council" else []
    upstream.enqueue(reviewer, *first, *[Reply(status=400)] * 5)
    with serving(moa) as server:
        choices(server)
    assert len(upstream.chats(reviewer)) == 1 + len(first)


def test_choices_in_a_loop_cost_a_reply_each(moa: Moa, upstream: Upstream) -> None:
    profile(moa, upstream, strategy="council")
    with serving(moa) as server:
        step(server, 0)
        assert choices(server, messages=messages(1), tools=TOOLS)["moa"]["calls"] == 3
    assert len(upstream.chats()) == 3 + 3 + 1 + 3


def test_choices_are_made_of_the_proposals_of_the_first(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", "b", {"model": "lab:c", "timeout": 1})
    upstream.always("c", Reply(chunks=["It is half a sentence. ", "And"], stall_after=1))
    with serving(moa) as server:
        choices(server)
    prompts = {str(request.messages) for request in upstream.chats("agg")}
    assert len(prompts) == 1
    assert "half a sentence" not in prompts.pop()
