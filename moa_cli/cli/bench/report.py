"""What `moa bench report` does."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from moa_cli.bench.report.official import with_official
from moa_cli.bench.report.scores import Scores, scores_of
from moa_cli.bench.report.sections import ReportSection, TextTable, published_table, sections_of
from moa_cli.bench.run.reader import read_run
from moa_cli.cli.writing import put
from moa_cli.core.errors import BenchError, UsageError

if TYPE_CHECKING:
    from moa_cli.terminal.table import Column

__all__ = ["FORMATS", "Options", "run"]

Format = Literal["table", "markdown", "json", "csv", "html"]
FORMATS: tuple[Format, ...] = ("table", "markdown", "json", "csv", "html")
_SUFFIXES: dict[str, Format] = {
    ".md": "markdown",
    ".json": "json",
    ".csv": "csv",
    ".html": "html",
    ".htm": "html",
}
# In a pipe nothing is wrapped.
_UNBOUND = 10_000
_GAP = 2
_LEAST_NAME = 12


@dataclass(frozen=True)
class Options:
    """judge: a model; else each run's only one. data: the datasets' folder. form: of FORMATS; else
    by the file's ending, else a table. output: a file; else the screen. published: whether the
    paper's figures follow. official: whether alpaca_eval's own do."""

    judge: str | None
    data: Path | None
    form: str | None
    output: Path | None
    published: bool
    official: bool


def run(folders: Sequence[Path], options: Options) -> None:
    """Print the report of these runs, or write it to a file. Raises UsageError, BenchError."""
    output = options.output
    form = _format(options.form, output)
    runs = [scores_of(one, options.judge or _only_judge(one), options.data) for one in folders]
    if options.official:
        runs = [with_official(one, options.data) for one in runs]
    text = "".join(_written(form, runs, output is None, published=options.published))
    put(text, output, BenchError)


def _format(form: str | None, output: Path | None) -> Format:
    if form is None:
        return _SUFFIXES.get(output.suffix.lower(), "table") if output else "table"
    for one in FORMATS:
        if one == form:
            return one
    raise UsageError(f"--format: there is no `{form}`", hint=f"there are {', '.join(FORMATS)}")


def _only_judge(folder: Path) -> str | None:
    """The judge of a run that has one; None if it has none. Raises BenchError for several."""
    models = list(read_run(folder).judges)
    if len(models) > 1:
        raise BenchError(
            f"{folder}: has several judges: {', '.join(models)}", hint="--judge names one"
        )
    return models[0] if models else None


def _written(
    form: Format, runs: Sequence[Scores], screen: bool, *, published: bool
) -> Iterator[str]:
    sections = sections_of(runs)
    if form == "html":
        from moa_cli.bench.report.writers import page

        yield from page(sections, published=published)
    elif form == "table":
        yield from _lines(sections, _width() if screen else _UNBOUND, published=published)
    else:
        from moa_cli.bench.report import writers

        if form == "markdown":
            yield writers.markdown(sections, published=published)
        elif form == "json":
            yield writers.json_text(runs, sections, published=published)
        else:
            yield writers.csv_text(runs)


def _width() -> int:
    from moa_cli.terminal.tty import columns_of

    return columns_of(sys.stdout) or _UNBOUND


def _lines(sections: Sequence[ReportSection], width: int, *, published: bool) -> Iterator[str]:
    from moa_cli.core.sanitize import one_line

    before = ""
    for section in sections:
        yield f"{before}{one_line(section.dataset)}\n"
        before = "\n\n"
        for table in section.tables:
            yield "\n"
            yield from _table(table, width)
        if section.notes:
            yield "\n"
            for note in section.notes:
                yield from _note(note, width, "- ")
        if published and section.published:
            yield f"\n\n{section.dataset}: published figures\n"
            for one in section.published:
                yield "\n"
                yield from _table(published_table(one), width)


def _table(table: TextTable, width: int) -> Iterator[str]:
    """The table; as many times its first columns as it takes to show all others."""
    from moa_cli.terminal.table import Column, table_lines

    yield from _note(table.title, width)
    columns = [
        Column(head, [row[place] for row in table.rows], right=place >= table.keys, widest=width)
        for place, head in enumerate(table.heads)
    ]
    keys, others = columns[: table.keys], columns[table.keys :]
    needed = [_wide(one) + _GAP for one in others]
    if sum(needed) + sum(_wide(one) + _GAP for one in keys) > width + _GAP:
        # Names give way: to a third of the width, and to the widest number.
        room = max(width // 3, _LEAST_NAME) if len(keys) == 1 else width // 2
        most = min(room, width - max(needed, default=0)) // len(keys) - _GAP
        most = max(most, _LEAST_NAME)
        keys = [Column(one.head, _shortened(one.cells, most), widest=most) for one in keys]
    free = width + _GAP - sum(_wide(one) + _GAP for one in keys)
    for number, group in enumerate(_groups(needed, free)):
        yield "\n" * bool(number)
        # The last column takes what is left; so it is an empty one.
        shown = [*keys, *(others[one] for one in group), Column("", [""] * len(table.rows))]
        yield from (f"{one}\n" for one in table_lines(shown, width))
    for note in table.notes:
        yield from _note(note, width)


def _wide(column: Column) -> int:
    from moa_cli.core.sanitize import one_line
    from moa_cli.terminal.cells import cell_len

    longest = max(cell_len(one_line(one)) for one in (column.head, *column.cells))
    return min(longest, column.widest)


def _shortened(names: Sequence[str], most: int) -> Sequence[str]:
    """Names of at most `most` characters that tell apart what the whole ones do, if they can."""
    if max(map(len, names), default=0) <= most:
        return names
    for shorten in (_without_provider, _model, lambda name: _cut(_model(name), most)):
        short = [shorten(one) for one in names]
        if len(set(short)) == len(set(names)) and max(map(len, short)) <= most:
            return short
    return names


def _without_provider(arm: str) -> str:
    """`single:together:Qwen/Qwen2-72B` as `single:Qwen2-72B`."""
    from moa_cli.profile import short_name

    kind, colon, model = arm.partition(":")
    return f"{kind}:{short_name(model)}" if colon else arm


def _model(arm: str) -> str:
    return _without_provider(arm).removeprefix("single:")


def _cut(name: str, most: int) -> str:
    """Models of one family differ at their ends."""
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}…{name[len(name) - end :]}"


def _groups(needed: Sequence[int], room: int) -> Iterator[list[int]]:
    """The places of columns that fit beside each other; one at least."""
    group: list[int] = []
    used = 0
    for place, taken in enumerate(needed):
        if group and used + taken > room:
            yield group
            group, used = [], 0
        group.append(place)
        used += taken
    if group:
        yield group


def _note(text: str, width: int, mark: str = "") -> Iterator[str]:
    """A sentence, folded at the width."""
    from moa_cli.cli.bench.cells import noted

    yield from (f"{one}\n" for one in noted([text], width, mark))
