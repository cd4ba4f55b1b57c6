"""Converts the messages and content blocks of Anthropic's Messages API to messages of the core.

Content that changes the meaning and is not supported is refused by its name. Unknown blocks and
fields are left out and named, because clients send new ones every month.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from moa_cli.core.conversation import Conversation, Message, Part, Role
from moa_cli.core.tools import ToolCall
from moa_cli.core.values import ValueFault
from moa_cli.server.errors import ApiError
from moa_cli.server.wires.bodies import refusal, refuse
from moa_cli.server.wires.fields import only_known
from moa_cli.server.wires.tool_names import sendable

_Path = tuple[str | int, ...]
_Block = Mapping[str, Any]

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_IMAGE_TYPE = re.compile(r"image/[a-z0-9.+-]{1,40}")
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+=*\s*")
# Reasoning blocks are left out: their signature is only valid for the model that wrote them.
_THOUGHTS = ("thinking", "redacted_thinking")
# The fields of each block that have an effect.
_KNOWN: dict[str, tuple[str, ...]] = {
    "text": ("type", "text"),
    "image": ("type", "source"),
    "document": ("type", "source", "title", "context"),
    "search_result": ("type", "source", "title", "content"),
    "tool_use": ("type", "id", "name", "input"),
    "tool_result": ("type", "tool_use_id", "content", "is_error"),
    "tool_reference": ("type", "tool_name"),
    "compaction": ("type", "content"),
}
# Claude Code puts a line before the system prompt, with its version and a number that may change
# with each request. The line is useless for a model and would prevent that a cache finds the
# prompt.
_BILLING = "x-anthropic-billing-header:"


class ContentReader:
    """Reads the system prompt and the messages of one request.

    ignored: the names of blocks and fields that are left out are added to it.
    """

    def __init__(self, ignored: list[str]) -> None:
        self._ignored = ignored
        self._messages: list[Message] = []
        # Messages between a tool call and its result, which move behind the result, because no
        # endpoint accepts them in between.
        self._late: list[tuple[Message, bool]] = []
        # The index of the user's last message that holds more than tool results.
        self._prompt: int | None = None
        # The tool calls whose results must come next, by id; and the path of these calls.
        self._open: dict[str, str] = {}
        self._asked_at: _Path = ()

    def system(self, content: str | Sequence[_Block]) -> None:
        parts = [
            part
            for place, block in enumerate(_blocks(content))
            for part in self._parts(block, ("system", place))
        ]
        kept = [part for part in parts if not part.text.startswith(_BILLING)]
        if len(kept) < len(parts):
            self._ignored.append("x-anthropic-billing-header")
        self._add("system", kept)

    def message(self, role: str, content: str | Sequence[_Block], place: int) -> None:
        """Read the next message. place: its index in the list of all messages."""
        path: _Path = ("messages", place, "content")
        parts: list[Part] = []
        calls: list[ToolCall] = []
        results: list[Message] = []
        for number, block in enumerate(_blocks(content)):
            inner = path if isinstance(content, str) else (*path, number)
            match _kind(block, inner), role:
                case "tool_use", "assistant":
                    calls.append(self._call(block, inner))
                case "tool_result", "user":
                    results.append(self._result(block, inner))
                case ("tool_use" | "tool_result") as kind, _:
                    refuse(f"must not be {kind} in a message of the {role}", *inner, "type")
                case _:
                    parts += self._parts(block, inner)
        if role == "assistant":
            self._assistant(parts, calls, path)
            return
        self._messages += results
        if not self._open:
            self._take_late()
        self._add(role, parts, prompt=not results)

    def _assistant(self, parts: Sequence[Part], calls: Sequence[ToolCall], path: _Path) -> None:
        before = self._messages[-1] if self._messages else None
        if before is not None and before.role == "assistant" and (calls or before.tool_calls):
            # Anthropic joins consecutive messages of the assistant: the results of all their calls
            # follow the last one.
            self._messages.pop()
        else:
            self._check_results()
            if not calls:
                self._add("assistant", parts)
                return
            before = Message("assistant", "")
        if calls:
            self._asked_at = self._asked_at if self._open else path
            self._open |= {call.id: call.name for call in calls}
        said = [text for text in (before.content, *(part.as_text for part in parts)) if text]
        made = (*before.tool_calls, *calls)
        self._messages.append(Message("assistant", "\n".join(said), tool_calls=made))

    def _add(self, role: str, parts: Sequence[Part], *, prompt: bool = False) -> None:
        if parts:
            message = Message.of_parts(_ROLES[role], parts)
            self._late.append((message, prompt and role == "user"))
        if not self._open:
            self._take_late()

    def _take_late(self) -> None:
        for message, is_prompt in self._late:
            if is_prompt:
                self._prompt = len(self._messages)
            self._messages.append(message)
        self._late = []

    def conversation(self) -> Conversation:
        """The conversation. The message to answer is the user's last one that holds more than tool
        results."""
        self._check_results()
        if self._prompt is None:
            refuse("contains nothing from the user", "messages")
        return Conversation.of(self._messages, self._prompt)

    def _check_results(self) -> None:
        """Refuse tool calls without results: no endpoint accepts them, and the proposals would be
        paid for nothing."""
        if self._open:
            name = next(iter(self._open.values()))
            refuse(f"calls the tool `{name[:60]}`, and no result of it follows", *self._asked_at)

    def _call(self, block: _Block, path: _Path) -> ToolCall:
        self._note_unknown(block, "tool_use")
        given = block.get("input") or {}
        if not isinstance(given, Mapping):
            refuse("must be an object", *path, "input")
        arguments = json.dumps(given, ensure_ascii=False)
        name = sendable(_text(block, "name", path))
        return ToolCall(_text(block, "id", path), name, arguments)

    def _result(self, block: _Block, path: _Path) -> Message:
        self._note_unknown(block, "tool_result")
        call = _text(block, "tool_use_id", path)
        if call not in self._open:
            refuse("is the id of no `tool_use` block in the message before", *path, "tool_use_id")
        del self._open[call]
        parts: list[Part] = []
        for inner, at in _inner_blocks(block, path):
            parts += self._parts(inner, at)
        if block.get("is_error") is True:
            parts = [Part("text", "The tool failed."), *(part for part in parts if part.as_text)]
        return replace(Message.of_parts("tool", parts), tool_call_id=call)

    def _parts(self, block: _Block, path: _Path) -> list[Part]:
        kind = _kind(block, path)
        self._note_unknown(block, kind)
        match kind:
            case "text":
                return [Part("text", _text(block, "text", path, blank=True))]
            case "image":
                return [self._image(_object(block, "source", path), (*path, "source"))]
            case "document":
                return self._document(block, path)
            case "search_result":
                found = [block.get("title"), block.get("source")]
                return [Part("text", "\n".join([*_texts(found), *_texts_of(block.get("content"))]))]
            case "tool_reference":
                # The result of a search for tools. All tools of the request are offered anyway.
                name = sendable(_text(block, "tool_name", path))
                return [Part("text", f"Found the tool {name}.")]
            case "compaction":
                # A summary that replaces the earlier conversation.
                return [Part("text", text) for text in _texts([block.get("content")])]
            case "container_upload":
                refuse(
                    "refers to a file stored at Anthropic, which this server cannot read",
                    *path,
                    "type",
                )
            case _ if kind in _THOUGHTS:
                return []
            case _ if kind.endswith("_tool_result"):
                # The result of a tool that another server ran.
                texts = _texts_of(block.get("content"))
                if texts:
                    return [Part("text", "\n".join(texts))]
        self._ignored.append(f"content[].type={kind}")
        return []

    def _image(self, source: _Block, path: _Path) -> Part:
        match source.get("type"):
            case "base64":
                kind = _text(source, "media_type", path).lower()
                if not _IMAGE_TYPE.fullmatch(kind):
                    refuse(f"is not an image type: {kind[:60]!r}", *path, "media_type")
                return Part("image", url=_data_url(kind, source, path))
            case "url":
                return Part("image", url=_web_address(source, path))
        raise _wrong_source(source, path)

    def _document(self, block: _Block, path: _Path) -> list[Part]:
        source, name = _object(block, "source", path), " ".join(_texts([block.get("title")]))
        context = [Part("text", text) for text in _texts([block.get("context")])]
        path = (*path, "source")
        match source.get("type"):
            case "base64":
                kind = _text(source, "media_type", path).lower()
                if kind != "application/pdf":
                    refuse("must be application/pdf", *path, "media_type")
                url = _data_url(kind, source, path)
                return [*context, Part("file", url=url, name=name or "document.pdf")]
            case "url":
                url = _web_address(source, path)
                return [*context, Part("file", url=url, name=name or url.rpartition("/")[2])]
            case "text":
                text = _text(source, "data", path, blank=True)
                return [*context, Part("file", text=text, name=name)]
            case "content":
                inner: list[Part] = []
                for part, at in _inner_blocks(source, path):
                    if _kind(part, at) not in ("text", "image"):
                        refuse("must be text or image", *at, "type")
                    inner += self._parts(part, at)
                text = "\n".join(part.text for part in inner if part.kind == "text")
                others = [part for part in inner if part.kind != "text"]
                return [*context, Part("file", text=text, name=name), *others]
        raise _wrong_source(source, path)

    def _note_unknown(self, block: _Block, kind: str) -> None:
        """Name the fields of a block that have no effect."""
        if kind in _KNOWN:
            only_known(block, _KNOWN[kind], self._ignored)


def _blocks(content: str | Sequence[_Block]) -> Sequence[_Block]:
    """Content as a list of blocks; a text becomes one block."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _inner_blocks(holder: _Block, path: _Path) -> list[tuple[_Block, _Path]]:
    """The blocks in the content of a block, each with its path."""
    content = holder.get("content") or ""
    if not isinstance(content, str | list):
        refuse("must be a text or a list of blocks", *path, "content")
    blocks = enumerate(_blocks(content))
    return [(block, (*path, "content", number)) for number, block in blocks]


def _kind(block: Any, path: _Path) -> str:
    if not isinstance(block, Mapping):
        refuse("must be an object", *path)
    return _text(block, "type", path)


def _text(block: _Block, name: str, path: _Path, *, blank: bool = False) -> str:
    text = block.get(name)
    if text is None:
        refuse("is missing", *path, name)
    if not isinstance(text, str):
        refuse("must be a text", *path, name)
    if not text and not blank:
        refuse("must not be empty", *path, name)
    return text


def _object(block: _Block, name: str, path: _Path) -> _Block:
    value = block.get(name)
    if not isinstance(value, Mapping):
        refuse("is missing" if value is None else "must be an object", *path, name)
    return value


def _data_url(kind: str, source: _Block, path: _Path) -> str:
    data = _text(source, "data", path)
    if not _BASE64.fullmatch(data):
        refuse("must be base64", *path, "data")
    return f"data:{kind};base64,{''.join(data.split())}"


def _web_address(source: _Block, path: _Path) -> str:
    url = _text(source, "url", path)
    if not url.lower().startswith(("https://", "http://")):
        refuse("must be a web address", *path, "url")
    return url


def _wrong_source(source: _Block, path: _Path) -> ApiError:
    problem = "must be one of base64, url, text, content"
    if source.get("type") == "file":
        problem = "refers to a file stored at Anthropic; send its data"
    return refusal(ValueFault(problem, path=(*path, "type")))


def _texts(values: Iterable[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str) and value]


def _texts_of(content: Any) -> list[str]:
    """The readable texts in the result of a tool that a server ran."""
    found: list[str] = []
    waiting = [content]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, str):
            found += _texts([inner])
        elif isinstance(inner, Mapping):
            found += _texts(map(inner.get, ("title", "url", "text", "stdout", "stderr")))
            waiting.append(inner.get("content"))
        elif isinstance(inner, list):
            waiting += reversed(inner)
    return found
