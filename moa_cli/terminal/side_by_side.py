"""Proposals beside one another, drawn by Rich; all text in them is untrusted."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from moa_cli.core.conversation import Proposal
from moa_cli.core.sanitize import one_line, sanitize

_LONGEST_PASSAGE = 300
_NARROWEST_COLUMN = 26


class SideBySide:
    """The texts of a layer in columns, each under its proposer's name; as many beside one
    another as can be read."""

    def __init__(self, proposals: Sequence[Proposal]) -> None:
        self._proposals = proposals

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        count = len(self._proposals)
        rows = -(-count // max(1, options.max_width // _NARROWEST_COLUMN))
        columns = -(-count // rows)
        for start in range(0, count, columns):
            proposals = self._proposals[start : start + columns]
            table = _columns([proposal.proposer for proposal in proposals])
            texts = (p.error.message if p.error else p.text for p in proposals)
            table.add_row(*(Text(sanitize(text).strip()) for text in texts))
            yield table


def marked_side_by_side(
    left: tuple[str, Sequence[tuple[str, bool]]], right: tuple[str, Sequence[tuple[str, bool]]]
) -> Table:
    """Two named texts in columns. Each is given in pieces, with whether the other lacks it."""
    table = _columns([left[0], right[0]])
    table.add_row(_marked(left[1], "red"), _marked(right[1], "green"))
    return table


def _columns(names: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    for name in names:
        table.add_column(Text(one_line(name)), ratio=1, overflow="fold")
    return table


def _marked(pieces: Sequence[tuple[str, bool]], style: str) -> Text:
    text = Text()
    for piece, differs in pieces:
        # Underlined too: colour alone says nothing to some eyes and some terminals.
        text.append(sanitize(piece), f"{style} underline" if differs and piece.strip() else "")
    text.rstrip()
    return text


def closeness_table(
    rows: Sequence[tuple[str, Sequence[str], float]],
    count: int,
    held: Sequence[str] | None = None,
) -> Table:
    """Passages with the names of what they stand closest to, and how close in percent.

    count: how many there are to be close to. held: who holds each passage by the report, if there
    is one.
    """
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("passage of the reply", ratio=3, overflow="fold")
    table.add_column("closest to", ratio=1, overflow="fold")
    table.add_column("%", justify="right", width=4)
    if held is not None:
        table.add_column("held by", ratio=1, overflow="fold")
    for place, (passage, names, percent) in enumerate(rows):
        every = len(names) == count > 1
        table.add_row(
            Text(one_line(passage, _LONGEST_PASSAGE)),
            Text("all alike" if every else one_line(", ".join(names) or "none")),
            Text(f"{percent:.0f}", "bold" if percent >= 80 else "dim" if percent < 50 else ""),
            *([] if held is None else [Text(one_line(held[place]))]),
        )
    return table
