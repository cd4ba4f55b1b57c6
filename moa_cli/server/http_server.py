"""HTTP/1.1 with uvicorn and httptools, extended by limits on request heads and a two-step shutdown.

This is the only file that relies on the following internals of uvicorn.
`tests/test_others_internals.py` tests them, and `pyproject.toml` pins the minor release:

- `Server.capture_signals` is a context manager around serving, and `startup` binds the sockets;
- `should_exit` ends serving once running requests have ended, `force_exit` at once;
- `server_state.connections` holds a protocol for each connection, with its `transport`;
- a connection's `limit_concurrency` is compared with the number of all `connections`, for each
  request; if that is reached, the request is answered with the status 503;
- `HttpToolsProtocol` calls `on_headers_complete` for each head and `on_message_complete` at the end
  of its body, drops what arrives of a body after the response, holds the current request in `cycle`
  (`response_complete`), closes an idle connection in `timeout_keep_alive_handler`, and answers in
  `send_400_response`;
- it writes through the transport that `connection_made` was given, and calls `connection_lost`
  when the client has left, unless its `flow` has paused reading;
- `shutdown` closes a connection without a running request when the server stops;
- entries of the `scope` in `on_headers_complete` are in the application's scope, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from moa_cli.core.files.descriptors import is_shortage

# Seconds for the head of a request, from the start of the connection or from the first byte of the
# head, and for the rest of a body after the response.
_HEAD_SECONDS = 20.0
_LARGEST_HEAD = 65_536
_KEEP_ALIVE_SECONDS = 65
# The key of the connection in the scope of a request; see `_BoundedProtocol.calling`.
CONNECTION = "moa.connection"
_UPGRADE = re.compile(rb"(?<![^\n])upgrade:", re.IGNORECASE)
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


def handle_signals(numbers: Iterable[int], handle: Callable[[int], None]) -> None:
    """Call `handle` in the running event loop for each of these signals."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        try:
            loop.add_signal_handler(number, handle, number)
        except NotImplementedError:
            # Event loops on Windows have no signal handlers.
            signal.signal(number, lambda got, _: loop.call_soon_threadsafe(handle, got))


class HttpServer(uvicorn.Server):
    """A server of one application. A subclass defines what happens at the start and at a signal.

    most: the most connections with clients at once. Beyond them, requests are answered with the
    status 503.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        # Our own log has the useful lines of uvicorn's log.
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
                limit_concurrency=most,
                # So many are taken at a time, before those beyond the limit can be refused.
                backlog=min(2048, most),
            )
        )

    def on_start(self) -> None:
        """Called once the server accepts connections."""

    def on_signal(self, number: int) -> None:
        """Called in the event loop for each signal."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(_without_refused_accepts)
        await super().startup(sockets)
        self.on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """While inside, signals call `on_signal`."""
        loop = asyncio.get_running_loop()
        known = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        # A signal that a shell (`&`) or nohup made the process ignore stays ignored.
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


def _without_refused_accepts(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Drop what asyncio tells of connections for which there is no file descriptor: it tries the
    whole queue of them each second, with a traceback for each. They wait until others end."""
    if not is_shortage(context.get("exception")):
        loop.default_exception_handler(context)


class _BoundedProtocol(HttpToolsProtocol):
    """A connection with limits on the time and the size of a request's head, so that a client
    cannot hold the connection or fill the memory with a head that never ends."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Whether a head is expected, how many bytes of it have arrived, and the timer that ends the
        # wait.
        self._awaits_head = False
        self._head_size = 0
        self._late: asyncio.TimerHandle | None = None
        self._waiting: list[Callable[[], None]] = []
        # Whether a body is arriving, and whether the connection only waits for its end.
        self._in_body = self._lingers = False

    @contextlib.contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """While inside, `call` is called once the client leaves, or soon if it has left already.

        This replaces a task for each request that waits for the disconnect message.
        """
        self._waiting.append(call)
        if self.transport.is_closing():
            self.loop.call_soon(call)
        # While reading is paused, a disconnect would not be noticed.
        self.flow.resume_reading()
        try:
            yield
        finally:
            self._waiting.remove(call)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        joined = _JoinedWrites(transport, self._linger)
        super().connection_made(joined)  # type: ignore[arg-type]
        # Only connections beyond the limit are refused. uvicorn would refuse all while there are
        # too many.
        within = len(self.connections) <= (self.limit_concurrency or 0)
        self.limit_concurrency = None if within else 0
        self._expect_head()
        self._set_limit()

    def data_received(self, data: bytes) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        if answered and not self._awaits_head and not self._in_body:
            self._expect_head()
        if self._awaits_head:
            data = _without_upgrade(data)
        super().data_received(data)
        # Only for a head in several pieces: nearly all heads arrive in one piece and need no limit.
        if self._awaits_head:
            if self._late is None:
                self._set_limit()
            self._head_size += len(data)
            if self._head_size > _LARGEST_HEAD and not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")
        elif self._in_body and self._late is None and self.cycle.response_complete:
            self._set_limit()

    def on_headers_complete(self) -> None:
        self._head_came()
        self._in_body = True
        scope: Any = self.scope
        scope[CONNECTION] = self
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        self._head_came()
        super().on_message_complete()
        if self._lingers:
            self.transport.close()
        elif self.cycle.response_complete:
            # The rest of the body has ended the timer of the idle connection.
            self._set_limit()

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._in_body = False
        super().shutdown()

    def _linger(self) -> bool:
        """Whether a connection that should be closed stays open until the rest of a body has come:
        the system would reset it, and the client, which still sends, would lose the response."""
        if not self._in_body or self._lingers:
            return False
        self._lingers = True
        if self._late is None:
            self._set_limit()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)
        for call in self._waiting[:]:
            call()

    def _expect_head(self) -> None:
        self._awaits_head, self._head_size = True, 0

    def _set_limit(self) -> None:
        self._late = self.loop.call_later(_HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._in_body = False
        self.timeout_keep_alive_handler()

    def _head_came(self) -> None:
        self._awaits_head = False
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _without_upgrade(data: bytes) -> bytes:
    """The head of a request whose offer of another protocol has another name, for it is not taken.
    HTTP clients of Java make one with each request, and the parser would stop before the body."""
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    if b"upgrade:" not in head.lower():
        return data
    return _UPGRADE.sub(b"ignored:", head) + data[len(head) :]


class _JoinedWrites:
    """A transport that joins all writes of one iteration of the event loop: the head of a response
    with the start of its body, the last token with the end. A system call for each write would cost
    as much as making the data.
    """

    def __init__(self, transport: asyncio.Transport, lingers: Callable[[], bool]) -> None:
        self._transport = transport
        self._lingers = lingers
        self._ended = False
        self._held: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._ended:
            return
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(bytes(data))

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))

    def close(self) -> None:
        """Close the transport after all data has been sent. If it lingers, only sending ends."""
        self._flush()
        if self._lingers():
            self._ended = True
            self._transport.write_eof()
        else:
            self._transport.close()

    def abort(self) -> None:
        self._held = []
        self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
