"""A server's life: from the socket to the last turn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from moa_cli.clients.aiohttp_transport import AiohttpTransport, preload
from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config
from moa_cli.core.text import plural
from moa_cli.engine import Limits
from moa_cli.profile import Profile
from moa_cli.server.accesslog import AccessLog
from moa_cli.server.app import make_app
from moa_cli.server.books import Books
from moa_cli.server.limits import Gate
from moa_cli.server.listening import listen
from moa_cli.server.loops import Address, upstream_headers
from moa_cli.server.metrics import Metrics
from moa_cli.server.mixtures import DEFAULT, Mixtures, check_default
from moa_cli.server.options import ServerOptions
from moa_cli.server.protocol import BoundedProtocol
from moa_cli.server.service import Service
from moa_cli.store.spending import Spending

__all__ = ["run"]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
_KEEP_ALIVE_SECONDS = 65
_GC_THRESHOLDS = (10_000, 20, 50)
# For the last bytes of turns that were cut off.
_FLUSH_SECONDS = 1.0


def run(
    profile: Profile,
    options: ServerOptions,
    *,
    config: Config,
    spending: Spending | None,
    limits: Callable[[Books], Limits],
    introduction: Sequence[str],
) -> int:
    """Serve until a signal ends it; returns the exit code.

    profile: what `moa` stands for. spending: where costs are kept, if they are.
    limits: the engine's, from the books that they may ask. introduction: which models answer,
    and warnings, a line each. Raises MoAError if it cannot begin.
    """
    bound = listen(options)
    try:
        address = Address(*bound.getsockname()[:2])
        service = _assemble(profile, options, config, spending, limits, address)
        return asyncio.run(_serve(service, bound, introduction))
    finally:
        bound.close()


def _assemble(
    profile: Profile,
    options: ServerOptions,
    config: Config,
    spending: Spending | None,
    limits: Callable[[Books], Limits],
    address: Address,
) -> Service:
    pool = ClientPool(config, headers=upstream_headers, transport=AiohttpTransport)
    check_default(profile, pool.providers, address)
    log = AccessLog(options.log_format)
    books = Books(spending, log.note)
    mixtures = Mixtures(profile, pool.providers, os.environ, address)
    gate = Gate(options.max_concurrency, options.queue)
    return Service(
        options=options,
        address=address,
        mixtures=mixtures,
        clients=pool,
        limits=limits(books),
        books=books,
        log=log,
        gate=gate,
        metrics=Metrics(gate, mixtures.serves),
    )


async def _serve(service: Service, bound: socket.socket, introduction: Sequence[str]) -> int:
    server = _Server(service, introduction)
    loading = asyncio.create_task(asyncio.to_thread(preload))
    # What was imported stays: looking through it again and again costs a tenth of all time.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        await server.serve(sockets=[bound])
    finally:
        if service.running:
            await asyncio.wait(service.running, timeout=_FLUSH_SECONDS)
        await service.books.aclose()
        await service.clients.aclose()
        await loading
    return server.code


class _Server(uvicorn.Server):
    """uvicorn's, with our way to end. code: for the process."""

    def __init__(self, service: Service, introduction: Sequence[str]) -> None:
        # What it would log is in our own lines, or in nobody's interest.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        super().__init__(
            uvicorn.Config(
                make_app(service),
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            )
        )
        self._service = service
        self._introduction = introduction
        self.code = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell where."""
        await super().startup(sockets)
        service = self._service
        others = len(service.mixtures.names()) - 1
        first, *warnings = self._introduction
        service.log.note(
            f"listening on {service.address.url}; `{DEFAULT}` is {first}; {others} more models"
        )
        for warning in warnings:
            service.log.note(warning)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """While inside, a signal ends the server: the first in good order, the second at once."""
        loop = asyncio.get_running_loop()
        known = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        # What a shell (`&`) or nohup had us ignore stays so.
        numbers = [one for one in known if signal.getsignal(one) is not signal.SIG_IGN]
        for number in numbers:
            try:
                loop.add_signal_handler(number, self._signalled, number)
            except NotImplementedError:
                # Windows.
                signal.signal(
                    number, lambda got, _: loop.call_soon_threadsafe(self._signalled, got)
                )
        try:
            yield
        finally:
            for number in numbers:
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(number)

    def _signalled(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        if self.should_exit:
            self.force_exit = True
            self.code = 128 + number
            self._service.end_turns()
            loop.call_soon(self._abort)
            return
        self.should_exit = True
        self._service.stop()
        grace = self._service.options.grace
        running = len(self._service.running)
        turns = plural(running, "running turn")
        self._service.log.note(f"stopping; {turns}, {grace:g} s to end")
        loop.call_later(grace, self._service.end_turns)
        loop.call_later(grace + _FLUSH_SECONDS, self._abort)

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            transport = connection.transport
            if isinstance(transport, asyncio.Transport):
                transport.abort()
