"""Sinks for a terminal: the live board, and the reply as Markdown, block by block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TextIO

from rich.console import Console
from rich.text import Text

from moa_cli.core import events
from moa_cli.core.events import Event
from moa_cli.core.sanitize import Sanitizer, one_line
from moa_cli.core.strategy import Decision
from moa_cli.markdown.blocks import MarkdownStream
from moa_cli.markdown.drawing import BlockRenderer, Color
from moa_cli.markdown.pieces import Block
from moa_cli.terminal.board.drawing import board_lines, call_summary, name_cells
from moa_cli.terminal.board.screen import Screen, Size, terminal_size
from moa_cli.terminal.board.status import TurnStatus
from moa_cli.terminal.board.thoughts import ThoughtRows
from moa_cli.terminal.board.view import CallView
from moa_cli.terminal.decision import decision_line
from moa_cli.terminal.line import LONGEST_NAME, Line, Styles, plain, to_lines
from moa_cli.terminal.look import USUAL, Look
from moa_cli.terminal.plain import enough_line, left_out_line, trimmed_line
from moa_cli.terminal.table import cell_len, set_cell_size

_FRAME_SECONDS = 0.1
# After a frame, the board rests nine times as long as drawing took, so that drawing takes at most a
# tenth of the time.
_REST_FACTOR = 9


def console_for(stream: TextIO, *, terminal: bool = True, look: Look = USUAL) -> Console:
    """A Rich console that does not interpret text as markup. terminal: whether the stream shows
    colours. It is passed explicitly, because Rich itself would also follow FORCE_COLOR."""
    return Console(
        file=stream,
        # Else Rich would take COLUMNS, even if that is stale, and print nothing if it is 0.
        width=terminal_size(stream)[0],
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        markup=False,
        emoji=False,
        highlight=False,
        # With other themes, Rich decides by NO_COLOR.
        no_color=True if look.theme == "none" else None,
        soft_wrap=terminal,
    )


def color_of(console: Console) -> Color:
    """The colours that the console's terminal shows."""
    if console.no_color:
        return "none"
    names: dict[str | None, Color] = {"standard": "16", "256": "256", "truecolor": "truecolor"}
    return names.get(console.color_system, "none")


def reply_width(columns: int) -> int:
    """The width at which replies are drawn. It is at most 100, because longer lines are hard to
    read."""
    return max(20, min(columns, 100))


class Ticker:
    """Calls `draw` at most ten times a second, and less often if drawing takes long. It uses the
    event loop's clock."""

    def __init__(self, draw: Callable[[], None]) -> None:
        self._draw = draw
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self._task is not None

    def start(self) -> None:
        """Begin to draw, in the running event loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            began = now()
            self._draw()
            await asyncio.sleep(max(_FRAME_SECONDS, _REST_FACTOR * (now() - began)))

    def stop(self) -> None:
        """Stop drawing."""
        if self._task is not None:
            self._task.cancel()
            self._task = None


@dataclass(eq=False)
class Board:
    """A sink that shows the running proposers and a status line. When a layer has ended, permanent
    lines about it replace them.

    status: of the turn, shared with the sink that shows the reply. through_reply: keep the status
    line while the reply is written; only if nothing else writes to the terminal meanwhile. compact:
    only one line for each layer. zoom_key: the key that calls `zoom`. look: its colours. size:
    returns the size of the terminal; None asks the terminal.
    """

    stream: TextIO
    _: KW_ONLY
    status: TurnStatus | None = None
    through_reply: bool = False
    compact: bool = False
    zoom_key: str = ""
    look: Look = USUAL
    size: Size | None = None

    def __post_init__(self) -> None:
        self._screen = Screen(self.stream, self.size, low=True)
        self._console = console_for(self.stream, look=self.look)
        self._styles = Styles(self._console)
        self._status = self.status or TurnStatus()
        self._thoughts = ThoughtRows(self._styles)
        self._ticker = Ticker(self._draw)
        self._decision: Decision | None = None
        # Why the last aggregator failed, if that was not printed yet.
        self._failed = ""
        self._fell_back = False

    def handle(self, event: Event) -> None:
        self._status.take(event)
        if self._failed and not isinstance(event, events.TurnFailed):
            self._note_failed()
        match event:
            # The most frequent events come first.
            case events.ProposerDelta():
                pass
            case events.AggregatorDelta():
                if event.reasoning and self._ticker.running and self._status.view.reasoning:
                    self._thoughts.feed(event.reasoning)
                if event.text and not self.through_reply:
                    self.close()
            case events.TurnStarted() | events.LayerStarted():
                # A layer after the reply, such as a report, begins after the board was closed.
                self._ticker.start()
            case events.LayerFinished():
                self._fold(event)
            case events.ReferencesTrimmed():
                index, view = event.index, self._status.view
                name = event.model if index is None else view.call(event.layer, index).name
                self._note(trimmed_line(name, event), "yellow")
            case events.HistoryTrimmed():
                self._note(left_out_line(event), "yellow")
            case events.AggregatorStarted() if event.fallback:
                self._fell_back = True
                self._note(f"↻ {event.model} replies in its place", "yellow")
                self._thoughts.begin(event.name)
            case events.AggregatorStarted() if event.copied:
                self._note(f"the words of {event.name}", "dim")
            case events.AggregatorStarted():
                self._thoughts.begin(event.name)
            case events.AggregatorFailed() if not event.text:
                # If an aggregator broke off within its reply, this is not noted here: the caller
                # says so below the written text.
                self._failed = f"✗ {event.model}: {event.error.message}"
                self._screen.paint([])
            case events.Decided():
                self._decision = event.decision
            case events.AggregatorFinished():
                self.close()
            case events.TurnFailed():
                if not self._fell_back:
                    # Only one aggregator was asked, so its error is the error of the turn, which
                    # the caller prints.
                    self._failed = ""
                self.close()
            case events.TurnFinished():
                if self._decision is not None:
                    self._note(decision_line(self._decision), "dim")
                self.close()

    def zoom(self) -> None:
        """Show the first proposer alone; at the next call the next one; after the last one all
        again."""
        self._status.view.zoom()

    def _draw(self) -> None:
        size, status = self._screen.size(), self._status
        thoughts = self._thoughts.final(size[0])
        now, hint = status.now(), status.hint()
        lines = board_lines(self._styles, status.view, now, size, hint, self.zoom_key)
        self._screen.commit(thoughts, [*self._thoughts.open(), *lines])

    def _fold(self, event: events.LayerFinished) -> None:
        view = self._status.view
        calls, purpose = view.take_out(event.layer), view.purposes[event.layer]
        width = self._screen.size()[0]
        lines = []
        if view.rounds > 1 or self.compact or purpose:
            done = [call for call in calls if self.compact and call.state == "done"]
            name = view.name_of(event.layer)
            line = f"{name}: {event.answered} of {event.asked} answered"
            line += f" in {event.seconds:.1f} s"
            lines.append(Line((line + _among(done, width - len(line)), "dim")))
        if any(call.state == "dropped" for call in calls):
            lines.append(Line((enough_line(event, purpose), "yellow")))
        if self.compact:
            # Successful calls are only counted.
            calls = [call for call in calls if call.state != "done" or call.note]
        longest = name_cells(calls)
        for call in calls:
            summary = call_summary(call, event.at, longest, width)
            # The reason why a call failed or was cut is not shortened.
            lines.append(summary if call.note else summary.cut(width))
        rows = [row for line in lines for row in line.wrapped(self._console, width)]
        self._screen.commit(rows, [])

    def _note(self, text: str, style: str) -> None:
        self._end_thoughts()
        line = to_lines(self._console, Text(one_line(text), style), self._screen.size()[0])
        self._screen.commit(line, [])

    def _note_failed(self) -> None:
        failed, self._failed = self._failed, ""
        self._note(failed, "red")

    def _end_thoughts(self) -> None:
        self._screen.commit(self._thoughts.final(self._screen.size()[0], end=True))

    def close(self) -> None:
        self._ticker.stop()
        if self._failed:
            self._note_failed()
        self._end_thoughts()
        self._screen.close()


def _among(calls: Sequence[CallView], cells: int) -> str:
    """The calls' names in brackets, as many as fit into `cells`, and the number of the others."""
    names = [plain(call.name, LONGEST_NAME) for call in calls]
    for count in range(len(names), 0, -1):
        more = [f"{len(names) - count} more"] if count < len(names) else []
        told = f" ({', '.join([*names[:count], *more])})"
        if cell_len(told) <= cells:
            return told
    return ""


@dataclass(eq=False)
class LiveReply:
    """A sink that prints a reply while it comes. Final lines are permanent. Below them, a live
    region shows the lines that may still change, and the status line.

    apart: put a blank line before the reply. live: show the region. status: of the turn; None for
    no status line. whole_turn: show the status line from the start of the turn, and not only from
    the start of the reply; for turns without a board. look: the colours. size: returns the size of
    the terminal; None asks the terminal.
    """

    stream: TextIO
    _: KW_ONLY
    apart: bool = False
    live: bool = True
    status: TurnStatus | None = None
    whole_turn: bool = False
    look: Look = USUAL
    size: Size | None = None

    def __post_init__(self) -> None:
        self.screen = Screen(self.stream, self.size)
        self.console = console_for(self.stream, look=self.look)
        self._styles = Styles(self.console)
        self._ticker = Ticker(self._draw)
        # Text that has come since the last frame.
        self._pieces: list[str] = []
        # The lines that the region showed last, without the status line, and the width of the
        # terminal then.
        self._open: list[str] = []
        self._width = 0
        self._began = False

    def feed(self, text: str) -> None:
        """Take the next part of the reply."""
        raise NotImplementedError

    def finished(self, width: int) -> list[str]:
        """The lines that have become final. Each line is returned only once."""
        raise NotImplementedError

    def open(self, width: int) -> list[str]:
        """The lines that are not final yet."""
        raise NotImplementedError

    def end(self) -> None:
        """The whole reply has come, so all of it is final."""
        raise NotImplementedError

    def handle(self, event: Event) -> None:
        if self.status is not None:
            self.status.take(event)
        match event:
            # The most frequent events come first. Pieces are collected and drawn once a frame.
            case events.AggregatorDelta():
                if event.text:
                    self._pieces.append(event.text)
                    if not self._began:
                        # Draw at once, because the board has just removed its status line.
                        self._draw()
            case events.AggregatorStarted():
                self._ticker.start()
            case events.TurnStarted() | events.LayerStarted() if self.whole_turn:
                self._ticker.start()
            case events.AggregatorFinished() | events.AggregatorFailed():
                self._take()
                if self._began:
                    # Close here and not in `close`, because other sinks print lines about the end
                    # of the turn before that.
                    self.close()
            case events.TurnFinished() | events.TurnFailed():
                self.close()

    def _take(self) -> None:
        text = "".join(self._pieces)
        self._pieces.clear()
        if not self._began:
            # A leading blank line would separate the reply from its question.
            text = text.lstrip("\n")
            self._began = bool(text)
            if self._began and self.apart:
                self.screen.commit([""])
        if text:
            self.feed(text)

    def _draw(self) -> None:
        columns = self.screen.size()[0]
        lines: list[str] = []
        if self._pieces or columns != self._width:
            self._take()
            self._width = columns
            lines = self.finished(columns)
            self._open = self.open(columns) if self.live else []
        # One frame for both, so that lines which have become final are neither shown twice nor
        # missing for a moment.
        self.screen.commit(lines, [*self._open, *self._status_lines(columns)])

    def _status_lines(self, columns: int) -> list[str]:
        if self.status is None or not self.live or not (self._began or self.whole_turn):
            return []
        return [self.status.line(columns).ansi(self._styles)]

    def close(self) -> None:
        self._ticker.stop()
        self._take()
        self.end()
        self.screen.commit(self.finished(self.screen.size()[0]), [])
        self.screen.close()


class MarkdownReply(LiveReply):
    """A sink that draws the reply as Markdown. Finished blocks are permanent, the open block is
    live."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._stream = MarkdownStream()
        color, look = color_of(self.console), self.look
        self._renderer = BlockRenderer(color=color, hyperlinks=look.links, palette=look.palette)
        self._blocks: list[Block] = []

    def feed(self, text: str) -> None:
        self._blocks += self._stream.feed(text)

    def finished(self, width: int) -> list[str]:
        blocks, self._blocks = self._blocks, []
        return self._renderer.render(blocks, width=reply_width(width))

    def open(self, width: int) -> list[str]:
        return self._renderer.preview(self._stream.pending(), width=reply_width(width))

    def end(self) -> None:
        self._blocks += self._stream.finish()


class TextReply(LiveReply):
    """A sink that prints the reply as plain text at a terminal. Complete lines are permanent; the
    open line and the status line are live."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sanitizer = Sanitizer()
        self._lines: list[str] = []
        self._rest = ""

    def feed(self, text: str) -> None:
        *lines, self._rest = (self._rest + self._sanitizer.feed(text)).split("\n")
        self._lines += lines

    def finished(self, width: int) -> list[str]:
        # Blank lines are held back until more text follows, so that none is printed after the last
        # word of the reply.
        filled = [number for number, line in enumerate(self._lines, 1) if line]
        end = len(self._lines) if self._rest else max(filled, default=0)
        lines, self._lines = self._lines[:end], self._lines[end:]
        return lines

    def open(self, width: int) -> list[str]:
        # The open line is folded in the same way as the terminal will fold the complete line. Only
        # its last rows are shown.
        line, rows = self._rest.expandtabs(8), self.screen.size()[1]
        if line.isascii():
            start = max(0, len(line) // width - rows) * width
            return [line[at : at + width] for at in range(start, len(line), width)]
        pieces = []
        while line:
            cut = max(1, len(set_cell_size(line[: 2 * width], width).rstrip(" ")))
            pieces.append(line[:cut])
            line = line[cut:]
        return pieces

    def end(self) -> None:
        self._lines += (self._rest + self._sanitizer.flush()).split("\n")
        self._rest = ""
