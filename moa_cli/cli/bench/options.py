"""Options that several commands of `moa bench`, and those like them, have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moa_cli.cli.options import max_cost_option
from moa_cli.core.errors import UsageError

__all__ = [
    "Arms",
    "Best",
    "Data",
    "DatasetName",
    "ExportArm",
    "ExportBase",
    "ExportFormat",
    "ExportJudge",
    "ExportName",
    "ExportPath",
    "Folder",
    "Limit",
    "MaxCost",
    "Parity",
    "ProviderConcurrency",
    "ReferencePaths",
    "ReportFormat",
    "RunFolder",
    "Runs",
    "Strict",
    "Yes",
    "arm_names",
]

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="Where datasets are; else MOA_BENCH_DATA, else the cache folder.",
    ),
]
DatasetName = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE.jsonl",
        help="A dataset (see `moa bench list`), or your own lines of {prompt, answer?}.",
    ),
]
Limit = Annotated[
    int | None, typer.Option("-n", "--limit", metavar="N", min=1, help="The first N items only.")
]
Arms = Annotated[
    str,
    typer.Option(
        "--arms",
        metavar="NAMES",
        help="What answers, by commas: mixture, self (Self-MoA: one proposer in the place of all),"
        " single (each model alone).",
    ),
]
Best = Annotated[
    str | None,
    typer.Option(
        "--best", metavar="MODEL", help="The proposer that Self-MoA samples; else the first."
    ),
]
Parity = Annotated[
    bool,
    typer.Option("--parity", help="The settings of the authors' scripts (alpaca, flask, mt)."),
]
ReferencePaths = Annotated[
    list[Path] | None,
    typer.Option(
        "--reference-paths",
        metavar="FILE",
        help="Take the first layer's answers from such files of model outputs; repeatable.",
    ),
]
ProviderConcurrency = Annotated[
    int | None,
    typer.Option(
        "--provider-concurrency", metavar="N", min=1, help="Calls in flight to one provider."
    ),
]
MaxCost = Annotated[
    float | None,
    max_cost_option("Most that the whole run may cost, all its sessions together."),
]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask before anything is sent.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FOLDER",
        help="The run's folder; else runs/NAME-PROFILE. The same command goes on there.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
Runs = Annotated[
    list[Path], typer.Argument(metavar="RUN…", help="Folders of runs, to stand side by side.")
]
ReportFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="What to print: table, markdown, json, csv or html; else by the file's ending, else"
        " a table.",
    ),
]
ExportFormat = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="FORMAT",
        help="What to write: alpaca, mt, mt-judgments, flask, flask-reviews, moa (a folder), or"
        " jsonl.",
    ),
]
ExportPath = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        help="The file, or a folder for it; - for standard output. Else as upstream calls it.",
    ),
]
ExportArm = Annotated[
    str | None, typer.Option("--arm", metavar="ARM", help="Whose answers; else the mixture's.")
]
ExportBase = Annotated[
    str | None,
    typer.Option("--base", metavar="ARM", help="With `moa`: whom it is compared with."),
]
ExportJudge = Annotated[
    str | None,
    typer.Option("--judge", metavar="MODEL", help="Whose judgements; else the only judge's."),
]
ExportName = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="What the arm is called there; else as the profile or the model is.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Write nothing if anything is missing (exit code 1).")
]


def arm_names(typed: str) -> tuple[str, ...]:
    """Raises UsageError for an unknown one."""
    from moa_cli.bench.run.arms import ARMS

    names = [one.strip() for one in typed.split(",") if one.strip()]
    unknown = [one for one in names if one not in ARMS]
    if unknown or not names:
        raise UsageError(
            f"--arms: there is no arm `{unknown[0] if unknown else ''}`",
            hint=f"there are {', '.join(ARMS)}",
        )
    return tuple(one for one in ARMS if one in names)
