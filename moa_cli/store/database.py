"""The database file: the one place that creates, opens and moves it.

SQLite holds its locks on POSIX systems by `fcntl`, and the kernel drops those of a whole process
as soon as the process closes any descriptor of the file, whoever opened it. Another process then
takes a file for unused that is in use, and removes its write-ahead log. So nothing here or
elsewhere opens the file, or one beside it, but SQLite itself; `paths.refuse_database` guards what
users name.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

from moa_cli.core import paths
from moa_cli.core.errors import StoreError
from moa_cli.core.file_lock import locked
from moa_cli.store.schema import Connection, is_current, migrate

# SQLite itself waits no longer than this for a lock, so that Ctrl-C acts; see `schema.immediate`.
_BUSY_SECONDS = 0.2
_PUT_ASIDE_SECONDS = 60.0
# Of a new file. Larger pages waste less where texts of some thousand characters follow each other.
_PAGE_BYTES = 8192
# To bring such a file up to date takes long enough to be told.
_LARGE_BYTES = 20_000_000
Tell = Callable[[str], None] | None
_CORRUPT, _NOT_A_DATABASE = sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB
# Another thread must not find a file here, and lock it, that is still to be closed by its maker.
_creating = threading.Lock()


def open_database(
    path: Path, prepare: Callable[[Connection], None] = lambda connection: None, tell: Tell = None
) -> tuple[Connection, Path | None]:
    """A connection to the file, made or brought up to date if need be.

    A file that is damaged is put aside, never deleted or written over; its new place is returned
    beside the connection to a new file. prepare: is given the connection; what it finds damaged
    counts, too. tell: called with a sentence where opening or a later write takes long. Raises
    StoreError if the file cannot be used.
    """
    try:
        _create(path)
        return _connect(path, prepare, tell), None
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise StoreError(f"{path}: {error}") from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None
    try:
        return _replace_damaged(path, prepare, tell)
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: {error}") from None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # The lowest byte is the kind; those above tell it more closely.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (_CORRUPT, _NOT_A_DATABASE)


def _replace_damaged(
    path: Path, prepare: Callable[[Connection], None], tell: Tell
) -> tuple[Connection, Path | None]:
    """Put a damaged file aside and open a new one.

    Several processes may meet the damage at once. One after the other looks again: what the first
    has put in its place, and perhaps written to by then, is not put aside by the second.
    """
    with locked(path.with_name(f"{path.name}.lock"), seconds=_PUT_ASIDE_SECONDS) as alone:
        if alone is False:
            raise StoreError(f"{path}: is damaged, and another process is busy with it")
        try:
            return _connect(path, prepare, tell), None
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
        aside = _put_aside(path)
        _create(path)
        return _connect(path, prepare, tell), aside


def put_aside(path: Path) -> Path:
    """Put a damaged file aside; returns its new place. Raises StoreError if that cannot be."""
    with locked(path.with_name(f"{path.name}.lock"), seconds=_PUT_ASIDE_SECONDS) as alone:
        if alone is False:
            raise StoreError(f"{path}: is damaged, and another process is busy with it")
        try:
            return _put_aside(path)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from None


def _put_aside(path: Path) -> Path:
    aside = _free_name(path)
    for suffix in (*paths.DATABASE_SUFFIXES, ""):
        part = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _free_name(path: Path) -> Path:
    """A name beside `path`, with the time in it, that nothing has.

    If a process was killed on the way, its log is put aside and the file is not: the file gets
    the name that goes with that log.
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
    """The damaged files that were put aside, the latest first."""
    sides = tuple(paths.DATABASE_SUFFIXES)
    found = [file for file in path.parent.glob(f"{path.name}.damaged-*") if file.suffix != ".lock"]
    return sorted((file for file in found if not file.name.endswith(sides)), reverse=True)


def _create(path: Path) -> None:
    """Make an empty file if there is none: SQLite would make it readable by all."""
    paths.make_private(path.parent)
    # The file is opened only where this very call makes it, so that no connection can hold a
    # lock on it yet: closing it takes none away.
    with _creating, contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def connect(target: str | Path, *, uri: bool = False) -> Connection:
    """A connection without any setting but how its rows are given. Raises sqlite3.Error."""
    connection = sqlite3.connect(
        target, timeout=_BUSY_SECONDS, isolation_level=None, uri=uri, factory=Connection
    )
    connection.row_factory = sqlite3.Row
    return connection


def _connect(path: Path, prepare: Callable[[Connection], None], tell: Tell) -> Connection:
    with _creating:
        connection = connect(path)
    if tell is not None:
        connection.waiting = partial(
            tell, "another process is writing to the history; waiting for it"
        )
    try:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        # They are for a new file: an older one would be written to at each opening.
        new = () if pages else (f"page_size = {_PAGE_BYTES}", "auto_vacuum = INCREMENTAL")
        for pragma in (
            *new,
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            # What is deleted is overwritten, not left in the file's free pages.
            "secure_delete = ON",
            # Sorting must not leave words in a temporary file.
            "temp_store = MEMORY",
        ):
            connection.patiently(f"PRAGMA {pragma}")
        size = path.stat().st_size
        if tell is not None and size > _LARGE_BYTES and not is_current(connection, path):
            tell(f"bringing the history ({size / 1e6:,.0f} MB) up to this version, once")
        migrate(connection, path)
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path) -> tuple[Connection, str | None]:
    """A connection that changes nothing, where the folder cannot be written or the disk is full.

    Returns a notice beside it where what is read may lack the latest turns. Raises StoreError.
    """
    try:
        return _opened_to_read(path)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from None


def _opened_to_read(path: Path) -> tuple[Connection, str | None]:
    where = f"file:{quote(str(path))}"
    notice = None
    try:
        connection = connect(f"{where}?mode=ro", uri=True)
        current = is_current(connection, path)
    except sqlite3.OperationalError:
        # The log's index cannot be made here. Without the log the file itself is whole.
        connection = connect(f"{where}?mode=ro&immutable=1", uri=True)
        current = is_current(connection, path)
        log = path.with_name(path.name + paths.DATABASE_SUFFIXES[0])
        if log.exists() and log.stat().st_size:
            notice = "the latest turns may be missing: the folder cannot be written"
    if not current:
        # Tables of an older version are brought up to date in memory.
        copy = connect(":memory:")
        connection.backup(copy)
        connection.close()
        migrate(copy, path)
        connection = copy
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection, notice
