"""Caps hold while answers come, of endpoints that keep to nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.server import serving
from tests.support.upstream import Reply, Upstream

LISTED: list[dict[str, object]] = [
    {"id": name, "pricing": {"input": 1.0, "output": 100.0}} for name in ("a", "b", "agg")
]
# A tenth of a cent is ten tokens; three cents are the cap of most tests. Little more than that is
# sent, as a process that was held up for a moment reads all that came meanwhile at once.
ENDLESS = Reply(chunks=["word "] * 4000, pause=0.002, stall_after=305)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(models=LISTED) as running:
        running.always("*", Reply(text="one two three"))
        yield running


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    machine = Moa(tmp_path, upstream.url)
    machine.profile("lab", "a", "b", max_tokens=50)
    return machine


def budget(moa: Moa, upstream: Upstream, **limits: object) -> None:
    provider = {"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}}
    moa.configure(providers=provider, budget=limits)


def sent(upstream: Upstream, model: str) -> int:
    upstream.wait_for(lambda: upstream.in_flight == 0)
    assert upstream.chats(model)[-1].disconnected
    return upstream.chats(model)[-1].sent


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--max-cost", "0.03", "stopped at --max-cost $0.030: lab:agg exceeded its max_to"),
        (
            "--max-total-tokens",
            "300",
            "stopped at --max-total-tokens 300 tokens: lab:agg exceeded its",
        ),
    ],
)
def test_a_reply_that_goes_on_beyond_its_limit_is_stopped_at_the_cap(
    moa: Moa, upstream: Upstream, option: str, value: str, told: str
) -> None:
    upstream.always("agg", ENDLESS)
    ran = moa.run("ask", "-r", "0", "hi", option, value)
    assert ran.code == 3
    assert told in ran.err
    assert ran.err.count("stopped at") == 1
    # What came is kept: about three hundred tokens, at 100 USD a million.
    assert 250 <= ran.text.count("word") <= 305
    assert sent(upstream, "agg") < 1000
    (row,) = json.loads(moa.run("history", "stats", "--json").text)["models"]
    assert (row["calls"], row["estimated_calls"]) == (1, 1)
    assert 250 <= row["completion_tokens"] <= 305
    assert row["known_cost"] <= 0.031
    (turn,) = json.loads(moa.run("history", "show", "--json").text)["turns"]
    assert turn["status"] == "failed"
    assert turn["reply"].startswith("word word")
    assert turn["usage"]["cost"] == pytest.approx(row["known_cost"])


def is_stopped_at_the_cap(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("ask", "-r", "0", "hi", "--max-cost", "0.03")
    assert ran.code == 3
    assert "stopped at --max-cost $0.030: lab:agg exceeded its max_tokens" in ran.err
    assert sent(upstream, "agg") < 1000
    (row,) = json.loads(moa.run("history", "stats", "--json").text)["models"]
    assert 0.02 <= row["known_cost"] <= 0.031


def test_a_refusal_without_end_is_stopped_at_the_cap(moa: Moa, upstream: Upstream) -> None:
    piece = {"choices": [{"index": 0, "delta": {"refusal": "word "}}]}
    # Words that are read at once are counted by their letters, as nine of ten tokens.
    endless = replace(ENDLESS, chunks=None, events=[piece] * 4000, usage=None, stall_after=340)
    upstream.always("agg", endless)
    is_stopped_at_the_cap(moa, upstream)


@pytest.mark.parametrize("before", ["", "<think>hm</think>"])
def test_white_space_without_end_is_stopped_at_the_cap(
    moa: Moa, upstream: Upstream, before: str
) -> None:
    # Each is three quarters of a token.
    endless = replace(ENDLESS, chunks=[before, *["\n  "] * 4000], stall_after=412)
    upstream.always("agg", endless)
    is_stopped_at_the_cap(moa, upstream)


@pytest.mark.parametrize("after", [0, 10])
def test_a_count_that_was_told_before_the_end_of_the_answer_is_not_the_last_word(
    moa: Moa, upstream: Upstream, after: int
) -> None:
    told = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": after + 1}}
    words = [{"choices": [{"index": 0, "delta": {"content": "word "}}]}] * 40
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    upstream.always("agg", Reply(events=[*words[:after], told, *words[after:], end, "[DONE]"]))
    assert moa.run("ask", "-r", "0", "hi").code == 0
    (row,) = json.loads(moa.run("history", "stats", "--json").text)["models"]
    assert (row["completion_tokens"], row["estimated_calls"]) == (40, 1)


def test_a_cap_that_has_room_lets_an_answer_go_on(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(chunks=["word "] * 400))
    ran = moa.run("ask", "-r", "0", "hi", "--max-cost", "0.05")
    assert ran.code == 0
    assert ran.text.count("word") == 400


def test_a_proposer_is_stopped_and_all_of_its_layer(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", replace(ENDLESS, stall_after=260))
    upstream.always("b", Reply(chunks=["slow "] * 50, pause=60))
    ran = moa.run("ask", "hi", "--max-cost", "0.03", "--show-proposals")
    assert ran.code == 3
    assert "stopped at --max-cost $0.030: lab:a exceeded its max_tokens (50)" in ran.err
    assert "word word" in ran.err
    assert upstream.chats("agg") == []
    assert sent(upstream, "a") < 1000
    rows = {
        row["model"]: row
        for row in json.loads(moa.run("history", "stats", "--json").text)["models"]
    }
    assert rows.keys() == {"lab:a", "lab:b"}
    # Fifty tokens of b's were promised to it.
    assert 180 <= rows["lab:a"]["completion_tokens"] <= 260
    turn = json.loads(moa.run("ask", "hi", "--max-cost", "0.03", "--json").text)
    assert turn["error"]["kind"] == "BudgetReached"
    assert turn["proposals"][0][0]["text"].startswith("word word")


def test_two_that_go_on_share_what_is_left(moa: Moa, upstream: Upstream) -> None:
    for model in ("a", "b"):
        upstream.always(model, replace(ENDLESS, stall_after=302))
    assert moa.run("ask", "hi", "--max-cost", "0.06").code == 3
    rows = json.loads(moa.run("history", "stats", "--json").text)["models"]
    assert 0.04 < sum(row["known_cost"] for row in rows) <= 0.0605


# Each piece is eight tokens for some models, by our own guess one or two.
@pytest.mark.parametrize("reasoning", [False, True])
def test_a_count_that_is_told_on_the_way_is_believed(
    moa: Moa, upstream: Upstream, reasoning: bool
) -> None:
    field = "reasoning_content" if reasoning else "content"
    events = [
        {
            "choices": [{"delta": {field: "word "}}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 8 * number},
        }
        for number in range(1, 500)
    ]
    upstream.always("agg", Reply(events=events, pause=0.002, stall_after=38))
    ran = moa.run("ask", "-r", "0", "hi", "--max-cost", "0.03")
    assert ran.code == 3, ran.err
    assert "stopped at --max-cost" in ran.err
    (row,) = json.loads(moa.run("history", "stats", "--json").text)["models"]
    assert 250 <= row["completion_tokens"] <= 310


def test_a_script_of_many_tokens_a_letter_is_caught(moa: Moa, upstream: Upstream) -> None:
    pieces = ["እንደምን አደርክ፣ ዛሬ አየሩ ጥሩ ነው። "] * 400
    upstream.always("agg", Reply(chunks=pieces, pause=0.002, stall_after=17))
    ran = moa.run("ask", "-r", "0", "hi", "--max-cost", "0.03")
    assert ran.code == 3
    # 300 tokens are a hundred letters or so; they are looked at 256 at a time.
    assert len(ran.text) < 500


def test_the_days_budget_stops_an_answer_and_what_others_reserved_stays_theirs(
    moa: Moa, upstream: Upstream
) -> None:
    budget(moa, upstream, day=0.06)
    upstream.always("a", Reply(delay=60))
    upstream.always("agg", ENDLESS)
    with moa.start("ask", "-r", "0", "-a", "lab:a", "hi", "--max-tokens", "300"):
        upstream.wait_for(lambda: len(upstream.chats("a")) == 1)
        ran = moa.run("ask", "-r", "0", "hi")
    assert ran.code == 3
    assert "stopped at budget.day $0.060" in ran.err
    assert 220 <= ran.text.count("word") <= 310


def test_a_sessions_budget_stops_an_answer_in_a_chat(moa: Moa, upstream: Upstream) -> None:
    budget(moa, upstream, session=0.06)
    moa.profile("solo", max_tokens=50)
    upstream.enqueue("agg", Reply(chunks=["word "] * 300))
    upstream.always("agg", ENDLESS)
    ran = moa.run("chat", "-p", "solo", stdin=b"one\ntwo\n")
    assert "stopped at budget.session $0.060" in ran.err
    assert 550 <= ran.text.count("word") <= 610


def test_a_server_stops_an_answer_at_its_caps(moa: Moa, upstream: Upstream) -> None:
    budget(moa, upstream, session=0.03)
    moa.profile("lab", max_tokens=50)
    upstream.always("agg", ENDLESS)
    with serving(moa) as server:
        with server.streaming() as response:
            lines = [line for line in response.iter_lines() if line]
        assert server.end() == 0
    assert "budget_reached" in lines[-1]
    assert "stopped at budget.session" in lines[-1]
    # Words that come at once are told in one piece.
    assert 200 <= sum(line.count("word") for line in lines) <= 320
    (row,) = json.loads(moa.run("history", "stats", "--json").text)["models"]
    assert 200 <= row["completion_tokens"] <= 320


def test_a_second_attempt_that_would_pass_the_cap_is_not_made(moa: Moa, upstream: Upstream) -> None:
    provider = {"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}}
    moa.configure(providers=provider, retries=4)
    # Begun, and so billed with its prompt; and nothing came of it.
    upstream.always("agg", Reply(chunks=["x"], drop_after=0))
    prompt = "word " * 3000
    ran = moa.run("ask", "-r", "0", prompt, "--max-cost", "0.0085")
    assert ran.code == 3
    assert "lab:agg failed after it began to answer, and would be paid for again" in ran.err
    assert len(upstream.chats()) == 1
