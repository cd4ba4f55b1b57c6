"""Lines that stay and lines that live, on one terminal.

`commit` prints lines once and for good; `paint` shows a region below them that the next
call replaces. Rich draws the lines; it does not place them, because its own live display
repeats lines that are taller than the screen and leaves torn frames behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.text import Text

from moa_cli.terminal.table import cell_len

# Columns and rows.
Size = Callable[[], tuple[int, int]]

_SYNC_ON, _SYNC_OFF = "\x1b[?2026h", "\x1b[?2026l"
_WRAP_ON, _WRAP_OFF = "\x1b[?7h", "\x1b[?7l"
_CURSOR_OFF, _CURSOR_ON = "\x1b[?25l", "\x1b[?25h"
_CLEAR_ROW = "\x1b[2K"


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the stream's terminal; 80 × 24 if it has none."""
    with contextlib.suppress(OSError, ValueError):
        columns, rows = os.get_terminal_size(stream.fileno())
        if columns > 0 and rows > 0:
            return columns, rows
    fallback = shutil.get_terminal_size()
    return fallback.columns, fallback.lines


class Screen:
    """The bottom of a terminal. size: called afresh for each frame."""

    def __init__(self, stream: TextIO, size: Size | None = None) -> None:
        self._stream = stream
        self.size = size or (lambda: terminal_size(stream))
        self._shown: list[str] = []
        self._width = 0

    def commit(self, lines: Sequence[str], region: Sequence[str] | None = None) -> None:
        """Print `lines` (ANSI, no line ends) above the region, never to be touched again.

        region: what the region shows from now on, in the same frame; None leaves it.
        """
        if not lines:
            if region is not None:
                self.paint(region)
            return
        below = self._fitting(self._shown if region is None else region)
        frame = self._erase() + _WRAP_ON + "".join(f"{line}\r\n" for line in lines)
        self._write(frame + self._draw(below))

    def paint(self, lines: Sequence[str]) -> None:
        """Show `lines` as the live region, in place of what it showed; none removes it.

        The terminal cuts off what is wider than itself. More than half the screen is cut off
        at the top of the region, so that the region never scrolls.
        """
        width = self.size()[0]
        region = self._fitting(lines)
        if region == self._shown and width == self._width:
            return
        frame = ""
        if width != self._width or len(region) < len(self._shown):
            frame = self._erase()
            self._width = width
        self._write(frame + self._draw(region))

    def close(self) -> None:
        """Remove the region, and leave the terminal as it was."""
        self._write(self._erase())

    def _fitting(self, lines: Sequence[str]) -> list[str]:
        return list(lines)[-max(1, self.size()[1] // 2) :]

    def _draw(self, region: Sequence[str]) -> str:
        """The way from the region shown to `region`, which has as many rows or more."""
        if not region:
            return ""
        up = len(self._shown) - 1
        parts = [_WRAP_OFF, "\r", f"\x1b[{up}A" if up > 0 else ""]
        for number, line in enumerate(region):
            if number:
                parts.append("\r\n")
            old = self._shown[number] if number < len(self._shown) else None
            if line != old:
                parts += [_CLEAR_ROW, line]
        parts.append(_WRAP_ON)
        self._shown = list(region)
        self._width = self.size()[0]
        return "".join(parts)

    def _erase(self) -> str:
        """Clear the region, of which nothing is shown then; the cursor ends where it began."""
        rows = self._rows()
        self._shown = []
        if not rows:
            return ""
        up = f"\x1b[{rows - 1}A" if rows > 1 else ""
        down = "\x1b[1B".join([f"\r{_CLEAR_ROW}"] * rows)
        return f"\r{up}{down}\r{up}"

    def _rows(self) -> int:
        """Rows that the region takes now: a narrower terminal has wrapped its lines."""
        width = max(1, self.size()[0])
        if width >= self._width:
            return len(self._shown)
        cells = [cell_len(Text.from_ansi(line).plain) for line in self._shown]
        return sum(max(1, -(-min(count, self._width) // width)) for count in cells)

    def _write(self, frame: str) -> None:
        if not frame:
            return
        cursor = _CURSOR_OFF if self._shown else _CURSOR_ON
        self._stream.write(f"{_SYNC_ON}{_CURSOR_OFF}{frame}{cursor}{_SYNC_OFF}")
        self._stream.flush()
