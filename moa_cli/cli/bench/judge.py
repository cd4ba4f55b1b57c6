"""What `moa bench judge` does once its options are read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from moa_cli.bench.judge.judging import (
    JudgeFolder,
    JudgeInputs,
    JudgePlan,
    JudgeResults,
    open_judge,
    texts_of,
)
from moa_cli.bench.judge.kind import Asked, JudgeKind
from moa_cli.bench.judge.kinds import KINDS, OWN
from moa_cli.bench.report.scores import scores_of
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.reader import RunReader, judge_folder, read_run
from moa_cli.bench.run.runner import Runner, still_to_do
from moa_cli.cli import wiring
from moa_cli.cli.bench.cells import width_of_output
from moa_cli.cli.bench.judge_text import plan_lines, score_lines
from moa_cli.cli.bench.session import Job, SessionOptions, check_can_ask, session
from moa_cli.cli.exit_codes import BUDGET, FAILED
from moa_cli.cli.output import say
from moa_cli.core.conversation import Failure
from moa_cli.core.errors import BenchError, UsageError

__all__ = ["Options", "run"]

# What an endpoint may say that knows no log-probabilities, or thinks before it answers.
_REFUSALS = ("BadResponse", "RequestRefused")
# What will be no better with the next item.
_HOPELESS = ("AuthenticationFailed", "LocalModelUnavailable", "ModelNotFound")
_MOST_TRIED = 5


@dataclass(frozen=True, kw_only=True)
class Options(SessionOptions):
    """What was typed; None where nothing was."""

    run: Path
    judge: str
    inputs: JudgeInputs


def run(options: Options) -> int:
    """Tell what it takes, ask, judge, and tell what came of it; returns the exit code."""
    wiring.check_model_name("--judge", options.judge)
    reader = read_run(options.run, options.inputs.data)
    kind = _kind(reader, options)
    check_can_ask(options)
    for notice in wiring.providers().key_notices([options.judge]):
        say(notice)
    with open_judge(judge_folder(options.run, options.judge)) as folder:
        plan = _plan(reader, kind, options, folder)
        for line in plan_lines(plan, folder, reader.settings):
            say(line)
        verdicts = JudgeResults(folder, plan)
        capped: Failure | None = None
        todo = still_to_do(plan, verdicts)
        if todo:
            prepare = _Beginning(verdicts).run
            code, capped = session(Job(plan, folder, verdicts, options, prepare), todo)
            if code:
                return code
        else:
            folder.note(plan.settings())
            verdicts.settle()
            verdicts.finish(())
        failed = sum(verdict.error is not None for verdict in verdicts.all())
    return _summary(options, failed, capped)


def _kind(run: RunReader, options: Options) -> JudgeKind:
    """The kind of judge that the run's dataset has. Raises UsageError if it needs none."""
    inputs = options.inputs
    compared = inputs.reference is not None or inputs.against is not None
    report = f"`moa bench report {options.run}` computes accuracy"
    if not run.settings.dataset.known:
        if compared:
            return OWN
        hint = f"--reference FILE or --against ARM; where the answers are known, {report}"
        raise UsageError("there is nothing to compare with", hint=hint)
    name, judge = run.settings.dataset.name, run.dataset and run.dataset.judge
    if not judge:
        raise UsageError(f"{name} needs no judge, its answers are known", hint=report)
    if compared and not KINDS[judge].compares:
        raise UsageError(f"--reference, --against: {name} is not judged by pairs")
    return KINDS[judge]


def _plan(run: RunReader, kind: JudgeKind, options: Options, folder: JudgeFolder) -> JudgePlan:
    """What is to be judged. Raises BenchError if judgements of something else are there."""
    judged = texts_of(run, kind, options.inputs, folder)
    before = folder.settings
    plan = JudgePlan(
        model=options.judge,
        kind=kind,
        prompts=kind.prompts(run, judged.reference),
        items=run.items,
        judged=judged,
        date=(before and before.date) or datetime.now(UTC).date().isoformat(),
        asked=before.asked if before else "logprobs",
    )
    folder.check(plan.settings())
    if not any(judged.replies.values()):
        raise BenchError(f"{options.run}: there is nothing to judge yet")
    return plan


class _Beginning:
    """What comes before the first judgement."""

    def __init__(self, verdicts: JudgeResults) -> None:
        self._verdicts = verdicts

    async def run(
        self, runner: Runner, todo: list[Work], tell: Callable[[str], None]
    ) -> list[Work]:
        """See `bench_session.Prepare`. How a judge tells preferences is found out by the first
        judgement that is asked for. Raises BenchError if it cannot be asked at all.
        """
        plan, judged = self._verdicts.plan, self._verdicts.folder.judgements.values()
        found_out = plan.asked != "logprobs" or any(verdict.key for verdict in judged)
        self._verdicts.settle()
        if not plan.kind.compares or found_out:
            return todo
        ways: tuple[Asked, ...] = ("logprobs", "count")
        for way in ways:
            if way != plan.asked:
                todo = self._verdicts.ask(way, todo)
            if await self._is_understood(runner, todo):
                return todo
        tell(
            f"{plan.model} tells no log-probabilities: it is asked for a text,"
            " and its win rates are discrete"
        )
        return self._verdicts.ask("text", todo)

    async def _is_understood(self, runner: Runner, todo: list[Work]) -> bool:
        """Whether the judge tells log-probabilities; True also where that cannot be found out."""
        for work in todo[:_MOST_TRIED]:
            result = await runner.result(work)
            if result is None or self._verdicts.told_logprobs(result):
                return True
            if result.error is None or result.error.kind in _REFUSALS:
                return False
            if result.error.kind in _HOPELESS:
                raise BenchError(result.error.message, hint=result.error.hint)
        return True


def _summary(options: Options, failed: int, capped: Failure | None) -> int:
    """Print what came of it; the exit code."""
    scores = scores_of(options.run, options.judge, options.inputs.data)
    width = width_of_output()
    sys.stdout.write("".join(f"{line}\n" for line in score_lines(scores, width)))
    sys.stdout.flush()
    if capped is not None:
        say(f"{capped.message} (the same command with a higher cap goes on from there)")
        return BUDGET
    if failed:
        say(f"failed judgements: {failed:,}; the same command tries them again")
        return FAILED
    say(f"`moa bench report {options.run}` tells the rest")
    return 0
