"""Properties of a terminal, its keys and its modes. This module uses only the standard library."""

from __future__ import annotations

import itertools
import os
import re
import select
import signal
import stat
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TextIO, TypeVar

from moa_cli.core.text import wrapped
from moa_cli.terminal.suspension import (
    Hold,
    handling,
    holding,
    in_foreground,
    is_away,
    suspendable,
)

_T = TypeVar("_T")
_END_OF_INPUT = "\x04"
# A character, or the sequence of a terminal for another key (such as ESC [ A for an arrow).
_KEY = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|.)?|.", re.DOTALL)
# Keys that are not put back for the shell: Ctrl-D, Ctrl-L.
_NEVER_LATER = b"\x04\x0c"
# A signal that is repeated within this many seconds counts as one.
_SAME_WISH_SECONDS = 2.0
_ENDS = ("SIGTERM", "SIGHUP")
# If nothing follows an Esc within this many seconds, it is the key Esc and not the start of a
# sequence.
_ESCAPE_SECONDS = 0.05
# Seconds between checks for a signal while waiting for a key.
_LOOK_SECONDS = 0.2


def can_redraw(stream: TextIO) -> bool:
    """Whether the stream is a terminal on which the cursor can be moved.

    The stream and TERM decide this. FORCE_COLOR and similar variables have no influence, because
    they are only about colour.
    """
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def columns_of(stream: TextIO) -> int | None:
    """The width of the stream's terminal in columns; None if the stream is no terminal."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return None


def folded(text: str, stream: TextIO) -> str:
    """`text` folded between words at the width of the stream's terminal; unchanged if the stream is
    no terminal."""
    if (columns := columns_of(stream)) is None:
        return text
    measure: Callable[[str], int] = len
    if not text.isascii():
        # Characters may take two cells or none, so their cells are measured.
        from moa_cli.terminal.table import cell_len

        measure = cell_len
    # Words, such as names of models, are not broken, so that they can be copied.
    return "\n".join(wrapped(text, columns, measure))


Modes = list[Any]


def modes_of(descriptor: int) -> Modes | None:
    """The modes of a terminal; None if the descriptor is no terminal, and on Windows."""
    try:
        import termios

        return termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, termios.error):
        return None


def set_modes(descriptor: int, modes: Modes | None) -> None:
    """Set the modes of a terminal, unless they are None or another program has the terminal. A
    program that sets them in the background is stopped by the system."""
    if modes is not None and in_foreground() and not is_away():
        import termios

        termios.tcsetattr(descriptor, termios.TCSADRAIN, modes)


@contextmanager
def _modes(descriptor: int, before: Modes, inside: Modes) -> Iterator[None]:
    """Within the block, a terminal has other modes, except while the program is suspended."""
    take = partial(set_modes, descriptor, inside)
    leave = partial(set_modes, descriptor, before)
    take()
    try:
        with holding(Hold(leave, take)):
            yield
    finally:
        leave()


@contextmanager
def without_echo(*streams: TextIO) -> Iterator[None]:
    """Within the block, typed characters are not echoed, because they would mix with the live
    region.

    This does nothing if standard input, or all of `streams`, are no terminals.
    """
    try:
        import termios

        descriptor = sys.stdin.fileno()
        if not (os.isatty(descriptor) and any(stream.isatty() for stream in streams)):
            raise OSError
        before = termios.tcgetattr(descriptor)
    except (ImportError, AttributeError, OSError, ValueError):
        yield
        return
    silent = termios.tcgetattr(descriptor)
    silent[3] &= ~termios.ECHO
    with _modes(descriptor, before, silent):
        yield


@contextmanager
def turn_keys(actions: Mapping[str, Callable[[], None]]) -> Iterator[None]:
    """Within the block, on the running event loop, keys at the terminal act at once.

    actions: the functions of the keys, by the keys' names in prompt-toolkit ("escape", "c-o").

    This is for a program that reads no other keys from the terminal. Keys that are typed ahead are
    for the shell. If keys wait already, nothing is read. Keys that come later are put back at the
    end, if the system allows that, except those that would clear the screen or end the shell. This
    does nothing if standard input is no terminal, or if its keys are for another program.
    """
    try:
        import fcntl
        import termios

        descriptor = sys.stdin.fileno()
        if _others_read(descriptor):
            raise OSError
        before = termios.tcgetattr(descriptor)
    except (ImportError, AttributeError, OSError, ValueError):
        yield
        return
    import asyncio

    loop = asyncio.get_running_loop()
    keys = termios.tcgetattr(descriptor)
    keys[3] &= ~(termios.ICANON | termios.ECHO)
    read, held = bytearray(), bytearray()
    due: asyncio.TimerHandle | None = None

    def act() -> None:
        found = _KEY.findall(held.decode(errors="replace"))
        held.clear()
        for name in map(_name_of, found):
            # Two Esc in a row are parsed as one sequence, but the user has pressed the key twice.
            for _ in range(max(1, name.count("escape"))):
                if action := actions.get("escape" if name.startswith("escape") else name):
                    action()

    def ready() -> None:
        nonlocal due
        data = b""
        with suppress(OSError):
            # In the background, reading would stop the program.
            if os.tcgetpgrp(descriptor) == os.getpgrp():
                data = os.read(descriptor, 1024)
        if not data:
            stop_reading()
            return
        read.extend(data)
        held.extend(data)
        if due is not None:
            due.cancel()
        due = loop.call_later(_ESCAPE_SECONDS, act)

    def stop_reading() -> None:
        loop.remove_reader(descriptor)

    start_reading = partial(loop.add_reader, descriptor, ready)
    with _modes(descriptor, before, keys):
        waiting = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
        if not any(waiting):
            try:
                start_reading()
                with holding(Hold(stop_reading, start_reading, stop_reading)):
                    yield
            finally:
                stop_reading()
                if due is not None:
                    due.cancel()
    if any(waiting):
        yield
        return
    typed = bytes(read).translate(None, _NEVER_LATER)
    if not in_foreground():
        return
    with suppress(OSError, AttributeError):
        for place in range(len(typed)) if b"\x1b" not in typed else ():
            fcntl.ioctl(descriptor, termios.TIOCSTI, typed[place : place + 1])


def _name_of(key: str) -> str:
    """The name of a key in prompt-toolkit. Several Esc in a row give the name once for each."""
    if not key.strip("\x1b"):
        return " ".join(["escape"] * len(key))
    return f"c-{chr(ord(key) + 96)}" if len(key) == 1 and key < "\x1b" else key


def _others_read(descriptor: int) -> bool:
    """Whether keys at a terminal are for another program: a pager that this program is piped to, or
    the shell if this program runs in the background."""
    if not (os.isatty(descriptor) and sys.stderr.isatty()):
        return True
    piped = stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    return piped or os.tcgetpgrp(descriptor) != os.getpgrp()


def run_loop(main: Coroutine[Any, Any, _T]) -> _T:
    """As `asyncio.run`, but a Ctrl-C is not lost and does not leave an incomplete event loop, and
    the terminal is restored while the program is suspended.

    A KeyboardInterrupt may be raised at any point of Python code, also while the loop is set up. So
    SIGINT is blocked until the loop runs, which then cancels `main`.
    """
    import asyncio

    block = getattr(signal, "pthread_sigmask", None)
    if block is None:
        return asyncio.run(main)
    before = block(signal.SIG_BLOCK, {signal.SIGINT})

    async def unblocked() -> _T:
        block(signal.SIG_SETMASK, before)
        try:
            with suspendable():
                return await main
        finally:
            # An event loop closes its wake-up pipe before it removes its signal handlers. A signal
            # in between would be reported as an error, so the handlers are removed here. The
            # clean-up is done by now, so these signals may end the process.
            for name in _ENDS:
                asyncio.get_running_loop().remove_signal_handler(getattr(signal, name))

    try:
        return asyncio.run(unblocked())
    finally:
        block(signal.SIG_SETMASK, before)


def cancel_on_termination() -> None:
    """Let SIGTERM and SIGHUP cancel the running task from now on, instead of killing the process.
    So cursor, wrapping and echo are restored before the process ends."""
    import asyncio

    task = asyncio.current_task()
    if task is None:
        return
    loop = asyncio.get_running_loop()
    # The same signal may come several times: from `timeout`, and from a program between `timeout`
    # and this one that passes it on. A second cancellation would interrupt the clean-up after the
    # first one.
    again_from = 0.0

    def end() -> None:
        nonlocal again_from
        if loop.time() >= again_from:
            again_from = loop.time() + _SAME_WISH_SECONDS
            task.cancel()

    for name in _ENDS:
        # Windows has no SIGHUP, and no signal handlers in an event loop.
        with suppress(AttributeError, NotImplementedError):
            loop.add_signal_handler(getattr(signal, name), end)


@contextmanager
def single_keys() -> Iterator[Callable[[], str]]:
    """Yield a function that waits for a key and returns it, without an echo.

    Keys that were typed before are dropped. A key that is not a character is returned as "", and
    the end of the input as Ctrl-D's character. Ctrl-C raises KeyboardInterrupt, as usual. On
    Windows, the function reads a line and returns its first character.
    """
    try:
        import termios
        import tty
    except ImportError:
        yield _first_of_line
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    with _ended_by_exception():
        tty.setcbreak(descriptor, termios.TCSAFLUSH)
        try:
            keys = _keys(descriptor)
            yield lambda: next(keys)
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _keys(descriptor: int) -> Iterator[str]:
    while True:
        # Python runs signal handlers between two bytecodes. A signal right before a blocking read
        # would wait for the next key, so that Ctrl-C would seem to do nothing. So the read is
        # polled.
        while not select.select([descriptor], [], [], _LOOK_SECONDS)[0]:
            pass
        data = os.read(descriptor, 1024)
        if not data:
            break
        # One read may return several keys that were typed while this program was busy.
        for key in _KEY.findall(data.decode(errors="replace")):
            yield "" if key.startswith("\x1b") else key
    yield from itertools.repeat(_END_OF_INPUT)


def _first_of_line() -> str:
    line = sys.stdin.readline()
    return line.strip()[:1] if line else _END_OF_INPUT


@contextmanager
def _ended_by_exception() -> Iterator[None]:
    """Within the block, SIGTERM, SIGHUP and SIGQUIT end the program by an exception, so that the
    terminal's modes are restored."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    # Windows has no SIGHUP and no SIGQUIT.
    names = (*_ENDS, "SIGQUIT")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    with handling(dict.fromkeys(numbers, leave)):
        yield
