"""`moa bench`: the paper's evaluation, on one's own models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moa_cli.cli.bench.options import (
    Arms,
    Best,
    Data,
    DatasetName,
    ExportArm,
    ExportBase,
    ExportFormat,
    ExportJudge,
    ExportName,
    ExportPath,
    Folder,
    Limit,
    MaxCost,
    Parity,
    ProviderConcurrency,
    ReferencePaths,
    ReportFormat,
    RunFolder,
    Runs,
    Strict,
    Yes,
    arm_names,
)
from moa_cli.cli.options import Concurrency, Live, takes_profile
from moa_cli.profile import Profile


def list_(
    data: Data = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the datasets, and where their files are."""
    from moa_cli.cli.bench import list as bench_list

    bench_list.run(data, json=json)


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="alpaca, mt, flask, gsm8k, or all.")],
    data: Data = None,
) -> None:
    """Fetch a public dataset at a fixed commit; only what is missing, and checked."""
    from moa_cli.cli.bench import fetch as bench_fetch

    raise typer.Exit(bench_fetch.run(name, data))


@takes_profile
def run(
    profile: Profile,
    concurrency: int | None,
    dataset: DatasetName,
    limit: Limit = None,
    arms: Arms = "mixture",
    best: Best = None,
    parity: Parity = False,
    reference_paths: ReferencePaths = None,
    provider_concurrency: ProviderConcurrency = None,
    max_cost: MaxCost = None,
    yes: Yes = False,
    data: Data = None,
    output: Folder = None,
    live: Live = None,
) -> None:
    """Answer a dataset's items; the same command goes on where it was stopped."""
    from moa_cli.cli.bench import run as bench_run

    options = bench_run.Options(
        dataset=dataset,
        limit=limit,
        arms=arm_names(arms),
        best=best,
        parity=parity,
        reference_paths=tuple(reference_paths or ()),
        concurrency=concurrency,
        provider_concurrency=provider_concurrency,
        max_cost=max_cost,
        yes=yes,
        data=data,
        output=output,
        live=live,
    )
    raise typer.Exit(bench_run.run(profile, options))


def judge(
    run: RunFolder,
    judge: Annotated[str, typer.Option("--judge", metavar="MODEL", help="The model that judges.")],
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="FILE",
            help="Model outputs to compare with, matched by instruction; else the dataset's.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="ARM", help="Compare with this arm of the run instead."),
    ] = None,
    anchors: Annotated[
        list[Path] | None,
        typer.Option(
            "--anchors",
            metavar="FILE",
            help="Judge these released outputs too, so that the judge's scale can be read;"
            " repeatable.",
        ),
    ] = None,
    concurrency: Concurrency = None,
    provider_concurrency: ProviderConcurrency = None,
    max_cost: MaxCost = None,
    yes: Yes = False,
    data: Data = None,
    live: Live = None,
) -> None:
    """Let a model judge a run's replies; the same command goes on where it was stopped."""
    from moa_cli.bench.judge.judging import JudgeInputs
    from moa_cli.cli.bench import judge as bench_judge

    inputs = JudgeInputs(
        reference=reference, against=against, anchors=tuple(anchors or ()), data=data
    )
    options = bench_judge.Options(
        run=run,
        judge=judge,
        inputs=inputs,
        concurrency=concurrency,
        provider_concurrency=provider_concurrency,
        max_cost=max_cost,
        yes=yes,
        live=live,
    )
    raise typer.Exit(bench_judge.run(options))


def export(
    run: RunFolder,
    to: ExportFormat,
    output: ExportPath = None,
    arm: ExportArm = None,
    base: ExportBase = None,
    judge: ExportJudge = None,
    name: ExportName = None,
    strict: Strict = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
    data: Data = None,
) -> None:
    """Write a run's answers or judgements in the upstream evaluators' formats."""
    from moa_cli.cli.bench import export as bench_export

    options = bench_export.Options(
        format=to,
        output=output,
        arm=arm,
        base=base,
        judge=judge,
        name=name,
        strict=strict,
        force=force,
        data=data,
    )
    bench_export.run(run, options)


def report(
    runs: Runs,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge", metavar="MODEL", help="Whose judgements; else the run's only judge."
        ),
    ] = None,
    form: ReportFormat = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to a file, not to the screen."),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published/--no-published",
            help="Whether the MoA paper's figures follow, in a block of their own.",
        ),
    ] = True,
    official: Annotated[
        bool,
        typer.Option(
            "--official",
            help="Also alpaca_eval's own length-controlled win rates (extra `alpaca`).",
        ),
    ] = False,
    data: Data = None,
) -> None:
    """Print what runs came to: scores with standard errors, cost and time."""
    from moa_cli.cli.bench import report as bench_report

    options = bench_report.Options(judge, data, form, output, published, official)
    bench_report.run(runs, options)


def analyse(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="MODEL",
            help="Whose judgements; else known answers, else the run's only judge.",
        ),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            "--control",
            metavar="ARM|FILE",
            help="Answers that never saw the proposals: an arm of the run, or a file of model"
            " outputs; else the aggregator's model alone.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to a file, not to the screen."),
    ] = None,
    data: Data = None,
) -> None:
    """Tell what a mixture made of its proposals: likeness, agreement, layers, time and cost."""
    from moa_cli.cli.bench import analyse as bench_analyse

    bench_analyse.run(run, judge=judge, control=control, data=data, json=json, output=output)


def select(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of runs.")],
    k: Annotated[
        int | None,
        typer.Option("-k", metavar="K", min=1, help="How many proposers; else 3, if there are."),
    ] = None,
    weights: Annotated[
        str, typer.Option("--weights", metavar="A:B", help="Of quality and of diversity.")
    ] = "2:1",
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="MODEL",
            help="Whose judgements; else known answers, else the runs' only judge.",
        ),
    ] = None,
    write: Annotated[
        str | None,
        typer.Option("--write", metavar="NAME|FILE", help="Write the mixture as a profile."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a profile of that name.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: Data = None,
) -> None:
    """Choose proposers by quality and diversity, and an aggregator, from runs with `single`."""
    from moa_cli.cli.bench import select as bench_select

    bench_select.run(
        runs, k=k, weights=weights, judge=judge, data=data, write=write, force=force, json=json
    )
