"""A real terminal with a scrollback that reflows: tmux, without a terminal of its own around it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.command import PATIENCE

__all__ = ["Tmux", "needs_tmux"]

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux")

# Nothing is bound or drawn by tmux itself; an Esc is passed on at once.
_SETTINGS = """
set -g history-limit 1000000
set -g status off
set -s escape-time 0
set -g default-terminal tmux-256color
set -g remain-on-exit on
set -g focus-events off
"""
_LOOK_SECONDS = 0.03


class Tmux:
    """A window of tmux with a program in it.

    Args:
        folder: Where tmux keeps its socket, and the program begins.
        environment: All of the program's environment.
        command: The program and its arguments.
        columns: The window's width.
        rows: The window's height.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *command: str,
        columns: int = 80,
        rows: int = 24,
    ) -> None:
        self._socket = folder / "tmux"
        settings = folder / "tmux.conf"
        settings.write_text(_SETTINGS, "utf-8")
        self._environment = {name: text for name, text in environment.items() if name != "TMUX"}
        size = ("-x", str(columns), "-y", str(rows))
        self._folder = folder
        self._do("-f", str(settings), "new-session", "-d", *size, *command)
        # Else the size would follow terminals that attach.
        self._do("set", "-g", "window-size", "manual")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._do("kill-server", check=False)

    def _do(self, *arguments: str, check: bool = True, given: str | None = None) -> str:
        ran = subprocess.run(
            ["tmux", "-u", "-S", str(self._socket), *arguments],
            env=self._environment,
            cwd=self._folder,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0 or not check, f"tmux {arguments}: {ran.stderr}"
        return ran.stdout

    def type(self, text: str) -> None:
        """Type characters."""
        self._do("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names for them, such as `Enter`, `Escape`, `C-c`."""
        self._do("send-keys", *keys)

    def paste(self, text: str) -> None:
        """Paste, as terminals do: marked, if the program has asked for that."""
        self._do("load-buffer", "-", given=text)
        self._do("paste-buffer", "-p", "-r")

    def resize(self, columns: int, rows: int) -> None:
        """As the user pulls at the window's corner."""
        self._do("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self) -> list[str]:
        """The rows of the screen, without spaces at their ends."""
        return self._do("capture-pane", "-p").rstrip("\n").split("\n")

    def lines(self, *, joined: bool = True) -> list[str]:
        """The scrollback and the screen. joined: rows that tmux itself has folded are one line."""
        text = self._do("capture-pane", "-p", "-S", "-", *(["-J"] if joined else []))
        return [line.rstrip() for line in text.rstrip("\n").split("\n")]

    def pid(self) -> int:
        """The process id of the program."""
        return int(self._do("display-message", "-p", "#{pane_pid}"))

    def shows_cursor(self) -> bool:
        """Whether the cursor can be seen."""
        return self._do("display-message", "-p", "#{cursor_flag}").strip() == "1"

    def cursor_row(self) -> str:
        """The row of the screen on which the cursor stands."""
        return self.screen_row(int(self._do("display-message", "-p", "#{cursor_y}")))

    def screen_row(self, number: int) -> str:
        """A row of the screen, counted from 0; empty below what has been written."""
        rows = self.screen()
        return rows[number] if number < len(rows) else ""

    def wait_for(self, what: str | Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Until a text is to be seen on the screen or a predicate holds."""
        deadline = time.monotonic() + seconds
        while not (what in "\n".join(self.screen()) if isinstance(what, str) else what()):
            if time.monotonic() > deadline:
                screen = "\n".join(self.screen())
                raise AssertionError(f"not within {seconds} s: {what}; there is:\n{screen}")
            time.sleep(_LOOK_SECONDS)
