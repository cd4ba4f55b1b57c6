"""A list at the terminal that is filtered while the user types, with lines about the marked row."""

from __future__ import annotations

import sys
from collections.abc import Callable
from string import ascii_uppercase
from typing import Generic, TypeVar

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import BufferControl, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.styles import Style

from moa_cli.chat.keys import ESCAPE_SECONDS, held, own_keys, terminal_output
from moa_cli.core.sanitize import one_line
from moa_cli.terminal.suspension import suspend
from moa_cli.terminal.table import fitted
from moa_cli.terminal.tty import can_redraw

_T = TypeVar("_T")

_MOST_ROWS = 15
# Two lines about the marked row, and one about the list.
_ROWS_BELOW = 3
# The most rows of a list. Users do not scroll through a longer one.
MOST_MATCHES = 200
# Terminals disagree about the width of emoji that are joined from several characters. So the
# joiners are removed, and the letters of flags become plain letters, which gives a certain width.
_JOINING = dict.fromkeys([0x200D, 0xFE0E, 0xFE0F, *range(0x1F3FB, 0x1F400)], "") | {
    0x1F1E6 + place: letter for place, letter in enumerate(ascii_uppercase)
}
_STYLE = Style.from_dict({"chosen": "bold", "dim": "ansibrightblack", "hit": "bold underline"})


def can_pick() -> bool:
    """Whether there is a terminal that can show the list."""
    streams = (sys.stdout, sys.stderr)
    return sys.stdin is not None and sys.stdin.isatty() and any(map(can_redraw, streams))


class PickList(Generic[_T]):
    """The list, the line that the user types, and the marked row.

    A subclass defines the rows, and what happens when the user acts. label: stands before the line.
    source: the input in place of the terminal's keyboard. typed: the text of the line at first.
    """

    def __init__(self, label: str, source: Input | None, typed: str = "") -> None:
        self._place = 0
        self._top = 0
        # The highest number of rows so far. The list keeps this height when it gets fewer rows.
        self._most = 0
        self._line = Buffer(multiline=False)
        self._line.insert_text(typed)
        self._line.on_text_changed += lambda _: self.narrow()
        self._label = label
        self._app: Application[_T | None] = Application(
            layout=self._layout(),
            key_bindings=self._keys(),
            style=_STYLE,
            erase_when_done=True,
            input=source,
            output=terminal_output(),
        )
        self._app.ttimeoutlen = self._app.timeoutlen = ESCAPE_SECONDS

    async def run(self) -> _T | None:
        """Show the list until the user chooses or leaves."""

        def begin() -> None:
            self._app.create_background_task(self.follow())

        with held(self._app):
            return await self._app.run_async(pre_run=begin)

    async def follow(self) -> None:
        """Update the rows while the list is shown. It runs in the background."""
        raise NotImplementedError

    def narrow(self) -> None:
        """Called when the user has changed the line."""
        raise NotImplementedError

    def count(self) -> int:
        """How many rows there are now."""
        raise NotImplementedError

    def row(self, place: int, columns: int) -> tuple[str, str]:
        """A row in two pieces. The second piece is bold if the row is marked."""
        raise NotImplementedError

    def below(self, place: int, columns: int) -> StyleAndTextTuples:
        """Two lines about the marked row, and one about the list. place: of the marked row; 0 if
        there is no row."""
        raise NotImplementedError

    def accept(self) -> None:
        """Called when the user has pressed Enter."""
        raise NotImplementedError

    def more_keys(self, keys: KeyBindings) -> None:
        """Add the keys that only this list has."""

    def leave(self, chosen: _T | None) -> None:
        """Close the list, with this choice as the result of `run`."""
        # New rows may arrive after the key that leaves the list.
        if not self._app.is_done:
            self._app.exit(result=chosen)

    def shown_anew(self, *, from_top: bool) -> None:
        """Redraw the list, because its rows have changed. from_top: whether to mark the first
        row."""
        self._most = max(self._most, self.count())
        if from_top:
            self._place = self._top = 0
        self._place = max(0, min(self._place, self.count() - 1))
        self._app.invalidate()

    def _keys(self) -> KeyBindings:
        keys = own_keys()

        def on(*names: str, act: Callable[[], None]) -> None:
            for name in names:
                keys.add(name)(lambda event: act())

        def paste(event: KeyPressEvent) -> None:
            self._line.insert_text(one_line(event.data))

        on("enter", "c-j", act=self.accept)
        on("escape", "c-c", "c-d", act=lambda: self.leave(None))
        on("up", "c-p", act=lambda: self._move(-1))
        on("down", "c-n", act=lambda: self._move(1))
        on("pageup", act=lambda: self._move(-self._list_rows()))
        on("pagedown", act=lambda: self._move(self._list_rows()))
        on("home", act=lambda: self._move(-MOST_MATCHES))
        on("end", act=lambda: self._move(MOST_MATCHES))
        on("c-u", act=lambda: setattr(self._line, "text", ""))
        on("c-z", act=suspend)
        keys.add(Keys.BracketedPaste)(paste)
        self.more_keys(keys)
        return keys

    def _move(self, by: int) -> None:
        self._place = max(0, min(self._place + by, self.count() - 1))

    def _layout(self) -> Layout:
        line = BufferControl(self._line, input_processors=[BeforeInput(self._label)])
        rows = FormattedTextControl(self._rows)
        below = FormattedTextControl(lambda: self.below(self._place, self._size()[0]))
        parts = [
            Window(line, height=1, dont_extend_height=True),
            Window(rows, height=self._list_rows, dont_extend_height=True),
            Window(below, height=self._rows_below, dont_extend_height=True),
        ]
        return Layout(HSplit(parts))

    def _size(self) -> tuple[int, int]:
        """The columns and rows that the list may use."""
        size = self._app.output.get_size()
        return max(1, size.columns - 1), max(2, min(_MOST_ROWS, size.rows - 1))

    def _rows_below(self) -> int:
        return _ROWS_BELOW if self._size()[1] > 2 * _ROWS_BELOW else 0

    def _list_rows(self) -> int:
        return max(1, min(self._most, self._size()[1] - 1 - self._rows_below()))

    def _rows(self) -> StyleAndTextTuples:
        height = self._list_rows()
        self._top = max(self._place - height + 1, min(self._top, self._place))
        columns, _ = self._size()
        made: StyleAndTextTuples = []
        for place in range(self._top, min(self._top + height, self.count())):
            marked = place == self._place
            made.append(("class:chosen" if marked else "", "› " if marked else "  "))
            before, title = self.row(place, columns - 2)
            made.append(("" if marked else "class:dim", before))
            made.append(("class:chosen" if marked else "", f"{title}\n"))
        return made


def steady(text: str, cells: int) -> str:
    """The text in at most `cells`, without characters whose width differs among terminals."""
    return fitted(text.translate(_JOINING), cells)
