"""Lets the user choose a conversation to continue from a list that narrows while they type."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from string import ascii_uppercase
from typing import TYPE_CHECKING

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import BufferControl, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output import create_output
from prompt_toolkit.styles import Style

from moa_cli.core.errors import StoreError
from moa_cli.core.sanitize import one_line
from moa_cli.terminal.table import cell_len, fitted, padded
from moa_cli.terminal.tty import can_redraw

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

    from moa_cli.store.reading import ConversationMatch
    from moa_cli.store.store import Store

_MOST_ROWS = 15
# Two lines about the marked conversation, and one about the list.
_ROWS_BELOW = 3
_PROFILE_CELLS = 16
# Nobody scrolls through a longer list.
_MOST_MATCHES = 200
# How long an Esc waits for the rest of a terminal's sequence.
_ESCAPE_SECONDS = 0.05
# How a turn without a whole reply is named in the list.
_ENDED = {"interrupted": "cut off", "failed": "failed", "open": "running"}
# The store marks hits with these.
_HIT, _HIT_END = "\x02", "\x03"
# Terminals disagree about the width of emoji that are joined from several characters. Without the
# joiners the width is certain; the letters of flags become plain letters.
_JOINING = dict.fromkeys([0x200D, 0xFE0E, 0xFE0F, *range(0x1F3FB, 0x1F400)], "") | {
    0x1F1E6 + place: letter for place, letter in enumerate(ascii_uppercase)
}
_STYLE = Style.from_dict({"chosen": "bold", "dim": "ansibrightblack", "hit": "bold underline"})


def can_pick() -> bool:
    """Whether there is a terminal that can show the list."""
    streams = (sys.stdout, sys.stderr)
    return sys.stdin is not None and sys.stdin.isatty() and any(map(can_redraw, streams))


async def pick(
    open_store: Callable[[], Store], *, source: Input | None = None, output: Output | None = None
) -> str | None:
    """Let the user choose a conversation; its id, or None if they left the list.

    open_store: called in the thread that queries it. source, output: in place of the terminal's
    keyboard and screen. Raises StoreError if there is no conversation.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        store = thread.submit(open_store).result()
        try:
            first = thread.submit(store.matching, "", limit=_MOST_MATCHES).result()
            if not first:
                raise StoreError("there is no conversation to continue")
            output = output or create_output(always_prefer_tty=True)
            return await _Picker(store, thread, first, source, output).run()
        finally:
            store.interrupt()
            thread.submit(store.close).result()


class _Picker:
    """The list, the line that the user types, and the marked conversation."""

    def __init__(
        self,
        store: Store,
        thread: ThreadPoolExecutor,
        matches: list[ConversationMatch],
        source: Input | None,
        output: Output,
    ) -> None:
        self._store = store
        self._thread = thread
        self._matches = matches
        # The text that the matches belong to.
        self._answered = ""
        self._changed = asyncio.Event()
        self._accepting = False
        self._place = 0
        self._top = 0
        self._trouble = ""
        self._most = len(matches)
        self._line = Buffer(multiline=False, on_text_changed=self._typed)
        self._app: Application[str | None] = Application(
            layout=self._layout(),
            key_bindings=self._keys(),
            style=_STYLE,
            erase_when_done=True,
            input=source,
            output=output,
        )
        self._app.ttimeoutlen = self._app.timeoutlen = _ESCAPE_SECONDS

    async def run(self) -> str | None:
        """Show the list until the user chooses or leaves."""

        def begin() -> None:
            self._app.create_background_task(self._keep_up())

        return await self._app.run_async(pre_run=begin)

    def _typed(self, line: Buffer) -> None:
        self._store.interrupt()
        self._changed.set()

    async def _keep_up(self) -> None:
        """Query the store each time the typed text has changed."""
        loop = asyncio.get_running_loop()
        while True:
            await self._changed.wait()
            self._changed.clear()
            text = self._line.text
            ask = partial(self._store.matching, text, limit=_MOST_MATCHES)
            try:
                matches = await loop.run_in_executor(self._thread, ask)
            except StoreError as error:
                if self._changed.is_set():
                    # `_typed` interrupted the query.
                    continue
                matches, self._trouble = [], error.message
            else:
                self._trouble = ""
            self._matches, self._answered = matches, text
            self._most = max(self._most, len(matches))
            self._place = self._top = 0
            if self._accepting and text == self._line.text:
                self._accept()
            self._app.invalidate()

    def _accept(self) -> None:
        # The list may still be the one for a shorter text than the user has typed by now.
        self._accepting = self._answered != self._line.text
        if not self._accepting and self._matches:
            self._leave(self._matches[self._place].summary.id)

    def _leave(self, chosen: str | None) -> None:
        # New matches may arrive after the key that leaves the list.
        if not self._app.is_done:
            self._app.exit(result=chosen)

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        def on(*names: str, act: Callable[[], None]) -> None:
            for name in names:
                keys.add(name)(lambda event: act())

        def paste(event: KeyPressEvent) -> None:
            self._line.insert_text(one_line(event.data))

        on("enter", "c-j", act=self._accept)
        on("escape", "c-c", "c-d", act=lambda: self._leave(None))
        on("up", "c-p", act=lambda: self._move(-1))
        on("down", "c-n", act=lambda: self._move(1))
        on("pageup", act=lambda: self._move(-self._list_rows()))
        on("pagedown", act=lambda: self._move(self._list_rows()))
        on("home", act=lambda: self._move(-_MOST_MATCHES))
        on("end", act=lambda: self._move(_MOST_MATCHES))
        on("c-u", act=lambda: setattr(self._line, "text", ""))
        keys.add(Keys.BracketedPaste)(paste)
        return keys

    def _move(self, by: int) -> None:
        self._place = max(0, min(self._place + by, len(self._matches) - 1))

    def _layout(self) -> Layout:
        line = BufferControl(self._line, input_processors=[BeforeInput("Resume: ")])
        rows = FormattedTextControl(self._rows)
        below = FormattedTextControl(self._below)
        parts = [
            Window(line, height=1, dont_extend_height=True),
            Window(rows, height=self._list_rows, dont_extend_height=True),
            Window(below, height=self._rows_below, dont_extend_height=True),
        ]
        return Layout(HSplit(parts))

    def _size(self) -> tuple[int, int]:
        """The columns and rows that the picker may use."""
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
        longest = max(
            (cell_len(one_line(match.summary.profile)) for match in self._matches), default=0
        )
        made: StyleAndTextTuples = []
        for place in range(self._top, min(self._top + height, len(self._matches))):
            marked = place == self._place
            made.append(("class:chosen" if marked else "", "› " if marked else "  "))
            before, title = _row(self._matches[place], columns - 2, longest)
            made.append(("" if marked else "class:dim", before))
            made.append(("class:chosen" if marked else "", f"{title}\n"))
        return made

    def _below(self) -> StyleAndTextTuples:
        columns, _ = self._size()
        count = len(self._matches)
        if not count:
            text = self._trouble or "no conversation holds these words"
            return [("class:dim", f"\n\n{fitted(text, columns)}")]
        told = f"the latest {count}" if count == _MOST_MATCHES else f"{self._place + 1}/{count}"
        keys = f"{told} · ↑↓ choose · Enter resumes · Esc leaves"
        match = self._matches[self._place]
        if match.snippet:
            about = _snippet(match.snippet, columns)
        else:
            ends = (f"› {match.prompt}", match.reply or "(no reply)")
            about = [("class:dim", "".join(f"{_steady(end, columns)}\n" for end in ends))]
        return [*about, ("class:dim", fitted(keys, columns))]


def _row(match: ConversationMatch, columns: int, longest: int) -> tuple[str, str]:
    """A line of the list: date, turns and profile, as far as they leave room, and the title, behind
    how the last turn ended if it has no whole reply.

    longest: the width of the longest name of a profile, in cells.
    """
    summary = match.summary
    turns = f"{summary.turns} turn{'s' if summary.turns != 1 else ' '}"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(summary.updated))
    if columns < 55:
        before = f"{when[5:10]}  "
    elif columns < 75:
        before = f"{when}  {turns:>9}  "
    else:
        before = f"{when}  {turns:>9}  {padded(summary.profile, min(longest, _PROFILE_CELLS))}  "
    ended = f"({_ENDED[match.status]}) " if match.status in _ENDED else ""
    return before, _steady(f"{ended}{summary.title}", columns - cell_len(before))


def _steady(text: str, cells: int) -> str:
    """The text in at most `cells`, without characters whose width differs among terminals."""
    return fitted(text.translate(_JOINING), cells)


def _snippet(snippet: str, columns: int) -> StyleAndTextTuples:
    """The words around the hits, on two lines."""
    text = " ".join(snippet.split())
    if text.find(_HIT) > columns:
        text = f"…{text[text.find(_HIT) - columns // 2 :]}"
    made: StyleAndTextTuples = []
    style, line, used = "class:dim", 1, 0
    for word in re.split(f"([{_HIT}{_HIT_END} ])", text):
        if word in (_HIT, _HIT_END):
            style = "class:hit" if word == _HIT else "class:dim"
            continue
        shown = _steady(word, columns) if word != " " else word
        if used + cell_len(shown) > columns:
            if line == 2:
                break
            made.append(("", "\n"))
            line, used, shown = 2, 0, shown.lstrip()
        made.append((style, shown))
        used += cell_len(shown)
    return [*made, ("", "\n" * (3 - line))]
