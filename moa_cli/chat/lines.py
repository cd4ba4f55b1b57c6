"""Reads standard input line by line, for a chat whose input is not a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress

from moa_cli.core.errors import UsageError
from moa_cli.core.files.text import STANDARD_INPUT, lines_of, text_of

_SILENT_SECONDS = 0.7
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")


async def stdin_lines(tell: Callable[[str], None]) -> AsyncGenerator[str, None]:
    """The lines of standard input, without their ends. Raises UsageError if one is not text.

    tell: called with a sentence if the first line does not come within a moment. Without this, an
    open pipe without a writer looks like a program that hangs.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | UsageError | None] = asyncio.Queue()

    def put(line: str | UsageError | None) -> None:
        # If the program ends while this thread waits for input, the loop is closed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lines.put_nowait, line)

    # A daemon thread that reads the bare descriptor, so that the program can end without waiting
    # for input.
    reader = threading.Thread(target=_read_lines, args=(sys.stdin.fileno(), put), daemon=True)
    reader.start()
    silence = loop.call_later(_SILENT_SECONDS, tell, "waiting for prompts on standard input")
    while (line := await lines.get()) is not None:
        silence.cancel()
        if isinstance(line, UsageError):
            raise line
        yield line
    silence.cancel()


def _read_lines(descriptor: int, put: Callable[[str | UsageError | None], None]) -> None:
    """Call `put` with each line as soon as it is complete, or with an error for a line that is not
    text; and with None at the end."""
    try:
        for line in _lines(descriptor):
            put(line)
    except UsageError as error:
        put(error)
    put(None)


def _lines(descriptor: int) -> Iterator[str]:
    """The lines that are read from a descriptor. Raises UsageError for one that is not text."""
    held = b""
    number = 1
    while data := _read(descriptor):
        held += data
        if number == 1 and held[:2] in _WIDE_MARKS:
            # The input is in UTF-16, where a line end has two bytes, so it cannot be cut at single
            # bytes. All of it is decoded at the end.
            continue
        *whole, held = held.split(b"\n")
        for line in whole:
            yield text_of(line, STANDARD_INPUT, first_line=number).removesuffix("\r")
            number += 1
    if held:
        lines = lines_of(text_of(held, STANDARD_INPUT, first_line=number))
        yield from lines if lines[-1] else lines[:-1]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
