"""Sinks for a terminal: the live board, and the reply as Markdown, block by block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.text import Text

from moa_cli.core import events
from moa_cli.core.events import Event
from moa_cli.core.sanitize import one_line
from moa_cli.core.strategy import Decision
from moa_cli.markdown.blocks import MarkdownStream
from moa_cli.markdown.drawing import BlockRenderer, Color
from moa_cli.markdown.pieces import Block
from moa_cli.terminal.board import board_lines, call_summary, name_cells
from moa_cli.terminal.decision import decision_line
from moa_cli.terminal.line import Line, Styles, to_lines
from moa_cli.terminal.plain import Hint, enough_line, trimmed_line
from moa_cli.terminal.screen import Screen, Size
from moa_cli.terminal.view import TurnView

_FRAME_SECONDS = 0.1
# Drawing may take a tenth of the time; the rest belongs to the tokens.
_REST_FACTOR = 9


def console_for(stream: TextIO, *, terminal: bool = True) -> Console:
    """A Rich console that takes no text for markup. terminal: whether the stream shows colours;
    told, because Rich would also ask FORCE_COLOR."""
    return Console(
        file=stream,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=terminal,
    )


def color_of(console: Console) -> Color:
    """The colours that the console's terminal shows."""
    if console.no_color:
        return "none"
    names: dict[str | None, Color] = {"standard": "16", "256": "256", "truecolor": "truecolor"}
    return names.get(console.color_system, "none")


def reply_width(columns: int) -> int:
    """How wide replies are drawn: lines of more than 100 cells are hard to read."""
    return max(20, min(columns, 100))


class Ticker:
    """Calls `draw` at most ten times a second, by the event loop's clock; less often if it
    takes long."""

    def __init__(self, draw: Callable[[], None]) -> None:
        self._draw = draw
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the running event loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            began = now()
            self._draw()
            await asyncio.sleep(max(_FRAME_SECONDS, _REST_FACTOR * (now() - began)))

    def stop(self) -> None:
        """End; nothing is drawn after this."""
        if self._task is not None:
            self._task.cancel()
            self._task = None


class Board:
    """A sink that shows the proposers at work, and folds each layer into lines that stay.

    through_reply: keep a status line while the reply is written; only where nothing else
    writes to the terminal meanwhile. compact: fold a layer into one line.
    reasoning: show what models think, while they think. hint: what a key does at this moment.
    size: the terminal's, if not asked of it.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        through_reply: bool = False,
        compact: bool = False,
        reasoning: bool = False,
        hint: Hint = lambda: "",
        size: Size | None = None,
    ) -> None:
        self._screen = Screen(stream, size, low=True)
        self._console = console_for(stream)
        self._styles = Styles(self._console)
        self._view = TurnView(reasoning=reasoning)
        self._compact = compact
        self._through_reply = through_reply
        self._hint = hint
        self._ticker = Ticker(self._draw)
        self._began = 0.0
        self._decision: Decision | None = None

    def handle(self, event: Event) -> None:
        self._view.apply(event)
        match event:
            # First what comes most.
            case events.ProposerDelta():
                pass
            case events.AggregatorDelta():
                if event.text and not self._through_reply:
                    self._hide()
            case events.TurnStarted():
                self._began = asyncio.get_running_loop().time() - event.at
                self._ticker.start()
            case events.LayerStarted():
                # A layer behind the reply begins when the board has ended.
                self._ticker.start()
            case events.LayerFinished():
                self._fold(event)
            case events.ReferencesTrimmed():
                index, view = event.index, self._view
                name = event.model if index is None else view.call(event.layer, index).name
                self._note(trimmed_line(name, event), "yellow")
            case events.AggregatorStarted() if event.fallback:
                self._note(f"↻ {event.model} replies in its place", "yellow")
            case events.AggregatorStarted() if event.copied:
                self._note(f"the words of {event.name}", "dim")
            case events.AggregatorFailed() if not event.text:
                # One that broke off in its reply is told of below what it wrote, by the caller.
                self._note(f"✗ {event.model}: {event.error.message}", "red")
            case events.Decided():
                self._decision = event.decision
            case events.AggregatorFinished() | events.TurnFailed():
                self._hide()
            case events.TurnFinished():
                if self._decision is not None:
                    self._note(decision_line(self._decision), "dim")
                self._hide()

    def _draw(self) -> None:
        now = asyncio.get_running_loop().time() - self._began
        size = self._screen.size()
        self._screen.paint(board_lines(self._styles, self._view, now, size, self._hint()))

    def _fold(self, event: events.LayerFinished) -> None:
        calls, purpose = self._view.take_out(event.layer), self._view.purposes[event.layer]
        width = self._screen.size()[0]
        lines = []
        if self._view.rounds > 1 or self._compact or purpose:
            done = [call for call in calls if self._compact and call.state == "done"]
            names = ", ".join(one_line(call.name, 40) for call in done)
            name = self._view.name_of(event.layer)
            line = f"{name}: {event.answered} of {event.asked} answered"
            line += f" in {event.seconds:.1f} s" + (f" ({names})" if names else "")
            lines.append(Line((line, "dim")))
        if any(call.state == "dropped" for call in calls):
            lines.append(Line((enough_line(event, purpose), "yellow")))
        if self._compact:
            # What went well is told by its number.
            calls = [call for call in calls if call.state != "done" or call.note]
        longest = name_cells(calls)
        lines += [call_summary(call, event.at, longest) for call in calls]
        rows = [row for line in lines for row in line.wrapped(self._console, width)]
        self._screen.commit(rows, [])

    def _note(self, text: str, style: str) -> None:
        line = to_lines(self._console, Text(one_line(text), style), self._screen.size()[0])
        self._screen.commit(line, [])

    def _hide(self) -> None:
        self._ticker.stop()
        self._screen.close()

    def close(self) -> None:
        self._hide()


class MarkdownReply:
    """A sink that prints the reply as Markdown: finished blocks for good, the open one live.

    apart: put a blank line before it. live: show the block that is still open. hint: what a key
    does at this moment, shown below it. size: the terminal's, if not asked of it.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        apart: bool = False,
        live: bool = True,
        hint: Hint = lambda: "",
        size: Size | None = None,
    ) -> None:
        self._screen = Screen(stream, size)
        self._console = console_for(stream)
        self._hint = hint
        self._stream = MarkdownStream()
        self._renderer = BlockRenderer(color=color_of(self._console))
        self._ticker = Ticker(self._draw)
        # What has come since the last frame, and the blocks that are whole and not printed.
        self._pieces: list[str] = []
        self._blocks: list[Block] = []
        self._began = False
        self._apart = apart
        self._live = live

    def handle(self, event: Event) -> None:
        match event:
            # First what comes most. Pieces are parsed together, once a frame.
            case events.AggregatorDelta():
                if event.text:
                    self._pieces.append(event.text)
            case events.AggregatorStarted():
                self._ticker.start()
            case events.AggregatorFinished() | events.AggregatorFailed():
                self._take()
                if self._began:
                    # Here, not in `close`: others are yet to say how the turn ended.
                    self.close()

    def _take(self) -> None:
        text = "".join(self._pieces)
        self._pieces.clear()
        if not self._began:
            # A leading blank line would part the reply from what it answers.
            text = text.lstrip("\n")
            self._began = bool(text)
            if self._began and self._apart:
                self._screen.commit([""])
        self._blocks += self._stream.feed(text)

    def _draw(self) -> None:
        if self._pieces:
            self._take()
            self._commit(self._stream.pending() if self._live else [], self._live)

    def _commit(self, pending: list[Block], hinting: bool = False) -> None:
        """Print the blocks that have been finished since the last frame, and show the open one.

        hinting: whether the hint is shown below it.
        """
        width = reply_width(self._screen.size()[0])
        blocks, self._blocks = self._blocks, []
        lines = self._renderer.render(blocks, width=width)
        # In one frame: what has become final must not be seen twice, nor not at all.
        region = self._renderer.preview(pending, width=width)
        if hinting and self._began and (hint := self._hint()):
            region = [*region, *to_lines(self._console, Text(hint, "dim"), width)]
        self._screen.commit(lines, region)

    def close(self) -> None:
        self._ticker.stop()
        self._take()
        self._blocks += self._stream.finish()
        self._commit([])
        self._screen.close()
