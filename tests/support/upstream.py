"""An OpenAI-compatible upstream under the tests' full control: real HTTP/1.1, on 127.0.0.1."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import responses
from typing import Any, Literal, Self

from tests.support.loopback import LoopbackServer

_POLL = 0.005  # seconds between two looks at what another thread sets

# What a reply waits for: set by the test, or true once something has come about. A callable runs on
# the server's thread, again and again.
Awaited = threading.Event | Callable[[], bool]


@dataclass(eq=False)
class Request:
    """One HTTP request as it arrived, and what became of it.

    In the end it is either `finished` (the script was carried out to its last byte, a scripted
    hang-up included) or `disconnected` (the client left first). `in_flight_at_start` counts the
    other chat calls open then, `sent` the chunks written, `usage` the tokens those amount to.
    """

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: Any  # parsed JSON, or None
    at: float  # time.monotonic()
    in_flight_at_start: int
    finished: bool = False
    disconnected: bool = False
    sent: int = 0
    usage: tuple[int, int] = (0, 0)

    @property
    def model(self) -> str:
        """The model asked for, "" if none is named."""
        return str(self.body.get("model", "")) if isinstance(self.body, dict) else ""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of a chat call."""
        return list(self.body.get("messages", [])) if isinstance(self.body, dict) else []

    def __str__(self) -> str:
        state = "finished" if self.finished else "disconnected" if self.disconnected else "open"
        return f"{self.method} {self.path} model={self.model!r} {state}, {self.sent} chunks sent"

    @property
    def is_chat(self) -> bool:
        """Whether this is a chat completion call."""
        return self.method == "POST" and self.route == "/chat/completions"

    @property
    def route(self) -> str:
        """The path without query and without a leading /v1."""
        return self.path.partition("?")[0].removeprefix("/v1")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """How one chat call is answered; times in seconds.

    "Chunks" are the pieces of reasoning and content (or the `events`, or all of `raw` as one).
    `events` and `raw` are sent alone: no finishing chunk and no [DONE] is added to them. An answer
    that is not streamed is cut (`stall_after`, `drop_after`) before its body, or else after it.
    """

    text: str | Callable[[Request], str] = "ok"  # a callable runs on the server's thread
    chunks: Sequence[str] | None = None  # exact content; else `text` is cut into words
    reasoning: Sequence[str] = ()
    reasoning_field: str = "reasoning_content"
    status: int = 200
    error: object | None = None  # the body in place of an answer; a str goes out as text/html
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0  # before the response head
    after: Awaited | None = None  # the response head waits until this is set, or holds
    pause: float = 0  # between chunks
    stall_after: int | None = None  # then silence, until the client goes away
    go_on: Awaited | None = None  # once it is set, or holds, that silence ends
    drop_after: int | None = None  # then the connection is closed, the response unfinished
    end_early: bool = False  # a clean end, but no finish_reason and no [DONE]
    refuse: bool = False  # the connection is closed before any response byte
    raw: bytes | None = None  # the body of a 200 text/event-stream
    events: Sequence[object] | None = None  # one data: frame each; a str is sent as it is
    usage: tuple[int, int] | Literal["computed"] | None = "computed"  # None: none is sent
    logprobs: object = None  # with the first content, if asked for; may be called like `text`
    usage_style: Literal["own_chunk", "with_choices", "x_groq"] = "own_chunk"
    finish_reason: str = "stop"
    more: Mapping[str, Any] = field(default_factory=dict)  # beside the finishing choice
    model: str | None = None  # the model id to answer with, if not the one asked for
    byte_by_byte: bool = False  # each byte of the body in its own write and its own HTTP chunk
    crlf: bool = False
    comments: bool = False  # a keep-alive comment and an id: line before each data: line
    no_final_blank_line: bool = False  # the last event has its line end, but no blank line


class Upstream(LoopbackServer):
    """`with Upstream(api_key="k") as up:` serves `up.url`, 'http://127.0.0.1:PORT/v1'.

    With `models`, those are listed, and others are unknown unless scripted by name. With `at_once`,
    no more chat calls than that are answered at the same time; others get the reply `too_many`, and
    stand in `refused`. An exception on the server's side (as in a `text` callable) is kept in
    `failures` and raised on leaving.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        models: Sequence[str | Mapping[str, object]] = (),
        models_bare: bool = False,
        port: int = 0,
    ) -> None:
        super().__init__(port=port)
        self.url = ""
        self.requests: list[Request] = []
        self.peak = 0
        self.failures: list[Exception] = []
        self.models_reply: Reply | None = None  # in place of the list of models
        self.at_once: int | None = None
        self.too_many = _refusal(429, "Too many concurrent requests.", "rate_limit_exceeded")
        self.refused: list[Request] = []
        self._api_key = api_key
        self._models = [{"id": m} if isinstance(m, str) else dict(m) for m in models]
        self._listing = self._models if models_bare else {"object": "list", "data": self._models}
        self._queues: defaultdict[str, deque[Reply]] = defaultdict(deque)
        self._always: dict[str, Reply | Callable[[Request], Reply]] = {}
        self._active: set[Request] = set()
        self._looking: dict[Awaited, asyncio.Task[None]] = {}

    def enqueue(self, model: str, *replies: Reply) -> None:
        """Script the next replies to `model` ("*": any), used once each, in order."""
        self._queues[model].extend(replies)

    def always(self, model: str, reply: Reply | Callable[[Request], Reply]) -> None:
        """Set what `model` ("*": any) answers when no queued reply is left.

        A callable makes the reply to a request; it runs on the server's thread.
        """
        self._always[model] = reply

    def chats(self, model: str | None = None) -> list[Request]:
        """The chat calls so far, in order of arrival; of one model only, if given."""
        return [r for r in list(self.requests) if r.is_chat and model in (None, r.model)]

    @property
    def in_flight(self) -> int:
        """Chat calls being answered now."""
        return len(self._active)

    @property
    def usage_total(self) -> tuple[int, int]:
        """Prompt and completion tokens of all that was sent, told to the client or not."""
        told = [r.usage for r in list(self.requests)]
        return sum(prompt for prompt, _ in told), sum(completion for _, completion in told)

    def wait_for(self, predicate: Callable[[], bool], timeout: float = 100.0) -> None:
        """Poll until `predicate` holds; AssertionError with the request log after `timeout` s."""
        deadline = time.monotonic() + timeout
        while not predicate():
            if self.failures or time.monotonic() > deadline:
                log = "".join(f"\n  {request}" for request in list(self.requests))
                state = f"{self.open_connections} connections open, failures: {self.failures}"
                raise AssertionError(f"not within {timeout} s; {state}{log}")
            time.sleep(_POLL)

    def __enter__(self) -> Self:
        super().__enter__()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        super().__exit__(kind, *rest)
        if self.failures and kind is None:
            raise AssertionError("the upstream itself failed") from self.failures[0]

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer its requests."""
        await _Connection(self, reader, writer).serve()

    def _arrived(self, request: Request) -> Reply:
        """Note the request and choose the reply to it."""
        self.requests.append(request)
        if request.is_chat:
            if self.at_once is not None and self.in_flight >= self.at_once:
                self.refused.append(request)
                return self.too_many
            self._active.add(request)
            self.peak = max(self.peak, self.in_flight)
        key = request.headers.get("authorization", "")
        if self._api_key is not None and key != f"Bearer {self._api_key}":
            wrong = key.removeprefix("Bearer ")
            return _refusal(401, f"Incorrect API key provided: {wrong}.", "invalid_api_key")
        if request.method == "GET" and request.route == "/models":
            return self.models_reply or Reply(error=self._listing)
        if not request.is_chat:
            return _refusal(404, f"Invalid URL ({request.method} {request.path})")
        if not request.model:
            return _refusal(400, "We could not parse the JSON body of your request.")
        model = request.model
        known = {m.get("id") for m in self._models} | self._queues.keys() | self._always.keys()
        if self._models and model not in known:
            return _refusal(404, f"The model `{model}` does not exist", "model_not_found")
        for name in (model, "*"):
            if queue := self._queues.get(name):
                return queue.popleft()
        reply = self._always.get(model) or self._always.get("*") or Reply()
        return reply(request) if callable(reply) else reply

    async def _until(self, awaited: Awaited | None) -> None:
        """Wait until it is set by another thread, or holds; without one, for ever."""
        if awaited is None:
            await asyncio.Event().wait()
        elif not _is_there(awaited):
            # Hundreds of replies may wait for the same one.
            looking = self._looking.get(awaited)
            if looking is None or looking.done():
                looking = self._looking[awaited] = asyncio.create_task(_look_for(awaited))
            await asyncio.shield(looking)

    def _settle(self, request: Request, *, gone: bool = False) -> None:
        if not request.finished:
            request.finished, request.disconnected = not gone, gone
        self._active.discard(request)


class _Connection:
    """One client's connection."""

    def __init__(
        self, upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.upstream, self.reader, self.writer = upstream, reader, writer
        self.settle = upstream._settle
        self.ahead = bytearray()  # read, but not yet taken as (part of) a request
        # Without a write buffer, `drain` means handed to the kernel: a hang-up loses nothing sent.
        writer.transport.set_write_buffer_limits(high=0)

    async def serve(self) -> None:
        try:
            while (request := await self._receive()) and await self._respond(request):
                pass
        except OSError:
            pass
        except Exception as bug:
            self.upstream.failures.append(bug)
        finally:
            self.writer.transport.abort()
            with suppress(OSError):
                await self.writer.wait_closed()

    async def _read(self) -> bool:
        data = await self.reader.read(65536)
        self.ahead += data
        return bool(data)

    async def _receive(self) -> Request | None:
        while (end := self.ahead.find(b"\r\n\r\n")) < 0:
            if not await self._read():
                return None
        start, *lines = self.ahead[:end].decode("latin-1").split("\r\n")
        method, path, _ = start.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        stop = end + 4 + int(headers.get("content-length", 0))
        while len(self.ahead) < stop:
            if not await self._read():
                return None
        body = None
        with suppress(ValueError):
            body = json.loads(self.ahead[end + 4 : stop])
        del self.ahead[:stop]
        in_flight = self.upstream.in_flight
        return Request(method, path, headers, body, time.monotonic(), in_flight)

    async def _respond(self, request: Request) -> bool:
        answer = asyncio.create_task(self._send(request, self.upstream._arrived(request)))
        watch = asyncio.create_task(self._until_gone())
        try:
            await asyncio.wait({answer, watch}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done() and answer.result():
                return request.headers.get("connection", "").lower() != "close"
        except OSError:
            pass
        finally:
            answer.cancel()
            watch.cancel()
            await asyncio.gather(answer, watch, return_exceptions=True)
        self.settle(request, gone=True)
        return False

    async def _until_gone(self) -> None:
        with suppress(OSError):
            while await self._read():
                pass

    async def _send(self, request: Request, reply: Reply) -> bool:
        """Send all of the reply; whether the connection may be used again."""
        await asyncio.sleep(reply.delay)
        if reply.after is not None:
            await self.upstream._until(reply.after)
        if reply.refuse:
            self.settle(request)
            return False
        content_type, frames = _contents(request, reply)
        chunks, chunked = sum(weight for _, weight in frames), content_type == _STREAM
        await self._write(_head(reply, content_type, None if chunked else len(frames[0][0])))
        for position, (frame, weight) in enumerate([*frames, (b"", 0)], 1):
            reach = request.sent + max(weight, 1)
            if reply.stall_after is not None and reach > reply.stall_after:
                await self.upstream._until(reply.go_on)
            if reply.drop_after is not None and reach > reply.drop_after:
                self.settle(request)
                return False
            if weight:
                await asyncio.sleep(reply.pause if request.sent else 0)
                request.sent += weight
            request.usage = _usage(request, reply, request.sent, chunks)
            unsent = len(frame)
            stalls = request.sent == reply.stall_after and reply.go_on is None
            for piece in _split(reply, frame):
                unsent -= len(piece)
                # A client may leave as soon as it can make out the [DONE], before its line ends,
                # and once it has read the answer it must find it settled: so before the last write.
                if position == len(frames) and unsent <= 4 and not stalls:
                    self.settle(request)
                await self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        self.settle(request)
        await self._write(b"0\r\n\r\n" if chunked else b"")
        return True

    async def _write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        await asyncio.sleep(0)


def _is_there(awaited: Awaited) -> bool:
    return awaited.is_set() if isinstance(awaited, threading.Event) else awaited()


async def _look_for(awaited: Awaited) -> None:
    while not _is_there(awaited):
        await asyncio.sleep(_POLL)


_JSON, _STREAM = "application/json", "text/event-stream"


def _phrase(status: int) -> str:
    return responses.get(status, "Unknown")


def _refusal(status: int, message: str, code: str | None = None) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return Reply(status=status, error={"error": error})


def _head(reply: Reply, content_type: str, length: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"HTTP/1.1 {reply.status} {_phrase(reply.status)}", f"Content-Type: {content_type}"]
    lines += [framing, *(f"{name}: {value}" for name, value in reply.headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _split(reply: Reply, data: bytes) -> list[bytes]:
    size = 1 if reply.byte_by_byte else 65536
    return [data[start : start + size] for start in range(0, len(data), size)]


def _contents(request: Request, reply: Reply) -> tuple[str, list[tuple[bytes, int]]]:
    """Content type and body: what is written at once, and how many chunks that counts as."""
    error = reply.error
    if error is None and reply.status != 200:
        error = _refusal(reply.status, _phrase(reply.status)).error
    if error is not None:
        text, kind = (error, "text/html") if isinstance(error, str) else (json.dumps(error), _JSON)
        return kind, [(text.encode(), 0)]
    if reply.raw is not None:
        return _STREAM, [(reply.raw, 1)]
    if reply.events is not None:
        return _STREAM, _frames(reply, [(event, 1) for event in reply.events])
    if request.body.get("stream"):
        return _STREAM, _frames(reply, _stream_events(request, reply))
    return _JSON, [_completion(request, reply)]


def _frames(reply: Reply, events: list[tuple[object, int]]) -> list[tuple[bytes, int]]:
    """Server-sent events of JSON objects; the weights stay with them."""
    end = "\r\n" if reply.crlf else "\n"
    frames = []
    for number, (event, weight) in enumerate(events, 1):
        data = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
        above = f": keep-alive{end}{end}id: {number}{end}" if reply.comments else ""
        blank = "" if reply.no_final_blank_line and number == len(events) else end
        frames.append((f"{above}data: {data}{end}{blank}".encode(), weight))
    return frames


def _pieces(request: Request, reply: Reply) -> list[str]:
    if reply.chunks is not None:
        return list(reply.chunks)
    text = reply.text if isinstance(reply.text, str) else reply.text(request)
    return re.findall(r"\S+\s*|\s+", text)


def _usage(request: Request, reply: Reply, sent: int, chunks: int) -> tuple[int, int]:
    """Tokens after `sent` of `chunks`. Computed: words of the prompt, chunks of the answer."""
    if reply.error is not None or reply.status != 200:
        return 0, 0
    if isinstance(reply.usage, tuple):
        prompt, completion = reply.usage
        return prompt, completion if sent == chunks else min(sent, completion)
    if reply.raw is not None or reply.events is not None:
        return 0, 0
    return sum(len(str(m.get("content")).split()) for m in request.messages), sent


def _told(request: Request, reply: Reply, chunks: int) -> dict[str, Any]:
    if reply.usage is None:
        return {}
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    prompt, completion = _usage(request, reply, chunks, chunks)
    return {"usage": dict(zip(names, (prompt, completion, prompt + completion), strict=True))}


def _envelope(request: Request, reply: Reply, kind: str, **choice: object) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{id(request):x}",
        "object": kind,
        "created": int(time.time()),
        "model": reply.model or request.model,
        "choices": [{"index": 0, **choice}] if choice else [],
    }


def _logprobs(request: Request, reply: Reply) -> object:
    return reply.logprobs(request) if callable(reply.logprobs) else reply.logprobs


def _completion(request: Request, reply: Reply) -> tuple[bytes, int]:
    pieces, reasoning = _pieces(request, reply), "".join(reply.reasoning)
    message = {"role": "assistant", "content": "".join(pieces)}
    message |= {reply.reasoning_field: reasoning} if reasoning else {}
    finish, chunks = reply.finish_reason, len(reply.reasoning) + len(pieces)
    choice: dict[str, object] = {"message": message, "finish_reason": finish}
    if request.body.get("logprobs"):
        choice["logprobs"] = _logprobs(request, reply)
    envelope = _envelope(request, reply, "chat.completion", **choice)
    completion = envelope | dict(reply.more) | _told(request, reply, chunks)
    return json.dumps(completion, ensure_ascii=False).encode(), chunks


def _stream_events(request: Request, reply: Reply) -> list[tuple[object, int]]:
    """What a streamed answer consists of; only reasoning and content weigh as chunks."""
    kind = "chat.completion.chunk"
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{reply.reasoning_field: piece} for piece in reply.reasoning]
    deltas += [{"content": piece} for piece in _pieces(request, reply)]
    events: list[dict[str, Any]] = [
        _envelope(request, reply, kind, delta=delta, finish_reason=None) for delta in deltas
    ]
    if request.body.get("logprobs") and len(events) > 1 + len(reply.reasoning):
        events[1 + len(reply.reasoning)]["choices"][0]["logprobs"] = _logprobs(request, reply)
    told = _told(request, reply, len(deltas) - 1)
    styles = {"own_chunk": {}, "with_choices": told, "x_groq": {"x_groq": told}}
    finish = _envelope(request, reply, kind, delta={}, finish_reason=reply.finish_reason)
    ending = [finish | dict(reply.more) | styles[reply.usage_style]]
    options = request.body.get("stream_options") or {}
    if told and reply.usage_style == "own_chunk" and options.get("include_usage"):
        # As OpenAI does: null everywhere but on one more chunk, which has no choices.
        events, ending = ([e | {"usage": None} for e in part] for part in (events, ending))
        ending.append(_envelope(request, reply, kind) | told)
    weighed: list[tuple[object, int]] = [(e, min(place, 1)) for place, e in enumerate(events)]
    return weighed if reply.end_early else [*weighed, *((e, 0) for e in [*ending, "[DONE]"])]


_DEMO = """\
## {0}

It depends on **what you measure**, and a {1} look is worth its while:

- **Latency**: the slowest proposer sets the pace of its layer.
- **Cost**: every layer reads *all* the references again.
- **Variety**: models that differ help more than models that agree.

```python
def layers(rounds: int) -> int:
    return rounds + 1
```

| setting | calls | wait |
|---|---:|---:|
| one model | 1 | {2} s |
| three and one | 4 | 5 s |

{0}: take the {1} way first, and compare on the same twenty questions.
"""
_TOPICS = (
    ("A short answer", "first", 1),
    ("How I would go about it", "careful", 2),
    ("Points for and against", "second", 3),
)


def main() -> None:
    """Serve demo answers in the foreground until Ctrl-C, after printing the URL."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.upstream")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.4, help="seconds before an answer")
    parser.add_argument("--pause", type=float, default=0.03, help="seconds between chunks")
    parser.add_argument("--models", default="", help="comma-separated; any model without it")
    parser.add_argument("--api-key")
    given = parser.parse_args()
    seen: dict[str, int] = {}

    def text(request: Request) -> str:
        topic = seen.setdefault(request.model, len(seen)) % len(_TOPICS)
        return _DEMO.format(*_TOPICS[topic])

    models = [name.strip() for name in given.models.split(",") if name.strip()]
    upstream = Upstream(api_key=given.api_key, models=models, port=given.port)
    upstream.always("*", Reply(text=text, delay=given.delay, pause=given.pause))
    with suppress(KeyboardInterrupt), upstream:
        print(upstream.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
