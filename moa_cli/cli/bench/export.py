"""`moa bench export`: a run's answers or judgements in the upstream evaluators' formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moa_cli.cli.bench.options import judge_option
from moa_cli.cli.options import Data, RunFolder
from moa_cli.cli.output import say
from moa_cli.cli.writing import destination
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.files.new_file import check_free, check_name
from moa_cli.core.text import meant, plural

if TYPE_CHECKING:
    from moa_cli.bench.export.formats import Exported


def export(
    run: RunFolder,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="What to write: alpaca, mt, flask, arena, moa (a folder), jsonl, mt-judgments,"
            " flask-reviews, or arena-judgments.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="The file, or a folder for it; - is standard output. By default, the name that"
            " upstream uses.",
        ),
    ] = None,
    arm: Annotated[
        str | None,
        typer.Option(
            "--arm",
            metavar="ARM",
            help="The arm whose answers are written; by default, the mixture.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="ARM", help="With `--to moa`: the arm to compare with."),
    ] = None,
    judge: Annotated[
        str | None,
        judge_option("The judge whose judgements are written; by default, the only judge."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="The arm's name in the output; by default, the name of the profile or the model.",
        ),
    ] = None,
    epoch: Annotated[
        int | None,
        typer.Option(
            "--epoch",
            metavar="K",
            min=1,
            help="Write the answers of this epoch (see `moa bench run --epochs`); only jsonl"
            " holds several answers to an item.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Write nothing if anything is missing (exit code 1)."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
    data: Data = None,
) -> None:
    """Write a run's answers or judgements in the upstream evaluators' formats."""
    from moa_cli.bench.export.formats import FORMATS, ExportChoice
    from moa_cli.bench.run.folder import read_run

    if to not in FORMATS:
        raise UsageError(f"--to: there is no format `{to}`", hint=meant(to, FORMATS))
    judged = [name for name, form in FORMATS.items() if form.judged]
    compares = [name for name, form in FORMATS.items() if form.compares]
    for option, typed, where in (("judge", judge, judged), ("base", base, compares)):
        if typed is not None and to not in where:
            raise UsageError(f"--{option} goes only with --to {', '.join(where)}")
    reader = read_run(run, data)
    _check_epoch(reader.settings.epochs, epoch, to, several=FORMATS[to].epochs)
    made = FORMATS[to].write(ExportChoice(reader, judge, arm, base, name, epoch))
    if made.missing == made.asked:
        raise BenchError(f"{run}: there is nothing to export")
    missing = f"{made.missing:,} of {made.asked:,} are missing (failed, or not done)"
    if made.missing and strict:
        raise BenchError(
            f"{missing}; nothing was written", hint="--strict writes nothing if anything is missing"
        )
    if made.folder and output == "-":
        raise UsageError(f"--to {to} writes a folder", hint="-o names it")
    if made.folder:
        written: Path | None = _write_folder(made, f"{run.resolve().name}-{to}", output, force)
    else:
        written = _write_file(made, output, force)
    if made.missing:
        say(f"{missing} and left out")
    if written is not None:
        say(f"wrote {written}")


def _check_epoch(there: int, typed: int | None, to: str, *, several: bool) -> None:
    """Raise UsageError if the run has no such epoch, or one must be chosen.

    there: how many epochs the run has. several: whether the format can have several answers to an
    item.
    """
    if typed is not None and typed > there:
        raise UsageError(f"--epoch {typed}: the run has {plural(there, 'epoch')}")
    if typed is None and there > 1 and not several:
        raise UsageError(
            f"--epoch is needed: --to {to} holds one answer to an item, and the run has"
            f" {plural(there, 'epoch')}",
            hint="--to jsonl holds them all",
        )


def _write_file(made: Exported, output: str | None, force: bool) -> Path | None:
    """Write the export under its usual name, or the typed one. Returns the path; None for standard
    output."""
    ((name, data),) = made.files.items()
    target = None if output == "-" else Path(name)
    if target is not None and output is not None:
        typed = paths.expand(output)
        target = typed / name if typed.is_dir() else typed
    with destination(target, force=force, error=BenchError) as file:
        file.write(data)
    return target


def _write_folder(made: Exported, usual: str, output: str | None, force: bool) -> Path:
    folder = paths.expand(output or usual)
    check_name(folder)
    for name in made.files:
        check_name(folder / name)
        check_free(folder / name, force=force)
    try:
        paths.make_private(folder)
    except OSError as error:
        raise BenchError(f"{folder}: cannot be made: {error.strerror}") from None
    for name, data in made.files.items():
        with destination(folder / name, force=force, error=BenchError) as file:
            file.write(data)
    return folder
