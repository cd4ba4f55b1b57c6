"""Tables of text, CSV and TSV, whose first row, the head, names the columns.

Cells are separated by tabs if the file's name says so, or else by the first of these that the head
contains: a comma, a semicolon, which spreadsheets write in many languages, or a tab. A column
without a name is called "". Spreadsheets leave such columns, which are mostly empty.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moa_cli.bench.data.items import DataRow, text_in
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text import plural

if TYPE_CHECKING:
    from _csv import Reader

_LINE_END = re.compile(r"[\r\n]")
_LONGEST_CELL = 2**31 - 1


def delimiter_of(text: str, *, tabs: bool) -> str:
    """What separates the cells of a table. text: its beginning, with the head. tabs: whether the
    file's name says that it is a tab."""
    head = _LINE_END.split(text, maxsplit=1)[0]
    return "\t" if tabs else next((sign for sign in ",;\t" if sign in head), ",")


def cell_reader(lines: Iterable[str], delimiter: str) -> Reader:
    """A reader of the cells of each row. lines: with their line ends."""
    # Python's default limit of 131,072 characters is too low for a cell with a long text.
    csv.field_size_limit(_LONGEST_CELL)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def check_names(name: str, columns: Iterable[str]) -> None:
    """Raise UsageError if two columns of a file have the same name: one would hide the other."""
    twice = [column for column, times in Counter(filter(None, columns)).items() if times > 1]
    if twice:
        raise UsageError(f"{name}: two columns are called `{twice[0]}`")


def row_of_cells(place: str, number: int, names: Sequence[str], cells: Sequence[str]) -> DataRow:
    """The row with these cells. Raises BenchError, naming the line, if it has more or fewer cells
    than the head."""
    if len(cells) != len(names):
        raise BenchError(f"{place}: has {plural(len(cells), 'cell')}, and the head {len(names)}")
    named = [(name, cell) for name, cell in zip(names, cells, strict=True) if name or cell]
    if sum(not name for name, _ in named) > 1:
        raise BenchError(f"{place}: has several cells below columns without a name")
    return DataRow(place, number, dict(named))


def rows_of_table(path: Path) -> Iterator[DataRow]:
    """The rows of a table that are not blank; the number of each is that of its first line.

    Raises BenchError, naming file and line, or UsageError if the file is not text or two columns
    have the same name.
    """
    text = text_in(path)
    delimiter = delimiter_of(text, tabs=path.suffix.lower() == ".tsv")
    rows = cell_reader(io.StringIO(text, newline=""), delimiter)
    names: list[str] = []
    while True:
        number = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            raise BenchError(f"{path}:{number}: is no row: {error}") from None
        if cells is None:
            return
        if not any(cells):
            continue
        if names:
            yield row_of_cells(f"{path}:{number}", number, names, cells)
        else:
            check_names(str(path), cells)
            names = cells
