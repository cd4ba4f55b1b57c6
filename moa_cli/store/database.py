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
from pathlib import Path

from moa_cli import paths
from moa_cli.errors import StoreError
from moa_cli.store.schema import migrate

__all__ = ["open_database"]

_BUSY_SECONDS = 30.0
# Another thread must not find a file here, and lock it, that is still to be closed by its maker.
_creating = threading.Lock()


def open_database(path: Path) -> tuple[sqlite3.Connection, Path | None]:
    """A connection to the file, made or brought up to date if need be.

    A file that is damaged is put aside, never deleted; its new place is returned beside the
    connection to a new file. Raises StoreError if the file cannot be used.
    """
    try:
        _create(path)
        return _connect(path), None
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path}: {error}") from None
    except sqlite3.DatabaseError:
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        for suffix in ("", *paths.DATABASE_SUFFIXES):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.replace(aside.with_name(aside.name + suffix))
        return open_database(path)[0], aside
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None


def _create(path: Path) -> None:
    """Make an empty file if there is none: SQLite would make it readable by all."""
    paths.make_private(path.parent)
    # The file is opened only where this very call makes it, so that no connection can hold a
    # lock on it yet: closing it takes none away.
    with _creating, contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _connect(path: Path) -> sqlite3.Connection:
    with _creating:
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            # What is deleted is overwritten, not left in the file's free pages.
            "secure_delete = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
        migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection
