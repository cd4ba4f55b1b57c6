"""How a server is set up, and what all requests to it share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from moa_cli.clients.pool import ClientPool
from moa_cli.engine import Limits
from moa_cli.server.accesslog import AccessLog, LogFormat
from moa_cli.server.files import FileReader
from moa_cli.server.ledger import ServerLedger
from moa_cli.server.limits import TurnLimiter
from moa_cli.server.loops import Address
from moa_cli.server.metrics import Metrics
from moa_cli.server.mixtures import Mixtures
from moa_cli.server.wires.asked import UsageKind

# Clients can make up any number of names.
_MOST_NAMES = 1000


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server is set up.

    A client must send one of the `keys`, if there are any; without, only an `insecure` server may
    be reached from other machines, and only web pages of the `origins` may call. `max_concurrency`
    turns run at once, `queue` more may wait, and running ones have `grace` seconds to end when the
    server stops. `max_body` counts bytes. A `strict` server refuses fields that have no effect;
    `expose_models` tells whether models of profiles can be asked alone.
    `usage` is what clients are told unless they ask otherwise, None what those of each wire expect.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
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
    max_body: int = 10_000_000


@dataclass(kw_only=True)
class Service:
    """What all requests share.

    `running` are the tasks of the turns; `cut` tells that they were ended with the server.
    """

    options: ServerOptions
    address: Address
    mixtures: Mixtures
    clients: ClientPool
    limits: Limits
    ledger: ServerLedger
    log: AccessLog
    limiter: TurnLimiter
    metrics: Metrics
    files: FileReader = field(default_factory=FileReader)
    started: int = field(default_factory=lambda: int(time.time()))
    running: set[asyncio.Task[None]] = field(default_factory=set)
    cut: bool = False
    # The names of fields without effect that the log has told of.
    _ignored: set[str] = field(default_factory=set)

    def note_ignored(self, names: Sequence[str]) -> None:
        """Tell the log, once, of fields of requests that have no effect."""
        if not names or len(self._ignored) > _MOST_NAMES:
            return
        news = [name for name in names if name not in self._ignored]
        if news:
            self._ignored.update(news)
            self.log.note(f"fields of requests that have no effect: {', '.join(news)}")

    def stop(self) -> None:
        """Begin no more turns."""
        self.limiter.close()

    def end_turns(self) -> None:
        """Cancel the turns that run, and all their calls."""
        self.stop()
        self.cut = True
        for task in list(self.running):
            task.cancel()
