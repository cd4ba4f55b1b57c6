"""One start of work on many items: what it takes is told and asked for, then it is done."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import typer

from moa_cli.bench.run.estimate import MARGIN, RunEstimate, RunEstimator
from moa_cli.bench.run.folder import State, StateFolder
from moa_cli.bench.run.journal import CallRecord
from moa_cli.bench.run.limiter import CallLimiter
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.records import Judgement, Result
from moa_cli.bench.run.replay import RunContext
from moa_cli.bench.run.runner import Results, Runner, WorkPlan
from moa_cli.bench.run.settings import WorkSettings
from moa_cli.cli import wiring
from moa_cli.cli.bench.money import Purse
from moa_cli.cli.exit_codes import FAILED, INTERRUPTED, TERMINATED
from moa_cli.cli.options import typed_or
from moa_cli.cli.output import say
from moa_cli.cli.saving import open_books
from moa_cli.clients.pool import ClientPool
from moa_cli.core.conversation import Failure, Usage
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.money import cost_text, usd
from moa_cli.engine.estimate import ASSUMED_TOKENS
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


def session(job: Job, todo: list[Work]) -> tuple[int, Failure | None]:
    """Do what is left: the exit code if it ends here, and the cap that ended it, if one did.

    Raises BudgetReached where a cap depends on a price that nobody knows.
    """
    plan, folder, options = job.plan, job.folder, job.options
    facts = folder.facts(asyncio.run(_known(plan)))
    purse = Purse(folder.journal, open_books(save=options.save).spending, options.max_cost)
    purse.check(facts)
    estimate = _estimate(plan, folder, todo, facts)
    for line in _estimate_lines(estimate, facts, purse.left()):
        say(line)
    if not options.yes and not typer.confirm("Go on?", default=False, err=True):
        say("nothing was sent")
        return FAILED, None
    folder.begin(plan.settings(), facts)
    ended = len(list(plan.work())) - len(todo)
    progress = Progress(total=ended + len(todo), done=ended, before=ended)
    live = typed_or(options.live, wiring.config().live)
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


def where(folder: StateFolder[Any], ended: Iterable[Result | Judgement], what: str) -> str:
    """The folder of a session, and what is there already. what: a word for what has ended."""
    if not folder.settings:
        return f"into {folder.path}"
    done = sum(outcome.error is None for outcome in ended)
    return (
        f"going on in {folder.path}: {done:,} {what} and {len(folder.journal):,} calls are there"
        " and not asked for again"
    )


def _estimate_lines(
    estimate: RunEstimate, facts: Mapping[str, ModelInfo], left: float | None
) -> Iterator[str]:
    """Calls, tokens and cost, each with its band. left: USD below --max-cost, None without."""
    low, high = estimate.low, estimate.high
    yield (
        f"{estimate.calls:,} calls; tokens in: between {low.prompt_tokens:,} and"
        f" {high.prompt_tokens:,}, out: up to {'about ' * estimate.assumed}"
        f"{high.completion_tokens:,}"
    )
    yield _cost_band(low, high, "about " * estimate.assumed)
    how = f"prompts as they are ± {MARGIN:.0%}, answers from nothing to their max_tokens"
    if estimate.assumed:
        how += f" ({ASSUMED_TOKENS:,} where there is none)"
    yield f"({how})"
    unpriced = [name for name, info in facts.items() if info.price is None]
    if unpriced:
        yield f"(the price of {', '.join(unpriced)} is unknown)"
    if left is not None and high.cost > left:
        yield f"(--max-cost leaves {usd(left)}, which may end the run before all is done)"


def _cost_band(low: Usage, high: Usage, about: str) -> str:
    if high.unpriced_calls >= high.calls:
        return cost_text(high)
    lacking = " + ?" if high.unpriced_calls else ""
    if high.cost == low.cost:
        return f"cost: {usd(high.cost)}{lacking}"
    return f"cost: between {usd(low.cost)} and {about}{usd(high.cost)}{lacking}"


async def _known(plan: Plan) -> dict[str, ModelInfo]:
    pool = open_pool()
    try:
        return {model: await pool.facts(model, patience=_PATIENCE) for model in plan.models()}
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
        limits = wiring.limits(job.options.concurrency, self._purse.budgets)
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
