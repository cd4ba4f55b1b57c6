"""Names of hosts to addresses, in threads that nothing waits for.

Python can only ask the system, whose `getaddrinfo` cannot be interrupted: where no name server
answers, it takes as long as the system is set to wait, often half a minute for each name. aiohttp
calls it in the event loop's own pool of threads, and a loop waits for that pool when it is closed:
the end of the process, and with it Ctrl-C, would wait, too.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

# Less than a connection may take, so that it is known what took so long. A name server is waited
# for 5 s by most systems, before the next one is asked.
LOOKUP_SECONDS = 9.0
_FAILED_SECONDS = 15.0
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class LookupTimedOut(OSError):
    """No name server told the address in time."""


class Resolver(AbstractResolver):
    """Looks names up for aiohttp. Raises LookupTimedOut, or what `socket.getaddrinfo` does.

    A name that was looked up in vain is not waited for again in the next seconds: what follows
    in the same turn or batch fails at once.
    """

    def __init__(self) -> None:
        self._failed: dict[str, float] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host."""
        if time.monotonic() < self._failed.get(host, 0.0) + _FAILED_SECONDS:
            raise LookupTimedOut
        try:
            return await _look_up(host, port, family)
        except LookupTimedOut:
            self._failed[host] = time.monotonic()
            raise

    async def close(self) -> None:
        """Nothing is held."""


async def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[ResolveResult]] = loop.create_future()

    def tell(addresses: list[ResolveResult], error: Exception | None) -> None:
        if found.done():
            # Nobody waits for it any more.
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(error)

    def ask() -> None:
        error: Exception | None = None
        addresses: list[ResolveResult] = []
        try:
            addresses = _addresses(host, port, family)
        except UnicodeError:
            error = socket.gaierror(socket.EAI_NONAME, f"{host} is not a host name")
        except Exception as raised:
            error = raised
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, addresses, error)

    threading.Thread(target=ask, name=f"look up {host}", daemon=True).start()
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            return await found
    except TimeoutError:
        raise LookupTimedOut from None


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    asked: dict[str, Any] = {"family": family, "type": socket.SOCK_STREAM}
    try:
        # Without addresses of a kind that this machine has none of itself.
        found = socket.getaddrinfo(host, port, flags=socket.AI_ADDRCONFIG, **asked)
    except socket.gaierror:
        # A machine without any network has none of either kind.
        if host.rstrip(".").lower() != "localhost":
            raise
        found = socket.getaddrinfo(host, port, **asked)
    return [
        ResolveResult(
            hostname=host,
            host=_numeric(address),
            port=port,
            family=kind,
            proto=protocol,
            flags=_NUMERIC,
        )
        for kind, _, protocol, _, address in found
    ]


def _numeric(address: tuple[Any, ...]) -> str:
    """The address as text, with the interface that a link-local one belongs to."""
    if len(address) > 3 and address[3]:
        return socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
    return str(address[0])
