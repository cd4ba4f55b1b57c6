"""The SSE decoder: turns bytes into server-sent events, and these into the deltas of a
completion."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice, repeat
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Literal

from moa_cli.clients.completion import CompletionReader
from moa_cli.clients.transport import ErrorObject
from moa_cli.clients.usage import Bounds
from moa_cli.core.endpoints import Delta
from moa_cli.core.errors import BadResponse, ConnectionLost

# Most bytes of an event. An event is one JSON object with a few tokens, so a much larger one is not
# this protocol.
_LONGEST_EVENT = 16 * 1024 * 1024
_LINE_END = re.compile(r"\r\n|\n|\r")
# How the lines of a stream begin.
_FIELD = re.compile(rb"\s*(?:\xef\xbb\xbf)?(?::|data\b|event\b|id\b|retry\b|error\b)")
_LONGEST_NOTE = 2000
_SIGNS_OF_LIFE = ("ping", "heartbeat", "keepalive", "keep-alive")
# Seconds to wait, after the finish reason, for a usage or the end of the stream.
_REST_SECONDS = 1.5
# If this many events arrive at once, they become one delta: on a screen they would appear together
# anyway.
_BURST = 16
_DECODER = json.JSONDecoder()
_CONTENT = '"content"'
_OPENING = re.compile(rf'{_CONTENT}\s*:\s*"')
# Most shapes of text events that are learned from one stream; then it is given up.
_MOST_SHAPES = 3


class SseDecoder:
    """Turns bytes into server-sent events (name, data) (WHATWG HTML, section 9.2).

    An event without data is dropped. The decoder does no I/O: its user reads the connection and
    feeds the bytes.
    """

    def __init__(self) -> None:
        # The pieces of an incomplete line, joined once when the line ends.
        self._pieces: list[bytes] = []
        self._name = ""
        self._data: list[str] = []
        # An upper bound of the bytes since the last event.
        self._size = 0

    def feed(self, chunk: bytes) -> list[tuple[str, str]]:
        """The events that this chunk completes. Raises BadResponse for an event that is too
        large."""
        if not chunk or self._pieces or self._data or self._name:
            return self._add(chunk) if chunk else []
        # Most chunks are one event.
        if chunk[:7] == b"data: {" and chunk.find(b"\n") == len(chunk) - 2 > 0:
            data = chunk[6:-2]
            if chunk.endswith(b"\n\n") and b"\r" not in data:
                return [("", data.decode("utf-8", "replace"))]
        return self._add(chunk)

    def _add(self, chunk: bytes) -> list[tuple[str, str]]:
        self._size += len(chunk)
        if self._size > _LONGEST_EVENT:
            raise BadResponse("the endpoint sent an event larger than 16 MB")
        pieces = self._pieces
        pieces.append(chunk)
        carriage = chunk.find(b"\r") >= 0 or (len(pieces) > 1 and pieces[-2].endswith(b"\r"))
        if not carriage and b"\n" not in chunk:
            return []
        pending = chunk if len(pieces) == 1 else b"".join(pieces)
        end = pending.rfind(b"\r") if carriage else -1
        # A CR at the very end may be the first half of a CRLF.
        if end == len(pending) - 1:
            end = pending.rfind(b"\r", 0, end)
        cut = max(pending.rfind(b"\n"), end) + 1
        self._pieces = [pending[cut:]] if cut < len(pending) else []
        # Only whole lines are decoded, so no multi-byte character is cut.
        text = pending[:cut].decode("utf-8", "replace")
        if not carriage and not self._pieces and not self._data and not self._name:
            whole = _frames(text)
            if whole is not None:
                self._size = 0
                return whole
        # Split at CR, LF and CRLF only: str.splitlines also splits at U+2028, which is allowed
        # inside a JSON string.
        lines = _LINE_END.split(text) if carriage else text.split("\n")
        events = self._events(lines[:-1])
        if events or not self._data:
            self._size = len(pending)
            if not self._data:
                self._size -= cut
        return events

    def end(self) -> list[tuple[str, str]]:
        """The last event, which needs no blank line after it."""
        last = b"".join(self._pieces).rstrip(b"\r").decode("utf-8", "replace")
        self._pieces = []
        return self._events([last, ""])

    def _events(self, lines: list[str]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for line in lines:
            # Nearly all lines are one of these two.
            if line.startswith("data: "):
                if self._data:
                    self._part(line[6:], found)
                self._data.append(line[6:])
            elif not line:
                if self._data:
                    found.append((self._name, "\n".join(self._data)))
                self._name, self._data = "", []
            elif line[0] == "{" and line[-1] == "}":
                # An error that a server or proxy writes into a stream without `data:`.
                self._part(line, found)
                self._data.append(line)
            else:
                self._field(line)
        return found

    def _part(self, line: str, found: list[tuple[str, str]]) -> None:
        """End the event so far if it is a JSON object, and the next line of data begins another
        one, or is the end mark: some servers send no blank line between events."""
        data = self._data
        if data and line[:1] in ("{", "[") and data[0][:1] == "{" and data[-1][-1:] == "}":
            found.append((self._name, "\n".join(data)))
            self._name, self._data = "", []

    def _field(self, line: str) -> None:
        key, _, value = line.removeprefix("\ufeff").partition(":")
        value = value.removeprefix(" ")
        if key == "data":
            self._data.append(value)
        elif key == "event":
            self._name = value
        elif key == "error":
            # The standard has no such field; llama.cpp wrote errors like this until late in 2025.
            self._name = "error"
            self._data.append(value)


def _frames(text: str) -> list[tuple[str, str]] | None:
    """The events of a text of complete events with one line of data each; None for any other text.
    Nearly all texts are like this, and this way takes half the time."""
    if not text.startswith("data: ") or not text.endswith("\n\n"):
        return None
    found = text[6:-2].split("\n\ndata: ")
    return list(zip(repeat(""), found)) if text.count("\n") == 2 * len(found) else None


class DeltaReader:
    """Reads the deltas of a streamed chat completion. Not a generator, because the caller is one
    already, and each generator costs time for each token.

    chunks: the bytes as they arrive. model: the requested model. merged: whether all events of a
    chunk become one delta, which costs less if nobody watches single tokens. first: the bytes that
    were read already. watch: called with the name and the data of each event. bounds: the bounds of
    a believable usage. sized: whether the endpoint told the length of the body. Then the end of the
    chunks is the end of the answer, also without a finish reason.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        *,
        model: str = "",
        merged: bool = False,
        first: bytes = b"",
        watch: Callable[[str, str], None] | None = None,
        bounds: Bounds | None = None,
        sized: bool = False,
    ) -> None:
        self._chunks = chunks
        self._sized = sized
        self._merged = merged
        self._first = first
        self._watch = watch
        self._decoder, self._stream = SseDecoder(), _Stream(model, bounds)
        # The chunk to read next; None if it must be received first.
        self._next: bytes | None = first
        # The time by which the rest must arrive, once the answer has ended.
        self._until = 0.0
        # Whether all bytes were received; whether all events were read; and whether the text that
        # the reader holds back was returned.
        self._stopped = self._over = self._told_rest = False

    async def read(self) -> list[Delta]:
        """The next deltas, at least one; an empty list at the end.

        Raises ErrorObject for an error object in the stream, ConnectionLost if the stream ends
        before a finish reason, the end mark or the told length, BadResponse for an event that is
        not JSON or not a completion. After a finish reason it raises nothing: the answer is
        complete, and at most the count of its tokens is lost.
        """
        while not self._over:
            found = await self._read_more()
            if found:
                return found
        if not self._told_rest:
            self._told_rest = True
            rest = self._stream.reader.rest()
            if rest.text or rest.reasoning or rest.replaces:
                return [rest]
        if self._stream.reader.ended:
            return []
        if not self._stream.seen and self._first.strip() and not _FIELD.match(self._first):
            raise _told_by(self._first)
        raise ConnectionLost("the answer ended early")

    async def _read_more(self) -> list[Delta]:
        """The deltas of the next chunk; an empty list if it completes no event, or there is no
        chunk."""
        stream = self._stream
        if self._stopped:
            self._over = True
            # The text after the last line end may be half an event, so it is no error if it cannot
            # be read.
            if not isinstance(stream.error, BadResponse):
                stream.raise_error()
            return []
        if self._next is None:
            stream.raise_error()
            came = "nothing" if stream.done else await self._receive()
            if came == "nothing":
                self._over = True
                return []
            if came == "end":
                self._stopped = True
                found = stream.take(self._decoder.end(), merged=self._merged)
                if self._sized and stream.error is None and stream.reader.has_answer:
                    stream.reader.ended = True
                return found
        chunk, self._next = self._next, None
        try:
            events = self._decoder.feed(chunk or b"")
        except BadResponse:
            if not stream.reader.ended:
                raise
            self._over = True
            return []
        if self._watch is not None:
            for name, data in events:
                self._watch(name, data)
        found = stream.take(events, merged=self._merged or len(events) >= _BURST)
        if self._until and any(delta.text or delta.reasoning for delta in found):
            # Some endpoints send a finish reason with each chunk, or with each piece of reasoning.
            self._until = 0.0
        return found

    async def _receive(self) -> Literal["chunk", "end", "nothing"]:
        """Wait for the next chunk or for the end of the stream; returns which of them came."""
        reader = self._stream.reader
        try:
            if not reader.ended:
                self._next = await anext(self._chunks)
            else:
                # Only a usage may follow, and some connections stay open without sending one.
                self._until = self._until or asyncio.get_running_loop().time() + _REST_SECONDS
                async with asyncio.timeout_at(self._until):
                    self._next = await anext(self._chunks)
        except StopAsyncIteration:
            return "end"
        except Exception:
            if not reader.ended:
                raise
            return "nothing"
        self._first = self._first or self._next
        return "chunk"


def _told_by(body: bytes) -> Exception:
    """The error for a body that is neither a stream nor JSON: its text, if it is text."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or not all(letter.isprintable() or letter.isspace() for letter in text):
        return BadResponse("the endpoint answered with bytes that are not text")
    return ErrorObject(text[:_LONGEST_NOTE])


def events_to_deltas(
    events: list[tuple[str, str]], model: str = "", bounds: Bounds | None = None
) -> Iterator[Delta]:
    """The deltas of a completion whose events have all arrived. Raises as `DeltaReader.read`
    does."""
    stream = _Stream(model, bounds)
    yield from stream.take(events, merged=False)
    stream.raise_error()
    rest = stream.reader.rest()
    if rest.text or rest.reasoning or rest.replaces:
        yield rest
    if not stream.reader.ended:
        raise ConnectionLost("the answer ended early")


class _Stream:
    """Turns the events of a stream into deltas.

    seen: an event has arrived. done: the end mark has arrived. error: the error that ended the
    stream, to be raised after the deltas before it.
    """

    def __init__(self, model: str, bounds: Bounds | None = None) -> None:
        self.reader = CompletionReader(model, bounds=bounds)
        self.seen = False
        self.done = False
        self.error: Exception | None = None
        self._texts = _TextShape()

    def raise_error(self) -> None:
        """Raise the error, if there is one."""
        if self.error is not None:
            raise self.error from None

    def take(self, events: list[tuple[str, str]], *, merged: bool) -> list[Delta]:
        """The deltas of the next events."""
        reader = self.reader
        found: list[Delta] = []
        taken = False
        payloads: list[dict[str, Any]] | None = None
        # The index of the event that is read now, and of the first event in `payloads`.
        place = first = 0
        while place < len(events):
            name, data = events[place]
            self.seen = True
            shape = self._texts
            texts = shape.of(events, place) if shape.known and reader.takes_texts else None
            if texts:
                place += len(texts)
                for said in [texts] if merged else [[text] for text in texts]:
                    reader.add_texts(said)
                    found += reader.take_before()
                    if not merged:
                        found.append(reader.delta())
                taken = merged
                continue
            if payloads is None and merged and shape.hopeless:
                payloads, first = _read_together(events[place:]), place
            payload = None
            if payloads and place - first < len(payloads):
                payload = payloads[place - first]
                read = reader.texts(islice(payloads, place - first, None))
                if read:
                    place += read
                    taken = True
                    found += reader.take_before()
                    continue
            place += 1
            if data[:1] != "{":
                if data.strip() == "[DONE]":
                    reader.ended = self.done = True
                    break
                if (not data.strip() and name != "error") or name in _SIGNS_OF_LIFE:
                    # An event that only keeps the connection alive.
                    continue
            whole = reader.ended and reader.has_answer
            try:
                payload = payload or _payload(name, data, reader.began)
                if reader.chunk(payload):
                    shape.learn(data)
                error: Exception | None = reader.error
            except (ErrorObject, BadResponse) as raised:
                error = raised
            if error is not None:
                if whole:
                    self.done = True
                else:
                    self.error = error
                break
            # A usage counts the text before it, so the text after it becomes a delta of its own.
            taken = merged and not reader.tells_usage
            if reader.before:
                found += reader.take_before()
            if not taken:
                found.append(reader.delta())
        if taken:
            found.append(reader.delta())
        if self.error is not None:
            # The fields that came with the error, such as a usage.
            last = reader.delta()
            if last != Delta(model=last.model):
                found.append(last)
        return found


class _TextShape:
    """The common shape of the events of a stream that hold a piece of the answer's text.

    Usually these events differ only in the text. So only the first one must be parsed as JSON: a
    later event with the same beginning and the same end, and one JSON string between them, is the
    same object with another text. Comparing takes a quarter of the time of parsing.

    known: whether a shape was learned. hopeless: the events of this stream differ in more than the
    text.
    """

    def __init__(self) -> None:
        self.known = self.hopeless = False
        # The data before the text, including the opening quote, and after it, including the closing
        # quote.
        self._before = self._behind = ""
        self._learned = 0

    def learn(self, data: str) -> None:
        """Learn the shape of `data`, an event that holds a text and nothing else."""
        self._learned += 1
        # A few shapes are learned, because the first event may differ: a model's name or an id may
        # come with the first token only.
        self.hopeless = self._learned > _MOST_SHAPES
        self.known = False
        found = None if self.hopeless else _OPENING.search(data)
        # A text cannot contain the key with its quotes, because they are escaped in it. A second
        # occurrence is another field.
        if found is None or data.count(_CONTENT) > 1:
            return
        self._before = data[: found.end()]
        self._behind = data[scanstring(data, found.end())[1] - 1 :]
        self.known = True

    def of(self, events: list[tuple[str, str]], place: int) -> list[str]:
        """The texts of the events from an index on, up to the first event that does not have the
        shape."""
        before, behind = self._before, self._behind
        datas: list[str] = []
        for name, data in islice(events, place, None):
            if name or not data.startswith(before) or not data.endswith(behind):
                break
            datas.append(data)
        return datas and (self._as_they_stand(datas) or self._scanned(datas))

    def _as_they_stand(self, datas: list[str]) -> list[str]:
        """The texts of these events; an empty list if one of them contains an escape sequence."""
        start, rest = len(self._before), len(self._behind)
        texts = [data[start:-rest] for data in datas]
        said = "".join(texts)
        # `isprintable` is False for line breaks and for halves of surrogate pairs.
        if not said.isprintable() or '"' in said or "\\" in said:
            return []
        # The beginning and the end of an event must not overlap.
        whole = sum(map(len, datas)) == len(said) + len(datas) * (start + rest)
        return texts if whole else []

    def _scanned(self, datas: list[str]) -> list[str]:
        """The texts of these events, up to the first event that holds more than a text."""
        start, rest = len(self._before), len(self._behind)
        found: list[str] = []
        for data in datas:
            try:
                text, end = scanstring(data, start)
                if end + rest - 1 != len(data):
                    break
                if not text.isascii():
                    # Raises ValueError for half of a surrogate pair.
                    text.encode()
            except ValueError:
                break
            found.append(text)
        return found


def _read_together(events: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """The objects of the first events, parsed as one JSON list, which is faster than one by one.

    An empty list if one of them is not an object: then each is parsed by itself, to find the bad
    one.
    """
    texts = []
    for name, data in events:
        if name or data[:1] != "{" or data[-1:] != "}":
            break
        texts.append(data)
    try:
        found, _ = _DECODER.raw_decode(f"[{','.join(texts)}]")
    except (ValueError, RecursionError):
        return []
    is_sound = len(found) == len(texts) and all(type(payload) is dict for payload in found)
    return found if is_sound else []


def _payload(name: str, data: str, began: bool) -> dict[str, Any]:
    try:
        # The same as json.loads, but without its search for white space, which saves a third of the
        # time for a token.
        payload, end = _DECODER.raw_decode(data) if data[:1] == "{" else (None, -1)
        if end != len(data):
            payload = json.loads(data)
    except (ValueError, RecursionError):
        if name == "error":
            raise ErrorObject(data, begun=began) from None
        raise BadResponse("the endpoint sent an event that is not JSON") from None
    if name == "error":
        raise ErrorObject(payload, begun=began)
    if type(payload) is not dict:
        raise BadResponse("the endpoint sent an event that is not a completion chunk")
    return payload
