"""The options of a server, and the state that all its requests share."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from moa_cli.clients.pool import ClientPool
from moa_cli.engine import Limits
from moa_cli.observability.tracing import Tracing
from moa_cli.server.accesslog import AccessLog, LogFormat, place_of
from moa_cli.server.files import FileReader
from moa_cli.server.forwarded import Network
from moa_cli.server.keys import ANYBODY, SOLO, ClientKey, KeyPlaces
from moa_cli.server.ledger import ServerLedger
from moa_cli.server.limits import KeyLimiter, TurnLimiter
from moa_cli.server.loops import Address
from moa_cli.server.metrics import Metrics
from moa_cli.server.mixtures import Mixtures
from moa_cli.server.reading import SettingsReader, Snapshot, is_profile, news
from moa_cli.server.wires.asked import UsageKind
from moa_cli.store.accounts import day_budget

# Most names of ignored fields that are remembered: clients can make up any number of names.
_MOST_NAMES = 1000
# Seconds to wait for a new profile. The reader finds it much sooner.
_LOOK_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server is set up.

    If there are keys in the `key_places`, a client must send one. Without keys, only an `insecure`
    server may be reached from other machines, and only web pages of the `origins` may call.
    `max_concurrency` turns run at once, `queue` more may wait, and running turns have `grace`
    seconds to end when the server stops. `max_body` is in bytes; `max_messages` limits the messages
    of a request. The `trusted_proxies` are trusted to report the address of a client. A `strict`
    server refuses fields that have no effect. `usage` is the usage that clients get unless they ask
    for another; None means what the clients of each wire expect. With `expose_models`, models of
    profiles can be asked alone.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    key_places: KeyPlaces = field(default_factory=KeyPlaces)
    insecure: bool = False
    origins: tuple[str, ...] = ()
    max_concurrency: int = 64
    queue: int = 256
    grace: float = 30.0
    show_proposals: bool = False
    strict: bool = False
    usage: UsageKind | None = None
    expose_models: bool = False
    log_format: LogFormat = "text"
    max_body: int = 50_000_000
    max_messages: int = 10_000
    trusted_proxies: tuple[Network, ...] = ()


@dataclass(kw_only=True)
class Setup:
    """The settings, profiles and keys of one reading. A request keeps the set-up that it began
    with."""

    reading: Snapshot
    mixtures: Mixtures
    ledger: ServerLedger
    _anybodys: dict[bool, Limits] = field(default_factory=dict)

    @property
    def clients(self) -> ClientPool:
        """The endpoints of models."""
        return self.reading.clients

    def limits(self, key: ClientKey, *, discreet: bool = False, reply_held: bool = False) -> Limits:
        """The limits of a turn with this key. discreet: whether errors must not reveal what other
        turns have spent; they never do for a named key. reply_held: see `Limits`.
        """
        if key is not ANYBODY or discreet:
            return replace(self._limits_of(key, discreet=discreet), reply_held=reply_held)
        # Made once, because all requests without a key have the same limits.
        if reply_held not in self._anybodys:
            found = replace(self._limits_of(key, discreet=False), reply_held=reply_held)
            self._anybodys[reply_held] = found
        return self._anybodys[reply_held]

    def _limits_of(self, key: ClientKey, *, discreet: bool) -> Limits:
        limits = replace(self.reading.limits, client=key.owner)
        if discreet or key.name is not None:
            common = (budget.cap.name for budget in limits.budgets if budget.scope == "shared")
            limits = replace(limits, undisclosed=frozenset(common))
        if key.name is None:
            return limits
        ledger = self.ledger.of_key(key.name)
        most = key.settings.budget
        if most is not None:
            budget = day_budget(f"server.keys.{key.name}.budget", most, ledger)
            limits = replace(limits, budgets=(*limits.budgets, budget))
        return replace(limits, ledger=ledger)


@dataclass(kw_only=True)
class Service:
    """The state that all requests share.

    `setup` is the set-up for new requests. `running` holds the tasks of the turns; `cut` is True
    after they were cancelled because the server stops.
    """

    options: ServerOptions
    address: Address
    reader: SettingsReader
    setup: Setup
    log: AccessLog
    limiter: TurnLimiter
    metrics: Metrics
    files: FileReader = field(default_factory=FileReader)
    tracing: Tracing | None = None
    key_limiter: KeyLimiter = field(default_factory=KeyLimiter)
    started: int = field(default_factory=lambda: int(time.time()))
    running: set[asyncio.Task[None]] = field(default_factory=set)
    cut: bool = False
    # Makes the reader read all files again at once.
    reload: Callable[[], None] = lambda: None
    # The names of fields without effect that were logged already.
    _ignored: set[str] = field(default_factory=set)
    _users: Counter[ClientPool] = field(default_factory=Counter)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)
    _told: frozenset[str] = frozenset()
    # Set and replaced after each reading.
    _taken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ready(self) -> bool:
        """Whether a new turn could begin now."""
        return not self.limiter.closed and self.setup.mixtures.ready

    def note_ignored(self, names: Sequence[str]) -> None:
        """Log the names of request fields without effect, each name once."""
        if not names or len(self._ignored) > _MOST_NAMES:
            return
        unknown = [name for name in names if name not in self._ignored]
        if unknown:
            self._ignored.update(unknown)
            self.log.note(f"fields of requests that have no effect: {', '.join(unknown)}")

    @contextmanager
    def request(self) -> Iterator[Setup]:
        """The set-up that a request keeps to its end, even if files are read again meanwhile."""
        setup = self.setup
        pool = setup.clients
        self._users[pool] += 1
        try:
            yield setup
        finally:
            self._users[pool] -= 1
            self._close_unused(pool)

    async def look_for(self, name: str) -> None:
        """Wait for the reading of a profile that was added a moment ago. Requests for a known
        profile, or for a name without a file, do not wait.
        """
        name = name.removesuffix(SOLO)
        if self.setup.mixtures.knows(name) or not await asyncio.to_thread(is_profile, name):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                while not self.setup.mixtures.knows(name):
                    await self._taken.wait()

    def take(self, reading: Snapshot, asked: bool) -> None:
        """Use a new reading for all requests that begin from now on. asked: whether the operator
        asked for the reading."""
        before = self.setup
        self.setup = Setup(
            reading=reading,
            mixtures=Mixtures(
                reading,
                self.log.note,
                before.mixtures,
                expose_models=self.options.expose_models,
            ),
            ledger=before.ledger,
        )
        reading.keys.keep_out_of_logs()
        before.ledger.use_zone(reading.config.zone())
        self._close_unused(before.clients)
        changed = news(before.reading, reading)
        if changed or asked:
            self.log.note(f"reloaded: {changed or 'nothing has changed'}")
        self.tell_faults(reading)
        self._taken.set()
        self._taken = asyncio.Event()

    def tell_faults(self, reading: Snapshot) -> None:
        """Log the faults of a reading and the keys that are missing, each once."""
        faults = [*reading.faults, *self.setup.mixtures.lacking()]
        for fault in faults:
            if fault not in self._told:
                self.log.note(fault)
        self._told = frozenset(faults)

    def tell_bug(self, bug: Exception) -> None:
        """Log that a reading failed because of a bug."""
        self.log.note(f"internal error: {place_of(bug)}")

    def _close_unused(self, pool: ClientPool) -> None:
        if pool is self.setup.clients or self._users[pool]:
            return
        self._users.pop(pool, None)
        closing = asyncio.create_task(pool.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def stop(self) -> None:
        """Begin no more turns."""
        self.limiter.close()

    def end_turns(self) -> None:
        """Cancel the running turns and all their calls."""
        self.stop()
        self.cut = True
        for task in list(self.running):
            task.cancel()

    async def aclose(self) -> None:
        """Record what the turns have cost, and close all connections to models."""
        await self.setup.ledger.aclose()
        pools = {self.setup.clients, *self._users}
        await asyncio.gather(*self._closing, *(pool.aclose() for pool in pools))
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
