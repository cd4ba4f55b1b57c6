"""The Messages API as a client sees it, and upstream replies that call tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import httpx

from tests.support.server import Server
from tests.support.upstream import Reply

__all__ = ["ASKED", "TOOL", "calling", "message_events", "piece", "post", "stream", "told"]

ASKED: list[dict[str, Any]] = [{"role": "user", "content": "why?"}]
TOOL: dict[str, Any] = {
    "name": "look",
    "description": "Looks.",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}},
}


def _body(fields: dict[str, Any]) -> dict[str, Any]:
    return {"model": "moa", "max_tokens": 100, "messages": ASKED, **fields}


def post(server: Server, path: str = "/v1/messages", **fields: Any) -> httpx.Response:
    """A message of `moa`, if the fields do not say otherwise."""
    return server.http.post(server.root + path, json=_body(fields))


def stream(server: Server, **fields: Any) -> AbstractContextManager[httpx.Response]:
    """A context: the response of a streamed message."""
    body = _body({"stream": True, **fields})
    return server.http.stream("POST", f"{server.root}/v1/messages?beta=true", json=body)


def message_events(text: str) -> list[dict[str, Any]]:
    """The events of a stream, each of which must have the name of its type."""
    found = []
    for frame in text.split("\n\n"):
        lines = [line for line in frame.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        named, data = lines
        event = json.loads(data.removeprefix("data: "))
        assert named == f"event: {event['type']}"
        found.append(event)
    return found


def told(events: Sequence[dict[str, Any]]) -> list[Any]:
    """The events in short: the kinds of blocks, what the deltas say, and why the reply ends.

    Deltas of one kind are one: how many there are is a matter of time.
    """
    found: list[Any] = []
    for event in events:
        match event["type"]:
            case "content_block_start":
                block = event["content_block"]
                named = [block["id"], block["name"]] if block["type"] == "tool_use" else []
                found.append((event["index"], block["type"], *named))
            case "content_block_delta":
                kind, said = event["delta"].values()
                if found[-1][:2] == (event["index"], kind):
                    said = found.pop()[2] + said
                found.append((event["index"], kind, said))
            case "content_block_stop":
                found.append((event["index"], "stop"))
            case "message_delta":
                found.append(event["delta"]["stop_reason"])
            case "ping":
                pass
            case other:
                found.append(other)
    return found


def piece(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk of an upstream's stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "model": "agg", "choices": [choice]}


def _call_piece(index: int, arguments: str, **named: str) -> dict[str, Any]:
    call: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if named:
        call |= {"id": named["id"], "type": "function"}
        call["function"]["name"] = named["name"]
    return piece(tool_calls=[call])


def calling(
    *pieces: tuple[int, str] | tuple[int, str, str, str], text: str = "", finish: str = "tool_calls"
) -> Reply:
    """A reply that calls tools: (index, arguments), and with the first piece of a call its id and
    name."""
    events: list[Any] = [piece(content=text)] if text else []
    for index, arguments, *named in pieces:
        names = dict(zip(("id", "name"), named, strict=True)) if named else {}
        events.append(_call_piece(index, arguments, **names))
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return Reply(events=[*events, {**piece(finish), "usage": usage}, "[DONE]"])
