"""What clients send beside the plain text of a conversation: tools, images, odd histories, and
fields that only the model which writes the reply knows, or nobody."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.client_requests import client_requests
from tests.support.command import Moa
from tests.support.server import QUESTION, Server, chunks, serving
from tests.support.upstream import Reply, Request, Upstream

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"a":1}'}}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def sse(*deltas: dict[str, Any], finish: str = "stop") -> bytes:
    """A stream of chunks with these deltas."""
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": delta, "finish_reason": None} for delta in deltas
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    events = [{"id": "x", "model": "agg", "choices": [choice]} for choice in choices]
    told = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return (told + "data: [DONE]\n\n").encode()


CALLING = sse(
    {"role": "assistant", "content": "Let me see. "},
    {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "weather"}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"city"'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": ':"Bern"}'}}]},
    {"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "time", "arguments": "{}"}}]},
    finish="tool_calls",
)


def calls_tools(upstream: Upstream) -> None:
    upstream.always("agg", Reply(raw=CALLING))


@pytest.mark.parametrize("stream", [False, True])
def test_tools_go_to_the_aggregator_alone_and_its_calls_come_back(
    server: Server, upstream: Upstream, stream: bool
) -> None:
    calls_tools(upstream)
    chosen = {"type": "function", "function": {"name": "weather"}}
    answer = server.ask(
        tools=[WEATHER], tool_choice=chosen, parallel_tool_calls=False, stream=stream
    )
    assert answer.status_code == 200, answer.text
    asked = upstream.chats("agg")[-1].body
    assert (asked["tools"], asked["tool_choice"]) == ([WEATHER], chosen)
    assert asked["parallel_tool_calls"] is False
    for proposer in ("a", "b"):
        assert not upstream.chats(proposer)[-1].body.keys() & {"tools", "tool_choice"}
    expected = [("c1", "weather", '{"city":"Bern"}'), ("c2", "time", "{}")]
    if not stream:
        choice = answer.json()["choices"][0]
        message = choice["message"]
        assert (choice["finish_reason"], message["content"]) == ("tool_calls", "Let me see. ")
        calls = [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message["tool_calls"]
        ]
        assert calls == expected
        return
    told = chunks(answer.text)
    built: dict[int, list[str]] = {}
    for chunk in told:
        for choice in chunk["choices"]:
            for piece in choice["delta"].get("tool_calls", ()):
                call = built.setdefault(piece["index"], ["", "", ""])
                call[0] += piece.get("id", "")
                call[1] += piece["function"].get("name", "")
                call[2] += piece["function"].get("arguments", "")
    assert [tuple(call) for call in built.values()] == expected
    assert told[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("finish", "told"),
    [
        ("length", "length"),
        ("max_tokens", "length"),
        ("content_filter", "content_filter"),
        # As some endpoints end calls.
        ("stop", "tool_calls"),
        ("function_call", "tool_calls"),
    ],
)
def test_a_call_that_was_cut_is_told_as_cut(
    server: Server, upstream: Upstream, stream: bool, finish: str, told: str
) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": '{"city":"Be'}}
    upstream.always("agg", Reply(raw=sse({"tool_calls": [call]}, finish=finish)))
    answer = server.ask(tools=[WEATHER], stream=stream)
    assert answer.status_code == 200, answer.text
    last = chunks(answer.text)[-1] if stream else answer.json()
    assert last["choices"][0]["finish_reason"] == told
    assert bool(last["moa"]["cut"]) == (told != "tool_calls")


def test_a_chunk_holds_a_piece_of_one_call(server: Server, upstream: Upstream) -> None:
    """Instructor and LlamaIndex look at the first one of a chunk and at no other."""
    calls_tools(upstream)
    pieces = [
        choice["delta"]["tool_calls"]
        for chunk in chunks(server.ask(tools=[WEATHER], stream=True).text)
        for choice in chunk["choices"]
        if "tool_calls" in choice["delta"]
    ]
    assert {len(calls) for calls in pieces} == {1}
    first = [piece for (piece,) in pieces if piece["index"] == 0]
    assert "".join(piece["function"]["arguments"] for piece in first) == '{"city":"Bern"}'


@pytest.mark.parametrize("report", [False, True])
@pytest.mark.parametrize("written", ["", None, " "])
def test_a_call_without_arguments_has_an_empty_object(
    server: Server, upstream: Upstream, written: str | None, report: bool
) -> None:
    """Some endpoints send nothing in their place, and clients read them as JSON."""
    calls = [
        {"index": index, "id": f"c{index}", "function": {"name": "weather", "arguments": arguments}}
        for index, arguments in enumerate(['{"city":"Bern"}', written])
    ]
    upstream.always("agg", Reply(raw=sse({"tool_calls": calls}, finish="tool_calls")))
    (choice,) = server.ask(tools=[WEATHER], moa={"report": report}).json()["choices"]
    told = [call["function"]["arguments"] for call in choice["message"]["tool_calls"]]
    assert [json.loads(each) for each in told] == [{"city": "Bern"}, {}]
    said = ["", ""]
    for chunk in chunks(server.ask(tools=[WEATHER], stream=True, moa={"report": report}).text):
        for choice in chunk["choices"]:
            for piece in choice["delta"].get("tool_calls", ()):
                said[piece["index"]] += piece["function"]["arguments"]
    assert [json.loads(each) for each in said] == [{"city": "Bern"}, {}]
    upstream.always("agg", Reply(raw=sse({"tool_calls": calls[1:]}, finish="length")))
    (choice,) = server.ask(tools=[WEATHER]).json()["choices"]
    # A call that was cut before its arguments is not one without any.
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == (written or "")


def test_functions_as_before_there_were_tools_are_answered_in_kind(
    server: Server, upstream: Upstream
) -> None:
    calls_tools(upstream)
    said = [
        *QUESTION,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "sunny"},
    ]
    answer = server.ask(
        messages=said, functions=[WEATHER["function"]], function_call={"name": "weather"}
    ).json()
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {
        "name": "weather",
        "arguments": '{"city":"Bern"}',
    }
    asked = upstream.chats("agg")[-1]
    assert asked.body["tools"] == [WEATHER]
    call, result = asked.messages[-2:]
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]
    streamed = server.ask(messages=said, functions=[WEATHER["function"]], stream=True)
    told = [
        choice["delta"]["function_call"]
        for chunk in chunks(streamed.text)
        for choice in chunk["choices"]
        if "function_call" in choice["delta"]
    ]
    # There is one call in this form, though the model has made two.
    assert "".join(piece.get("name", "") for piece in told) == "weather"
    assert "".join(piece["arguments"] for piece in told) == '{"city":"Bern"}'


HISTORIES: dict[str, list[dict[str, Any]]] = {
    "tool results": [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ],
    "a tool result in parts": [
        *QUESTION,
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
    ],
    "a name": [{**QUESTION[0], "name": "bob"}],
    "a system message alone": [{"role": "system", "content": "Say hello."}],
    "system last": [*QUESTION, {"role": "system", "content": "Be brief."}],
    "developer in the middle": [
        *QUESTION,
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "go on"},
    ],
    "a prefill": [*QUESTION, {"role": "assistant", "content": "{"}],
    "a refusal": [
        *QUESTION,
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": "why"},
    ],
    "thoughts and marks of a cache": [
        *QUESTION,
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}],
            "reasoning_details": [{"x": 1}],
        },
        {
            "role": "user",
            "content": [{"type": "text", "text": "go", "cache_control": {"type": "ephemeral"}}],
        },
    ],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_of_any_form_is_answered(server: Server, upstream: Upstream, name: str) -> None:
    answer = server.ask(messages=HISTORIES[name], tools=[WEATHER])
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "ok"


def test_results_of_tools_stand_behind_the_message_that_calls_them(
    server: Server, upstream: Upstream
) -> None:
    first, second = CALL, {**CALL, "id": "c2"}
    said = [
        *QUESTION,
        {"role": "assistant", "content": "", "tool_calls": [first]},
        {"role": "assistant", "content": "", "tool_calls": [second]},
        {"role": "user", "content": "hurry"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "system", "content": "be brief"},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "user", "content": "and?"},
    ]
    assert server.ask(model="moa:solo", messages=said).status_code == 200
    told = upstream.chats("agg")[-1].messages
    assert [message.get("tool_call_id") or message["content"] or "calls" for message in told] == [
        *("why?", "calls", "c1", "calls", "c2", "hurry", "be brief", "and?")
    ]


def test_the_aggregator_is_given_the_history_as_it_is(server: Server, upstream: Upstream) -> None:
    assert server.ask(messages=HISTORIES["tool results"], tools=[WEATHER]).status_code == 200
    sent = upstream.chats("agg")[-1].messages
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool"]
    assert sent[2] == {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert sent[3] == {"role": "tool", "content": "sunny", "tool_call_id": "c1"}
    server.ask(messages=HISTORIES["a prefill"])
    assert upstream.chats("agg")[-1].messages[-1] == {"role": "assistant", "content": "{"}


def test_an_image_is_passed_on(server: Server, upstream: Upstream) -> None:
    parts = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]
    assert server.ask(messages=[{"role": "user", "content": parts}]).status_code == 200
    assert upstream.chats("agg")[-1].messages[-1]["content"] == parts


def test_fields_that_describe_the_reply_reach_its_model_and_others_are_named(
    server: Server, upstream: Upstream
) -> None:
    passed: dict[str, Any] = {
        "top_k": 5,
        "min_p": 0.1,
        "logit_bias": {"5": 1},
        "verbosity": "low",
        "thinking": {"type": "enabled"},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    hints: dict[str, Any] = {
        "store": True,
        "metadata": {"a": "b"},
        "service_tier": "flex",
        "session_id": "x",
        "temprature": 1,
    }
    neutral: dict[str, Any] = {"prompt_cache_key": None, "best_of": 1, "echo": False, "user_id": ""}
    for _ in range(2):
        answer = server.ask(**passed, **hints, **neutral)
        assert answer.status_code == 200, answer.text
        assert sorted(answer.json()["moa"]["ignored"]) == sorted(hints)
    asked, proposed = upstream.chats("agg")[-1].body, upstream.chats("a")[-1].body
    assert {name: asked.get(name) for name in passed} == passed
    assert not proposed.keys() & (passed.keys() | hints.keys())
    assert not asked.keys() & (hints.keys() | neutral.keys())
    told = [line for line in server.log if "no effect" in line]
    assert len(told) == 1
    assert "session_id" in told[0]


def test_what_would_have_no_effect_is_refused_by_a_strict_server(moa: Moa) -> None:
    with serving(moa, "--strict") as server:
        for field in ({"store": True}, {"top_k": 5}, {"colour": 1}):
            refused = server.ask(**field)
            assert refused.status_code == 400
            assert refused.json()["error"]["param"] in field
        assert server.ask(tools=[WEATHER], n=2).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices_come_of_one_fan_out(
    server: Server, upstream: Upstream, stream: bool
) -> None:
    for number in range(3):
        upstream.enqueue("agg", Reply(text=f"reply {number}"))
    answer = server.ask(n=3, stream=stream, stream_options={"include_usage": True})
    assert answer.status_code == 200, answer.text
    counts = [len(upstream.chats(model)) for model in ("a", "b", "agg")]
    assert counts == [1, 1, 3]
    if not stream:
        body = answer.json()
        assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
        texts = {choice["message"]["content"] for choice in body["choices"]}
        assert body["moa"]["calls"] == len(upstream.chats())
    else:
        told = chunks(answer.text)
        pieces = {0: "", 1: "", 2: ""}
        for chunk in told:
            for choice in chunk["choices"]:
                pieces[choice["index"]] += choice["delta"].get("content", "")
        texts = set(pieces.values())
        assert told[-1]["moa"]["calls"] == len(upstream.chats())
    assert texts == {"reply 0", "reply 1", "reply 2"}


def test_log_probabilities_are_the_aggregator_s(server: Server, upstream: Upstream) -> None:
    token = {"token": "ok", "logprob": -0.25, "bytes": None, "top_logprobs": []}
    choice = {"index": 0, "delta": {"content": "ok"}, "logprobs": {"content": [token]}}
    event = json.dumps({"id": "x", "choices": [choice]})
    upstream.always("agg", Reply(raw=f"data: {event}\n\n".encode() + sse()))
    whole = server.ask(logprobs=True, top_logprobs=2).json()["choices"][0]
    assert whole["logprobs"]["content"] == [token]
    assert upstream.chats("agg")[-1].body["top_logprobs"] == 2
    assert "logprobs" not in upstream.chats("a")[-1].body
    told = chunks(server.ask(logprobs=True, stream=True).text)
    found = [chunk["choices"][0]["logprobs"] for chunk in told if chunk["choices"][0]["logprobs"]]
    assert [entry["content"] for entry in found] == [[token]]


def test_usage_is_the_sum_or_the_reply_s(moa: Moa, upstream: Upstream) -> None:
    with serving(moa, "--usage", "reply") as server:
        of_reply = server.ask().json()
        of_all = server.ask(moa={"usage": "sum"}).json()
    assert of_reply["usage"]["total_tokens"] < of_all["usage"]["total_tokens"]
    for body, kind in ((of_reply, "reply"), (of_all, "sum")):
        told = {name: body["usage"][name] for name in body["moa"]["usage"][kind]}
        assert told == body["moa"]["usage"][kind]


def of_schema(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """A value that a schema of those requests takes."""
    if "$ref" in schema:
        found: Any = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return of_schema(found, root)
    for choice in schema.get("anyOf", ()):
        return of_schema(choice, root)
    if "enum" in schema:
        return schema["enum"][0]
    parts = schema.get("properties", {})
    plain = {"string": "x", "integer": 1, "number": 1, "boolean": True, "array": [], "null": None}
    if schema.get("type", "object") != "object":
        return plain[schema["type"]]
    return {name: of_schema(part, root) for name, part in parts.items()}


def as_asked(request: Request) -> str:
    """A reply of the form that was asked for."""
    form = request.body.get("response_format", {"type": "text"})
    if form["type"] == "text":
        return "ok"
    schema = form.get("json_schema", {}).get("schema", {})
    return json.dumps(of_schema(schema, schema))


def test_requests_of_released_clients_are_answered(server: Server, upstream: Upstream) -> None:
    rows = client_requests("/v1/chat/completions")
    assert len(rows) > 60
    upstream.always("agg", Reply(text=as_asked))
    # Neither speaks.
    refused = {"`audio`", "`modalities`"}
    for row in rows:
        body = {**row["body"], "model": "moa"}
        answer = server.http.post(f"{server.url}/chat/completions", json=body)
        if answer.status_code != 200:
            message = answer.json()["error"]["message"]
            assert any(name in message for name in refused), (row["client"], message)


def test_the_aggregator_of_each_mixture_can_be_asked_alone(
    server: Server, upstream: Upstream
) -> None:
    names = [model["id"] for model in server.get("/v1/models").json()["data"]]
    assert {"moa:solo", "lab:solo"} <= set(names)
    # Already alone.
    assert "lab:solo:solo" not in names
    assert server.get("/v1/models/moa:solo").json()["id"] == "moa:solo"
    answer = server.ask(model="moa:solo").json()
    assert (answer["model"], answer["moa"]["calls"]) == ("moa:solo", 1)
    assert [request.model for request in upstream.chats()] == ["agg"]
    assert server.ask(model="nothing:solo").status_code == 404
    assert server.ask(model=":solo").status_code == 404


def test_single_models_can_be_asked_only_where_they_are_exposed(
    server: Server, moa: Moa, upstream: Upstream
) -> None:
    assert server.ask(model="lab:a").status_code == 404
    with serving(moa, "--expose-models") as exposing:
        names = [model["id"] for model in exposing.get("/v1/models").json()["data"]]
        assert {"lab:a", "lab:agg"} <= set(names)
        assert exposing.ask(model="lab:a").json()["model"] == "lab:a"
        assert [request.model for request in upstream.chats()] == ["a"]
        # What no profile uses is still unknown.
        assert exposing.ask(model="lab:other").status_code == 404


def test_a_model_without_a_provider_in_its_name_is_exposed_too(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("bare", {"model": "org/model"})
    address = {"TOGETHER_API_KEY": "k", "TOGETHER_BASE_URL": upstream.url}
    with serving(moa, "--expose-models", env=address) as server:
        names = [model["id"] for model in server.get("/v1/models").json()["data"]]
        assert "org/model" in names
        assert server.ask(model="org/model").json()["model"] == "org/model"
    assert [request.model for request in upstream.chats()] == ["org/model"]


def test_a_tiny_limit_bounds_the_proposers_too(server: Server, upstream: Upstream) -> None:
    server.ask(max_tokens=20)
    assert {request.body.get("max_tokens") for request in upstream.chats()} == {20}
    server.ask(max_tokens=2000)
    assert upstream.chats("a")[-1].body.get("max_tokens") != 2000


def test_the_list_of_models_tells_what_clients_can_use(moa: Moa, upstream: Upstream) -> None:
    price = {"prompt": 1.0, "completion": 2.0}
    moa.configure(
        providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}},
        prices={f"lab:{model}": price for model in ("x", "y")},
    )
    moa.profile("priced", "x", aggregator="y")
    with serving(moa) as server:
        told = server.get("/v1/models/priced").json()
    assert told["pricing"] == {"prompt": "0.0000020000", "completion": "0.0000040000"}
    assert told["input_modalities"] == ["text"]
    assert {"tools", "response_format", "temperature", "top_k"} <= set(told["supported_parameters"])
    assert not {"messages", "store"} & set(told["supported_parameters"])


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "any"}, "required"),
        ({"type": "required"}, "required"),
        ({"type": "function", "name": "weather"}, None),
        ({"type": "tool", "name": "weather"}, None),
        ({"function": {"name": "weather"}}, None),
    ],
)
def test_a_choice_of_a_tool_is_sent_in_the_form_that_all_endpoints_know(
    server: Server, upstream: Upstream, choice: Any, sent: str | None
) -> None:
    assert server.ask(tools=[WEATHER], tool_choice=choice).status_code == 200
    named = {"type": "function", "function": {"name": "weather"}}
    assert upstream.chats("agg")[-1].body["tool_choice"] == (sent or named)


@pytest.mark.parametrize(
    "tool",
    [
        {"function": {"name": "weather", "parameters": {}, "description": None}},
        {"type": None, "function": {"name": "weather", "parameters": {}}},
        {"type": "function", "name": "weather", "parameters": {}, "strict": None},
        {"name": "weather", "input_schema": {}},
    ],
)
def test_a_tool_is_sent_in_the_form_that_all_endpoints_know(
    server: Server, upstream: Upstream, tool: dict[str, Any]
) -> None:
    assert server.ask(tools=[tool]).status_code == 200
    expected = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    assert upstream.chats("agg")[-1].body["tools"] == [expected]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [WEATHER], "tool_choice": {"type": 5}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "mcp"}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": {"name": "other"}}, "tool_choice"),
        ({"functions": [WEATHER["function"]], "function_call": "never"}, "function_call"),
        ({"tools": [{"name": "x", "parameters": "{}"}]}, "tools[0].parameters"),
        (
            {"tools": [{"type": "function", "function": {"name": "x", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
    ],
)
def test_what_no_endpoint_takes_is_refused_before_proposals_are_paid(
    server: Server, upstream: Upstream, fields: dict[str, Any], param: str
) -> None:
    answer = server.ask(**fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert not upstream.chats()


def url_of(image: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image}}


DATA = PIXEL.partition("base64,")[2]
NOTES = "data:text/plain;base64,aXRzIG5vdGVz"


@pytest.mark.parametrize(
    ("part", "sent"),
    [
        ({"type": "input_text", "text": "hi"}, {"type": "text", "text": "hi"}),
        ({"type": "output_text", "text": "hi", "annotations": []}, {"type": "text", "text": "hi"}),
        ({"type": "input_image", "image_url": PIXEL}, url_of(PIXEL)),
        (
            {"type": "image", "source": {"type": "url", "url": "https://a.test/b"}},
            url_of("https://a.test/b"),
        ),
        (
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": DATA},
            },
            url_of(PIXEL),
        ),
        (
            {"type": "input_file", "filename": "n.txt", "file_data": NOTES},
            {"type": "text", "text": "n.txt:\n```\nits notes\n```"},
        ),
        (
            {
                "type": "document",
                "title": "n.txt",
                "source": {"type": "base64", "media_type": "text/plain", "data": "aXRzIG5vdGVz"},
            },
            {"type": "text", "text": "n.txt:\n```\nits notes\n```"},
        ),
        (
            {"type": "document", "source": {"type": "text", "data": "its notes"}},
            {"type": "text", "text": "its notes"},
        ),
    ],
)
def test_parts_of_other_apis_are_read_as_those_of_this_one(
    server: Server, upstream: Upstream, part: Any, sent: dict[str, Any]
) -> None:
    content = [{"type": "text", "text": "see"}, url_of("https://a.test/c"), part]
    answer = server.ask(messages=[{"role": "user", "content": content}])
    assert answer.status_code == 200, answer.text
    assert upstream.chats("agg")[-1].messages[-1]["content"] == [*content[:2], sent]


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"type": "input_text"}, "messages[0].content[0].text"),
        ({"type": "input_image"}, "messages[0].content[0].image_url.url"),
        ({"type": "input_file", "file_id": "f"}, "messages[0].content[0].file.file_id"),
        ({"type": "image", "source": {"type": "file"}}, "messages[0].content[0].type"),
        ({"type": "image", "source": "x"}, "messages[0].content[0].type"),
        ({"type": "input_audio"}, "messages[0].content[0].type"),
        ({"type": "video_url"}, "messages[0].content[0].type"),
        (5, "messages[0].content[0]"),
        ("hi", "messages[0].content[0]"),
    ],
)
def test_parts_of_other_apis_that_cannot_be_read_are_refused_by_name(
    server: Server, upstream: Upstream, part: Any, path: str
) -> None:
    answer = server.ask(messages=[{"role": "user", "content": [part]}])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, path)
    assert not upstream.chats()


@pytest.mark.parametrize("kind", ["tool_use", "function_call"])
def test_a_part_that_says_a_call_again_is_not_said_twice(
    server: Server, upstream: Upstream, kind: str
) -> None:
    again = {"type": kind, "id": "c1", "name": "weather", "input": {}}
    content = [{"type": "text", "text": "I look."}, again]
    messages = [
        *QUESTION,
        {"role": "assistant", "content": content, "tool_calls": [{**CALL, "type": ""}]},
        {"role": "tool", "tool_call_id": "c1", "content": None},
    ]
    assert server.ask(messages=messages, tools=[WEATHER]).status_code == 200
    called, result = upstream.chats("agg")[-1].messages[-2:]
    assert called == {"role": "assistant", "content": "I look.", "tool_calls": [CALL]}
    assert result == {"role": "tool", "tool_call_id": "c1", "content": ""}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_minus_one_is_none(server: Server, upstream: Upstream, name: str) -> None:
    fields: dict[str, Any] = {name: -1}
    assert server.ask(**fields).status_code == 200
    assert not {"max_tokens", name} & upstream.chats("agg")[-1].body.keys()


@pytest.mark.parametrize("effort", ["none", "xhigh", "max", "default"])
def test_the_efforts_of_all_providers_reach_the_aggregator(
    server: Server, upstream: Upstream, effort: str
) -> None:
    assert server.ask(reasoning_effort=effort).status_code == 200
    assert upstream.chats("agg")[-1].body["reasoning_effort"] == effort


def test_an_object_of_json_without_a_schema_may_say_so(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="{}"))
    form = {"type": "json_object", "schema": None}
    assert server.ask(response_format=form).status_code == 200
    assert upstream.chats("agg")[-1].body["response_format"] == {"type": "json_object"}


def test_unknown_fields_of_images_are_ignored_and_named(server: Server) -> None:
    image = {"type": "image_url", "image_url": {"url": PIXEL, "format": "image/png"}}
    answer = server.ask(messages=[{"role": "user", "content": [image]}])
    assert answer.status_code == 200, answer.text
    assert answer.json()["moa"]["ignored"] == ["messages[].content[].image_url.format"]


def test_a_tool_may_have_nothing_to_say(server: Server, upstream: Upstream) -> None:
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": []},
    ]
    assert server.ask(messages=messages, user="").status_code == 200
    told = upstream.chats("agg")[-1].messages[-1]
    assert told == {"role": "tool", "tool_call_id": "c1", "content": ""}
    assert "user" not in upstream.chats("agg")[-1].body


@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_images_in_results_of_tools_follow_as_the_users(
    server: Server, upstream: Upstream, wire: str
) -> None:
    if wire == "chat":
        result = [
            {"type": "text", "text": "seen"},
            {"type": "image_url", "image_url": {"url": PIXEL}},
        ]
        messages = [
            *QUESTION,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": result},
        ]
        answer = server.ask(messages=messages)
    else:
        call = {"call_id": "c1", "name": "weather", "arguments": "{}"}
        output = [
            {"type": "input_text", "text": "seen"},
            {"type": "input_image", "image_url": PIXEL},
        ]
        items = [
            *QUESTION,
            {"type": "function_call", **call},
            {"type": "function_call_output", "call_id": "c1", "output": output},
        ]
        body = {"model": "moa", "input": items}
        answer = server.http.post(f"{server.url}/responses", json=body)
    assert answer.status_code == 200, answer.text
    result_message, shown = upstream.chats("agg")[-1].messages[-2:]
    assert result_message == {"role": "tool", "tool_call_id": "c1", "content": "seen\n[image]"}
    assert shown == {
        "role": "user",
        "content": [
            {"type": "text", "text": "From the result of the tool weather:"},
            {"type": "image_url", "image_url": {"url": PIXEL}},
        ],
    }


def test_a_screenshot_is_an_image_and_not_its_base64_as_text(
    server: Server, upstream: Upstream
) -> None:
    shot = {"type": "computer_screenshot", "image_url": PIXEL}
    items = [
        *QUESTION,
        {"type": "computer_call", "call_id": "c1", "action": {"type": "screenshot"}},
        {"type": "computer_call_output", "call_id": "c1", "output": shot},
    ]
    body = {"model": "moa", "input": items}
    assert server.http.post(f"{server.url}/responses", json=body).status_code == 200
    told = upstream.chats("agg")[-1].messages
    assert told[-2]["content"] == "[image]"
    assert told[-1]["content"][-1] == {"type": "image_url", "image_url": {"url": PIXEL}}


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages", "completions"])
def test_a_number_that_no_json_can_say_again_is_refused(
    server: Server, upstream: Upstream, path: str
) -> None:
    body = (
        '{"model":"moa","max_tokens":9,"input":"hi","prompt":"hi","logit_bias":{"5":1e999},'
        '"messages":[{"role":"user","content":"hi"}]}'
    )
    kind = {"content-type": "application/json"}
    answer = server.http.post(f"{server.url}/{path}", content=body, headers=kind)
    assert answer.status_code == 400
    assert "`logit_bias.5` must be a smaller number" in answer.json()["error"]["message"]
    assert not upstream.chats()


def test_a_type_that_is_no_word_is_not_logged(server: Server) -> None:
    tools = [{"type": "what the user said"}, {"type": {"a": 1}}, {"type": "web_search"}]
    answer = server.ask(tools=tools)
    assert answer.json()["moa"]["ignored"] == ["tools[].type", "tools[].type=web_search"]
    assert "what the user said" not in server.wait_for_log("no effect")


@pytest.mark.parametrize("form", ["functions", "tools"])
def test_calls_without_ids_and_their_results_find_each_other(
    server: Server, upstream: Upstream, form: str
) -> None:
    def calling(*names: str) -> dict[str, Any]:
        functions = [{"name": name, "arguments": "{}"} for name in names]
        if form == "functions":
            return {"role": "assistant", "content": None, "function_call": functions[0]}
        calls = [{"type": "function", "id": None, "function": each} for each in functions]
        return {"role": "assistant", "content": None, "tool_calls": calls}

    role = "function" if form == "functions" else "tool"
    second = [] if form == "functions" else ["time"]
    messages = [
        *QUESTION,
        calling("weather", *second),
        *[{"role": role, "name": name, "content": "noon"} for name in second],
        {"role": role, "name": "weather", "content": "rain"},
        calling("weather"),
        {"role": role, "content": "sun", "name": None if second else "weather"},
    ]
    assert server.ask(messages=messages).status_code == 200
    told = upstream.chats("agg")[-1].messages
    names = {
        call["id"]: call["function"]["name"]
        for message in told
        for call in message.get("tool_calls", ())
    }
    assert all(names)
    assert list(names.values()) == ["weather", *second, "weather"]
    results = [
        (names[message["tool_call_id"]], message["content"])
        for message in told
        if message["role"] == "tool"
    ]
    times = [("time", "noon")] if second else []
    assert results == [*times, ("weather", "rain"), ("weather", "sun")]


def test_images_of_the_system_and_of_the_assistant_follow_as_the_users(
    server: Server, upstream: Upstream
) -> None:
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "be brief"}, image]},
        *QUESTION,
        {"role": "assistant", "content": [image]},
        *QUESTION,
    ]
    assert server.ask(messages=messages).status_code == 200
    assert upstream.chats("a")[-1].messages == [
        {"role": "system", "content": "be brief\n[image]"},
        {"role": "user", "content": [_text("From the system message:"), image, _text("why?")]},
        {"role": "assistant", "content": "[image]"},
        {"role": "user", "content": [_text("From the assistant message:"), image, _text("why?")]},
    ]


def _text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


# What endpoints say of a message with a name.
_NO_NAMES: list[tuple[int, object]] = [
    (
        400,
        {
            "error": {
                "message": "'messages.1' : for 'role:user' the following must be satisfied"
                "[('messages.1' : property 'name' is unsupported)]",
                "type": "invalid_request_error",
            }
        },
    ),
    (
        422,
        {
            "object": "error",
            "message": {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "messages", 1, "user", "name"],
                        "msg": "Extra inputs are not permitted",
                    }
                ]
            },
        },
    ),
    (
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "Only messages of role 'user' can have a name.",
        },
    ),
    (
        400,
        {
            "error": {
                "message": "Invalid 'messages[1].name': string does not match pattern. Expected a"
                " string that matches the pattern '^[^\\s<|\\\\/>]+$'.",
                "param": "messages[1].name",
                "code": "invalid_value",
            }
        },
    ),
]


def ask_twice(server: Server, **fields: Any) -> None:
    """Ask the same twice: both are answered, and no model is lost."""
    for _ in range(2):
        told = server.ask(**fields)
        assert told.status_code == 200, told.text
        assert not told.json()["moa"]["lost"]


@pytest.mark.parametrize(("status", "said"), _NO_NAMES)
def test_a_model_that_takes_no_names_reads_who_speaks(
    server: Server, upstream: Upstream, status: int, said: object
) -> None:
    def answer(request: Request) -> Reply:
        named = any("name" in message for message in request.messages)
        return Reply(status=status, error=said) if named else Reply(text="ok")

    upstream.always("*", answer)
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    messages = [
        {"role": "system", "name": "chair", "content": "Be brief."},
        {"role": "user", "name": "Ann Lee", "content": "why?"},
        {"role": "assistant", "name": "bot", "content": "Because."},
        {"role": "user", "name": "Bob", "content": [image]},
    ]
    ask_twice(server, messages=messages)
    for name in ("a", "agg"):
        # It is learned with the first refusal.
        assert len(upstream.chats(name)) == 3
        *_, ann, bot, bob = upstream.chats(name)[-1].messages
        assert ann == {"role": "user", "content": "Ann Lee: why?"}
        assert bot == {"role": "assistant", "content": "Because."}
        assert bob["content"] == [{"type": "text", "text": "Bob:"}, image]


def test_a_name_that_is_only_spoken_of_is_not_taken_away(
    server: Server, upstream: Upstream
) -> None:
    words = "'messages.0' : property 'status' is unsupported, did you mean 'name'?"
    upstream.always("agg", Reply(status=400, error={"error": {"message": words}}))
    assert server.ask(messages=[{**QUESTION[0], "name": "bob"}]).status_code == 502
    assert len(upstream.chats("agg")) == 1


# What endpoints say where the last message is not the user's.
_USER_LAST = [
    "This model does not support assistant message prefill. The conversation must end with a user"
    " message.",
    "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
    "Cannot set `add_generation_prompt` to True when the last message is from the assistant.",
    "Last message must have role `user`.",
]


@pytest.mark.parametrize("said", _USER_LAST)
@pytest.mark.parametrize("role", ["assistant", "system"])
def test_a_model_that_wants_the_user_s_message_last_goes_on_with_what_is_begun(
    server: Server, upstream: Upstream, said: str, role: str
) -> None:
    def answer(request: Request) -> Reply:
        if request.messages[-1]["role"] == "user":
            return Reply(text="42")
        return Reply(status=400, error={"error": {"message": said}})

    upstream.always("agg", answer)
    begun = [*QUESTION, {"role": "assistant", "content": "It is "}]
    if role == "system":
        begun.append({"role": "system", "content": "Be brief."})
    for _ in range(2):
        told = server.ask(messages=begun)
        assert told.status_code == 200, told.text
        assert told.json()["choices"][0]["message"]["content"] == "42"
    # It is learned with the first refusal.
    assert len(upstream.chats("agg")) == 3
    *_, before, last = upstream.chats("agg")[-1].messages
    assert before == {"role": "assistant", "content": "It is "}
    assert ("Be brief." if role == "system" else "Go on exactly where it ends") in last["content"]
    # What ends on the user's message is sent as ever.
    assert server.ask().status_code == 200
    assert upstream.chats("agg")[-1].messages[-1]["content"] == QUESTION[0]["content"]


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize(
    "said",
    [
        "System message must be at the beginning.",
        "Error rendering prompt with jinja template: System message must be at the beginning.",
        "System messages should only appear at the start of the conversation",
    ],
)
def test_a_model_that_takes_system_messages_first_only_is_told_later_ones_by_the_user(
    server: Server, upstream: Upstream, said: str, status: int
) -> None:
    def answer(request: Request) -> Reply:
        roles = [message["role"] for message in request.messages]
        bad = "system" in roles[1:]
        return Reply(status=status, error={"error": {"message": said}}) if bad else Reply(text="ok")

    upstream.always("*", answer)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        *QUESTION,
        {"role": "assistant", "content": "Because."},
        {"role": "developer", "content": "It is late."},
        {"role": "user", "content": "and?"},
    ]
    ask_twice(server, messages=messages)
    for name in ("a", "agg"):
        # It is learned with the first refusal.
        assert len(upstream.chats(name)) == 3
        first, *rest = upstream.chats(name)[-1].messages
        assert first["role"] == "system"
        assert first["content"].startswith("Be brief.")
        assert "\n\nBe kind." in first["content"]
        assert rest == [
            QUESTION[0],
            {"role": "assistant", "content": "Because."},
            {"role": "user", "content": "It is late."},
            {"role": "user", "content": "and?"},
        ]


@pytest.mark.parametrize(
    "said",
    [
        "messages: text content blocks must be non-empty",
        "messages: text content blocks must contain non-whitespace text",
        "messages.2: all messages must have non-empty content except for the optional final"
        " assistant message",
        "Invalid request: the message at position 2 with role 'assistant' must not be empty",
        "The text field in the ContentBlock object at messages.2.content.0 is blank.",
    ],
)
def test_a_model_that_takes_no_empty_messages_is_sent_none(
    server: Server, upstream: Upstream, said: str
) -> None:
    def answer(request: Request) -> Reply:
        texts: list[str] = []
        for message in request.messages:
            content = message["content"]
            if isinstance(content, list):
                texts += [part.get("text", "-") for part in content]
            elif content is not None:
                texts.append(content)
        if all(text.strip() for text in texts):
            return Reply(text="ok")
        return Reply(status=400, error={"error": {"message": said}})

    upstream.always("*", answer)
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    messages = [
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": " "}, image]},
        {"role": "assistant", "content": " ", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": ""},
    ]
    ask_twice(server, messages=messages, tools=[WEATHER])
    # It is learned with the first refusal.
    assert len(upstream.chats("agg")) == 3
    assert upstream.chats("agg")[-1].messages[1:] == [
        {"role": "user", "content": "why?"},
        {"role": "user", "content": [image]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "[empty]"},
    ]
