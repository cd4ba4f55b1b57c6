"""Bodies that are nested deeply: one bound for all wires, and never a 5xx."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.server.test_client_fields import CALL, WEATHER, sse
from tests.support.command import Moa
from tests.support.server import QUESTION, Server, serving
from tests.support.upstream import Reply, Upstream

# As the documentation tells.
MOST = 100
DEEP = object()
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": DEEP}}
USE = {"type": "tool_use", "id": "t1", "name": "weather", "input": DEEP}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "rain"}
CALLED = [{**CALL, "function": {"name": "weather", "arguments": DEEP}}]
CALLED_ITEM = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": DEEP}

CHAT: dict[str, Any] = {"model": "moa", "messages": QUESTION}
MESSAGES: dict[str, Any] = {"model": "moa", "max_tokens": 50, "messages": QUESTION}
RESPONSES: dict[str, Any] = {"model": "moa", "input": "why?"}
FIELDS: list[tuple[str, dict[str, Any], str]] = [
    (
        "chat/completions",
        {**CHAT, "tools": [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]},
        "tools[0].function",
    ),
    (
        "chat/completions",
        {**CHAT, "functions": [{"name": "f", "parameters": DEEP}]},
        "functions[0]",
    ),
    ("chat/completions", {**CHAT, "tools": [WEATHER], "tool_choice": DEEP}, "tool_choice"),
    ("chat/completions", {**CHAT, "response_format": SCHEMA}, "response_format.json_schema.schema"),
    ("chat/completions", {**CHAT, "moa": {"rounds": DEEP}}, "moa.rounds"),
    ("chat/completions", {**CHAT, "logit_bias": DEEP}, "logit_bias"),
    ("chat/completions", {**CHAT, "chat_template_kwargs": DEEP}, "chat_template_kwargs"),
    ("chat/completions", {**CHAT, "metadata": DEEP}, "metadata"),
    ("chat/completions", {**CHAT, "nobody_knows_it": DEEP}, "nobody_knows_it"),
    ("chat/completions", {"model": "moa", "messages": DEEP}, "messages"),
    (
        "chat/completions",
        {"model": "moa", "messages": [{"role": "user", "content": DEEP}]},
        "messages[0].content",
    ),
    (
        "chat/completions",
        {"model": "moa", "messages": [{"role": "user", "content": [{"type": DEEP}]}]},
        "messages[0].content",
    ),
    (
        "chat/completions",
        {
            "model": "moa",
            "messages": [*QUESTION, {"role": "assistant", "tool_calls": CALLED}],
        },
        "messages[1].tool_calls",
    ),
    ("completions", {"model": "moa", "prompt": DEEP}, "prompt"),
    ("completions", {"model": "moa", "prompt": "why?", "options": DEEP}, "options"),
    ("messages", {**MESSAGES, "tools": [{"name": "f", "input_schema": DEEP}]}, "tools[0]"),
    ("messages", {**MESSAGES, "tool_choice": DEEP}, "tool_choice"),
    ("messages", {**MESSAGES, "metadata": DEEP}, "metadata"),
    ("messages", {**MESSAGES, "system": [{"type": "text", "text": DEEP}]}, "system[0].text"),
    ("messages", {**MESSAGES, "moa": DEEP}, "moa"),
    (
        "messages",
        {**MESSAGES, "output_config": {"format": {"type": "json_schema", "schema": DEEP}}},
        "output_config.format.schema",
    ),
    (
        "messages",
        {
            **MESSAGES,
            "messages": [
                *QUESTION,
                {"role": "assistant", "content": [USE]},
                {"role": "user", "content": [RESULT]},
            ],
        },
        "messages[1].content",
    ),
    (
        "messages/count_tokens",
        {"model": "moa", "messages": QUESTION, "tools": [{"name": "f", "input_schema": DEEP}]},
        "tools[0]",
    ),
    (
        "responses",
        {**RESPONSES, "tools": [{"type": "function", "name": "f", "parameters": DEEP}]},
        "tools[0].parameters",
    ),
    ("responses", {**RESPONSES, "text": {"format": DEEP}}, "text.format"),
    ("responses", {**RESPONSES, "metadata": DEEP}, "metadata"),
    ("responses", {**RESPONSES, "moa": {"proposers": DEEP}}, "moa.proposers"),
    ("responses", {"model": "moa", "input": [CALLED_ITEM]}, "input[0].arguments"),
    ("responses", {**RESPONSES, "nobody_knows_it": DEEP}, "nobody_knows_it"),
]


def nested(levels: int) -> str:
    """JSON of so many levels, as text: Python could not write all of them."""
    pairs, rest = divmod(levels, 2)
    return '{"a":[' * pairs + ("{}" if rest else "") + "]}" * pairs


def body_with(fields: Any, levels: int) -> str:
    """A body in which the value of that many levels stands where `DEEP` does."""
    mark = "the deep value"
    text = json.dumps(fields, default=lambda _: mark)
    assert text.count(json.dumps(mark)) == 1
    return text.replace(json.dumps(mark), nested(levels))


def post(server: Server, wire: str, body: str) -> httpx.Response:
    headers = {"content-type": "application/json"}
    return server.http.post(f"{server.url}/{wire}", content=body, headers=headers)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all that is refused: it asks no model."""
    with Upstream() as upstream:
        moa = Moa(tmp_path_factory.mktemp("machine"), upstream.url)
        with serving(moa, "--max-body", "100000") as server:
            yield server
        assert upstream.chats() == []


# The last ones are near Python's own limit, which reading and writing reach at different depths.
def _name(value: object) -> str:
    """The same in each process that collects the tests: an object's address is not."""
    return ",".join(value) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize("levels", [101, 150, 900, 930, 960, 990, 20_000])
@pytest.mark.parametrize(("wire", "fields", "param"), FIELDS, ids=_name)
def test_a_field_that_is_nested_too_deeply_is_refused_by_name(
    served: Server, wire: str, fields: dict[str, Any], param: str, levels: int
) -> None:
    response = post(served, wire, body_with(fields, levels))
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    told = error["message"]
    # What Python cannot read has no fields.
    if levels < 900 or "not valid JSON" not in told:
        assert f"`{param}" in told
        assert f"is nested too deeply: a body may have {MOST} levels" in told
        assert error.get("param", param).startswith(param)


@pytest.mark.parametrize("wire", ["chat/completions", "responses", "messages", "completions"])
def test_the_bound_is_the_same_on_all_wires(server: Server, upstream: Upstream, wire: str) -> None:
    fields = {
        "chat/completions": CHAT,
        "responses": RESPONSES,
        "messages": MESSAGES,
        "completions": {"model": "moa", "prompt": "why?"},
    }[wire]
    asked = {**fields, "metadata": DEEP}
    # The body itself is a level, too.
    assert post(server, wire, body_with(asked, MOST - 1)).status_code == 200
    assert post(server, wire, body_with(asked, MOST)).status_code == 400


def test_tools_are_passed_on_up_to_the_bound(server: Server, upstream: Upstream) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": DEEP}}
    # The body, the list, the tool and its function are levels, too.
    answer = post(server, "chat/completions", body_with({**CHAT, "tools": [tool]}, MOST - 4))
    assert answer.status_code == 200, answer.text
    sent = upstream.chats("agg")[-1].body["tools"][0]["function"]["parameters"]
    assert json.dumps(sent, separators=(",", ":")) == nested(MOST - 4)


@pytest.mark.parametrize("levels", [101, 900, 930, 950, 970, 990, 5_000])
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_calls_a_tool_with_deep_arguments_fails_no_reply(
    server: Server, upstream: Upstream, levels: int, stream: bool
) -> None:
    written = nested(levels)
    inner = {"name": "weather", "arguments": written}
    call = {"index": 0, "id": "c1", "type": "function", "function": inner}
    upstream.always("agg", Reply(raw=sse({"tool_calls": [call]}, finish="tool_calls")))
    anthropic = {"name": "weather", "input_schema": {"type": "object"}}
    openai = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    asked = {
        "chat/completions": {**CHAT, "tools": [WEATHER]},
        "messages": {**MESSAGES, "tools": [anthropic]},
        "responses": {**RESPONSES, "tools": [openai]},
    }
    for wire, fields in asked.items():
        response = post(server, wire, json.dumps({**fields, "stream": stream}))
        assert response.status_code == 200, response.text
        assert written[:-levels] in response.text.replace('\\"', '"'), wire
        assert "internal_error" not in response.text
