"""Server-sent events to completion deltas.

Format: WHATWG HTML, section 9.2 (event stream interpretation), and the chunks of OpenAI's
chat completions as the providers write them in fact.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from moa_cli.clients.base import Delta
from moa_cli.conversation import Usage
from moa_cli.errors import BadResponse, ConnectionLost

__all__ = ["EventError", "ThinkSplitter", "deltas", "events", "usage_from", "whole"]

# An event is one JSON object of a few tokens; far beyond that nobody speaks this protocol.
_LONGEST_LINE = 16 * 1024 * 1024
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventError(Exception):
    """An error object inside a stream that began well. payload: the object, or a text."""

    def __init__(self, payload: object) -> None:
        super().__init__("error event")
        self.payload = payload


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    # On bytes, at CR, LF and CRLF only: text splitters also split at U+2028, which is
    # allowed inside a JSON string.
    pending = b""
    async for chunk in chunks:
        pending += chunk
        if len(pending) > _LONGEST_LINE:
            raise BadResponse("the endpoint sent a line of over 16 MB")
        start = 0
        for match in _LINE_END.finditer(pending):
            if match.group() == b"\r" and match.end() == len(pending):
                break  # may be the first half of a CRLF
            yield pending[start : match.start()]
            start = match.end()
        pending = pending[start:]
    if pending:
        yield pending.rstrip(b"\r")


async def events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[tuple[str, str], None]:
    """(event name, data) of each event with data; a last one needs no blank line after it."""
    name = ""
    data: list[str] = []
    async with aclosing(_lines(chunks)) as lines:
        async for raw in lines:
            line = raw.decode("utf-8", "replace").removeprefix("\ufeff")
            if not line:
                if data:
                    yield name, "\n".join(data)
                name, data = "", []
                continue
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if key == "data":
                data.append(value)
            elif key == "event":
                name = value
    if data:
        yield name, "\n".join(data)


async def deltas(chunks: AsyncIterator[bytes]) -> AsyncGenerator[Delta, None]:
    """The deltas of a streamed chat completion.

    Raises EventError for an error object in the stream, ConnectionLost where it ends before
    a finish reason or the end mark, BadResponse for what is no JSON or no completion.
    """
    splitter = ThinkSplitter()
    ended = False
    async with aclosing(events(chunks)) as told:
        async for name, data in told:
            if data.strip() == "[DONE]":
                ended = True
                break
            payload = _payload(name, data)
            delta = _of_chunk(payload, splitter)
            ended = ended or delta.finish_reason is not None
            yield delta
    rest = splitter.flush()
    if rest.text or rest.reasoning:
        yield rest
    if not ended:
        raise ConnectionLost("the answer broke off before its end")


def _payload(name: str, data: str) -> dict[str, Any]:
    try:
        payload = json.loads(data)
    except ValueError:
        if name == "error":
            raise EventError(data) from None
        raise BadResponse("the endpoint sent an event that is no JSON") from None
    if name == "error" or (isinstance(payload, dict) and payload.get("error")):
        raise EventError(payload)
    if not isinstance(payload, dict):
        raise BadResponse("the endpoint sent an event that is no completion chunk")
    return payload


def _of_chunk(payload: dict[str, Any], splitter: ThinkSplitter) -> Delta:
    model = payload.get("model")
    choices = payload.get("choices") or [{}]
    choice = choices[0] if isinstance(choices, list) else None
    choice = choice if isinstance(choice, dict) else {}
    body = choice.get("delta") or choice.get("message") or {}
    body = body if isinstance(body, dict) else {}
    reasoning = _text(body.get("reasoning_content")) or _text(body.get("reasoning"))
    split = splitter.feed(_text(body.get("content")))
    reason = choice.get("finish_reason")
    if reason == "error":
        raise EventError(choice.get("error") or payload)
    return Delta(
        text=split.text,
        reasoning=reasoning + split.reasoning,
        usage=usage_from(payload),
        finish_reason=reason if isinstance(reason, str) and reason else None,
        model=model if isinstance(model, str) and model else None,
    )


def _text(content: object) -> str:
    """Content as text: a string, or a list of parts that hold text."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_text(part) for part in content)
    if isinstance(content, dict):
        return _text(content.get("text"))
    return ""


def usage_from(payload: dict[str, Any]) -> Usage | None:
    """The usage that a chunk or a completion tells, wherever the provider puts it."""
    groq = payload.get("x_groq")
    told = payload.get("usage") or (groq.get("usage") if isinstance(groq, dict) else None)
    if not isinstance(told, dict):
        return None

    def count(table: object, key: str) -> int:
        value = table.get(key) if isinstance(table, dict) else None
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    return Usage(
        prompt_tokens=count(told, "prompt_tokens"),
        completion_tokens=count(told, "completion_tokens"),
        reasoning_tokens=count(told.get("completion_tokens_details"), "reasoning_tokens"),
        cached_tokens=count(told.get("prompt_tokens_details"), "cached_tokens")
        or count(told, "prompt_cache_hit_tokens"),
        calls=1,
    )


class ThinkSplitter:
    """Parts a leading `<think>…</think>` of a streamed answer from its text.

    Only at the very start: an answer that speaks of the tag later keeps its words.
    """

    _OPEN, _CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"

    def feed(self, text: str) -> Delta:
        """The text and the reasoning in the next piece, as far as it can be told."""
        if self._state == "text" or not text:
            return Delta(text=text)
        self._held += text
        if self._state == "start":
            begun = self._held.lstrip()
            if begun.startswith(self._OPEN):
                self._state, self._held = "thinking", begun[len(self._OPEN) :]
            elif self._OPEN.startswith(begun):
                return Delta()
            else:
                return self._release("text")
        if self._state == "after":
            return self._after()
        return self._think()

    def _think(self) -> Delta:
        reasoning, closing, rest = self._held.partition(self._CLOSE)
        if closing:
            self._state, self._held = "after", rest
            return Delta(text=self._after().text, reasoning=reasoning)
        keep = next(
            (n for n in range(len(self._CLOSE) - 1, 0, -1) if reasoning.endswith(self._CLOSE[:n])),
            0,
        )
        cut = len(reasoning) - keep
        self._held = reasoning[cut:]
        return Delta(reasoning=reasoning[:cut])

    def _after(self) -> Delta:
        # The white space between the reasoning and the answer belongs to neither.
        self._held = self._held.lstrip()
        return self._release("text") if self._held else Delta()

    def _release(self, state: str) -> Delta:
        text, self._held, self._state = self._held, "", state
        return Delta(text=text)

    def flush(self) -> Delta:
        """What was held back, at the end of the answer."""
        thinking = self._state == "thinking"
        held, self._held = self._held, ""
        return Delta(reasoning=held) if thinking else Delta(text=held)


def whole(payload: dict[str, Any]) -> Delta:
    """A completion that came in one piece, as one delta."""
    splitter = ThinkSplitter()
    first, rest = _of_chunk(payload, splitter), splitter.flush()
    return Delta(
        text=first.text + rest.text,
        reasoning=first.reasoning + rest.reasoning,
        usage=first.usage,
        finish_reason=first.finish_reason or "stop",
        model=first.model,
    )
