"""What `moa bench export` does."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from moa_cli.bench.export.choice import ExportChoice, Exported
from moa_cli.bench.export.formats import FORMATS
from moa_cli.bench.run.reader import read_run
from moa_cli.cli.writing import check_free, check_name, destination
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import nearest
from moa_cli.terminal.tty import folded

__all__ = ["Options", "run"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was typed; None where nothing was."""

    format: str
    output: str | None
    arm: str | None
    base: str | None
    judge: str | None
    name: str | None
    strict: bool
    force: bool
    data: Path | None


def run(path: Path, options: Options) -> None:
    """Write the run's answers or judgements, and tell what is missing."""
    if options.format not in FORMATS:
        near = nearest(options.format, FORMATS)
        hint = f"did you mean `{near}`?" if near else f"there are {', '.join(FORMATS)}"
        raise UsageError(f"--to: there is no format `{options.format}`", hint=hint)
    for option, typed, where in (
        ("judge", options.judge, [name for name, form in FORMATS.items() if form.judged]),
        ("base", options.base, [name for name, form in FORMATS.items() if form.compares]),
    ):
        if typed is not None and options.format not in where:
            raise UsageError(f"--{option}: is of --to {', '.join(where)} only")
    choice = ExportChoice(
        read_run(path, options.data), options.judge, options.arm, options.base, options.name
    )
    made = FORMATS[options.format].write(choice)
    if made.missing == made.asked:
        raise BenchError(f"{path}: there is nothing to export")
    missing = f"{made.missing:,} of {made.asked:,} are missing (failed, or not done)"
    if made.missing and options.strict:
        raise BenchError(f"{missing}; nothing was written", hint="that is what --strict asks for")
    written = _write_folder(made, path, options) if made.folder else _write_file(made, options)
    if made.missing:
        _say(f"{missing} and left out")
    if written is not None:
        _say(f"wrote {written}")


def _write_file(made: Exported, options: Options) -> Path | None:
    """Write it under its usual name, or as typed; returns the path, None for standard output."""
    ((name, data),) = made.files.items()
    target = None if options.output == "-" else Path(name)
    if target is not None and options.output is not None:
        typed = paths.expand(options.output)
        target = typed / name if typed.is_dir() else typed
    with destination(target, force=options.force, error=BenchError) as file:
        file.write(data)
    return target


def _write_folder(made: Exported, path: Path, options: Options) -> Path:
    if options.output == "-":
        raise UsageError(f"--to {options.format}: is a folder", hint="-o names it")
    name = f"{path.resolve().name}-{options.format}"
    folder = paths.expand(options.output) if options.output else Path(name)
    check_name(folder)
    for name in made.files:
        check_name(folder / name)
        check_free(folder / name, force=options.force)
    try:
        paths.make_private(folder)
    except OSError as error:
        raise BenchError(f"{folder}: cannot be made: {error.strerror}") from None
    for name, data in made.files.items():
        with destination(folder / name, force=options.force, error=BenchError) as file:
            file.write(data)
    return folder


def _say(text: str) -> None:
    sys.stderr.write(folded(f"moa: {one_line(text)}", sys.stderr) + "\n")
    sys.stderr.flush()
