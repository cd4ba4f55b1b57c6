"""Chooses the sinks that show a turn, depending on where standard output and error go."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TextIO

from moa_cli.core import debug_log
from moa_cli.core.stream import Sink
from moa_cli.terminal.after_reply import AfterReply
from moa_cli.terminal.attention import Attention
from moa_cli.terminal.look import USUAL, Look
from moa_cli.terminal.plain import LONG_SECONDS, Hint, Notices, PlainReply, Proposals, Waiting
from moa_cli.terminal.tty import can_redraw

if TYPE_CHECKING:
    from moa_cli.terminal.board.status import TurnStatus


@dataclass(kw_only=True)
class Show:
    """The options for the output of a turn.

    stream: show the reply piece by piece, and not only as a whole. live: show a live region if the
    terminal can. plain: show the reply as raw text, also on a terminal. compact: one line for each
    layer. reasoning: show the reasoning of models while they think. progress: without a board,
    print each step in a line. verbose: as `progress`, but print which models a layer waits for from
    its first answer on, and not only after a long wait. usage: print the usage after the turn.
    structured: the reply is JSON, which is printed after the end of the turn. report: print where
    the proposals disagree. bell: ring the terminal's bell after a turn of at least this many
    seconds; 0 for never. title: show the activity in the terminal's title. look: the colours.
    accessible: print lines for a screen reader. progress_interval: seconds between two such lines
    about the progress; 0 for none.
    """

    output: Literal["text", "json", "jsonl"] = "text"
    structured: bool = False
    report: bool = False
    stream: bool = True
    quiet: bool = False
    verbose: bool = False
    usage: bool = False
    show_proposals: bool = False
    live: bool = True
    plain: bool = False
    compact: bool = False
    reasoning: bool = False
    progress: bool = False
    bell: int = 0
    title: bool = False
    look: Look = USUAL
    accessible: bool = False
    progress_interval: int = 10


def sinks_for(
    show: Show, hint: Hint = lambda: "", keys: dict[str, Callable[[], None]] | None = None
) -> list[Sink]:
    """The sinks of a turn. Only the reply goes to stdout, everything else to stderr. A live region
    is shown only on a terminal.

    hint: returns what a key does at this moment, such as `Esc: write the reply now`. keys: the
    functions of other keys, by the keys' names in prompt-toolkit; the keys of the board are added.
    """
    if show.accessible:
        from moa_cli.terminal.accessible import accessible_sinks

        return accessible_sinks(show, hint)
    # Lines of the debug log would break into a live display.
    show = replace(show, live=show.live and not debug_log.on_terminal())
    moving = show.live and not show.quiet and show.output != "jsonl"
    board = moving and can_redraw(sys.stderr)
    status: TurnStatus | None = None
    if board or (show.live and can_redraw(sys.stdout)):
        from moa_cli.terminal.board.status import TurnStatus

        status = TurnStatus(hint, reasoning=show.reasoning)
    sinks: list[Sink] = []
    if board:
        from moa_cli.terminal.board.live import Board

        # If the reply goes to a file, or is printed only as a whole, nothing else writes to the
        # terminal, and the board can stay.
        held = show.output == "json" or show.structured or not show.stream
        shown = Board(
            sys.stderr,
            status=status,
            through_reply=held or _is_file(sys.stdout),
            compact=show.compact,
            zoom_key="" if keys is None else "Ctrl-O",
            look=show.look,
        )
        sinks.append(shown)
        if keys is not None:
            keys["c-o"] = shown.zoom
    elif show.reasoning and not show.quiet and show.output == "text":
        from moa_cli.terminal.board.thoughts import PlainThoughts

        sinks.append(PlainThoughts(sys.stderr))
    if show.show_proposals:
        sinks.append(Proposals(sys.stderr))
    # A user at a terminal without a live display should still see that work goes on.
    watched = show.output != "jsonl" and not show.quiet and sys.stderr.isatty()
    sinks += _reply_sinks(show, status, apart=watched, alone=moving and not board)
    if show.output == "text":
        sinks.append(AfterReply(show, apart=True))
    if not show.quiet:
        steps = show.verbose or show.progress or watched
        sinks.append(Notices(sys.stderr, steps=steps, board=board))
        if steps and not board:
            sinks.append(Waiting(sys.stderr, hint, None if show.verbose else LONG_SECONDS))
        if can_redraw(sys.stderr) and (show.bell or (show.title and board)):
            titled = status if show.title and board else None
            sinks.append(Attention(sys.stderr, bell=show.bell, titled=titled))
    return sinks


def _reply_sinks(show: Show, status: TurnStatus | None, *, apart: bool, alone: bool) -> list[Sink]:
    """The sinks that show the reply. apart: put a blank line before it. alone: whether there is no
    board before it."""
    if show.output == "jsonl":
        from moa_cli.core.jsonl import JsonLines

        return [JsonLines(sys.stdout)]
    if show.output == "json" or show.structured:
        return []
    moves = show.live and not show.quiet
    if show.stream and can_redraw(sys.stdout) and (moves or not show.plain):
        from moa_cli.terminal.board.live import MarkdownReply, TextReply

        reply = (TextReply if show.plain else MarkdownReply)(
            sys.stdout,
            apart=apart,
            live=show.live,
            status=status,
            whole_turn=alone,
            look=show.look,
        )
        return [reply]
    apart = apart and sys.stdout.isatty()
    return [PlainReply(sys.stdout, stream=show.stream, apart=apart)]


def _is_file(stream: TextIO) -> bool:
    """Whether a stream is a file, so that its text does not appear on the terminal."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False
