"""The mixture as a library: one call, or a stream of events.

from moa_cli import ask, load_profile

turn = ask("Give me three facts about the Moon", profile=load_profile("local"))
print(turn.reply)
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Sequence

from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, load_config
from moa_cli.core.conversation import Conversation, Turn
from moa_cli.core.endpoints import Clients
from moa_cli.core.events import Event
from moa_cli.core.stream import Sink, deliver
from moa_cli.engine import Cap, Control, Limits
from moa_cli.engine import run_turn as _run_turn
from moa_cli.models.providers import default_profile
from moa_cli.profile import Profile, load, resolve
from moa_cli.store import accounts
from moa_cli.store.spending import CallBook
from moa_cli.store.store import Store

__all__ = ["ask", "ask_async", "load_profile", "open_clients", "run_turn"]

load_profile = load
_log = logging.getLogger("moa_cli")


class _Money:
    """What the config file lets turns spend, and where it is written down.

    Belongs to one thread of one process. spent: USD that count for the session already.
    Raises StoreError if the day's budget cannot be kept.
    """

    def __init__(self, config: Config, spent: float = 0.0) -> None:
        books = accounts.open_books(
            config, save=config.save, open_store=Store.open, warn=_log.warning
        )
        self._spending = books.spending
        self._process = os.getpid()
        self._book = book = CallBook(books.spending, _log.warning)
        book.cost = spent
        caps = accounts.caps(config, books.spending)
        if config.budget.session is not None:
            cap = Cap.shared_cost("budget.session", config.budget.session, lambda: book.cost)
            caps = (*caps, cap)
        self.limits = Limits(
            concurrency=config.concurrency, retries=config.retries, caps=caps, ledger=book
        )

    @property
    def inherited(self) -> bool:
        """Whether this process is a copy (fork) of the one that it belongs to."""
        return self._process != os.getpid()

    @property
    def spent(self) -> float:
        """USD of all calls that have ended, as far as it is known."""
        return self._book.cost

    def close(self) -> None:
        """Give the store back. What a copy of a process has of its parent's is left alone."""
        if self._spending is not None and not self.inherited:
            self._spending.close()


class _Clients(ClientPool):
    """Clients, and what turns over them may spend together."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._settings = config
        self._money: _Money | None = None
        # Never closed, nor collected: they are other processes' connections.
        self._inherited: list[_Money] = []

    def limits(self) -> Limits:
        """What the config file says. Raises StoreError if the day's budget cannot be kept."""
        spent = 0.0
        if self._money is not None and self._money.inherited:
            # Two processes can share neither a connection nor a journal.
            self._inherited.append(self._money)
            spent, self._money = self._money.spent, None
        if self._money is None:
            self._money = _Money(self._settings, spent)
        return self._money.limits

    async def aclose(self) -> None:
        """Close all clients, and the store."""
        await super().aclose()
        if self._money is not None:
            self._money.close()
            self._money = None


def open_clients() -> ClientPool:
    """Clients for `run_turn`, made from the config file and the environment's keys.

    They belong to one event loop; `await clients.aclose()` there when done.
    """
    return _Clients(load_config())


def run_turn(
    profile: Profile,
    conversation: Conversation,
    clients: Clients,
    *,
    control: Control | None = None,
    limits: Limits | None = None,
    references: Sequence[str] | None = None,
) -> AsyncGenerator[Event, None]:
    """Answer the open turn of `conversation` (see `Conversation.ask`) by the profile's mixture.

    Yields the turn's events; trouble at an endpoint is an event, only a bug raises. Closing the
    generator at any point cancels every call; use `contextlib.aclosing` around it.

    control: says "enough" while it runs. references: answers that are there already; then no
    proposer is asked, and the aggregator writes its reply from these.
    limits: None holds turns over `open_clients()` to the config file, its budgets included
    (`budget.session` to all turns over these clients together), and writes what they spend into
    the ledger that `moa history stats` shows. Turns over clients of your own are not held to it.
    Raises StoreError if a budget of the day cannot be kept.
    """
    if limits is None and isinstance(clients, _Clients):
        limits = clients.limits()
    return _run_turn(
        profile, conversation, clients, control=control, limits=limits, references=references
    )


def ask(
    prompt: str,
    *,
    profile: Profile | str | None = None,
    conversation: Conversation | None = None,
    sinks: tuple[Sink, ...] = (),
) -> Turn:
    """Ask once and return the turn; see `ask_async`. Not for use inside an event loop.

    Raises RuntimeError if an event loop is running.
    """
    return asyncio.run(ask_async(prompt, profile=profile, conversation=conversation, sinks=sinks))


async def ask_async(
    prompt: str,
    *,
    profile: Profile | str | None = None,
    conversation: Conversation | None = None,
    sinks: tuple[Sink, ...] = (),
    clients: Clients | None = None,
) -> Turn:
    """Answer `prompt` by a mixture and return the turn.

    profile: a profile, or the name or path of one; without it the one that `moa ask` would
    use, MOA_* variables included. conversation: what was said before.
    sinks: shown each event as it comes. clients: used and left open; by default the ones of
    the config file, for this call.

    `[budget]` of the config file holds, and what is spent is written down, as for `moa ask`; the
    conversation is not kept. A turn that a budget stops is one that failed.

    A turn whose models failed is returned, not raised: look at `turn.status` and `turn.error`.
    Raises ProfileError if there is no such profile, or it is wrong, or one of its model names
    has a provider that is not known; nothing is sent then. Raises StoreError if a budget of the
    day cannot be kept.
    """
    if clients is None:
        pool = open_clients()
        try:
            return await ask_async(
                prompt, profile=profile, conversation=conversation, sinks=sinks, clients=pool
            )
        finally:
            await pool.aclose()
    config = load_config()
    resolved = _resolved(profile, config)
    asked = (conversation or Conversation()).ask(prompt)
    if isinstance(clients, _Clients):
        return await deliver(run_turn(resolved, asked, clients), *sinks)
    money = _Money(config)
    try:
        return await deliver(_run_turn(resolved, asked, clients, limits=money.limits), *sinks)
    finally:
        money.close()


def _resolved(profile: Profile | str | None, config: Config) -> Profile:
    if profile is None:
        return resolve(default_profile(config, os.environ), environment=os.environ)
    return load(profile) if isinstance(profile, str) else profile
