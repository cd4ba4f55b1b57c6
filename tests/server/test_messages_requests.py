"""What `/v1/messages` reads: every block reaches the models as it should, the rest is named."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_cli.core.values import keys_of
from moa_cli.server.errors import ApiError
from moa_cli.server.wires.messages_request import (
    CountBody,
    MessagesBody,
    parse,
    parse_as,
    tokens_of,
)
from tests.support.attached import pdf
from tests.support.bodies import described_body
from tests.support.client_requests import client_requests
from tests.support.command import Moa
from tests.support.messages_wire import ASKED, TOOL, message_events, post, stream
from tests.support.server import Server, serving
from tests.support.tool_calls import calling
from tests.support.upstream import Reply, Upstream

CASES = 1000
PIXEL = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
PNG = "data:image/png;base64,iVBORw0KGgo="
IMAGE = {"type": "image", "source": PIXEL}
PDF = {
    "type": "base64",
    "media_type": "application/pdf",
    "data": base64.b64encode(pdf("Its words")).decode(),
}
USE = {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "é"}}
CALLED = {"role": "assistant", "content": [{"type": "text", "text": "I look."}, USE]}
TEXT = {"type": "text", "text": "why?"}


def result(content: Any = "seen", identity: str = "c1", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": identity, "content": content, **fields}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def sent(server: Server, upstream: Upstream, **fields: Any) -> list[dict[str, Any]]:
    """The messages that the aggregator alone is sent."""
    response = post(server, moa={"rounds": 0}, **fields)
    assert response.status_code == 200, response.text
    return upstream.chats("agg")[-1].messages


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def test_roles_and_texts_keep_their_places(server: Server, upstream: Upstream) -> None:
    messages = [
        {"role": "user", "content": "one"},
        {"role": "system", "content": [text("mind")]},
        {"role": "assistant", "content": [text("two"), text("three")]},
        {"role": "user", "content": [text("four"), {**text("five"), "cache_control": {}}]},
        {"role": "system", "content": "late"},
        {"role": "assistant", "content": "The answer is"},
    ]
    billing = text("x-anthropic-billing-header: cc_version=2.1; cch=0a1b2")
    system = [billing, {**text("be brief"), "cache_control": {"type": "ephemeral"}}]
    assert sent(server, upstream, messages=messages, system=system) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "system", "content": "mind"},
        {"role": "assistant", "content": "two\nthree"},
        {"role": "user", "content": "four\nfive"},
        {"role": "system", "content": "late"},
        {"role": "assistant", "content": "The answer is"},
    ]
    assert sent(server, upstream, system="text")[0] == {"role": "system", "content": "text"}


def test_images_and_documents_are_parts(server: Server, upstream: Upstream) -> None:
    message = user(
        TEXT,
        IMAGE,
        {"type": "image", "source": {"type": "url", "url": "https://a.test/b.jpg"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}},
        {"type": "document", "title": "t.pdf", "context": "read it", "source": PDF},
        {
            "type": "document",
            "title": "mixed",
            "source": {"type": "content", "content": [text("x"), text("y")]},
        },
        {"type": "search_result", "title": "T", "source": "https://s", "content": [text("found")]},
    )
    (told,) = sent(server, upstream, messages=[message])
    assert told["content"] == [
        text("why?"),
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "image_url", "image_url": {"url": "https://a.test/b.jpg"}},
        text("[file]\nabc"),
        text("read it"),
        text("[file: t.pdf]\nIts words"),
        text("[file: mixed]\nx\ny"),
        text("T\nhttps://s\nfound"),
    ]


def test_calls_and_results_of_tools_are_those_of_the_other_wire(
    server: Server, upstream: Upstream
) -> None:
    second = {**USE, "id": "c2", "input": {}}
    messages = [
        ASKED[0],
        {"role": "assistant", "content": [*CALLED["content"], second]},
        {"role": "system", "content": "between"},
        user(
            result([text("one"), IMAGE]),
            result("no", "c2", is_error=True),
            text("<reminder>"),
        ),
    ]
    told = sent(server, upstream, messages=messages, tools=[TOOL])
    assert told == [
        {"role": "user", "content": "why?"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at": "é"}'},
                },
                {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "content": "one\n[image]", "tool_call_id": "c1"},
        {"role": "tool", "content": "The tool failed.\nno", "tool_call_id": "c2"},
        # Between a call and its result, no endpoint takes it.
        {"role": "system", "content": "between"},
        {
            "role": "user",
            "content": [
                text("From the result of the tool look:"),
                {"type": "image_url", "image_url": {"url": PNG}},
                text("<reminder>"),
            ],
        },
    ]


def test_what_carries_results_is_not_what_is_answered() -> None:
    messages = [ASKED[0], CALLED, user(result(), text("<reminder>"))]
    body = {"model": "moa", "max_tokens": 5, "messages": messages}
    conversation = parse(json.dumps(body).encode())[0].conversation
    assert conversation.turns[-1].user == "why?"
    assert [message.role for message in conversation.after] == ["assistant", "tool", "user"]


@pytest.mark.parametrize(
    "reply",
    [
        [[text("I look.")], [USE], [{**USE, "id": "c2"}]],
        [[text("I look."), USE], [], [{**USE, "id": "c2"}]],
        [[USE], [{"type": "thinking", "thinking": "hm", "signature": "x"}], [text("I look.")]],
    ],
)
def test_messages_of_the_assistant_that_follow_each_other_are_one_reply(
    server: Server, upstream: Upstream, reply: list[list[dict[str, Any]]]
) -> None:
    blocks = [block for content in reply for block in content]
    names = [block["id"] for block in blocks if block["type"] == "tool_use"]
    messages = [
        ASKED[0],
        *({"role": "assistant", "content": content} for content in reply),
        user(*(result(name, name) for name in names)),
    ]
    told = sent(server, upstream, messages=messages, tools=[TOOL])
    assert [message["role"] for message in told] == ["user", "assistant"] + ["tool"] * len(names)
    assert told[1]["content"] == "I look."
    assert [call["id"] for call in told[1]["tool_calls"]] == names
    assert [message["tool_call_id"] for message in told[2:]] == names


def test_the_result_of_a_search_for_tools_names_them(server: Server, upstream: Upstream) -> None:
    found = [{"type": "tool_reference", "tool_name": name} for name in ("look", "read")]
    messages = [ASKED[0], CALLED, user(result(found))]
    body = post(server, messages=messages, tools=[TOOL]).json()
    (call,) = upstream.chats("agg")
    assert call.messages[-1]["content"] == "Found the tool look.\nFound the tool read."
    assert "ignored" not in body["moa"]


def test_results_may_come_in_several_messages(server: Server, upstream: Upstream) -> None:
    calls = {"role": "assistant", "content": [USE, {**USE, "id": "c2"}]}
    messages = [ASKED[0], calls, user(result("x", "c2")), user(result("y"))]
    told = sent(server, upstream, messages=messages, tools=[TOOL])
    assert [message.get("tool_call_id") for message in told[2:]] == ["c2", "c1"]


@pytest.mark.parametrize(
    ("choice", "fields"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
            {
                "tool_choice": {"type": "function", "function": {"name": "look"}},
                "parallel_tool_calls": False,
            },
        ),
        (None, {}),
    ],
)
def test_tools_and_their_choice(
    server: Server, upstream: Upstream, choice: Any, fields: dict[str, Any]
) -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    tool = {**TOOL, "strict": True, "cache_control": {"type": "ephemeral"}, "defer_loading": True}
    response = post(server, tools=[tool, search], tool_choice=choice)
    assert response.status_code == 200
    (call,) = upstream.chats("agg")
    (offered,) = call.body["tools"]
    assert offered == {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Looks.",
            "parameters": TOOL["input_schema"],
            "strict": True,
        },
    }
    names = ("tool_choice", "parallel_tool_calls")
    assert {name: call.body[name] for name in names if name in call.body} == fields
    ignored = response.json()["moa"]["ignored"]
    assert ignored == ["cache_control", "defer_loading", "tools[].type=web_search_20250305"]


EDITING = ["view", "create", "str_replace", "insert"]


@pytest.mark.parametrize(
    ("kind", "commands", "inserted"),
    [
        ("text_editor_20241022", [*EDITING, "undo_edit"], "new_str"),
        ("text_editor_20250124", [*EDITING, "undo_edit"], "new_str"),
        ("text_editor_20250429", EDITING, "new_str"),
        ("text_editor_20250728", EDITING, "insert_text"),
        ("memory_20250818", [*EDITING, "delete", "rename"], "insert_text"),
    ],
)
def test_an_editor_of_the_client_is_a_function(
    server: Server, upstream: Upstream, kind: str, commands: list[str], inserted: str
) -> None:
    tool = {"type": kind, "name": "editor", "cache_control": {}, "max_characters": 9}
    response = post(server, tools=[tool], tool_choice={"type": "tool", "name": "editor"})
    assert response.status_code == 200, response.text
    (call,) = upstream.chats("agg")
    (offered,) = call.body["tools"]
    assert (offered["type"], offered["function"]["name"]) == ("function", "editor")
    parameters = offered["function"]["parameters"]
    assert parameters["properties"]["command"]["enum"] == commands
    assert parameters["required"][0] == "command"
    assert ("insert_text" in parameters["properties"]) == (inserted == "insert_text")
    told = offered["function"]["description"]
    assert f"insert `{inserted}`" in told
    assert all(f"`{command}`" in told for command in commands)
    assert response.json()["moa"]["ignored"] == ["max_characters"]


@pytest.mark.parametrize("kind", ["bash_20241022", "bash_20250124"])
def test_a_shell_of_the_client_is_called_and_answered(
    server: Server, upstream: Upstream, kind: str
) -> None:
    tools = [{"type": kind, "name": "bash"}]
    upstream.enqueue("agg", calling("bash", arguments=['{"command": "ls"}']))
    (use,) = post(server, tools=tools).json()["content"]
    assert (use["type"], use["name"], use["input"]) == ("tool_use", "bash", {"command": "ls"})
    (offered,) = upstream.chats("agg")[-1].body["tools"]
    assert set(offered["function"]["parameters"]["properties"]) == {"command", "restart"}
    messages = [ASKED[0], {"role": "assistant", "content": [use]}, user(result("a.txt", use["id"]))]
    assert post(server, tools=tools, messages=messages).status_code == 200
    assert upstream.chats("agg")[-1].messages[-1]["content"] == "a.txt"


def test_a_built_in_tool_may_be_described(server: Server, upstream: Upstream) -> None:
    tool = {"type": "computer_20250124", "name": "computer", "input_schema": {"type": "object"}}
    assert post(server, tools=[tool]).status_code == 200
    (offered,) = upstream.chats("agg")[-1].body["tools"]
    # Some endpoints refuse a schema of an object that has no properties at all.
    parameters = {"type": "object", "properties": {}}
    assert offered["function"] == {"name": "computer", "parameters": parameters}


def test_a_tool_that_must_be_called_and_is_not_there_is_refused(served: Server) -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    chosen = {"type": "tool", "name": "web_search"}
    refused = post(served, tools=[search], tool_choice=chosen)
    assert refused.status_code == 400
    assert "only Anthropic's servers run" in refused.json()["error"]["message"]


def test_a_long_name_of_a_tool_is_short_for_the_model_only(
    server: Server, upstream: Upstream
) -> None:
    """Anthropic's names have up to 128 characters; most endpoints refuse more than 64."""
    name = "mcp__plugin_" + "playwright_" * 8 + "click"
    tools = [
        {**TOOL, "name": name},
        {**TOOL, "name": f"{name}s"},
        {"type": "web_search_1", "name": 5},
    ]
    choice = {"type": "tool", "name": name}
    post(server, tools=tools, tool_choice=choice)
    (call,) = upstream.chats("agg")
    short, other = (tool["function"]["name"] for tool in call.body["tools"])
    assert len({short, other}) == 2
    assert max(len(short), len(other)) == 64
    assert call.body["tool_choice"]["function"]["name"] == short
    upstream.always("agg", calling(short, arguments=["{}"]))
    (use,) = post(server, tools=tools).json()["content"]
    assert use["name"] == name
    with stream(server, tools=tools) as response:
        events = message_events(response.read().decode())
    begun = [event for event in events if event["type"] == "content_block_start"]
    assert [event["content_block"]["name"] for event in begun] == [name]
    said = {"role": "assistant", "content": [{**USE, "name": name}]}
    post(server, tools=tools, messages=[ASKED[0], said, user(result())])
    told = upstream.chats("agg")[-1].messages
    assert [
        message["tool_calls"][0]["function"]["name"] for message in told if "tool_calls" in message
    ] == [short]


def test_settings_are_the_reply_s(server: Server, upstream: Upstream) -> None:
    schema = {"type": "object", "properties": {}}
    fields: dict[str, Any] = {
        "max_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop_sequences": ["a", "b"],
        "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": schema}},
    }
    upstream.always("agg", Reply(text="{}"))
    assert post(server, **fields).status_code == 200
    (call,) = upstream.chats("agg")
    assert (call.body["max_tokens"], call.body["temperature"], call.body["top_p"]) == (50, 0.5, 0.9)
    assert (call.body["top_k"], call.body["stop"]) == (5, ["a", "b"])
    assert call.body["reasoning_effort"] == "xhigh"
    assert call.body["response_format"]["json_schema"]["schema"] == schema
    assert all("top_k" not in request.body for request in upstream.chats("a"))


def test_what_has_no_effect_is_named(server: Server) -> None:
    fields: dict[str, Any] = {
        "messages": [
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "x"},
                    {"type": "redacted_thinking", "data": "x"},
                ],
            },
            {**user({"type": "next_year", "text": "?"}, TEXT), "name": "n"},
        ],
        "metadata": {"user_id": "u"},
        "service_tier": "standard_only",
        "thread": {"type": "create"},
        "context_management": {"edits": [{}]},
        "cache_control": None,
        "speed": "fast",
        "output_config": {"effort": "much", "task_budget": {}},
    }
    ignored = post(server, **fields).json()["moa"]["ignored"]
    assert ignored == [
        "name",
        "speed",
        "content[].type=next_year",
        "output_config.effort",
        "output_config.task_budget",
        "context_management",
        "metadata",
        "service_tier",
        "thread",
    ]
    many: dict[str, Any] = {f"field{number}": 1 for number in range(100)}
    assert len(post(server, **many).json()["moa"]["ignored"]) == 32
    assert "ignored" not in post(server).json()["moa"]


def test_a_strict_server_refuses_what_has_no_effect(moa: Moa) -> None:
    with serving(moa, "--strict") as server:
        assert post(server).status_code == 200
        for fields in ({"speed": "fast"}, {"metadata": {"user_id": "u"}}):
            response = post(server, **fields)
            assert response.status_code == 400
            (name,) = fields
            message = response.json()["error"]["message"]
            assert message == f"`{name}` is not supported"


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, "low"),
        ({"type": "enabled", "budget_tokens": 10_000}, "medium"),
        ({"type": "enabled", "budget_tokens": 64_000}, "high"),
        ({"type": "adaptive"}, None),
    ],
)
def test_a_budget_for_thinking_is_an_effort(
    server: Server, upstream: Upstream, thinking: dict[str, Any], effort: str | None
) -> None:
    assert post(server, thinking=thinking).status_code == 200
    assert upstream.chats("agg")[0].body.get("reasoning_effort") == effort


def test_an_effort_that_an_endpoint_does_not_take_is_left_out(
    server: Server, upstream: Upstream
) -> None:
    # Claude Code sends one with each request, and many models take none.
    told = "Unrecognized request argument supplied: reasoning_effort"
    refused = {"error": {"message": told, "type": "invalid_request_error", "param": None}}
    upstream.enqueue("agg", Reply(status=400, error=refused))
    for _ in range(2):
        assert post(server, output_config={"effort": "high"}).status_code == 200
    efforts = [call.body.get("reasoning_effort") for call in upstream.chats("agg")]
    assert efforts == ["high", None, None]


def test_what_other_servers_tools_found_is_kept_as_text(server: Server, upstream: Upstream) -> None:
    searched = [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s1",
            "content": [
                {"type": "web_search_result", "title": "T", "url": "https://t", "page_age": None}
            ],
        },
        {"type": "compaction", "content": "summary"},
    ]
    messages = [ASKED[0], {"role": "assistant", "content": searched}, ASKED[0]]
    told = sent(server, upstream, messages=messages)
    assert told[1] == {"role": "assistant", "content": "T\nhttps://t\nsummary"}


FILE = {"type": "file", "file_id": "f1"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model"),
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [user("hi")]}, "messages[0].content[0]"),
    ({"messages": [user({"text": "hi"})]}, "messages[0].content[0].type"),
    ({"messages": [user({"type": "text"})]}, "messages[0].content[0].text"),
    ({"messages": [user({"type": "text", "text": 5})]}, "messages[0].content[0].text"),
    ({"messages": [user({"type": "next_year"})]}, "messages"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
    ({"messages": [user(TEXT, {"type": "image"})]}, "messages[0].content[1].source"),
    (
        {"messages": [user({"type": "image", "source": FILE})]},
        "messages[0].content[0].source.type",
    ),
    (
        {"messages": [user({"type": "document", "source": FILE})]},
        "messages[0].content[0].source.type",
    ),
    (
        {"messages": [user({"type": "image", "source": {**PIXEL, "media_type": "text/html"}})]},
        "messages[0].content[0].source.media_type",
    ),
    (
        {"messages": [user({"type": "image", "source": {**PIXEL, "data": "<svg>"}})]},
        "messages[0].content[0].source.data",
    ),
    (
        {"messages": [user({"type": "image", "source": {"type": "url", "url": "file:///x"}})]},
        "messages[0].content[0].source.url",
    ),
    (
        {"messages": [user({"type": "container_upload", "file_id": "f"})]},
        "messages[0].content[0].type",
    ),
    ({"messages": [user(result())]}, "messages[0].content[0].tool_use_id"),
    ({"messages": [ASKED[0], CALLED]}, "messages[1].content"),
    ({"messages": [ASKED[0], CALLED, ASKED[0]]}, "messages[1].content"),
    ({"messages": [ASKED[0], CALLED, CALLED]}, "messages[1].content"),
    ({"messages": [user(USE)]}, "messages[0].content[0].type"),
    (
        {"messages": [ASKED[0], CALLED, user(result([{"type": "image", "source": FILE}]))]},
        "messages[2].content[0].content[0].source.type",
    ),
    ({"system": 5}, "system"),
    ({"system": [5]}, "system[0]"),
    ({"stream": "yes"}, "stream"),
    ({"temperature": 1.1}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"top_k": 1.5}, "top_k"),
    ({"stop_sequences": "x"}, "stop_sequences"),
    ({"stop_sequences": [""]}, "stop_sequences"),
    ({"tools": [5]}, "tools[0]"),
    ({"tools": [{**TOOL, "name": ""}]}, "tools[0].name"),
    ({"tools": [{"name": "x"}]}, "tools[0].input_schema"),
    ({"tools": [{"type": "computer_20250124", "name": "computer"}]}, "tools[0].type"),
    ({"tools": [{"type": "bash_20250124"}]}, "tools[0].name"),
    ({"tools": [{"type": 5, "name": "bash"}]}, "tools[0].type"),
    ({"tools": [{"type": "computer_toolset_20260801"}]}, "tools[0].type"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice.type"),
    ({"tools": [TOOL], "tool_choice": "auto"}, "tool_choice"),
    ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type"),
    ({"output_format": {"type": "json_schema"}}, "output_format.schema"),
    ({"mcp_servers": [{"type": "url", "url": "https://m"}]}, "mcp_servers"),
    ({"container": "c1"}, "container"),
    ({"inference_geo": "us"}, "inference_geo"),
    ({"compaction": {"type": "summarize"}}, "compaction"),
    ({"metadata": "x"}, "metadata"),
    ({"thinking": True}, "thinking"),
    ({"thinking": {"type": "enabled", "budget_tokens": "x"}}, "thinking.budget_tokens"),
    ({"moa": {"rounds": 11}}, "moa.rounds"),
    ({"moa": {"round": 1}}, "moa.round"),
    ({"moa": {"proposers": []}}, "moa.proposers"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all that is refused: it asks no model."""
    with Upstream() as upstream:
        moa = Moa(tmp_path_factory.mktemp("machine"), upstream.url)
        with serving(moa) as server:
            yield server
        assert upstream.chats() == []


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_cannot_be_done_is_refused_by_name(
    served: Server, fields: dict[str, Any], param: str
) -> None:
    response = post(served, **fields)
    assert response.status_code == 400, response.text
    error = response.json()
    assert error["error"]["type"] == "invalid_request_error"
    assert f"`{param}`" in error["error"]["message"] or f"{param}[" in error["error"]["message"]


@pytest.mark.parametrize("where", ["schema", "input", "format"])
def test_what_is_nested_too_deep_to_be_passed_on_is_refused(served: Server, where: str) -> None:
    deep: dict[str, Any] = {}
    for _ in range(150):
        deep = {"a": [deep]}
    bodies: dict[str, dict[str, Any]] = {
        "schema": {"tools": [{**TOOL, "input_schema": deep}]},
        "input": {"messages": [{"role": "assistant", "content": [{**USE, "input": deep}]}]},
        "format": {"output_config": {"format": {"type": "json_schema", "schema": deep}}},
    }
    response = post(served, **bodies[where])
    assert response.status_code == 400
    assert "nested too deep" in response.json()["error"]["message"]


def test_a_thread_is_not_found_and_costs_nothing(served: Server) -> None:
    for messages in ([user(result("seen"))], []):
        goes_on = {"type": "continue", "previous_message_id": "msg_1"}
        response = post(served, messages=messages, thread=goes_on)
        assert response.status_code == 404
        error = response.json()["error"]
        assert error["type"] == "not_found_error"
        assert error["details"] == {"error_code": "thread_not_found"}
        assert "whole conversation" in error["message"]


def test_a_count_is_the_estimate_and_free(served: Server) -> None:
    def count(**fields: Any) -> int:
        response = post(served, "/v1/messages/count_tokens?beta=true", **fields)
        assert response.status_code == 200, response.text
        (number,) = response.json().values()
        assert isinstance(number, int)
        return number

    plain = count()
    assert 0 < plain < 20
    assert count(max_tokens=None) == plain
    assert count(system="some words more") > plain
    assert count(tools=[TOOL]) > plain + 10
    assert count(messages=[user(TEXT, IMAGE)]) > plain + 1000
    assert count(messages=[ASKED[0], CALLED, user(result("x " * 500))]) > plain + 300
    missing = post(served, "/v1/messages/count_tokens", model="none")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")
    wrong = post(served, "/v1/messages/count_tokens", messages=None)
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (400, "invalid_request_error")


def test_the_text_of_a_file_counts(server: Server, upstream: Upstream) -> None:
    data = base64.b64encode(pdf("many words " * 200)).decode()
    source = {"type": "base64", "media_type": "application/pdf", "data": data}
    asked = {"messages": [user({"type": "document", "source": source}, TEXT)]}
    counted = post(server, "/v1/messages/count_tokens", **asked).json()["input_tokens"]
    with stream(server, **asked) as response:
        begun, *_ = message_events(response.read().decode())
    assert begun["message"]["usage"]["input_tokens"] == counted > 300
    assert not upstream.chats("agg")[1:]
    broken = {**source, "data": "AAAA"}
    refused = post(
        server,
        "/v1/messages/count_tokens",
        messages=[user({"type": "document", "source": broken})],
    )
    assert refused.status_code == 400


def test_the_requests_of_released_clients_are_answered(server: Server, upstream: Upstream) -> None:
    for request in client_requests("/v1/messages"):
        upstream.always("agg", Reply(text="hello"))
        response = server.http.post(
            server.root + request["path"], json=request["body"], headers=request["headers"]
        )
        assert response.status_code == 200, response.text
        if request["body"].get("stream"):
            assert message_events(response.text)[-1]["type"] == "message_stop"
        else:
            assert response.json()["content"] == [{"type": "text", "text": "hello"}]
        offered = upstream.chats("agg")[-1].body["tools"]
        assert len(offered) == len(request["body"]["tools"])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_KINDS = st.sampled_from(
    ["text", "image", "document", "tool_use", "tool_result", "thinking", "search_result", "x"]
)
_BLOCKS = st.fixed_dictionaries(
    {"type": _KINDS},
    optional={
        "text": st.text(),
        "source": st.fixed_dictionaries(
            {"type": st.sampled_from(["base64", "url", "text", "content", "file"])},
            optional={"data": _JSON, "media_type": _JSON, "url": _JSON, "content": _JSON},
        )
        | _JSON,
        "id": _JSON,
        "name": _JSON,
        "input": _JSON,
        "tool_use_id": _JSON,
        "content": _JSON,
        "title": _JSON,
    },
)
_MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system"]),
        "content": st.lists(_BLOCKS | _JSON, max_size=4) | _JSON,
    }
)


@settings(max_examples=500)
@given(
    st.dictionaries(st.sampled_from(sorted(keys_of(MessagesBody))) | st.text(), _JSON),
    st.lists(_MESSAGES, max_size=4),
)
def test_any_body_is_parsed_or_refused(
    fields: dict[str, Any], messages: list[dict[str, Any]]
) -> None:
    body = {"model": "moa", "max_tokens": 5, **fields, "messages": [*messages, ASKED[0]]}
    for kind in (MessagesBody, CountBody):
        with contextlib.suppress(ApiError):
            assert tokens_of(parse_as(kind, json.dumps(body).encode()).asked) > 0


def test_bodies_of_many_fields_are_answered_or_refused(moa: Moa, upstream: Upstream) -> None:
    dice = random.Random(11)
    statuses: Counter[int] = Counter()
    environment = {"OLLAMA_HOST": upstream.url.removesuffix("/v1")}
    with serving(moa, env=environment) as server:
        described = server.get("/openapi.json").json()
        known = described["paths"]["/v1/messages"]["post"]["responses"]
        request = described["components"]["schemas"]["MessagesRequest"]
        assert set(request["properties"]) == keys_of(MessagesBody).keys()
        request["properties"]["model"]["enum"] = ["moa", "lab"]
        for _ in range(CASES):
            body = described_body(request, dice)
            response = server.http.post(
                f"{server.url}/messages",
                content=json.dumps(body),
                headers={"content-type": "application/json"},
            )
            statuses[response.status_code] += 1
            assert str(response.status_code) in known, (body, response.text)
            assert response.status_code < 500, (body, response.text)
            if response.status_code != 200:
                assert set(response.json()) == {"type", "error", "request_id"}
            elif body.get("stream"):
                assert message_events(response.text)[-1]["type"] == "message_stop"
            else:
                assert response.json()["content"][-1] == {"type": "text", "text": "ok"}
        assert not [line for line in server.log if "internal error" in line]
    assert statuses[200] > CASES // 20
    assert statuses[400] > CASES // 20
