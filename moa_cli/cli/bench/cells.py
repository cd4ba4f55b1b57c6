"""Formats figures, tables and notes of `moa bench` as lines of text."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from moa_cli.bench.scoring.means import Mean
from moa_cli.cli.output import say
from moa_cli.core.sanitize import one_line
from moa_cli.terminal.table import Column, cell_len, table_lines

if TYPE_CHECKING:
    from moa_cli.bench.report.sections import TextTable

UNKNOWN = "–"
# From this number of items, computing similarities takes a noticeable time: one or two milliseconds
# a pair of texts.
_MANY_ITEMS = 100
_GAP = 2
# Widths in cells. A name is never shortened below the first one. A single column of names may have
# the second one, with its gap, even if that is more than a third of the table.
_LEAST_NAME, _NAME_ROOM = 12, 17


def tell_if_long(items: int) -> None:
    """Tell the user what is being computed, if that takes a while."""
    if items >= _MANY_ITEMS and sys.stderr.isatty():
        say(f"comparing the texts of {items:,} items …")


def cell(mean: Mean | None, decimals: int = 3, *, sign: str = "") -> str:
    """`0.224±0.012`: a mean and its standard error. sign: "+" also marks positive values."""
    if mean is None or mean.value is None:
        return UNKNOWN
    told = f"{mean.value:{sign},.{decimals}f}"
    return told if mean.standard_error is None else f"{told}±{mean.standard_error:,.{decimals}f}"


def with_n(mean: Mean | None, decimals: int = 3, *, sign: str = "") -> str:
    """`0.224±0.012 (n 50)`."""
    if mean is None or mean.value is None:
        return UNKNOWN
    return f"{cell(mean, decimals, sign=sign)} (n {mean.n:,})"


def table(title: str, columns: Sequence[Column], width: int, keys: int = 1) -> Iterator[str]:
    """An empty line, a title, and a table; see `split_table`."""
    yield ""
    yield from noted([title], width, "")
    yield from fitting_table(columns, width, keys)


def fitting_table(columns: Sequence[Column], width: int, keys: int = 1) -> Iterator[str]:
    """A table whose last column takes the rest of the width. If the columns do not fit, it is split
    as by `split_table`."""
    if sum(_wide(column) + _GAP for column in columns) <= width + _GAP:
        yield from table_lines(columns, width)
    else:
        *others, last = columns
        yield from split_table([*others, replace(last, widest=width)], width, keys)


def split_table(columns: Sequence[Column], width: int, keys: int = 1) -> Iterator[str]:
    """A table or, if the columns do not fit into the width, several tables below each other.

    keys: how many columns name the rows, from the first one, or if negative, from the last one.
    Each table has them.
    """
    names, others = columns[:keys], columns[keys:]
    if keys < 0:
        names, others = others, names
    needed = [_wide(column) + _GAP for column in others]
    if sum(needed) + sum(_wide(name) + _GAP for name in names) > width + _GAP:
        # Names are shortened to a third of the width, or to the room that the widest number leaves.
        room = max(width // 3, _NAME_ROOM) if len(names) == 1 else width // 2
        most = min(room, width - max(needed, default=0)) // len(names) - _GAP
        most = max(most, _LEAST_NAME)
        names = [Column(name.head, shortened(name.cells, most), widest=most) for name in names]
    free = width + _GAP - sum(_wide(name) + _GAP for name in names)
    # Numbers are never cut.
    others = [
        column if column.right else replace(column, widest=min(column.widest, free - _GAP))
        for column in others
    ]
    # An empty column fills the rest of the width.
    rest = Column("", [""] * len(columns[0].cells))
    for number, group in enumerate(_groups(needed, free)):
        if number:
            yield ""
        yield from table_lines([*names, *(others[place] for place in group), rest], width)


def _wide(column: Column) -> int:
    longest = max(cell_len(one_line(cell)) for cell in (column.head, *column.cells))
    return min(longest, column.widest)


def shortened(names: Sequence[str], most: int) -> Sequence[str]:
    """The names, shortened to at most `most` characters, such as `single:Qwen2-72B` or `Qwen2-72B`
    for `single:together:Qwen/Qwen2-72B`. They are unchanged if different names would become
    equal."""
    if max(map(len, names), default=0) <= most:
        return names
    from moa_cli.profile import short_name

    parts = [name.partition(":") for name in names]
    arms = [f"{kind}:{short_name(model)}" if colon else kind for kind, colon, model in parts]
    models = [arm.removeprefix("single:") for arm in arms]
    for short in (arms, models, [_cut(model, most) for model in models]):
        if len(set(short)) == len(set(names)) and max(map(len, short)) <= most:
            return short
    return names


def _cut(name: str, most: int) -> str:
    """A name with its middle cut out, because models of one family differ at their ends."""
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}…{name[len(name) - end :]}"


def _groups(needed: Sequence[int], room: int) -> Iterator[list[int]]:
    """Groups of columns that fit beside each other, as their indexes. Each has at least one."""
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


def columns_of(told: TextTable, widest: int = Column.widest) -> list[Column]:
    return [
        Column(head, [row[place] for row in told.rows], right=place >= told.keys, widest=widest)
        for place, head in enumerate(told.heads)
    ]


def noted(notes: Iterable[str], width: int, mark: str = "- ") -> Iterator[str]:
    """Sentences, folded between words."""
    for note in notes:
        yield from textwrap.wrap(
            mark + one_line(note),
            width,
            subsequent_indent=" " * len(mark),
            break_long_words=False,
            break_on_hyphens=False,
        )
