"""The board: what the proposers are doing, as lines for a `Screen`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moa_cli.core.sanitize import sanitize
from moa_cli.terminal.board.screen import most_rows
from moa_cli.terminal.board.status import status_line
from moa_cli.terminal.board.view import MARKS, CallView, TurnView
from moa_cli.terminal.line import LONGEST_NAME, Line, Styles, plain, sure, wrap
from moa_cli.terminal.table import cell_len

# In these states, a call shows its note in place of figures and text.
_NOTED = ("queued", "failed", "retrying", "dropped")
_NARROWEST_PANEL, _FEWEST_ROWS = 36, 4
# From this width and height on, and for at most this many proposers, each proposer has a panel;
# otherwise a row. Below _NARROWEST_ROWS columns, one line is for all.
_PANELS_WIDTH, _PANELS_HEIGHT, _MOST_PANELS = 80, 30, 6
_NARROWEST_ROWS = 60
_SHORTEST_TAIL = 24
_NARROWEST_ZOOM = 30


def figures(call: CallView, now: float) -> list[str]:
    """The figures of a call, as far as they are known: seconds, tokens, cost, tokens a second, and
    seconds to the first token. The most important figure comes first."""
    parts = [f"{call.seconds(now):.1f} s"]
    if call.tokens:
        about = "" if call.exact else "~"
        parts.append(f"{about}{call.tokens} tok")
    if call.cost:
        parts.append(call.cost)
    rate = call.rate(now)
    if rate is not None:
        parts.append(f"{rate:.0f} tok/s")
    if call.first_token is not None:
        parts.append(f"first {call.first_token - call.began:.1f} s")
    return parts


def name_cells(calls: Iterable[CallView]) -> int:
    return max((cell_len(plain(call.name, LONGEST_NAME)) for call in calls), default=0)


def call_summary(call: CallView, now: float, name_width: int = 0, width: int | None = None) -> Line:
    """One line about a call: mark, name (padded to `name_width`), state, and figures; or, for
    example, the reason of a failure.

    width: figures beyond this width are left out.
    """
    mark, style = MARKS[call.state]
    name = plain(call.name, LONGEST_NAME)
    padding = " " * max(2, name_width - cell_len(name) + 2)
    line = Line((mark, style), " ", (name, "bold"), padding)
    if call.state in _NOTED:
        return line.append(plain(call.note), style)
    told = figures(call, now)
    if call.state not in ("done", "streaming"):
        # If a waiting call was sent a second time, its note says so.
        told = [plain(call.note) if call.state == "waiting" and call.note else call.state, *told]
    if call.state == "done" and call.note:
        line.append(f"{plain(call.note)} · ", "yellow")
    free = None if width is None else width - line.cells
    return line.append(_joined(told, free), "dim")


def _joined(parts: list[str], cells: int | None) -> str:
    """As many of the first parts as fit into `cells`, but at least one."""
    while cells is not None and len(parts) > 1 and cell_len(" · ".join(parts)) > cells:
        parts = parts[:-1]
    return " · ".join(parts)


def board_lines(
    styles: Styles,
    view: TurnView,
    now: float,
    size: tuple[int, int],
    hint: str = "",
    zoom: str = "",
) -> list[str]:
    """The live region for `view`, with at most `most_rows` rows. If there is room, it is a grid of
    panels, otherwise one row for each proposer, with the status line below. On narrow terminals, it
    is only the status line.

    hint: what a key does at this moment. zoom: the key that shows the first proposer alone, then
    the next one; "" if there is none.
    """
    status = status_line(view, now, size[0], hint, f"{zoom}: zoom" if zoom and view.layers else "")
    return [line.cut(size[0]).ansi(styles) for line in [*_proposers(view, now, size), status]]


def _proposers(view: TurnView, now: float, size: tuple[int, int]) -> list[Line]:
    """The lines about the running proposers: at most `most_rows` less the status line."""
    width, height = size
    # Read once, because the property builds a new list each time.
    calls = [] if view.phase == "replying" else view.proposers
    count, room = len(calls), most_rows(size) - 1
    zoomed = view.zoomed
    if zoomed is not None and zoomed in calls and width >= _NARROWEST_ZOOM and room >= _FEWEST_ROWS:
        return _panel(zoomed, now, width, room, f"{calls.index(zoomed) + 1} of {count}")
    if not calls or width < _NARROWEST_ROWS or room < min(2, count):
        return []
    columns = max(1, min(3, count, width // _NARROWEST_PANEL))
    # Make the columns equally high. For example, four panels stand two by two.
    columns = -(-count // -(-count // columns))
    panel_height = min(8, room // -(-count // columns))
    roomy = width >= _PANELS_WIDTH and height >= _PANELS_HEIGHT and count <= _MOST_PANELS
    if not roomy or panel_height < _FEWEST_ROWS:
        return _rows(calls, now, width, room)
    return _grid(calls, now, width, columns, panel_height)


def _rows(calls: Sequence[CallView], now: float, width: int, room: int) -> list[Line]:
    shown = list(calls)
    rest: list[Line] = []
    # If there is no row for each call, running calls come first.
    if len(shown) > room:
        shown.sort(key=lambda call: call.ended is not None)
        rest = [Line((f"… and {len(shown) - room + 1} more", "dim"))]
        shown = shown[: room - 1]
    names = name_cells(shown)
    return [*(_row(call, now, width, names) for call in shown), *rest]


def _row(call: CallView, now: float, width: int, names: int) -> Line:
    has_tail = call.state == "streaming" or (call.state == "thinking" and bool(call.tail))
    # Figures are left out to make room for a few words of the text, which say more.
    line = call_summary(call, now, names, width - _SHORTEST_TAIL if has_tail else width)
    free = width - line.cells - 2
    if has_tail and free > 8:
        line.append("  " + _end_of(plain(call.tail[-4 * free :]), free), "dim")
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


def _panel(call: CallView, now: float, width: int, height: int, place: str = "") -> list[Line]:
    """A frame with the call's name above, its figures below, and the end of its text inside. place:
    such as `1 of 3`, if the call is shown alone."""
    mark, style = MARKS[call.state]
    border = style if call.state in ("done", "failed") else "dim"
    place = f" ({place})" if place else ""
    free = width - 8 - len(place)
    name = Line((plain(call.name, free), "bold")).cut(free).append(place, "dim" if place else "")
    parts = figures(call, now)
    if call.state == "done" and call.note:
        # The reason is printed below once the layer has ended.
        parts = ["cut", *parts]
    # For these two states, the mark before the name says enough.
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
    """The last rows of a call's text, each at most `width` wide, and their style."""
    if call.state in _NOTED or (call.state == "waiting" and call.note):
        style = "red" if call.state == "failed" else "yellow"
        return wrap(plain(call.note), width)[:rows], style
    # Only the last rows + 1 source lines are wrapped, each from its start, so that the cost of a
    # frame does not grow with the answer.
    recent = sure(sanitize(call.tail)).expandtabs(4).split("\n")[-rows - 1 :]
    # The start of the shown end of a line moves in steps. Otherwise all rows would be wrapped
    # differently at each token.
    least = width * (rows + 1)
    ends = (line[max(0, len(line) // least - 1) * least :] for line in recent)
    return [piece for end in ends for piece in wrap(end, width)][-rows:], ""
