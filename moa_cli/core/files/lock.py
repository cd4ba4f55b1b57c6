"""Locks on files. The kernel drops them when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_HELD = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
_POLL_SECONDS = 0.02


def try_lock(handle: int) -> bool | None:
    """Lock an open file without waiting. Returns whether the lock was free; None if the file system
    has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in _HELD else None
    return True


@contextlib.contextmanager
def locked(path: Path, *, seconds: float | None = None) -> Iterator[bool | None]:
    """Hold the lock of a file within a `with` block. The file is created if it is missing, and
    stays.

    seconds: how long to wait for another process; None waits without a limit. Yields whether the
    lock is held; None if the file system has no locks. Raises OSError if the file cannot be
    created.
    """
    with _held(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), seconds) as taken:
        yield taken


@contextlib.contextmanager
def locked_folder(folder: Path, *, seconds: float | None = None) -> Iterator[bool | None]:
    """Hold the lock of a folder, as `locked` does for a file. Windows cannot lock folders.

    Raises OSError if the folder cannot be opened.
    """
    if sys.platform == "win32":
        folder.stat()
        yield None
        return
    with _held(os.open(folder, os.O_RDONLY), seconds) as taken:
        yield taken


@contextlib.contextmanager
def _held(handle: int, seconds: float | None) -> Iterator[bool | None]:
    began = time.monotonic()
    try:
        while (taken := try_lock(handle)) is False:
            if seconds is not None and time.monotonic() - began >= seconds:
                break
            time.sleep(_POLL_SECONDS)
        yield taken
    finally:
        os.close(handle)
