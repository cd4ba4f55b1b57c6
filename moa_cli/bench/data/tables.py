"""Tables of text, CSV and TSV, whose first row, the head, names the columns.

Cells are separated by tabs if the file's name says so, or else by the sign in a line `sep=;` before
the head, which some programs write for Excel, or else by the most frequent of these in the head: a
comma, a semicolon, which spreadsheets write in many languages, or a tab. A column without a name is
called "". Spreadsheets leave such columns, which are mostly empty.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from moa_cli.bench.data.items import DataRow, text_in
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text import plural

_LINE_END = re.compile(r"[\r\n]")
_QUOTED = re.compile(r'"[^"]*"?')
_SEPARATOR = re.compile(r"sep=(.)(?=[\r\n])")
_LONGEST_CELL = 2**31 - 1


def delimiter_of(text: str, *, tabs: bool) -> str:
    """What separates the cells of a table. text: its beginning, with the head. tabs: whether the
    file's name says that it is a tab."""
    told = _SEPARATOR.match(text)
    if tabs or told:
        return told[1] if told else "\t"
    head = _QUOTED.sub("", _LINE_END.split(text, maxsplit=1)[0])
    return max(",;\t", key=head.count)


class CellRows:
    """The cells of each row of a table that is not blank, after the number of its first line.

    lines: with their line ends. number: that of the row that is read now. Iterating raises
    BenchError, naming file and line, if a row is wrong.
    """

    def __init__(self, name: str, lines: Iterable[str], delimiter: str, number: int = 1) -> None:
        # Python's default limit of 131,072 characters is too low for a cell with a long text.
        csv.field_size_limit(_LONGEST_CELL)
        self._name, self._first, self.number = name, number, number
        self._rows = csv.reader(lines, delimiter=delimiter, strict=True)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        while True:
            self.number = self._first + self._rows.line_num
            try:
                cells = next(self._rows, None)
            except csv.Error as error:
                raise BenchError(f"{self._name}:{self.number}: is no row: {error}") from None
            if cells is None:
                return
            if any(cells) and not (self.number == 1 and cells == ["sep=", ""]):
                yield self.number, cells


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
    rows = iter(CellRows(str(path), io.StringIO(text, newline=""), delimiter))
    _, names = next(rows, (0, []))
    check_names(str(path), names)
    for number, cells in rows:
        yield row_of_cells(f"{path}:{number}", number, names, cells)
