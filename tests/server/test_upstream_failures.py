"""Trouble upstream reaches the client with the right status."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.command import Moa
from tests.support.messages_wire import post
from tests.support.responses import ask
from tests.support.server import Server, chunks, serving
from tests.support.upstream import Reply, Upstream


def refusal(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x", "param": None, "code": code}}


TROUBLE: list[tuple[Reply, int, str]] = [
    (Reply(status=401), 502, "upstream_authentication"),
    (Reply(status=404), 502, "upstream_model_not_found"),
    (Reply(status=429), 429, "rate_limit_exceeded"),
    (Reply(status=402), 502, "upstream_no_credit"),
    (Reply(text="", finish_reason="content_filter"), 400, "content_filter"),
    (Reply(status=400, error=refusal("maximum context length")), 400, "context_length_exceeded"),
    (Reply(status=400), 502, "upstream_refused"),
    (Reply(status=500), 502, "upstream_failed"),
    (Reply(refuse=True), 502, "upstream_failed"),
    (Reply(error="<html><title>Bad</title></html>"), 502, "upstream_failed"),
    (Reply(text="", usage=None), 502, "upstream_failed"),
]


def refused(server: Server, **fields: Any) -> httpx.Response:
    """The answer to a request that fails within a second, before which a stream has no head. A busy
    machine may take longer for it; then it is made again."""
    for _ in range(10):
        response = server.ask(**fields)
        if response.status_code != 200:
            break
    return response


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("reply", "status", "code"), TROUBLE, ids=lambda value: str(value)[:40])
def test_a_cause_has_its_status(
    server: Server, upstream: Upstream, reply: Reply, status: int, code: str, stream: bool
) -> None:
    if stream:
        # A server's first turn loads its clients, and the head of a stream waits but a second.
        server.ask()
    upstream.always("*", reply)
    response = refused(server, stream=stream)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error["code"] == code
    assert error["message"].startswith("no proposer answered; lab:")
    assert all(f"{name}: " in error["message"] for name in ("lab:a", "lab:b", "lab:c"))
    assert response.headers.get("x-should-retry") == (None if status == 429 else "false")


@pytest.mark.parametrize("who", ["agg", "*"])
def test_a_client_is_told_how_long_the_upstream_asks_to_wait(
    server: Server, upstream: Upstream, who: str
) -> None:
    for model in ("a", "b", "c", "agg") if who == "*" else (who,):
        upstream.always(model, Reply(status=429, headers={"Retry-After": "600"}))
    first = server.ask()
    assert (first.status_code, first.headers["retry-after"]) == (429, "600")
    # The next ones are told what is left of it, on each wire, and nothing is asked for them.
    calls = len(upstream.chats())
    for answer in (
        server.ask(stream=True),
        post(server),
        ask(server),
        server.http.post(f"{server.url}/completions", json={"model": "moa", "prompt": "why?"}),
    ):
        assert answer.status_code == 429
        assert 550 < int(answer.headers["retry-after"]) <= 600
    assert len(upstream.chats()) == calls


def test_no_time_is_told_where_the_upstream_names_none(server: Server, upstream: Upstream) -> None:
    upstream.always("*", Reply(status=429))
    refused = server.ask()
    assert refused.status_code == 429
    assert "retry-after" not in refused.headers


THOUGHT = ["hm ", "hm"]
WORDLESS = [
    (Reply(text="", reasoning=THOUGHT, finish_reason="length"), "length"),
    (Reply(text="", reasoning=THOUGHT), "stop"),
    (Reply(text="<think>hm hm", finish_reason="length"), "length"),
    (Reply(text="", finish_reason="length", usage=(5, 9)), "length"),
    (Reply(text="\n\n", reasoning=THOUGHT), "stop"),
    (Reply(text=""), "stop"),
]


@pytest.mark.parametrize(("reply", "finish"), WORDLESS, ids=lambda value: str(value)[:60])
def test_a_reply_without_words_is_an_empty_one(
    server: Server, upstream: Upstream, reply: Reply, finish: str
) -> None:
    """As of other servers: the client sees why it is empty, and does not ask again for an error."""
    upstream.always("agg", reply)
    show = {"show_proposals": True}
    whole = server.ask(moa=show, n=2).json()
    for choice in whole["choices"]:
        assert (choice["message"]["content"], choice["finish_reason"]) == ("", finish)
    thought = whole["choices"][0]["message"]["reasoning_content"]
    assert thought.endswith("hm hm") == bool(reply.reasoning or reply.text)
    assert whole["moa"]["lost"][0].startswith("lab:agg: it ")
    assert whole["usage"]["completion_tokens"] == whole["moa"]["usage"]["sum"]["completion_tokens"]
    with server.streaming(moa=show) as response:
        told = chunks(response.read().decode())
    streamed = [choice for chunk in told for choice in chunk["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in streamed).strip() == ""
    assert streamed[0]["delta"].get("role") == "assistant"
    assert streamed[-1]["finish_reason"] == finish
    with server.streaming() as response:
        told = chunks(response.read().decode())
    assert told[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}

    message = post(server, thinking={"type": "adaptive"}).json()
    assert message["stop_reason"] == {"stop": "end_turn", "length": "max_tokens"}[finish]
    assert {block["type"] for block in message["content"]} <= {"thinking"}
    body = ask(server, reasoning={"summary": "auto"}).json()
    assert body["status"] == {"stop": "completed", "length": "incomplete"}[finish]
    assert body["output"][-1]["content"][0]["text"] == ""
    prompt = {"model": "moa", "prompt": "why?"}
    text = server.http.post(f"{server.url}/completions", json=prompt).json()["choices"][0]
    assert (text["text"], text["finish_reason"]) == ("", finish)


def test_a_fallback_comes_before_an_empty_reply(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", aggregator={"model": "lab:agg", "fallbacks": ["lab:spare"]})
    upstream.always("agg", Reply(text="", reasoning=THOUGHT, finish_reason="length"))
    upstream.always("spare", Reply(text="from the spare"))
    with serving(moa) as server:
        assert server.ask().json()["choices"][0]["message"]["content"] == "from the spare"
        upstream.always("spare", Reply(status=500))
        assert server.ask().status_code == 502


def test_a_tiny_limit_may_leave_no_words_at_all(server: Server, upstream: Upstream) -> None:
    """Clients look with one token whether a model answers."""
    for model in ("a", "b", "c", "agg"):
        upstream.always(model, Reply(text="", reasoning=["hm"], finish_reason="length"))
    looked = server.ask(max_tokens=1)
    assert looked.status_code == 200
    assert looked.json()["choices"][0]["finish_reason"] == "length"
    assert post(server, max_tokens=1).json()["stop_reason"] == "max_tokens"
    # Without such a limit it is a fault of the mixture.
    lost = server.ask()
    assert (lost.status_code, lost.json()["error"]["code"]) == (502, "upstream_failed")
    upstream.always("a", Reply(status=401))
    assert server.ask(max_tokens=1).status_code == 502


def test_an_empty_reply_is_no_json(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="", reasoning=THOUGHT, finish_reason="length"))
    failed = server.ask(response_format={"type": "json_object"})
    assert failed.status_code == 502
    assert "used all its tokens for thinking" in failed.json()["error"]["message"]


def test_a_time_out_is_a_504(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", timeout=0.2)
    upstream.always("*", Reply(stall_after=0))
    with serving(moa) as server:
        response = server.ask()
    assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")


def test_causes_of_several_kinds_are_a_502(server: Server, upstream: Upstream) -> None:
    upstream.always("a", Reply(status=429))
    upstream.always("b", Reply(status=401))
    upstream.always("c", Reply(status=500))
    error = server.ask()
    assert (error.status_code, error.json()["error"]["code"]) == (502, "upstream_failed")
    assert all(name in error.text for name in ("lab:a", "lab:b", "lab:c"))


def test_an_aggregator_lost_before_its_first_token_is_an_error(
    moa: Moa, upstream: Upstream
) -> None:
    # What fails before anything was sent has a status of its own.
    moa.profile("alone")
    upstream.always("agg", Reply(status=500))
    with serving(moa) as server:
        assert refused(server, model="alone", stream=True).status_code == 502
        upstream.always("agg", Reply(status=500, delay=0.5))
        with server.streaming() as response:
            lines = response.read().decode()
    assert response.status_code == 200
    assert lines.rstrip().split("\n")[-1].startswith('data: {"error":{"message":')
    assert "[DONE]" not in lines


def test_a_reply_that_breaks_off_ends_in_an_error(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="one two three", drop_after=2))
    with server.streaming() as response:
        *before, last = response.read().decode().strip().split("\n\n")
    assert 'two "' in before[-1]
    assert '"code":"upstream_failed"' in last
    assert last.startswith('data: {"error":')
    whole = server.ask()
    assert (whole.status_code, whole.json()["error"]["code"]) == (502, "upstream_failed")
    server.wait_for_log("200 .* stream .* upstream_failed")


def test_a_lost_proposer_is_no_lost_reply(server: Server, upstream: Upstream) -> None:
    upstream.always("a", Reply(status=500))
    with server.streaming() as response:
        told = chunks(response.read().decode())
    assert told[-1]["moa"]["degraded"]


def test_a_fallback_writes_the_reply(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", aggregator={"model": "lab:agg", "fallbacks": ["lab:spare"]})
    upstream.always("agg", Reply(status=500))
    upstream.always("spare", Reply(text="from the spare"))
    with serving(moa) as server:
        body = server.ask(temperature=0.25, stop="x").json()
    assert body["choices"][0]["message"]["content"] == "from the spare"
    assert body["moa"]["aggregator"] == "lab:spare"
    (call,) = upstream.chats("spare")
    assert (call.body["temperature"], call.body["stop"]) == (0.25, "x")


@pytest.mark.parametrize(
    ("arguments", "settings", "told"),
    [
        (["--max-total-tokens", "10"], {}, "--max-total-tokens"),
        (["--max-cost", "0.000001"], {}, "--max-cost"),
        ([], {"budget": {"day": 0.000001}}, "budget.day"),
        ([], {"budget": {"session": 0.000001}}, "budget.session"),
    ],
)
def test_a_cap_is_kept(
    moa: Moa, upstream: Upstream, arguments: list[str], settings: dict[str, Any], told: str
) -> None:
    prices = {f"lab:{name}": {"prompt": 1, "completion": 1} for name in ("a", "b", "c", "agg")}
    lab = {"base_url": upstream.url, "api_key_env": "LAB_KEY"}
    moa.configure(providers={"lab": lab}, prices=prices, **settings)
    with serving(moa, *arguments) as server:
        response = server.ask(max_tokens=5)
    assert response.status_code == 402
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "budget_reached")
    assert told in error["message"]
    assert upstream.chats() == []


def test_what_turns_cost_is_kept_and_counts_for_the_day(moa: Moa, upstream: Upstream) -> None:
    prices = {f"lab:{name}": {"prompt": 0, "completion": 1e5} for name in ("a", "agg")}
    lab = {"base_url": upstream.url, "api_key_env": "LAB_KEY"}
    moa.configure(providers={"lab": lab}, prices=prices, budget={"day": 1.0})
    moa.profile("lab", {"model": "lab:a", "max_tokens": 2}, aggregator="agg")
    upstream.always("*", Reply(text="two words"))
    with serving(moa) as server:
        first = server.ask(max_tokens=2)
        assert first.json()["moa"]["cost"] == pytest.approx(0.4)
        assert server.ask(max_tokens=2).status_code == 200
        third = server.ask(max_tokens=2)
        assert third.status_code == 402
        assert "budget.day $1.00 would be exceeded" in third.json()["error"]["message"]
        assert server.end() == 0
    stats = moa.run("history", "stats").text
    assert stats.splitlines()[-1].endswith(" $0.80")
    assert moa.run("history", "list").text == ""


@pytest.mark.parametrize("budget", ["day", "session"])
def test_turns_that_run_side_by_side_share_a_budget(
    moa: Moa, upstream: Upstream, budget: str
) -> None:
    prices = {"lab:agg": {"prompt": 0, "completion": 1e5}}
    lab = {"base_url": upstream.url, "api_key_env": "LAB_KEY"}
    moa.configure(providers={"lab": lab}, prices=prices, budget={budget: 0.5})
    moa.profile("lab", aggregator="agg")
    upstream.always("agg", Reply(text="two words", delay=0.3))
    with serving(moa) as server, ThreadPoolExecutor(8) as pool:
        # Each takes $0.20.
        codes = list(pool.map(lambda _: server.ask(max_tokens=2).status_code, range(8)))
        assert sorted(codes) == [200, 200, *[402] * 6]
        assert server.ask(max_tokens=2).status_code == 402
        # What was reserved is given back, once the last turn is written down. An endpoint that
        # is allowed one token sends one: a second would be cut off at the cap.
        upstream.always("agg", Reply(text="word"))
        upstream.wait_for(lambda: server.ask(max_tokens=1).status_code == 200)
    assert len(upstream.chats()) == 3


def test_nothing_is_kept_if_nothing_is_saved(moa: Moa) -> None:
    with serving(moa, env={"MOA_SAVE": "0"}) as server:
        assert server.ask().status_code == 200
        assert server.end() == 0
    assert not list(moa.config.parent.rglob("*.db"))
