"""What programs are told of a strategy: the layers of the `moa` object, the usage of the reply,
figures, traces, and no review among the proposals."""

from __future__ import annotations

import json

import pytest

from moa_cli.server.wires.moa_object import ledger, together
from tests.support.collector import Collector
from tests.support.command import Moa
from tests.support.reviews import copied, council, finished, folded, layer, reply, started
from tests.support.server import serving
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
