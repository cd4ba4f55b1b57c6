"""Texts that fit a number of terminal cells (a character takes none, one or two), and tables.

Only this file imports `rich.cells`, because Rich does not document it. Other modules import
`cell_len` and `set_cell_size` from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len as cell_len
from rich.cells import set_cell_size as set_cell_size

from moa_cli.core.sanitize import one_line

# The last column gets at least this many cells while another column can be left out.
_LEAST = 24
_GAP = "  "


def fitted(text: str, cells: int) -> str:
    """Untrusted text on one line that takes at most `cells`, with an ellipsis if it was cut."""
    # Text beyond the width is invisible. A character takes at least one cell, except combining
    # marks, so some more characters are kept.
    line = one_line(text, 8 * max(0, cells) + 1)
    if cell_len(line) <= cells:
        return line
    return set_cell_size(line, cells - 1).rstrip() + "…" if cells > 0 else ""


def padded(text: str, cells: int, *, right: bool = False) -> str:
    """As `fitted`, but filled with spaces to exactly `cells`. right: align the text to the
    right."""
    line = fitted(text, cells)
    spaces = " " * (cells - cell_len(line))
    return spaces + line if right else line + spaces


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, and its (untrusted) cell for each row.

    right: whether cells are aligned to the right, as numbers are. spare: if there is little room,
    the column with the highest number is left out first; 0 for never. widest: the most terminal
    cells of the column; it does not hold for the last column.
    """

    head: str
    cells: Sequence[str]
    right: bool = False
    spare: int = 0
    widest: int = 24


def spoken_rows(name: Column, others: Sequence[Column]) -> list[str]:
    """A line for each row, for a screen reader: the cell of the column `name`, then each other cell
    with its head."""
    rows = []
    for about, *cells in zip(name.cells, *(column.cells for column in others), strict=True):
        told = (
            f"{column.head} {'unknown' if cell == '?' else cell}"
            for column, cell in zip(others, cells, strict=True)
            if cell
        )
        rows.append(f"{one_line(about)}: {', '.join(told)}")
    return rows


def table_lines(columns: Sequence[Column], width: int) -> list[str]:
    """The head and the rows, each at most `width` cells wide; the last column is cut to fit."""
    *others, last = columns
    widths = {
        id(column): min(
            column.widest, max(cell_len(one_line(cell)) for cell in (column.head, *column.cells))
        )
        for column in others
    }
    while True:
        free = width - sum(widths[id(column)] + len(_GAP) for column in others)
        spare = [column for column in others if column.spare]
        if free >= _LEAST or not spare:
            break
        others.remove(max(spare, key=lambda column: column.spare))
    lines = []
    for *cells, end in zip(*([c.head, *c.cells] for c in (*others, last)), strict=True):
        before = [
            padded(cell, widths[id(column)], right=column.right)
            for cell, column in zip(cells, others, strict=True)
        ]
        lines.append(_GAP.join([*before, fitted(end, free)]).rstrip())
    return lines
