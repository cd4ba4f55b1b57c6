"""One start of work on many items: what it takes is told and asked for, then it is done."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import typer

from moa_cli.bench.run.estimate import RunEstimate, RunEstimator
from moa_cli.bench.run.folder import State
from moa_cli.bench.run.journal import CallRecord
from moa_cli.bench.run.limiter import CallLimiter
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.records import Result
from moa_cli.bench.run.replay import RunContext
from moa_cli.bench.run.runner import Results, Runner, WorkPlan
from moa_cli.bench.run.settings import WorkSettings
from moa_cli.cli import wiring
from moa_cli.cli.bench.money import Purse
from moa_cli.cli.bench.text import estimate_lines
from moa_cli.cli.exit_codes import FAILED, INTERRUPTED, TERMINATED
from moa_cli.cli.output import check_can_confirm, say
from moa_cli.cli.saving import open_books
from moa_cli.clients.pool import ClientPool
from moa_cli.core.conversation import Failure
from moa_cli.core.endpoints import ModelInfo
from moa_cli.terminal.progress import Progress, ProgressView, progress_view
from moa_cli.terminal.tty import cancel_on_termination, without_echo

_PATIENCE = 15.0


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """What was typed; None where nothing was."""

    concurrency: int | None
    provider_concurrency: int | None
    max_cost: float | None
    yes: bool
    live: bool | None
    save: bool | None = None


class Plan(WorkPlan, Protocol):
    """See `bench.run.plan.RunPlan`."""

    @property
    def given(self) -> Mapping[str, Mapping[str, str]]:
        """Answers that are there already, by model name and item."""

    def models(self) -> tuple[str, ...]:
        """The models that are asked."""

    def settings(self) -> WorkSettings:
        """All that the results depend on."""


# What has to be known before the work is done: it is given the runner, the work, and what says
# a line that stays, and gives the work back as it is then.
Prepare = Callable[[Runner, list[Work], Callable[[str], None]], Awaitable[list[Work]]]


def _arm_and_item(result: Result) -> str:
    return f"{result.arm}, item {result.item}"


@dataclass(frozen=True)
class Job:
    """plan: what is to be done, all of it. folder, results: where it is written down.

    prepare: see `Prepare`. partial: see `Runner`. goes_on: whether the same command does, where
    this one was stopped. called: what a failed result is called by.
    """

    plan: Plan
    folder: State[Any]
    results: Results
    options: SessionOptions
    prepare: Prepare | None = None
    partial: bool = False
    goes_on: bool = True
    called: Callable[[Result], str] = _arm_and_item


def check_can_ask(options: SessionOptions) -> None:
    """Raise UsageError where nobody can say yes, and it was not typed."""
    if not options.yes:
        check_can_confirm()


def session(job: Job, todo: list[Work]) -> tuple[int, Failure | None]:
    """Do what is left: the exit code if it ends here, and the cap that ended it, if one did.

    Raises BudgetReached where a cap depends on a price that nobody knows.
    """
    plan, folder, options = job.plan, job.folder, job.options
    facts = folder.facts(asyncio.run(_known(plan)))
    purse = Purse(folder.journal, open_books(save=options.save).spending, options.max_cost)
    purse.check(facts)
    estimate = _estimate(plan, folder, todo, facts)
    for line in estimate_lines(estimate, facts, purse.left()):
        say(line)
    if not options.yes and not typer.confirm("Go on?", default=False, err=True):
        say("nothing was sent")
        return FAILED, None
    folder.begin(plan.settings(), facts)
    ended = len(list(plan.work())) - len(todo)
    progress = Progress(total=ended + len(todo), done=ended, before=ended)
    live = wiring.config().live if options.live is None else options.live
    view = progress_view(sys.stderr, progress, live=live)
    work = _Working(job, facts, purse, progress, view)
    try:
        with without_echo(sys.stderr):
            return 0, asyncio.run(work.run(todo))
    except KeyboardInterrupt:
        further = "; the same command goes on from there" if job.goes_on else ""
        say(f"interrupted at {progress.text()}{further}")
        return INTERRUPTED, None
    except asyncio.CancelledError:
        return TERMINATED, None


async def _known(plan: Plan) -> dict[str, ModelInfo]:
    pool = open_pool()
    try:
        return {one: await pool.facts(one, patience=_PATIENCE) for one in plan.models()}
    finally:
        await pool.aclose()


def _estimate(
    plan: Plan, folder: State[Any], todo: list[Work], facts: Mapping[str, ModelInfo]
) -> RunEstimate:
    known = wiring.providers()
    estimator = RunEstimator(folder.journal, facts, plan.given, lambda name: known.parse(name)[1])
    for work in todo:
        estimator.add(work.arm, work.item)
    return estimator.total


class _Working:
    """The work itself, with what is told on the way."""

    def __init__(
        self,
        job: Job,
        facts: Mapping[str, ModelInfo],
        purse: Purse,
        progress: Progress,
        view: ProgressView,
    ) -> None:
        self._job = job
        self._facts = facts
        self._purse = purse
        self._progress = progress
        self._view = view

    async def run(self, todo: list[Work]) -> Failure | None:
        """Do it all; why it ended early, if a cap was reached."""
        cancel_on_termination()
        job, pool = self._job, open_pool()
        given = job.plan.given
        limits = wiring.limits(job.options.concurrency, self._purse.caps)
        limiter = CallLimiter(
            limits.concurrency,
            job.options.provider_concurrency,
            # Answers that are there already are no provider's.
            lambda model: "" if model in given else pool.providers.parse(model)[0].name,
        )
        self._progress.in_flight = lambda: limiter.in_flight
        self._progress.held = lambda: limiter.held
        shared = RunContext(
            pool,
            job.folder.journal,
            limiter,
            self._facts,
            job.plan.given,
            self._ended,
            self._purse.ledger(self._view.say),
        )
        runner = Runner(
            job.results, shared, limits, limits.concurrency, self._told, partial=job.partial
        )
        self._view.start()
        try:
            if job.prepare is not None:
                todo = await job.prepare(runner, todo, self._view.say)
            await runner.run(job.plan, todo)
        finally:
            self._view.close()
            await pool.aclose()
        return runner.capped

    def _ended(self, record: CallRecord) -> None:
        self._purse.ended(record)
        self._progress.spent += record.usage

    def _told(self, result: Result) -> None:
        if result.error is None:
            self._progress.done += 1
        else:
            self._progress.failed += 1
            self._view.say(f"{self._job.called(result)}: {result.error.message}")
        self._view.changed()


def open_pool() -> ClientPool:
    """Clients for many calls in flight, where what carries them is installed."""
    if importlib.util.find_spec("aiohttp") is None:
        return wiring.client_pool()
    from moa_cli.clients.aiohttp_transport import AiohttpTransport

    return ClientPool(wiring.config(), transport=AiohttpTransport)
