"""`report: true` in the `moa` object: the reply ends for the client at once, the report follows."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.command import Moa
from tests.support.server import Server, chunks, serving
from tests.support.upstream import Reply, Upstream

TOLD = {
    "points": [{"kind": "conflict", "text": "a says 1, b says 2.", "responses": [1, 2]}],
    "groups": [[1], [2]],
}
REPORT = {
    "points": [
        {"kind": "conflict", "text": "a says 1, b says 2.", "proposers": ["lab:a", "lab:b"]}
    ],
    "groups": [["lab:a"], ["lab:b"]],
    "consensus": 0.0,
    "notes": [],
}
USER = [{"role": "user", "content": "hi"}]
MOA = {"report": True}


@pytest.fixture
def server(moa: Moa, upstream: Upstream) -> Iterator[Server]:
    """A server of a profile with a judge, who gives a report."""
    moa.profile("lab", "a", "b", judge="lab:judge")
    upstream.always("*", Reply(text="1 or 2"))
    upstream.always("judge", Reply(text=json.dumps(TOLD)))
    with serving(moa) as running:
        yield running


def gate(upstream: Upstream) -> threading.Event:
    """What the judge waits for."""
    opened = threading.Event()
    upstream.always("judge", Reply(text=json.dumps(TOLD), after=opened))
    return opened


def lines_until(response: httpx.Response, mark: str) -> tuple[list[str], Iterator[str]]:
    """The lines of a stream up to the first that holds the mark; and the rest."""
    lines, read = response.iter_lines(), []
    for line in lines:
        read.append(line)
        if mark in line:
            break
    return read, lines


def test_a_whole_reply_has_the_report(server: Server, upstream: Upstream) -> None:
    body = server.ask(messages=USER, moa=MOA).json()
    assert body["choices"][0]["message"]["content"] == "1 or 2"
    assert body["moa"]["report"] == REPORT
    assert body["moa"]["calls"] == 4
    assert "report" not in server.ask(messages=USER).json()["moa"]
    assert len(upstream.chats("judge")) == 1


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}])
def test_a_streamed_reply_ends_before_its_report(
    server: Server, upstream: Upstream, options: dict[str, Any]
) -> None:
    opened = gate(upstream)
    with server.streaming(messages=USER, moa=MOA, **options) as response:
        read, lines = lines_until(response, '"finish_reason":"stop"')
        # The client has its end, while the judge still waits.
        assert not opened.is_set()
        opened.set()
        rest = "\n".join(lines)
    told = chunks("\n".join(read) + "\n" + rest)
    ends = [choice["finish_reason"] for chunk in told for choice in chunk["choices"]]
    assert ends.count("stop") == 1
    assert told[-1]["moa"]["report"] == REPORT
    text = "".join(
        choice["delta"].get("content") or "" for chunk in told for choice in chunk["choices"]
    )
    assert text == "1 or 2"
    assert rest.rstrip().endswith("data: [DONE]")
    assert all("usage" in chunk for chunk in told) == bool(options)


def test_of_several_choices_the_proposals_are_reported_on_once(
    server: Server, upstream: Upstream
) -> None:
    body = server.ask(messages=USER, moa=MOA, n=3).json()
    assert [choice["finish_reason"] for choice in body["choices"]] == ["stop"] * 3
    assert body["moa"]["report"] == REPORT
    assert len(upstream.chats("judge")) == 1
    with server.streaming(messages=USER, moa=MOA, n=2) as response:
        told = chunks(response.read().decode())
    ends = [
        (choice["index"], choice["finish_reason"])
        for chunk in told
        for choice in chunk["choices"]
        if choice["finish_reason"]
    ]
    assert sorted(ends) == [(0, "stop"), (1, "stop")]


def test_completions_end_before_their_report(server: Server, upstream: Upstream) -> None:
    opened = gate(upstream)
    body = {"model": "lab", "prompt": "hi", "stream": True, "moa": MOA}
    with httpx.stream("POST", f"{server.url}/completions", json=body, timeout=60) as response:
        read, lines = lines_until(response, '"finish_reason":"stop"')
        opened.set()
        told = chunks("\n".join([*read, *lines]))
    assert told[-1]["moa"]["report"] == REPORT
    assert [c["finish_reason"] for chunk in told for c in chunk["choices"]].count("stop") == 1


def test_a_message_ends_its_text_before_its_report(server: Server, upstream: Upstream) -> None:
    opened = gate(upstream)
    body = {"model": "lab", "max_tokens": 99, "messages": USER, "stream": True, "moa": MOA}
    with httpx.stream("POST", f"{server.url}/messages", json=body, timeout=60) as response:
        _, lines = lines_until(response, '"type":"content_block_stop"')
        opened.set()
        rest = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    told = [event for event in rest if event["type"] != "ping"]
    assert [event["type"] for event in told] == ["message_delta", "message_stop"]
    assert told[0]["moa"]["report"] == REPORT
    assert told[0]["delta"]["stop_reason"] == "end_turn"


def test_a_response_ends_its_items_before_its_report(server: Server, upstream: Upstream) -> None:
    opened = gate(upstream)
    body = {"model": "lab", "input": "hi", "stream": True, "moa": MOA}
    with httpx.stream("POST", f"{server.url}/responses", json=body, timeout=60) as response:
        _, lines = lines_until(response, '"type":"response.output_item.done"')
        opened.set()
        rest = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [event["type"] for event in rest] == ["response.completed"]
    [item] = rest[0]["response"]["output"]
    assert item["content"][0]["text"] == "1 or 2"
    assert rest[0]["response"]["moa"]["report"] == REPORT


def test_what_a_judge_says_is_told_as_no_proposal(server: Server) -> None:
    with server.streaming(messages=USER, moa={**MOA, "show_proposals": True}) as response:
        told = chunks(response.read().decode())
    thoughts = "".join(
        choice["delta"].get("reasoning_content") or ""
        for chunk in told
        for choice in chunk["choices"]
    )
    assert "### lab:b (round 1)" in thoughts
    assert "judge" not in thoughts


def test_a_client_that_leaves_while_the_report_is_made_ends_it(
    server: Server, upstream: Upstream
) -> None:
    upstream.always("judge", Reply(stall_after=0))
    with server.streaming(messages=USER, moa=MOA) as response:
        lines_until(response, '"finish_reason":"stop"')
        upstream.wait_for(lambda: len(upstream.chats("judge")) == 1)
    upstream.wait_for(lambda: upstream.chats("judge")[0].disconnected)
