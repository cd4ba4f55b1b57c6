"""A load of chat completions on one server: so many clients, each with one request at a time.

Prints JSON: completed, failed, seconds, and the latencies' median and 99th percentile in
milliseconds. Clients speak HTTP/1.1 by hand, so that the load costs less than what it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from urllib.parse import urlsplit

__all__: list[str] = []


class _Client(asyncio.Protocol):
    """Sends the request again whenever it has been answered, until the time is over; over a new
    connection where the server closes each."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._answer = bytearray()
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._answer.clear()
        self._waiting = True
        self._began = time.perf_counter()
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._waiting or not _is_whole(self._answer):
            return
        self._waiting = False
        self._load.answered(bytes(self._answer), time.perf_counter() - self._began)
        if _closes(self._answer) or self._load.over():
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiting:
            self._load.failed += 1
        if self._load.over():
            self._load.ended()
        else:
            self._load.connect()


class _Load:
    """All clients together. request: the bytes of one. latencies: in seconds."""

    def __init__(
        self, address: tuple[str, int], request: bytes, expected: bytes, clients: int, until: float
    ) -> None:
        self.request = request
        self.latencies: list[float] = []
        self.failed = 0
        self.done = asyncio.Event()
        self._address = address
        self._expected = expected
        self._clients = clients
        self._until = until
        self._connecting: set[asyncio.Task[object]] = set()

    def connect(self) -> None:
        """Begin with one more connection."""
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(
            loop.create_connection(lambda: _Client(self), *self._address)
        )
        self._connecting.add(task)
        task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[object]) -> None:
        self._connecting.discard(task)
        if task.exception() is not None:
            self.failed += 1
            self.ended()

    def answered(self, answer: bytes, seconds: float) -> None:
        if answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")) and self._expected in answer:
            self.latencies.append(seconds)
        else:
            self.failed += 1

    def over(self) -> bool:
        return time.perf_counter() >= self._until

    def ended(self) -> None:
        """A client has no more to do."""
        self._clients -= 1
        if self._clients == 0:
            self.done.set()


def _closes(answer: bytearray) -> bool:
    head = bytes(answer[: answer.find(b"\r\n\r\n")]).lower()
    return b"\r\nconnection: close" in head or head.startswith(b"http/1.0")


def _is_whole(answer: bytearray) -> bool:
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = bytes(answer[:end]).lower()
    at = head.find(b"content-length:")
    if at >= 0:
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        return len(answer) >= end + 4 + length
    return answer.endswith(b"0\r\n\r\n")


async def _run(url: str, clients: int, seconds: float, body: str, expected: str) -> None:
    parts = urlsplit(url)
    assert parts.hostname
    raw = body.encode()
    request = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer k\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    ).encode() + raw
    began = time.perf_counter()
    address = (parts.hostname, parts.port or 80)
    load = _Load(address, request, expected.encode(), clients, began + seconds)
    for _ in range(clients):
        load.connect()
    await asyncio.wait_for(load.done.wait(), seconds + 120)
    took = time.perf_counter() - began
    latencies = sorted(load.latencies)
    print(
        json.dumps(
            {
                "completed": len(latencies),
                "failed": load.failed,
                "seconds": took,
                "p50": 1000 * statistics.median(latencies) if latencies else None,
                "p99": 1000 * latencies[int(0.99 * (len(latencies) - 1))] if latencies else None,
            }
        )
    )


def main() -> None:
    """Run the load that the arguments describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--body", required=True)
    parser.add_argument("--expected", default="tok19")
    given = parser.parse_args()
    asyncio.run(_run(given.url, given.clients, given.seconds, given.body, given.expected))


if __name__ == "__main__":
    main()
