"""`moa bench report`: the results of runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from moa_cli.cli.bench.options import judge_option
from moa_cli.cli.options import Data, OutputFile
from moa_cli.cli.output import output_width
from moa_cli.cli.writing import put
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.sanitize import one_line

if TYPE_CHECKING:
    from moa_cli.bench.report.scores import Scores
    from moa_cli.bench.report.sections import ReportSection, TextTable

Format = Literal["table", "markdown", "json", "csv", "html"]
_FORMATS: tuple[Format, ...] = get_args(Format)
_SUFFIXES: dict[str, Format] = {
    ".md": "markdown",
    ".json": "json",
    ".csv": "csv",
    ".html": "html",
    ".htm": "html",
}
# The width without a terminal, in cells. It is large, so that nothing is wrapped in a pipe.
_UNBOUND = 10_000


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", help="Folders of runs, to show side by side."),
    ],
    judge: Annotated[
        str | None,
        judge_option("The judge whose judgements count; by default, the run's only judge."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="The format: table, markdown, json, csv or html; by default, the file's ending"
            " decides, otherwise a table.",
        ),
    ] = None,
    output: OutputFile = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published/--no-published",
            help="Whether to add the MoA paper's figures, in a separate block.",
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
    """Print the results of runs: scores with standard errors, cost and time."""
    from moa_cli.bench.report.official import with_official
    from moa_cli.bench.report.scores import scores_of

    chosen = _format(form, output)
    scores = [scores_of(folder, judge or only_judge(folder), data) for folder in runs]
    if official:
        scores = [with_official(run, data) for run in scores]
    put("".join(_written(chosen, scores, output is None, published=published)), output, BenchError)


def _format(form: str | None, output: Path | None) -> Format:
    if form is None:
        return _SUFFIXES.get(output.suffix.lower(), "table") if output else "table"
    for known in _FORMATS:
        if known == form:
            return known
    raise UsageError(f"--format: there is no `{form}`", hint=f"there are {', '.join(_FORMATS)}")


def only_judge(folder: Path) -> str | None:
    """The only judge of a run; None if it has none. Raises BenchError if it has several."""
    from moa_cli.bench.run.folder import read_run

    models = list(read_run(folder).judges)
    if len(models) > 1:
        raise BenchError(
            f"{folder}: has several judges: {', '.join(models)}", hint="--judge names one"
        )
    return models[0] if models else None


def _written(
    form: Format, runs: Sequence[Scores], screen: bool, *, published: bool
) -> Iterator[str]:
    from moa_cli.bench.report import writers
    from moa_cli.bench.report.sections import sections_of

    sections = sections_of(runs)
    if form == "table":
        width = output_width(_UNBOUND) if screen else _UNBOUND
        yield from _lines(sections, width, published=published)
    elif form == "html":
        yield from writers.page(sections, published=published)
    elif form == "markdown":
        yield writers.markdown(sections, published=published)
    elif form == "json":
        yield writers.json_text(runs, sections, published=published)
    else:
        yield writers.csv_text(runs, sections)


def _lines(sections: Sequence[ReportSection], width: int, *, published: bool) -> Iterator[str]:
    from moa_cli.bench.report.sections import published_table

    before = ""
    for section in sections:
        yield f"{before}{one_line(section.dataset)}\n"
        before = "\n\n"
        for told in section.conclusions:
            yield from _note(told, width, "= ")
        for table in section.tables:
            yield "\n"
            yield from _table(table, width)
        if section.notes:
            yield "\n"
            for note in section.notes:
                yield from _note(note, width, "- ")
        if published and section.published:
            yield f"\n\n{section.dataset}: published figures\n"
            for figures in section.published:
                yield "\n"
                yield from _table(published_table(figures), width)


def _table(table: TextTable, width: int) -> Iterator[str]:
    from moa_cli.cli.bench.cells import columns_of, split_table

    yield from _note(table.title, width)
    lines = split_table(columns_of(table, width), width, table.keys)
    yield from (f"{line}\n" for line in lines)
    for note in table.notes:
        yield from _note(note, width)


def _note(text: str, width: int, mark: str = "") -> Iterator[str]:
    """A sentence, folded at the width."""
    from moa_cli.cli.bench.cells import noted

    yield from (f"{line}\n" for line in noted([text], width, mark))
