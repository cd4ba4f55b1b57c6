"""Looks up the addresses of host names, in threads that nothing waits for.

Python can only call the system's `getaddrinfo`, which cannot be interrupted. If no name server
answers, it blocks for the system's timeout, often half a minute for each name. aiohttp calls it in
the event loop's own thread pool, and closing the loop waits for that pool. So the end of the
process, also after Ctrl-C, would wait for the lookup.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

# Seconds for a lookup. Less than `CONNECT_SECONDS`, so that an error can name the lookup as the
# cause. Most systems wait 5 s for a name server before they ask the next one.
LOOKUP_SECONDS = 9.0
_FAILED_SECONDS = 15.0
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class LookupTimedOut(OSError):
    """No name server returned the address in time."""


class Resolver(AbstractResolver):
    """Looks names up for aiohttp. Raises LookupTimedOut, or what `socket.getaddrinfo` does.

    After a lookup timed out, lookups of the same name fail at once for some seconds, so the other
    calls of the turn or batch do not wait, too.
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
        """The resolver holds nothing that must be closed."""


async def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[ResolveResult]] = loop.create_future()

    def tell(addresses: list[ResolveResult], error: Exception | None) -> None:
        if found.done():
            # The caller has been cancelled or has timed out.
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
        # RuntimeError: the loop is already closed.
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
        # AI_ADDRCONFIG omits IPv4 or IPv6 addresses if this machine has no address of that kind
        # itself.
        found = socket.getaddrinfo(host, port, flags=socket.AI_ADDRCONFIG, **asked)
    except socket.gaierror:
        # A machine without any network has no address of either kind, so even localhost fails.
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
    """The address as text; a link-local address includes its network interface."""
    if len(address) > 3 and address[3]:
        return socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
    return str(address[0])
