"""Keys of the terminal at standard input, one by one. Standard library only."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_END = "\x04"


@contextmanager
def single_keys() -> Iterator[Callable[[], str]]:
    """While inside, a function that waits for a key and returns it, unechoed.

    Keys typed before are thrown away. A key that is more than a character is "", and the end of
    the input is Ctrl-D's character. Ctrl-C raises KeyboardInterrupt, as ever. Where terminals
    work otherwise (Windows), a line is read and its first character returned.
    """
    try:
        import termios
        import tty
    except ImportError:
        yield _of_a_line
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    with _ending_orderly():
        tty.setcbreak(descriptor, termios.TCSAFLUSH)
        try:
            yield lambda: _key(descriptor)
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _key(descriptor: int) -> str:
    data = os.read(descriptor, 1024)
    if not data:
        return _END
    text = data.decode(errors="replace")
    return "" if text.startswith("\x1b") else text[0]


def _of_a_line() -> str:
    line = sys.stdin.readline()
    return line.strip()[:1] if line else _END


@contextmanager
def _ending_orderly() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP end the program by an exception, so that the terminal's
    modes are put back."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {
        one: signal.signal(one, leave)
        for name in ("SIGTERM", "SIGHUP")
        if (one := getattr(signal, name, None)) is not None
    }
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
