"""The mixture as a library: one call (`ask`, `ask_async`), or a stream of events (`run_turn`)."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, closing
from dataclasses import replace
from pathlib import Path

from moa_cli.clients.limiter import Limiter
from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, load_config
from moa_cli.core.conversation import Conversation, Part, Proposal, Turn, Usage
from moa_cli.core.endpoints import Clients
from moa_cli.core.events import Event
from moa_cli.core.files.attachments import prompt_of, read_part
from moa_cli.core.stream import Sink, deliver
from moa_cli.engine import Budget, Cap, Control, Limits, ResponseFormat
from moa_cli.engine import run_report as _run_report
from moa_cli.engine import run_turn as _run_turn
from moa_cli.models.candidates import LIST_PATIENCE, has_candidates
from moa_cli.models.providers import default_profile
from moa_cli.profile import Profile, load, resolve
from moa_cli.store import accounts
from moa_cli.store.spending import CallRecorder
from moa_cli.store.store import Store

__all__ = ["ask", "ask_async", "load_profile", "open_clients", "run_report", "run_turn"]

load_profile = load
_log = logging.getLogger("moa_cli")


# By process, since one that is forked has calls of its own, and by the calls that are allowed.
_limiters: dict[tuple[int, int], Limiter] = {}


def _limiter(concurrency: int) -> Limiter:
    """The limiter of all calls of this process, whatever thread makes them."""
    return _limiters.setdefault((os.getpid(), concurrency), Limiter(concurrency))


class _Money:
    """The budgets of the settings file, and where spending is recorded.

    It belongs to one thread of one process. clients: None where they are not those of the settings
    file, and so not held to its limits of calls. spent: USD that already count for the budget of
    the session. Raises StoreError if the budget of the day cannot be kept.
    """

    def __init__(self, config: Config, clients: ClientPool | None, spent: float = 0.0) -> None:
        records = accounts.open_records(
            config, save=config.save, open_store=Store.open, warn=_log.warning
        )
        self._spending = records.spending
        self._process = os.getpid()
        budgets = accounts.budgets(config, records.spending)
        self._session: Budget | None = None
        if config.budget.session is not None:
            self._session = Budget(Cap("budget.session", "usd", config.budget.session), "shared")
            self._session.spend(Usage(cost=spent))
            budgets = (*budgets, self._session)
        self.limits = Limits(
            concurrency=config.concurrency,
            retries=config.retries,
            budgets=budgets,
            slots=None
            if clients is None
            else _limiter(config.concurrency).slots(clients.providers.provider_of),
            ledger=CallRecorder(records.spending, _log.warning) if records.spending else None,
            assumed_context=config.default_context or None,
        )

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the one that this belongs to."""
        return self._process != os.getpid()

    @property
    def spent(self) -> float:
        """USD that count for the session."""
        return 0.0 if self._session is None else self._session.standing().spent

    def close(self) -> None:
        """Close the store. A forked process leaves the store of its parent open."""
        if self._spending is not None and not self.inherited:
            self._spending.close()


class _Clients(ClientPool):
    """Clients, and the budgets that all turns over them share."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._money: _Money | None = None
        # These hold connections of parent processes, so they are never closed or collected.
        self._inherited: list[_Money] = []

    def limits(self) -> Limits:
        """The limits of the settings file. Raises StoreError if the day's budget cannot be kept."""
        spent = 0.0
        if self._money is not None and self._money.inherited:
            # Processes can share neither a connection nor a journal.
            self._inherited.append(self._money)
            spent, self._money = self._money.spent, None
        if self._money is None:
            self._money = _Money(self._config, self, spent)
        return self._money.limits

    async def aclose(self) -> None:
        """Close all clients, and the store."""
        await super().aclose()
        if self._money is not None:
            self._money.close()
            self._money = None


def open_clients() -> ClientPool:
    """Open clients for `run_turn`, with the settings file's providers and the environment's keys.

    They belong to one event loop. Call `await clients.aclose()` there when you are done.

    Returns:
        The clients. Nothing is sent yet.

    Raises:
        ProfileError: The settings file is wrong.
    """
    return _Clients(load_config())


def run_turn(
    profile: Profile,
    conversation: Conversation,
    clients: Clients,
    *,
    control: Control | None = None,
    limits: Limits | None = None,
    references: Sequence[str | Proposal] | None = None,
    response_format: ResponseFormat | None = None,
    reviews: Sequence[Proposal] = (),
) -> AsyncGenerator[Event, None]:
    """Answer the open turn of a conversation by the mixture of a profile.

    Trouble at an endpoint is an event; only a bug raises. Closing the generator at any point
    cancels every call, so put `contextlib.aclosing` around it.

    Args:
        profile: The mixture.
        conversation: What was said, with the open turn last (see `Conversation.ask`).
        clients: The way to the models (see `open_clients`).
        control: Lets you say "enough" while the turn runs.
        limits: None holds turns over `open_clients()` to the settings file, budgets included, and
            records what they spend in the ledger that `moa history stats` shows.
            `budget.session` then holds for all turns over these clients together. Turns over
            clients of your own are not held to the settings file.
        references: Answers that you already have. Then no proposer is asked, and the aggregator
            writes its reply from these. Give proposals, in place of texts, where
            `reference_names` is to show who said what, or some are unfinished.
        response_format: What the reply has to be, if it is JSON. Its text is then told as one
            delta, once it was checked; if it is wrong, the aggregator is asked once more.
        reviews: What models have said about those references before (see `Turn.reviews`). What the
            strategy would ask the same model about the same texts is not asked again.

    Returns:
        A generator of the turn's events.

    Raises:
        ProfileError: One of the profile's model names leads nowhere. Nothing is sent then.
        StoreError: The budget of the day cannot be kept.
        ValueError: The conversation has no open turn.
    """
    if limits is None and isinstance(clients, _Clients):
        limits = clients.limits()
    return _run_turn(
        profile,
        conversation,
        clients,
        control=control,
        limits=limits,
        references=references,
        response_format=response_format,
        reviews=reviews,
    )


def run_report(
    profile: Profile,
    conversation: Conversation,
    clients: Clients,
    references: Sequence[str | Proposal],
    *,
    control: Control | None = None,
    limits: Limits | None = None,
    reviews: Sequence[Proposal] = (),
) -> AsyncGenerator[Event, None]:
    """Report where answers agree and disagree that are there already: by one call, without a reply.

    Args:
        profile: The mixture, whose judge is asked.
        conversation: What was said, with the open turn last, which the references answer.
        clients: The way to the models (see `open_clients`).
        references: Two answers at least. Proposals bring the names of those who hold a point;
            texts are called by their numbers.
        control: Lets you end the report.
        limits: See `run_turn`.
        reviews: What models have said about those references before (see `Turn.reviews`).

    Returns:
        A generator of events, as of a turn without a reply. `Reported` holds the report; without
        one, the turn has failed.

    Raises:
        ProfileError: One of the profile's model names leads nowhere. Nothing is sent then.
        StoreError: The budget of the day cannot be kept.
        ValueError: There are fewer than two references.
    """
    if limits is None and isinstance(clients, _Clients):
        limits = clients.limits()
    return _run_report(
        profile,
        conversation,
        clients,
        references,
        control=control,
        limits=limits,
        reviews=reviews,
    )


def ask(
    prompt: str,
    *,
    profile: Profile | str | None = None,
    conversation: Conversation | None = None,
    sinks: tuple[Sink, ...] = (),
    files: Sequence[str | Path] = (),
    response_format: ResponseFormat | None = None,
) -> Turn:
    """Ask once, and return the turn.

    In code that runs in an event loop (a notebook, a web server), use `await ask_async(…)`.

    Args:
        prompt: The user's message.
        profile: See `ask_async`.
        conversation: What was said before.
        sinks: What is shown each event as it comes.
        files: See `ask_async`.
        response_format: What the reply has to be, if it is JSON.

    Returns:
        The turn; see `ask_async`.

    Raises:
        RuntimeError: An event loop is running.
        UsageError: See `ask_async`.
        ProfileError: See `ask_async`.
        StoreError: See `ask_async`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("ask() cannot run inside a running event loop; use `await ask_async(…)`")
    return asyncio.run(
        ask_async(
            prompt,
            profile=profile,
            conversation=conversation,
            sinks=sinks,
            files=files,
            response_format=response_format,
        )
    )


async def ask_async(
    prompt: str,
    *,
    profile: Profile | str | None = None,
    conversation: Conversation | None = None,
    sinks: tuple[Sink, ...] = (),
    clients: Clients | None = None,
    files: Sequence[str | Path] = (),
    response_format: ResponseFormat | None = None,
) -> Turn:
    """Ask once, and return the turn.

    `[budget]` of the settings file holds, and what is spent is recorded, as for `moa ask`. The
    conversation is not kept. A turn that a budget stops has failed.

    Args:
        prompt: The user's message.
        profile: A profile, or the name or path of one. None takes the one that `moa ask` would
            use, with the `MOA_*` variables laid over it.
        conversation: What was said before.
        sinks: What is shown each event as it comes.
        clients: Used and left open. None opens those of the settings file for this call.
        files: Text files, images and PDF files that go with the prompt. Images go to the models
            that see them.
        response_format: What the reply has to be, if it is JSON. `turn.reply` is then exactly
            that; else the turn has failed, with an error of the kind `SchemaMismatch`.

    Returns:
        The turn. If its models failed, it is returned, too; `turn.status` and `turn.error` say so.

    Raises:
        ProfileError: There is no such profile, or it is wrong, or one of its model names leads
            nowhere. Nothing is sent then.
        StoreError: The budget of the day cannot be kept.
        UsageError: One of the files cannot be read, or is too large. Nothing is sent then.
    """
    async with AsyncExitStack() as opened:
        if clients is None:
            clients = await opened.enter_async_context(aclosing(open_clients()))
        config = load_config()
        if profile is None:
            profile = resolve(default_profile(config, os.environ), environment=os.environ)
        elif isinstance(profile, str):
            profile = load(profile)
        if isinstance(clients, ClientPool) and has_candidates(profile):
            profile = await clients.settled(profile, patience=LIST_PATIENCE)
        parts: tuple[Part, ...] = ()
        if files:
            # A PDF file takes some seconds.
            prompt, parts = await asyncio.to_thread(_with_files, prompt, files)
        asked = (conversation or Conversation()).ask(prompt, parts)
        if isinstance(clients, _Clients):
            limits = clients.limits()
        else:
            own = clients if isinstance(clients, ClientPool) else None
            limits = opened.enter_context(closing(_Money(config, own))).limits
        # Without a sink nobody sees the reply before its end.
        limits = replace(limits, reply_held=not sinks)
        events = _run_turn(profile, asked, clients, limits=limits, response_format=response_format)
        return await deliver(events, *sinks)


def _with_files(prompt: str, files: Sequence[str | Path]) -> tuple[str, tuple[Part, ...]]:
    return prompt_of([Part("text", prompt), *(read_part(Path(file)) for file in files)])
