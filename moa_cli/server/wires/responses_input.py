"""The items of a Responses request, as the messages of a conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moa_cli.core.conversation import Message, Part, Role, text_of_parts
from moa_cli.core.tools import ToolCall
from moa_cli.core.values import ValueFault
from moa_cli.server.wires.addresses import file_part, image_part
from moa_cli.server.wires.bodies import refusal, refuse, text_or_none
from moa_cli.server.wires.custom_input import input_arguments
from moa_cli.server.wires.openai_tools import BUILTIN
from moa_cli.server.wires.responses_tools import ClientTool, ToolTable

_Path = tuple[str | int, ...]

_ROLES: dict[Any, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_IMAGES = ("input_image", "image_url", "computer_screenshot")
_FILES = ("input_file", "file")
# Types of a summary of the history that only its author can decrypt. Without it, the rest of the
# history would be misleading.
_SEALED = ("compaction", "compaction_summary", "context_compaction")
# Items that are left out: reasoning is not sent to models again.
_DROPPED = ("reasoning",)
# Fields of a call or a result that are not part of its content.
_ENVELOPE = ("type", "id", "call_id", "status", "execution", "caller", "created_by")


@dataclass
class _Calls:
    """The calls of one message of the assistant, and their results."""

    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)

    def messages(self) -> list[Message]:
        return [Message("assistant", self.text, tool_calls=tuple(self.calls)), *self.results]


class InputMessages:
    """Converts the items of `input` to messages.

    The results of calls are placed right after the message with the calls, because endpoints accept
    them nowhere else, while a client may put them anywhere later.
    """

    def __init__(self, tools: ToolTable) -> None:
        self.ignored: list[str] = []
        self._tools = tools
        self._said: list[Message | _Calls] = []
        # By the id of the call: its path in the body, and its message.
        self._made: dict[str, tuple[_Path, _Calls]] = {}
        self._answered: set[str] = set()
        self._results: set[str] = set()

    def read(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Read all items. Raises ApiError for an item that is malformed or not supported."""
        self._results = {
            str(item.get("call_id", item.get("id")))
            for item in items
            if str(item.get("type")).endswith("_output")
        }
        for place, item in enumerate(items):
            self._add(item, ("input", place))
        for name, (path, _) in self._made.items():
            if name not in self._answered:
                refuse("has no result: there is no output with this id", *path, "call_id")

    def messages(self) -> list[Message]:
        """The messages in order."""
        told: list[Message] = []
        for said in self._said:
            told.extend([said] if isinstance(said, Message) else said.messages())
        return told

    def _add(self, item: Mapping[str, Any], path: _Path) -> None:
        match item.get("type"):
            case None | "message":
                self._message(item, path)
            case "function_call":
                arguments = _text(item, "arguments", path)
                self._call(item, path, self._named(item, path, "function"), arguments)
            case "custom_tool_call":
                arguments = input_arguments(_text(item, "input", path))
                self._call(item, path, self._named(item, path, "custom"), arguments)
            case "function_call_output" | "custom_tool_call_output":
                self._result(item, path, item.get("output"))
            case "item_reference":
                problem = "refers to an earlier response, and this server stores none"
                refuse(f"{problem}: send all items (with most clients, `store: false`)", *path)
            case "compaction_trigger":
                refuse("asks for a summary, which this server does not make", *path)
            case kind if kind in _SEALED:
                refuse("is a summary that only the service that created it can read", *path)
            case kind if kind in _DROPPED:
                pass
            case "additional_tools":
                self._more_tools(item, path)
            case str() as kind:
                self._other(kind, item, path)
            case _:
                refuse("must be a text", *path, "type")

    def _message(self, item: Mapping[str, Any], path: _Path) -> None:
        role = _ROLES.get(_text(item, "role", path))
        if role is None:
            refuse("must be user, assistant, system or developer", *path, "role")
        parts = self._parts(item.get("content"), (*path, "content"))
        if role == "assistant":
            self._said.append(Message(role, text_of_parts(parts)))
        else:
            self._said.append(Message.of_parts(role, parts))

    def _call(self, item: Mapping[str, Any], path: _Path, tool: ClientTool, arguments: str) -> None:
        call_id = self._call_id(item, path)
        last = self._said[-1] if self._said else None
        if isinstance(last, Message) and last.role == "assistant":
            # Text and calls that follow each other are one reply of a model.
            last = self._said[-1] = _Calls(last.content)
        elif not isinstance(last, _Calls) or last.results:
            last = _Calls()
            self._said.append(last)
        last.calls.append(ToolCall(call_id, tool.sent_name, arguments))
        self._made[call_id] = path, last
        self._answered.discard(call_id)

    def _result(self, item: Mapping[str, Any], path: _Path, output: Any) -> None:
        call_id = self._call_id(item, path)
        if call_id not in self._made:
            refuse("names no call that stands before it", *path, "call_id")
        parts = self._parts(output, (*path, "output"))
        message = Message.of_parts("tool", parts)
        self._made[call_id][1].results.append(
            Message("tool", message.content, message.parts, tool_call_id=call_id)
        )
        self._answered.add(call_id)

    def _other(self, kind: str, item: Mapping[str, Any], path: _Path) -> None:
        """Read an item of one of OpenAI's built-in tools. Its call and its result are used if the
        client sends both; other items are ignored."""
        rest = {name: value for name, value in item.items() if name not in _ENVELOPE}
        name = str(item.get("call_id", item.get("id")))
        if kind.endswith("_call") and name in self._results:
            tool = self._tools.called(kind.removesuffix("_call"))
            builtin = BUILTIN.get(tool.kind)
            arguments = rest.get(builtin.holder if builtin else "arguments")
            if not isinstance(arguments, str):
                arguments = json.dumps(arguments if isinstance(arguments, dict) else rest)
            self._call(item, path, tool, arguments)
        elif kind.endswith("_output") and name in self._made:
            if isinstance(item.get("tools"), list):
                self._more_tools(item, path)
            output = rest.get("output")
            if isinstance(output, dict) and output.get("type") in _IMAGES:
                output = [output]
            elif not isinstance(output, str):
                output = json.dumps(rest) if rest else ""
            if isinstance(output, str) and item.get("status") == "failed":
                output = f"The tool failed.\n{output}".rstrip()
            self._result(item, path, output)
        else:
            self.ignored.append(f"input[].type={kind}")

    def _more_tools(self, item: Mapping[str, Any], path: _Path) -> None:
        tools = item.get("tools")
        if not isinstance(tools, list):
            refuse("must be a list of objects", *path, "tools")
        self._tools.add(tools, (*path, "tools"))

    def _named(self, item: Mapping[str, Any], path: _Path, kind: Any) -> ClientTool:
        namespace = text_or_none(item, "namespace", *path) or ""
        return ClientTool(kind, _text(item, "name", path), namespace)

    def _call_id(self, item: Mapping[str, Any], path: _Path) -> str:
        call_id = item.get("call_id") or item.get("id")
        if not isinstance(call_id, str) or not call_id:
            refuse("must be a text", *path, "call_id")
        return call_id

    def _parts(self, content: Any, path: _Path) -> list[Part]:
        if isinstance(content, str):
            return [Part("text", content)]
        if not isinstance(content, list):
            refuse("must be a text or a list of objects", *path)
        found = (self._part(part, (*path, place)) for place, part in enumerate(content))
        return [part for part in found if part is not None]

    def _part(self, part: Any, path: _Path) -> Part | None:
        if not isinstance(part, Mapping):
            refuse("must be an object", *path)
        kind = part.get("type")
        if not isinstance(kind, str):
            refuse("must be a text", *path, "type")
        if kind == "input_audio":
            refuse("is audio, which mixtures do not support", *path)
        if kind in _IMAGES:
            return _image(part, path)
        if kind in _FILES:
            return _file(part, path)
        if kind == "refusal":
            return Part("text", _text(part, "refusal", path))
        if kind in _TEXTS or isinstance(part.get("text"), str):
            return Part("text", _text(part, "text", path))
        self.ignored.append(f"input[].content[].type={kind}")
        return None


def _text(item: Mapping[str, Any], name: str, path: _Path) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        refuse("must be a text" if name in item else "is missing", *path, name)
    return value


def _image(part: Mapping[str, Any], path: _Path) -> Part:
    nested = part.get("image_url")
    # Chat completions nest the address in an object.
    told: Mapping[str, Any] = nested if isinstance(nested, Mapping) else {"url": nested}
    url, detail = told.get("url"), told.get("detail", part.get("detail"))
    if url is None and part.get("file_id") is not None:
        refuse("refers to a stored file: send the image itself", *path, "file_id")
    if not isinstance(url, str):
        refuse("must be a web address or a `data:` URI", *path, "image_url")
    try:
        return image_part(
            url, detail if detail in ("low", "high", "auto") else "", *path, "image_url"
        )
    except ValueFault as fault:
        raise refusal(fault) from None


def _file(part: Mapping[str, Any], path: _Path) -> Part:
    inner = part.get("file")
    told: Mapping[str, Any] = inner if isinstance(inner, Mapping) else part
    name, data, url = told.get("filename") or "", told.get("file_data"), told.get("file_url")
    if not isinstance(name, str):
        refuse("must be a text", *path, "filename")
    if data is None and url is None and told.get("file_id") is not None:
        refuse("refers to a stored file: send the file itself", *path, "file_id")
    given = data or url
    if not isinstance(given, str) or not given:
        refuse("must be a `data:` URI", *path, "file_url" if data is None else "file_data")
    try:
        return file_part(given, name, *path, "file_data")
    except ValueFault as fault:
        raise refusal(fault) from None
