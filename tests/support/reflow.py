"""A simulated terminal whose window changes its size, by the rules of different terminals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pyte.screens import Char
from wcwidth import wcwidth

from tests.support.scrolling import Scrolling

__all__ = ["Reflowing", "Rules"]

# tmux folds and joins rows, and scrolls by as many as there are more, also if the screen is empty
# below. Windows Terminal keeps what is there where it was as long as it fits. xterm cuts rows off.
Rules = Literal["tmux", "windows", "xterm"]


@dataclass
class _Line:
    """A line as it was written. row: the first of its rows, counted from the oldest. cursor: at
    which of its cells the cursor stands."""

    cells: list[Char]
    row: int
    cursor: int | None = None


class Reflowing(Scrolling):
    """A screen that knows which rows it has folded itself."""

    def __init__(self, columns: int, lines: int, history: int = 10_000) -> None:
        self._drawing = False
        super().__init__(columns, lines, history=history)

    def draw(self, data: str) -> None:
        self._drawing = True
        super().draw(data)
        self._drawing = False

    def linefeed(self) -> None:
        _mark(self.buffer[self.cursor.y], folded=self._drawing)
        super().linefeed()

    def erase_in_line(self, how: int = 0, private: bool = False) -> None:
        super().erase_in_line(how, private)
        _mark(self.buffer[self.cursor.y], folded=False)

    def all_rows(self) -> list[str]:
        """Scrollback and screen, without spaces at the ends of rows, without empty rows at the
        end."""
        rows = ["".join(char.data for char in self._cells(row)) for row in self._stored()]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def change_size(self, columns: int, rows: int, rules: Rules) -> None:
        """As the user pulls at the window's corner."""
        if rules == "xterm":
            lost = max(0, self.cursor.y - rows + 1)
            for _ in range(lost):
                self.history.top.append(self.buffer[0])
                for number in range(self.lines - 1):
                    self.buffer[number] = self.buffer[number + 1]
                self.buffer.pop(self.lines - 1, None)
            self._put(self._screen_rows()[:rows], columns, rows, self.cursor.y - lost)
            self.cursor.x = min(self.cursor.x, columns - 1)
            return
        stored = self._stored()
        place = len(self.history.top) + self.cursor.y
        top = len(self.history.top)
        if rules == "tmux":
            if rows < self.lines:
                below = len(stored) - 1 - place
                del stored[len(stored) - min(below, self.lines - rows) :]
            else:
                pulled = min(rows - self.lines, top)
                stored += [{} for _ in range(rows - self.lines - pulled)]
        else:
            while len(stored) - 1 > place and not self._cells(stored[-1]):
                stored.pop()
        folded: list[list[Char]] = []
        new_place, new_x, new_top = 0, 0, 0
        for line in self._lines(stored, place):
            pieces = _folded(line.cells, columns)
            if line.row <= top:
                new_top = len(folded)
            if line.cursor is not None:
                new_place = len(folded) + min(line.cursor // columns, len(pieces) - 1)
                new_x = min(line.cursor - columns * (line.cursor // columns), columns - 1)
            folded += pieces
        first = max(0, len(folded) - rows)
        if rules == "windows":
            first = max(first, min(new_top, new_place))
        self.history.top.clear()
        self.history.top.extend(_row(cells) for cells in folded[:first])
        inside = new_place >= first
        self._put(
            [_row(cells) for cells in folded[first:]],
            columns,
            rows,
            new_place - first if inside else 0,
        )
        self.cursor.x = new_x if inside else 0

    def _put(self, rows: list[Any], columns: int, lines: int, place: int) -> None:
        self.columns, self.lines = columns, lines
        self.buffer.clear()
        for number, row in enumerate(rows[:lines]):
            target = self.buffer[number]
            target.update({x: char for x, char in row.items() if x < columns})
            _mark(target, folded=getattr(row, "folded", False))
        self.margins = None
        self.dirty.update(range(lines))
        self.cursor.y = max(0, min(place, lines - 1))

    def _screen_rows(self) -> list[Any]:
        return [self.buffer[number] for number in range(self.lines)]

    def _stored(self) -> list[Any]:
        return [*self.history.top, *self._screen_rows()]

    def _cells(self, row: Any, *, whole: bool = False) -> list[Char]:
        """The cells of a row, up to the last that is not empty if not `whole`."""
        cells = [row.get(x, self.default_char) for x in range(self.columns)]
        while not whole and cells and cells[-1].data in (" ", "") and cells[-1].bg == "default":
            cells.pop()
        return cells

    def _lines(self, rows: Iterable[Any], place: int) -> Iterator[_Line]:
        line: _Line | None = None
        for number, row in enumerate(rows):
            cells = self._cells(row, whole=getattr(row, "folded", False))
            line = line or _Line([], number)
            if number == place:
                line.cursor = len(line.cells) + min(self.cursor.x, self.columns - 1)
            line.cells += cells
            if not getattr(row, "folded", False):
                yield line
                line = None
        if line is not None:
            yield line


class _Row(dict[int, Char]):
    """A row of cells, by column. folded: whether the line goes on in the next row."""

    folded = False


def _mark(row: Any, *, folded: bool) -> None:
    row.folded = folded


def _row(cells: list[Char]) -> Any:
    row = _Row(enumerate(cells))
    row.folded = bool(cells) and cells[-1] is _FOLD
    if row.folded:
        del row[len(cells) - 1]
    return row


_FOLD = Char("")


def _folded(cells: list[Char], columns: int) -> list[list[Char]]:
    """The rows of a line; `_FOLD` ends those that go on."""
    rows: list[list[Char]] = [[]]
    for number, char in enumerate(cells):
        wide = bool(char.data) and wcwidth(char.data[0]) == 2
        stub = not char.data and number > 0 and wcwidth((cells[number - 1].data or " ")[0]) == 2
        if not stub and len(rows[-1]) + 1 + wide > columns:
            rows[-1].append(_FOLD)
            rows.append([])
        rows[-1].append(char)
    return rows
