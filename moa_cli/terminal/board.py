"""The board: what the proposers are doing, as lines for a `Screen`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from moa_cli.core.money import usd
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.text import plural
from moa_cli.terminal.line import Line, Styles
from moa_cli.terminal.screen import most_rows
from moa_cli.terminal.table import cell_len, set_cell_size
from moa_cli.terminal.view import CallView, State, TurnView

_MARKS: dict[State, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "queued": ("·", "yellow"),
    "retrying": ("↻", "yellow"),
    "thinking": ("…", "magenta"),
    "streaming": ("▸", "cyan"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "dropped": ("–", "yellow"),
}
# States of which the note is shown, not the figures or the text.
_NOTED = ("queued", "failed", "retrying", "dropped")
_NARROWEST_PANEL, _FEWEST_ROWS = 36, 4
# From this size on, and for so many proposers at most, each has a panel; else a row; below
# this width there is one line for all.
_PANELS_WIDTH, _PANELS_HEIGHT, _MOST_PANELS = 80, 30, 6
_NARROWEST_ROWS = 60
_SHORTEST_TAIL = 24
# Joiners, variation selectors, skin tones and flags: terminals disagree on how wide they make
# these or what they follow, and the right border would jump.
_UNSURE = re.compile("[\ufe00-\ufe0f\u200d\U0001f3fb-\U0001f3ff\U0001f1e6-\U0001f1ff]")
_LONGEST_NAME = 40


def figures(call: CallView, now: float) -> list[str]:
    """Seconds, tokens, cost, tokens a second, and seconds to the first token, as far as known;
    the most telling first."""
    parts = [f"{call.seconds(now):.1f} s"]
    if call.tokens:
        about = "" if call.exact else "~"
        parts.append(f"{about}{call.tokens} tok")
    if call.cost:
        parts.append(usd(call.cost))
    rate = call.rate(now)
    if rate is not None:
        parts.append(f"{rate:.0f} tok/s")
    if call.first_token is not None:
        parts.append(f"first {call.first_token - call.began:.1f} s")
    return parts


def name_cells(calls: Iterable[CallView]) -> int:
    """The width of the longest name."""
    return max((cell_len(_plain(call.name, _LONGEST_NAME)) for call in calls), default=0)


def call_summary(call: CallView, now: float, name_width: int = 0, width: int | None = None) -> Line:
    """One line on a call: mark, name (padded to `name_width`), state, figures, why it failed.

    width: figures that would go beyond it are left out.
    """
    mark, style = _MARKS[call.state]
    name = _plain(call.name, _LONGEST_NAME)
    padding = " " * max(2, name_width - cell_len(name) + 2)
    line = Line((mark, style), " ", (name, "bold"), padding)
    if call.state in _NOTED:
        return line.append(_plain(call.note), style)
    told = figures(call, now)
    if call.state not in ("done", "streaming"):
        # What a call that waits has a note of: that it was sent a second time.
        told = [_plain(call.note) if call.state == "waiting" and call.note else call.state, *told]
    if call.state == "done" and call.note:
        line.append(f"{_plain(call.note)} · ", "yellow")
    free = None if width is None else width - line.cells
    return line.append(_joined(told, free), "dim")


def _joined(parts: list[str], cells: int | None) -> str:
    """As many of the first parts as fit into `cells`, one at least."""
    while cells is not None and len(parts) > 1 and cell_len(" · ".join(parts)) > cells:
        parts = parts[:-1]
    return " · ".join(parts)


def _plain(text: str, limit: int | None = None) -> str:
    """A name or a message on one line, as wide on one terminal as on another."""
    return one_line(_sure(text), limit)


def _sure(text: str) -> str:
    return text if text.isascii() else _UNSURE.sub("", text)


def board_lines(
    styles: Styles, view: TurnView, now: float, size: tuple[int, int], hint: str = ""
) -> list[str]:
    """The live region for `view`, of at most `most_rows`: a grid of panels where there is
    room, else one row a proposer, else one line.

    hint: what a key does at this moment, shown at the end.
    """
    return [line.cut(size[0]).ansi(styles) for line in _lines(view, now, size, hint)]


def _lines(view: TurnView, now: float, size: tuple[int, int], hint: str) -> list[Line]:
    width, height = size
    if view.phase == "replying" and view.aggregator is not None:
        status = call_summary(view.aggregator, now)
        if view.aggregator.state == "waiting" and view.references:
            status.append(f" · reading {plural(view.references, 'proposal')}", "dim")
        return _hinted(status, hint, size)
    # Asked for once: it is made anew each time.
    calls = view.proposers
    if not calls:
        return []
    if width < _NARROWEST_ROWS:
        ended = sum(call.ended is not None for call in calls)
        tokens = sum(call.tokens for call in calls)
        began = min(call.began for call in calls)
        line = Line(("▸ ", "cyan"), (f"{view.name}: {ended} of {len(calls)}", "bold"))
        if queued := _queued(calls):
            line.append(f" · {queued} not sent", "yellow")
        line.append(f" · {now - began:.1f} s · ~{tokens} tok", "dim")
        return _hinted(line, hint, size)
    count, room = len(calls), most_rows(size)
    columns = max(1, min(3, count, width // _NARROWEST_PANEL))
    # Four stand two by two.
    columns = -(-count // -(-count // columns))
    head = Line()
    if view.purposes.get(view.layer):
        head.append(view.name, "dim")
    elif view.rounds > 1:
        head.append(f"{view.name} of {view.rounds}", "dim")
    if queued := _queued(calls):
        if head.cells:
            head.append(" · ", "dim")
        head.append(f"{queued} not sent yet", "yellow")
    above = [head] if head.cells and room > 2 else []
    below = [Line((hint, "dim"))] if hint and room > 2 else []
    room -= len(above) + len(below)
    panel_height = min(8, room // -(-count // columns))
    roomy = width >= _PANELS_WIDTH and height >= _PANELS_HEIGHT and count <= _MOST_PANELS
    if not roomy or panel_height < _FEWEST_ROWS:
        body = _rows(calls, now, width, max(1, room))
    else:
        body = _grid(calls, now, width, columns, panel_height)
    return [*above, *body, *below]


def _hinted(line: Line, hint: str, size: tuple[int, int]) -> list[Line]:
    """A line with the hint at its end, or below it where that would leave less than a half."""
    width, height = size
    ending = f" · {hint}"
    cells = cell_len(ending)
    if hint and 2 * cells <= width:
        return [line.cut(width - cells).append(ending, "dim")]
    return [line, Line((hint, "dim"))] if hint and height >= 4 else [line]


def _queued(calls: Iterable[CallView]) -> int:
    """How many calls are not sent yet."""
    return sum(call.state == "queued" for call in calls)


def _rows(calls: Sequence[CallView], now: float, width: int, room: int) -> list[Line]:
    shown = list(calls)
    rest: list[Line] = []
    # Those at work come first where not all have a row.
    if len(shown) > room:
        shown.sort(key=lambda call: call.ended is not None)
        rest = [Line((f"… and {len(shown) - room + 1} more", "dim"))]
        shown = shown[: room - 1]
    names = name_cells(shown)
    return [*(_row(call, now, width, names) for call in shown), *rest]


def _row(call: CallView, now: float, width: int, names: int) -> Line:
    has_tail = call.state == "streaming" or (call.state == "thinking" and call.has_tail)
    # A few words of the text tell more than the last of the figures.
    line = call_summary(call, now, names, width - _SHORTEST_TAIL if has_tail else width)
    free = width - line.cells - 2
    if has_tail and free > 8:
        line.append("  " + _end_of(_plain(call.tail[-4 * free :]), free), "dim")
    return line


def _end_of(text: str, cells: int) -> str:
    """The last part of a line, `cells` wide at most."""
    if text.isascii():
        return text if len(text) <= cells else f"…{text[len(text) - cells + 1 :]}"
    if cell_len(text) <= cells:
        return text
    while cell_len(text) > cells - 1:
        text = text[max(1, len(text) - cells + 1) :]
    return f"…{text}"


def _grid(
    calls: Sequence[CallView], now: float, width: int, columns: int, panel_height: int
) -> list[Line]:
    widths = [width // columns + (1 if n < width % columns else 0) for n in range(columns)]
    lines = []
    for start in range(0, len(calls), columns):
        row = zip(calls[start : start + columns], widths, strict=False)
        panels = [_panel(call, now, cells, panel_height) for call, cells in row]
        for parts in zip(*panels, strict=True):
            line = Line()
            for part in parts:
                line.extend(part)
            lines.append(line)
    return lines


def _panel(call: CallView, now: float, width: int, height: int) -> list[Line]:
    """A frame with the call's name above, its figures below, and the end of its text."""
    mark, style = _MARKS[call.state]
    border = style if call.state in ("done", "failed") else "dim"
    name = Line((_plain(call.name, width - 8), "bold")).cut(width - 8)
    parts = figures(call, now)
    if call.state == "done" and call.note:
        # Why is told below, once the layer has ended.
        parts = ["cut", *parts]
    # Of these two states the mark before the name says enough.
    if call.state not in ("streaming", "done") or cell_len(" · ".join(parts)) + 18 <= width:
        parts = [call.state, *parts]
    told = Line((_joined(parts, width - 6), "dim")).cut(width - 6)
    top = Line(("╭─ ", border), (mark, style), " ").extend(name)
    top.append(f" {'─' * (width - name.cells - 7)}╮", border)
    bottom = Line((f"╰{'─' * (width - told.cells - 5)} ", border)).extend(told)
    rows, style = _tail(call, width - 4, height - 2)
    rows += [""] * (height - 2 - len(rows))
    body = [
        Line(("│ ", border), (row, style), (f"{' ' * (width - 4 - cell_len(row))} │", border))
        for row in rows
    ]
    return [top, *body, bottom.append(" ─╯", border)]


def _tail(call: CallView, width: int, rows: int) -> tuple[list[str], str]:
    """The last rows of a call's text, each at most so wide, and their style."""
    if call.state in _NOTED or (call.state == "waiting" and call.note):
        style = "red" if call.state == "failed" else "yellow"
        return _wrap(_plain(call.note), width)[:rows], style
    # The last rows + 1 source lines, wrapped from their own start, so that a frame costs
    # the same however long the answer has become.
    recent = _sure(sanitize(call.tail)).expandtabs(4).split("\n")[-rows - 1 :]
    # Where the end of a line begins moves in steps: else all rows would be wrapped anew at each
    # token.
    least = width * (rows + 1)
    ends = (line[max(0, len(line) // least - 1) * least :] for line in recent)
    return [piece for end in ends for piece in _wrap(end, width)][-rows:], ""


def _wrap(line: str, width: int) -> list[str]:
    ascii_only = line.isascii()
    pieces = []
    while (len(line) if ascii_only else cell_len(line)) > width:
        cut = width if ascii_only else len(set_cell_size(line, width).rstrip(" "))
        cut = cut or 1
        space = line.rfind(" ", 0, cut + 1)
        cut = space if space > width // 2 else cut
        pieces.append(line[:cut])
        line = line[cut:].lstrip(" ")
    return [*pieces, line]
