"""Whatever an endpoint sends, reading it takes time in proportion and a bounded amount of memory;
what it tells of an answer is believed as far as it can be true; a whole answer is kept whatever
the connection does afterwards; and a call that is given up leaves nothing open."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from moa_cli.clients import openai_compatible, sse_decoder
from moa_cli.clients.http import transport
from moa_cli.clients.openai_compatible import OpenAICompatible
from moa_cli.core.conversation import Message
from moa_cli.core.endpoints import Delta, Request
from moa_cli.core.errors import BadResponse, ClientError, ConnectionLost, RateLimited, ServerFailed
from moa_cli.models.table import Provider
from tests.support.command import Moa
from tests.support.deltas import deltas_of, joined
from tests.support.upstream import Reply, Upstream

REQUEST = Request(model="m", messages=(Message("user", "hi"),), max_tokens=64)
MEGABYTE = 1 << 20
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Writer = Callable[[bytes], None]


def event(text: str = "", finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


def completion(text: str, **more: object) -> bytes:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], **more}).encode()


@contextmanager
def serving(
    answer: Callable[[socket.socket, threading.Event], None], tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """The base URL of a server that reads a request and answers it so, on each connection. The
    event is set when the client is done."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def meet(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                more = connection.recv(65536)
                if not more:
                    return
                data += more
            answer(connection, over)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=meet, args=(server.accept()[0],)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        accepting = threading.Thread(target=serve)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join()


def answered(
    answer: Callable[[socket.socket, threading.Event], None],
) -> tuple[Delta, ClientError | None]:
    """What came of a call, and how it failed."""

    async def call(url: str) -> tuple[Delta, ClientError | None]:
        found: list[Delta] = []
        error = None
        async with aclosing(
            OpenAICompatible(Provider(name="lab", base_url=url), lambda: "k")
        ) as client:
            try:
                async with aclosing(client.stream(REQUEST)) as deltas:
                    async for delta in deltas:
                        found.append(delta)
            except ClientError as raised:
                error = raised
        return joined(found), error

    with serving(answer) as url:
        return asyncio.run(call(url))


def sends(*pieces: bytes, then: str = "closes") -> Callable[[socket.socket, threading.Event], None]:
    def answer(connection: socket.socket, over: threading.Event) -> None:
        for piece in pieces:
            connection.sendall(piece)
        if then == "hangs":
            over.wait()
        while then == "keeps alive" and not over.wait(0.02):
            connection.sendall(b": still here\n\n")
        if then == "resets":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    return answer


def endless(head: bytes, piece: bytes) -> Callable[[socket.socket, threading.Event], None]:
    def answer(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(head)
        while not over.is_set():
            connection.sendall(piece)

    return answer


# --- time in proportion: each of these took minutes when what had come was copied with each piece


async def _pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def read(data: bytes, size: int, model: str = "m") -> Delta:
    async def run() -> Delta:
        async with aclosing(deltas_of(_pieces(data, size), model=model)) as deltas:
            return joined([delta async for delta in deltas])

    return asyncio.run(run())


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"], ids=["lf", "cr", "crlf"])
def test_a_long_line_in_small_pieces(end: str) -> None:
    text = "x" * (12 * MEGABYTE)
    data = event(text, "stop").replace(b"\n", end.encode())
    assert read(data, 64).text == text


def test_a_long_event_of_many_lines() -> None:
    data = event("x", "stop").replace(b", ", b",\ndata: " + b"\ndata: " * (MEGABYTE // 2))
    assert read(data, 64).text == "x"


def test_long_blanks_behind_reasoning_and_marks_within_it() -> None:
    blanks = b"".join([event("Okay, the user"), event(" " * 8) * 60_000, event("so.", "stop")])
    assert read(blanks, 4096, "deepseek-r1").text.endswith("so.")
    opened = event("<|channel|>analysis<|message|>is a <| b?")
    closed = event("<|end|><|start|>assistant<|channel|>final<|message|>Yes.", "stop")
    told = read(opened + event(" hmm") * 60_000 + closed, 4096)
    assert told.text == "Yes."
    assert told.reasoning.count("hmm") == 60_000


def test_many_objects_without_a_frame() -> None:
    objects = [event("a")[6:-1]] * 60_000 + [event("a", "stop")[6:-1]]
    lines = b"".join(objects)
    told, error = answered(sends(JSON + b"\r\n", lines))
    assert (told.text, error) == ("a" * 60_001, None)


def test_a_long_completion_in_small_pieces() -> None:
    text = "}" * (2 * MEGABYTE)
    body = completion(text)
    small = [body[at : at + 200] for at in range(0, len(body), 200)]
    told, error = answered(sends(JSON + b"\r\n", *small))
    assert (told.text, error) == (text, None)


# --- bounded memory


@pytest.mark.parametrize(
    ("head", "piece", "said"),
    [
        (SSE + b"\r\ndata: ", b"x" * 65536, "the endpoint sent an event larger than 16 MB"),
        (
            SSE + b"\r\n",
            b"data: xxxxxxxxxx\n" * 4096,
            "the endpoint sent an event larger than 16 MB",
        ),
        (JSON + b'\r\n{"choices": "', b"x" * 65536, "lab: the answer exceeds 64 MB"),
        (SSE + b"\r\n", event("y" * 65536), "lab: the answer exceeds 1 MB"),
    ],
    ids=["a line", "an event", "a completion", "a stream"],
)
def test_what_does_not_end_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, head: bytes, piece: bytes, said: str
) -> None:
    if "1 MB" in said:
        monkeypatch.setattr(openai_compatible, "_MOST_STREAM", MEGABYTE)
    _, error = answered(endless(head, piece))
    assert type(error) is BadResponse
    assert said in error.message


def test_blanks_without_end_take_no_memory_and_other_calls_go_on() -> None:
    taken = 0

    async def blanks() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(100_000):
            taken += 1
            yield b" \r\n" * 100
        yield b"{}"

    assert asyncio.run(openai_compatible._first_bytes(blanks())) == b"{}"
    assert taken == 100_000


@pytest.mark.parametrize("then", ["closes", "hangs", "resets"])
def test_a_refusal_is_one_whatever_becomes_of_its_body(
    monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(transport, "_REFUSAL_SECONDS", 0.2)
    head = b"HTTP/1.1 429 Slow down\r\nRetry-After: 7\r\nContent-Length: 999999\r\n\r\n"
    _, error = answered(sends(head, b'{"error": {"message": "too', then=then))
    assert type(error) is RateLimited
    assert error.retry_after == 7


def test_a_refusal_without_end_is_cut_off() -> None:
    head = b"HTTP/1.1 503 Down\r\n\r\n"
    _, error = answered(endless(head, b"we are down " * 4096))
    assert type(error) is ServerFailed
    assert "we are down" in error.message


def test_json_that_is_nested_without_end_is_no_answer() -> None:
    nested = b"[" * 200_000
    for head, body in ((SSE, b'data: {"a": ' + nested + b"\n\n"), (JSON, b'{"a": ' + nested)):
        _, error = answered(sends(head + b"\r\n", body))
        assert type(error) is BadResponse
    _, error = answered(sends(b"HTTP/1.1 500 No\r\n\r\n" + nested))
    assert type(error) is ServerFailed


# --- usage that cannot be


USAGE = {"prompt_tokens": 12, "completion_tokens": 3}


@pytest.mark.parametrize(
    ("told", "believed"),
    [
        ({}, (12, 3)),
        ({"completion_tokens": 10**9}, (12, 0)),
        ({"completion_tokens": 10**6}, (12, 0)),
        ({"completion_tokens": 1e30}, (12, 0)),
        ({"completion_tokens": -3}, (12, 0)),
        ({"completion_tokens": "many"}, (12, 0)),
        ({"completion_tokens": True}, (12, 0)),
        ({"prompt_tokens": 10**7}, (0, 3)),
        ({"prompt_tokens": -1, "completion_tokens": float("nan")}, None),
        ({"prompt_tokens": 10**8, "completion_tokens": 10**8}, None),
        # Reasoning that is not shown, and what a search adds to the prompt.
        ({"completion_tokens": 90_000}, (12, 90_000)),
        ({"prompt_tokens": 300_000}, (300_000, 3)),
        # In the sum.
        ({"total_tokens": 40_015}, (12, 40_003)),
        ({"total_tokens": 15_000_000}, (12, 3)),
    ],
    ids=str,
)
@pytest.mark.parametrize("streamed", [True, False])
def test_usage_is_believed_as_far_as_it_can_be_true(
    told: dict[str, Any], believed: tuple[int, int] | None, streamed: bool
) -> None:
    usage = {**USAGE, **told}
    body = event("three words here") + event(finish="stop", usage=usage)
    answer = sends(SSE + b"\r\n", body)
    if not streamed:
        answer = sends(JSON + b"\r\n", completion("three words here", usage=usage))
    found = answered(answer)[0].usage
    assert (found and (found.prompt_tokens, found.completion_tokens)) == believed


@pytest.mark.parametrize(
    ("cost", "believed"),
    [(0.25, 0.25), (40, 40), (5_000, None), (-1, None), (float("nan"), None), (1e300, None)],
)
def test_so_is_a_cost(cost: float, believed: float | None) -> None:
    body = event("x", "stop", usage={**USAGE, "cost": cost})
    found = answered(sends(SSE + b"\r\n", body))[0].usage
    assert found is not None
    assert (None if found.unpriced_calls else found.cost) == believed


def test_what_is_booked_in_its_place_is_an_estimate_and_said_to_be(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("*", Reply(text="three words here", usage=(9, 10**7)))
    ran = moa.run("ask", "--json", "-v", "hi", env={"MOA_LOG": "log"})
    usage = json.loads(ran.text)["usage"]
    assert usage["estimated_calls"] == usage["calls"] == 4
    assert usage["prompt_tokens"] == 4 * 9
    assert usage["completion_tokens"] == usage["estimated_completion_tokens"] < 100
    assert "~" in ran.err
    assert "usage not believed" in (moa.folder / "log").read_text()


# --- a whole answer is kept


WHOLE = event("an answer") + event(finish="stop")


@pytest.mark.parametrize("then", ["closes", "hangs", "resets", "keeps alive"])
@pytest.mark.parametrize("behind", [b"", b'data: {"usage": {"pro', b"data: no JSON\n\n"])
def test_behind_the_finish_reason_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, then: str, behind: bytes
) -> None:
    monkeypatch.setattr(sse_decoder, "_REST_SECONDS", 0.2)
    told, error = answered(sends(SSE + b"Content-Length: 99999\r\n\r\n", WHOLE + behind, then=then))
    assert (told.text, told.finish_reason, error) == ("an answer", "stop", None)


@pytest.mark.parametrize(
    "behind",
    [
        b'data: {"error": {"message": "no usage"}}\n\n',
        b"event: error\ndata: gone\n\n",
        b"data: " + b"x" * (17 * MEGABYTE) + b"\n\n",
    ],
    ids=["error", "event", "long line"],
)
def test_nor_by_what_is_said_there(behind: bytes) -> None:
    told, error = answered(sends(SSE + b"\r\n", WHOLE, behind))
    assert (told.text, error) == ("an answer", None)
    # Before it, and where there is no answer, an error is one.
    early = event("an answer") + b'data: {"error": {"message": "gone"}}\n\n'
    empty = event(finish="stop") + b'data: {"error": {"message": "gone"}}\n\n'
    for body in (early, empty):
        assert answered(sends(SSE + b"\r\n", body))[1] is not None


@pytest.mark.parametrize("then", ["closes", "hangs", "resets"])
def test_a_completion_in_one_piece_is_kept_like_that(
    monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    monkeypatch.setattr(openai_compatible, "_REST_SECONDS", 0.2)
    head = JSON + b"Content-Length: 99999\r\n\r\n"
    told, error = answered(sends(head, completion("an answer"), then=then))
    assert (told.text, error) == ("an answer", None)
    if then != "hangs":
        _, error = answered(sends(head, completion("an answer")[:-20], then=then))
        assert type(error) is ConnectionLost


def test_an_end_that_is_none_is_waited_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compatible, "_REST_SECONDS", 0.1)
    body = completion("a } b")
    at = body.index(b"}") + 1

    def answer(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(JSON + b"Content-Length: %d\r\n\r\n" % len(body) + body[:at])
        over.wait(0.5)
        connection.sendall(body[at:])

    told, error = answered(answer)
    assert (told.text, error) == ("a } b", None)


def test_the_finish_reason_is_told_before_the_connection_ends() -> None:
    async def call(url: str) -> str | None:
        client = OpenAICompatible(Provider(name="lab", base_url=url), lambda: "k")
        async with aclosing(client), aclosing(client.stream(REQUEST)) as deltas:
            # The server waits for the end of this block.
            return await anext(delta.finish_reason async for delta in deltas if delta.finish_reason)

    with serving(sends(SSE + b"\r\n", WHOLE, then="hangs")) as url:
        assert asyncio.run(call(url)) == "stop"


# --- nothing is left open


FILES = Path("/proc/self/fd")


def _open_files() -> int:
    return len(list(FILES.iterdir()))


@pytest.mark.skipif(not FILES.is_dir(), reason="counts open files by /proc")
@pytest.mark.parametrize("keep", [False, True], ids=["ask", "many calls"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_call_that_is_given_up_at_any_moment_leaves_no_connection(
    keep: bool, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every turn of the event loop from the start to the answer."""
    tls = None
    if secure:
        authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(tls)
        trusted = ssl.create_default_context()
        authority.configure_trust(trusted)
        monkeypatch.setattr(transport, "tls_context", lambda: trusted)
    long = Request(model="m", messages=(Message("user", "hi " * 3_000_000),))

    met = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal met
        met += 1
        with suppress(EOFError, OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(SSE + b"\r\n" + event("x"))
            await reader.read()
        writer.close()

    async def read_all(client: OpenAICompatible, request: Request) -> None:
        async with aclosing(client.stream(request)) as deltas:
            async for _ in deltas:
                pass

    async def give_up(client: OpenAICompatible, request: Request, turns: int) -> None:
        call = asyncio.create_task(read_all(client, request))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])

    async def settled(wanted: int, seconds: int) -> int:
        for _ in range(100 * seconds):
            if _open_files() <= wanted:
                break
            await asyncio.sleep(0.01)
        return _open_files()

    async def run() -> None:
        server = await asyncio.start_server(answer, "localhost", 0, ssl=tls, limit=1 << 26)
        port = server.sockets[0].getsockname()[1]
        url = f"{'https' if secure else 'http'}://localhost:{port}/v1"
        async with aclosing(
            OpenAICompatible(Provider(name="lab", base_url=url), lambda: "k", many_calls=keep)
        ) as client:
            await give_up(client, REQUEST, 300)
            before = await settled(0, 2)
            for turns in [*range(120), *range(0, 60, 3)]:
                await give_up(client, REQUEST if turns % 20 else long, turns)
            assert await settled(before, 60) <= before
        server.close()

    asyncio.run(run())
    assert met >= 20
