"""Figures and notes of `moa bench` as lines of text."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from moa_cli.bench.scoring.means import Mean
from moa_cli.cli.output import say
from moa_cli.core.sanitize import one_line
from moa_cli.terminal.table import Column, table_lines

if TYPE_CHECKING:
    from moa_cli.bench.report.sections import TextTable

UNKNOWN = "–"
# From so many on, similarities take a while: a pair of texts a millisecond or two.
_MANY_ITEMS = 100


def tell_if_long(items: int) -> None:
    """Say to a waiting user what takes so long."""
    if items >= _MANY_ITEMS and sys.stderr.isatty():
        say(f"comparing the texts of {items:,} items …")


def cell(mean: Mean | None, decimals: int = 3, *, sign: str = "") -> str:
    """`0.224±0.012`: a mean and its standard error. sign: "+" shows it always."""
    if mean is None or mean.value is None:
        return UNKNOWN
    told = f"{mean.value:{sign},.{decimals}f}"
    return told if mean.standard_error is None else f"{told}±{mean.standard_error:,.{decimals}f}"


def with_n(mean: Mean | None, decimals: int = 3, *, sign: str = "") -> str:
    """`0.224±0.012 (n 50)`."""
    if mean is None or mean.value is None:
        return UNKNOWN
    return f"{cell(mean, decimals, sign=sign)} (n {mean.n:,})"


def table(title: str, columns: Sequence[Column], width: int) -> Iterator[str]:
    """An empty line, a title, and a table."""
    yield ""
    yield from noted([title], width, "")
    yield from table_lines(columns, width)


def narrow_table(columns: Sequence[Column], width: int) -> list[str]:
    """A table whose last column is no wider than it must be: what is left is an empty one's."""
    return table_lines([*columns, Column("", [""] * len(columns[0].cells))], width)


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
