"""A prompt in the user's own editor: a private file that is wiped as soon as it was read.

It lies in a folder of its own below the state folder, with the backups and swap files that many
editors put beside what they edit. The folder is locked while it is used, so that a later start
can tell what a killed process left, and wipe it.
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
from moa_cli.core.errors import UsageError
from moa_cli.core.file_lock import locked_folder
from moa_cli.core.text_files import line_feeds, read_text
from moa_cli.terminal.programs import open_editor

# Where no locks tell, what is so old was left behind.
_OLD_SECONDS = 24 * 3600


def edited(text: str) -> str:
    """What the user's editor leaves of `text`, without line ends at its end.

    Raises UsageError if the editor fails, the file cannot be written or read, or it is not text.
    """
    wipe_leftovers()
    try:
        with _folder() as folder:
            file = folder / "prompt.md"
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as opened:
                # In binary, since text would get the line ends of the platform; half a surrogate
                # pair, as a paste may hold it, is replaced.
                opened.write(text.encode("utf-8", "replace"))
            open_editor(file)
            return line_feeds(read_text(file)).rstrip("\n")
    except OSError as error:
        raise UsageError(
            f"the prompt could not be edited: {error.filename or 'its file'}:"
            f" {error.strerror or error}"
        ) from None


@contextmanager
def _folder() -> Iterator[Path]:
    """A new private folder, wiped in the end."""
    try:
        above = paths.make_private(paths.drafts_dir())
        folder = Path(tempfile.mkdtemp(dir=above))
    except OSError:
        # A state folder that cannot be written must not keep anybody from editing.
        folder = Path(tempfile.mkdtemp(prefix="moa-"))
    try:
        # Not inherited by the editor: the lock ends with this process.
        with locked_folder(folder, seconds=0.0):
            yield folder
    finally:
        _wipe(folder)


def wipe_leftovers() -> None:
    """Wipe what killed processes left of prompts in an editor."""
    with contextlib.suppress(OSError):
        for folder in list(paths.drafts_dir().iterdir()):
            if _is_left(folder):
                _wipe(folder)


def _is_left(folder: Path) -> bool:
    try:
        with locked_folder(folder, seconds=0.0) as held:
            # An empty one may be this moment's: made, and not locked yet.
            return _is_old(folder) if held is None else held and any(folder.iterdir())
    except OSError:
        return False


def _is_old(folder: Path) -> bool:
    return time.time() - folder.stat().st_mtime > _OLD_SECONDS


def _wipe(folder: Path) -> None:
    """Overwrite and remove the folder's files, then the folder itself."""
    for above, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                paths.wipe(Path(above) / name)
    shutil.rmtree(folder, ignore_errors=True)
