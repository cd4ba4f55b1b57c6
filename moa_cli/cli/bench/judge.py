"""What `moa bench judge` does once its options are read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moa_cli.bench.data.datasets import dataset_of
from moa_cli.bench.judge.judgements import judge_folder
from moa_cli.bench.judge.judging import JudgeFolder, JudgePlan, Verdicts, open_judge
from moa_cli.bench.judge.kinds import KIND_OF, Asked, read_kind
from moa_cli.bench.judge.texts import Chosen, Shown, texts_of
from moa_cli.bench.report.scores import scores_of
from moa_cli.bench.run.folder import read_settings
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.runner import Runner, still_to_do
from moa_cli.cli import wiring
from moa_cli.cli.bench.cells import width_of_output
from moa_cli.cli.bench.judge_text import plan_lines, score_lines
from moa_cli.cli.bench.session import Job, SessionOptions, check_can_ask, say, session
from moa_cli.cli.exit_codes import BUDGET, FAILED
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
    chosen: Chosen


def run(options: Options) -> int:
    """Tell what it takes, ask, judge, and tell what came of it; returns the exit code."""
    wiring.check_model_name("--judge", options.judge)
    settings = read_settings(options.run)
    kind = _kind(settings, options)
    check_can_ask(options)
    for notice in wiring.providers().key_notices([options.judge]):
        say(notice)
    with open_judge(judge_folder(options.run, options.judge)) as folder:
        plan, shown = _plan(settings, kind, options, folder)
        for line in plan_lines(plan, folder, settings):
            say(line)
        verdicts = Verdicts(folder, plan)
        capped: Failure | None = None
        todo = still_to_do(plan, verdicts)
        if todo:
            prepare = _Beginning(verdicts, shown).run
            code, capped = session(Job(plan, folder, verdicts, options, prepare), todo)
            if code:
                return code
        else:
            folder.note(plan.settings())
            verdicts.settle(shown.texts)
            verdicts.finish(())
        failed = sum(one.error is not None for one in verdicts.all())
    return _summary(options, failed, capped)


def _kind(settings: Mapping[str, Any], options: Options) -> str:
    """The kind of judge that the run's dataset has. Raises UsageError if it needs none."""
    name, chosen = settings["dataset"]["name"], options.chosen
    compared = chosen.reference is not None or chosen.against is not None
    report = f"`moa bench report {options.run}` computes accuracy"
    if not settings["dataset"]["known"]:
        if compared:
            return "pairwise"
        hint = f"--reference FILE or --against ARM; where the answers are known, {report}"
        raise UsageError("there is nothing to compare with", hint=hint)
    if name not in KIND_OF:
        raise UsageError(f"{name} needs no judge, its answers are known", hint=report)
    if compared and KIND_OF[name] != "pairwise":
        raise UsageError(f"--reference, --against: {name} is not judged by pairs")
    return KIND_OF[name]


def _plan(
    settings: Mapping[str, Any], kind: str, options: Options, folder: JudgeFolder
) -> tuple[JudgePlan, Shown]:
    """What is to be judged. Raises BenchError if judgements of something else are there."""
    chosen, before = options.chosen, folder.settings
    items = dataset_of(settings, chosen.data).items[: settings["limit"]]
    shown = texts_of(options.run, settings, kind, items, chosen, (before, folder.texts))
    plan = JudgePlan(
        model=options.judge,
        kind=read_kind(settings, chosen.data, shown.reference),
        items=items,
        replies=shown.replies,
        told=shown.told,
        date=before.get("date") or datetime.now(UTC).date().isoformat(),
        asked=before.get("asked", "logprobs"),
    )
    folder.check(plan.settings())
    if not any(shown.replies.values()):
        raise BenchError(f"{options.run}: there is nothing to judge yet")
    return plan, shown


class _Beginning:
    """What comes before the first judgement."""

    def __init__(self, verdicts: Verdicts, shown: Shown) -> None:
        self._verdicts = verdicts
        self._shown = shown

    async def run(
        self, runner: Runner, todo: list[Work], tell: Callable[[str], None]
    ) -> list[Work]:
        """See `bench_session.Prepare`. How a judge tells preferences is found out by the first
        judgement that is asked for. Raises BenchError if it cannot be asked at all.
        """
        plan, judged = self._verdicts.plan, self._verdicts.folder.judgements.values()
        found_out = plan.asked != "logprobs" or any(one.key for one in judged)
        self._verdicts.settle(self._shown.texts)
        if plan.kind.name != "pairwise" or found_out:
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
    scores = scores_of(options.run, options.judge, options.chosen.data)
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
