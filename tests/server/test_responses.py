"""A mixture answers as one model of OpenAI's would on the wire of responses."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openai.types.responses import Response

from tests.support.command import Moa
from tests.support.responses import ask, call, calling, plain, stream
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "How it is outside.",
    "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'},
}
AGENTS = {
    "type": "namespace",
    "name": "agents",
    "description": "Other agents.",
    "tools": [{"type": "function", "name": "spawn"}],
}
SEARCH = {"type": "tool_search", "execution": "client", "parameters": {"type": "object"}}


def text_part(text: str, *notes: dict[str, Any]) -> dict[str, Any]:
    return {"type": "output_text", "annotations": list(notes), "logprobs": [], "text": text}


def message(name: str, status: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": name,
        "type": "message",
        "status": status,
        "content": list(content),
        "role": "assistant",
    }


def function_call(place: str, status: str, arguments: str, call_id: str, **more: Any) -> Any:
    return {
        "id": place,
        "type": "function_call",
        "status": status,
        "arguments": arguments,
        "call_id": call_id,
        "name": "weather",
        **more,
    }


BEGIN = [("created", "in_progress"), ("in_progress", "in_progress")]


def said(name: str, index: int, *pieces: str) -> list[tuple[Any, ...]]:
    """All events of a message."""
    whole = text_part("".join(pieces))
    return [
        ("output_item.added", index, message(name, "in_progress")),
        ("content_part.added", name, index, 0, text_part("")),
        ("output_text.delta", name, index, 0, "".join(pieces)),
        ("output_text.done", name, index, 0, "".join(pieces)),
        ("content_part.done", name, index, 0, whole),
        ("output_item.done", index, message(name, "completed", whole)),
    ]


def called(name: str, index: int, call_id: str, *pieces: str) -> list[tuple[Any, ...]]:
    """All events of a call of `weather`."""
    whole = "".join(pieces)
    return [
        ("output_item.added", index, function_call(name, "in_progress", "", call_id)),
        ("function_call_arguments.delta", name, index, whole),
        ("function_call_arguments.done", name, index, whole),
        ("output_item.done", index, function_call(name, "completed", whole, call_id)),
    ]


def test_a_response_has_openai_s_fields_and_the_ledger(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="the merged reply", model="agg-2026"))
    upstream.always("b", Reply(status=500))
    asked = {
        "instructions": "be brief",
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "max_output_tokens": 500,
        "reasoning": {"effort": "low"},
        "prompt_cache_key": "k",
    }
    response = ask(server, **asked)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    Response.model_validate(body)
    told = body.pop("moa")
    (item,) = body.pop("output")
    assert re.fullmatch(r"msg_[0-9a-f]{24,}", item["id"])
    assert item == message(item["id"], "completed", text_part("the merged reply"))
    assert re.fullmatch(r"resp_[0-9a-f]{24,}", body.pop("id"))
    assert body.pop("created_at") <= body.pop("completed_at")
    prompt, completion = upstream.chats("agg")[0].usage
    assert body == {
        "object": "response",
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": "be brief",
        "max_output_tokens": 500,
        "max_tool_calls": None,
        "metadata": {"a": "b"},
        "model": "moa",
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low", "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        # Of the reply's own call: agents measure by it how full their context is.
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + completion,
        },
        "user": None,
    }
    assert (told["profile"], told["aggregator"], told["calls"]) == ("lab", "lab:agg", 3)
    assert told["usage"]["sum"]["total_tokens"] == sum(upstream.usage_total)
    assert told["degraded"]
    assert told["ignored"] == ["prompt_cache_key"]


def test_the_events_of_a_text(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(chunks=["Sky", " is\n\n", "blue é🌍"], pause=0.05))
    told = stream(server)
    assert list(plain(told)) == [
        *BEGIN,
        *said("msg0", 0, "Sky", " is\n\n", "blue é🌍"),
        ("completed", "completed"),
    ]
    first, last = told[0]["response"], told[-1]["response"]
    assert (first["output"], first["usage"], first.get("moa")) == ([], None, None)
    assert last["output"] == [told[-2]["item"] | {"id": last["output"][0]["id"]}]
    assert {event["response"]["id"] for event in told if "response" in event} == {last["id"]}
    assert last["moa"]["calls"] == 4
    assert last["usage"]["total_tokens"] == sum(upstream.chats("agg")[0].usage)
    Response.model_validate(last)


def test_the_events_of_a_call(server: Server, upstream: Upstream) -> None:
    deltas = [{"content": "Let me see."}, *call(0, "weather", '{"city":', ' "Rome"}')]
    upstream.always("agg", calling(deltas, pause=0.05))
    told = stream(server, tools=[WEATHER])
    assert list(plain(told)) == [
        *BEGIN,
        *said("msg0", 0, "Let me see."),
        *called("fc1", 1, "call_0", '{"city":', ' "Rome"}'),
        ("completed", "completed"),
    ]
    assert told[-1]["response"]["tools"] == [WEATHER]
    assert told[-1]["response"]["moa"]["cut"] == []
    (sent,) = upstream.chats("agg")
    assert sent.body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "How it is outside.",
                "parameters": WEATHER["parameters"],
            },
        }
    ]
    assert "tool_choice" not in sent.body
    # Proposers advise; they never get tools.
    assert not any("tools" in sent.body for sent in upstream.chats("a"))


def test_the_events_of_parallel_calls(server: Server, upstream: Upstream) -> None:
    deltas = [*call(0, "weather", '{"city": "Rome"}'), *call(1, "weather", '{"city"', ': "Oslo"}')]
    upstream.always("agg", calling(deltas, pause=0.05))
    assert list(plain(stream(server, tools=[WEATHER]))) == [
        *BEGIN,
        *called("fc0", 0, "call_0", '{"city": "Rome"}'),
        *called("fc1", 1, "call_1", '{"city"', ': "Oslo"}'),
        ("completed", "completed"),
    ]


def test_calls_that_come_side_by_side_are_put_together(server: Server, upstream: Upstream) -> None:
    first, second = call(0, "weather", '{"a":', "1}"), call(1, "weather", '{"b":', "2}")
    mixed = [first[0], second[0], first[1], second[1]]
    upstream.always("agg", calling(mixed, pause=0.05))
    told = stream(server, tools=[WEATHER])
    output = told[-1]["response"]["output"]
    assert [item["arguments"] for item in output] == ['{"a":1}', '{"b":2}']
    assert [item["call_id"] for item in output] == ["call_0", "call_1"]


def test_a_call_without_arguments_or_id_gets_them(server: Server, upstream: Upstream) -> None:
    bare = {"tool_calls": [{"index": 0, "function": {"name": "weather"}}]}
    upstream.always("agg", calling([bare]))
    (streamed,) = stream(server, tools=[WEATHER])[-1]["response"]["output"]
    (whole,) = ask(server, tools=[WEATHER]).json()["output"]
    for item in (streamed, whole):
        assert item["arguments"] == "{}"
        assert item["call_id"].startswith("call_")


def test_custom_tools_namespaces_and_searches_are_functions_to_the_model(
    server: Server, upstream: Upstream
) -> None:
    deltas = [
        *call(0, "apply_patch", '{"input": "*** Be', 'gin\\n"}'),
        *call(1, "agents__spawn", "{}"),
        *call(2, "tool_search", '{"query": "mail"}'),
    ]
    upstream.always("agg", calling(deltas, pause=0.05))
    tools = [PATCH, AGENTS, SEARCH, {"type": "web_search"}]
    told = stream(server, tools=tools)
    custom = {"type": "custom_tool_call", "call_id": "call_0", "name": "apply_patch"}
    spawn = {"call_id": "call_1", "name": "spawn", "namespace": "agents"}
    search = {
        "id": "tsc2",
        "type": "tool_search_call",
        "execution": "client",
        "call_id": "call_2",
    }
    short = list(plain(told))
    assert short[2:] == [
        ("output_item.added", 0, {"id": "ctc0", "status": "in_progress", "input": "", **custom}),
        ("custom_tool_call_input.delta", "ctc0", 0, "*** Begin\n"),
        ("custom_tool_call_input.done", "ctc0", 0, "*** Begin\n"),
        (
            "output_item.done",
            0,
            {"id": "ctc0", "status": "completed", "input": "*** Begin\n", **custom},
        ),
        ("output_item.added", 1, function_call("fc1", "in_progress", "", **spawn)),
        ("function_call_arguments.delta", "fc1", 1, "{}"),
        ("function_call_arguments.done", "fc1", 1, "{}"),
        ("output_item.done", 1, function_call("fc1", "completed", "{}", **spawn)),
        ("output_item.added", 2, {**search, "status": "in_progress", "arguments": {}}),
        (
            "output_item.done",
            2,
            {**search, "status": "completed", "arguments": {"query": "mail"}},
        ),
        ("completed", "completed"),
    ]
    response = told[-1]["response"]
    assert response["moa"]["ignored"] == ["tools[].type=web_search"]
    whole = ask(server, tools=tools).json()["output"]
    without = [{**item, "id": ""} for item in whole]
    assert without == [{**item, "id": ""} for item in response["output"]]
    functions = {
        tool["function"]["name"]: tool["function"]
        for tool in upstream.chats("agg")[0].body["tools"]
    }
    assert list(functions) == ["apply_patch", "agents__spawn", "tool_search"]
    patch = functions["apply_patch"]
    assert patch["parameters"]["required"] == ["input"]
    assert patch["description"].startswith("Edits files.")
    assert 'start: "x"' in patch["description"]


BUILTIN = [
    (
        {"type": "shell", "environment": {"type": "local"}},
        '{"commands": ["ls", "pwd"]}',
        {
            "type": "shell_call",
            "action": {"commands": ["ls", "pwd"], "timeout_ms": None, "max_output_length": None},
        },
    ),
    (
        {"type": "local_shell"},
        '{"command": ["ls", "-a"], "timeout_ms": 5}',
        {
            "type": "local_shell_call",
            "action": {"type": "exec", "command": ["ls", "-a"], "env": {}, "timeout_ms": 5},
        },
    ),
    (
        {"type": "apply_patch"},
        '{"type": "create_file", "path": "a.py", "diff": "+x = 1\\n"}',
        {
            "type": "apply_patch_call",
            "operation": {"type": "create_file", "path": "a.py", "diff": "+x = 1\n"},
        },
    ),
]


@pytest.mark.parametrize(
    ("tool", "arguments", "called"), BUILTIN, ids=lambda value: str(value)[:30]
)
def test_openai_s_own_tools_that_clients_run_are_functions_to_the_model(
    server: Server, upstream: Upstream, tool: dict[str, Any], arguments: str, called: Any
) -> None:
    name = tool["type"]
    upstream.always("agg", calling(call(0, name, arguments[:9], arguments[9:])))
    ask_for = {"tools": [tool], "tool_choice": {"type": name}}
    told = stream(server, **ask_for)
    added, done = (event for event in told if event["type"].startswith("response.output_item"))
    item = done["item"]
    assert added["item"] == {**item, "status": "in_progress"}
    assert {**item, "id": ""} == {**called, "id": "", "call_id": "call_0", "status": "completed"}
    assert told[-1]["response"]["output"] == [item]
    assert {**ask(server, **ask_for).json()["output"][0], "id": item["id"]} == item
    offered, *_ = upstream.chats("agg")[0].body["tools"]
    assert offered["function"]["name"] == name
    # The client sends the call back with what came of it.
    output = {"type": f"{item['type']}_output", "call_id": "call_0", "status": "failed"}
    said = [{"role": "user", "content": "go"}, item, {**output, "output": "no such file"}]
    upstream.always("agg", Reply(text="ok"))
    assert ask(server, input=said, tools=[tool]).status_code == 200
    *_, made, result = upstream.chats("agg")[-1].messages
    function = made["tool_calls"][0]["function"]
    assert function["name"] == name
    holder = "operation" if name == "apply_patch" else "action"
    assert json.loads(function["arguments"]) == called[holder]
    assert result["content"] == "The tool failed.\nno such file"


def test_a_call_of_openai_s_own_tool_keeps_its_place(server: Server, upstream: Upstream) -> None:
    first, *rest = call(0, "shell", '{"commands": ["', 'ls"]}')
    upstream.always("agg", calling([first, *call(1, "weather", "{}"), *rest], pause=0.02))
    told = stream(server, tools=[{"type": "shell"}, WEATHER])
    added = [event for event in told if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == [0, 1]
    assert [event["item"]["type"] for event in added] == ["function_call", "shell_call"]
    assert added[1]["item"]["action"]["commands"] == ["ls"]


def test_a_shell_that_runs_at_openai_is_not_offered(server: Server, upstream: Upstream) -> None:
    shell = {"type": "shell", "environment": {"type": "container_auto"}}
    response = ask(server, tools=[shell])
    assert response.json()["moa"]["ignored"] == ["tools[].type=shell"]
    assert "tools" not in upstream.chats("agg")[0].body


def test_skills_of_a_shell_are_named_as_ignored(server: Server) -> None:
    skills = [{"name": "pdf", "description": "Reads PDFs.", "path": "/skills/pdf"}]
    shell = {"type": "shell", "environment": {"type": "local", "skills": skills}}
    ignored = ask(server, tools=[shell]).json()["moa"]["ignored"]
    assert ignored == ["tools[].environment.skills"]


def test_a_call_of_a_shell_that_is_no_json_runs_nothing(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", calling(call(0, "shell", "rm -rf /")))
    (item,) = ask(server, tools=[{"type": "shell"}]).json()["output"]
    assert item["action"]["commands"] == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (['{"input"', ': "a\\"b', "\\", "n\\u00e9\\ud83d", '\\ude00"}'], 'a"b\né😀'),
        (['{"patch": "x"}'], "x"),
        (["*** raw"], "*** raw"),
        (['{"input": "cut'], "cut"),
    ],
)
def test_the_text_of_a_custom_tool_comes_as_it_is_meant(
    server: Server, upstream: Upstream, arguments: list[str], text: str
) -> None:
    upstream.always("agg", calling(call(0, "apply_patch", *arguments), pause=0.02))
    told = stream(server, tools=[PATCH])
    deltas = [event["delta"] for event in told if event["type"].endswith("input.delta")]
    assert "".join(deltas) == text
    assert told[-1]["response"]["output"][0]["input"] == text


def test_the_events_of_a_refusal(server: Server, upstream: Upstream) -> None:
    refusal = {"choices": [{"index": 0, "delta": {"refusal": "I cannot."}, "finish_reason": None}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    upstream.always("agg", Reply(events=[refusal, end, "[DONE]"]))
    part = {"type": "refusal", "refusal": "I cannot."}
    assert list(plain(stream(server))) == [
        *BEGIN,
        ("output_item.added", 0, message("msg0", "in_progress")),
        ("content_part.added", "msg0", 0, 0, {"type": "refusal", "refusal": ""}),
        ("refusal.delta", "msg0", 0, 0, "I cannot."),
        ("refusal.done", "msg0", 0, 0, "I cannot."),
        ("content_part.done", "msg0", 0, 0, part),
        ("output_item.done", 0, message("msg0", "completed", part)),
        ("completed", "completed"),
    ]
    (item,) = ask(server).json()["output"]
    assert item["content"] == [part]


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("SAFETY", "content_filter")]
)
def test_a_cut_reply_is_incomplete(
    server: Server, upstream: Upstream, finish: str, reason: str
) -> None:
    upstream.always("agg", Reply(text="half", finish_reason=finish))
    told = stream(server)
    assert told[-1]["type"] == "response.incomplete"
    for response in (told[-1]["response"], ask(server).json()):
        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": reason}
        assert response["output"][0]["status"] == "incomplete"
        assert response["output"][0]["content"][0]["text"] == "half"
        assert response["completed_at"] is None


def test_the_events_of_a_reply_that_breaks_off(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="one two three", drop_after=2))
    told = stream(server)
    error, failed = told[-2:]
    assert (error["type"], failed["type"]) == ("error", "response.failed")
    assert error["error"]["code"] == error["code"] == "upstream_failed"
    assert error["message"] == failed["response"]["error"]["message"]
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"]["code"] == "server_error"
    (item,) = failed["response"]["output"]
    assert item["status"] == "incomplete"
    assert item["content"][0]["text"].startswith("one ")


def test_a_failure_before_the_first_event_is_a_status(server: Server, upstream: Upstream) -> None:
    upstream.always("*", Reply(status=400))
    response = ask(server, stream=True)
    assert response.status_code == 502
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def reasoning(name: str, text: str) -> list[tuple[Any, ...]]:
    """All events of a reasoning item of one piece."""
    part = {"type": "summary_text", "text": text}
    item = {"id": name, "type": "reasoning", "summary": []}
    return [
        ("output_item.added", 0, item),
        ("reasoning_summary_part.added", name, 0, 0, {"type": "summary_text", "text": ""}),
        ("reasoning_summary_text.delta", name, 0, 0, text),
        ("reasoning_summary_text.done", name, 0, 0, text),
        ("reasoning_summary_part.done", name, 0, 0, part),
        ("output_item.done", 0, item | {"summary": [part]}),
    ]


def test_reasoning_is_told_to_those_who_ask_for_it(server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="blue", reasoning=["Let me think"], pause=0.05))
    assert list(plain(stream(server, reasoning={"summary": "auto"}))) == [
        *BEGIN,
        *reasoning("rs0", "Let me think"),
        *said("msg1", 1, "blue"),
        ("completed", "completed"),
    ]
    first, second = ask(server, reasoning={"summary": "auto"}).json()["output"]
    assert first["summary"] == [{"type": "summary_text", "text": "Let me think"}]
    assert second["content"][0]["text"] == "blue"
    for asked in ({}, {"reasoning": {"effort": "low"}}):
        assert [item["type"] for item in ask(server, **asked).json()["output"]] == ["message"]


def test_proposals_are_told_as_reasoning(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", "b")
    upstream.always("a", Reply(text="one"))
    upstream.always("b", Reply(text="two", delay=0.3))
    upstream.always("agg", Reply(text="merged"))
    with serving(moa, "--show-proposals") as server:
        told = stream(server)
        kinds = [event["type"] for event in told]
        whole = ask(server).json()["output"]
        silent = ask(server, moa={"show_proposals": False}).json()["output"]
    assert kinds.index("response.reasoning_summary_text.delta") < kinds.index(
        "response.output_text.delta"
    )
    streamed = told[-1]["response"]["output"]
    text = "### lab:a (round 1)\n\none\n\n### lab:b (round 1)\n\ntwo\n\n"
    for output in (streamed, whole):
        assert [item["type"] for item in output] == ["reasoning", "message"]
        assert output[0]["summary"] == [{"type": "summary_text", "text": text}]
    assert [item["type"] for item in silent] == ["message"]


def test_the_sources_of_a_reply_are_annotations(server: Server, upstream: Upstream) -> None:
    more = {"citations": ["https://a.example"]}
    upstream.always("agg", Reply(text="cited", more=more))
    note = {
        "type": "url_citation",
        "start_index": 0,
        "end_index": 5,
        "url": "https://a.example",
        "title": "",
    }
    told = list(plain(stream(server)))
    assert ("output_text.annotation.added", "msg0", 0, 0, 0, note) in told
    assert told[-2][2]["content"] == [text_part("cited", note)]
    assert ask(server).json()["output"][0]["content"] == [text_part("cited", note)]


def test_the_history_reaches_the_model_as_chat_messages(server: Server, upstream: Upstream) -> None:
    items = [
        {"role": "developer", "content": "be brief"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "two", "annotations": []}],
        },
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "reasoning", "id": "rs_2", "summary": []},
        {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "*** é"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"type": "message", "role": "developer", "content": "hurry"},
        {
            "type": "custom_tool_call_output",
            "call_id": "c2",
            "output": [{"type": "input_text", "text": "done"}],
        },
        {
            "type": "function_call",
            "call_id": "c3",
            "namespace": "agents",
            "name": "spawn",
            "arguments": "{}",
        },
        {"type": "function_call_output", "call_id": "c3", "output": "spawned"},
        {"type": "local_shell_call", "call_id": "c4", "action": {"command": ["ls"]}},
        {"type": "local_shell_call_output", "call_id": "c4", "output": "a.txt"},
        {"type": "web_search_call", "id": "ws_1", "action": {"type": "search"}},
    ]
    response = ask(server, instructions="you edit files", input=items, tools=[WEATHER])
    assert response.status_code == 200, response.text
    assert response.json()["moa"]["ignored"] == ["input[].type=web_search_call"]
    system, *messages = upstream.chats("agg")[0].messages

    def sent(call_id: str, name: str, arguments: str) -> dict[str, Any]:
        function = {"name": name, "arguments": arguments}
        return {"id": call_id, "type": "function", "function": function}

    assert system["content"].startswith("you edit files\n\n")
    assert messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {
            "role": "assistant",
            "content": "two",
            "tool_calls": [
                sent("c1", "weather", "{}"),
                sent("c2", "apply_patch", '{"input": "*** é"}'),
            ],
        },
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        {"role": "tool", "content": "done", "tool_call_id": "c2"},
        {"role": "system", "content": "hurry"},
        {"role": "assistant", "content": None, "tool_calls": [sent("c3", "agents__spawn", "{}")]},
        {"role": "tool", "content": "spawned", "tool_call_id": "c3"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [sent("c4", "local_shell", '{"action": {"command": ["ls"]}}')],
        },
        {"role": "tool", "content": "a.txt", "tool_call_id": "c4"},
    ]


def test_tools_that_the_history_adds_are_offered(server: Server, upstream: Upstream) -> None:
    items = [
        {"type": "additional_tools", "role": "developer", "tools": [PATCH]},
        {"role": "user", "content": "find a tool"},
        {"type": "tool_search_call", "call_id": "c1", "arguments": {"query": "weather"}},
        {"type": "tool_search_output", "call_id": "c1", "tools": [WEATHER]},
    ]
    assert ask(server, input=items, tools=[SEARCH]).status_code == 200
    (sent,) = upstream.chats("agg")
    names = [tool["function"]["name"] for tool in sent.body["tools"]]
    assert names == ["tool_search", "apply_patch", "weather"]
    *_, searched, found = sent.messages
    assert searched["tool_calls"][0]["function"]["arguments"] == '{"query": "weather"}'
    assert json.loads(found["content"]) == {"tools": [WEATHER]}


@pytest.mark.parametrize(
    ("choice", "sent", "names"),
    [
        ("auto", None, ["weather", "apply_patch", "agents__spawn"]),
        ("none", "none", ["weather", "apply_patch", "agents__spawn"]),
        ("required", "required", ["weather", "apply_patch", "agents__spawn"]),
        ({"type": "function", "name": "weather"}, "weather", None),
        ({"type": "custom", "name": "apply_patch"}, "apply_patch", None),
        ({"type": "function", "name": "spawn"}, "agents__spawn", None),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "weather"}, {"type": "web_search"}],
            },
            "required",
            ["weather"],
        ),
    ],
)
def test_a_choice_of_tools_is_passed_on(
    server: Server, upstream: Upstream, choice: Any, sent: str | None, names: list[str] | None
) -> None:
    response = ask(server, tools=[WEATHER, PATCH, AGENTS], tool_choice=choice)
    assert response.status_code == 200, response.text
    assert response.json()["tool_choice"] == choice
    body = upstream.chats("agg")[0].body
    told = body.get("tool_choice")
    assert (told["function"]["name"] if isinstance(told, dict) else told) == sent
    if names is not None:
        assert [tool["function"]["name"] for tool in body["tools"]] == names


def test_settings_are_the_aggregator_s_alone(server: Server, upstream: Upstream) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string"}}}
    form = {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}
    upstream.always("agg", Reply(text='{"x": "y"}'))
    response = ask(
        server,
        temperature=0,
        top_p=0.5,
        max_output_tokens=700,
        parallel_tool_calls=False,
        tools=[WEATHER],
        reasoning={"effort": "high", "summary": "auto"},
        text={"format": form, "verbosity": "low"},
        user="u-1",
    )
    assert response.status_code == 200
    assert response.json()["text"] == {"format": form, "verbosity": "low"}
    asked, other = upstream.chats("agg")[0].body, upstream.chats("a")[0].body
    assert asked["temperature"] == 0
    assert (asked["top_p"], asked["max_tokens"]) == (0.5, 700)
    assert (asked["parallel_tool_calls"], asked["verbosity"]) == (False, "low")
    assert asked["reasoning_effort"] == "high"
    named = {"name": "answer", "schema": schema, "strict": True}
    assert asked["response_format"] == {"type": "json_schema", "json_schema": named}
    assert other.keys() == {"model", "messages", "stream", "stream_options", "user"}


def test_log_probabilities_are_the_aggregator_s(server: Server, upstream: Upstream) -> None:
    token = {"token": "blue", "logprob": -0.5, "bytes": None, "top_logprobs": []}
    upstream.always("agg", Reply(text="blue", logprobs={"content": [token]}))
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    told = stream(server, **asked)
    (delta,) = [event for event in told if event["type"] == "response.output_text.delta"]
    assert delta["logprobs"] == [token]
    for output in (told[-1]["response"]["output"], ask(server, **asked).json()["output"]):
        assert output[0]["content"][0]["logprobs"] == [token]
    assert upstream.chats("agg")[0].body["top_logprobs"] == 2
    assert not any("logprobs" in sent.body for sent in upstream.chats("a"))


def test_the_usage_may_be_that_of_all_calls(server: Server, upstream: Upstream) -> None:
    usage = ask(server, moa={"usage": "sum"}).json()["usage"]
    assert usage["total_tokens"] == sum(upstream.usage_total)


def test_images_and_files_are_parts(server: Server, upstream: Upstream) -> None:
    image = "data:image/png;base64,aGk="
    content = [
        {"type": "input_text", "text": "what is this?"},
        {"type": "input_image", "image_url": image, "detail": "low"},
    ]
    assert ask(server, input=[{"role": "user", "content": content}]).status_code == 200
    *_, sent = upstream.chats("agg")[0].messages
    assert sent["content"] == [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": image, "detail": "low"}},
    ]


def test_a_request_may_change_the_mixture(server: Server, upstream: Upstream) -> None:
    body = ask(server, moa={"rounds": 0, "aggregator": "lab:z"}).json()
    assert (body["moa"]["calls"], body["moa"]["aggregator"]) == (1, "lab:z")


def test_a_silent_mixture_begins_its_response_in_time(server: Server, upstream: Upstream) -> None:
    upstream.always("*", Reply(stall_after=0))
    body = {"model": "moa", "input": "why?", "stream": True}
    with server.http.stream("POST", f"{server.url}/responses", json=body) as response:
        lines = response.iter_lines()
        assert next(lines) == "event: response.created"
        assert ": round 1: 0 of 3 answered" in lines
        assert upstream.in_flight == 3
