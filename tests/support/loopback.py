"""A server of tests: real connections on 127.0.0.1, all of which end with it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import suppress
from typing import Self


class LoopbackServer:
    """`with …:` listens at `port` on a thread of its own; then all its connections are closed.

    port: 0 for a free one. tls: how it is spoken to.
    """

    def __init__(self, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._tls = tls
        # Of connections that are not closed yet.
        self._calls: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def open_connections(self) -> int:
        """Of clients that are there."""
        return len(self._calls)

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What it does with a connection, which is closed after that."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", self.port))
        self.port = int(self._socket.getsockname()[1])
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name=type(self).__name__
        )
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(
            self._accept, sock=self._socket, ssl=self._tls, backlog=256
        )
        self._ready.set()
        await self._stop.wait()
        # A connection gets its transport in a task that the loop makes as it accepts. That task
        # fails where the server is closed in between, and then nobody closes the connection: so
        # none is accepted any more, those that were are waited for, and only then is it closed.
        self._loop.remove_reader(self._socket.fileno())
        for _ in range(3):
            await asyncio.sleep(0)
        server.close()
        for call, writer in self._calls.items():
            # One that has not begun yet closes nothing by itself when it is cancelled.
            writer.transport.abort()
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: one that is cancelled before it has begun would leave its connection. One
        # of TLS may come here long after it was accepted.
        if self._stop.is_set():
            writer.transport.abort()
            return
        call = asyncio.ensure_future(self._call(reader, writer))
        self._calls[call] = writer
        call.add_done_callback(self._calls.pop)

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio does this only for sockets that it made; without it small writes wait 40 ms.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self.meet(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
