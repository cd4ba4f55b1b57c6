"""Proposals side by side, drawn by Rich. All text in them is untrusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from moa_cli.core.conversation import Proposal
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.terminal.look import USUAL, Look

_LONGEST_PASSAGE = 300
_NARROWEST_COLUMN = 26


class SideBySide:
    """The texts of a layer in columns, each under its proposer's name. There are only as many
    columns as are wide enough to read. look: the colours for Markdown; None shows plain text.
    """

    def __init__(self, proposals: Sequence[Proposal], look: Look | None = USUAL) -> None:
        self._proposals = proposals
        self._look = look

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.tables(options.max_width)

    def tables(self, width: int) -> Iterator[Table]:
        """One or more tables, each at most `width` wide, with all texts in their order."""
        count = len(self._proposals)
        rows = -(-count // max(1, width // _NARROWEST_COLUMN))
        columns = -(-count // rows)
        for start in range(0, count, columns):
            proposals = self._proposals[start : start + columns]
            table = _columns([proposal.proposer for proposal in proposals])
            table.add_row(*map(self._cell, proposals))
            yield table

    def _cell(self, proposal: Proposal) -> RenderableType:
        text = sanitize(proposal.error.message if proposal.error else proposal.text).strip()
        if proposal.error or self._look is None:
            return Text(text)
        return _Drawn(text, self._look)


class _Drawn:
    """A text drawn as Markdown at the width of its column."""

    def __init__(self, text: str, look: Look) -> None:
        self._text = text
        self._look = look

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from moa_cli.markdown.drawing import render_markdown
        from moa_cli.terminal.board.live import color_of

        lines = render_markdown(
            self._text,
            width=options.max_width,
            color=color_of(console),
            palette=self._look.palette,
        )
        for line in lines:
            # Lines of code may be wider than the column, and continue below.
            yield Text.from_ansi(line, overflow="fold")


def marked_side_by_side(
    left: tuple[str, Sequence[tuple[str, bool]]], right: tuple[str, Sequence[tuple[str, bool]]]
) -> Table:
    """Two named texts in columns. Each text is given in pieces, with a flag that tells whether the
    other text lacks the piece."""
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
        # Underlined as well, because colour alone is invisible to some users and on some terminals.
        text.append(sanitize(piece), f"{style} underline" if differs and piece.strip() else "")
    text.rstrip()
    return text


def closeness_table(
    rows: Sequence[tuple[str, Sequence[str], float]],
    count: int,
    held: Sequence[str] | None = None,
) -> Table:
    """A table of passages, with the names of the most similar proposals, and the similarity in
    percent.

    count: the number of proposals. held: for each passage, the proposers that hold it according to
    the report; None without a report.
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
