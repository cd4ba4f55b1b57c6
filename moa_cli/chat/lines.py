"""A standard input that is no terminal, line by line."""

from __future__ import annotations

import asyncio
import codecs
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

__all__ = ["stdin_lines"]


async def stdin_lines() -> AsyncGenerator[str, None]:
    """The lines of standard input, without their ends."""
    if sys.stdin is None:
        return
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def put(line: str | None) -> None:
        # The loop is closed if the program ends while this waits for input.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lines.put_nowait, line)

    # A daemon on the bare descriptor: no one waits for it, and it holds no lock at the end.
    reader = threading.Thread(target=_read_lines, args=(sys.stdin.fileno(), put), daemon=True)
    reader.start()
    while (line := await lines.get()) is not None:
        yield line.rstrip("\r")


def _read_lines(descriptor: int, put: Callable[[str | None], None]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    held, data = "", b"-"
    while data:
        try:
            data = os.read(descriptor, 65536)
        except OSError:
            data = b""
        *whole, held = (held + decoder.decode(data, final=not data)).split("\n")
        for line in whole:
            put(line)
    if held:
        put(held)
    put(None)
