"""The life cycle of a server, from its socket to the last turn."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace

from starlette.types import ASGIApp

from moa_cli.config.schema import Config
from moa_cli.core.errors import MoAError, UsageError
from moa_cli.core.files.descriptors import room_for
from moa_cli.core.text import plural
from moa_cli.engine import FanOutMemory, Limits
from moa_cli.observability.tracing import Tracing
from moa_cli.profile import Profile
from moa_cli.server.accesslog import AccessLog
from moa_cli.server.app import make_app
from moa_cli.server.http_server import HttpServer
from moa_cli.server.keys import ClientKeys
from moa_cli.server.ledger import ServerLedger
from moa_cli.server.limits import TurnLimiter
from moa_cli.server.loops import Address
from moa_cli.server.metrics import Calls, Metrics
from moa_cli.server.mixtures import Mixtures
from moa_cli.server.reading import DEFAULT, SettingsReader
from moa_cli.server.reload import Reloader
from moa_cli.server.service import ServerOptions, Service, Setup
from moa_cli.store.spending import Spending

# Turns leave no reference cycles, so frequent collections would find little.
_GC_THRESHOLDS = (50_000, 20, 50)
# Seconds for sending the last bytes of turns that were cut off.
_FLUSH_SECONDS = 1.0
_STALL_MILLISECONDS = 90_000
# Connections with clients at once, and with providers at once. With fewer than the second number,
# the user is told.
_MOST_CONNECTIONS, _FEW_CONNECTIONS = 16_384, 512


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a server needs at the start, and functions that read it again when a file changes.

    profile: the profile behind the name `moa`. config: the settings. read_config: returns the
    current settings. default: returns the profile behind the name `moa` for given settings. limits:
    returns the engine's limits for given settings and ledger. These three raise MoAError. calls:
    the counts of calls of all turns. spending: the store of costs; None if costs are not recorded.
    tracing: traces the turns; None for no tracing. introduction: lines that name the models, and
    warnings.
    """

    profile: Profile
    options: ServerOptions
    config: Config
    read_config: Callable[[], Config]
    default: Callable[[Config], Profile]
    limits: Callable[[Config, ServerLedger], Limits]
    calls: Calls
    spending: Spending | None
    tracing: Tracing | None
    introduction: Sequence[str]


def run(start: Start) -> int:
    """Serve until a signal ends it; returns the exit code. Raises MoAError if it cannot begin."""
    keys = read_keys(start)
    with closing(listen(start.options, keyed=bool(keys))) as bound:
        service = make_service(start, Address(*bound.getsockname()[:2]), keys)
        return asyncio.run(_serve(service, bound, start.introduction))


def most_connections() -> int:
    """How many connections there may be at once with clients, and as many with providers."""
    return max(16, room_for(2 * _MOST_CONNECTIONS) // 2)


def read_keys(start: Start) -> ClientKeys:
    """The keys of clients, at the start. Raises MoAError if one of them is not valid."""
    keys, faults = start.options.key_places.read(start.config)
    if faults:
        raise faults[0]
    keys.keep_out_of_logs()
    return keys


def make_service(start: Start, address: Address, keys: ClientKeys) -> Service:
    """The state that all requests share. address: where the server listens. keys: the clients'
    keys."""
    options, tracing = start.options, start.tracing
    log = AccessLog(options.log_format)
    ledger = ServerLedger(start.spending, log.note)
    if tracing is not None:
        tracing.tell(log.note)
    reader = SettingsReader(
        config=start.read_config,
        default=start.default,
        # New settings get an empty memory of proposals, because remembered ones may be from other
        # endpoints.
        limits=lambda config: replace(start.limits(config, ledger), fan_outs=FanOutMemory()),
        keys=options.key_places,
        environment=os.environ,
        address=address,
        keeps_costs=start.spending is not None,
    )
    reading = reader.first(start.config, start.profile, keys)
    mixtures = Mixtures(reading, log.note, expose_models=options.expose_models)
    limiter = TurnLimiter(options.max_concurrency, options.queue)

    service = Service(
        options=options,
        address=address,
        reader=reader,
        setup=Setup(reading=reading, mixtures=mixtures, ledger=ledger),
        log=log,
        tracing=tracing,
        limiter=limiter,
        metrics=Metrics(limiter, lambda model: service.setup.mixtures.serves(model), start.calls),
    )
    return service


async def _serve(service: Service, bound: socket.socket, introduction: Sequence[str]) -> int:
    server = Server(service, make_app(service), introduction, service.address.url)
    async with lifetime(service):
        await server.serve(sockets=[bound])
    return server.code


@asynccontextmanager
async def lifetime(service: Service) -> AsyncIterator[None]:
    """While inside, requests are answered. At the end, cancelled turns get time to close their
    connections, and all costs are recorded."""
    # This loads the client's code, and sends no request.
    await service.setup.clients.warm(())
    reloader = Reloader(service.reader, service.setup.reading, service.take, service.tell_bug)
    service.reload = reloader.force
    # Imported objects stay in memory, and scanning them in each garbage collection costs a tenth of
    # all time.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        yield
    finally:
        reloader.close()
        if service.running:
            await asyncio.wait(service.running, timeout=_FLUSH_SECONDS)
        await service.aclose()


class Server(HttpServer):
    """A server that stops in two steps: a first signal lets turns end, a second one cancels them.

    url: the address that is shown to users. code: the exit code of the process.
    """

    def __init__(
        self, service: Service, app: ASGIApp, introduction: Sequence[str], url: str
    ) -> None:
        most = most_connections()
        super().__init__(app, most)
        self._service = service
        self._introduction = introduction
        if most < _FEW_CONNECTIONS:
            few = "the system lets this process open no more files and connections (`ulimit -n`)"
            self._introduction = [*introduction, f"{most} connections at once: {few}"]
        self._url = url
        self._had_terminal = os.isatty(2)
        self.code = 0

    def on_start(self) -> None:
        introduce(self._service, f"listening on {self._url}", self._introduction, self.others)

    @property
    def others(self) -> str:
        """What can be asked besides the default profile, in words."""
        return plural(len(self._service.setup.mixtures.names()) - 1, "more model")

    def on_signal(self, number: int) -> None:
        """Stop gracefully at the first signal, and at once at the second. SIGHUP reloads the files,
        unless it means that the server's terminal is gone."""
        hung_up = self._had_terminal and not os.isatty(2)
        if number == getattr(signal, "SIGHUP", None) and not hung_up:
            self._service.reload()
            return
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


def introduce(service: Service, where: str, introduction: Sequence[str], others: str) -> None:
    """Log the address of the server, the profile behind the name `moa`, what else can be asked, and
    the warnings."""
    first, *warnings = introduction
    service.log.note(f"{where}; `{DEFAULT}` is {first}; {others}")
    for warning in warnings:
        service.log.note(warning)
    service.tell_faults(service.setup.reading)


def listen(options: ServerOptions, *, keyed: bool) -> socket.socket:
    """A socket that is bound to the host and port of the options.

    Raises UsageError if other machines could reach it without a key, MoAError if the address is not
    available.
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
    if not loopback and not keyed and not options.insecure:
        raise UsageError(
            f"without a key, anybody who reaches {options.host} could spend your money",
            hint="set MOA_SERVE_API_KEY or --api-key-file, or pass --insecure",
        )
    if "*" in options.origins and not keyed and not options.insecure:
        raise UsageError(
            "without a key, any web page could spend your money",
            hint="set MOA_SERVE_API_KEY or --api-key-file, or name the pages that may call",
        )
    # With an explicit protocol, the event loop turns off Nagle's algorithm on the connections. The
    # algorithm would delay single tokens.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            # A connection whose client receives nothing is closed, also after the last byte was
            # written.
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALL_MILLISECONDS)
        found.bind(address)
        # Now, because the port is not taken before: another server could bind to it, too.
        found.listen()
    except OSError as error:
        found.close()
        raise MoAError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror}",
            hint="choose another --port; 0 picks a free one",
        ) from None
    return found
