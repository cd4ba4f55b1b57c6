"""What a response cannot be asked for is refused by the name of its field; never a 5xx."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_cli.core.values import keys_of
from moa_cli.server.errors import ApiError
from moa_cli.server.wires.custom_input import CustomInput, input_arguments
from moa_cli.server.wires.responses_request import ResponsesBody, parse
from tests.support.client_requests import client_requests
from tests.support.command import Moa
from tests.support.responses import ask, events_of
from tests.support.server import Server, serving
from tests.support.upstream import Upstream

FUNCTION = {"type": "function", "name": "f"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all that is refused."""
    with Upstream() as upstream:
        moa = Moa(tmp_path_factory.mktemp("machine"), upstream.url)
        with serving(moa) as server:
            yield server
        assert upstream.chats() == []


def user(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


def items(*given: Any) -> list[Any]:
    return [{"role": "user", "content": "x"}, *given]


CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "x"}
IMAGE = {"type": "input_image", "image_url": "https://a.example/x.png"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": 5}, "model"),
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": 5}, "input"),
    ({"input": ["x"]}, "input[0]"),
    ({"input": [{"role": "assistant", "content": "x"}]}, "input"),
    ({"input": [{"content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"type": 5}]}, "input[0].type"),
    ({"input": user("x")}, "input[0].content[0]"),
    ({"input": user({"text": "x"})}, "input[0].content[0].type"),
    ({"input": user({"type": "input_text"})}, "input[0].content[0].text"),
    ({"input": user({"type": "input_text", "text": 5})}, "input[0].content[0].text"),
    ({"input": user({"type": "input_audio"})}, "input[0].content[0]"),
    ({"input": user({**IMAGE, "image_url": "/etc/passwd"})}, "input[0].content[0].image_url"),
    (
        {"input": user({"type": "input_image", "file_id": "f"})},
        "input[0].content[0].file_id",
    ),
    ({"input": user({"type": "input_file", "file_id": "f"})}, "input[0].content[0].file_id"),
    ({"input": user({"type": "input_file"})}, "input[0].content[0].file_url"),
    ({"input": items(CALL)}, "input[1].call_id"),
    ({"input": items(RESULT)}, "input[1].call_id"),
    ({"input": items(RESULT, CALL)}, "input[1].call_id"),
    ({"input": items({**CALL, "call_id": 5}, RESULT)}, "input[1].call_id"),
    ({"input": items({**CALL, "name": None}, RESULT)}, "input[1].name"),
    ({"input": items({**CALL, "arguments": {}}, RESULT)}, "input[1].arguments"),
    ({"input": items({**CALL, "namespace": 5}, RESULT)}, "input[1].namespace"),
    ({"input": items(CALL, {**RESULT, "output": 5})}, "input[2].output"),
    ({"input": items({"type": "item_reference", "id": "msg_1"})}, "input[1]"),
    ({"input": items({"type": "compaction", "encrypted_content": "x"})}, "input[1]"),
    ({"input": items({"type": "compaction_trigger"})}, "input[1]"),
    ({"input": items({"type": "additional_tools", "tools": 5})}, "input[1].tools"),
    ({"instructions": 5}, "instructions"),
    ({"stream": "yes"}, "stream"),
    ({"temperature": 3}, "temperature"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"background": True}, "background"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"tools": {}}, "tools"),
    ({"tools": ["f"]}, "tools[0]"),
    ({"tools": [{"name": "f"}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{**FUNCTION, "parameters": "x"}]}, "tools[0].parameters"),
    ({"tools": [{**FUNCTION, "description": 5}]}, "tools[0].description"),
    ({"tools": [{"type": "custom"}]}, "tools[0].name"),
    (
        {"tools": [{"type": "custom", "name": "f", "format": {"type": "grammar"}}]},
        "tools[0].format.definition",
    ),
    ({"tools": [{"type": "namespace", "name": "n"}]}, "tools[0].tools"),
    ({"tools": [{"type": "namespace", "name": "n", "tools": [5]}]}, "tools[0].tools[0]"),
    ({"tools": [FUNCTION], "tool_choice": "any"}, "tool_choice"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "g"}},
        "tool_choice.name",
    ),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "tools": 5}},
        "tool_choice.tools",
    ),
    ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ({"text": {"verbosity": 5}}, "text.verbosity"),
    ({"reasoning": {"effort": 5}}, "reasoning.effort"),
    ({"moa": {"round": 1}}, "moa.round"),
    ({"moa": {"proposers": []}}, "moa.proposers"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_wrong_field_is_named(served: Server, fields: dict[str, Any], param: str) -> None:
    response = ask(served, **fields)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert f"`{param}`" in error["message"]
    assert error["code"]


def test_what_needs_a_memory_is_refused_with_the_reason(served: Server) -> None:
    for name in ("previous_response_id", "conversation"):
        error = ask(served, **{name: "x"}).json()["error"]
        assert "stores nothing between requests" in error["message"]
        assert error["code"] == "unsupported_parameter"


def test_what_has_no_effect_is_named(server: Server, upstream: Upstream) -> None:
    harmless: dict[str, Any] = {
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "truncation": "disabled",
        "service_tier": "auto",
        "stream_options": None,
        "top_logprobs": 0,
        "background": False,
        "previous_response_id": None,
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "metadata": {},
        "text": {"format": {"type": "text"}},
    }
    named: dict[str, Any] = {
        "store": True,
        "include": ["file_search_call.results"],
        "client_metadata": {"a": "b"},
        "safety_identifier": "u",
        "a_field_of_next_year": 1,
    }
    response = ask(server, **harmless)
    assert response.status_code == 200
    assert "ignored" not in response.json()["moa"]
    parts = [{"type": "input_text", "text": "x"}, {"type": "input_smell", "smell": "y"}]
    said = [*user(*parts), {"type": "item_of_next_year", "id": "i"}]
    told = ask(server, **named, input=said, tools=[{"type": "mcp"}]).json()["moa"]["ignored"]
    assert sorted(told) == sorted(
        [
            *named,
            "tools[].type=mcp",
            "input[].content[].type=input_smell",
            "input[].type=item_of_next_year",
        ]
    )
    fields = {"model", "messages", "stream", "stream_options"}
    assert {frozenset(request.body) for request in upstream.chats()} == {frozenset(fields)}


def test_a_strict_server_refuses_what_has_no_effect(moa: Moa) -> None:
    with serving(moa, "--strict") as server:
        for fields, param in (
            ({"store": True}, "store"),
            ({"max_tool_calls": 5}, "max_tool_calls"),
            ({"top_k": 5}, "top_k"),
            ({"a_field_of_next_year": 1}, "a_field_of_next_year"),
            ({"tools": [{"type": "web_search"}]}, "tools[].type=web_search"),
        ):
            response = ask(server, **fields)
            assert response.status_code == 400
            assert response.json()["error"]["param"] == param
        bookkeeping = {"prompt_cache_key": "k", "client_metadata": {"a": "b"}, "store": False}
        assert ask(server, **bookkeeping).status_code == 200


def test_requests_of_released_clients_are_answered(server: Server, upstream: Upstream) -> None:
    for row in client_requests("/v1/responses"):
        response = server.http.post(f"{server.root}{row['path']}", json=row["body"])
        assert response.status_code == 200, (row, response.text)
        if row["body"].get("stream"):
            output = events_of(response.text)[-1]["response"]["output"]
        else:
            output = response.json()["output"]
        assert output[0]["content"][0]["text"] == "ok"
    for call in upstream.chats("agg"):
        names = [tool["function"]["name"] for tool in call.body.get("tools", ())]
        assert len(set(names)) == len(names)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_KINDS = st.sampled_from(
    [
        *("message", "function_call", "function_call_output", "custom_tool_call", "reasoning"),
        *("local_shell_call", "tool_search_call", "tool_search_output", "additional_tools"),
        *("input_text", "input_image", "input_file", "refusal", "function", "custom"),
        *("namespace", "tool_search", "grammar", "json_schema", "allowed_tools"),
        *("shell", "local_shell", "apply_patch", "shell_call", "apply_patch_call"),
        *("shell_call_output", "apply_patch_call_output"),
    ]
)
_NAMES = st.sampled_from(
    [
        *("type", "role", "content", "text", "call_id", "id", "name", "arguments", "input"),
        *("output", "tools", "namespace", "action", "execution", "parameters", "format"),
        *("definition", "schema", "image_url", "file_data", "filename", "file_url", "mode"),
    ]
)
# Objects that look like items, parts and tools.
_NEAR = st.recursive(
    _JSON | _KINDS | st.just("c"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=15,
)
_TYPED = st.dictionaries(_NAMES, _NEAR, max_size=6).flatmap(
    lambda fields: _KINDS.map(lambda kind: {**fields, "type": kind})
)
_FIELDS = st.sampled_from(list(keys_of(ResponsesBody)))


@settings(max_examples=400)
@given(
    st.dictionaries(_FIELDS | st.text(), _NEAR, max_size=4),
    st.lists(_TYPED, max_size=4),
    st.lists(_TYPED, max_size=3),
)
def test_any_body_is_parsed_or_refused(
    fields: dict[str, Any], said: list[Any], tools: list[Any]
) -> None:
    given_input = [{"role": "user", "content": "x"}, *said]
    body = {"model": "moa", "input": given_input, "tools": tools, **fields}
    with contextlib.suppress(ApiError):
        parse(json.dumps(body).encode())


def _near(dice: random.Random, depth: int = 3) -> Any:
    """A value by dice that looks like what belongs into a request."""
    kinds = ("message", "function_call", "function_call_output", "custom_tool_call_output")
    more = ("input_text", "input_image", "function", "custom", "namespace", "reasoning")
    leaves: tuple[Any, ...] = (None, True, 5, -1.5, "", "c", "user", "\ud800", "assistant", {}, [])
    if depth == 0 or dice.random() < 0.3:
        return dice.choice((*leaves, *kinds, *more))
    if dice.random() < 0.4:
        return [_near(dice, depth - 1) for _ in range(dice.randrange(4))]
    names = ("role", "content", "text", "call_id", "name", "arguments", "output", "tools")
    found = {name: _near(dice, depth - 1) for name in dice.sample(names, dice.randrange(5))}
    return found | ({"type": dice.choice((*kinds, *more))} if dice.random() < 0.8 else {})


def test_1000_bodies_by_dice_are_answered_or_refused(server: Server) -> None:
    dice = random.Random(14)
    names = [*keys_of(ResponsesBody), "field_of_next_year"]
    statuses: list[int] = []
    for _ in range(1000):
        fields = {name: _near(dice) for name in dice.sample(names, dice.randrange(3))}
        items_ = [_near(dice, 2) for _ in range(dice.randrange(3))]
        body = {"model": "moa", "input": [{"role": "user", "content": "x"}, *items_], **fields}
        response = server.http.post(
            f"{server.url}/responses",
            content=json.dumps(body),
            headers={"content-type": "application/json"},
        )
        statuses.append(response.status_code)
        assert response.status_code < 500, (body, response.text)
    assert not [line for line in server.log if "internal error" in line]
    assert 50 < statuses.count(200) < 950


@pytest.mark.parametrize("depth", [90, 200, 700, 950, 5000])
@pytest.mark.parametrize("field", ["metadata", "text", "tools"])
def test_deep_values_are_told_back_or_refused(server: Server, field: str, depth: int) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    value = f'[{{"type":"function","name":"f","parameters":{deep}}}]' if field == "tools" else deep
    response = server.http.post(
        f"{server.url}/responses",
        content=f'{{"model":"moa","input":"x","{field}":{value}}}',
        headers={"content-type": "application/json"},
    )
    assert response.status_code == (200 if depth < 100 else 400), response.text


@settings(max_examples=300)
@given(st.text(), st.integers(1, 4), st.booleans())
def test_the_text_of_a_custom_tool_survives_any_cut(text: str, size: int, escaped: bool) -> None:
    arguments = json.dumps({"input": text}) if escaped else input_arguments(text)
    reader = CustomInput()
    pieces = [arguments[start : start + size] for start in range(0, len(arguments), size)]
    assert "".join([*map(reader.take, pieces), reader.end()]) == text
    assert reader.is_whole


def test_the_description_lists_every_field_that_is_read(served: Server) -> None:
    described = served.get("/openapi.json").json()["components"]["schemas"]
    assert keys_of(ResponsesBody).keys() <= set(described["ResponsesRequest"]["properties"])
