"""The messages of a request in the form that an endpoint accepts, and the JSON of its body.

Each turn sends the whole history to each model of the mixture, and the messages in it do not
change. So the JSON of a message is computed once and kept with the message.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cache
from itertools import takewhile
from typing import Any

from moa_cli.clients.missed_thoughts import with_thoughts
from moa_cli.clients.refused_fields import (
    CALL_IDS,
    EMPTY,
    IMAGES,
    LATER_SYSTEM,
    NAMES,
    OTHER_LAST,
    SIGNATURE,
    SYSTEM,
    THOUGHTS,
)
from moa_cli.core.conversation import Message, Part
from moa_cli.core.once_each import once_each
from moa_cli.core.tools import OfferedTools, ToolCall

_FIELD, _TOOLS = "messages", "tools"
_GO_ON = (
    "[Your last message is not finished. Go on exactly where it ends, and do not repeat what stands"
    " there.]"
)
_MISSED = frozenset((THOUGHTS, SIGNATURE))
# The content that replaces an empty message.
_NOTHING = "[empty]"
_PLAIN_ID = re.compile(r"[A-Za-z0-9]{9}")
# A fixed encoder is faster, because `json.dumps` checks its options at each call.
_ENCODE = json.JSONEncoder().encode


class WireMessages(list[dict[str, Any]]):
    """Messages in the form that an endpoint accepts. They are not changed any more.

    pieces: each message as JSON.
    """

    def __init__(self, messages: Sequence[Message], missed: AbstractSet[str]) -> None:
        encoded = [_encoded(message) for message in messages]
        values, self.pieces = [value for value, _ in encoded], [piece for _, piece in encoded]
        if missed:
            for place, value in enumerate(values):
                values[place] = with_thoughts(value, missed)
                if values[place] is not value:
                    self.pieces[place] = _ENCODE(values[place]).encode()
        super().__init__(values)


def wire_messages(
    messages: Sequence[Message], refused: AbstractSet[str] = frozenset()
) -> WireMessages:
    """The messages as they are sent.

    refused: what the model does not accept, by the names of `refused_fields`. It is expressed in
    another way: a system message moves to the beginning of the user's next message, and a text
    replaces an image.
    """
    if CALL_IDS in refused:
        messages = [_with_plain_ids(message) for message in messages]
    if NAMES in refused:
        messages = [_without_name(message) if message.name else message for message in messages]
    if IMAGES in refused:
        messages = [_without_images(message) if message.parts else message for message in messages]
    messages = _with_images_of_users(messages)
    if SYSTEM in refused:
        messages = _without_system(messages)
    elif LATER_SYSTEM in refused:
        messages = _with_system_first(messages)
    if EMPTY in refused:
        messages = _without_empty(messages)
    if OTHER_LAST in refused:
        messages = _with_user_last(messages)
    return WireMessages(messages, refused & _MISSED)


def body_json(body: Mapping[str, Any]) -> bytes:
    """The body of a request as JSON, byte for byte as `json.dumps` writes it."""
    messages = body.get(_FIELD)
    if not isinstance(messages, WireMessages):
        return json.dumps(body).encode()
    place, tools_place = _places()
    tools = body.get(_TOOLS)
    if isinstance(tools, OfferedTools):
        written = _ENCODE({**body, _FIELD: place, _TOOLS: tools_place})
        written = written.replace(f'"{tools_place}"', tools.json)
    else:
        written = _ENCODE({**body, _FIELD: place})
    before, behind = written.split(f'"{place}"')
    # Joined once: the body of a long conversation has hundreds of kilobytes, so each copy costs
    # time.
    return b"".join([before.encode(), b"[", b", ".join(messages.pieces), b"]", behind.encode()])


@cache
def _places() -> tuple[str, str]:
    """The placeholders for the messages and for the tools while the rest of the body is encoded.
    They are random, so no other part of a body can contain them."""
    return secrets.token_hex(16), secrets.token_hex(16)


@once_each
def _encoded(message: Message) -> tuple[dict[str, Any], bytes]:
    """A message as it is sent, and the same as JSON."""
    value = _message(message)
    return value, json.dumps(value).encode()


def _sendable(text: str) -> str:
    """The text without halves of surrogate pairs. A pasted text or an argument may hold one, and
    UTF-8 cannot encode it."""
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode()


def _message(message: Message) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role, "content": _sendable(message.content)}
    if message.parts:
        body["content"] = [_part(part) for part in message.parts]
    if message.tool_calls:
        body["content"] = body["content"] or None
        body["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.role == "tool":
        body["tool_call_id"] = message.tool_call_id
    elif message.name:
        body["name"] = _sendable(message.name)
    return body


def _part(part: Part) -> dict[str, Any]:
    if part.kind == "image":
        detail = {"detail": part.detail} if part.detail else {}
        return {"type": "image_url", "image_url": {"url": part.url, **detail}}
    if part.kind == "file" and part.url and not part.text:
        return {"type": "file", "file": {"filename": part.name, "file_data": part.url}}
    return {"type": "text", "text": _sendable(part.as_text)}


def _call(call: ToolCall) -> dict[str, Any]:
    name, written = _sendable(call.name), _sendable(call.arguments)
    inner = {"name": name, "input" if call.kind == "custom" else "arguments": written}
    return {"id": call.id, "type": call.kind, call.kind: inner}


def _with_system_first(messages: Sequence[Message]) -> list[Message]:
    """The messages with the leading system messages joined to one, and later system messages as
    messages of the user."""
    leading = list(takewhile(lambda message: message.role == "system", messages))
    rest = [
        replace(message, role="user") if message.role == "system" else message
        for message in messages[len(leading) :]
    ]
    if not leading:
        return rest
    first = replace(leading[0], content="\n\n".join(message.content for message in leading))
    return [first, *rest]


def _without_empty(messages: Sequence[Message]) -> list[Message]:
    found: list[Message] = []
    for message in messages:
        parts = tuple(part for part in message.parts if part.kind != "text" or part.text.strip())
        if len(parts) < len(message.parts):
            message = replace(message, parts=parts)
        if not (message.content.strip() or parts):
            if message.role == "assistant" and not message.tool_calls:
                continue
            message = replace(message, content="" if message.tool_calls else _NOTHING)
        found.append(message)
    return found


def _with_user_last(messages: Sequence[Message]) -> Sequence[Message]:
    *before, last = messages
    if last.role == "system":
        return [*before, replace(last, role="user")]
    if last.role == "assistant" and not last.tool_calls:
        return [*messages, Message("user", _GO_ON)]
    return messages


def _with_plain_ids(message: Message) -> Message:
    if message.role == "tool":
        return replace(message, tool_call_id=_plain_id(message.tool_call_id))
    if not message.tool_calls:
        return message
    calls = [replace(call, id=_plain_id(call.id)) for call in message.tool_calls]
    return replace(message, tool_calls=tuple(calls))


def _plain_id(told: str) -> str:
    """An id in the form that Mistral requires, which is the strictest of all providers. The same id
    always gives the same result."""
    if _PLAIN_ID.fullmatch(told):
        return told
    return hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:9]


def _without_name(message: Message) -> Message:
    if message.role != "user":
        # The name of another role is dropped: in front of an assistant's text, the model would
        # imitate it and begin its own answers with a name.
        return replace(message, name="")
    parts = message.parts and (Part("text", f"{message.name}:"), *message.parts)
    return replace(message, name="", content=f"{message.name}: {message.content}", parts=parts)


def _without_images(message: Message) -> Message:
    told = [Part("text", part.as_text) if part.kind == "image" else part for part in message.parts]
    return replace(message, parts=Message.of_parts(message.role, told).parts)


def _with_images_of_users(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages with all images in the user's messages, because most endpoints accept them
    nowhere else. Images of tool results, system and assistant messages move to the user's next
    message, and a text stands in their place."""
    if not [message for message in messages if message.parts and message.role != "user"]:
        return messages
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    found: list[Message] = []
    moved: list[Part] = []
    for message in messages:
        if moved and message.role == "user":
            own = message.parts or (Part("text", message.content),)
            message = Message.of_parts("user", [*moved, *own], message.name)
            moved = []
        elif moved and message.role == "assistant":
            found.append(Message.of_parts("user", moved))
            moved = []
        if message.parts and message.role != "user":
            images = [part for part in message.parts if part.kind == "image"]
            place = f"{message.role} message"
            if message.role == "tool":
                place = f"result of the tool {names.get(message.tool_call_id) or 'before'}"
            if images:
                moved += [Part("text", f"From the {place}:"), *images]
            message = replace(message, parts=())
        found.append(message)
    return [*found, Message.of_parts("user", moved)] if moved else found


def _without_system(messages: Sequence[Message]) -> list[Message]:
    found: list[Message] = []
    instructions: list[str] = []
    for message in messages:
        if message.role == "system":
            instructions.append(message.content)
        elif message.role == "user":
            led = "\n\n".join(instructions)
            parts = message.parts and (Part("text", led), *message.parts) if led else message.parts
            text = "\n\n".join([*instructions, message.content])
            found.append(replace(message, content=text, parts=parts))
            instructions = []
        else:
            found.append(message)
    if instructions:
        found.append(Message("user", "\n\n".join(instructions)))
    return found
