"""A server's life: from the socket to the last turn."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace

from starlette.types import ASGIApp

from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config
from moa_cli.core.debug_log import add_secret
from moa_cli.core.errors import MoAError, UsageError
from moa_cli.core.text import plural
from moa_cli.engine import FanOutMemory, Limits
from moa_cli.profile import Profile
from moa_cli.server.accesslog import AccessLog
from moa_cli.server.app import make_app
from moa_cli.server.http_server import HttpServer
from moa_cli.server.ledger import ServerLedger
from moa_cli.server.limits import TurnLimiter
from moa_cli.server.loops import Address, upstream_headers
from moa_cli.server.metrics import Metrics
from moa_cli.server.mixtures import DEFAULT, Mixtures
from moa_cli.server.service import ServerOptions, Service
from moa_cli.store.spending import Spending

# Turns leave no circles behind, so there is little to be found by looking often.
_GC_THRESHOLDS = (50_000, 20, 50)
# For the last bytes of turns that were cut off.
_FLUSH_SECONDS = 1.0
_STALL_MILLISECONDS = 90_000


def run(
    profile: Profile,
    options: ServerOptions,
    *,
    config: Config,
    spending: Spending | None,
    limits: Callable[[ServerLedger], Limits],
    introduction: Sequence[str],
) -> int:
    """Serve until a signal ends it; returns the exit code.

    profile: what `moa` stands for. spending: where costs are kept, if they are.
    limits: the engine's, from the ledger that they ask. introduction: which models answer,
    and warnings, a line each. Raises MoAError if it cannot begin.
    """
    with closing(listen(options)) as bound:
        service = make_service(
            profile,
            options,
            Address(*bound.getsockname()[:2]),
            config=config,
            spending=spending,
            limits=limits,
        )
        return asyncio.run(_serve(service, bound, introduction))


def make_service(
    profile: Profile,
    options: ServerOptions,
    address: Address,
    *,
    config: Config,
    spending: Spending | None,
    limits: Callable[[ServerLedger], Limits],
) -> Service:
    """What all requests share; see `run`. address: where it listens."""
    for key in options.keys:
        add_secret(key)
    pool = ClientPool(config, headers=upstream_headers, many_calls=True)
    log = AccessLog(options.log_format)
    mixtures = Mixtures(
        profile, pool, os.environ, address, log.note, expose_models=options.expose_models
    )
    ledger = ServerLedger(spending, log.note)
    limiter = TurnLimiter(options.max_concurrency, options.queue)
    return Service(
        options=options,
        address=address,
        mixtures=mixtures,
        clients=pool,
        limits=replace(limits(ledger), fan_outs=FanOutMemory()),
        ledger=ledger,
        log=log,
        limiter=limiter,
        metrics=Metrics(limiter, mixtures.serves),
    )


async def _serve(service: Service, bound: socket.socket, introduction: Sequence[str]) -> int:
    server = Server(service, make_app(service), introduction, service.address.url)
    async with lifetime(service):
        await server.serve(sockets=[bound])
    return server.code


@asynccontextmanager
async def lifetime(service: Service) -> AsyncIterator[None]:
    """While inside, requests are answered. Then turns that were ended close their connections, and
    all that they cost is written down."""
    # Loads the client, and asks nobody.
    await service.clients.warm(())
    # What was imported stays: looking through it again and again costs a tenth of all time.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        yield
    finally:
        if service.running:
            await asyncio.wait(service.running, timeout=_FLUSH_SECONDS)
        await service.ledger.aclose()
        await service.clients.aclose()


class Server(HttpServer):
    """Ends in two steps: a first signal lets turns end, a second stops them.

    url: what clients are told. code: the exit code of the process.
    """

    def __init__(
        self, service: Service, app: ASGIApp, introduction: Sequence[str], url: str
    ) -> None:
        super().__init__(app)
        self._service = service
        self._introduction = introduction
        self._url = url
        self.code = 0

    def on_start(self) -> None:
        """Tell where the server listens."""
        introduce(self._service, f"listening on {self._url}", self._introduction)

    def on_signal(self, number: int) -> None:
        """End in good order at the first signal, at once at the second."""
        loop = asyncio.get_running_loop()
        if self.should_exit:
            self.force_exit = True
            self.code = 128 + number
            self._service.end_turns()
            loop.call_soon(self.abort_connections)
            return
        self.should_exit = True
        self._service.stop()
        grace = self._service.options.grace
        turns = plural(len(self._service.running), "running turn")
        self._service.log.note(f"stopping; {turns}, waiting up to {grace:g} s")
        loop.call_later(grace, self._service.end_turns)
        loop.call_later(grace + _FLUSH_SECONDS, self.abort_connections)


def introduce(service: Service, where: str, introduction: Sequence[str]) -> None:
    """Tell where the server is, what `moa` stands for, and what was warned of."""
    others = len(service.mixtures.names()) - 1
    first, *warnings = introduction
    service.log.note(f"{where}; `{DEFAULT}` is {first}; {others} more models")
    for warning in warnings:
        service.log.note(warning)


def listen(options: ServerOptions) -> socket.socket:
    """A socket that is bound to the numeric address of the options' host, and to their port.

    Raises UsageError where others could reach it without a key, MoAError if it cannot be had.
    """
    try:
        known = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError):
        raise UsageError(f"--host: there is no address for {options.host!r}") from None
    # An IPv4 address, if the host has one.
    family, _, _, _, (numeric, *_) = min(known, key=lambda found: found[0] != socket.AF_INET)
    address = (str(numeric), options.port)
    loopback = ipaddress.ip_address(address[0]).is_loopback
    if not loopback and not options.keys and not options.insecure:
        raise UsageError(
            f"without a key, anybody who reaches {options.host} could spend your money",
            hint="set MOA_SERVE_API_KEY or --api-key-file, or pass --insecure",
        )
    if "*" in options.origins and not options.keys and not options.insecure:
        raise UsageError(
            "without a key, any web page could spend your money",
            hint="set MOA_SERVE_API_KEY or --api-key-file, or name the pages that may call",
        )
    # With the protocol told, the event loop turns off Nagle's algorithm on its connections: it
    # would hold single tokens back.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            # A connection whose client takes nothing is given up, also after its last byte.
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALL_MILLISECONDS)
        found.bind(address)
    except OSError as error:
        found.close()
        raise MoAError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror}",
            hint="choose another --port; 0 takes any that is free",
        ) from None
    return found
