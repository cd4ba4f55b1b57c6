"""Restores the terminal while the program is suspended, and takes it up again after that.

Code that changes the terminal (its modes, a live region, the cursor) registers a `Hold`, which
knows how to undo the change and how to do it again. Ctrl-Z (SIGTSTP) undoes all changes before the
program stops. After `fg`, all are done again, because the shell has set its own modes and has
written below the cursor. After `bg`, the program goes on but does not touch the terminal until it
comes to the foreground. The program cannot notice SIGSTOP before it is stopped by it, so its
changes are put in order when it goes on. Ctrl-\\ (SIGQUIT) undoes all changes before it ends the
program.

A warning may come at any moment and from anywhere, for example that the history is locked or that a
cost cannot be recorded. At the cursor, it would stand in the first row of the live region, and the
next frame would overwrite it. So a `Hold` also knows how to print lines above the live region.

This module imports only the standard library, because standard error needs it at the start.
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
    """A change to the terminal.

    leave: undoes the change. lose: called instead of `leave` if the terminal belongs to another
    program already, so that nothing may be written or set. take: does the change again, even if it
    was not undone. above: prints lines above the live region, and returns whether rows of the
    region are on the screen.
    """

    leave: Callable[[], None]
    take: Callable[[], None]
    lose: Callable[[], None] = lambda: None
    above: Callable[[Sequence[str]], bool] = lambda lines: False


class _Terminal:
    """The only terminal of this process.

    holds: the changes to it, in the order in which they were made. away: whether it belongs to
    another program at the moment.
    """

    def __init__(self) -> None:
        self.holds: list[Hold] = []
        self.away = False


_TERMINAL = _Terminal()


def hold(what: Hold) -> None:
    """Register a change, which is undone while the program is suspended."""
    if what not in _TERMINAL.holds:
        _TERMINAL.holds.append(what)


def release(what: Hold) -> None:
    """Forget a change that was undone for good, or never made."""
    if what in _TERMINAL.holds:
        _TERMINAL.holds.remove(what)


@contextmanager
def holding(what: Hold) -> Iterator[None]:
    """Within the block, a change is undone while the program is suspended."""
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
    """Do all changes again. This clears text of other programs below the cursor, and restores modes
    that they have changed."""
    if not _TERMINAL.away:
        for what in list(_TERMINAL.holds):
            what.take()


def is_drawn_on() -> bool:
    """Whether there is any change to the terminal, such as a live region."""
    return bool(_TERMINAL.holds)


def print_above(text: str) -> bool:
    """Print a text above the live region. Returns whether this was done; without a live region, it
    is not.

    text: whole lines. Other texts, such as a sequence for the terminal's title, are not printed
    here, because they have no rows of their own.
    """
    lines = text[:-1].split("\n")
    return text.endswith("\n") and any(what.above(lines) for what in _TERMINAL.holds)


def _leave() -> None:
    """Undo all changes, unless the terminal belongs to another program."""
    if not _TERMINAL.away:
        for what in reversed(list(_TERMINAL.holds)):
            what.leave()
        _TERMINAL.away = True


def suspend() -> None:
    """Suspend all processes of this command line, as Ctrl-Z does in other programs. On Windows,
    nothing happens."""
    number = getattr(signal, "SIGTSTP", None)
    if number is not None:
        os.kill(0, number)


@contextmanager
def suspendable() -> Iterator[None]:
    """Within the block, on the running event loop, the changes to the terminal are undone while the
    program is suspended, and before SIGQUIT ends it."""
    import asyncio

    loop = asyncio.get_running_loop()
    look: asyncio.TimerHandle | None = None

    def handle() -> None:
        # SIGTSTP stays ignored if the parent process ignores it: such a parent cannot resume a
        # suspended program.
        if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGTSTP, stop)
        loop.add_signal_handler(signal.SIGCONT, go_on)

    def unhandle() -> None:
        for name in _SIGNALS:
            loop.remove_signal_handler(getattr(signal, name))

    def stop() -> None:
        _leave()
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

    def end(number: int, frame: FrameType | None) -> None:
        # If the event loop hangs, the same signal once more ends the program.
        signal.signal(number, signal.SIG_DFL)
        loop.call_soon_threadsafe(leave_and_end, number)

    def leave_and_end(number: int) -> None:
        _leave()
        signal.raise_signal(number)

    heeded = signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL
    try:
        with handling({signal.SIGQUIT: end} if heeded else {}):
            yield
    finally:
        if look is not None:
            look.cancel()
        unhandle()


@contextmanager
def lent() -> Iterator[None]:
    """Within the block, another program (an editor, a pager) uses the terminal. Both programs are
    suspended together, with the default handlers, because the other one restores the terminal
    itself."""
    main = threading.current_thread() is threading.main_thread()
    names = (*_SIGNALS, "SIGQUIT")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name) and main]
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    with handling(dict.fromkeys(heeded, signal.SIG_DFL)):
        yield


@contextmanager
def handling(handlers: Mapping[int, SignalHandler]) -> Iterator[None]:
    """Within the block, use these signal handlers. handlers: by the numbers of the signals."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
