"""Shows the progress of work on many results."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from moa_cli.core.conversation import Usage
from moa_cli.core.debug_log import on_terminal
from moa_cli.core.money import cost_text
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.terminal.tty import can_redraw

_BAR_CELLS = 24
# Without a live display, at most about this many progress lines are printed.
_STEPS = 20


@dataclass
class Progress:
    """The progress of work on many results.

    total: the number of results. done, failed: how many of them are done, or have failed. before:
    how many had ended when this process began. in_flight: returns the number of calls in flight.
    waiting: returns the number of calls that wait for a provider. held: returns the seconds for
    which a provider asked to wait. bound_by: returns what limits the rate, and why. spent: the
    usage of this process.
    """

    total: int
    done: int = 0
    failed: int = 0
    before: int = 0
    in_flight: Callable[[], int] = lambda: 0
    waiting: Callable[[], int] = lambda: 0
    held: Callable[[], float] = lambda: 0.0
    bound_by: Callable[[], str] = lambda: ""
    spent: Usage = field(default_factory=Usage)
    began: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> int:
        return self.done + self.failed

    def text(self) -> str:
        """The figures as a line, the most important first."""
        seconds = max(time.monotonic() - self.began, 0.001)
        here = self.ended - self.before
        parts = [f"{self.ended:,} of {plural(self.total, 'result')}"]
        parts += [f"{self.failed:,} failed"] * bool(self.failed)
        parts += [f"{self.in_flight()} in flight", f"{self.spent.calls / seconds:.1f} calls/s"]
        parts += [f"{self.waiting()} waiting"] * (self.waiting() > 0)
        parts += [f"told to wait {duration(self.held())}"] * (self.held() >= 1)
        bound_by = self.bound_by()
        parts += [f"bound by: {bound_by}"] * bool(bound_by)
        parts += [cost_text(self.spent)] * bool(self.spent.calls)
        if here > 0:
            parts.append(f"{duration((self.total - self.ended) * seconds / here)} left")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """`42 s`, `4:07`, `1:04:07`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ProgressView:
    """Shows a Progress in permanent lines, about twenty in all."""

    def __init__(self, stream: TextIO, progress: Progress) -> None:
        self._stream = stream
        self._progress = progress
        self._told = self._step()

    def _step(self) -> int:
        return self._progress.ended * _STEPS // max(1, self._progress.total)

    def start(self) -> None:
        """Begin to show the progress, in the running event loop."""

    def changed(self) -> None:
        if self._step() != self._told:
            self._told = self._step()
            self.say(self._progress.text())

    def say(self, text: str) -> None:
        self._stream.write(f"moa: {one_line(text)}\n")
        self._stream.flush()

    def close(self) -> None:
        """Stop showing the progress."""


class _Moving(ProgressView):
    """Shows a Progress in one live line."""

    def __init__(self, stream: TextIO, progress: Progress) -> None:
        super().__init__(stream, progress)
        from moa_cli.terminal.board.live import Ticker, console_for
        from moa_cli.terminal.board.screen import Screen

        self._screen = Screen(stream)
        self._console = console_for(stream)
        self._ticker = Ticker(self._draw)

    def start(self) -> None:
        self._ticker.start()

    def _draw(self) -> None:
        from rich.text import Text

        from moa_cli.terminal.line import to_lines

        progress, width = self._progress, self._screen.size()[0]
        filled = _BAR_CELLS * progress.ended // max(1, progress.total)
        text = Text("━" * filled, "green") + Text("━" * (_BAR_CELLS - filled), "dim")
        text = text + Text(f" {progress.text()}")
        text.truncate(max(1, width - 1), overflow="ellipsis")
        self._screen.paint(to_lines(self._console, text, width))

    def changed(self) -> None:
        """Nothing to do: the next frame shows the change."""

    def say(self, text: str) -> None:
        self._screen.commit([f"moa: {one_line(text)}"])

    def close(self) -> None:
        self._ticker.stop()
        self._screen.close()


def progress_view(stream: TextIO, progress: Progress, *, live: bool) -> ProgressView:
    """A view with a live line; or with permanent lines, if the stream cannot be redrawn or `live`
    is false."""
    moving = live and can_redraw(stream) and not on_terminal()
    return (_Moving if moving else ProgressView)(stream, progress)
