"""A list as columns that fit a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moa_cli.core.sanitize import one_line
from moa_cli.terminal.cells import cell_len, fitted, padded

# The last column is not to be narrower, while there is another to leave out.
_LEAST = 24
_GAP = "  "


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, and its (untrusted) cell for each row.

    right: whether cells stand to the right, as numbers do. spare: how gladly it is left out
    where there is little room, 0 for never. widest: cells that it may take, but for the last.
    """

    head: str
    cells: Sequence[str]
    right: bool = False
    spare: int = 0
    widest: int = 24


def table_lines(columns: Sequence[Column], width: int) -> list[str]:
    """The head and the rows, each at most `width` cells wide; the last column is cut to fit."""
    *others, last = columns
    widths = {id(one): _width_of(one) for one in others}
    while True:
        free = width - sum(widths[id(one)] + len(_GAP) for one in others)
        spare = [one for one in others if one.spare]
        if free >= _LEAST or not spare:
            break
        others.remove(max(spare, key=lambda one: one.spare))
    lines = []
    for cells in zip(*([one.head, *one.cells] for one in (*others, last)), strict=True):
        before = [
            padded(cell, widths[id(one)], right=one.right)
            for cell, one in zip(cells, others, strict=False)
        ]
        lines.append(_GAP.join([*before, fitted(cells[-1], free)]).rstrip())
    return lines


def _width_of(column: Column) -> int:
    longest = max(cell_len(one_line(cell)) for cell in (column.head, *column.cells))
    return min(longest, column.widest)
