"""Where files live.

The platform's own folders (XDG on Linux), each replaced by an environment variable:
MOA_CONFIG_DIR, MOA_DATA_DIR, MOA_STATE_DIR, MOA_CACHE_DIR. Nothing is created or looked
up at import.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from moa_cli.core.file_lock import locked_folder

# What SQLite puts beside a database, by the ends of the names.
DATABASE_SUFFIXES = ("-wal", "-shm")
_WAIT_SECONDS = 0.02


def _folder(kind: str) -> Path:
    override = os.environ.get(f"MOA_{kind.upper()}_DIR")
    if override and override.strip():
        return expand(override)
    import platformdirs

    dirs = platformdirs.PlatformDirs("moa", appauthor=False)
    path: Path = getattr(dirs, f"user_{kind}_path")
    return path


def config_dir() -> Path:
    """The folder of config.toml, .env and the user's profiles."""
    return _folder("config")


def data_dir() -> Path:
    """The folder of what the user would miss (conversations)."""
    return _folder("data")


def state_dir() -> Path:
    """The folder of what is kept between runs but not missed (prompt history)."""
    return _folder("state")


def cache_dir() -> Path:
    """The folder of what can be fetched again (weights)."""
    return _folder("cache")


def config_file() -> Path:
    """The one settings file."""
    return config_dir() / "config.toml"


def database_file() -> Path:
    """The file that conversations and spending are kept in."""
    return data_dir() / "conversations.db"


def refuse_database(path: Path) -> None:
    """Raise OSError if `path` leads to the database or a file beside it, by whatever name.

    To open and close the file would drop the locks that this process holds on it, and to
    replace it would lose the conversations (see `moa_cli.store.database`).
    """
    try:
        named = path.stat()
    except (OSError, ValueError):
        return
    # SQLite puts what belongs to it beside the file itself, not beside a link to it.
    database = Path(os.path.realpath(database_file()))
    for suffix in ("", *DATABASE_SUFFIXES):
        try:
            kept = database.with_name(database.name + suffix).stat()
        except (OSError, ValueError):
            continue
        if os.path.samestat(named, kept):
            why = "moa keeps its conversations in it; use `moa history export` or `import`"
            raise OSError(errno.EPERM, why, str(path))


def read_bytes(path: Path) -> bytes:
    """What a file that the user names holds. Raises OSError, also for the database."""
    refuse_database(path)
    with path.open("rb") as file:
        return file.read()


def user_profiles_dir() -> Path:
    """The folder of the user's own profiles."""
    return config_dir() / "profiles"


def history_file() -> Path:
    """The prompts typed in `moa chat`."""
    return state_dir() / "prompt-history"


def drafts_dir() -> Path:
    """Where a prompt is while it is written in the user's editor."""
    return state_dir() / "drafts"


def weights_dir() -> Path:
    """Where `moa models pull` puts weights."""
    return cache_dir() / "models"


def shipped_profiles_dir() -> Path:
    """The profiles that come with the package (in a checkout: its `profiles/`)."""
    package = Path(__file__).parents[1]
    carried = package / "_profiles"
    return carried if carried.is_dir() else package.parent / "profiles"


def make_private(folder: Path) -> Path:
    """Create `folder` (and its parents) readable by its owner alone, and return it."""
    if not folder.is_dir():
        # Not `parents=True`, which leaves the parents open to everyone.
        make_private(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write what `path` is to hold, readable by its owner alone.

    It is written aside and renamed when the block has ended, so that a crash or an error leaves
    what was there. Raises OSError if the folder cannot be written, or `path` is the database.
    """
    import tempfile

    refuse_database(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}-")
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def alone(folder: Path, *, seconds: float | None = None) -> Iterator[None]:
    """Until no other process is inside such a block for that folder.

    seconds: how long to wait for another one; None waits for ever. Raises OSError if the folder
    cannot be opened, or the other one is not done by then.
    """
    with locked_folder(folder, seconds=seconds) as held:
        if held is False:
            raise BlockingIOError(errno.EAGAIN, "another process is busy with it", str(folder))
        # Where there are no locks, the last one wins.
        yield


def wipe(path: Path) -> None:
    """Remove a file, its content overwritten first where nothing else points to it.

    Raises OSError if it cannot be removed.
    """
    with suppress(OSError):
        handle = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
        try:
            status = os.fstat(handle)
            if status.st_nlink <= 1:
                blank(handle, status.st_size)
        finally:
            os.close(handle)
    path.unlink(missing_ok=True)


def blank(handle: int, size: int) -> None:
    """Overwrite the first `size` bytes of an open file. Raises OSError."""
    os.lseek(handle, 0, os.SEEK_SET)
    zeros = bytes(1 << 16)
    while size > 0:
        size -= os.write(handle, zeros[: min(size, len(zeros))])
    os.fsync(handle)


def expand(text: str) -> Path:
    """The path with a leading `~` replaced, or as it is where that means nobody."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_file(path: Path) -> bool:
    """Whether there is such a file; False too for what can be no path, or may not be looked at."""
    try:
        return path.is_file()
    except OSError:
        return False
