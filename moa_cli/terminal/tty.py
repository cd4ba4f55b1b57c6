"""What a terminal can do, and how it is kept quiet. Standard library only."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


def can_redraw(stream: TextIO) -> bool:
    """Whether the stream is a terminal on which the cursor can be moved.

    Told by the terminal itself, never by FORCE_COLOR and its like: those are about colour.
    """
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def columns_of(stream: TextIO) -> int | None:
    """The width of the stream's terminal; None if it is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return None


def folded(text: str, stream: TextIO) -> str:
    """`text` folded between words at the width of the stream's terminal; whole elsewhere."""
    columns = columns_of(stream)
    if columns is None:
        return text
    # A model's name must stay in one piece, to be copied.
    return textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False)


@contextmanager
def without_echo(*streams: TextIO) -> Iterator[None]:
    """While inside, typed characters are not echoed: they would run into the live lines.

    Does nothing where none of `streams`, or standard input, is a terminal.
    """
    try:
        import termios

        descriptor = sys.stdin.fileno()
        if not (os.isatty(descriptor) and any(one.isatty() for one in streams)):
            raise OSError
        before = termios.tcgetattr(descriptor)
    except (ImportError, AttributeError, OSError, ValueError):
        yield
        return
    silent = termios.tcgetattr(descriptor)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def cancel_on_termination() -> None:
    """From now on SIGTERM and SIGHUP cancel the running task instead of killing the process,
    so that cursor, wrapping and echo are put back on the way out."""
    import asyncio

    task = asyncio.current_task()
    if task is None:
        return
    for name in ("SIGTERM", "SIGHUP"):
        # Windows knows neither the second signal nor handlers in an event loop.
        with suppress(AttributeError, NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(getattr(signal, name), task.cancel)
