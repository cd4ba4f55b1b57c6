"""Lets the user choose a conversation to continue from a list that narrows while they type."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input

from moa_cli.chat.pick_list import MOST_MATCHES, PickList, steady
from moa_cli.chat.pick_list import can_pick as can_pick
from moa_cli.core.errors import StoreError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import when_text
from moa_cli.terminal.table import cell_len, fitted, padded

if TYPE_CHECKING:
    from moa_cli.store.reading import ConversationMatch
    from moa_cli.store.store import Store

_PROFILE_CELLS = 16
# The words of the list for a last turn without a whole reply, by the status of the turn.
_ENDED = {"interrupted": "cut off", "failed": "failed", "open": "running"}
# The store marks hits with these characters.
_HIT, _HIT_END = "\x02", "\x03"


async def pick(open_store: Callable[[], Store], *, source: Input | None = None) -> str | None:
    """Let the user choose a conversation. Returns its id; None if the user left the list.

    open_store: opens the store; called in the thread that queries it. source: the input in place of
    the terminal's keyboard. Raises StoreError if there is no conversation.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        store = thread.submit(open_store).result()
        try:
            first = thread.submit(store.matching, "", limit=MOST_MATCHES).result()
            if not first:
                raise StoreError("there is no conversation to continue")
            return await _Picker(store, thread, first, source).run()
        finally:
            store.interrupt()
            thread.submit(store.close).result()


class _Picker(PickList[str]):
    """The list of conversations, which another thread reads from the store."""

    def __init__(
        self,
        store: Store,
        thread: ThreadPoolExecutor,
        matches: list[ConversationMatch],
        source: Input | None,
    ) -> None:
        super().__init__("Resume: ", source)
        self._store = store
        self._thread = thread
        # The text that the matches belong to.
        self._answered = ""
        self._changed = asyncio.Event()
        self._accepting = False
        self._trouble = ""
        self._take(matches)

    def narrow(self) -> None:
        self._store.interrupt()
        self._changed.set()

    async def follow(self) -> None:
        """Query the store each time the typed text has changed."""
        loop = asyncio.get_running_loop()
        while True:
            await self._changed.wait()
            self._changed.clear()
            text = self._line.text
            ask = partial(self._store.matching, text, limit=MOST_MATCHES)
            try:
                matches = await loop.run_in_executor(self._thread, ask)
            except StoreError as error:
                if self._changed.is_set():
                    # `narrow` interrupted the query.
                    continue
                matches, self._trouble = [], error.message
            else:
                self._trouble = ""
            self._answered = text
            self._take(matches)
            if self._accepting and text == self._line.text:
                self.accept()

    def _take(self, matches: list[ConversationMatch]) -> None:
        self._matches = matches
        names = (one_line(match.summary.profile) for match in matches)
        self._longest = max(map(cell_len, names), default=0)
        self.shown_anew(from_top=True)

    def accept(self) -> None:
        # The list may still belong to an older text. Then the choice waits for the new list.
        self._accepting = self._answered != self._line.text
        if not self._accepting and self._matches:
            self.leave(self._matches[self._place].summary.id)

    def count(self) -> int:
        return len(self._matches)

    def row(self, place: int, columns: int) -> tuple[str, str]:
        return _row(self._matches[place], columns, self._longest)

    def below(self, place: int, columns: int) -> StyleAndTextTuples:
        count = len(self._matches)
        if not count:
            text = self._trouble or "no conversation contains these words"
            return [("class:dim", f"\n\n{fitted(text, columns)}")]
        told = f"the latest {count}" if count == MOST_MATCHES else f"{place + 1}/{count}"
        keys = f"{told} · ↑↓ choose · Enter resumes · Esc leaves"
        match = self._matches[place]
        if match.snippet:
            about = _snippet(match.snippet, columns)
        else:
            ends = (f"› {match.prompt}", match.reply or "(no reply)")
            about = [("class:dim", "".join(f"{steady(end, columns)}\n" for end in ends))]
        return [*about, ("class:dim", fitted(keys, columns))]


def _row(match: ConversationMatch, columns: int, longest: int) -> tuple[str, str]:
    """A row of the list: date, turns and profile as far as there is room, and the title. If the
    last turn has no whole reply, a word before the title says so.

    longest: the width of the longest name of a profile, in cells.
    """
    summary = match.summary
    turns = f"{summary.turns} turn{'s' if summary.turns != 1 else ' '}"
    when = when_text(summary.updated)
    if columns < 55:
        before = f"{when[5:10]}  "
    elif columns < 75:
        before = f"{when}  {turns:>9}  "
    else:
        before = f"{when}  {turns:>9}  {padded(summary.profile, min(longest, _PROFILE_CELLS))}  "
    ended = f"({_ENDED[match.status]}) " if match.status in _ENDED else ""
    return before, steady(f"{ended}{summary.title}", columns - cell_len(before))


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
        shown = steady(word, columns) if word != " " else word
        if used + cell_len(shown) > columns:
            if line == 2:
                break
            made.append(("", "\n"))
            line, used, shown = 2, 0, shown.lstrip()
        made.append((style, shown))
        used += cell_len(shown)
    return [*made, ("", "\n" * (3 - line))]
