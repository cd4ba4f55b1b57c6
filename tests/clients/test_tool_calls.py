"""Calls of tools are put together right, in whatever shape an endpoint writes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, ProviderSettings
from moa_cli.core.conversation import Message
from moa_cli.core.endpoints import Delta, Request
from moa_cli.core.tools import ToolCall, ToolCallBuilder
from tests.support.tool_calls import TOOLS, chunk, streamed
from tests.support.upstream import Reply, Upstream

PATH = '{"path": "a.py"}'
Call = dict[str, Any]


def answered(up: Upstream, reply: Reply, *, many_calls: bool = False) -> list[Delta]:
    """The deltas of an answer to a request with tools."""
    up.enqueue("m", reply)
    settings = ProviderSettings(base_url=up.url, api_key_env="LAB_API_KEY")
    request = Request(model="m", messages=(Message("user", "Fix it."),), extra={"tools": TOOLS})

    async def collect() -> list[Delta]:
        config = Config(providers={"lab": settings})
        clients = ClientPool(config, {"LAB_API_KEY": "k"}, many_calls=many_calls)
        try:
            return [delta async for delta in clients.endpoint("lab:m").client.stream(request)]
        finally:
            await clients.aclose()

    return asyncio.run(collect())


def calls_of(deltas: Sequence[Delta]) -> tuple[ToolCall, ...]:
    builder = ToolCallBuilder()
    for delta in deltas:
        builder.take(delta.tool_calls)
    return builder.calls()


def heard(up: Upstream, *pieces: Call, many_calls: bool = False) -> tuple[ToolCall, ...]:
    """The calls of a stream of these pieces, each in its own chunk; their ids are checked."""
    deltas = answered(up, Reply(events=streamed(*pieces)), many_calls=many_calls)
    calls = calls_of(deltas)
    assert all(call.id for call in calls)
    assert len({call.id for call in calls}) == len(calls)
    # The first piece of a call has all that tells it apart.
    begun: set[int] = set()
    for piece in (piece for delta in deltas for piece in delta.tool_calls):
        assert bool(piece.id) == (piece.index not in begun)
        begun.add(piece.index)
    assert begun == set(range(len(calls)))
    return calls


def told(calls: Sequence[ToolCall]) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in calls]


def call(name: str = "", arguments: object = None, **more: object) -> Call:
    """An entry of `tool_calls`."""
    function: Call = {"name": name} if name else {}
    if arguments is not None:
        function["arguments"] = arguments
    return {**more, "type": "function", "function": function}


READ, WRITE = ("read", PATH), ("write", PATH)
SHAPES: dict[str, tuple[list[Call], list[tuple[str, str]]]] = {
    "OpenAI: one call after the other, in pieces": (
        [
            call("read", "", index=0, id="c1"),
            call(arguments='{"path"', index=0),
            call(arguments=': "a.py"}', index=0),
            call("write", "", index=1, id="c2"),
            call(arguments=PATH, index=1),
        ],
        [READ, WRITE],
    ),
    "two calls in turn": (
        [
            call("read", '{"path"', index=0, id="c1"),
            call("write", '{"path"', index=1, id="c2"),
            call(arguments=': "a.py"}', index=0),
            call(arguments=': "a.py"}', index=1),
        ],
        [READ, WRITE],
    ),
    "Gemini: each whole, at index 0, with an id of its own": (
        [call("read", PATH, index=0, id="c1"), call("read", PATH, index=0, id="c2")],
        [READ, READ],
    ),
    "each whole, at index 0, without an id": (
        [call("read", PATH, index=0), call("write", PATH, index=0)],
        [READ, WRITE],
    ),
    "the same tool twice, at index 0, without an id": (
        [call("read", PATH, index=0), call("read", '{"path": "b.py"}', index=0)],
        [READ, ("read", '{"path": "b.py"}')],
    ),
    "no index, ids": (
        [call("read", PATH, id="c1"), call("write", PATH, id="c2")],
        [READ, WRITE],
    ),
    "no index, ids, in pieces": (
        [
            call("read", "", id="c1"),
            call(arguments='{"path": ', id="c1"),
            call(arguments='"a.py"}', id="c1"),
            call("write", PATH, id="c2"),
        ],
        [READ, WRITE],
    ),
    "no index, no ids, in pieces": (
        [
            call("read", ""),
            call(arguments='{"path": '),
            call(arguments='"a.py"}'),
            call("write", PATH),
        ],
        [READ, WRITE],
    ),
    "id and name with each piece": (
        [
            call("read", '{"path"', index=0, id="c1"),
            call("read", ': "a.py"}', index=0, id="c1"),
            call("write", '{"path"', index=1, id="c2"),
            call("write", ': "a.py"}', index=1, id="c2"),
        ],
        [READ, WRITE],
    ),
    "the name with each piece, no id": (
        [call("read", '{"path"', index=0), call("read", ': "a.py"}', index=0)],
        [READ],
    ),
    "empty ids and names behind the first piece": (
        [
            call("read", '{"path"', index=0, id="c1"),
            {"index": 0, "id": "", "function": {"name": "", "arguments": ': "a.py"}'}},
            {"index": 0, "id": None, "function": {"name": None, "arguments": ""}},
        ],
        [READ],
    ),
    "one id for two calls": (
        [call("read", PATH, index=0, id="call_0"), call("write", PATH, index=1, id="call_0")],
        [READ, WRITE],
    ),
    "one id and one index for two calls of a tool": (
        [
            call("read", PATH, index=0, id="call_0"),
            call("read", '{"path": "b.py"}', index=0, id="call_0"),
        ],
        [READ, ("read", '{"path": "b.py"}')],
    ),
    "an id that comes late": (
        [call("read", "", index=0), {"index": 0, "id": "c1", "function": {"arguments": PATH}}],
        [READ],
    ),
    "all of a call once more at its end": (
        [
            call("read", '{"path": ', index=0, id="c1"),
            call(arguments='"a.py"}', index=0),
            call("read", PATH, index=0, id="c1"),
        ],
        [READ],
    ),
    "arguments as an object": (
        [call("read", {"path": "a.py"}, index=0, id="c1"), call("write", {}, index=1, id="c2")],
        [READ, ("write", "{}")],
    ),
    "no arguments": ([call("read", None, index=0, id="0")], [("read", "")]),
    "an index that does not begin at 0": (
        [call("read", PATH, index=1, id="c1"), call("write", PATH, index=3, id="c2")],
        [READ, WRITE],
    ),
    "a number as an id": ([call("read", PATH, index=0, id=7)], [READ]),
}


@pytest.mark.parametrize("many_calls", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_call_has_its_own_arguments_and_an_id(
    upstream: Upstream, shape: str, many_calls: bool
) -> None:
    pieces, expected = SHAPES[shape]
    assert told(heard(upstream, *pieces, many_calls=many_calls)) == expected


@pytest.mark.parametrize("with_index", [False, True])
def test_several_calls_in_one_chunk(upstream: Upstream, with_index: bool) -> None:
    entries = [call("read", PATH, id="c1"), call("read", PATH, id="c2"), call("write", PATH)]
    if with_index:
        entries = [{**entry, "index": index} for index, entry in enumerate(entries)]
    reply = Reply(events=[chunk({"tool_calls": entries}), chunk(finish="tool_calls"), "[DONE]"])
    calls = calls_of(answered(upstream, reply))
    assert told(calls) == [READ, READ, WRITE]
    assert [found.id for found in calls[:2]] == ["c1", "c2"]


def test_ids_are_kept_as_they_are_told(upstream: Upstream) -> None:
    ids = ("functions.read:0", "call_0")
    entries = [call("read", PATH, index=place, id=told) for place, told in enumerate(ids)]
    assert [found.id for found in heard(upstream, *entries)] == list(ids)


def test_made_ids_differ_from_answer_to_answer(upstream: Upstream) -> None:
    first, second = (heard(upstream, call("read", PATH, index=0)) for _ in range(2))
    assert first[0].id != second[0].id


@pytest.mark.parametrize("index", [None, 0])
def test_calls_of_an_answer_in_one_piece(upstream: Upstream, index: int | None) -> None:
    more = {} if index is None else {"index": index}
    entries = [call("read", "", **more), call("read", "", **more), call("write", PATH, **more)]
    message = {"role": "assistant", "content": None, "tool_calls": entries}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    calls = calls_of(answered(upstream, Reply(error={"model": "m", "choices": [choice]})))
    assert told(calls) == [("read", ""), ("read", ""), WRITE]
    assert len({found.id for found in calls}) == 3


def test_a_call_of_the_kind_before_there_were_tools(upstream: Upstream) -> None:
    deltas = [
        {"function_call": {"name": "read", "arguments": ""}},
        {"function_call": {"arguments": '{"path": '}},
        {"function_call": {"arguments": '"a.py"}'}},
    ]
    events = [*map(chunk, deltas), chunk(finish="function_call"), "[DONE]"]
    [found] = calls_of(answered(upstream, Reply(events=events)))
    assert (found.name, found.arguments) == READ
    assert found.id


def test_a_custom_tool_has_text_in_place_of_arguments(upstream: Upstream) -> None:
    first = {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "patch", "input": "*** "}}
    second = {"index": 0, "custom": {"input": "Begin"}}
    [found] = heard(upstream, first, second)
    assert found == ToolCall("c1", "patch", "*** Begin", "custom")


def test_no_piece_of_a_call_holds_half_of_a_character(upstream: Upstream) -> None:
    parts = ['{"path": "\ud83c', "\udf27", "\ud83c", '"}']
    pieces = [call(arguments=part, index=0) for part in parts]
    first = call("read", "", index=0, id="c1")
    events = [e if isinstance(e, str) else json.dumps(e) for e in streamed(first, *pieces)]
    deltas = answered(upstream, Reply(events=events))
    for piece in (piece for delta in deltas for piece in delta.tool_calls):
        piece.arguments.encode()
    assert told(calls_of(deltas)) == [("read", '{"path": "🌧\ufffd"}')]


def test_pieces_that_come_behind_the_finish_reason_are_not_lost(upstream: Upstream) -> None:
    events = [chunk(finish="tool_calls"), *streamed(call("read", PATH, index=0, id="c1"))]
    assert told(calls_of(answered(upstream, Reply(events=events)))) == [READ]


def test_a_whole_message_at_the_end_does_not_repeat_the_calls(upstream: Upstream) -> None:
    entry = call("read", PATH, index=0, id="c1")
    last = {
        "index": 0,
        "message": {"role": "assistant", "content": "", "tool_calls": [entry]},
        "finish_reason": "tool_calls",
    }
    events = [chunk({"tool_calls": [entry]}), {"choices": [last]}, "[DONE]"]
    assert told(calls_of(answered(upstream, Reply(events=events)))) == [READ]
    alone = [{"choices": [last]}, "[DONE]"]
    assert told(calls_of(answered(upstream, Reply(events=alone)))) == [READ]


def sequence(deltas: Sequence[Delta]) -> list[str]:
    """What was said and called, in order: within a delta, text comes first."""
    found: list[str] = []
    for delta in deltas:
        found += [f"say {delta.text}"] if delta.text else []
        found += [f"think {delta.reasoning}"] if delta.reasoning else []
        found += [f"call {piece.name}" for piece in delta.tool_calls if piece.name]
    return found


@pytest.mark.parametrize("many_calls", [False, True])
def test_text_and_calls_keep_their_order_in_a_burst(upstream: Upstream, many_calls: bool) -> None:
    events: list[object] = [
        chunk({"content": "A"}),
        chunk({"content": "B", "tool_calls": [call("read", PATH, index=0, id="c1")]}),
        chunk({"content": "C"}),
        chunk({"tool_calls": [call("write", PATH, index=1, id="c2")]}),
        chunk({"reasoning_content": "D"}),
        chunk({"tool_calls": [call("read", PATH, index=2, id="c3")]}),
        chunk(finish="tool_calls"),
    ]
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    deltas = answered(upstream, Reply(raw=lines.encode()), many_calls=many_calls)
    said = "".join(f"{step}\n" for step in sequence(deltas))
    expected = ["say A", "say B", "call read", "say C", "call write", "think D", "call read"]
    merged = ["say AB", *expected[2:]]
    assert said.splitlines() == (merged if many_calls else expected)
    assert told(calls_of(deltas)) == [READ, WRITE, READ]


def test_reasoning_before_a_call_stays_reasoning(upstream: Upstream) -> None:
    events = [
        chunk({"content": "<think>I read it."}),
        *streamed(call("read", PATH, index=0, id="c1")),
    ]
    deltas = answered(upstream, Reply(events=events))
    assert "".join(delta.text for delta in deltas) == ""
    assert "".join(delta.reasoning for delta in deltas) == "I read it."
    assert told(calls_of(deltas)) == [READ]


@pytest.mark.parametrize("garbage", ["read", [1, None, "x"], {"a": 1}, [{"function": "f"}], [[]]])
def test_what_is_no_call_is_left_out(upstream: Upstream, garbage: object) -> None:
    events = [chunk({"tool_calls": garbage}), chunk({"content": "ok"}), chunk(finish="stop")]
    deltas = answered(upstream, Reply(events=[*events, "[DONE]"]))
    assert calls_of(deltas) == ()
    assert "".join(delta.text for delta in deltas) == "ok"
