"""Converts the messages of chat completions to messages of the core."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Annotated, Any, Literal, TypeVar

from moa_cli.core.conversation import Message, Part, Role, text_of_parts
from moa_cli.core.tools import ToolCall
from moa_cli.core.values import JSON, Key, ValueFault, keys_of, read_fields
from moa_cli.server.wires.addresses import file_part, image_part
from moa_cli.server.wires.bodies import AnyObject, AnyText
from moa_cli.server.wires.fields import only_known
from moa_cli.server.wires.foreign_parts import chat_part

_T = TypeVar("_T")
_R = TypeVar("_R")
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
# Fields of a reply that client libraries send back. Reasoning is left out, as providers require;
# the others have no meaning.
_OF_A_REPLY = ("reasoning", "reasoning_content", "annotations")
# Parts with reasoning, which client libraries send back.
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
# Parts that repeat `tool_calls` in the form of other APIs.
_CALLS = ("tool_use", "function_call", "tool_call")
_URL = Key("a web address, or a data: URI with base64")


@dataclass(frozen=True, kw_only=True)
class ImageUrl:
    url: Annotated[str, _URL]
    detail: Annotated[str | None, Key("low, high or auto", blank=True)] = None


@dataclass(frozen=True, kw_only=True)
class FileData:
    file_data: Annotated[str | None, Key("the file as a data: URI, or its base64")] = None
    filename: Annotated[str | None, Key(blank=True)] = None
    file_id: Annotated[Any, Key("not supported: send `file_data`", only=())] = None


@dataclass(frozen=True, kw_only=True)
class ContentPart:
    type: Annotated[Literal["text", "image_url", "file", "refusal"], Key()]
    text: Annotated[str | None, Key(blank=True)] = None
    image_url: Annotated[Annotated[str, _URL] | ImageUrl | None, Key()] = None
    file: Annotated[FileData | None, Key()] = None
    refusal: Annotated[str | None, Key(blank=True)] = None

    def part(self) -> Part:
        """The part. Raises ValueFault if the field for its type is missing."""
        if self.type == "image_url":
            image = self.image_url
            if image is None:
                raise ValueFault("is missing", path=("image_url",), code="missing")
            if isinstance(image, str):
                return image_part(image, "", "image_url")
            return image_part(image.url, image.detail or "", "image_url", "url")
        if self.type == "file":
            if self.file is None or self.file.file_data is None:
                raise ValueFault("is missing", path=("file", "file_data"), code="missing")
            return file_part(self.file.file_data, self.file.filename or "", "file", "file_data")
        text = self.text if self.type == "text" else self.refusal
        if text is None:
            raise ValueFault("is missing", path=(self.type,), code="missing")
        return Part("text", text)


@dataclass(frozen=True, kw_only=True)
class CalledFunction:
    name: Annotated[str, Key()]
    arguments: Annotated[AnyText | AnyObject | None, Key("JSON as text", blank=True)] = None


@dataclass(frozen=True, kw_only=True)
class CalledCustom:
    name: Annotated[str, Key()]
    input: Annotated[str | None, Key(blank=True)] = None


@dataclass(frozen=True, kw_only=True)
class ChatToolCall:
    id: Annotated[str | None, Key(blank=True)] = None
    type: Annotated[Literal["function", "custom"] | None, Key()] = None
    function: Annotated[CalledFunction | None, Key()] = None
    custom: Annotated[CalledCustom | None, Key()] = None

    def call(self) -> ToolCall:
        """The call. Raises ValueFault if it calls nothing."""
        if self.custom is not None:
            return ToolCall(self.id or "", self.custom.name, self.custom.input or "", "custom")
        if self.function is None:
            raise ValueFault("is missing", path=("function",), code="missing")
        written = self.function.arguments
        if isinstance(written, Mapping):
            written = json.dumps(written)
        return ToolCall(self.id or "", self.function.name, written or "")


@dataclass(frozen=True, kw_only=True)
class ChatMessage:
    """A message of the conversation. Client libraries send back a reply with its empty fields."""

    role: Annotated[Literal["system", "developer", "user", "assistant", "tool", "function"], Key()]
    content: Annotated[
        AnyText | Annotated[tuple[ContentPart, ...], Key()] | None,
        Key("may be missing if there are tool calls"),
    ] = None
    audio: Annotated[Any, Key("Not supported otherwise.", only=())] = None
    function_call: Annotated[CalledFunction | None, Key("the older form of tools")] = None
    name: Annotated[str | None, Key("of who speaks", blank=True)] = None
    refusal: Annotated[str | None, Key(blank=True)] = None
    tool_calls: Annotated[tuple[ChatToolCall, ...] | None, Key()] = None
    tool_call_id: Annotated[str | None, Key(blank=True)] = None

    def message(self) -> Message:
        """Role and content. Raises ValueFault if there is no content."""
        role, content = _ROLES[self.role], self.content
        written = () if content is None or isinstance(content, str) else content
        parts = each("content", written, ContentPart.part)
        calls = each("tool_calls", self.tool_calls or (), ChatToolCall.call)
        if self.function_call is not None and not calls:
            calls += (ChatToolCall(function=self.function_call).call(),)
        if not content and not isinstance(content, str) and role != "assistant":
            if content is None:
                raise ValueFault("is missing", path=("content",), code="missing")
            # Only the result of a tool may be empty.
            if role != "tool":
                raise ValueFault("must not be empty", path=("content",))
        if content is None:
            content = self.refusal or ""
        return Message(
            role,
            content if isinstance(content, str) else text_of_parts(parts),
            parts if any(part.kind != "text" for part in parts) else (),
            calls if role == "assistant" else (),
            self.tool_call_id or "",
            self.name or "",
        )


def with_call_ids(messages: Sequence[Message]) -> list[Message]:
    """The messages with an id for each tool call, and for each result the id of its call.

    Functions, the older form of tools, have no ids, and some clients leave out the ids of tool
    calls. Then a result belongs to the first call without a result (of the same name, if the result
    has a name).
    """
    known = {call.id for message in messages for call in message.tool_calls}
    fresh = (name for name in map("call_{}".format, count()) if name not in known)
    found: list[Message] = []
    # By id: the names of the calls that have no result yet.
    waiting: dict[str, str] = {}
    for message in messages:
        if message.tool_calls:
            calls = [
                call if call.id else replace(call, id=next(fresh)) for call in message.tool_calls
            ]
            waiting = {call.id: call.name for call in calls}
            message = replace(message, tool_calls=tuple(calls))
        elif message.role == "tool":
            call_id = message.tool_call_id
            if not call_id:
                named = [id for id, name in waiting.items() if name == message.name]
                call_id = next(iter([*named, *waiting]), "")
                message = replace(message, tool_call_id=call_id)
            waiting.pop(call_id, None)
        found.append(message)
    return _results_behind_calls(found)


def _results_behind_calls(messages: Sequence[Message]) -> list[Message]:
    """The messages with each result of a tool behind the message that calls it, wherever the client
    has put it: endpoints take it nowhere else."""
    told: list[list[Message]] = []
    made: dict[str, list[Message]] = {}
    for message in messages:
        if message.role == "tool" and message.tool_call_id in made:
            made[message.tool_call_id].append(message)
            continue
        told.append([message])
        made.update((call.id, told[-1]) for call in message.tool_calls)
    return [message for group in told for message in group]


def each(name: str, items: Sequence[_T], read: Callable[[_T], _R]) -> tuple[_R, ...]:
    """The results of `read` for each item of the field `name`. A fault names the index of the
    item."""
    found = []
    for place, item in enumerate(items):
        try:
            found.append(read(item))
        except ValueFault as fault:
            fault.path = (name, place, *fault.path)
            raise
    return tuple(found)


def read_message(given: object) -> Message:
    """A message from its JSON values. Fields without an effect are left out.

    Raises ValueFault, whose path begins in the message.
    """
    if not isinstance(given, dict):
        raise ValueFault("is not an object")
    return ChatMessage(**read_fields(ChatMessage, tidied(given, []), JSON)).message()


def tidied(message: Any, ignored: list[str], *, strict: bool = False) -> Any:
    """The JSON values of a message without fields that have no effect; the names of those are added
    to `ignored`.

    strict: remove only the fields that client libraries send by themselves.
    """
    if not isinstance(message, dict):
        return message
    if message.get("role") == "assistant":
        message = {name: value for name, value in message.items() if name not in _OF_A_REPLY}
    if strict:
        return message
    message = only_known(message, keys_of(ChatMessage), ignored, "messages[].")
    content, calls = message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        left_out = (*_THOUGHTS, *_CALLS) if calls else _THOUGHTS
        message["content"] = [
            _tidied_part(chat_part(part), ignored)
            for part in content
            if not (isinstance(part, dict) and part.get("type") in left_out)
        ]
    elif content is None and message.get("role") in ("tool", "function"):
        # Some clients send null for an empty result.
        message["content"] = ""
    if isinstance(calls, list):
        message["tool_calls"] = [_tidied_call(call) for call in calls]
    return message


def _tidied_part(part: Any, ignored: list[str]) -> Any:
    place = "messages[].content[]."
    part = only_known(part, keys_of(ContentPart), ignored, place)
    if isinstance(part, dict):
        for name, kind in (("image_url", ImageUrl), ("file", FileData)):
            if name in part:
                part[name] = only_known(part[name], keys_of(kind), ignored, f"{place}{name}.")
    return part


def _tidied_call(call: Any) -> Any:
    """A tool call without the fields that chunks and other providers add."""
    call = only_known(call, keys_of(ChatToolCall), [])
    if isinstance(call, dict) and call.get("type") == "":
        del call["type"]
    if isinstance(call, dict) and "function" in call:
        call["function"] = only_known(call["function"], keys_of(CalledFunction), [])
    return call
