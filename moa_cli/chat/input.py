"""The line that the user types: editing, history, completion."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.filters import is_searching
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

from moa_cli import paths
from moa_cli.chat.commands import complete
from moa_cli.chat.session import Session

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

__all__ = ["prompt_session"]

# Esc waits this long for the rest of a key sequence; the default of 1.5 s feels dead.
_KEY_SECONDS = 0.05


class _Commands(Completer):
    """Completes slash commands and their values."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        line = document.text_before_cursor
        if not line.startswith("/") or line.startswith("//") or "\n" in line:
            return
        typed = line.partition(" ")[2] if " " in line else line
        for word in complete(line, self._session):
            yield Completion(word, start_position=-len(typed))


class _PromptHistory(FileHistory):
    """A file of prompts, each as Unicode: a paste may hold half a surrogate pair."""

    def store_string(self, string: str) -> None:
        super().store_string(string.encode("utf-8", "replace").decode())


def _history(path: Path) -> History:
    """Prompts typed before, in a file that only its owner can read; in memory if it cannot be."""
    try:
        paths.make_private(path.parent)
        # FileHistory would create it readable by all.
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600))
    except OSError:
        return InMemoryHistory()
    return _PromptHistory(str(path))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    # Without the filter, Enter would leave an incremental search open for ever.
    @keys.add("enter", filter=~is_searching)
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def prompt_session(
    session: Session, *, source: Input | None = None, output: Output | None = None
) -> PromptSession[str]:
    """The editor of a chat. source, output: in place of the process's terminal."""
    editor: PromptSession[str] = PromptSession(
        history=_history(paths.history_file()),
        completer=_Commands(session),
        complete_while_typing=False,
        auto_suggest=AutoSuggestFromHistory(),
        key_bindings=_keys(),
        multiline=True,
        prompt_continuation="… ",
        enable_open_in_editor=False,
        input=source,
        # The prompt is for the user, also where standard output goes to a file.
        output=output or create_output(always_prefer_tty=True),
    )
    editor.app.ttimeoutlen = _KEY_SECONDS
    editor.app.timeoutlen = _KEY_SECONDS
    return editor
