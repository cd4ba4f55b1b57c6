"""Permanent lines, and a live region below them, on one terminal.

`commit` prints lines that are never changed. `paint` shows the live region, which the next call
replaces. Rich draws the lines but does not place them, because its own live display repeats lines
that are taller than the screen, and leaves parts of frames behind.

Between two frames, the hidden cursor stands at the beginning of the region. When the width of a
terminal changes, it moves rows, and perhaps folds long ones. Each terminal does this in its own
way, but all of them keep the cursor at the same character. So the next frame clears everything
below the cursor and draws the region again, and does not depend on what the terminal has done. The
same works after a shell has written in the meantime, because its text stands above the cursor.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from typing import TextIO

from moa_cli.terminal.suspension import Hold, hold, is_away, release

# Columns and rows.
Size = Callable[[], tuple[int, int]]

_SYNC_ON, _SYNC_OFF = "\x1b[?2026h", "\x1b[?2026l"
_WRAP_ON, _WRAP_OFF = "\x1b[?7h", "\x1b[?7l"
_CURSOR_OFF, _CURSOR_ON = "\x1b[?25l", "\x1b[?25h"
_CLEAR_ROW = "\x1b[2K"
# Cleared from the second column on: if the first cell of the screen is included, tmux moves the
# cleared lines into the scrollback.
_CLEAR_BELOW = f"\r{_CLEAR_ROW}\x1b[1C\x1b[J\r"
_SAVE, _RESTORE, _DOWN, _TO_THE_END = "\x1b7", "\x1b8", "\x1b[1B", "\x1b[999B"
# In bytes. Linux passes a longer write to the terminal in parts of this size.
_PART = 2048
# The width of half a window of 80 columns that is split in two.
_HALF_A_WINDOW = 39


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the stream's terminal; 80 × 24 if it has none."""
    with contextlib.suppress(OSError, ValueError):
        columns, rows = os.get_terminal_size(stream.fileno())
        if columns > 0 and rows > 0:
            return columns, rows
    fallback = shutil.get_terminal_size()
    return fallback.columns, fallback.lines


def most_rows(size: tuple[int, int]) -> int:
    """How many rows a live region may have on a screen of that size (columns and rows).

    If a window becomes half as wide, each row is folded into two or three. Rows that do not fit on
    the screen then go into the scrollback, where they cannot be removed.
    """
    columns, rows = size
    half = max(1, rows // 2)
    return half if columns <= 2 * _HALF_A_WINDOW else max(min(half, 4), rows // 3)


def _scrolls_when_folding() -> bool:
    """Whether the terminal is tmux or a similar program. When such a program folds rows, it scrolls
    by as many rows, even if there are empty rows below."""
    return "TMUX" in os.environ or os.environ.get("TERM", "").startswith(("tmux", "screen"))


class Screen:
    """The part of a terminal below the permanent lines, with a live region.

    size: returns the size of the terminal; called for each frame. low: whether the region may be
    drawn at the bottom of the screen, with empty rows above it, on a terminal that would scroll it
    away otherwise.
    """

    def __init__(self, stream: TextIO, size: Size | None = None, *, low: bool = False) -> None:
        self._stream = stream
        self.size = size or (lambda: terminal_size(stream))
        self._low = low and _scrolls_when_folding()
        self._shown: list[str] = []
        self._drawn_at = (0, 0)
        # The lines that the region will show when this program has the terminal again.
        self._unseen: list[str] = []
        self._hold = Hold(self._leave, self._take, self._lose, self._above)

    def commit(self, lines: Sequence[str], region: Sequence[str] | None = None) -> None:
        """Print permanent `lines` (ANSI, without line ends) above the region.

        region: the new lines of the region, which are shown in the same frame; None keeps the
        present ones.
        """
        if not lines:
            if region is not None:
                self.paint(region)
            return
        if is_away():
            self._unseen = list(self._unseen if region is None else region)
            self._write("".join(f"{line}\r\n" for line in lines))
            return
        below = self._fitting(self._shown if region is None else region)
        frame = self._erase() + _WRAP_ON + "".join(f"{line}\r\n" for line in lines)
        self._write(frame, self._draw(below))

    def paint(self, lines: Sequence[str]) -> None:
        """Show `lines` as the live region, in place of its present ones. Without lines, the region
        is removed.

        The terminal cuts lines that are too wide. If there are more lines than `most_rows`, the
        first ones are left out, so that the region never scrolls.
        """
        if is_away():
            self._unseen = list(lines)
            hold(self._hold)
            return
        region = self._fitting(lines)
        same_size = self.size() == self._drawn_at
        if region == self._shown and same_size:
            return
        frame = "" if same_size and len(region) >= len(self._shown) else self._erase()
        self._write(frame + self._draw(region))

    def close(self) -> None:
        """Remove the region, and leave the terminal as it was."""
        release(self._hold)
        self._unseen = []
        self._write(self._erase())

    def _leave(self) -> None:
        """Remove the region for a while."""
        self._unseen = self._shown
        self._write(self._erase())

    def _lose(self) -> None:
        """Forget the region and do not touch it, because others have written below it or into
        it."""
        self._unseen, self._shown = self._shown, []

    def _take(self) -> None:
        """Clear everything below the cursor, and draw the region there."""
        region = self._fitting(self._shown or self._unseen)
        self._shown, self._unseen = [], []
        if region:
            self._write(_CLEAR_BELOW + self._draw(region))

    def _above(self, lines: Sequence[str]) -> bool:
        """Print the lines above the region, if rows of it are on the screen. Returns whether they
        are."""
        shown = bool(self._shown)
        if shown:
            self.commit(lines)
        return shown

    def _fitting(self, lines: Sequence[str]) -> list[str]:
        return list(lines)[-most_rows(self.size()) :]

    def _draw(self, region: Sequence[str]) -> str:
        """The sequence that changes the present region to `region`, which has at least as many
        rows."""
        self._drawn_at = self.size()
        if not region:
            return ""
        hold(self._hold)
        more = len(region) - 1
        up = f"\x1b[{more}A" if more else ""
        parts = [_WRAP_OFF, "\r"]
        if self._low:
            # Line feeds make room for the region, if there is too little below the cursor.
            parts += ["\n" * more, up, _SAVE, _TO_THE_END, up]
        for number, line in enumerate(region):
            if number:
                parts.append("\r\n")
            old = self._shown[number] if number < len(self._shown) else None
            if line != old or self._low:
                parts += [_CLEAR_ROW, line]
        parts += [_WRAP_ON, *((_RESTORE,) if self._low else ("\r", up))]
        self._shown = list(region)
        return "".join(parts)

    def _erase(self) -> str:
        """The sequence that clears the region. The cursor stays at the beginning of the region."""
        if not self._shown:
            return ""
        rows, self._shown = len(self._shown), []
        if self._low or self._drawn_at != self.size():
            # The end of the region is unknown, but there is nothing else below it.
            return _CLEAR_BELOW
        # The window may have become lower since its size was read. Then moving down stops early at
        # the last row, and moving up by as many rows would reach the lines above the region.
        clear = _DOWN.join([_CLEAR_ROW] * rows)
        return f"\r{_SAVE}{clear}{_RESTORE}" if rows > 1 else f"\r{clear}"

    def _write(self, frame: str, region: str = "") -> None:
        """Write a frame to the terminal. region: the part of the frame that draws the region, if
        permanent lines come before it."""
        if not frame and not region:
            return
        cursor = _CURSOR_OFF if self._shown else _CURSOR_ON
        begin, end = f"{_SYNC_ON}{_CURSOR_OFF}{frame}", f"{region}{cursor}{_SYNC_OFF}"
        if region and len(begin) + len(end) > _PART // 2:
            # A terminal may be resized between two parts of a long write. Within a frame, the
            # position of the cursor would be lost; between lines, the cursor is at the start of the
            # region. The write does not end in a line feed, because `print_above` would take it for
            # a line of another writer.
            self._stream.write(f"{begin}{_CURSOR_OFF}")
            self._stream.flush()
            begin = ""
        self._stream.write(f"{begin}{end}")
        self._stream.flush()
