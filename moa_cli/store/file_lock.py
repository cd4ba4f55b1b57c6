"""Locks on files that the kernel drops when the process that holds them ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["locked", "try_lock"]

_HELD = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
_POLL_SECONDS = 0.02


def try_lock(handle: int) -> bool | None:
    """Lock an open file without waiting.

    Returns whether that was possible; None where the file system knows no locks.
    """
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
def locked(path: Path, *, seconds: float) -> Iterator[bool]:
    """Hold the lock of the file at `path`, which is made if need be and stays there.

    seconds: how long to wait for another process that holds it. Yields whether it is held; True
    too where the file system knows no locks. Raises OSError if the file cannot be made.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + seconds
    try:
        while (taken := try_lock(handle)) is False and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        yield taken is not False
    finally:
        os.close(handle)
