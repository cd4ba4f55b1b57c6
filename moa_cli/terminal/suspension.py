"""Gives the terminal back while the program is suspended, and takes it again after that.

Whoever changes something of the terminal (its modes, rows that are drawn anew, the cursor) holds it
meanwhile, and says how to put it back and how to take it up again. Ctrl-Z (SIGTSTP) puts it back
before the program stops. After `fg` all of it is taken up again: where the terminal's modes are the
shell's, and the shell has written below. After `bg` the program goes on, leaves the terminal alone,
and takes it when it comes to the foreground. SIGSTOP cannot be noticed before it stops the program;
what it left is put in order once the program goes on.

A warning may come at any moment and from anywhere: that the history is locked, that a record of
costs cannot be written. Written at the cursor, it would stand in the first row of what is drawn
anew, and the next frame would overwrite it. So whoever draws also says how to print above that.
Standard library only: standard error needs this at the start.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NamedTuple

# Seconds between checks whether the program is in the foreground again, because a shell need not
# send a signal for that.
_LOOK_SECONDS = 0.2
_SIGNALS = ("SIGTSTP", "SIGCONT")
SignalHandler = Callable[[int, FrameType | None], object] | signal.Handlers


class Hold(NamedTuple):
    """What somebody has changed of the terminal.

    leave: puts it back. lose: called instead if the terminal belongs to another program already, so
    that nothing may be written or set. take: does it again; also if it is still so. above: prints
    lines above what is drawn anew, and returns whether any of that is on the screen.
    """

    leave: Callable[[], None]
    take: Callable[[], None]
    lose: Callable[[], None] = lambda: None
    above: Callable[[Sequence[str]], bool] = lambda lines: False


class _Terminal:
    """The terminal of this process, of which there is one: who holds what of it, in the order in
    which they have taken it, and whether it is given back at the moment."""

    def __init__(self) -> None:
        self.holds: list[Hold] = []
        self.away = False


_TERMINAL = _Terminal()


def hold(what: Hold) -> None:
    """From now on, this is put back while the program is suspended."""
    if what not in _TERMINAL.holds:
        _TERMINAL.holds.append(what)


def release(what: Hold) -> None:
    """It is put back for good, or was never taken."""
    if what in _TERMINAL.holds:
        _TERMINAL.holds.remove(what)


@contextmanager
def holding(what: Hold) -> Iterator[None]:
    """While inside, this is put back while the program is suspended."""
    hold(what)
    try:
        yield
    finally:
        release(what)


def is_away() -> bool:
    """Whether the terminal belongs to another program, such as the shell after `bg`."""
    return _TERMINAL.away


def in_foreground() -> bool:
    """Whether the terminal's keys are for this program, or there is no terminal."""
    for descriptor in (2, 0, 1):
        with suppress(OSError, AttributeError):
            return os.tcgetpgrp(descriptor) == os.getpgrp()
    return True


def refresh() -> None:
    """Take everything again that is held: what another program has written is cleared from below
    the cursor, and what it has changed of the modes is undone."""
    if not _TERMINAL.away:
        for what in list(_TERMINAL.holds):
            what.take()


def is_drawn_on() -> bool:
    """Whether anything is drawn anew on the terminal."""
    return bool(_TERMINAL.holds)


def print_above(text: str) -> bool:
    """Print a text above what is drawn anew on the terminal; return whether anything is.

    text: whole lines. Anything else, such as the terminal's title, has no row of its own.
    """
    lines = text[:-1].split("\n")
    return text.endswith("\n") and any(what.above(lines) for what in _TERMINAL.holds)


def suspend() -> None:
    """Do what Ctrl-Z does in other programs: suspend all processes of this command line. Nothing
    happens where there is no such thing (Windows)."""
    number = getattr(signal, "SIGTSTP", None)
    if number is not None:
        os.kill(0, number)


@contextmanager
def suspendable() -> Iterator[None]:
    """While inside, on the running event loop, a suspension leaves the terminal whole."""
    import asyncio

    loop = asyncio.get_running_loop()
    look: asyncio.TimerHandle | None = None

    def handle() -> None:
        # A parent that cannot resume a suspended program starts it with SIGTSTP ignored.
        if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGTSTP, stop)
        loop.add_signal_handler(signal.SIGCONT, go_on)

    def unhandle() -> None:
        for name in _SIGNALS:
            loop.remove_signal_handler(getattr(signal, name))

    def stop() -> None:
        if not _TERMINAL.away:
            for what in reversed(list(_TERMINAL.holds)):
                what.leave()
            _TERMINAL.away = True
        # The SIGCONT that resumes the program needs no handler here.
        unhandle()
        # Sent to this thread: if another thread took the signal, this one would run on for a
        # moment.
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)
        handle()
        come_back()

    def go_on() -> None:
        if not in_foreground() and not _TERMINAL.away:
            for what in reversed(list(_TERMINAL.holds)):
                what.lose()
            _TERMINAL.away = True
        come_back()

    def come_back() -> None:
        nonlocal look
        if look is not None:
            look.cancel()
            look = None
        if in_foreground():
            _TERMINAL.away = False
            refresh()
        else:
            look = loop.call_later(_LOOK_SECONDS, come_back)

    try:
        handle()
    except (AttributeError, NotImplementedError, RuntimeError):
        # Windows.
        yield
        return
    if not in_foreground():
        go_on()
    try:
        yield
    finally:
        if look is not None:
            look.cancel()
        unhandle()


@contextmanager
def lent() -> Iterator[None]:
    """While inside, another program has the terminal (an editor, a pager), and both are suspended
    together: it puts the terminal back itself."""
    main = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name) and main]
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    with handling(dict.fromkeys(heeded, signal.SIG_DFL)):
        yield


@contextmanager
def handling(handlers: Mapping[int, SignalHandler]) -> Iterator[None]:
    """While inside, signals are handled so, by their numbers."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
