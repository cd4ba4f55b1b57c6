"""What all requests to a server share."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from moa_cli.clients.pool import ClientPool
from moa_cli.engine import Limits
from moa_cli.server.accesslog import AccessLog
from moa_cli.server.books import Books
from moa_cli.server.limits import Gate
from moa_cli.server.loops import Address
from moa_cli.server.metrics import Metrics
from moa_cli.server.mixtures import Mixtures
from moa_cli.server.options import ServerOptions

__all__ = ["Service"]


@dataclass(kw_only=True)
class Service:
    """started: seconds since 1970. running: the tasks of the turns; cut: whether they were ended
    because the server ends."""

    options: ServerOptions
    address: Address
    mixtures: Mixtures
    clients: ClientPool
    limits: Limits
    books: Books
    log: AccessLog
    gate: Gate
    metrics: Metrics
    started: int = field(default_factory=lambda: int(time.time()))
    running: set[asyncio.Task[None]] = field(default_factory=set)
    cut: bool = False

    def stop(self) -> None:
        """Begin no more turns."""
        self.gate.close()

    def end_turns(self) -> None:
        """Cancel the turns that run, and all their calls."""
        self.stop()
        self.cut = True
        for task in list(self.running):
            task.cancel()
