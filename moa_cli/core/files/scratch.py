"""Private folders for copies of the user's texts. They are wiped after use.

Each folder is locked while it is in use. A killed process leaves its folder behind; the kernel
drops the lock, so a later process can tell that nobody uses the folder, and wipes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.files.lock import locked_folder

_NEW_SECONDS = 5.0
# On a file system without locks, a folder that is this old, in seconds, counts as left behind.
_OLD_SECONDS = 24 * 3600


@contextmanager
def scratch_folder(parent: Path | None, prefix: str) -> Iterator[Path]:
    """Create a private folder, which is wiped when the `with` block ends. parent: where it is
    created; None means the system's folder for temporary files. Raises OSError if it cannot be
    created."""
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    try:
        # Programs that this process starts meanwhile do not inherit the lock, so it ends with this
        # process.
        with locked_folder(folder, seconds=0.0):
            yield folder
    finally:
        _wipe(folder)


def wipe_scratch_folders(parent: Path, pattern: str) -> None:
    """Wipe the folders that killed processes left in `parent`, if their names match a pattern."""
    for folder in list(parent.glob(pattern)):
        with contextlib.suppress(OSError), locked_folder(folder, seconds=0.0) as held:
            age = time.time() - folder.stat().st_mtime
            if held is None:
                unused = age > _OLD_SECONDS
            else:
                # A new folder that is still empty may not be locked yet by its own process.
                unused = held and (age > _NEW_SECONDS or any(folder.iterdir()))
            if unused:
                _wipe(folder)


def _wipe(folder: Path) -> None:
    """Overwrite and remove the folder's files, then remove the folder."""
    for above, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                paths.wipe(Path(above) / name)
    shutil.rmtree(folder, ignore_errors=True)
