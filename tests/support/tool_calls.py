"""Answers that call tools, as endpoints stream them, and the messages that follow them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moa_cli.core.conversation import Message
from moa_cli.core.tools import ToolCall
from tests.support.upstream import Reply

__all__ = ["TOOLS", "called", "calling", "chunk", "result", "streamed"]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
        },
    }
    for name in ("read", "write")
]


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None) -> dict[str, Any]:
    """One chunk of a stream."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def streamed(*calls: dict[str, Any], finish: str = "tool_calls") -> list[object]:
    """The events of a stream that holds these entries of `tool_calls`, each in its own chunk."""
    return [*(chunk({"tool_calls": [call]}) for call in calls), chunk(finish=finish), "[DONE]"]


def calling(*names: str, arguments: Sequence[str] = ('{"pa', 'th": "a.py"}')) -> Reply:
    """An answer that calls these tools, side by side; the arguments come in pieces."""
    pieces: list[dict[str, Any]] = []
    for index, name in enumerate(names):
        head = {"index": index, "id": f"call_{name}_{index}", "type": "function"}
        pieces.append({**head, "function": {"name": name, "arguments": ""}})
        pieces += [{"index": index, "function": {"arguments": piece}} for piece in arguments]
    return Reply(events=streamed(*pieces))


def called(*names: str, text: str = "", arguments: str = '{"path": "a.py"}') -> Message:
    """An assistant's message that calls these tools."""
    calls = (ToolCall(f"call_{name}", name, arguments) for name in names)
    return Message("assistant", text, tool_calls=tuple(calls))


def result(name: str, text: str) -> Message:
    """What a call of that tool gave."""
    return Message("tool", text, tool_call_id=f"call_{name}")
