"""Many clients at once, many that leave, and many that send nonsense."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.bodies import malformed
from tests.support.command import PATIENCE, Moa
from tests.support.server import QUESTION, Server, chunks, serving
from tests.support.upstream import Reply, Request, Upstream

AT_ONCE = 200
LEAVING = 100
MALFORMED = 10_000
JSON = {"content-type": "application/json"}


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Room for a thousand sockets, which some systems do not give unasked."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def told_to(mark: str) -> str:
    """A reply that shows whose it is, and every piece's place in it."""
    odd = ("é🌍", "\n\n", "\u2028", "data: [DONE]\n\n", '"\\', "\r\n", "\x00")
    return " ".join(f"{mark}.{place}{odd[place % len(odd)]}" for place in range(40))


def test_streams_of_200_clients_are_each_whole_and_in_order(moa: Moa, upstream: Upstream) -> None:
    def text(request: Request) -> str:
        return told_to(request.messages[-1]["content"])

    side_by_side = threading.Event()

    def proposal(_: Request) -> Reply:
        # They run side by side, rather than one after the other: none has an answer before.
        if upstream.in_flight > AT_ONCE:
            side_by_side.set()
        return Reply(text="a proposal", after=side_by_side)

    upstream.always("*", proposal)
    upstream.always("agg", Reply(text=text, pause=0.002))

    async def ask(client: aiohttp.ClientSession, url: str, number: int) -> bytes:
        said = [{"role": "user", "content": f"q{number}"}]
        body = {"model": "moa", "messages": said, "stream": True}
        async with client.post(url, json=body) as response:
            assert response.status == 200
            told = chunks((await response.read()).decode())
        assert told[-1]["choices"][0]["finish_reason"] == "stop"
        texts = (event["choices"][0]["delta"].get("content", "") for event in told)
        return "".join(texts).encode()

    async def ask_all(url: str) -> list[bytes]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            return await asyncio.gather(*(ask(client, url, number) for number in range(AT_ONCE)))

    with serving(moa, "--max-concurrency", "256") as server:
        texts = asyncio.run(ask_all(f"{server.url}/chat/completions"))
    for number, got in enumerate(texts):
        assert got == told_to(f"q{number}").encode()
    assert len(upstream.chats("agg")) == AT_ONCE
    assert len(upstream.chats()) == 4 * AT_ONCE
    assert side_by_side.is_set()


def test_100_clients_that_vanish_leave_nothing_behind(moa: Moa, upstream: Upstream) -> None:
    moa.profile("early", "silent", "slow", aggregator="agg")
    moa.profile("late", "a", "b", aggregator="agg")
    upstream.always("silent", Reply(stall_after=0))
    # Their connections would be kept for the next call otherwise, rightly.
    upstream.always("*", Reply(text="done", headers={"Connection": "close"}))
    for model in ("slow", "agg"):
        upstream.always(model, Reply(text="one two three", stall_after=2))

    def stalled() -> bool:
        stages = {"silent": 0, "slow": 2, "agg": 2}
        return all(
            sum(request.sent == sent for request in upstream.chats(model)) == LEAVING // 2
            for model, sent in stages.items()
        )

    async def come_and_go(server: Server) -> None:
        writers = await asyncio.gather(*(begin(server, number) for number in range(LEAVING)))
        await asyncio.to_thread(upstream.wait_for, stalled)
        for number, writer in enumerate(writers):
            # As a program that closes its connection, and as one that crashes.
            if number % 4 < 2:
                writer.close()
            else:
                writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    with serving(moa, "--max-concurrency", "256") as server:
        asyncio.run(come_and_go(server))
        upstream.wait_for(lambda: upstream.in_flight == 0 and upstream.open_connections == 0)
        deadline = time.monotonic() + PATIENCE
        while "\nmoa_turns_in_flight 0.0\n" not in (told := server.get("/metrics").text):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for name in ("early", "late"):
            counted = f'moa_turns_total{{model="{name}",status="interrupted"}} {LEAVING // 2}.0'
            assert counted in told.splitlines()
        assert "\nmoa_queue_length 0.0\n" in told
        # It has nothing to wait for.
        assert server.end() == 0
        server.wait_for_log("stopping; 0 running turns")


async def begin(server: Server, number: int) -> asyncio.StreamWriter:
    """Send a request, and read nothing of the answer."""
    host, _, port = server.root.removeprefix("http://").rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    fields = {"model": ("early", "late")[number % 2], "stream": number % 3 > 0}
    body = json.dumps({"messages": QUESTION, **fields}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    return writer


def resident(server: Server) -> int:
    """The server's memory, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc")
def test_10000_malformed_bodies_are_refused_and_none_is_kept(
    server: Server, upstream: Upstream
) -> None:
    bodies = malformed(server.get("/openapi.json").json(), random.Random(5))
    url = f"{server.url}/chat/completions"
    wrong: list[tuple[int, bytes]] = []

    async def refuse(client: aiohttp.ClientSession, count: int) -> None:
        for _ in range(count):
            body = next(bodies)
            async with client.post(url, data=body, headers=JSON) as response:
                answer = await response.read()
            if not 400 <= response.status < 500 or "message" not in json.loads(answer)["error"]:
                wrong.append((response.status, body[:300]))

    async def refuse_all(count: int, lines: int = 4) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=lines)) as client:
            await asyncio.gather(*(refuse(client, count // lines) for _ in range(lines)))

    asyncio.run(refuse_all(1000))
    before = resident(server)
    asyncio.run(refuse_all(MALFORMED - 1000))
    assert wrong == []
    assert resident(server) - before < 20_000_000
    assert upstream.chats() == []
    assert server.ask().status_code == 200


def few_files() -> None:
    """As `ulimit -n 256` does it."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def test_clients_beyond_the_files_that_may_be_open_are_sent_away(
    moa: Moa, upstream: Upstream
) -> None:
    crowded = threading.Event()
    upstream.always("*", Reply(after=crowded))

    async def ask(client: aiohttp.ClientSession, url: str) -> int:
        body = {"model": "moa", "messages": QUESTION}
        async with client.post(f"{url}/chat/completions", json=body) as response:
            if response.status == 503:
                crowded.set()
            return response.status

    async def ask_all(url: str, clients: int) -> set[int]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            return set(await asyncio.gather(*(ask(client, url) for _ in range(clients))))

    with serving(moa, fresh=True, preexec_fn=few_files) as server:
        assert any("96 connections at once" in line for line in server.log)
        # There are files for all of them and their calls, but half of the files are not for them.
        assert asyncio.run(ask_all(server.url, 120)) == {200, 503}
        # Here there are not, for the moment in which all of them knock.
        upstream.always("*", Reply(delay=0.5))
        assert asyncio.run(ask_all(server.url, 400)) <= {200, 502, 503}
        # Until it has noticed that they have left.
        deadline = time.monotonic() + PATIENCE
        while server.ask().status_code != 200:
            assert time.monotonic() < deadline
        trouble = [line for line in server.log if "Traceback" in line or "internal" in line]
        assert trouble == []
