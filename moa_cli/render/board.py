"""The board: what the proposers are doing, drawn by Rich as lines for a `Screen`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from moa_cli.render.sanitize import one_line, sanitize
from moa_cli.render.view import CallView, State, TurnView

__all__ = ["board_lines", "call_summary", "status_text", "to_lines"]

_MARKS: dict[State, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "retrying": ("↻", "yellow"),
    "thinking": ("…", "magenta"),
    "streaming": ("▸", "cyan"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
}
_NARROWEST_PANEL, _FEWEST_ROWS = 36, 4


def to_lines(console: Console, renderable: RenderableType, width: int) -> list[str]:
    """What `console` makes of the renderable, as ANSI lines of at most `width` cells."""
    with console.capture() as captured:
        console.print(renderable, width=width, end="", soft_wrap=False)
    return captured.get().rstrip("\n").split("\n")


def figures(call: CallView, now: float) -> str:
    """Seconds, tokens and tokens a second of a call, as far as they are known."""
    parts = [f"{call.seconds(now):.1f} s"]
    if call.tokens:
        about = "" if call.exact else "~"
        parts.append(f"{about}{call.tokens} tok")
    rate = call.rate(now)
    if rate is not None:
        parts.append(f"{rate:.0f} tok/s")
    return " · ".join(parts)


def call_summary(call: CallView, now: float, name_width: int = 0) -> Text:
    """One line on a call: mark, name (padded to `name_width`), state, figures, why it failed."""
    mark, style = _MARKS[call.state]
    name = one_line(call.name, 40)
    padding = " " * max(2, name_width - cell_len(name) + 2)
    text = Text.assemble((mark, style), " ", (name, "bold"), padding)
    if call.state in ("done", "streaming"):
        text.append(figures(call, now), "dim")
    elif call.state in ("failed", "retrying"):
        text.append(one_line(call.note), style)
    else:
        text.append(f"{call.state} · {figures(call, now)}", "dim")
    return text


def status_text(view: TurnView, now: float) -> Text:
    """One line on the aggregator."""
    call = view.aggregator
    if call is None:
        return Text("")
    text = call_summary(call, now)
    if call.state == "waiting" and view.references:
        plural = "s" if view.references > 1 else ""
        text.append(f" · reading {view.references} proposal{plural}", "dim")
    return text


def board_lines(console: Console, view: TurnView, now: float, size: tuple[int, int]) -> list[str]:
    """The live region for `view`: panels where there is room, else one row a proposer."""
    width, height = size
    if view.phase == "replying":
        return to_lines(console, _cut(status_text(view, now), width), width)
    if not view.proposers:
        return []
    room = max(1, height // 2)
    columns = max(1, min(3, len(view.proposers), width // _NARROWEST_PANEL))
    rows = -(-len(view.proposers) // columns)
    panel_height = min(8, room // rows)
    if panel_height < _FEWEST_ROWS or width < _NARROWEST_PANEL:
        return _row_lines(console, view.proposers, now, width, room)
    return to_lines(console, _grid(view.proposers, now, width, columns, panel_height), width)


def _row_lines(
    console: Console, calls: Sequence[CallView], now: float, width: int, room: int
) -> list[str]:
    shown = list(calls)
    # Those at work come first where not all have a row.
    if len(shown) > room:
        shown.sort(key=lambda call: call.ended is not None)
        left_out = len(shown) - (room - 1)
        shown = shown[: room - 1]
        last = [Text(f"… and {left_out} more", "dim")]
    else:
        last = []
    texts = [_row(call, now, width) for call in shown] + last
    return to_lines(console, Group(*(_cut(text, width) for text in texts)), width)


def _row(call: CallView, now: float, width: int) -> Text:
    text = call_summary(call, now)
    if call.state == "streaming":
        free = width - cell_len(text.plain) - 2
        if free > 8:
            text.append("  " + _end_of(one_line(call.tail[-4 * free :]), free), "dim")
    return text


def _end_of(text: str, cells: int) -> str:
    """The last part of a line, `cells` wide at most."""
    while cell_len(text) > cells:
        text = text[max(1, len(text) - cells) :]
    return text


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text


def _grid(
    calls: Sequence[CallView], now: float, width: int, columns: int, panel_height: int
) -> Table:
    grid = Table.grid(padding=0)
    widths = [width // columns + (1 if n < width % columns else 0) for n in range(columns)]
    for one in widths:
        grid.add_column(width=one)
    for start in range(0, len(calls), columns):
        row = [
            _panel(call, now, one, panel_height)
            for call, one in zip(calls[start : start + columns], widths, strict=False)
        ]
        grid.add_row(*row)
    return grid


def _panel(call: CallView, now: float, width: int, height: int) -> Panel:
    mark, style = _MARKS[call.state]
    title = Text.assemble((mark, style), " ", (one_line(call.name, width - 8), "bold"))
    body = _tail(call, width - 4, height - 2)
    return Panel(
        body,
        title=title,
        title_align="left",
        subtitle=Text(_fitting(call, now, width - 6), "dim"),
        subtitle_align="right",
        border_style=style if call.state in ("done", "failed") else "dim",
        width=width,
        height=height,
    )


def _fitting(call: CallView, now: float, cells: int) -> str:
    """State and figures, as many of them as fit into `cells`."""
    told = figures(call, now)
    if call.state in ("streaming", "done") and cell_len(f"{call.state} · {told}") > cells:
        # The mark before the name says it too.
        parts = told.split(" · ")
    else:
        parts = [call.state, *told.split(" · ")]
    while len(parts) > 1 and cell_len(" · ".join(parts)) > cells:
        parts.pop()
    return " · ".join(parts)


def _tail(call: CallView, width: int, rows: int) -> Text:
    """The last rows of a call's text, each cut to its width here: cells are counted once."""
    if call.state in ("failed", "retrying"):
        source, style = one_line(call.note), "red" if call.state == "failed" else "yellow"
        lines = _wrap(source, width)[:rows]
    else:
        style = ""
        # The last rows + 1 source lines, wrapped from their own start, so that a frame costs
        # the same however long the answer has become.
        recent = sanitize(call.tail).replace("\ufe0f", "").expandtabs(4).split("\n")[-rows - 1 :]
        lines = [piece for line in recent for piece in _wrap(line[-width * (rows + 1) :], width)]
        lines = lines[-rows:]
    return Text("\n".join(lines), style, no_wrap=True, overflow="crop")


def _wrap(line: str, width: int) -> list[str]:
    pieces = []
    while cell_len(line) > width:
        cut = len(set_cell_size(line, width).rstrip(" ")) or 1
        space = line.rfind(" ", 0, cut + 1)
        cut = space if space > width // 2 else cut
        pieces.append(line[:cut])
        line = line[cut:].lstrip(" ")
    return [*pieces, line]
