"""One start of work on many items: show the estimate, ask the user, and do the work within the
budgets."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import typer

from moa_cli.bench.run.call_cache import CallCache
from moa_cli.bench.run.estimate import MARGIN, RunEstimate, RunEstimator
from moa_cli.bench.run.folder import State, StateFolder
from moa_cli.bench.run.journal import CallRecord, Judgement, Result
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.replay import RunContext
from moa_cli.bench.run.runner import STOP_AFTER, Results, Runner, answer_item
from moa_cli.bench.run.settings import WorkSettings
from moa_cli.cli import wiring
from moa_cli.cli.bench.rate_bound import RateBound
from moa_cli.cli.exit_codes import FAILED, INTERRUPTED, TERMINATED
from moa_cli.cli.options import typed_or
from moa_cli.cli.output import say
from moa_cli.cli.saving import open_books
from moa_cli.clients.pool import ClientPool
from moa_cli.core.conversation import Failure, Usage
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import BudgetReached
from moa_cli.core.files.descriptors import room_for
from moa_cli.core.ledger import CallBegun
from moa_cli.core.money import cost_text, prices_are, usd
from moa_cli.core.text import plural
from moa_cli.engine import Budget, Cap
from moa_cli.engine.budget import check_prices
from moa_cli.engine.estimate import ASSUMED_TOKENS
from moa_cli.models.table import Provider
from moa_cli.store import accounts
from moa_cli.store.spending import CallRecorder, Spending
from moa_cli.terminal.progress import Progress, ProgressView, progress_view
from moa_cli.terminal.tty import cancel_on_termination, run_loop, without_echo

# At most this many ledgers are kept for another start of the same turn; items are worked off in
# order. More would cost time: the garbage collector visits each kept object again and again.
_MOST_TURNS = 1000
_NOBODY = Provider(name="", base_url=None)
# A call may be refused and repeated for this many seconds, because no user waits for it.
_LONGEST_WAIT = 600.0
# Facts on a model (price, context) are waited for at most this many seconds.
_PATIENCE = 15.0


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """The typed options; None if an option was not typed."""

    concurrency: int | None
    provider_concurrency: int | None
    max_cost: float | None
    yes: bool
    live: bool | None
    save: bool | None = None
    stop_after: int = STOP_AFTER


@dataclass(frozen=True)
class Amount:
    """How much work there is. whole: how many pieces. left: how many of them are not done yet.
    sample: some of those that are left, spread evenly."""

    whole: int
    left: int
    sample: Sequence[Work]


# A function that finds out what must be known before the work begins. Its arguments are the runner,
# the work, and a function that prints a line. It returns the work, perhaps changed.
Prepare = Callable[[Runner, list[Work], Callable[[str], None]], Awaitable[list[Work]]]


@dataclass(frozen=True)
class Job:
    """The work of a command on many items.

    models: the models that are asked. settings: everything on which the results depend. folder,
    results: where settings, calls and results are stored.

    whole: all work, item by item. prepare: see `Prepare`. given: existing answers, by model name
    and item. partial: see `answer_item`. goes_on: whether the same command resumes after a stop.
    called: gives the name of a failed result for messages. amount: how much work there is, if it
    does not fit in memory; then `whole` is empty. cache: the answers of other runs. priced: puts
    the prices for this work into the facts on models. work_off: does the work, if this process does
    not do it call by call. calls_elsewhere: whether other processes make the calls, so that this
    one needs no connections.
    """

    models: tuple[str, ...]
    settings: WorkSettings
    folder: State[Any]
    results: Results
    options: SessionOptions
    whole: Sequence[Work] = ()
    prepare: Prepare | None = None
    given: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    partial: bool = False
    goes_on: bool = True
    called: Callable[[Result], str] = lambda result: f"{result.arm}, item {result.item}"
    amount: Amount | None = None
    cache: CallCache | None = None
    priced: Callable[[dict[str, ModelInfo]], dict[str, ModelInfo]] = lambda facts: facts
    work_off: WorkOff | None = None
    calls_elsewhere: bool = False


@dataclass(frozen=True)
class JobSession:
    """One start of a job, within its budgets.

    concurrency: how many calls are allowed at once. facts: those on the job's models. spending: the
    ledger of its calls, None without one. view: shows the progress.
    """

    job: Job
    concurrency: int
    facts: Mapping[str, ModelInfo]
    budgets: tuple[Budget, ...]
    spending: Spending | None
    progress: Progress
    view: ProgressView

    @cached_property
    def recorder(self) -> CallRecorder | None:
        """Writes calls to the ledger of spending; None if none is kept."""
        return CallRecorder(self.spending, self.view.say) if self.spending else None

    def paid(self, record: CallRecord) -> None:
        """Count a call that was not made by this process, in the progress and in the ledger."""
        usage = record.usage
        self.progress.spent += usage
        if self.recorder is not None:
            ledger, price = self.recorder.begin_turn(), self.facts[record.model].price
            begun = CallBegun(record.model, usage.prompt_tokens, usage.completion_tokens, price)
            ledger.end([ledger.begin(begun)], record.model, usage)

    def keep(self, result: Result) -> None:
        """Store the result of a piece of work, and show it. Raises OSError."""
        self.job.results.add(result)
        if result.error is None:
            self.progress.done += 1
        else:
            self.progress.failed += 1
            self.view.say(f"{self.job.called(result)}: {result.error.message}")
        self.view.changed()


# A function that does the rest of the work. It returns why that ended early, if a cap was reached.
WorkOff = Callable[[JobSession, Iterable[Work]], Coroutine[Any, Any, Failure | None]]


def session(job: Job, todo: Iterable[Work]) -> Failure | None:
    """Do the rest of the work. Returns the cap that ended it, if one did.

    todo: a list or, with `amount`, an iterable that can be read several times. Raises BudgetReached
    if a cap depends on an unknown price, Exit if the command ends here.
    """
    folder, options = job.folder, job.options
    facts = folder.facts(job.priced(asyncio.run(known_facts(job.models))))
    amount = job.amount
    if amount is None:
        work = list(todo)
        amount = Amount(len(job.whole), len(work), work)
    ended = amount.whole - amount.left
    progress = Progress(total=amount.whole, done=ended, before=ended)
    spending = open_books(save=options.save).spending
    budgets = _budgets(job, spending, progress)
    try:
        check_prices(budgets, facts.items())
    except BudgetReached as error:
        # Runs, judges and batches have no cap in tokens.
        hint = "set it under [prices] in the config file, or run without the cap"
        raise BudgetReached(error.message, hint=hint) from None
    estimator = RunEstimator(
        facts, wiring.providers().model_id, folder.journal, job.given, job.cache
    )
    for task in amount.sample:
        estimator.add(task.arm, task.item)
    left = options.max_cost
    if left is not None:
        left = max(0.0, left - folder.journal.spent.cost)
    estimate = estimator.total.times(amount.left, len(amount.sample))
    for line in _estimate_lines(estimate, facts, left):
        say(line)
    if len(amount.sample) < amount.left:
        say(f"(estimated from {len(amount.sample):,} of them)")
    if not options.yes and not typer.confirm("Go on?", default=False, err=True):
        say("nothing was sent")
        raise typer.Exit(FAILED)
    folder.begin(job.settings, facts)
    concurrency = options.concurrency or wiring.config().concurrency
    if not job.calls_elsewhere:
        concurrency = _fitting(job.models, concurrency)
    # The confirmation may have taken long, so the time starts only now.
    progress.began = time.monotonic()
    live = typed_or(options.live, wiring.config().moves)
    view = progress_view(sys.stderr, progress, live=live)
    try:
        with without_echo(sys.stderr):
            started = JobSession(job, concurrency, facts, budgets, spending, progress, view)
            return run_loop((job.work_off or _work)(started, todo))
    except KeyboardInterrupt:
        further = "; run the same command again to resume" if job.goes_on else ""
        say(f"interrupted at {progress.text()}{further}")
        raise typer.Exit(INTERRUPTED) from None
    except asyncio.CancelledError:
        raise typer.Exit(TERMINATED) from None


def _fitting(models: Iterable[str], concurrency: int) -> int:
    """The number of calls at once, reduced if the process may not open enough connections. Each
    provider keeps its connections open, so all providers count. Prints a notice if it is reduced.
    """
    provider_of = wiring.providers().provider_of
    count = len({provider_of(name).name for name in models}) or 1
    room = max(1, room_for(concurrency * count) // count)
    if room < concurrency:
        say(
            f"{plural(room, 'call')} at once, not {concurrency:,}: the system lets this process"
            " open no more files and connections (`ulimit -n`)"
        )
    return min(room, concurrency)


def _budgets(job: Job, spending: Spending | None, progress: Progress) -> tuple[Budget, ...]:
    """The budgets of the settings and of `--max-cost`, which also counts earlier starts. They are
    firm: answers are never shortened, because requests must not depend on what is left.
    """
    journal = job.folder.journal
    caps = (
        ("budget.session", wiring.config().budget.session, lambda: progress.spent.cost),
        ("--max-cost", job.options.max_cost, lambda: journal.spent.cost),
    )
    return (
        *accounts.budgets(wiring.config(), spending, firm=True),
        *(
            Budget(Cap(name, "usd", limit), "shared", spent=spent, firm=True)
            for name, limit, spent in caps
            if limit is not None
        ),
    )


def where(folder: StateFolder[Any], ended: Iterable[Result | Judgement], what: str) -> str:
    """A line on the folder of a session, and on how much it has already. what: a word for the
    results."""
    if not folder.settings:
        return f"into {folder.path}"
    done = sum(outcome.error is None for outcome in ended)
    return (
        f"resuming {folder.path}: {done:,} {what} and {plural(len(folder.journal), 'call')} are"
        " there and not asked for again"
    )


def _estimate_lines(
    estimate: RunEstimate, facts: Mapping[str, ModelInfo], left: float | None
) -> Iterator[str]:
    """Lines on calls, tokens and cost, each as a range. left: USD that --max-cost leaves; None
    without it."""
    low, high = estimate.low, estimate.high
    calls = plural(high.calls, "call")
    if high.calls > low.calls:
        calls = f"between {low.calls:,} and {calls}"
    yield (
        f"{calls}; tokens in: between {low.prompt_tokens:,} and"
        f" {high.prompt_tokens:,}, out: up to {'about ' * estimate.assumed}"
        f"{high.completion_tokens:,}"
    )
    yield cost_band(low, high, "about " * estimate.assumed)
    how = f"prompts as they are ± {MARGIN:.0%}, answers from nothing to their max_tokens"
    if estimate.assumed:
        how += f" ({ASSUMED_TOKENS:,} where there is none)"
    yield f"({how})"
    unpriced = [name for name, info in facts.items() if info.price is None]
    if unpriced:
        yield f"({prices_are(unpriced)} unknown)"
    if left is not None and high.cost > left:
        yield f"(--max-cost leaves {usd(left)}, which may end the run early)"


def cost_band(low: Usage, high: Usage, about: str) -> str:
    """`cost: between $0.12 and $3.40`. about: put before the upper value if it is not a bound."""
    if high.unpriced_calls and high.unpriced_calls >= high.calls:
        return cost_text(high)
    lacking = " + ?" if high.unpriced_calls else ""
    if high.cost == low.cost:
        return f"cost: {usd(high.cost)}{lacking}"
    return f"cost: between {usd(low.cost)} and {about}{usd(high.cost)}{lacking}"


async def known_facts(models: Iterable[str]) -> dict[str, ModelInfo]:
    """The facts on these models, such as price and context length, by name."""
    pool = open_pool()
    try:
        return {model: await pool.facts(model, patience=_PATIENCE) for model in models}
    finally:
        await pool.aclose()


async def _work(session: JobSession, todo: Iterable[Work]) -> Failure | None:
    """Do all the work. Returns why it ended early, if a cap was reached."""
    job, progress, view = session.job, session.progress, session.view
    cancel_on_termination()
    # All objects that exist now live to the end, so the collector need not look at them.
    gc.freeze()
    pool = open_pool()
    limits = wiring.limits(session.concurrency, session.budgets)
    # Histories are not trimmed, because a shortened prompt would distort the measurement.
    limits = replace(limits, longest_wait=_LONGEST_WAIT, trims_history=False)
    limiter = wiring.limiter(limits.concurrency, job.options.provider_concurrency)

    def provider_of(model: str) -> Provider:
        # Existing answers come from no provider.
        return _NOBODY if model in job.given else pool.providers.provider_of(model)

    progress.in_flight = lambda: limiter.in_flight
    progress.waiting = lambda: limiter.waiting_for_providers
    progress.held = lambda: limiter.held
    bound = RateBound(
        session.concurrency,
        job.options.concurrency or wiring.config().concurrency,
        lambda: progress.total - progress.ended,
        lambda: limiter.waiting,
        lambda: limiter.bound_by,
    )
    progress.bound_by = bound.text

    def ended(record: CallRecord) -> None:
        progress.spent += record.usage
        if record.error is None:
            bound.answered(record.seconds)
        runner.ended(record)

    recorder, ledger = session.recorder, None
    if recorder is not None:
        ledger = lru_cache(_MOST_TURNS)(lambda _item, _turn: recorder.begin_turn())
    slots = partial(limiter.slots, provider_of)
    shared = RunContext(
        pool, job.folder.journal, slots, session.facts, job.given, ended, ledger, job.cache
    )
    answer = partial(answer_item, shared=shared, limits=limits, partial=job.partial)
    stop_after = job.options.stop_after
    runner = Runner(job.results, answer, session.concurrency, session.keep, stop_after)
    view.start()
    try:
        if job.prepare is not None:
            todo = await job.prepare(runner, list(todo), view.say)
        await runner.run(job.whole, todo)
    finally:
        view.close()
        await pool.aclose()
    say_stopped(job, runner.stopped)
    return runner.capped


def say_stopped(
    job: Job, stopped: Failure | None, tell: Callable[[str], None] = say, paid: str = "call"
) -> None:
    """Print why the work has stopped, if a model is dead. paid: what is not paid for twice."""
    if stopped is None:
        return
    hint = f" ({stopped.hint})" if stopped.hint else ""
    tell(f"stopped: {stopped.message}{hint}")
    if job.goes_on:
        tell(f"fix this, then run the same command again to resume; no {paid} is paid for twice")


def open_pool() -> ClientPool:
    """Clients for many calls in flight."""
    return ClientPool(wiring.config(), many_calls=True)
