"""What `/v1/messages` answers: golden sequences of events, whole messages, errors and lists."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.support.command import Moa
from tests.support.messages_wire import (
    ASKED,
    TOOL,
    calling,
    message_events,
    piece,
    post,
    stream,
    told,
)
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream

THINKS = {"thinking": {"type": "adaptive"}}


def events_of(server: Server, **fields: Any) -> list[dict[str, Any]]:
    with stream(server, **fields) as response:
        assert response.status_code == 200, response.read()
        return message_events(response.read().decode())


def test_a_text_is_told_in_anthropic_s_events(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(chunks=["one ", 'two "é🌍"\n']))
    events = events_of(server)
    assert told(events) == [
        "message_start",
        (0, "text"),
        (0, "text_delta", 'one two "é🌍"\n'),
        (0, "stop"),
        "end_turn",
        "message_stop",
    ]
    message = events[0]["message"]
    assert message["id"].startswith("msg_")
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "moa")
    assert (message["content"], message["stop_reason"], message["stop_sequence"]) == (
        [],
        None,
        None,
    )
    assert message["usage"]["input_tokens"] > 0
    end = events[-2]
    assert end["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    # What the call took that wrote the reply; the sum is told beside it.
    prompt, completion = upstream.chats("agg")[0].usage
    assert (end["usage"]["input_tokens"], end["usage"]["output_tokens"]) == (prompt, completion)
    told_sum = end["moa"]["usage"]["sum"]
    assert (told_sum["prompt_tokens"], told_sum["completion_tokens"]) == upstream.usage_total
    assert end["moa"]["calls"] == 4


def test_usage_is_the_sum_where_it_is_asked_for(moa: Moa, upstream: Upstream) -> None:
    with serving(moa, "--usage", "sum") as server:
        usage = post(server).json()["usage"]
        told_reply = post(server, moa={"usage": "reply"}).json()["usage"]
    total = sum(upstream.usage_total) // 2
    assert usage["input_tokens"] + usage["output_tokens"] == total
    assert told_reply["input_tokens"] + told_reply["output_tokens"] < total


def test_a_whole_message_is_the_same(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="one two"))
    response = post(server, "/v1/messages?beta=true")
    message = response.json()
    assert response.status_code == 200
    assert message["content"] == [{"type": "text", "text": "one two"}]
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "moa")
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    assert message["usage"]["output_tokens"] == 2
    assert message["moa"]["profile"] == "lab"
    assert response.headers["request-id"] == response.headers["x-request-id"]


def test_tokens_from_the_provider_s_cache_are_told_apart(
    server: Server, upstream: Upstream
) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 2,
        "total_tokens": 102,
        "prompt_tokens_details": {"cached_tokens": 80},
    }
    upstream.always("agg", Reply(events=[piece("stop", content="x") | {"usage": usage}, "[DONE]"]))
    assert post(server).json()["usage"] == {
        "input_tokens": 20,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 80,
        "output_tokens": 2,
    }


ONE_CALL = calling((0, "", "c1", "look"), (0, '{"at":'), (0, ' "x"}'), text="I look.")
TWO_CALLS = calling((0, '{"at": "x"}', "c1", "look"), (1, '{"at"', "c2", "look"), (1, ': "y"}'))
# As some servers do it: pieces by turns.
BY_TURNS = calling(
    (0, "", "c1", "look"),
    (1, "", "c2", "look"),
    (0, '{"at": '),
    (1, '{"at": '),
    (0, '"x"}'),
    (1, '"y"}'),
)
EMPTY = calling((0, "", "c1", "look"), (1, "{}", "c2", "look"))
PAIR = [
    (0, "tool_use", "c1", "look"),
    (0, "input_json_delta", '{"at": "x"}'),
    (0, "stop"),
    (1, "tool_use", "c2", "look"),
    (1, "input_json_delta", '{"at": "y"}'),
    (1, "stop"),
]
CALLS: list[tuple[Reply, list[Any], list[Any]]] = [
    (
        ONE_CALL,
        [
            (0, "text"),
            (0, "text_delta", "I look."),
            (0, "stop"),
            (1, "tool_use", "c1", "look"),
            (1, "input_json_delta", '{"at": "x"}'),
            (1, "stop"),
        ],
        [{"at": "x"}],
    ),
    (
        TWO_CALLS,
        PAIR,
        [{"at": "x"}, {"at": "y"}],
    ),
    (
        BY_TURNS,
        PAIR,
        [{"at": "x"}, {"at": "y"}],
    ),
    (
        EMPTY,
        [
            PAIR[0],
            (0, "input_json_delta", "{}"),
            (0, "stop"),
            PAIR[3],
            (1, "input_json_delta", "{}"),
            (1, "stop"),
        ],
        [{}, {}],
    ),
]


@pytest.mark.parametrize(
    ("reply", "blocks", "inputs"), CALLS, ids=["one", "two", "by turns", "empty"]
)
def test_calls_of_tools_are_blocks_one_after_the_other(
    server: Server, upstream: Upstream, reply: Reply, blocks: list[Any], inputs: list[Any]
) -> None:
    upstream.always("agg", reply)
    events = events_of(server, tools=[TOOL])
    assert told(events) == ["message_start", *blocks, "tool_use", "message_stop"]
    message = post(server, tools=[TOOL]).json()
    uses = [block for block in message["content"] if block["type"] == "tool_use"]
    assert [use["input"] for use in uses] == inputs
    assert [use["id"] for use in uses] == ["c1", "c2"][: len(uses)]
    assert message["stop_reason"] == "tool_use"
    # The models that only advise are offered none.
    assert all("tools" not in call.body for name in "abc" for call in upstream.chats(name))


def test_arguments_that_are_no_json_are_told_as_such(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", calling((0, '{"at": "x', "c1", "look"), finish="length"))
    message = post(server, tools=[TOOL]).json()
    (use,) = message["content"]
    assert use["input"] == {"INVALID_JSON": '{"at": "x'}
    assert message["stop_reason"] == "max_tokens"


def test_a_text_that_comes_between_the_pieces_of_a_call_waits(
    server: Server, upstream: Upstream
) -> None:
    first = calling((0, '{"at": ', "c1", "look")).events
    rest = calling((0, '"x"}')).events
    assert first is not None
    assert rest is not None
    # Far enough apart that the pieces are not told together.
    upstream.always("agg", Reply(events=[first[0], piece(content="aside"), *rest], pause=0.5))
    events = told(events_of(server, tools=[TOOL]))
    assert PAIR[1] in events
    assert [event[2] for event in events if event[1:2] == ("text_delta",)] == ["aside"]
    assert events[-2] == "tool_use"


THOUGHT = Reply(reasoning=["hm ", "hm"], chunks=["so"])


@pytest.mark.parametrize(
    ("thinking", "is_told"),
    [
        ({"type": "adaptive"}, True),
        ({"type": "enabled", "budget_tokens": 1024}, True),
        ({"type": "adaptive", "display": "omitted"}, False),
        ({"type": "disabled"}, False),
        (None, False),
    ],
)
def test_reasoning_is_told_to_those_who_ask_for_it(
    server: Server, upstream: Upstream, thinking: dict[str, Any] | None, is_told: bool
) -> None:
    upstream.always("agg", THOUGHT)
    text = [(int(is_told), "text"), (int(is_told), "text_delta", "so"), (int(is_told), "stop")]
    thought = [
        (0, "thinking"),
        (0, "thinking_delta", "hm hm"),
        (0, "signature_delta", "moa"),
        (0, "stop"),
    ]
    expected = [*(thought if is_told else []), *text]
    assert told(events_of(server, thinking=thinking))[1:-2] == expected
    kinds = [block["type"] for block in post(server, thinking=thinking).json()["content"]]
    assert kinds == [*(["thinking"] if is_told else []), "text"]


def test_proposals_come_as_thinking_where_they_are_shown(
    server: Server, upstream: Upstream
) -> None:
    upstream.always("a", Reply(text="from a"))
    upstream.always("agg", THOUGHT)
    events = events_of(server, moa={"proposers": ["lab:a"], "show_proposals": True})
    thoughts = "".join(
        event["delta"].get("thinking", "")
        for event in events
        if event["type"] == "content_block_delta"
    )
    assert "from a" in thoughts
    assert thoughts.endswith("hm hm")
    blocks = [event for event in events if event["type"] == "content_block_start"]
    assert [block["content_block"]["type"] for block in blocks] == ["thinking", "text"]
    whole = post(server, moa={"proposers": ["lab:a"], "show_proposals": True}).json()
    thought, text = whole["content"]
    assert "from a" in thought["thinking"]
    assert thought["thinking"].endswith("hm hm")
    assert thought["signature"]
    assert text["text"] == "so"


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("stop", "end_turn"),
        ("eos", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        # Of a tool that the client did not offer.
        ("tool_calls", "end_turn"),
    ],
)
def test_why_a_reply_ends_is_told_in_anthropic_s_words(
    server: Server, upstream: Upstream, finish: str, stop: str
) -> None:
    upstream.always("agg", Reply(text="some words", finish_reason=finish))
    assert post(server).json()["stop_reason"] == stop
    assert told(events_of(server))[-2] == stop


def test_a_tool_that_was_not_offered_is_not_told(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", calling((0, "{}", "c1", "own"), text="words"))
    with serving(moa) as server:
        message = post(server).json()
        events = told(events_of(server))
    assert message["content"] == [{"type": "text", "text": "words"}]
    assert message["stop_reason"] == "end_turn"
    assert events[1:] == [
        (0, "text"),
        (0, "text_delta", "words"),
        (0, "stop"),
        "end_turn",
        "message_stop",
    ]


def test_a_refusal_is_told_in_its_own_words(server: Server, upstream: Upstream) -> None:
    refused = Reply(events=[piece(refusal="I "), piece("stop", refusal="won't."), "[DONE]"])
    upstream.always("agg", refused)
    message = post(server).json()
    assert message["content"] == [{"type": "text", "text": "I won't."}]
    assert message["stop_reason"] == "refusal"
    assert message["stop_details"] == {
        "type": "refusal",
        "category": None,
        "explanation": "I won't.",
    }
    assert told(events_of(server))[1:] == [
        (0, "text"),
        (0, "text_delta", "I won't."),
        (0, "stop"),
        "refusal",
        "message_stop",
    ]


def test_a_failure_mid_stream_is_an_error_event(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="one two three", drop_after=2))
    events = events_of(server)
    assert told(events) == [
        "message_start",
        (0, "text"),
        (0, "text_delta", "one two "),
        "error",
    ]
    assert set(events[-1]) == {"type", "error"}
    assert events[-1]["error"]["type"] == "api_error"
    assert events[-1]["error"]["message"]


def test_pings_keep_the_stream_alive_within_a_message(server: Server, upstream: Upstream) -> None:
    go_on = threading.Event()
    upstream.always("c", Reply(text="late", after=go_on))
    with stream(server) as response:
        lines = response.iter_lines()
        begun: list[str] = []
        for line in lines:
            begun.append(line)
            if line == "event: ping":
                break
        go_on.set()
        rest = list(lines)
    events = message_events("\n".join([*begun, *rest]))
    assert [event["type"] for event in events[:2]] == ["message_start", "ping"]
    assert any(line.startswith(": round 1: ") for line in begun)
    assert told(events)[-2:] == ["end_turn", "message_stop"]
    assert [event["type"] for event in events].count("message_start") == 1


@pytest.mark.parametrize(
    ("reply", "status", "kind"),
    [
        (Reply(status=429), 429, "rate_limit_error"),
        (Reply(status=500), 502, "api_error"),
        (Reply(status=401), 502, "api_error"),
    ],
)
def test_failures_have_anthropic_s_shape(
    server: Server, upstream: Upstream, reply: Reply, status: int, kind: str
) -> None:
    upstream.always("*", reply)
    response = post(server)
    assert response.status_code == status
    error = response.json()
    assert set(error) == {"type", "error", "request_id"}
    assert (error["type"], error["error"]["type"]) == ("error", kind)
    assert error["request_id"] == response.headers["request-id"]


def test_a_prompt_that_is_too_long_is_told_as_agents_know_it(
    server: Server, upstream: Upstream
) -> None:
    refused = {"error": {"message": "at most 8192", "code": "context_length_exceeded"}}
    upstream.always("*", Reply(status=400, error=refused))
    response = post(server)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("prompt is too long: ")


def test_keys_are_taken_as_anthropic_s_clients_send_them(moa: Moa) -> None:
    key = "sk-first-0123456789"
    with serving(moa, "--api-key", key) as server:

        def status(**headers: str) -> int:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            url = f"{server.root}/v1/messages"
            body = {"model": "moa", "max_tokens": 5, "messages": ASKED}
            return server.http.post(url, json=body, headers=given).status_code

        assert status(x_api_key=key) == 200
        assert status(authorization=f"Bearer {key}") == 200
        assert status(authorization="Bearer other", x_api_key=key) == 200
        assert status(x_api_key="other") == 401
        assert status() == 401
        assert server.get("/v1/models", headers={"x-api-key": key}).status_code == 200
        refused = post(server)
        assert refused.json()["error"]["type"] == "authentication_error"
        assert "`x-api-key`" in refused.json()["error"]["message"]
        assert key not in "".join(server.log)


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/messages", 405, "not_found_error"),
        ("POST", "/v1/messages/batches", 404, "not_found_error"),
        ("GET", "/v1/messages/count_tokens", 405, "not_found_error"),
    ],
)
def test_other_paths_and_methods(
    server: Server, method: str, path: str, status: int, kind: str
) -> None:
    response = server.http.request(method, server.root + path)
    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)


def test_a_name_of_anthropic_s_says_what_to_set(server: Server) -> None:
    response = post(server, model="claude-opus-9")
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found_error"
    message = response.json()["error"]["message"]
    assert "`claude-opus-9`" in message
    assert "ANTHROPIC_MODEL" in message
    assert "ANTHROPIC" not in server.ask(model="gpt-9").text


def test_models_are_listed_in_the_shape_that_is_asked_for(server: Server) -> None:
    version = {"anthropic-version": "2023-06-01"}
    listed = server.get("/v1/models?limit=1000", headers=version).json()
    names = [model["id"] for model in listed["data"]]
    assert names[:2] == ["moa", "lab"]
    assert (listed["first_id"], listed["last_id"]) == (names[0], names[-1])
    assert listed["has_more"] is False
    first = listed["data"][0]
    assert set(first) == {"type", "id", "display_name", "created_at"}
    assert first["created_at"].endswith("Z")
    assert server.get("/v1/models/moa", headers=version).json() == first
    missing = server.get("/v1/models/none", headers=version)
    assert missing.status_code == 404
    assert missing.json()["error"]["type"] == "not_found_error"
    assert server.get("/v1/models").json()["object"] == "list"
    assert server.get("/v1/models/moa:solo", headers=version).json()["id"] == "moa:solo"
    assert post(server, model="moa:solo").json()["moa"]["calls"] == 1


def test_a_cancelled_client_leaves_nothing_behind(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="one two", stall_after=1))
    with stream(server) as response:
        for line in response.iter_lines():
            if "text_delta" in line:
                break
    upstream.wait_for(lambda: upstream.in_flight == 0)
    assert [request.disconnected for request in upstream.chats("agg")] == [True]
