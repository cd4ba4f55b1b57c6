"""Signs for a user who looks elsewhere: the terminal's title while a turn runs, and a bell at the
end of a long turn."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

from moa_cli.core import events
from moa_cli.core.events import Event
from moa_cli.core.sanitize import one_line

if TYPE_CHECKING:
    from moa_cli.terminal.board.status import TurnStatus

_PUSH, _POP = "\x1b[22;2t", "\x1b[23;2t"
# Values of TERM without a window title: these terminals ignore the sequence, or show it as text.
_WITHOUT_TITLE = ("linux", "cons25", "vt100", "vt102", "vt220", "ansi")
_LONGEST = 60


class Attention:
    """A sink that sets the title and rings the bell of a terminal.

    bell: a turn of this many seconds or more ends with a bell, unless the user stopped it; 0 for
    never. titled: the status for the title; None does not change the title. The terminal saves its
    title before, and restores it at the end.
    """

    def __init__(self, stream: TextIO, *, bell: float, titled: TurnStatus | None = None) -> None:
        self._stream = stream
        self._bell = bell
        self._titled = titled if os.environ.get("TERM", "") not in _WITHOUT_TITLE else None
        self._shown = ""
        self._rings = False

    def handle(self, event: Event) -> None:
        if self._titled is not None:
            self._titled.take(event)
        match event:
            # The most frequent events come first. Only the first piece of an answer changes the
            # title.
            case events.ProposerDelta():
                return
            case events.AggregatorDelta():
                if not self._shown.endswith("writing") and event.text:
                    self._show()
            case events.TurnFinished() | events.TurnFailed():
                self._rings = 0 < self._bell <= event.seconds
            case _:
                self._show()

    def _show(self) -> None:
        if self._titled is None:
            return
        title = one_line(f"moa: {self._titled.title()}", _LONGEST)
        if title != self._shown:
            push = "" if self._shown else _PUSH
            self._shown = title
            self._write(f"{push}\x1b]2;{title}\x1b\\")

    def close(self) -> None:
        pop = _POP if self._shown else ""
        self._shown = ""
        self._write(pop + "\a" * self._rings)
        self._rings = False

    def _write(self, text: str) -> None:
        if text:
            self._stream.write(text)
            self._stream.flush()
