"""The mixture as a library: one call (`ask`, `ask_async`), or a stream of events (`run_turn`)."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, closing
from dataclasses import replace
from pathlib import Path

from moa_cli.clients.default_mixture import choose_profile
from moa_cli.clients.limiter import Limiter
from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, load_config
from moa_cli.core.conversation import Conversation, Part, Proposal, Turn, Usage
from moa_cli.core.endpoints import Clients
from moa_cli.core.errors import UsageError
from moa_cli.core.events import Event
from moa_cli.core.files.attachments import prompt_of, read_part
from moa_cli.core.stream import Sink, deliver
from moa_cli.engine import Budget, Cap, Control, Limits, ResponseFormat
from moa_cli.engine import run_report as _run_report
from moa_cli.engine import run_turn as _run_turn
from moa_cli.models.candidates import LIST_PATIENCE, has_candidates
from moa_cli.profile import Overrides, Profile, check_profile, load
from moa_cli.store import accounts
from moa_cli.store.spending import CallRecorder
from moa_cli.store.store import Store

__all__ = ["ask", "ask_async", "load_profile", "open_clients", "run_report", "run_turn"]

load_profile = load
_log = logging.getLogger("moa_cli")


# The limiters, by process id and by how many calls are allowed. A forked process needs its own,
# because it does not share calls with its parent.
_limiters: dict[tuple[int, int], Limiter] = {}


def _limiter(concurrency: int) -> Limiter:
    """The limiter for all calls of this process, in all threads."""
    return _limiters.setdefault((os.getpid(), concurrency), Limiter(concurrency))


class _Money:
    """The budgets of the settings file, and the record of spending.

    It belongs to one thread of one process. clients: None if the caller's clients are not those of
    the settings file; its limits of calls do not apply to these. spent: USD that already count for
    the budget of the session. Raises StoreError if the budget of the day cannot be kept.
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
        """Whether this object belongs to a parent process, from which this one was forked."""
        return self._process != os.getpid()

    @property
    def spent(self) -> float:
        """USD that count for the budget of the session."""
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
        # Objects of parent processes. They hold the parents' connections, so this list keeps them
        # from being closed or garbage-collected.
        self._inherited: list[_Money] = []

    def limits(self) -> Limits:
        """The limits of the settings file. Raises StoreError if the day's budget cannot be kept."""
        spent = 0.0
        if self._money is not None and self._money.inherited:
            # A forked process can share neither the parent's database connection nor its journal.
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
        limits: None applies the settings file, including its budgets, to turns over
            `open_clients()`. Their spending is recorded in the ledger that `moa history stats`
            shows, and `budget.session` applies to all turns over these clients together. To turns
            over clients of your own, None does not apply the settings file.
        references: Answers that you already have. Then no proposer is asked, and the aggregator
            writes its reply from these. Give proposals instead of texts if `reference_names`
            must show who gave which answer, or if some are unfinished.
        response_format: The format of the reply, if it must be JSON. Its text then comes as one
            delta after it is checked. If it is wrong, the aggregator is asked once more.
        reviews: Earlier answers of models about these references (see `Turn.reviews`). The
            strategy does not ask the same model about the same texts again.

    Returns:
        A generator of the turn's events.

    Raises:
        ProfileError: The profile is wrong, or one of its model names has no known provider. Nothing
            is sent then.
        StoreError: The budget of the day cannot be kept.
        UsageError: The response format cannot be asked for.
        ValueError: The conversation has no open turn.
    """
    check_profile(profile)
    if response_format is not None:
        response_format.check()
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
    """Report where answers that you already have agree and disagree: one call, and no reply.

    Args:
        profile: The mixture, whose judge is asked.
        conversation: What was said. It ends with the open turn, which the references answer.
        clients: The way to the models (see `open_clients`).
        references: At least two answers. The report names proposals by their proposers, and texts
            by their numbers.
        control: Lets you end the report.
        limits: See `run_turn`.
        reviews: Earlier answers of models about these references (see `Turn.reviews`).

    Returns:
        A generator of events, like those of a turn, but without a reply. `Reported` has the
        report; without one, the turn has failed.

    Raises:
        ProfileError: The profile is wrong, or one of its model names has no known provider. Nothing
            is sent then.
        StoreError: The budget of the day cannot be kept.
        ValueError: There are fewer than two references.
    """
    check_profile(profile)
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
    profile: Profile | str | Path | None = None,
    conversation: Conversation | None = None,
    sinks: Sequence[Sink] = (),
    files: Sequence[str | Path] = (),
    response_format: ResponseFormat | None = None,
) -> Turn:
    """Ask once, and return the turn.

    In code that runs in an event loop (a notebook, a web server), use `await ask_async(…)`.

    Args:
        prompt: The user's message.
        profile: See `ask_async`.
        conversation: What was said before.
        sinks: They get each event as it comes.
        files: See `ask_async`.
        response_format: See `ask_async`.

    Returns:
        The turn; see `ask_async`.

    Raises:
        RuntimeError: An event loop is running.
        TypeError: See `ask_async`.
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
    profile: Profile | str | Path | None = None,
    conversation: Conversation | None = None,
    sinks: Sequence[Sink] = (),
    clients: Clients | None = None,
    files: Sequence[str | Path] = (),
    response_format: ResponseFormat | None = None,
) -> Turn:
    """Ask once, and return the turn.

    `[budget]` of the settings file applies, and spending is recorded, as for `moa ask`. The
    conversation is not stored. A turn that a budget stops has failed.

    Args:
        prompt: The user's message.
        profile: A profile, or the name or path of one. None takes the one that `moa ask` would
            use, changed by the `MOA_*` variables.
        conversation: What was said before.
        sinks: They get each event as it comes.
        clients: The clients to use; they stay open. None opens those of the settings file for this
            call.
        files: Text files, images and PDF files that go with the prompt. Images go to the models
            that see them.
        response_format: The format of the reply, if it must be JSON. If `turn.reply` does not have
            this format, the turn has failed with an error of the kind `SchemaMismatch`.

    Returns:
        The turn. It is also returned if its models failed; see `turn.status` and `turn.error`.

    Raises:
        ProfileError: There is no such profile, or it is wrong, or one of its model names has no
            known provider. Nothing is sent then.
        StoreError: The budget of the day cannot be kept.
        TypeError: An argument has the wrong type. Nothing is sent then.
        UsageError: The prompt is blank and there are no files, or one of the files cannot be read,
            or is too large, or the response format cannot be asked for. Nothing is sent then.
    """
    _check_types(
        prompt=prompt, profile=profile, conversation=conversation, response_format=response_format
    )
    for name, given in {"files": files, "sinks": sinks}.items():
        if isinstance(given, str | Path) or not isinstance(given, Iterable):
            raise TypeError(f"{name} must be a list of {name}, not {type(given).__name__}")
    sinks = tuple(sinks)
    for sink in sinks:
        _check_sink(sink)
    if response_format is not None:
        response_format.check()
    if not files and not prompt.strip():
        raise UsageError("there is nothing to ask: the prompt is blank")
    async with AsyncExitStack() as opened:
        if clients is None:
            clients = await opened.enter_async_context(aclosing(open_clients()))
        config = load_config()
        if profile is None:
            # In a thread, because lists of models may have to be read.
            checked = isinstance(clients, ClientPool)  # Others may have models of any name.
            profile = await asyncio.to_thread(
                choose_profile, config, None, Overrides(), checked=checked
            )
        elif isinstance(profile, Profile):
            check_profile(profile)
        else:
            profile = load(profile)
        if isinstance(clients, ClientPool) and has_candidates(profile):
            profile = await clients.settled(profile, patience=LIST_PATIENCE)
        parts: tuple[Part, ...] = ()
        if files:
            # In a thread, because reading a PDF file takes some seconds.
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


# The types of arguments that callers confuse: a wrong one would fail deep inside, or after calls.
_TYPES: dict[str, tuple[type, ...]] = {
    "prompt": (str,),
    "profile": (Profile, str, Path, type(None)),
    "conversation": (Conversation, type(None)),
    "response_format": (ResponseFormat, type(None)),
}


def _check_types(**arguments: object) -> None:
    for name, value in arguments.items():
        if not isinstance(value, _TYPES[name]):
            names = " or ".join(kind.__name__.removesuffix("Type") for kind in _TYPES[name])
            raise TypeError(f"{name} must be {names}, not {type(value).__name__}")


def _check_sink(sink: object) -> None:
    for name in ("handle", "close"):
        method = getattr(sink, name, None)
        if not callable(method) or inspect.iscoroutinefunction(method):
            raise TypeError(f"a sink needs a method `{name}` that is not async; {sink!r} has none")


def _with_files(prompt: str, files: Sequence[str | Path]) -> tuple[str, tuple[Part, ...]]:
    return prompt_of([Part("text", prompt), *(read_part(Path(file)) for file in files)])
