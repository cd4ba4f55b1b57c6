"""What an endpoint does with a request, byte for byte, as a list of steps."""

from __future__ import annotations

import enum
import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import responses
from typing import Any


@dataclass(frozen=True)
class Wait:
    """Silence for so many seconds."""

    seconds: float


class End(enum.Enum):
    """How a connection ends: never (the client must leave), in good order, or by a reset.

    Without one, it is kept for the next request.
    """

    HANG = "hang"
    CLOSE = "close"
    RESET = "reset"


HANG, CLOSE, RESET = End
Step = bytes | Wait | End
Script = tuple[Step, ...]
JSON, SSE, HTML = "application/json", "text/event-stream", "text/html"
# In errors, and in reasoning: it must never reach a prompt.
POISON = "E-POISON-17"
# In answers that are not whole: it must not, unless such answers are asked for.
UNFINISHED = "E-UNFINISHED-18"
ANSWER = "Rain is water."


def head(status: int = 200, *lines: str, kind: str | None = SSE) -> bytes:
    """The head of an answer; `kind` is its content type, None for none."""
    told = [f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}"]
    told += [f"Content-Type: {kind}"] if kind is not None else []
    return "\r\n".join([*told, *lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """A piece of a body of unknown length."""
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED = "Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"


def begun(*events: bytes, kind: str | None = SSE, lines: Sequence[str] = ()) -> Script:
    """A stream that has begun, and has not ended: the head, and a chunk for each of these."""
    return (head(200, CHUNKED, *lines, kind=kind), *map(chunk, events))


def stream(*events: bytes, kind: str | None = SSE, lines: Sequence[str] = ()) -> Script:
    """A whole stream of these events."""
    return (*begun(*events, kind=kind, lines=lines), LAST)


def whole(
    body: object, status: int = 200, *lines: str, kind: str | None = JSON, length: int | None = None
) -> Script:
    """An answer in one piece: bytes, a text, or a value as JSON. length: that is told, if wrong."""
    data = body if isinstance(body, bytes) else text_of(body).encode()
    told = f"Content-Length: {len(data) if length is None else length}"
    begin = head(status, told, *lines, kind=kind)
    # What does not fit its length is told apart by how much of it comes at once.
    return (begin, data) if length is None else (begin + data,)


def text_of(body: object) -> str:
    """A text as it is, anything else as JSON."""
    return body if isinstance(body, str) else json.dumps(body)


def page(title: str, status: int, *lines: str) -> Script:
    """A web page."""
    return whole(f"<html><head><title>{title}</title></head></html>", status, *lines, kind=HTML)


def event(payload: object, *, before: str = "data: ", end: str = "\n\n") -> bytes:
    """One server-sent event: a text as it is, anything else as JSON."""
    return f"{before}{text_of(payload)}{end}".encode()


def part(delta: object = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of a completion."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": reason}
    return {"object": "chat.completion.chunk", "model": "m-1", "choices": [choice], **more}


def said(text: str) -> bytes:
    """A piece of an answer."""
    return event(part({"content": text}))


def thought(text: str) -> bytes:
    """A piece of reasoning."""
    return event(part({"reasoning_content": text}))


def counted(prompt: object = 9, completion: object = 3, **more: object) -> bytes:
    """The chunk that tells the tokens."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, **more}
    return event({"object": "chat.completion.chunk", "choices": [], "usage": usage})


def finish(reason: str = "stop") -> bytes:
    """The chunk that tells why the answer ends."""
    return event(part(reason=reason))


ROLE = event(part({"role": "assistant", "content": ""}))
WORDS = (said("Rain "), said("is "), said("water."))
DONE = b"data: [DONE]\n\n"
ENDING = (finish(), counted(), DONE)
EVENTS = (ROLE, *WORDS, *ENDING)
# A text that has begun.
PARTIAL = (ROLE, said(f"{UNFINISHED} "), said("rain "))
GOOD = stream(*EVENTS)
COMPLETION = {
    "object": "chat.completion",
    "model": "m-1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": ANSWER},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


def refusal(status: int, message: str, *lines: str, **more: object) -> Script:
    """A refusal in the shape of OpenAI's."""
    return whole({"error": {"message": message, **more}}, status, *lines)


def encoded(name: str, body: bytes) -> Script:
    """A whole body of events under a content encoding."""
    return (
        head(200, f"Content-Encoding: {name}", f"Content-Length: {len(body)}"),
        body,
    )


def zipped(data: bytes) -> bytes:
    """The same in gzip."""
    return gzip.compress(data, mtime=0)


def deflated(data: bytes) -> bytes:
    """The same in zlib's format, which HTTP calls deflate."""
    return zlib.compress(data)
