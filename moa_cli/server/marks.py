"""Whether files have changed, told by what the system says of them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# A file that was changed so short a time ago may change again within one tick of its file system's
# clock, and look the same: two seconds on FAT, one on some network file systems.
_TICK_SECONDS = 3.0
_LARGEST_HASHED = 10_000_000


@dataclass(frozen=True)
class Mark:
    """What tells one state of a file from another. content: a hash, where the time does not."""

    changed: int
    size: int
    number: int
    device: int
    content: bytes = b""


# None where there is no file that can be read.
Marks = Mapping[Path, Mark | None]


def marks_of(files: Iterable[Path], before: Marks) -> Marks:
    """The marks of files. before: earlier ones.

    Links are followed, as an orchestrator replaces files by changing what a link leads to.
    """
    return {file: _mark(file, before.get(file)) for file in files}


def _mark(file: Path, before: Mark | None) -> Mark | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - a tenth of the time that a Path takes
        mark = Mark(found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
        if time.time() - found.st_mtime < _TICK_SECONDS and found.st_size < _LARGEST_HASHED:
            content = hashlib.sha256(file.read_bytes()).digest()
            return Mark(mark.changed, mark.size, mark.number, mark.device, content)
    except (OSError, ValueError):
        return None
    if before is not None:
        # It has been hashed while it was young, and has not changed since.
        same = Mark(before.changed, before.size, before.number, before.device) == mark
        return before if same else mark
    return mark
