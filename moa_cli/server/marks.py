"""Whether files have changed, by what the system tells of them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

# A file that was changed so short a time ago may change again within one tick of its file system's
# clock, and look the same: two seconds on FAT, one on some network file systems.
_TICK_SECONDS = 3.0
_LARGEST_HASHED = 10_000_000


# What tells one state of a file from another: when it was changed, its size, its number and device,
# and a hash of what it holds, where the time does not tell.
Mark = tuple[int, int, int, int, bytes]
# None if there is no readable file.
Marks = Mapping[Path, Mark | None]


def marks_of(files: Iterable[Path], before: Marks) -> Marks:
    """The marks of files. before: earlier ones.

    Links are followed, as an orchestrator replaces files by changing what a link leads to.
    """
    return {file: _mark(file, before.get(file)) for file in files}


def _mark(file: Path, before: Mark | None) -> Mark | None:
    content = b""
    try:
        found = os.stat(file)  # noqa: PTH116 - a tenth of the time that a Path takes
        if time.time() - found.st_mtime < _TICK_SECONDS and found.st_size < _LARGEST_HASHED:
            content = hashlib.sha256(file.read_bytes()).digest()
    except (OSError, ValueError):
        return None
    state = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
    if before is not None and not content and before[:-1] == state:
        # It has been hashed while it was young, and has not changed since.
        return before
    return (*state, content)
