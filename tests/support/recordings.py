"""Answers and errors of real providers, as they were recorded: read, replayed, and compared.

They lie in the folder `recordings` of the data that MOA_TEST_DATA names. Each has the request, the
status, the headers and the body as they came, and `expected`: what an independent reader of the
provider's documentation makes of them.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import os
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moa_cli.clients.openai_compatible import OpenAICompatible
from moa_cli.core.conversation import Conversation, Turn
from moa_cli.core.endpoints import Client, Delta, Endpoint, ModelInfo, Request
from moa_cli.core.errors import ClientError
from moa_cli.core.stream import deliver
from moa_cli.engine import Limits, run_turn
from moa_cli.models.table import Provider
from moa_cli.profile import Aggregator, Profile
from moa_cli.terminal.plain import failure_line
from tests.support.deltas import joined

KEY = "sk-not-a-real-key-0123456789"
CHUNKINGS: dict[str, Callable[[bytes], Iterable[bytes]]] = {
    "whole": lambda body: [body],
    "lines": lambda body: body.splitlines(keepends=True),
    "7 bytes": lambda body: (body[at : at + 7] for at in range(0, len(body), 7)),
    "1 byte": lambda body: (body[at : at + 1] for at in range(len(body))),
}
_KINDS = {
    "authentication": "AuthenticationFailed",
    "model_not_found": "ModelNotFound",
    "context_too_long": "ContextTooLong",
    "rate_limited": "RateLimited",
    "no_credit": "NoCredit",
    "content_filter": "ContentFiltered",
    "refused": "RequestRefused",
    "server_error": "ServerFailed",
}
# What is said where an answer has no text to show.
OUTCOMES = {
    "content_filter": "content filter",
    "refusal": "refused to answer",
    "out of tokens while thinking": "used all its tokens for thinking",
    "tool calls, no text": "called a tool",
}
# Sent by the server itself, for its own framing.
_FRAMING = ("content-length", "transfer-encoding", "content-encoding", "connection", "date")


@dataclass(frozen=True)
class Recording:
    """One recording. name: of its file."""

    name: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    expected: Mapping[str, Any]


def recordings() -> list[Recording]:
    """All recorded answers and errors; none without the data."""
    folder = os.environ.get("MOA_TEST_DATA")
    paths = sorted(Path(folder, "recordings").glob("*.json")) if folder else []
    found = []
    for path in paths:
        values = json.loads(path.read_text("utf-8"))
        if values["kind"] != "chat":
            continue
        encoded = values.get("body_b64")
        body = base64.b64decode(encoded) if encoded else values["body"].encode()
        headers = values["headers"] or {}
        found.append(
            Recording(path.stem, values["status"], headers, body, values["expected"]),
        )
    return found


@asynccontextmanager
async def replaying(
    recording: Recording, pieces: Callable[[bytes], Iterable[bytes]]
) -> AsyncGenerator[str, None]:
    """A server that answers every POST with the recording, each piece in a chunk of its own.

    Yields its base URL.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                lines = [f"HTTP/1.1 {recording.status} X", "transfer-encoding: chunked"]
                lines += [
                    f"{name}: {value}"
                    for name, value in recording.headers.items()
                    if name.lower() not in _FRAMING
                ]
                writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
                if head.startswith(b"post"):
                    for piece in pieces(recording.body):
                        writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b"")
                        if writer.transport.get_write_buffer_size() > 1 << 16:
                            await writer.drain()
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.close()


@contextmanager
def served(recording: Recording) -> Iterator[str]:
    """The same server on a thread of its own, for a command; yields its base URL."""
    urls: queue.Queue[str] = queue.Queue()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with replaying(recording, CHUNKINGS["whole"]) as url:
            urls.put(url)
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        yield urls.get(timeout=60)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@dataclass
class Observed:
    """What the client made of a recording, and what the turn that asked for it told.

    delta: all that came, as one. error: that ended it, if one did. told: what a user reads.
    """

    delta: Delta = field(default_factory=Delta)
    error: ClientError | None = None
    told: str = ""
    turn: Turn | None = None


class _Watched:
    """A client that keeps what goes through it; the one endpoint of a turn."""

    def __init__(self, inner: Client) -> None:
        self._inner = inner
        self.deltas: list[Delta] = []
        self.error: ClientError | None = None

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        try:
            async with aclosing(self._inner.stream(request)) as deltas:
                async for delta in deltas:
                    self.deltas.append(delta)
                    yield delta
        except ClientError as error:
            self.error = error
            raise

    async def models(self) -> list[ModelInfo]:
        return []

    async def aclose(self) -> None:
        await self._inner.aclose()

    def endpoint(self, model_name: str) -> Endpoint:
        return Endpoint(client=self, model=model_name, provider="acme")

    def known(self, model_name: str) -> ModelInfo:
        return ModelInfo(id=model_name)

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        return ModelInfo(id=model_name)


async def observe(
    recording: Recording,
    pieces: Callable[[bytes], Iterable[bytes]],
    *,
    many_calls: bool = True,
) -> Observed:
    """Ask the recording, as the only model of a turn."""
    async with replaying(recording, pieces) as url:
        client = _Watched(
            OpenAICompatible(
                Provider(name="acme", base_url=url), lambda: KEY, many_calls=many_calls
            )
        )
        profile = Profile(name="p", aggregator=Aggregator(model="m"), rounds=0, proposers=())
        asked = Conversation().ask("hello")
        try:
            turn = await deliver(run_turn(profile, asked, client, limits=Limits(retries=0)))
        finally:
            await client.aclose()
    return Observed(joined(client.deltas), client.error, failure_line(turn), turn)


def differences(expected: Mapping[str, Any], observed: Observed) -> list[str]:
    """What was observed otherwise than it is expected; a field that nothing here knows is a
    difference, too."""
    wanted = copy.deepcopy(dict(expected))
    kind = wanted.pop("kind", None)
    if kind == "chat":
        return list(_chat_differences(wanted, observed))
    if kind == "error":
        return list(_error_differences(wanted, observed))
    return [f"kind {kind!r}"]


def _differs(name: str, wanted: object, found: object) -> Iterator[str]:
    if type(wanted) is not type(found) or wanted != found:
        yield f"{name}: expected {wanted!r}, observed {found!r}"


def _chat_differences(wanted: dict[str, Any], observed: Observed) -> Iterator[str]:
    delta, turn = observed.delta, observed.turn
    if observed.error is not None:
        yield f"error: {observed.error.message}"
    yield from _differs("text", wanted.pop("text", None), delta.text)
    yield from _differs("reasoning", wanted.pop("reasoning", None), delta.reasoning)
    yield from _differs("refusal", wanted.pop("refusal", ""), delta.refusal)
    yield from _differs("finish_reason", wanted.pop("finish_reason", 0), delta.finish_reason)
    yield from _differs("model", wanted.pop("model", None), delta.model)
    yield from _differs("tool_calls", wanted.pop("tool_calls", False), bool(delta.tool_calls))
    yield from _usage_differences(wanted.pop("usage", None), delta)
    yield from _cost_differences(wanted.pop("cost_usd", None), observed)
    outcome = wanted.pop("outcome", None)
    if outcome is None and delta.tool_calls and not delta.text:
        # Told by a field of its own, not always by this one, too.
        outcome = "tool calls, no text"
    words = OUTCOMES.get(outcome) if outcome is not None else ""
    if words is None:
        yield f"outcome {outcome!r} is not known"
    elif words:
        if words not in observed.told:
            yield f"outcome: {outcome!r} is not told by {observed.told!r}"
        elif delta.refusal and delta.refusal not in observed.told:
            yield f"refusal is not told by {observed.told!r}"
    elif observed.told:
        yield f"outcome: none expected, told {observed.told!r}"
    if turn is not None and turn.status == "finished":
        yield from _differs("reply", delta.text, turn.reply)
        yield from _differs("reply's reasoning", delta.reasoning, turn.reasoning)
    for name in wanted:
        yield f"unknown field {name!r}"


def _usage_differences(wanted: dict[str, Any] | None, delta: Delta) -> Iterator[str]:
    if wanted is None or delta.usage is None:
        yield from _differs("usage", wanted, delta.usage)
        return
    counts = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
    for name in counts:
        yield from _differs(f"usage.{name}", wanted.pop(name, None), getattr(delta.usage, name))
    for name in wanted:
        yield f"unknown field 'usage.{name}'"


def _cost_differences(wanted: float | None, observed: Observed) -> Iterator[str]:
    usage, turn = observed.delta.usage, observed.turn
    told = usage.cost if usage is not None and not usage.unpriced_calls else None
    if wanted is None or told is None:
        yield from _differs("cost_usd", wanted, told)
    elif abs(wanted - told) > 1e-13 * max(1.0, abs(wanted)):
        # Closer than the last digit that any provider tells (1e-10 USD).
        yield f"cost_usd: expected {wanted!r}, observed {told!r}"
    elif turn is not None and turn.usage.cost != told:
        yield f"cost of the turn: expected {told!r}, observed {turn.usage.cost!r}"


def _error_differences(wanted: dict[str, Any], observed: Observed) -> Iterator[str]:
    error = observed.error
    if error is None:
        yield "there is no error"
        return
    kind = _KINDS.get(str(wanted.pop("error", None)))
    yield from _differs("error", kind, type(error).__name__)
    again = wanted.pop("retryable_before_first_token", None)
    yield from _differs("retryable", again, error.retryable)
    words = wanted.pop("must_say", "(no field must_say)")
    if words is not None and words.lower() not in observed.told.lower():
        yield f"must_say: {words!r} is not told by {observed.told!r}"
    yield from _differs("text_before", wanted.pop("text_before", ""), observed.delta.text)
    if "usage" in wanted:
        yield from _usage_differences(wanted.pop("usage"), observed.delta)
    for name in wanted:
        yield f"unknown field {name!r}"


def changed(expected: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies of `expected`, each with one field changed, taken away, or added; with its name."""
    for name, value in expected.items():
        if isinstance(value, dict):
            for inner, variant in changed(value):
                yield f"{name}.{inner}", {**expected, name: variant}
        else:
            yield name, {**expected, name: _other(value)}
    yield "a field more", {**expected, "no_such_field": 1}


def _other(value: object) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value + 1e-10
    return f"{value}§" if isinstance(value, str) else "something else"
