"""Creates, opens and moves the database file. No other module does.

On POSIX systems SQLite locks the file with `fcntl`. The kernel drops these locks as soon as the
process closes any descriptor of the file, no matter who opened it. Another process then believes
that nobody uses the file, and removes its write-ahead log. So only SQLite may open the file and
those beside it; `paths.refuse_database` checks paths that users name.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

from moa_cli.core import paths
from moa_cli.core.errors import StoreError
from moa_cli.core.files.lock import locked
from moa_cli.store.ended_processes import database_of, settle_ended_processes
from moa_cli.store.schema import Connection, in_words, is_current, migrate, patience

# SQLite itself waits only this long for a lock, so that Ctrl-C works; see `Connection.patiently`.
_BUSY_SECONDS = 0.2
# How long to wait while another process puts a damaged file aside.
_PUT_ASIDE_SECONDS = 60.0
# The page size of a new file. Large pages waste less room for texts of some thousand characters.
_PAGE_BYTES = 8192
# The migration of a larger file takes so long that the user is told.
_LARGE_BYTES = 20_000_000
Tell = Callable[[str], None] | None
_DAMAGED = sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB
# Keeps other threads from locking a new file before `_create` has closed it.
_creating = threading.Lock()


def open_database(path: Path, tell: Tell = None) -> tuple[Connection, Path | None]:
    """Connect to the file; create it or migrate its tables if need be.

    A damaged file is put aside, never deleted or overwritten, and a new file takes its place.
    The turns and calls that ended processes left are settled. Returns the connection, and where a
    damaged file was put. Raises StoreError. tell: called with a sentence if opening or a later
    write takes long.
    """
    with _store_errors(path):
        _create(path)
        connection = _undamaged(path, tell)
        if connection is not None:
            return connection, None
        with _alone(path):
            # Several processes may find the damage at once. Each one checks again under the lock,
            # so that the second does not put aside the new file of the first.
            connection = _undamaged(path, tell)
            if connection is not None:
                return connection, None
            aside = _put_aside(path)
            _create(path)
            connection = _connect(path, tell)
    return connection, aside


@contextlib.contextmanager
def _store_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {in_words(error)}") from None
    except OSError as error:
        raise StoreError(f"{error.filename or path}: {error.strerror}") from None


def _undamaged(path: Path, tell: Tell) -> Connection | None:
    """A connection to the file; None if it is damaged."""
    try:
        return _connect(path, tell)
    except sqlite3.DatabaseError as error:
        # The lowest byte is the primary error code.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            return None
        raise


def put_aside(path: Path) -> Path:
    """Put a damaged file aside, and return its new path. Raises StoreError."""
    with _store_errors(path), _alone(path):
        return _put_aside(path)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let only one process at a time put the file aside, and wait for another one that does."""
    with locked(path.with_name(f"{path.name}.lock"), seconds=_PUT_ASIDE_SECONDS) as held:
        if held is False:
            raise StoreError(f"{path}: is damaged, and another process is putting it aside")
        yield


def _put_aside(path: Path) -> Path:
    aside = _free_name(path)
    for suffix in (*paths.DATABASE_SUFFIXES, ""):
        part = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _free_name(path: Path) -> Path:
    """An unused name beside `path` with the time in it.

    A killed process may have put the log aside but not the file. Then the file gets the name that
    belongs to that log.
    """
    log = paths.DATABASE_SUFFIXES[0]
    if not path.with_name(path.name + log).exists():
        for moved in path.parent.glob(f"{path.name}.damaged-*{log}"):
            aside = moved.with_name(moved.name.removesuffix(log))
            if not os.path.lexists(aside):
                return aside
    stem = f"{path.name}.damaged-{int(time.time())}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    return next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))


def damaged_files(path: Path) -> list[Path]:
    """The damaged files that were put aside beside `path`, the latest first."""
    beside = (*paths.DATABASE_SUFFIXES, ".lock")
    found = path.parent.glob(f"{path.name}.damaged-*")
    return sorted((file for file in found if not file.name.endswith(beside)), reverse=True)


def _create(path: Path) -> None:
    """Create an empty file that only its owner can read, if there is none. SQLite would create one
    that everybody can read."""
    paths.make_private(path.parent)
    # This opens only a file that this call creates. No connection can hold a lock on it yet, so
    # closing it drops none. If the path is a link, its target is created, because SQLite follows
    # the link, too.
    file = os.path.realpath(path)
    with _creating, contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def connect(target: str | Path, *, uri: bool = False) -> Connection:
    """A connection that gives rows as `sqlite3.Row`, without other settings."""
    connection = sqlite3.connect(
        target, timeout=_BUSY_SECONDS, isolation_level=None, uri=uri, factory=Connection
    )
    connection.row_factory = sqlite3.Row
    connection.text_factory = connection.decoded
    return connection


def _connect(path: Path, tell: Tell) -> Connection:
    with _creating:
        connection = connect(path)
    if tell is not None:
        connection.waiting = partial(
            tell, "another process is writing to the history; waiting for it"
        )
    try:
        # Another process may be making the file right now.
        (pages,) = connection.patiently("PRAGMA page_count").fetchone()
        # Only a new file can take these settings.
        new = () if pages else (f"page_size = {_PAGE_BYTES}", "auto_vacuum = INCREMENTAL")
        for pragma in (
            *new,
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            # Overwrites what is deleted.
            "secure_delete = ON",
            # Keeps texts out of temporary files.
            "temp_store = MEMORY",
        ):
            connection.patiently(f"PRAGMA {pragma}")
        size = path.stat().st_size
        if tell is not None and size > _LARGE_BYTES and not is_current(connection, path):
            tell(f"bringing the history ({size / 1e6:,.0f} MB) up to this version, once")
        migrate(connection, path)
        # If the file cannot be written now, a later opening does it.
        with patience(connection, 0.0), contextlib.suppress(sqlite3.OperationalError):
            settle_ended_processes(connection, database_of(connection))
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path) -> tuple[Connection, str | None]:
    """Connect to a file that cannot be written, without changing anything.

    Returns the connection, and a notice if the latest turns may be missing. Raises StoreError.
    """
    where = f"file:{quote(os.fsencode(path))}"
    notice = None
    with _store_errors(path):
        try:
            connection = connect(f"{where}?mode=ro", uri=True)
            current = is_current(connection, path)
        except sqlite3.OperationalError:
            # SQLite cannot create the index of the log here. The file is consistent without the
            # log.
            connection = connect(f"{where}?mode=ro&immutable=1", uri=True)
            current = is_current(connection, path)
            log = path.with_name(path.name + paths.DATABASE_SUFFIXES[0])
            if log.exists() and log.stat().st_size:
                notice = "the latest turns may be missing: the folder cannot be written"
        if not current:
            # Migrates tables of an older version in memory.
            copy = connect(":memory:")
            connection.backup(copy)
            connection.close()
            migrate(copy, path)
            connection = copy
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
    return connection, notice
