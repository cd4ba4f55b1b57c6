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
    """Sends the request again whenever it has been answered, until the time is over."""

    def __init__(self, request: bytes, expected: bytes, until: float) -> None:
        self._request = request
        self._expected = expected
        self._until = until
        self._answer = bytearray()
        self.latencies: list[float] = []
        self.failed = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._answer.clear()
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not _is_whole(self._answer):
            return
        good = self._answer.startswith(b"HTTP/1.1 200") and self._expected in self._answer
        if good:
            self.latencies.append(time.perf_counter() - self._began)
        else:
            self.failed += 1
        if time.perf_counter() < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if time.perf_counter() < self._until:
            self.failed += 1
        if not self.done.done():
            self.done.set_result(None)


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
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    protocols = [_Client(request, expected.encode(), began + seconds) for _ in range(clients)]
    for one in protocols:
        await loop.create_connection(lambda one=one: one, parts.hostname, parts.port)  # type: ignore[misc]
    await asyncio.wait_for(asyncio.gather(*(one.done for one in protocols)), seconds + 120)
    took = time.perf_counter() - began
    latencies = sorted(value for one in protocols for value in one.latencies)
    print(
        json.dumps(
            {
                "completed": len(latencies),
                "failed": sum(one.failed for one in protocols),
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
