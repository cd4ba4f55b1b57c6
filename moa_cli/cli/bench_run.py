"""What `moa bench run` does once its options are read."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer

from moa_cli.bench.datasets import data_folder, load_dataset
from moa_cli.bench.estimate import Estimate, Estimator
from moa_cli.bench.folder import RunFolder, open_run
from moa_cli.bench.gate import Gate
from moa_cli.bench.journal import Entry
from moa_cli.bench.plan import Plan, Work, make_plan
from moa_cli.bench.replay import Shared
from moa_cli.bench.results import Result
from moa_cli.bench.runner import Runner, still_to_do
from moa_cli.cli import wiring
from moa_cli.cli.bench_money import Purse
from moa_cli.cli.bench_text import estimate_lines, plan_lines, summary_lines
from moa_cli.cli.exit_codes import BUDGET, FAILED, INTERRUPTED, TERMINATED
from moa_cli.cli.saving import open_books
from moa_cli.clients.base import ModelInfo
from moa_cli.clients.pool import ClientPool
from moa_cli.conversation import Failure
from moa_cli.errors import UsageError
from moa_cli.profile import Profile
from moa_cli.render.progress import Progress, ProgressView, progress_view
from moa_cli.render.sanitize import one_line
from moa_cli.render.terminal import cancel_on_termination, columns_of, folded, without_echo

__all__ = ["Options", "run"]

_PATIENCE = 15.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was typed; None where nothing was."""

    dataset: str
    limit: int | None
    arms: tuple[str, ...]
    best: str | None
    parity: bool
    reference_paths: tuple[Path, ...]
    concurrency: int | None
    provider_concurrency: int | None
    max_cost: float | None
    yes: bool
    data: Path | None
    output: Path | None
    live: bool | None


def run(profile: Profile, options: Options) -> int:
    """Tell what it takes, ask, run, and tell what came of it; returns the exit code."""
    if not options.yes and not (sys.stdin and sys.stdin.isatty()):
        raise UsageError("nobody can be asked whether to go on", hint="--yes goes on unasked")
    dataset = load_dataset(options.dataset, data_folder(options.data))
    plan = make_plan(
        profile,
        dataset,
        kinds=options.arms,
        best=options.best,
        parity=options.parity,
        limit=options.limit,
        given_files=options.reference_paths,
    )
    path = options.output or Path("runs") / f"{dataset.name}-{profile.name}"
    with open_run(path) as folder:
        folder.check(plan.settings())
        for line in [*wiring.introduction(profile), *plan_lines(plan, folder)]:
            _say(line)
        capped: Failure | None = None
        todo = still_to_do(plan, folder)
        if todo:
            code, capped = _session(plan, folder, todo, options)
            if code:
                return code
        return _summary(plan, folder, capped)


def _say(text: str) -> None:
    sys.stderr.write(folded(f"moa: {one_line(text)}", sys.stderr) + "\n")
    sys.stderr.flush()


def _session(
    plan: Plan, folder: RunFolder, todo: list[Work], options: Options
) -> tuple[int, Failure | None]:
    """One start of a run: the exit code if it ends here, and the cap that ended it, if one did."""
    facts = folder.facts(asyncio.run(_known(plan)))
    purse = Purse(folder, open_books(save=None).spending, options.max_cost)
    purse.check(facts)
    estimate = _estimate(plan, folder, todo, facts)
    for line in estimate_lines(estimate, facts, purse.left()):
        _say(line)
    if not options.yes and not typer.confirm("Go on?", default=False, err=True):
        _say("nothing was sent")
        return FAILED, None
    folder.begin(plan.settings(), facts)
    ended = len(list(plan.work())) - len(todo)
    progress = Progress(total=ended + len(todo), done=ended, before=ended)
    live = wiring.config().live if options.live is None else options.live
    view = progress_view(sys.stderr, progress, live=live)
    work = _Working(plan, folder, facts, options, purse, progress, view)
    try:
        with without_echo(sys.stderr):
            return 0, asyncio.run(work.run(todo))
    except KeyboardInterrupt:
        _say(f"interrupted at {progress.text()}; the same command goes on from there")
        return INTERRUPTED, None
    except asyncio.CancelledError:
        return TERMINATED, None


async def _known(plan: Plan) -> dict[str, ModelInfo]:
    pool = _pool()
    try:
        return {one: await pool.facts(one, patience=_PATIENCE) for one in plan.models()}
    finally:
        await pool.aclose()


def _estimate(
    plan: Plan, folder: RunFolder, todo: list[Work], facts: Mapping[str, ModelInfo]
) -> Estimate:
    known = wiring.providers()
    estimator = Estimator(folder.journal, facts, plan.given, lambda name: known.parse(name)[1])
    for work in todo:
        estimator.add(work.arm, work.item)
    return estimator.total


class _Working:
    """The run itself, with what is told on the way."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        facts: Mapping[str, ModelInfo],
        options: Options,
        purse: Purse,
        progress: Progress,
        view: ProgressView,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._facts = facts
        self._options = options
        self._purse = purse
        self._progress = progress
        self._view = view

    async def run(self, todo: list[Work]) -> Failure | None:
        """Do it all; why it ended early, if a cap was reached."""
        cancel_on_termination()
        pool = _pool()
        limits = wiring.limits(self._options.concurrency, self._purse.caps)
        gate = Gate(
            limits.concurrency,
            self._options.provider_concurrency,
            lambda model: pool.providers.parse(model)[0].name,
        )
        self._progress.in_flight = lambda: gate.in_flight
        self._progress.held = lambda: gate.held
        shared = Shared(
            pool, self._folder.journal, gate, self._facts, self._plan.given, self._ended
        )
        runner = Runner(self._folder, shared, limits, limits.concurrency, self._told)
        self._view.start()
        try:
            await runner.run(self._plan, todo)
        finally:
            self._view.close()
            await pool.aclose()
        return runner.capped

    def _ended(self, entry: Entry) -> None:
        self._purse.ended(entry, warn=self._view.say)
        self._progress.spent += entry.usage

    def _told(self, result: Result) -> None:
        if result.error is None:
            self._progress.done += 1
        else:
            self._progress.failed += 1
            self._view.say(f"{result.arm}, item {result.item}: {result.error.message}")
        self._view.changed()


def _pool() -> ClientPool:
    """Clients for many calls in flight, where what carries them is installed."""
    if importlib.util.find_spec("aiohttp") is None:
        return wiring.client_pool()
    from moa_cli.clients.aiohttp_transport import AiohttpTransport

    return ClientPool(wiring.config(), transport=AiohttpTransport)


def _summary(plan: Plan, folder: RunFolder, capped: Failure | None) -> int:
    """Print what came of it; the exit code."""
    width = columns_of(sys.stdout) or 1000
    sys.stdout.write("".join(f"{line}\n" for line in summary_lines(plan, folder, width)))
    sys.stdout.flush()
    if capped is not None:
        _say(f"{capped.message} (the same command with a higher cap goes on from there)")
        return BUDGET
    failed = [one for one in folder.results.values() if one.error is not None]
    if failed:
        _say(f"{len(failed)} failed; the same command tries them again")
        return FAILED
    return 0
