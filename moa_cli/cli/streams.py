"""Prepares the standard streams at the start, and reads standard input for commands.

Programs that start `moa` (cron, `nohup`, services, agents) may leave streams closed, opened in the
wrong direction, or non-blocking. After `prepare_streams`, all of them can be used.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from moa_cli.core.errors import UsageError
from moa_cli.terminal.suspension import is_drawn_on, print_above

_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}
# After this many seconds without input, a line says that standard input is waited for.
SILENT_SECONDS = 0.7
# No model reads a longer prompt, and /dev/zero has no end.
_MOST_BYTES = 1 << 27
_PIECE = 1 << 16


def prepare_streams() -> None:
    """Prepare the standard streams.

    A stream that is closed, or opened in the wrong direction, becomes the null device. Pipes and
    files get UTF-8 in any locale. A character that a terminal cannot show becomes a question mark.
    Text that standard error does not accept is dropped.
    """
    # In ascending order, because an opened file gets the lowest free descriptor.
    for descriptor, (name, mode) in enumerate(_MODES.items()):
        if getattr(sys, name) is None or _is_reversed(descriptor, mode):
            _open_null(descriptor, name, mode)
        with suppress(OSError, AttributeError):
            # Another program that shares the terminal or pipe may have made it non-blocking.
            os.set_blocking(descriptor, True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = stream.encoding if stream.isatty() else "utf-8"
            stream.reconfigure(encoding=encoding, errors="replace")
    if isinstance(sys.stderr, io.TextIOWrapper) and not isinstance(sys.stderr, _Diagnostics):
        sys.stderr = _Diagnostics(sys.stderr)
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Input in another encoding must not raise; see `holds_bytes`.
        sys.stdin.reconfigure(errors="surrogateescape")


def _is_reversed(descriptor: int, mode: str) -> bool:
    """Whether a descriptor is open only for the other direction. At a terminal, `nohup` opens
    standard input in this way."""
    try:
        import fcntl

        access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    except (ImportError, OSError):
        return False
    return access == (os.O_WRONLY if mode == "r" else os.O_RDONLY)


def _open_null(descriptor: int, name: str, mode: str) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    # Programs that this one starts get it, too.
    os.set_inheritable(descriptor, True)
    setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


class _Diagnostics(io.TextIOWrapper):
    """Standard error. After it has failed once (a full disk, a reader that is gone), all text for
    it is dropped: a command must not fail because its notices cannot be read. At a terminal, lines
    are printed above the part of the screen that is redrawn."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(stream.buffer, stream.encoding, stream.errors, line_buffering=True)
        # Its finalizer would close the descriptor that both share.
        self._before = stream

    def write(self, text: str) -> int:
        try:
            # isatty() comes last because it is a system call, which the log of a server does not
            # need.
            drawn = is_drawn_on() and text.endswith("\n") and self.isatty()
            if drawn and print_above(text):
                return len(text)
            return super().write(text)
        except OSError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        # The interpreter would write the buffered text again at exit, and fail again.
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            super().flush()


def standard_input(
    tell: Callable[[str], None], *, instead: str = "", after: float = SILENT_SECONDS
) -> BinaryIO:
    """Standard input as bytes; at a terminal, the text that is typed until Ctrl-D.

    tell: called once, in another thread, with a notice if no input comes for `after` seconds.
    Without the notice, an open pipe without a writer would look like a program that hangs. instead:
    a hint on what the user can do if there will be no input.
    """
    if sys.stdin.isatty():
        instead = "Ctrl-D ends it"
    raw = _StandardInput(sys.stdin.fileno(), tell, instead, after)
    return io.BufferedReader(raw, _PIECE)


def read_prompt(tell: Callable[[str], None], *, prompted: bool, named: bool, after: float) -> bytes:
    """All of standard input, as a prompt or as an addition to one.

    tell, after: see `standard_input`. prompted: whether there is a prompt without it. named:
    whether the user named it (`-f -`); if not, a terminal is not read. Raises UsageError if it
    cannot be read, or is too long.
    """
    if sys.stdin.isatty() and not named:
        return b""
    instead = "-n asks without it" if prompted and not named else ""
    data = standard_input(tell, instead=instead, after=after).read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise UsageError(
            f"standard input is longer than {_MOST_BYTES:,} bytes",
            hint="no model can read that much",
        )
    return data


def is_read_by_another() -> bool:
    """Whether standard input is a file that another program is reading: its beginning has been
    read, and something is left. In `while read -r line; do …; done < file` the rest is for the
    loop."""
    try:
        descriptor = sys.stdin.fileno()
        status = os.fstat(descriptor)
        place = os.lseek(descriptor, 0, os.SEEK_CUR) if stat.S_ISREG(status.st_mode) else 0
    except (AttributeError, OSError, ValueError):
        return False
    return 0 < place < status.st_size


class _StandardInput(io.RawIOBase):
    def __init__(
        self, descriptor: int, tell: Callable[[str], None], instead: str, after: float
    ) -> None:
        self._descriptor = descriptor
        self._tell = tell
        self._instead = instead
        self._after = after
        self._told = False
        self._came = False

    def readable(self) -> bool:
        return True

    # The standard library's stubs type the parameter as a buffer of any kind.
    def readinto(self, buffer: Any) -> int:
        timer = threading.Timer(self._after, self._tell_of_silence)
        timer.daemon = True
        if not self._told:
            timer.start()
        try:
            data = _read(self._descriptor, len(buffer))
        finally:
            timer.cancel()
        self._came = True
        buffer[: len(data)] = data
        return len(data)

    def _tell_of_silence(self) -> None:
        from moa_cli.core.text import with_hint

        self._told = True
        what = "the end of standard input" if self._came else "standard input"
        came = "" if self._came else ", which has sent nothing so far"
        self._tell(with_hint(f"waiting for {what}{came}", self._instead or None))


def _read(descriptor: int, most: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, most)
        except BlockingIOError:
            # Another program has switched blocking off since the start.
            select.select([descriptor], [], [])
        except OSError as error:
            why = error.strerror or error
            raise UsageError(
                f"standard input cannot be read: {why}", hint="to do without it: `< /dev/null`"
            ) from None
