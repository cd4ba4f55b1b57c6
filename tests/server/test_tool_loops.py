"""A program that works with tools through a mixture: its requests on one message of the user ask
the proposers once, whatever happens to single ones."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.command import Moa
from tests.support.server import QUESTION, Server, chunks, serving
from tests.support.tool_calls import TOOLS, calling
from tests.support.upstream import Reply, Request, Upstream

Body = dict[str, Any]


def messages(steps: int, prompt: str = "Fix a.py.") -> list[Body]:
    """The conversation behind so many calls."""
    said: list[Body] = [
        {"role": "system", "content": "You are an agent."},
        {"role": "user", "content": prompt},
    ]
    for number in range(steps):
        function = {"name": "read", "arguments": '{"path": "a.py"}'}
        call = {"id": f"c{number}", "type": "function", "function": function}
        said.append({"role": "assistant", "content": None, "tool_calls": [call]})
        said.append({"role": "tool", "tool_call_id": f"c{number}", "content": f"line {number}"})
    return said


def step(server: Server, steps: int, **fields: Any) -> Body:
    answer = server.ask(messages=messages(steps), tools=TOOLS, **fields)
    assert answer.status_code == 200, answer.text
    return chunks(answer.text)[-1] if fields.get("stream") else answer.json()


@pytest.mark.parametrize("stream", [False, True])
def test_a_loop_of_twenty_requests_costs_twenty_calls_and_one_fan_out(
    moa: Moa, upstream: Upstream, stream: bool
) -> None:
    moa.profile("lab", "a", "b", "c")
    upstream.always("agg", calling("read"))
    with serving(moa) as server:
        told = [step(server, number, stream=stream)["moa"] for number in range(20)]
    assert len(upstream.chats()) == 20 + 3
    assert ["fan_out" in ledger for ledger in told] == [False] + [True] * 19
    assert told[-1]["fan_out"] == "reused"
    assert [ledger["calls"] for ledger in told] == [4] + [1] * 19
    for name in "abc":
        [request] = upstream.chats(name)
        assert not any(field.startswith("tool") for field in request.body)
        assert [message["role"] for message in request.messages] == ["system", "user"]
    assert all(request.body["tools"] == TOOLS for request in upstream.chats("agg"))


def test_a_reply_that_the_client_begins_is_a_new_turn_each_time(
    server: Server, upstream: Upstream
) -> None:
    begun = [*QUESTION, {"role": "assistant", "content": "The answer is"}]
    told = [server.ask(messages=begun).json()["moa"] for _ in range(3)]
    assert ["fan_out" in ledger for ledger in told] == [False] * 3
    assert len(upstream.chats("a")) == 3


def test_both_wires_share_what_is_kept(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))
    step(server, 0)
    use = {"type": "tool_use", "id": "c0", "name": "read", "input": {"path": "a.py"}}
    body = {
        "model": "moa",
        "max_tokens": 4_000,
        "system": "You are an agent.",
        "tools": [{"name": "read", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "Fix a.py."},
            {"role": "assistant", "content": [use]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c0", "content": "line 0"}],
            },
        ],
    }
    answer = server.http.post(f"{server.url}/messages", json=body)
    assert answer.status_code == 200, answer.text
    assert len(upstream.chats("a")) == 1


def test_a_request_may_ask_for_a_fan_out_of_its_own(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))
    for number in range(3):
        step(server, number, moa={"fan_out": "request"})
    assert len(upstream.chats("a")) == 3
    last = upstream.chats("a")[-1].messages[-1]["content"]
    assert "[result of read]\nline 1" in last


def test_requests_at_the_same_time_share_what_is_made(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", calling("read"))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: step(server, 1), range(8)))
    assert len(upstream.chats("a")) == 1
    assert len(upstream.chats("agg")) == 8


def test_a_client_that_leaves_in_the_first_request_leaves_nothing_behind(
    server: Server, upstream: Upstream
) -> None:
    go = threading.Event()
    upstream.enqueue("a", Reply(after=go))
    upstream.always("agg", calling("read"))
    with server.streaming(messages=messages(0), tools=TOOLS) as response:
        next(response.iter_bytes())
    upstream.wait_for(lambda: upstream.in_flight == 0)
    go.set()
    told = [step(server, number)["moa"].get("fan_out") for number in range(3)]
    assert told == [None, "reused", "reused"]
    assert len(upstream.chats("a")) == 2


def test_proposals_outlast_a_failure_of_the_aggregator(server: Server, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(status=400))
    upstream.always("agg", calling("read"))
    failed = server.ask(messages=messages(0), tools=TOOLS)
    assert failed.status_code == 502
    assert step(server, 0)["moa"]["fan_out"] == "reused"
    assert step(server, 1)["moa"]["fan_out"] == "reused"
    assert len(upstream.chats("a")) == 1


def test_a_mixture_that_takes_no_tools_says_so(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", tools="refuse")
    with serving(moa) as server:
        refused = server.ask(tools=TOOLS)
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert (error["param"], error["code"]) == ("tools", "tools_refused")
        assert '`tools` is "refuse"' in error["message"]
        assert server.ask().status_code == 200
        # A request may say otherwise.
        assert server.ask(tools=TOOLS, moa={"tools": "ignore"}).status_code == 200
    assert not any("tools" in request.body for request in upstream.chats())


def test_an_aggregator_that_cannot_call_tools_is_named_before_anything_is_paid_for(
    server: Server, upstream: Upstream
) -> None:
    words = {"error": {"message": "registry.ollama.ai/library/agg does not support tools"}}
    upstream.enqueue("agg", Reply(status=400, error=words))
    asked = []
    for _ in range(2):
        answer = server.ask(tools=TOOLS)
        assert answer.status_code == 400
        assert answer.headers["x-should-retry"] == "false"
        error = answer.json()["error"]
        assert (error["param"], error["code"]) == ("tools", "tools_unsupported")
        assert "agg cannot call tools" in error["message"]
        assert 'set `tools` to "ignore"' in error["message"]
        asked.append(len(upstream.chats("a")))
    assert asked == [1, 1]
    ignoring = server.ask(tools=TOOLS, moa={"tools": "ignore"})
    assert ignoring.status_code == 200


def test_an_optional_field_that_the_endpoint_refuses_is_left_out(
    server: Server, upstream: Upstream
) -> None:
    words = {"error": {"message": "Unrecognized request argument supplied: top_k"}}
    upstream.enqueue("agg", Reply(status=400, error=words))
    assert server.ask(top_k=40).status_code == 200
    first, second = upstream.chats("agg")
    assert first.body["top_k"] == 40
    assert "top_k" not in second.body


# What endpoints say of a conversation without the thoughts behind its calls.
_MISSES = {
    "moonshot": {
        "error": {
            "message": "thinking is enabled but reasoning_content is missing in assistant tool call"
            " message at index 2",
            "type": "invalid_request_error",
        }
    },
    "deepseek": {
        "error": {
            "message": "The `reasoning_content` in the thinking mode must be passed back to the"
            " API.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_request_error",
        }
    },
    "deepseek before": {
        "error": {"message": "Missing `reasoning_content` field in the assistant message at 2."}
    },
    "gemini": [
        {
            "error": {
                "code": 400,
                "message": "Function call is missing a thought_signature in functionCall parts."
                " This is required for tools to work correctly, and missing thought_signature may"
                " lead to degraded model performance.",
                "status": "INVALID_ARGUMENT",
            }
        }
    ],
    "vertex": {
        "error": {
            "code": 400,
            "message": "Unable to submit request because function call `f` in the 2. content block"
            " is missing a `thought_signature`.",
        }
    },
    "routed": {
        "error": {
            "message": "Provider returned error",
            "code": 400,
            "metadata": {
                "raw": '{"error":{"message":"thinking is enabled but reasoning_content is missing'
                ' in assistant tool call message at index 2"}}'
            },
        }
    },
}


def thinks(said: object) -> Callable[[Request], Reply]:
    """A model that refuses, in these words, a conversation without what it thought."""
    signs = "thought_signature" in str(said)

    def answer(request: Request) -> Reply:
        for message in request.messages:
            calls = message.get("tool_calls")
            if not calls:
                continue
            extra = calls[0].get("extra_content", {}).get("google", {})
            if not (extra.get("thought_signature") if signs else message.get("reasoning_content")):
                return Reply(status=400, error=said)
            assert not any("extra_content" in call for call in calls[1:])
        return calling("read", "write")

    return answer


@pytest.mark.parametrize("said", _MISSES.values(), ids=_MISSES)
def test_a_model_that_wants_its_thoughts_back_goes_on_after_its_calls(
    server: Server, upstream: Upstream, said: object
) -> None:
    upstream.always("agg", thinks(said))
    for number in range(3):
        message = step(server, number)["choices"][0]["message"]
        assert [call["function"]["name"] for call in message["tool_calls"]] == ["read", "write"]
    # It is learned with the first refusal.
    assert len(upstream.chats("agg")) == 3 + 1
    assert len(upstream.chats("a")) == 1


def test_nothing_stands_for_thoughts_where_none_are_missed(
    server: Server, upstream: Upstream
) -> None:
    upstream.always("agg", calling("read"))
    step(server, 2)
    told = {field for message in upstream.chats("agg")[-1].messages for field in message}
    assert told == {"role", "content", "tool_calls", "tool_call_id"}


def test_a_thought_that_is_missed_still_is_told(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(status=400, error=_MISSES["moonshot"]))
    answer = server.ask(messages=messages(1), tools=TOOLS)
    assert answer.status_code >= 400
    assert "reasoning_content is missing" in answer.json()["error"]["message"]
    assert len(upstream.chats("agg")) == 2


# What endpoints say of the id of a call that another model has made.
_NO_SUCH_IDS: list[tuple[int, object]] = [
    (
        400,
        {
            "object": "error",
            "message": "Tool call id was call_0fypS1hVX but must be a-z, A-Z, 0-9, with a length of"
            " 9.",
            "type": "invalid_function_call",
            "code": "3280",
        },
    ),
    (500, {"error": {"message": "Tool call IDs must be alphanumeric strings with length 9!"}}),
    (
        400,
        {
            "error": {
                "message": "Invalid 'messages[2].tool_calls[0].id': string too long. Expected a"
                " string with maximum length 40, but got a string with length 43 instead.",
                "param": "messages[2].tool_calls[0].id",
                "code": "string_above_max_length",
            }
        },
    ),
    (
        400,
        {
            "error": {
                "message": "messages.1.content.0.tool_use.id: String should match pattern"
                " '^[a-zA-Z0-9_-]+$'",
                "type": "invalid_request_error",
            }
        },
    ),
]


@pytest.mark.parametrize(("status", "said"), _NO_SUCH_IDS)
def test_calls_that_another_model_has_made_get_ids_that_this_one_takes(
    server: Server, upstream: Upstream, status: int, said: object
) -> None:
    own = "a1B2c3D4e"

    def answer(request: Request) -> Reply:
        calls = [call for m in request.messages for call in m.get("tool_calls", ())]
        plain = all(len(call["id"]) == 9 and call["id"].isalnum() for call in calls)
        return calling("read") if plain else Reply(status=status, error=said)

    upstream.always("agg", answer)
    long = "functions.read:0 é" + "x" * 50
    function = {"name": "read", "arguments": "{}"}
    calls = [{"id": id, "type": "function", "function": function} for id in (long, own, "c1")]
    said_before = [
        *messages(0),
        {"role": "assistant", "content": None, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in calls[::-1]),
    ]
    for _ in range(2):
        told = server.ask(messages=said_before, tools=TOOLS)
        assert told.status_code == 200, told.text
        # Its own calls keep the ids that it gives them.
        [call] = told.json()["choices"][0]["message"]["tool_calls"]
        assert call["id"] == "call_read_0"
    # It is learned with the first refusal.
    assert len(upstream.chats("agg")) == 3
    *_, made, first, second, third = upstream.chats("agg")[-1].messages
    ids = [call["id"] for call in made["tool_calls"]]
    assert ids[1] == own
    assert [third["tool_call_id"], second["tool_call_id"], first["tool_call_id"]] == ids
    assert len(set(ids)) == 3
