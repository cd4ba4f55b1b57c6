"""What programs are told of a strategy: the layers of the `moa` object, the usage of the reply,
figures, traces, and no review among the proposals."""

from __future__ import annotations

import json

import pytest

from moa_cli.server.wires.moa_object import ledger, together
from tests.support.collector import Collector
from tests.support.command import Moa
from tests.support.messages_wire import post
from tests.support.responses import ask
from tests.support.reviews import copied, council, finished, folded, layer, reply, started
from tests.support.server import chunks, serving
from tests.support.upstream import Reply, Upstream


@pytest.fixture
def merging(moa: Moa, upstream: Upstream) -> Moa:
    """Three proposers, whose answers are merged two by two."""
    moa.profile("lab", "a", "b", "c", window=2)
    upstream.always("agg", Reply(text="merged", usage=(10, 2)))
    return moa


def test_the_layers_of_the_moa_object_tell_what_reviews_are_for() -> None:
    told = ledger(folded(council()))
    assert [
        (layer["layer"], layer.get("purpose"), len(layer["calls"])) for layer in told["layers"]
    ] == [
        (1, None, 3),
        (2, "rank", 3),
        (3, None, 1),
        (4, "report", 1),
    ]
    assert told["decision"]["strategy"] == "council"
    assert told["usage"]["reply"]["total_tokens"] == 15
    assert told["usage"]["sum"]["total_tokens"] == 15 * 7


def test_several_replies_are_told_as_one_without_mixing_their_layers() -> None:
    second = [started(rounds=0), *layer(1, ["1", "2", "3"], "rank"), *reply(), finished(4)]
    whole = together([folded(council()), folded(second)])
    assert (whole.reply_usage.calls, whole.usage.calls) == (2, 11)
    layers = ledger(whole)["layers"]
    assert [(layer["layer"], layer.get("purpose"), len(layer["calls"])) for layer in layers] == [
        (1, None, 3),
        (2, "rank", 3),
        (3, None, 2),
        (4, "report", 1),
        (5, "rank", 3),
    ]


def test_a_copied_reply_has_a_decision_and_no_call_of_its_own() -> None:
    told = ledger(folded(copied()))
    assert told["layers"][-1] == {"layer": 2, "calls": []}
    assert told["decision"]["chosen"] == 1
    assert told["usage"]["reply"]["total_tokens"] == 0


def test_a_turn_with_reviews_is_told_over_http(merging: Moa) -> None:
    with serving(merging) as server:
        body = server.ask(moa={"show_proposals": True, "usage": "reply"}).json()
        figures = server.get("/metrics").text
    layers = body["moa"]["layers"]
    assert [(layer["layer"], layer.get("purpose")) for layer in layers] == [
        (1, None),
        (2, "merge"),
        (3, None),
    ]
    assert body["usage"]["completion_tokens"] == 2
    assert body["moa"]["calls"] == 5
    assert 'moa_layer_seconds_count{layer="merge"} 1.0' in figures
    assert 'moa_layer_seconds_count{layer="aggregator"} 1.0' in figures
    thought = body["choices"][0]["message"]["reasoning_content"]
    assert thought.count("### ") == 3
    assert "merged" not in thought


def test_a_review_is_a_span_with_its_purpose(merging: Moa) -> None:
    with (
        Collector() as collector,
        serving(merging, env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.root}) as server,
    ):
        assert server.ask().status_code == 200
        assert server.end() == 0
    purposes = [span.attributes.get("moa.purpose") for span in collector.spans]
    assert purposes.count("merge") == 1
    assert len(collector.spans) == 6


def test_the_span_of_a_turn_tells_its_strategy_and_what_it_saved(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("lab", "a", "b", strategy="council", stop_when_agreed=1.0)
    upstream.always("*", Reply(text="The answer is 42."))
    with (
        Collector() as collector,
        serving(moa, env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.root}) as server,
    ):
        assert server.ask().status_code == 200
        assert server.end() == 0
    [turn] = [span for span in collector.spans if "moa.strategy" in span.attributes]
    assert turn.attributes["moa.strategy"] == "council"
    assert turn.attributes["moa.saved_calls"] == 1
    # The reply is a proposal's own words: it has no span.
    assert len(collector.spans) == 3


def test_several_choices_of_a_copied_reply_are_made_once(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", "b", strategy="select", judge="lab:judge")
    upstream.always("a", Reply(text="words of a"))
    upstream.always("b", Reply(text="words of b"))
    upstream.always("judge", Reply(text="model_2"))
    with serving(moa) as server:
        body = server.ask(n=3).json()
        assert [len(upstream.chats(model)) for model in ("a", "b", "judge", "agg")] == [1, 1, 1, 0]
        with server.streaming(n=2) as response:
            chunks = [
                json.loads(line.removeprefix("data: "))
                for line in response.iter_lines()
                if line.startswith("data: {")
            ]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["words of b"] * 3
    assert body["moa"]["calls"] == 3
    assert body["moa"]["decision"]["chosen"] == 1
    said = ["", ""]
    for chunk in chunks:
        for choice in chunk["choices"]:
            said[choice["index"]] += choice["delta"].get("content") or ""
    assert said == ["words of b"] * 2


@pytest.mark.parametrize(
    ("stop", "reply", "finish"),
    [
        ("\nQuestion:", "It is 42.", "stop"),
        (["Answer", " 42"], "It is", "stop"),
        (["never", "It"], "It is 42.\nQuestion: what", "length"),
    ],
)
def test_a_copied_reply_ends_where_a_written_one_would(
    moa: Moa, upstream: Upstream, stop: object, reply: str, finish: str
) -> None:
    moa.profile("lab", "a", "b", strategy="select", judge="lab:judge")
    upstream.always("a", Reply(text="It is 42.\nQuestion: what", finish_reason="length"))
    upstream.always("judge", Reply(text="model_1"))
    with serving(moa) as server:
        (choice,) = server.ask(stop=stop).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (reply, finish)
    assert not upstream.chats("agg")


@pytest.mark.parametrize(
    ("reply", "most", "expected", "finish"),
    [
        (Reply(text="one two three four five six"), 3, "one two three", "length"),
        (Reply(text="one two three four five six"), 6, "one two three four five six", "stop"),
        # What an endpoint counts is right, whatever the estimate of its tokens.
        (Reply(text="12345678901234567890", usage=(5, 4)), 5, "12345678901234567890", "stop"),
        (Reply(text="12345678901234567890", usage=(5, 4)), 2, "1234567890", "length"),
        # Reasoning, whether it is told apart or not, is no part of the reply.
        (Reply(text="so it is", reasoning=["hm"] * 90, usage=(5, 93)), 50, "so it is", "stop"),
        (Reply(text="<think>long</think>so it is", usage=(5, 93)), 50, "so it is", "stop"),
        (Reply(text="one two three four five six", usage=None), 2, "one two", "length"),
    ],
)
def test_a_copied_reply_has_no_more_tokens_than_were_asked_for(
    moa: Moa, upstream: Upstream, reply: Reply, most: int, expected: str, finish: str
) -> None:
    moa.profile("lab", "a", "b", strategy="select", judge="lab:judge")
    upstream.always("a", reply)
    upstream.always("judge", Reply(text="model_1"))
    with serving(moa) as server:
        whole = server.ask(max_tokens=most, n=2).json()
        with server.streaming(max_completion_tokens=most) as response:
            told = chunks(response.read().decode())
        message = post(server, max_tokens=most).json()
    for choice in whole["choices"]:
        assert choice["message"]["content"].startswith(expected)
        assert len(choice["message"]["content"]) <= len(expected) + 4
        assert choice["finish_reason"] == finish
    text = whole["choices"][0]["message"]["content"]
    streamed = [choice for chunk in told for choice in chunk["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in streamed) == text
    assert streamed[-1]["finish_reason"] == finish
    assert message["content"] == [{"type": "text", "text": text}]
    assert message["stop_reason"] == {"stop": "end_turn", "length": "max_tokens"}[finish]
    assert ("the reply was cut at the token limit" in str(whole["moa"]["cut"])) == (
        finish == "length"
    )


def test_a_limit_of_the_profile_does_not_cut_a_proposal_with_a_larger_one(
    moa: Moa, upstream: Upstream
) -> None:
    longer = {"model": "lab:a", "max_tokens": 50}
    moa.profile("lab", longer, "b", strategy="select", judge="lab:judge", max_tokens=3)
    upstream.always("a", Reply(text="one two three four five six"))
    upstream.always("judge", Reply(text="model_1"))
    with serving(moa) as server:
        (choice,) = server.ask().json()["choices"]
    assert choice["message"]["content"] == "one two three four five six"


def test_a_copied_reply_tells_that_it_has_no_log_probabilities(
    moa: Moa, upstream: Upstream
) -> None:
    entry = {"token": "ok", "logprob": -0.5, "bytes": None, "top_logprobs": []}
    moa.profile("lab", "a", "b", strategy="select", judge="lab:judge")
    upstream.always("judge", Reply(text="model_1"))
    upstream.always("agg", Reply(text="ok", logprobs={"content": [entry]}))
    include = ["message.output_text.logprobs"]
    prompt = {"model": "moa", "prompt": "why?", "logprobs": 1}
    with serving(moa) as server:
        whole = server.ask(logprobs=True).json()
        response = ask(server, include=include).json()
        text = server.http.post(f"{server.url}/completions", json=prompt).json()
        written = server.ask(logprobs=True, moa={"strategy": "synthesize"}).json()
    assert whole["choices"][0]["logprobs"] is None
    assert text["choices"][0]["logprobs"] is None
    assert [told["moa"]["ignored"] for told in (whole, response, text)] == [["logprobs"]] * 3
    assert written["choices"][0]["logprobs"]["content"] == [entry]
    assert "ignored" not in written["moa"]


def test_a_request_chooses_a_strategy_of_its_own(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="model_1"))
    upstream.always("a", Reply(text="words of a"))
    with serving(moa) as server:
        chosen = server.ask(moa={"strategy": "select"}).json()
        plain = server.ask().json()
    assert chosen["choices"][0]["message"]["content"] == "words of a"
    assert chosen["moa"]["decision"]["strategy"] == "select"
    assert "decision" not in plain["moa"]
    assert chosen["system_fingerprint"] != plain["system_fingerprint"]
