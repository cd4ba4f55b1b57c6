"""`moa bench run`: answer a dataset's items by several arms."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moa_cli.bench.scoring.rules import GRADERS, SCORERS
from moa_cli.cli import wiring
from moa_cli.cli.bench.options import MaxCost, StopAfter, capped_exit
from moa_cli.cli.exit_codes import FAILED
from moa_cli.cli.options import (
    ARMS_HELP,
    Best,
    Data,
    Live,
    ProviderConcurrency,
    YesBeforeSending,
    arm_names,
    takes_profile,
    typed_or,
)
from moa_cli.cli.output import check_can_confirm, output_width, print_lines, say
from moa_cli.core.errors import UsageError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.terminal.tty import folded

if TYPE_CHECKING:
    from moa_cli.bench.data.items import Item
    from moa_cli.bench.run.call_cache import CallCache
    from moa_cli.bench.run.folder import RunFolder
    from moa_cli.bench.run.journal import CallJournal, Result
    from moa_cli.bench.run.plan import RunPlan, Work
    from moa_cli.bench.run.settings import RunSettings
    from moa_cli.core.conversation import Failure
    from moa_cli.profile import Profile

_MOST_NAMED = 10


@takes_profile
def run(
    profile: Profile,
    concurrency: int | None,
    *,
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE.jsonl",
            help="A dataset (see `moa bench list`), or your own lines of {prompt, answer?}, or a"
            " CSV or TSV table with such columns.",
        ),
    ],
    limit: Annotated[
        int | None,
        typer.Option(
            "-n", "--limit", metavar="N", min=1, help="A sample of N items only (see --sample)."
        ),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            "--sample",
            metavar="HOW",
            help="How -n draws: stratified (each category by its share), random or first."
            " Default: as the run was started, or stratified.",
        ),
    ] = None,
    sample_seed: Annotated[
        int | None,
        typer.Option("--sample-seed", metavar="N", help="The seed of the sample. Default: 0."),
    ] = None,
    ids: Annotated[
        str | None,
        typer.Option(
            "--ids",
            metavar="IDS|@FILE",
            help="Only these items: ids separated by commas, or @FILE with one id a line.",
        ),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option("--category", metavar="NAME", help="Only items of this category; repeatable."),
    ] = None,
    shuffle: Annotated[
        bool,
        typer.Option(
            "--shuffle",
            help="Ask in the order in which items are drawn, so that a part of the run is a"
            " sample too.",
        ),
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="N",
            min=1,
            help="Ask each item N times, to measure the spread of replies too. Default: as the"
            " run was started, or once.",
        ),
    ] = None,
    arms: Annotated[
        str,
        typer.Option(
            "--arms",
            metavar="NAMES",
            help=f"The arms that answer, separated by commas: {ARMS_HELP}.",
        ),
    ] = "mixture",
    best: Best = None,
    parity: Annotated[
        bool,
        typer.Option("--parity", help="The settings of the authors' scripts (alpaca, flask, mt)."),
    ] = False,
    reference_paths: Annotated[
        list[Path] | None,
        typer.Option(
            "--reference-paths",
            metavar="FILE",
            help="Take the first layer's answers from this file of model outputs; repeatable.",
        ),
    ] = None,
    asks_format: Annotated[
        bool | None,
        typer.Option(
            "--format/--no-format",
            help="Add to each question with a known answer how to format the answer. Default:"
            " yes, or as the run was started.",
        ),
    ] = None,
    grader: Annotated[
        str | None,
        typer.Option(
            "--grader",
            metavar="RULE",
            help=f"How replies are compared with known answers: {', '.join(GRADERS)},"
            f" regex:PATTERN, json:FIELD, or an entry point of `{SCORERS}`; by"
            " default, the dataset's own way.",
        ),
    ] = None,
    provider_concurrency: ProviderConcurrency = None,
    max_cost: MaxCost = None,
    stop_after: StopAfter = None,
    yes: YesBeforeSending = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="FOLDER",
            help="Share calls with all runs that name this folder: equal requests are paid once.",
        ),
    ] = None,
    data: Data = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="The run's folder; by default runs/NAME-PROFILE. The same command resumes there.",
        ),
    ] = None,
    live: Live = None,
) -> None:
    """Answer a dataset's items; the same command resumes where it stopped."""
    from moa_cli.bench.data.loading import data_folder, load_dataset
    from moa_cli.bench.data.sampling import sample_of
    from moa_cli.bench.run.folder import RUN_FILE, RunFolder, opened, read_run
    from moa_cli.bench.run.plan import RunPlan, format_of
    from moa_cli.bench.run.runner import STOP_AFTER, still_to_do
    from moa_cli.bench.run.settings import differences
    from moa_cli.cli.bench.session import Job, SessionOptions, session
    from moa_cli.core.files.new_file import check_name

    kinds = arm_names(arms)
    if cache:
        check_name(cache)
    if not yes:
        check_can_confirm()
    loaded = load_dataset(dataset, data_folder(data))
    path = output or Path("runs") / f"{loaded.settings.name}-{profile.name}"
    begun = read_run(path).settings if (path / RUN_FILE).exists() else None
    # An existing run keeps its choice. Runs of earlier versions added no format.
    asks_format = typed_or(asks_format, begun is None or begun.answer_format is not None)
    plan = RunPlan(
        profile=profile,
        dataset=loaded,
        kinds=kinds,
        best=best,
        parity=parity,
        limit=limit,
        sample=sample_of(
            loaded.items,
            limit=limit,
            **_way_to_draw(begun, sample, sample_seed),
            ids=_ids(ids),
            categories=category or (),
            shuffle=shuffle,
        ),
        given_files=tuple(reference_paths or ()),
        answer_format=format_of(loaded, grader) if asks_format else None,
        grader=grader,
        epochs=epochs or (begun.epochs if begun else 1),
    )
    options = SessionOptions(
        concurrency=concurrency,
        provider_concurrency=provider_concurrency,
        max_cost=max_cost,
        yes=yes,
        live=live,
        stop_after=typed_or(stop_after, STOP_AFTER),
    )
    with opened(path, RunFolder) as folder:
        grown = folder.go_on(plan)
        for line in [*wiring.introduction(profile), *_plan_lines(plan, folder), *grown]:
            say(line)
        capped: Failure | None = None
        settings, whole = plan.settings(), list(plan.work())
        todo = still_to_do(whole, folder)
        if todo:
            job = Job(
                plan.models(),
                settings,
                folder,
                folder,
                options,
                whole,
                given=plan.given,
                cache=_call_cache(cache, whole) if cache else None,
            )
            capped = session(job, todo)
        elif folder.settings is not None and any(differences(folder.settings, settings)):
            folder.note(settings)
            folder.finish([work.name for work in whole])
        print_lines(_summary_lines(plan, folder))
        failed = sum(result.error is not None for result in folder.results.values())
    if capped is not None:
        raise capped_exit(capped)
    if failed:
        say(f"{failed} failed; the same command tries them again")
        raise typer.Exit(FAILED)


def _call_cache(folder: Path, whole: Sequence[Work]) -> CallCache:
    from moa_cli.bench.run.call_cache import CallCache

    providers = wiring.providers()
    items = (work.item for work in whole)
    return CallCache(folder, lambda model: providers.provider_of(model).base_url or "", items)


def _way_to_draw(begun: RunSettings | None, typed: str | None, seed: int | None) -> dict[str, Any]:
    """How a sample is drawn: as typed, else as in the existing run. A run of earlier versions with
    a limit asks the first items."""
    from moa_cli.bench.data.sampling import DRAWS

    draw = next((known for known in DRAWS if known == typed), None)
    if typed is not None and draw is None:
        raise UsageError(f"--sample: there is no `{typed}`", hint=f"there are {', '.join(DRAWS)}")
    way: dict[str, Any] = {}
    if begun is not None and begun.sample is not None:
        way = {"draw": begun.sample.draw, "seed": begun.sample.seed}
    elif begun is not None and begun.limit is not None:
        way = {"draw": "first"}
    if draw is not None:
        way["draw"] = draw
    if seed is not None:
        way["seed"] = seed
        if draw is None and way.get("draw") == "first":
            way["draw"] = "stratified"
    return way


def _ids(given: str | None) -> list[str]:
    """The ids in an option: separated by commas, or the lines of a file."""
    from moa_cli.bench.data.items import text_in

    if given is None:
        return []
    parts = text_in(Path(given[1:])).splitlines() if given.startswith("@") else given.split(",")
    found = [name for part in parts if (name := part.strip())]
    if not found:
        raise UsageError("--ids: names no item")
    return found


def _plan_lines(plan: RunPlan, folder: RunFolder) -> Iterator[str]:
    """Lines on what is asked by which arms, and on how much is done already."""
    from moa_cli.cli.bench.session import where

    singles = sum(arm.name.startswith("single:") for arm in plan.arms())
    about = {"self": f" (Self-MoA on {plan.best})", "single": f" ({plural(singles, 'model')})"}
    arms = [kind + about.get(kind, "") for kind in plan.kinds]
    whole = plural(len(plan.dataset.items), "item")
    asked = f"{plan.count:,} of {whole}" if plan.count < len(plan.dataset.items) else whole
    how = f" ({plan.sample.text()})" if plan.sample is not None else ""
    times = f", {plan.epochs:,} times each" if plan.epochs > 1 else ""
    yield (
        f"{plan.dataset.settings.name}: {asked}{how}{times}, arms:"
        f" {', '.join(arms)}" + (", settings of the authors' scripts" if plan.parity else "")
    )
    if any(arm.profile.rounds for arm in plan.arms()) and len(plan.arms()) > 1:
        yield "calls that several arms make are made once, such as those of shared proposals"
    if plan.answer_format:
        yield f"added to each question (--no-format leaves it out): {plan.answer_format}"
    unread = [item for item in plan.items if item.epoch == 1 and _has_unread_answer(item)]
    if unread:
        answers = f"{plural(len(unread), 'answer')}, such as that of item {unread[0].id}"
        yield f"an `answer` is a text or a number: {answers}, cannot be compared"
    if plan.given:
        names = ", ".join(proposer.name or "" for proposer in plan.profile.layer(1))
        yield f"the first layer's answers are given: {names}"
    yield where(folder, folder.results.values(), "results")


def _has_unread_answer(item: Item) -> bool:
    told = item.fields.get("answer")
    return item.answer is None and told is not None and not isinstance(told, str)


def _summary_lines(plan: RunPlan, folder: RunFolder) -> list[str]:
    """A table of the arms, the failures, and what the whole run took."""
    from moa_cli.bench.run.journal import shortened_lines
    from moa_cli.core.conversation import Usage
    from moa_cli.core.money import cost_text
    from moa_cli.terminal.table import Column, table_lines
    from moa_cli.terminal.usage import spent_lines

    arms = [arm.name for arm in plan.arms()]
    by_arm = [[r for r in folder.results.values() if r.arm == arm] for arm in arms]
    usages = [sum((result.usage for result in results), Usage()) for results in by_arm]
    answered = [[r for r in results if r.error is None] for results in by_arm]
    failed = [[r for r in results if r.error is not None] for results in by_arm]
    costs = [cost_text(usage) if usage.calls else "$0" for usage in usages]
    journal = folder.journal
    columns = [
        Column("arm", arms, widest=40),
        Column("answered", [f"{len(results):,}" for results in answered], right=True),
        Column("failed", [f"{len(results):,}" for results in failed], right=True),
        Column("calls", [f"{usage.calls:,}" for usage in usages], right=True),
        Column("tokens in", [f"{u.prompt_tokens:,}" for u in usages], right=True, spare=2),
        Column("out", [f"{u.completion_tokens:,}" for u in usages], right=True, spare=1),
        Column("cost", costs, right=True),
        Column("s/item", [_seconds(results, journal) for results in answered]),
    ]
    lines = table_lines(columns, output_width())
    expected = len(plan.items) * len(arms)
    there = sum(map(len, by_arm))
    if there < expected:
        lines.append(f"partial: {there:,} of {expected:,}")
    lines += _failures([result for results in failed for result in results])
    lines += shortened_lines(folder.results.values())
    if journal.saved.calls:
        lines.append(f"{plural(journal.saved.calls, 'call')} came from the cache")
    if journal.spent.calls:
        spent = spent_lines({"spent in all": journal.spent})
        lines += [folded(line, sys.stdout) for line in spent]
    return lines


def _failures(failed: Sequence[Result]) -> Iterator[str]:
    for result in failed[:_MOST_NAMED]:
        why = result.error.message if result.error else ""
        yield one_line(f"failed: {result.arm}, item {result.item}: {why}")
    if len(failed) > _MOST_NAMED:
        names = ", ".join(f"{result.arm} {result.item}" for result in failed[_MOST_NAMED:])
        yield one_line(f"failed too: {names}", 2000)


def _seconds(results: Sequence[Result], journal: CallJournal) -> str:
    """The mean seconds that an item would take alone; see `path_seconds`."""
    from moa_cli.bench.run.journal import path_seconds

    if not results:
        return ""
    return f"{sum(path_seconds(result, journal) for result in results) / len(results):.1f}"
