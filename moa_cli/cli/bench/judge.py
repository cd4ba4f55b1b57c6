"""`moa bench judge`: let a model judge a run's replies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from moa_cli.cli import wiring
from moa_cli.cli.bench.options import MaxCost, capped_exit
from moa_cli.cli.commands import Debug
from moa_cli.cli.exit_codes import FAILED
from moa_cli.cli.options import (
    Concurrency,
    Data,
    Live,
    ProviderConcurrency,
    RunFolder,
    YesBeforeSending,
)
from moa_cli.cli.output import check_can_confirm, output_width, print_lines, say
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.sanitize import one_line

if TYPE_CHECKING:
    from moa_cli.bench.judge.judging import JudgeFolder, JudgePlan, JudgeResults
    from moa_cli.bench.judge.kinds import Asked, JudgeKind
    from moa_cli.bench.report.scores import Scores
    from moa_cli.bench.run.folder import RunReader
    from moa_cli.bench.run.journal import Judgement, Result
    from moa_cli.bench.run.plan import Work
    from moa_cli.bench.run.runner import Runner
    from moa_cli.bench.run.settings import RunSettings
    from moa_cli.bench.scoring.means import Metric
    from moa_cli.cli.bench.session import SessionOptions
    from moa_cli.core.conversation import Failure

# Errors by which an endpoint shows that it has no log-probabilities, or that its model reasons
# first.
_REFUSALS = ("AnswerRefused", "BadResponse", "ContentFiltered", "RequestRefused")
# Errors that every further item would meet, too.
_HOPELESS = ("AuthenticationFailed", "LocalModelUnavailable", "ModelNotFound", "NoCredit")
_MOST_TRIED = 5
# The ways to ask for log-probabilities, in the order in which they are tried; see `Asked`.
_WAYS: tuple[Asked, ...] = ("logprobs", "count")
# Token limits for a judge that reasons; the second is for endpoints that accept no more.
_ROOM = (32_768, 8_192)
ReasoningTokens = Annotated[
    int | None,
    typer.Option(
        "--reasoning-tokens",
        metavar="N",
        min=0,
        help=f"Maximum number of reasoning tokens of the judge, besides those of its verdict;"
        f" by default {_ROOM[0]:,} for a judge that reasons, none for others.",
    ),
]
_MOST_SHOWN = 5
_LONGEST_NOTE: Final = 2000
# Left out here: a dozen skills and the figures of layers, which only a report has room for.
_SHORT: Final = (
    "score",
    "score, style control",
    "win rate",
    "LC win rate (own fit)",
    "discrete win rate",
    "average",
    "turn 1",
    "turn 2",
    "mean",
    "accuracy",
)


def judge(
    run: RunFolder,
    judges: Annotated[
        list[str],
        typer.Option(
            "--judge",
            metavar="MODEL",
            help="The model that judges. Repeat the option for a panel of judges.",
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="FILE",
            help="Model outputs to compare with, matched by instruction; by default, the"
            " dataset's.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="ARM", help="Compare with this arm of the run instead."),
    ] = None,
    both_orders: Annotated[
        bool,
        typer.Option(
            "--both-orders",
            help="Judge each pair in both orders, with twice the calls, so that the position of"
            " an output does not affect the score. Arena-Hard is always judged in this way.",
        ),
    ] = False,
    anchors: Annotated[
        list[Path] | None,
        typer.Option(
            "--anchors",
            metavar="FILE",
            help="Judge these published outputs too, to show the judge's scale; repeatable.",
        ),
    ] = None,
    rubric: Annotated[
        str | None,
        typer.Option(
            "--rubric",
            metavar="TEXT",
            help="Rate replies from 1 to 10 by this rubric, and by the line's `answer` where"
            " there is one; `@FILE` reads it from a file.",
        ),
    ] = None,
    expected: Annotated[
        bool,
        typer.Option(
            "--expected",
            help="Use the expected rating, by the judge's log-probabilities of all ratings,"
            " where its endpoint returns them.",
        ),
    ] = False,
    reasoning_tokens: ReasoningTokens = None,
    concurrency: Concurrency = None,
    provider_concurrency: ProviderConcurrency = None,
    max_cost: MaxCost = None,
    yes: YesBeforeSending = False,
    data: Data = None,
    live: Live = None,
    debug: Debug = False,
) -> None:
    """Let a model judge a run's replies; the same command resumes where it stopped."""
    from moa_cli.bench.run.folder import read_run
    from moa_cli.cli.bench.session import SessionOptions

    models = list(dict.fromkeys(judges))
    for model in models:
        wiring.check_model_name("--judge", model)
    reader = read_run(run, data)
    kind = _kind(
        reader, _rubric_text(rubric), compared=reference is not None or against is not None
    )
    if not yes:
        check_can_confirm()
    for notice in wiring.providers().key_notices(models):
        say(notice)
    options = SessionOptions(
        concurrency=concurrency,
        provider_concurrency=provider_concurrency,
        max_cost=max_cost,
        yes=yes,
        live=live,
    )
    if both_orders and not kind.compares:
        raise UsageError(f"--both-orders: {reader.settings.dataset.name} is not judged in pairs")
    if expected and not kind.rates:
        raise UsageError(f"--expected: {reader.settings.dataset.name} is not judged with ratings")
    judging = _Judging(
        reader,
        kind,
        reference,
        against,
        tuple(anchors or ()),
        reasoning_tokens,
        expected,
        both_orders,
        options,
    )
    judging.begin(models)
    told = [verdict for model in models for verdict in judging.by(model)]
    if len(models) > 1:
        _print_panel(run, models, data)
    failed = sum(verdict.error is not None for verdict in told)
    if failed:
        say(f"failed judgements: {failed:,}; the same command tries them again")
    if failed or all(verdict.unreadable for verdict in told):
        raise typer.Exit(FAILED)
    which = f" --judge {models[0]}" if len(models) > 1 else ""
    say(f"`moa bench report {run}{which}` prints the full report")


@dataclass
class _Judging:
    """The judging of a run by one or several judges; for its fields see the options of `judge`."""

    reader: RunReader
    kind: JudgeKind
    reference: Path | None
    against: str | None
    anchors: tuple[Path, ...]
    reasoning_tokens: int | None
    expected: bool
    both_orders: bool
    options: SessionOptions
    _spent: dict[str, float] = field(default_factory=dict)

    def begin(self, models: Sequence[str]) -> None:
        """Read what these judges spent in earlier starts, and whether one of them judged in both
        orders. In that case all judges of the panel do. Raises BenchError."""
        from moa_cli.bench.judge.pairwise import BOTH_ORDERS, PAIRWISE
        from moa_cli.bench.run.folder import judge_folder
        from moa_cli.bench.run.journal import CALLS, CallJournal

        begun = [judge.settings for judge in self.reader.judges.values()]
        both = any(told.model in models and told.kind == BOTH_ORDERS.name for told in begun)
        if self.kind is PAIRWISE and (both or self.both_orders):
            self.kind = BOTH_ORDERS
        for model in models:
            calls = judge_folder(self.reader.path, model) / CALLS
            self._spent[model] = CallJournal(calls).spent.cost if calls.exists() else 0.0

    def by(self, model: str) -> list[Judgement]:
        """Let that model judge what it has not judged yet, and print the result. Returns its
        verdicts."""
        from moa_cli.bench.judge.judging import JudgeFolder, JudgePlan, JudgeResults, texts_of
        from moa_cli.bench.report.scores import scores_of
        from moa_cli.bench.run.folder import judge_folder, opened

        reader, run = self.reader, self.reader.path
        with opened(judge_folder(run, model), JudgeFolder) as folder:
            judged = texts_of(
                reader,
                self.kind,
                folder,
                reference=self.reference,
                against=self.against,
                anchors=self.anchors,
            )
            plan = JudgePlan(
                model=model,
                kind=self.kind,
                prompts=self.kind.prompts(reader, judged.reference),
                items=reader.items,
                judged=judged,
                reasoning_tokens=self.reasoning_tokens,
                expected=self.expected,
            )
            plan = folder.go_on(plan)
            if not any(plan.judged.replies.values()):
                raise BenchError(f"{run}: there is nothing to judge yet")
            for line in _plan_lines(plan, folder, reader.settings):
                say(line)
            verdicts = JudgeResults(folder, plan)
            capped = ask_judge(verdicts, self._options(model))
            told = list(verdicts.all())
            self._spent[model] = folder.journal.spent.cost
        print_lines(_score_lines(scores_of(run, model, reader.data)))
        if capped is not None:
            raise capped_exit(capped)
        for line in unreadable_lines(told, self.kind):
            say(line)
        return told

    def _options(self, model: str) -> SessionOptions:
        """The options for that judge, with the cap reduced by what the other judges spent."""
        cap = self.options.max_cost
        if cap is None:
            return self.options
        others = sum(cost for name, cost in self._spent.items() if name != model)
        return replace(self.options, max_cost=max(0.0, cap - others))


def _print_panel(run: Path, models: Sequence[str], data: Path | None) -> None:
    from moa_cli.bench.judge.panel import read_panel
    from moa_cli.bench.run.folder import read_run
    from moa_cli.cli.bench.agreement import agreement_lines

    panel = read_panel(read_run(run, data), models)
    print_lines(["", *agreement_lines(panel, (), output_width())])


def _rubric_text(typed: str | None) -> str | None:
    """The typed rubric, or that in the file that `@FILE` names. Raises UsageError if it is empty,
    BenchError if the file cannot be read."""
    from moa_cli.bench.data.items import text_in

    if typed is None:
        return None
    text = text_in(paths.expand(typed[1:])) if typed.startswith("@") else typed
    if not text.strip():
        raise UsageError("--rubric: the rubric is empty")
    return text.strip()


def _kind(run: RunReader, rubric: str | None, *, compared: bool) -> JudgeKind:
    """The kind of judge that the run's dataset has. Raises UsageError if it needs none.

    rubric: the user's rubric for the ratings. compared: whether the user named what to compare
    with.
    """
    from moa_cli.bench.judge.registry import KINDS, OWN
    from moa_cli.bench.judge.rubric import is_rated, rubric_kind

    report = f"`moa bench report {run.path}` computes accuracy"
    if rubric is not None:
        if compared:
            raise UsageError("--rubric cannot be used with --reference or --against")
        return rubric_kind(rubric)
    if not run.settings.dataset.known:
        if compared:
            return OWN
        if is_rated(run):
            return rubric_kind(None)
        hint = f"--reference FILE, --against ARM or --rubric TEXT; with known answers, {report}"
        raise UsageError("there is nothing to compare with", hint=hint)
    name, judge = run.settings.dataset.name, run.dataset and run.dataset.judge
    if not judge:
        raise UsageError(f"{name} needs no judge: its correct answers are known", hint=report)
    if compared and not KINDS[judge].compares:
        raise UsageError(f"--reference, --against: {name} is not judged in pairs")
    return KINDS[judge]


def ask_judge(verdicts: JudgeResults, options: SessionOptions, **more: Any) -> Failure | None:
    """Have a judge give the verdicts that are missing. Returns the cap that ended it, if one did.
    more: see `Job`."""
    from moa_cli.bench.run.runner import still_to_do
    from moa_cli.cli.bench.session import Job, session

    plan, folder = verdicts.plan, verdicts.folder
    whole = list(plan.work())
    todo = still_to_do(whole, verdicts)
    if not todo:
        folder.note(plan.settings())
        verdicts.settle()
        verdicts.finish(())
        return None
    prepare = partial(_find_out_way, verdicts)
    job = Job(plan.models(), plan.settings(), folder, verdicts, options, whole, prepare, **more)
    return session(job, todo)


async def _find_out_way(
    verdicts: JudgeResults, runner: Runner, todo: list[Work], tell: Callable[[str], None]
) -> list[Work]:
    """See `session.Prepare`. The first judgements show in which way the judge gives preferences,
    and whether it reasons. Raises BenchError if the judge cannot be asked at all.
    """
    plan, judged = verdicts.plan, verdicts.folder.judgements.values()
    found_out = plan.asked != "logprobs" or any(verdict.key for verdict in judged)
    verdicts.settle()
    finder = _WayFinder(verdicts, runner, todo, tell)
    if plan.kind.logprobs and not found_out:
        otherwise = ": its verdicts are read from its text, and its win rates are discrete"
        await finder.try_ways(finder.tells_preferences, otherwise)
    if finder.todo[0].arm.profile.aggregator.max_tokens == 1:
        # The verdict is the first token: nothing comes before it.
        return finder.todo
    if plan.expected and not found_out:
        otherwise = " of ratings: they are read from its text"
        if await finder.try_ways(finder.tells_ratings, otherwise):
            # `tells_ratings` has made room for reasoning already.
            return finder.todo
    await finder.make_room()
    return finder.todo


@dataclass
class _WayFinder:
    """Finds out in which way a judge can be asked. todo: the work, with requests in the way that is
    being tried."""

    verdicts: JudgeResults
    runner: Runner
    todo: list[Work]
    tell: Callable[[str], None]

    def _ask(self, way: Asked) -> None:
        room = self.verdicts.plan.reasoning_tokens
        self.todo = self.verdicts.ask(self.todo, asked=way, reasoning_tokens=room)

    async def try_ways(self, works: Callable[[], Awaitable[bool]], otherwise: str) -> bool:
        """Ask for log-probabilities in one way after another until one works. If none does, ask for
        a text from now on. Returns whether one works."""
        for way in _WAYS:
            if way != self.verdicts.plan.asked:
                self._ask(way)
            if await works():
                return True
        self.tell(f"{self.verdicts.plan.model} returns no log-probabilities{otherwise}")
        self._ask("text")
        return False

    async def tells_ratings(self) -> bool:
        """Whether the judge's answers have the log-probabilities of ratings."""
        await self.make_room()
        verdicts = self.verdicts
        return await self._tells(
            verdicts.tells_numbers,
            lambda result: result.error is None and not verdicts.is_readable(result),
            unclear=True,
        )

    async def tells_preferences(self) -> bool:
        """Whether the judge's answers have the log-probabilities of the verdict. They may be those
        of another word, such as the first one of its reasoning."""
        verdicts = self.verdicts
        return await self._tells(verdicts.is_readable, verdicts.told_logprobs, unclear=False)

    async def _tells(
        self, told: Callable[[Result], bool], is_unclear: Callable[[Result], bool], *, unclear: bool
    ) -> bool:
        """Whether one of the first answers has what `told` looks for. True also if that cannot be
        found out.

        unclear: the result if all answers are unclear.
        """
        found = True
        for work in self.todo[:_MOST_TRIED]:
            result = await self.runner.result(work)
            if result is None or told(result):
                return True
            if is_unclear(result):
                found = unclear
            elif result.error is None or result.error.kind in _REFUSALS:
                return False
            else:
                _check_hope(result)
        return found

    async def make_room(self) -> None:
        """Make room for reasoning, if the judge's first answer shows that it reasons."""
        plan = self.verdicts.plan
        if plan.reasoning_tokens is not None:
            return
        result = await self.runner.result(self.todo[0])
        if result is None or not self.verdicts.reasoned(result):
            _check_hope(result)
            return
        begun = self.verdicts.folder.settings
        context = begun.facts[plan.model].context_length if begun and begun.facts else None
        for most in _ROOM:
            room = most if context is None else min(most, context // 2)
            self.todo = self.verdicts.ask(self.todo, asked=plan.asked, reasoning_tokens=room)
            result = await self.runner.result(self.todo[0])
            if result is None or result.error is None or result.error.kind not in _REFUSALS:
                break
        self.tell(f"{plan.model} reasons before its verdict: it gets {room:,} more tokens for that")


def _check_hope(result: Result | None) -> None:
    """Raise BenchError if the result has an error that every further item would meet, too."""
    if result is not None and result.error is not None and result.error.kind in _HOPELESS:
        raise BenchError(result.error.message, hint=result.error.hint)


def unreadable_lines(told: Sequence[Judgement], kind: JudgeKind) -> Iterator[str]:
    """Lines on how many verdicts could not be read, and on the first of them."""
    from moa_cli.bench.judge.judging import shown

    found = [verdict for verdict in told if verdict.unreadable]
    if not found:
        return
    yield f"unreadable verdicts: {len(found):,} of {len(told):,}, left out of all scores"
    for verdict in found[:_MOST_SHOWN]:
        part = "turn" if kind.games == 1 else "game"
        turn = f" {part} {verdict.turn + 1}" if verdict.turn else ""
        yield one_line(f"{verdict.arm}, item {verdict.item}{turn}: {shown(verdict)}")
    if len(found) > _MOST_SHOWN:
        yield f"and {len(found) - _MOST_SHOWN:,} more, in judgements.jsonl"


def _plan_lines(plan: JudgePlan, folder: JudgeFolder, settings: RunSettings) -> Iterator[str]:
    """Lines on what is judged, by which judge and how, and how much is done already. settings: the
    settings of the run."""
    from moa_cli.cli.bench.session import where

    how, judged = plan.kind.how, plan.judged
    if plan.expected and plan.asked != "text":
        how += ", as expected by log-probabilities"
    if plan.kind.compares:
        if plan.asked == "text":
            how = how.replace("by log-probabilities", "by its text (discrete)")
        how += f", against {judged.source.name if judged.source else judged.against}"
    if plan.kind.games > 1:
        how += f"; {plan.kind.games} calls for each pair"
    yield f"{settings.dataset.name}: {plan.model} judges {', '.join(judged.replies)}: {how}"
    asked = len(plan.items)
    for arm in settings.arms:
        there = len(judged.replies.get(arm, ()))
        if arm in judged.replies and there < asked:
            yield f"{arm} has {there:,} of {asked:,} answers: its scores are partial"
    lacking = sum(plan.prompts.turns(item) == 0 for item in plan.items)
    if lacking:
        yield f"{lacking:,} of {asked:,} items have no {plan.prompts.needed}, and are not judged"
    yield where(folder, folder.judgements.values(), "judgements")


def _score_lines(scores: Scores) -> list[str]:
    """A table of the arms' main figures, the judge, and the notes."""
    from moa_cli.cli.bench.cells import fitting_table
    from moa_cli.terminal.table import Column

    rows = [*scores.arms, *scores.anchors]
    named = [name for name in _SHORT if any(arm.metric(name) for arm in rows)]
    columns = [Column("arm", [arm.arm for arm in rows], widest=40)]
    for name in named:
        found = [arm.metric(name) for arm in rows]
        unit = next(metric.unit for metric in found if metric)
        columns.append(Column(f"{name} ({unit})", list(map(_told, found)), widest=44))
    lines = list(fitting_table(columns, output_width()))
    if scores.judge is not None:
        lines.append(one_line(f"judged by {scores.judge.model}, {scores.judge.date}"))
    return [*lines, *(one_line(note, _LONGEST_NOTE) for note in scores.notes)]


def _told(metric: Metric | None) -> str:
    """`57.2 ± 1.6 (n 805)`: the mean, its standard error, and the number of values."""
    if metric is None or metric.mean.value is None:
        return "–"
    n = metric.mean.n
    of = f"{n:,} of {metric.asked:,}, partial" if metric.partial else f"n {n:,}"
    return f"{metric.mean.text(2)} ({of})"
