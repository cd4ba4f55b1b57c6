"""`moa bench items`: the items of runs one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moa_cli.cli.bench.options import CountedJudge
from moa_cli.cli.options import Data, OutputFile
from moa_cli.cli.output import say
from moa_cli.cli.writing import put
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text import meant

_PAGES = (".html", ".htm")


def items(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of runs.")],
    judge: CountedJudge = None,
    arm: Annotated[
        list[str] | None,
        typer.Option("--arm", metavar="NAME", help="Only items of this arm; repeatable."),
    ] = None,
    wrong: Annotated[
        bool,
        typer.Option("--wrong", help="Only replies that are wrong, give no answer, or failed."),
    ] = False,
    output: OutputFile = None,
    data: Data = None,
) -> None:
    """Print each item with its proposals, reply, verdict and cost; -o FILE.html is a page."""
    from moa_cli.bench.report.items import ItemRow, json_lines, page, rows_of
    from moa_cli.bench.report.values import read_valued

    rows: list[ItemRow] = []
    for folder in runs:
        valued = read_valued(folder, judge, data)
        for note in valued.notes:
            say(note)
        known = valued.run.settings.arms
        for name in arm or ():
            if name not in known:
                raise UsageError(f"{folder}: has no arm `{name}`", hint=meant(name, known))
        name = folder.resolve().name if len(runs) > 1 else ""
        rows += rows_of(name, valued, arm or ())
    if wrong:
        if not any(row.expected is not None for row in rows):
            raise UsageError("--wrong needs items with a known answer", hint="there are none")
        rows = [row for row in rows if row.outcome in ("wrong", "unanswered", "failed")]
    as_page = output is not None and output.suffix.lower() in _PAGES
    put("".join(page(rows) if as_page else json_lines(rows)), output, BenchError)
