"""The JSON of a request's body, of which a message's part is kept: it is that of `json.dumps`."""

from __future__ import annotations

import json

import pytest

from moa_cli.clients.refused_fields import IMAGES, SYSTEM
from moa_cli.clients.wire_messages import body_json, wire_messages
from moa_cli.core.conversation import Message, Part
from moa_cli.core.tools import OfferedTools, ToolCall

TALK = (
    Message("system", "Be brief."),
    Message("user", 'Größe, 漢字, 🙂, "quoted"\n\\ and \x00', name="Zoë"),
    Message("assistant", "", tool_calls=(ToolCall("1", "look", '{"at": "it"}'),)),
    Message("tool", "half a pair: \ud83d", tool_call_id="1"),
    Message.of_parts("user", [Part("text", "see"), Part("image", url="data:image/png;base64,AA")]),
)


@pytest.mark.parametrize("refused", [{SYSTEM, IMAGES}, {SYSTEM}, {IMAGES}, set()])
def test_a_body_is_the_same_to_the_byte_each_time(refused: set[str]) -> None:
    sent = wire_messages(TALK, refused)
    plain = [dict(message) for message in sent]
    # A description may hold what stands for other things in a body.
    told = [{"type": "function", "function": {"name": "größe", "description": '"messages": []'}}]
    tools = OfferedTools(told)
    assert tools.json == json.dumps(told)
    for body in (
        {"model": "größe", "messages": sent, "stream": True, "stop": ["a", None], "seed": 1},
        {"messages": sent},
        {"model": "m", "messages": wire_messages(TALK, refused)},
        {"model": "m", "messages": sent, "tools": tools, "tool_choice": "auto"},
        {"tools": tools, "messages": sent},
        {"messages": sent, "tools": told},
    ):
        assert body_json(body) == json.dumps({**body, "messages": plain}).encode()


def test_other_bodies_are_json_too() -> None:
    bodies: list[dict[str, object]] = [{}, {"messages": []}, {"input": ["é"], "messages": [{}]}]
    bodies.append({"messages": [], "tools": OfferedTools([{"type": "function"}])})
    for body in bodies:
        assert body_json(body) == json.dumps(body).encode()
