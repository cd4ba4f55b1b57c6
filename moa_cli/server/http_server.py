"""HTTP/1.1 by uvicorn and httptools, with the bounds and the way to end that they lack.

The only file that relies on uvicorn's internals; `tests/test_others_internals.py` holds what it
relies on, and `pyproject.toml` pins the minor release:

- `Server.capture_signals` is a context manager around serving, and `startup` binds the sockets;
- `should_exit` ends serving once running requests have ended, `force_exit` at once;
- `server_state.connections` holds a protocol for each connection, with its `transport`;
- `HttpToolsProtocol` calls `on_headers_complete` for each head, keeps the request at work in
  `cycle` (`response_complete`), closes an idle connection in `timeout_keep_alive_handler`, and
  answers in `send_400_response`;
- it writes through the transport that `connection_made` was given, and calls `connection_lost`
  when the client has left, unless its `flow` has paused reading;
- what `on_headers_complete` finds in its `scope` is in that of the application.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# For the head of a request, from the connection or its first byte on.
_HEAD_SECONDS = 20.0
_LARGEST_HEAD = 65_536
_KEEP_ALIVE_SECONDS = 65
# In the scope of a request: its connection, see `_BoundedProtocol.calling`.
CONNECTION = "moa.connection"
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


def handle_signals(numbers: Iterable[int], handle: Callable[[int], None]) -> None:
    """Have each of these signals come to `handle` in the running event loop."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        try:
            loop.add_signal_handler(number, handle, number)
        except NotImplementedError:
            # Windows.
            signal.signal(number, lambda got, _: loop.call_soon_threadsafe(handle, got))


class HttpServer(uvicorn.Server):
    """A server of one application. A subclass says what happens at its start and at a signal."""

    def __init__(self, app: ASGIApp) -> None:
        # What uvicorn would log is in our own lines, or of no interest.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        super().__init__(
            uvicorn.Config(
                app,
                http=_BoundedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            )
        )

    def on_start(self) -> None:
        """Called once the server accepts connections."""

    def on_signal(self, number: int) -> None:
        """Called in the event loop for each signal."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """While inside, signals come to `on_signal`."""
        loop = asyncio.get_running_loop()
        known = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        # What a shell (`&`) or nohup had us ignore stays so.
        numbers = [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]
        handle_signals(numbers, self.on_signal)
        try:
            yield
        finally:
            for number in numbers:
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(number)

    def abort_connections(self) -> None:
        """Close all connections at once, whatever they still have to send."""
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


class _BoundedProtocol(HttpToolsProtocol):
    """A connection whose client cannot hold it, or fill the memory, by never ending a head."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Whether a head is to come, how much of it has, and what ends the wait for the rest.
        self._awaits_head = False
        self._head_size = 0
        self._late: asyncio.TimerHandle | None = None
        self._waiting: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """While inside, have `call` called once the client leaves; soon, if it has left.

        In place of a task for each request, which would wait for the message that tells it.
        """
        self._waiting.append(call)
        if self.transport.is_closing():
            self.loop.call_soon(call)
        # It may be paused, and then the client's leaving would go unnoticed.
        self.flow.resume_reading()
        try:
            yield
        finally:
            self._waiting.remove(call)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_JoinedWrites(transport))  # type: ignore[arg-type]
        self._expect_head()
        self._set_limit()

    def data_received(self, data: bytes) -> None:
        if not self._awaits_head and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        super().data_received(data)
        # Nearly all heads come in one piece, and need no limit.
        if self._awaits_head:
            if self._late is None:
                self._set_limit()
            self._head_size += len(data)
            if self._head_size > _LARGEST_HEAD and not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")

    def on_headers_complete(self) -> None:
        self._head_came()
        scope: Any = self.scope
        scope[CONNECTION] = self
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)
        for call in self._waiting[:]:
            call()

    def _expect_head(self) -> None:
        self._awaits_head, self._head_size = True, 0

    def _set_limit(self) -> None:
        self._late = self.loop.call_later(_HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _head_came(self) -> None:
        self._awaits_head = False
        if self._late is not None:
            self._late.cancel()
            self._late = None


class _JoinedWrites:
    """A transport. What is written in one turn of the event loop leaves as one: the head of a
    response with the start of its body, the last token with the end. A system call for each would
    cost as much as making the data.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(bytes(data))

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))

    def close(self) -> None:
        """Close it once all has been sent."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._held = []
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
