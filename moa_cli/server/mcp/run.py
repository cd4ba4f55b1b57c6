"""The life cycle of `moa mcp`, over standard input and output or over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import closing, suppress
from typing import Any, cast

from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import (
    StreamableHTTPASGIApp,
    StreamableHTTPSessionManager,
)
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, Router

from moa_cli.core.text import plural
from moa_cli.server.app import make_app
from moa_cli.server.http_server import handle_signals
from moa_cli.server.loops import Address
from moa_cli.server.mcp.calls import ToolServer, offered
from moa_cli.server.run import (
    Server,
    Start,
    introduce,
    lifetime,
    listen,
    make_service,
    read_keys,
)
from moa_cli.server.service import Service

_CHUNK_BYTES = 65_536
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Seconds for sending the last results of turns that have ended.
_FLUSH_SECONDS = 0.3


def run(start: Start, *, http: bool) -> int:
    """Serve until standard input or a signal ends it; returns the exit code. Raises MoAError if it
    cannot begin.

    http: whether to serve over HTTP, and not over standard input and output.
    """
    keys = read_keys(start)
    if not http:
        # It listens on no address, so it needs no key.
        service = make_service(start, Address("127.0.0.1", 0), keys)
        return asyncio.run(_over_stdio(service, start.introduction))
    with closing(listen(start.options, keyed=bool(keys))) as bound:
        service = make_service(start, Address(*bound.getsockname()[:2]), keys)
        return asyncio.run(_over_http(service, bound, start.introduction))


async def _over_stdio(service: Service, introduction: Sequence[str]) -> int:
    """Serve until the parent closes standard input, or until a signal."""
    tools = ToolServer(service).server
    ended_by: list[int] = []
    async with lifetime(service):
        talking = asyncio.create_task(_talk(tools))

        def end(number: int) -> None:
            ended_by.append(number)
            service.end_turns()
            talking.cancel()

        handle_signals((signal.SIGINT, signal.SIGTERM), end)
        where = "waiting for requests on standard input"
        introduce(service, where, introduction, _others(service))
        await asyncio.wait([talking])
    if not talking.cancelled():
        talking.result()
    return 128 + ended_by[0] if ended_by else 0


async def _talk(tools: Any) -> None:
    """Serve one client over standard input and output.

    Meanwhile, the SDK points file descriptor 1 at standard error, so that other output cannot mix
    with the messages.
    """
    try:
        # The cast is safe, because the SDK only iterates over the lines of its input.
        async with stdio_server(stdin=cast("Any", _InputLines(0))) as (reading, writing):
            await tools.run(reading, writing, tools.create_initialization_options())
    except* OSError:
        # The parent has ended without waiting for the results.
        pass


class _InputLines:
    """The lines of a file descriptor, read in a daemon thread.

    The SDK's own reader cannot be cancelled while it waits for a line, so a signal would not end
    the program before the parent closes the input.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        # Limits how far the thread reads ahead of the event loop.
        self._taken = threading.Semaphore(64)
        threading.Thread(target=self._read, name="standard input", daemon=True).start()

    def _read(self) -> None:
        rest = b""
        # RuntimeError: the event loop is closed because the program ends.
        with suppress(RuntimeError):
            while data := self._more():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._taken.acquire()
                    self._put(_readable(line))
            if rest:
                self._put(_readable(rest))
            self._put(None)

    def _more(self) -> bytes:
        try:
            return os.read(self._descriptor, _CHUNK_BYTES)
        except OSError:
            return b""

    def _put(self, line: str | None) -> None:
        self._loop.call_soon_threadsafe(self._lines.put_nowait, line)

    async def __aiter__(self) -> AsyncIterator[str]:
        while (line := await self._lines.get()) is not None:
            self._taken.release()
            if line.strip():
                yield line


def _readable(line: bytes) -> str:
    """A message that the SDK's parser accepts. The parser drops a message with a lone surrogate
    without an answer, so the agent would wait forever. JavaScript writes a lone surrogate when it
    cuts an emoji in two."""
    text = line.decode("utf-8", "replace")
    if _SURROGATE.search(text):
        with suppress(ValueError, RecursionError):
            told = json.dumps(json.loads(text), ensure_ascii=False)
            return told.encode("utf-8", "replace").decode()
    return text


async def _over_http(service: Service, bound: socket.socket, introduction: Sequence[str]) -> int:
    # Without the SDK's security settings: the guard in `make_app` decides who may call, and from
    # where.
    sessions = StreamableHTTPSessionManager(
        ToolServer(service).server, max_request_body_size=service.options.max_body
    )

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    router = Router(
        [Route("/mcp", StreamableHTTPASGIApp(sessions)), Route("/health", health)],
        redirect_slashes=False,
    )
    url = service.address.url.removesuffix("/v1") + "/mcp"
    server = _HttpServer(service, make_app(service, router), introduction, url)
    async with lifetime(service), sessions.run():
        await server.serve(sockets=[bound])
    return server.code


class _HttpServer(Server):
    """A server that does not wait, when it stops, for streams on which clients only listen."""

    @property
    def others(self) -> str:
        """What can be asked besides the default profile, in words."""
        return _others(self._service)

    def on_signal(self, number: int) -> None:
        first = not self.should_exit
        super().on_signal(number)
        if first and self.should_exit:
            self._ending = asyncio.create_task(self._close_when_idle())

    async def _close_when_idle(self) -> None:
        if running := set(self._service.running):
            await asyncio.wait(running)
        await asyncio.sleep(_FLUSH_SECONDS)
        self.abort_connections()


def _others(service: Service) -> str:
    return plural(len(offered(service.setup.mixtures)) - 1, "more profile")
