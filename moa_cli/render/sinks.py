"""Which sinks show a turn, told from where standard output and error go."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from typing import Literal, TextIO

from moa_cli.render.plain import Notices, PlainReply, Proposals
from moa_cli.render.terminal import can_redraw
from moa_cli.stream import Sink

__all__ = ["Show", "sinks_for"]


@dataclass(frozen=True, kw_only=True)
class Show:
    """How a turn is shown. stream: piece by piece, or once whole."""

    output: Literal["text", "json", "jsonl"] = "text"
    stream: bool = True
    quiet: bool = False
    verbose: bool = False
    show_proposals: bool = False


def sinks_for(show: Show) -> list[Sink]:
    """The reply alone goes to stdout, everything else to stderr; live only on terminals."""
    board = not show.quiet and show.output != "jsonl" and can_redraw(sys.stderr)
    markdown = show.output == "text" and show.stream and can_redraw(sys.stdout)
    sinks: list[Sink] = []
    if board:
        from moa_cli.render.live import Board

        sinks.append(Board(sys.stderr, through_reply=_is_file(sys.stdout)))
    if show.show_proposals:
        sinks.append(Proposals(sys.stderr))
    if markdown:
        from moa_cli.render.live import MarkdownReply

        sinks.append(MarkdownReply(sys.stdout, apart=board))
    elif show.output == "text":
        sinks.append(PlainReply(sys.stdout, stream=show.stream))
    elif show.output == "jsonl":
        from moa_cli.render.jsonl import JsonLines

        sinks.append(JsonLines(sys.stdout))
    if not show.quiet:
        sinks.append(Notices(sys.stderr, verbose=show.verbose, board=board))
    return sinks


def _is_file(stream: TextIO) -> bool:
    """Whether what is written there cannot show up on the terminal."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False
