"""The SSE decoder: bytes to server-sent events, and these to the deltas of a completion."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

from moa_cli.clients.completion import CompletionReader
from moa_cli.clients.transport import ErrorObject
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import BadResponse, ConnectionLost

# An event is one JSON object of a few tokens; far beyond that nobody speaks this protocol.
_LONGEST_LINE = 16 * 1024 * 1024
_LINE_END = re.compile(r"\r\n|\n|\r")
# How the lines of a stream begin.
_FIELD = re.compile(rb"\s*(?:\xef\xbb\xbf)?(?::|data\b|event\b|id\b|retry\b|error\b)")
_LONGEST_NOTE = 2000
# For what may follow the end of an answer.
_REST_SECONDS = 1.5
_DECODER = json.JSONDecoder()


class SseDecoder:
    """Bytes to server-sent events (name, data) as they come (WHATWG HTML, section 9.2).

    An event without data is none. No I/O: whoever reads the connection feeds what it read.
    """

    def __init__(self) -> None:
        self._pending = b""
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[tuple[str, str]]:
        """The events that are whole with this chunk. Raises BadResponse for an endless line."""
        pending = self._pending + chunk
        if len(pending) > _LONGEST_LINE:
            raise BadResponse("the endpoint sent a line of over 16 MB")
        carriage = pending.rfind(b"\r")
        # A CR at the very end may be the first half of a CRLF.
        if carriage == len(pending) - 1:
            carriage = pending.rfind(b"\r", 0, carriage)
        cut = max(pending.rfind(b"\n"), carriage) + 1
        self._pending = pending[cut:]
        # Whole lines, so no letter is cut in two.
        text = pending[:cut].decode("utf-8", "replace")
        # At CR, LF and CRLF only: str.splitlines also splits at U+2028, which is allowed inside
        # a JSON string.
        lines = text.split("\n") if carriage < 0 else _LINE_END.split(text)
        return self._events(lines[:-1])

    def end(self) -> list[tuple[str, str]]:
        """The last event, which needs no blank line after it."""
        last = self._pending.rstrip(b"\r").decode("utf-8", "replace")
        self._pending = b""
        return self._events([last, ""])

    def _events(self, lines: list[str]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for line in lines:
            # Nearly all lines are one of these two.
            if line.startswith("data: "):
                self._data.append(line[6:])
            elif not line:
                if self._data:
                    found.append((self._name, "\n".join(self._data)))
                self._name, self._data = "", []
            else:
                self._field(line)
        return found

    def _field(self, line: str) -> None:
        key, _, value = line.removeprefix("\ufeff").partition(":")
        value = value.removeprefix(" ")
        if key == "data":
            self._data.append(value)
        elif key == "event":
            self._name = value
        elif key == "error":
            # No field of the standard's; llama.cpp wrote errors so until late in 2025.
            self._name = "error"
            self._data.append(value)


async def deltas(
    chunks: AsyncIterator[bytes],
    *,
    model: str = "",
    merged: bool = False,
    first: bytes = b"",
    watch: Callable[[str, str], None] | None = None,
) -> AsyncGenerator[Delta, None]:
    """The deltas of a streamed chat completion.

    model: that was asked. merged: one for all that came in one chunk, which costs less where
    nobody counts them. first: what was read of it already.
    watch: called with the name and the data of each event.
    Raises ErrorObject for an error object in the stream, ConnectionLost where it ends before
    a finish reason or the end mark, BadResponse for what is no JSON or no completion.
    """
    decoder, stream = SseDecoder(), _Stream(model)
    chunk = first
    rest_until: float | None = None
    while True:
        events = decoder.feed(chunk)
        if watch is not None:
            for name, data in events:
                watch(name, data)
        for delta in stream.take(events, merged=merged):
            yield delta
        if stream.done:
            break
        try:
            if not stream.reader.ended:
                chunk = await anext(chunks)
            else:
                # Only a usage may follow; some connections stay open without one.
                now = asyncio.get_running_loop().time()
                rest_until = rest_until or now + _REST_SECONDS
                async with asyncio.timeout_at(rest_until):
                    chunk = await anext(chunks)
        except StopAsyncIteration:
            for delta in stream.take_last(decoder.end(), merged=merged):
                yield delta
            break
        except Exception:
            # The answer is whole: what is lost is a count of its tokens at most.
            if not stream.reader.ended:
                raise
            break
        first = first or chunk
    rest = stream.reader.rest()
    if rest.text or rest.reasoning or rest.replaces:
        yield rest
    if stream.reader.ended:
        return
    if not stream.seen and first.strip() and not _FIELD.match(first):
        raise _told_by(first)
    raise ConnectionLost("the answer broke off before its end")


def _told_by(body: bytes) -> Exception:
    """The error for a body that is neither a stream nor JSON: what it says, if that is text."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or not all(letter.isprintable() or letter.isspace() for letter in text):
        return BadResponse("the endpoint answered with bytes that are no text")
    return ErrorObject(text[:_LONGEST_NOTE])


def events_to_deltas(events: list[tuple[str, str]], model: str = "") -> Iterator[Delta]:
    """The deltas of a completion whose events have all come. Raises as `deltas` does."""
    stream = _Stream(model)
    yield from stream.take(events, merged=True)
    rest = stream.reader.rest()
    if rest.text or rest.reasoning or rest.replaces:
        yield rest
    if not stream.reader.ended:
        raise ConnectionLost("the answer broke off before its end")


class _Stream:
    """The events of a stream, one after the other. seen: one has come; done: the end mark has."""

    def __init__(self, model: str) -> None:
        self.reader = CompletionReader(model)
        self.seen = False
        self.done = False

    def take(self, events: list[tuple[str, str]], *, merged: bool) -> Iterator[Delta]:
        """The deltas of the next events. Raises, behind them, why there are no more, if so."""
        reader = self.reader
        error: Exception | None = None
        taken = 0
        try:
            for name, data in events:
                self.seen = True
                if not data.startswith("{"):
                    if data.strip() == "[DONE]":
                        reader.ended = self.done = True
                        break
                    if not data.strip() and name != "error":
                        # As a sign of life.
                        continue
                reader.chunk(_payload(name, data, reader.began))
                if reader.error is not None:
                    error = reader.error
                    break
                taken += 1
                if not merged:
                    yield reader.delta()
        except (ErrorObject, BadResponse) as raised:
            error = raised
        if merged and taken:
            yield reader.delta()
        if error is not None:
            # What came with it, such as a usage.
            last = reader.delta()
            if last != Delta(model=last.model):
                yield last
            raise error

    def take_last(self, events: list[tuple[str, str]], *, merged: bool) -> Iterator[Delta]:
        """The same for what stands behind the last line end: it may be half of an event."""
        try:
            yield from self.take(events, merged=merged)
        except BadResponse:
            if self.reader.ended:
                return
            raise ConnectionLost("the answer broke off before its end") from None


def _payload(name: str, data: str, began: bool) -> dict[str, Any]:
    try:
        payload = _json(data)
    except (ValueError, RecursionError):
        if name == "error":
            raise ErrorObject(data, begun=began) from None
        raise BadResponse("the endpoint sent an event that is no JSON") from None
    if name == "error":
        raise ErrorObject(payload, begun=began)
    if type(payload) is not dict:
        raise BadResponse("the endpoint sent an event that is no completion chunk")
    return payload


def _json(data: str) -> Any:
    if data.startswith("{"):
        # What json.loads would do, without looking for white space: a third less for a token.
        value, end = _DECODER.raw_decode(data)
        if end == len(data):
            return value
    return json.loads(data)
