"""Finds whether files have changed, from their metadata."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

# A file that was modified less than this many seconds ago may change again within one tick of the
# file system's clock, so that its metadata stays the same. A tick has two seconds on FAT, and one
# on some network file systems.
_TICK_SECONDS = 3.0
_LARGEST_HASHED = 10_000_000


# The state of a file: time of modification, size, inode and device. If the time is too recent to be
# reliable, also a hash of the content.
Mark = tuple[int, int, int, int, bytes]
# None if there is no readable file.
Marks = Mapping[Path, Mark | None]


def marks_of(files: Iterable[Path], before: Marks) -> Marks:
    """The marks of files. before: earlier marks of the same files.

    Links are followed, because an orchestrator replaces files by changing the target of a link.
    """
    return {file: _mark(file, before.get(file)) for file in files}


def _mark(file: Path, before: Mark | None) -> Mark | None:
    content = b""
    try:
        found = os.stat(file)  # noqa: PTH116 - a tenth of the time that a Path takes
        recent = time.time() - found.st_mtime < _TICK_SECONDS
        # Reading a pipe would wait, and would take from it what the next reader needs.
        if recent and stat.S_ISREG(found.st_mode) and found.st_size < _LARGEST_HASHED:
            content = hashlib.sha256(file.read_bytes()).digest()
    except (OSError, ValueError):
        return None
    state = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
    if before is not None and not content and before[:-1] == state:
        # The file was hashed when its time was recent, and has not changed since.
        return before
    return (*state, content)
