"""Where moa keeps its files, and safe ways to write and remove them.

The folders are those of the platform (XDG on Linux). MOA_CONFIG_DIR, MOA_DATA_DIR, MOA_STATE_DIR
and MOA_CACHE_DIR override them. The import of this module creates no folder and looks up none.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from moa_cli.core.files.lock import locked_folder

# The suffixes of the files that SQLite puts beside a database.
DATABASE_SUFFIXES = ("-wal", "-shm")

# How many seconds a pipe is given until a program writes to it. A pipe of `<(command)`, and one
# that a key manager puts in the place of a `.env` file, have their writer at once.
_WRITER_SECONDS = 2.0
_LOOK_SECONDS = 0.02
# Pipes and devices are read up to this number of bytes; /dev/zero has no end.
_MOST_STREAMED_BYTES = 1 << 27

_FOLDERS = {
    "config": ".config",
    "data": ".local/share",
    "state": ".local/state",
    "cache": ".cache",
}


def _folder(kind: str) -> Path:
    override = os.environ.get(f"MOA_{kind.upper()}_DIR")
    if override and override.strip():
        return expand(override)
    from platformdirs import PlatformDirs

    try:
        return Path(getattr(PlatformDirs("moa", appauthor=False), f"user_{kind}_dir"))
    except RuntimeError:
        # HOME is not set and the user has no account, as in a container with a user id of its own.
        # Container engines call `/` the home of such a user.
        return Path("/", _FOLDERS[kind], "moa")


def config_dir() -> Path:
    """The folder of config.toml, .env and the user's profiles."""
    return _folder("config")


def data_dir() -> Path:
    """The folder of data that cannot be replaced, such as conversations."""
    return _folder("data")


def state_dir() -> Path:
    """The folder of data that is kept between runs but can be lost, such as the prompt history."""
    return _folder("state")


def cache_dir() -> Path:
    """The folder of data that can be downloaded again, such as weights."""
    return _folder("cache")


def config_file() -> Path:
    return config_dir() / "config.toml"


def database_file() -> Path:
    return data_dir() / "conversations.db"


def refuse_database(path: Path) -> None:
    """Refuse a path that leads to the database or a file beside it.

    Opening and closing the file would drop the locks that this process holds on it, and replacing
    it would lose the conversations (see `moa_cli.store.database`). Raises OSError for such a path.
    """
    try:
        named = path.stat()
    except (OSError, ValueError):
        return
    # The other files are beside the file itself, not beside a link to it.
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
    """The content of a file that the user names. A pipe, as in `-p <(command)`, is read to its end.

    Raises OSError, also for the database, a pipe that no program writes to, and an endless device.
    """
    refuse_database(path)
    with open(path, "rb", opener=_open_at_once) as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            return file.read()
        start = _start_of_pipe(file.fileno()) if stat.S_ISFIFO(mode) else b""
        with suppress(AttributeError, OSError):
            # Windows cannot do this, and need not.
            os.set_blocking(file.fileno(), True)
        data = start + file.read(_MOST_STREAMED_BYTES)
    if len(data) >= _MOST_STREAMED_BYTES:
        raise OSError(errno.EFBIG, "it has no end", str(path))
    return data


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting, as an open of a pipe does until a program writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _start_of_pipe(descriptor: int) -> bytes:
    """The first bytes of a pipe; none if a program has opened it and has not written yet. Raises
    OSError if no program does so in time."""
    deadline = time.monotonic() + _WRITER_SECONDS
    with suppress(BlockingIOError):
        while not (start := os.read(descriptor, 1)):
            if time.monotonic() > deadline:
                raise OSError(errno.EPIPE, "it is a pipe, and no program writes to it")
            time.sleep(_LOOK_SECONDS)
        return start
    return b""


def user_profiles_dir() -> Path:
    return config_dir() / "profiles"


def history_file() -> Path:
    """The file of prompts from `moa chat`."""
    return state_dir() / "prompt-history"


def drafts_dir() -> Path:
    """The folder of prompts that are being edited."""
    return state_dir() / "drafts"


def weights_dir() -> Path:
    """The folder that `moa models pull` downloads weights to."""
    return cache_dir() / "models"


def shipped_profiles_dir() -> Path:
    """The profiles of the package; in a checkout, those in its `profiles/`."""
    package = Path(__file__).parents[1]
    carried = package / "_profiles"
    return carried if carried.is_dir() else package.parent / "profiles"


def make_private(folder: Path) -> Path:
    """Create `folder` and its parents so that only their owner can read them, and return it."""
    if not folder.is_dir():
        # `parents=True` would leave the parents open to everyone.
        make_private(folder.parent)
        try:
            folder.mkdir(exist_ok=True, mode=0o700)
        except FileExistsError:
            # "File exists" would not say what is wrong.
            wrong = errno.ENOTDIR
            raise NotADirectoryError(wrong, os.strerror(wrong), str(folder)) from None
    return folder


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the name of the file to an OSError that is raised within a `with` block. The error for a
    full disk has none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Replace the content of a file within a `with` block.

    The new content is written to another file, which is renamed at the end of the block. A crash
    or an error leaves the old content. Only the owner can read the new file.
    Raises OSError if the folder cannot be written, or `path` is the database or no regular file.
    """
    import tempfile

    refuse_database(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        # Renaming would remove it; as root, also the null device that a link leads to.
        raise OSError(errno.EINVAL, "it is a device, a pipe or a socket", str(path))
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}-")
    aside = Path(name)
    try:
        with naming(path), os.fdopen(handle, "wb") as file:
            yield file
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def alone(folder: Path, *, seconds: float | None = None) -> Iterator[None]:
    """Let only one process at a time run such a block for the same folder, and wait for the others.

    seconds: how long to wait; None waits without a limit. Raises OSError if the folder cannot be
    opened, or if another process is still in its block after that time.
    """
    with locked_folder(folder, seconds=seconds) as held:
        if held is False:
            raise BlockingIOError(errno.EAGAIN, "another process is busy with it", str(folder))
        # If the file system has no locks, the block runs all the same. Then the last process that
        # writes wins.
        yield


def wipe(path: Path) -> None:
    """Overwrite and remove a file; it is not overwritten if it has other hard links.

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
    """The path with a `~` or `~user` at its beginning replaced by the home folder, if there is
    one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def resolved(path: Path) -> Path:
    """The absolute path without links. A loop of links stays as it is, so that its use tells of it;
    Path.resolve raises RuntimeError for it before Python 3.13. Raises OSError if the path is
    relative and the working directory is gone."""
    return Path(os.path.realpath(path))


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; False also for an invalid or inaccessible path."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_pipe(path: Path) -> bool:
    """Whether a path is a named pipe; False also for an invalid or inaccessible path."""
    try:
        return path.is_fifo()
    except (OSError, ValueError):
        return False


def is_stream(path: Path) -> bool:
    """Whether a path is one of this process's streams, as in `-o /dev/stdout` and `-o >(command)`,
    or the null device. A stream may lead to a file, which a shell has opened to append to it."""
    if path.parent not in (Path("/dev"), Path("/dev/fd")):
        return False
    try:
        return path.is_fifo() or path.is_char_device() or path.is_file()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether there is such a file; False also for an invalid or inaccessible path."""
    try:
        return path.is_file()
    except OSError:
        return False
