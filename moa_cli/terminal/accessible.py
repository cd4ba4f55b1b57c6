"""The output of a turn for screen readers and Braille displays: text on the screen never changes.

A screen reader reads text aloud as it is added to the screen. So each line is a sentence without
symbols, and is printed once. Progress is printed at intervals, and not at each event. The reply
comes in whole sentences, because a piece of a word would be read as a word.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, TextIO

from moa_cli.core import events
from moa_cli.core.events import Event
from moa_cli.core.strategy import layer_name
from moa_cli.core.stream import Sink
from moa_cli.core.text import are, plural
from moa_cli.terminal.after_reply import AfterReply
from moa_cli.terminal.attention import Attention
from moa_cli.terminal.plain import Hint, Notices, PlainReply, Proposals, tell

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from moa_cli.terminal.sinks import Show

# Symbols that a screen reader spells out or leaves out, and the words that replace them.
_SYMBOLS = ((" → ", ", then "), (" ×", " times "), ("× ", "times "), (" · ", ", "), ("› ", ""))


def in_words(line: str) -> str:
    """A line of the program, without the symbols that a screen reader would spell out."""
    for symbol, words in _SYMBOLS:
        line = line.replace(symbol, words)
    return line


def spoken_names(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def spoken_seconds(seconds: float) -> str:
    """`1 second`, `12 seconds`, `2 minutes 5 seconds`."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    parts = [plural(minutes, "minute")] * bool(minutes) + [plural(rest, "second")] * bool(rest)
    return " ".join(parts)


def accessible_sinks(show: Show, hint: Hint) -> list[Sink]:
    """The sinks of a turn in accessible mode. hint: see `Announcements`."""
    if show.output == "jsonl":
        from moa_cli.core.jsonl import JsonLines

        return [JsonLines(sys.stdout)]
    at_terminal = sys.stdout.isatty()
    sinks: list[Sink] = []
    if not show.quiet:
        # Printed before the reply, because it says which model writes it. Notices follow.
        interval = float(show.progress_interval)
        announced = not show.verbose
        sinks.append(Announcements(sys.stderr, hint, interval, layers=announced))
    if show.show_proposals:
        sinks.append(Proposals(sys.stderr, ruled=False))
    if show.output == "text" and not show.structured:
        stream = show.stream
        sinks.append(PlainReply(sys.stdout, stream=stream, sentences=stream and at_terminal))
    if show.output == "text":
        sinks.append(AfterReply(show, apart=False))
    if not show.quiet:
        sinks.append(Notices(sys.stderr, steps=show.verbose))
        if show.bell and sys.stderr.isatty():
            sinks.append(Attention(sys.stderr, bell=show.bell))
    return sinks


def print_in_order(console: Console, drawing: RenderableType) -> None:
    """Print a drawing without columns: a table is printed cell by cell, each after the heading of
    its column.

    Underlined text, which differs from the other column, is marked in words.
    """
    from rich.table import Table
    from rich.text import Text

    from moa_cli.terminal.side_by_side import SideBySide

    if isinstance(drawing, Table):
        for row in zip(*(column.cells for column in drawing.columns), strict=True):
            for column, cell in zip(drawing.columns, row, strict=True):
                text = _marked(cell) if isinstance(cell, Text) else ""
                heading = "similarity in percent" if str(column.header) == "%" else column.header
                if text and "\n" not in text:
                    console.print(Text(f"{heading}: {text}"), soft_wrap=True)
                    continue
                console.print(Text(f"{heading}:"))
                console.print(Text(text) if text else cell)
    elif isinstance(drawing, SideBySide):
        for table in drawing.tables(console.width):
            print_in_order(console, table)
    else:
        console.print(drawing)


def _marked(cell: Text) -> str:
    """A text in which underlined parts are marked by words."""
    marked, end = "", 0
    for span in cell.spans:
        if "underline" in str(span.style):
            differs = cell.plain[span.start : span.end].strip()
            marked += f"{cell.plain[end : span.start]}(only here: {differs}) "
            end = span.end
    return marked + cell.plain[end:]


class Announcements:
    """A sink that prints, on `err`, a line for each layer with its models, a line for each model
    that writes a reply, and lines about their progress at intervals.

    hint: returns what a key does at this moment; it is printed when it has changed. interval:
    seconds between two lines about progress; 0 for none. layers: whether layers and writers are
    printed here.
    """

    def __init__(self, err: TextIO, hint: Hint, interval: float, *, layers: bool) -> None:
        self._err = err
        self._say = partial(tell, err)
        self._hint = hint
        self._interval = interval
        self._layers = layers
        self._timer: asyncio.TimerHandle | None = None
        self._hinted = ""
        self._layer = 0
        self._names: dict[int, str] = {}
        # _announced: the number of announced proposers, by layer. _waited_for: the names of the
        # proposers of the running layer that have not ended.
        self._announced: dict[int, int] = {}
        self._waited_for: dict[int, str] = {}
        self._asked = 0
        self._writer = ""
        self._began = self._last = 0.0
        self._wrote = False
        self._replaced = False

    def handle(self, event: Event) -> None:
        match event:
            case events.LayerStarted():
                self._layer_started(event)
            case events.ProposerFinished() | events.ProposerFailed() if event.layer == self._layer:
                self._waited_for.pop(event.index, None)
            case events.LayerFinished():
                if event.layer == self._layer:
                    self.close()
                if self._layers:
                    seconds = spoken_seconds(event.seconds)
                    answered = f"{event.answered} of {event.asked} answered"
                    self._say(f"{self._names[event.layer]}: {answered} in {seconds}")
            case events.AggregatorStarted():
                self._aggregator_started(event)
            case events.AggregatorDelta() if event.text:
                self._last, self._wrote = time.monotonic(), True
            case events.AggregatorFinished():
                self.close()
            case events.AggregatorFailed():
                self._replaced = True
                self.close()

    def _layer_started(self, event: events.LayerStarted) -> None:
        # With a route, a layer may begin again with more proposers.
        known = self._announced.get(event.layer, 0)
        names = enumerate(proposer.name for proposer in event.proposers)
        new = {index: name for index, name in names if index >= known}
        self._announced[event.layer] = len(event.proposers)
        self._layer, self._waited_for, self._asked = event.layer, new, len(new)
        self._writer = ""
        name = self._names[event.layer] = layer_name(event.layer, event.purpose)
        if self._layers:
            self._say(f"{name}: {spoken_names(list(new.values()))} {are(len(new))} asked")
        self._start()

    def _aggregator_started(self, event: events.AggregatorStarted) -> None:
        self._waited_for, self._writer, self._wrote = {}, event.name, False
        # If another model takes over, `Notices` says so.
        if self._layers and not self._replaced:
            self._say(
                f"the reply is the answer of {event.name}"
                if event.copied
                else f"{event.name} writes the reply"
            )
        self._replaced = False
        if not event.copied:
            self._start()

    def _start(self) -> None:
        self.close()
        self._began = self._last = time.monotonic()
        self._wait()

    def _wait(self) -> None:
        if self._interval > 0:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._progress)

    def _progress(self) -> None:
        now = time.monotonic()
        after = f"after {spoken_seconds(now - self._began)}"
        if self._waited_for:
            ended = f"{self._asked - len(self._waited_for)} of {self._asked} have ended, "
            names = spoken_names(list(self._waited_for.values()))
            told = ended if self._asked > 1 else ""
            self._say(f"{after}: {told}waiting for {names}{self._new_hint()}")
        elif self._writer and not self._wrote:
            self._say(f"{after}: waiting for the first words of {self._writer}{self._new_hint()}")
        elif self._writer and now - self._last >= self._interval:
            silent = spoken_seconds(now - self._last)
            # At a terminal, the line of the sentence before has not ended yet.
            self._err.write("\n" * sys.stdout.isatty())
            self._say(f"{self._writer} has written nothing for {silent}{self._new_hint()}")
        self._wait()

    def _new_hint(self) -> str:
        hint = self._hint()
        if hint in ("", self._hinted):
            return ""
        self._hinted = hint
        return f"; {hint}"

    def close(self) -> None:
        """Print nothing more until the next layer or writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
