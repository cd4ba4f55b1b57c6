"""The Responses API in tests: requests, the events of a stream, and upstreams that call tools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from tests.support.server import Server
from tests.support.upstream import Reply

__all__ = ["ask", "call", "calling", "events_of", "plain", "stream"]


def ask(server: Server, **fields: Any) -> httpx.Response:
    """A response of `moa`, if the fields do not say otherwise."""
    body = {"model": "moa", "input": "why?", **fields}
    return server.http.post(f"{server.url}/responses", json=body)


def stream(server: Server, **fields: Any) -> list[dict[str, Any]]:
    """The events of a streamed response."""
    response = ask(server, stream=True, **fields)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return events_of(response.text)


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a stream, each named by its type, with numbers that leave none out."""
    told = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            name, data = lines
            event = json.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            told.append(event)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert [event["type"] for event in told[:2]] == ["response.created", "response.in_progress"]
    return told


def plain(told: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    """The events in short: the type without `response.`, and the values of its other fields but
    numbers and ids, which stand for what they are of (`msg0`). Deltas of one text that follow each
    other are one: pieces that come at once, on a busy machine, are told together."""
    last: tuple[Any, ...] = ()
    for short in _shortened(told):
        if last and last[0].endswith(".delta") and last[:-1] == short[:-1]:
            last = (*last[:-1], last[-1] + short[-1])
            continue
        if last:
            yield last
        last = short
    if last:
        yield last


def _shortened(told: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    names: dict[str, str] = {}

    def name(identity: str) -> str:
        return names.setdefault(identity, f"{identity.partition('_')[0]}{len(names)}")

    for event in told:
        values = {
            key: value for key, value in event.items() if key not in ("type", "sequence_number")
        }
        if isinstance(item := values.get("item"), dict):
            item["id"] = name(item["id"])
        if "item_id" in values:
            values["item_id"] = name(values["item_id"])
        if "response" in values:
            values["response"] = values["response"]["status"]
        if values.get("logprobs") == []:
            del values["logprobs"]
        yield (event["type"].removeprefix("response."), *values.values())


def call(
    index: int, name: str, *pieces: str, call_id: str = "", kind: str = "function"
) -> list[dict[str, Any]]:
    """The deltas of a call of a tool: its name and the first piece of its arguments, then the
    others."""
    first, *more = pieces or ("",)
    call_id = call_id or f"call_{index}"
    head = {"index": index, "id": call_id, "type": kind, kind: {"name": name, "arguments": first}}
    return [
        {"tool_calls": [head]},
        *({"tool_calls": [{"index": index, kind: {"arguments": piece}}]} for piece in more),
    ]


def calling(deltas: Sequence[dict[str, Any]], finish: str = "tool_calls", **more: Any) -> Reply:
    """An answer of these deltas."""

    def chunk(**choice: Any) -> dict[str, Any]:
        return {"id": "c", "model": "agg", "choices": [{"index": 0, **choice}]}

    chunks = [chunk(delta=delta, finish_reason=None) for delta in deltas]
    end = chunk(delta={}, finish_reason=finish) | {
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    }
    return Reply(events=[*chunks, end, "[DONE]"], **more)
