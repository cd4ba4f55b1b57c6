"""What may stand between a client and an upstream on this machine: TLS, and proxies.

Each accepts connections on 127.0.0.1 and leads all of them to one upstream, whatever host the
client asks for. So a host that does not exist can be reached through a proxy only.
"""

from __future__ import annotations

import asyncio
import datetime
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from urllib.parse import urlsplit

import trustme

from tests.support.loopback import LoopbackServer

AUTHORITY = trustme.CA()
_HELD = ExitStack()


def tls(*names: str, authority: trustme.CA = AUTHORITY, expired: bool = False) -> ssl.SSLContext:
    """What a server of these names speaks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    end = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC) if expired else None
    authority.issue_cert(*names, not_after=end).configure_cert(context)
    return context


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that refuses connections until a server of the test listens there.

    It is bound to all the while: a port that is merely free may be another program's by the time it
    is used. A server can bind to it, too, as servers set SO_REUSEADDR.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@cache
def nobody() -> int:
    """A port that refuses connections as long as this process runs."""
    return _HELD.enter_context(reserved_port())


class Relay(LoopbackServer):
    """`with Relay(upstream.url) as relay:` passes on what comes to `relay.port`.

    asked: what clients asked of it, in words of their protocol. tls: how it is spoken to.
    """

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        address = urlsplit(url)
        self.host, self.upstream_port = str(address.hostname), address.port
        self.asked: list[str] = []

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Treat a client as its kind does, until one of the two leaves."""
        with suppress(OSError, EOFError):
            await self.lead(reader, writer)

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What it does with a connection."""
        await self.join(reader, writer, b"")

    async def join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        first: bytes,
        change: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """Pass on in both directions, beginning with these bytes of the client. change: what
        becomes of the pieces that the client sends."""
        there, back = await asyncio.open_connection(self.host, self.upstream_port)
        back.write(change(first))
        ways = (_copy(reader, back, change), _copy(there, writer))
        copies = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for copied in copies:
                copied.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
            back.close()


async def _copy(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    change: Callable[[bytes], bytes] = bytes,
) -> None:
    while data := await reader.read(65536):
        writer.write(change(data))
        await writer.drain()


class HttpProxy(Relay):
    """A proxy of HTTP. asked: request lines. login: `user:password`, if it wants them. refuses: the
    status that it answers with, in place of passing on."""

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None = None,
        login: str = "",
        refuses: int | None = None,
    ) -> None:
        super().__init__(url, tls=tls)
        self._login = b64encode(login.encode()) if login else b""
        self._refuses = refuses

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lead a tunnel, or plain requests, to the upstream."""
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.partition(b"\r\n")[0]
        self.asked.append(line.decode())
        status = self._refuses
        if self._login and b"Basic " + self._login not in head:
            status = 407
        if status is not None:
            writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % status)
            await writer.drain()
            return
        if line.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await self.join(reader, writer, b"")
            return
        self.asked.pop()
        await self.join(reader, writer, head, self._without_host)

    def _without_host(self, data: bytes) -> bytes:
        """A piece of what the client sends; each request in a connection begins one."""
        found = re.match(rb"([A-Z]+) http://[^/ ]+(/[^\r]*)", data)
        if found is None:
            return data
        self.asked.append(found[0].decode())
        return b"%s %s%s" % (found[1], found[2], data[found.end() :])


class SocksProxy(Relay):
    """A proxy of SOCKS5. asked: `host:port`. refuses: the code that it answers with."""

    def __init__(self, url: str, *, login: str = "", refuses: int = 0) -> None:
        super().__init__(url)
        self._login = login
        self._refuses = refuses

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Greet (RFC 1928, 1929), and lead to the upstream."""
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 2 if self._login else 0
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(bytes([5, wanted]))
        if self._login:
            user = await reader.readexactly((await reader.readexactly(2))[1])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            right = f"{user.decode()}:{password.decode()}" == self._login
            writer.write(bytes([1, not right]))
            if not right:
                return
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = ".".join(str(part) for part in await reader.readexactly(4 if kind == 1 else 16))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(f"{host}:{port}")
        writer.write(bytes([5, self._refuses, 0, 1, 0, 0, 0, 0, 0, 0]))
        if not self._refuses:
            await self.join(reader, writer, b"")
