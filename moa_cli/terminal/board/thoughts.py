"""Shows the aggregator's reasoning before the reply, if the user wants to see it."""

from __future__ import annotations

from typing import TextIO

from moa_cli.core import events
from moa_cli.core.events import Event
from moa_cli.core.sanitize import Sanitizer, one_line
from moa_cli.terminal.board.view import MARKS
from moa_cli.terminal.line import Line, Styles, plain, sure, wrap

_INDENT = "  "


class ThoughtRows:
    """Reasoning as rows for a terminal. A row is final as soon as the next one begins."""

    def __init__(self, styles: Styles) -> None:
        self._styles = styles
        self._sanitizer = Sanitizer()
        self._name = ""
        self._rest = ""
        self._began = False

    def begin(self, name: str) -> None:
        self._sanitizer, self._name, self._rest, self._began = Sanitizer(), name, "", False

    def feed(self, text: str) -> None:
        self._rest += sure(self._sanitizer.feed(text)).expandtabs(4)

    def final(self, width: int, *, end: bool = False) -> list[str]:
        """The rows that have become final. Each row is returned only once. end: whether all
        reasoning has come."""
        if end:
            self._rest = (self._rest + self._sanitizer.flush()).rstrip()
        if not self._began:
            self._rest = self._rest.lstrip()
            if not self._rest:
                return []
        *lines, rest = self._rest.split("\n")
        rows = [row for line in lines for row in wrap(line, self._width(width))]
        *more, self._rest = wrap(rest, self._width(width))
        if end:
            more, self._rest = [*more, self._rest] if self._rest else more, ""
        head = [] if self._began else [self._head(width)]
        self._began = not end
        return [*head, *map(self._painted, [*rows, *more])]

    def open(self) -> list[str]:
        """The row that is not final yet."""
        return [self._painted(self._rest)] if self._rest else []

    def _width(self, width: int) -> int:
        return max(8, width - len(_INDENT))

    def _painted(self, row: str) -> str:
        return self._styles.paint(_INDENT + row, "dim") if row else ""

    def _head(self, width: int) -> str:
        name = (plain(self._name), "bold")
        return Line(MARKS["thinking"], " ", name, (" thinks:", "dim")).cut(width).ansi(self._styles)


class PlainThoughts:
    """A sink that writes the aggregator's reasoning as it comes, unwrapped, below a heading. It has
    to come before the sink of the reply."""

    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._sanitizer = Sanitizer()
        self._model = ""
        self._wrote = ""

    def handle(self, event: Event) -> None:
        match event:
            case events.AggregatorDelta():
                if event.reasoning:
                    self._write(self._sanitizer.feed(event.reasoning))
                if event.text:
                    self.close()
            case events.AggregatorStarted():
                self.close()
                self._model = event.model
            case events.AggregatorFinished() | events.AggregatorFailed():
                self.close()

    def _write(self, text: str) -> None:
        if not self._wrote:
            text = text.lstrip()
            if text:
                self._err.write(f"moa: {one_line(self._model)} thinks:\n")
        if text:
            self._err.write(text)
            self._err.flush()
            self._wrote = text

    def close(self) -> None:
        """End the reasoning, with a line end."""
        rest = self._sanitizer.flush()
        if self._wrote:
            self._err.write(rest + "\n" * (not (rest or self._wrote).endswith("\n")))
            self._err.flush()
        self._sanitizer, self._wrote = Sanitizer(), ""
