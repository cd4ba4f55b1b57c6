"""Checking a store, copying it, and bringing back what can be read of a damaged one.

All of it may be done while other processes use the store.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.errors import StoreError
from moa_cli.core.file_lock import try_lock
from moa_cli.store import archive, upkeep
from moa_cli.store.database import connect, damaged_files, open_database
from moa_cli.store.incoming.take import add
from moa_cli.store.salvage import Row, SalvageProgress, salvage
from moa_cli.store.schema import immediate, store_errors
from moa_cli.store.store import Store

_MOST_FAULTS = 20
_RECOVERING = ".moa-recover-"
_NEW_SECONDS = 5.0
_INSERTS = {
    "conversations": "INSERT OR IGNORE INTO conversations VALUES (?, ?, ?, ?, ?)",
    "turns": (
        "INSERT OR IGNORE INTO turns (id, conversation_id, started, process, profile, settings,"
        " prompt, status, reply, rest, withdrawn) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    ),
    "proposals": "INSERT OR REPLACE INTO proposals VALUES (?, ?, ?, ?)",
    "old_proposals": "INSERT OR IGNORE INTO proposals VALUES (?, ?, ?, ?)",
    "notes": "INSERT OR IGNORE INTO notes (rowid, turn_id, event) VALUES (?, ?, ?)",
    "spending": "INSERT OR IGNORE INTO spending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "days": "INSERT OR IGNORE INTO days VALUES (?, ?)",
    "doomed": "INSERT OR IGNORE INTO doomed VALUES (?, ?, ?)",
    "comparisons": "INSERT OR IGNORE INTO comparisons (id, chosen, winner) VALUES (?, ?, ?)",
    "contenders": "INSERT OR IGNORE INTO contenders VALUES (?, ?, ?, ?, ?, ?, ?)",
    "tags": "INSERT OR IGNORE INTO tags VALUES (?, ?)",
}
_COLUMNS_OF_A_TURN = 11


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    faults: what is damaged, in SQLite's words, some of it. unreadable: values that are no more
    what was written. free: bytes of the file that hold nothing.
    """

    conversations: int
    turns: int
    size: int
    free: int
    faults: tuple[str, ...] = ()
    unreadable: int = 0
    left: upkeep.PendingUpkeep = field(default_factory=upkeep.PendingUpkeep)

    @property
    def sound(self) -> bool:
        """Whether all can be read."""
        return not self.faults and not self.unreadable


def check(store: Store) -> CheckResult:
    """Read all of the store. Raises StoreError if that cannot be begun."""
    with store.connection(writing=False) as connection:
        faults = _faults(connection)
        if faults:
            return CheckResult(0, 0, 0, 0, faults)
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM conversations), (SELECT count(*) FROM turns)"
        ).fetchone()
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        left = upkeep.leftover(connection)
        before = store.unreadable
        for row in connection.execute("SELECT id FROM conversations").fetchall():
            store.load(row["id"])
    return CheckResult(
        counts[0], counts[1], pages * size, free * size, (), store.unreadable - before, left
    )


def _faults(connection: sqlite3.Connection) -> tuple[str, ...]:
    try:
        rows = connection.execute(f"PRAGMA integrity_check({_MOST_FAULTS})").fetchall()
    except sqlite3.DatabaseError as error:
        return (str(error),)
    return tuple(str(row[0]) for row in rows if row[0] != "ok")


def back_up(store: Store, target: Path) -> int:
    """Copy the store, as it is at this moment, into a new file; returns its size in bytes.

    Other processes go on writing meanwhile. The file is there complete or not at all, and
    replaces one of that name. Raises StoreError, OSError.
    """
    paths.refuse_database(target)
    with _folder_aside(target.parent, ".moa-backup-") as folder:
        aside = folder / target.name
        with store_errors(), store.connection(writing=False) as source:
            # Within one read transaction, the copy is of one state, whoever writes meanwhile.
            source.execute("SELECT 1 FROM sqlite_master").fetchone()
            copy = connect(aside)
            try:
                source.backup(copy)
                # One file alone, without a log beside it.
                copy.execute("PRAGMA journal_mode = DELETE")
                faults = _faults(copy)
            finally:
                copy.close()
        if faults:
            raise StoreError(
                f"the copy is damaged, as the history is: {faults[0]}",
                hint="`moa history recover` brings back what can be read",
            )
        aside.chmod(0o600)
        aside.replace(target)
    return target.stat().st_size


@dataclass(frozen=True)
class RecoveryResult:
    """What came of a recovery.

    new, same: conversations that were added, and that are there already. renamed: that were
    added under another id. turns: in those that were added. unreadable: values that could not be
    read. skipped: pages of the file with rows that could not be read; pages: all that it has.
    """

    new: int = 0
    same: int = 0
    renamed: int = 0
    turns: int = 0
    unreadable: int = 0
    skipped: int = 0
    pages: int = 0


def recover(store: Store, source: Path, tell: Callable[[SalvageProgress], None]) -> RecoveryResult:
    """Add to the store what can be read of another database file, which is left as it is.

    tell: called now and then while the file is read. What is in the store already is not added
    again, by whichever call. Raises StoreError, OSError.
    """
    paths.refuse_database(source)
    progress = SalvageProgress()
    with _folder_aside(paths.data_dir(), _RECOVERING) as folder:
        with store_errors():
            connection, _ = open_database(folder / "rows.db")
            try:
                _gather(connection, source, progress, tell)
            finally:
                connection.close()
        rows = Store.open(folder / "rows.db")
        try:
            done = _add(store, rows)
            with store.connection(writing=True) as target, store_errors():
                _add_spending(target, rows, source)
            _add_comparisons(store, rows)
        finally:
            rows.close()
    return RecoveryResult(
        **done, unreadable=rows.unreadable, skipped=progress.skipped, pages=progress.pages
    )


def wipe_leftovers() -> None:
    """Wipe what killed recoveries left in the data folder: copies of what they read."""
    _wipe_leftovers(paths.data_dir(), _RECOVERING)


@contextmanager
def _folder_aside(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder for a copy, which is wiped in the end; by a later process if this one is killed.

    Raises OSError.
    """
    _wipe_leftovers(parent, prefix)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    handle = _handle_of(folder)
    try:
        if handle is not None:
            try_lock(handle)
        yield folder
    finally:
        _wipe_folder(folder)
        if handle is not None:
            os.close(handle)


def _wipe_leftovers(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{prefix}????????"):
        handle = _handle_of(folder)
        if handle is None:
            continue
        # A folder that was made this very moment may not be locked yet.
        old = time.time() - os.fstat(handle).st_mtime > _NEW_SECONDS
        if old and try_lock(handle):
            _wipe_folder(folder)
        os.close(handle)


def _handle_of(folder: Path) -> int | None:
    """A descriptor of a folder, to be locked; None where there are none."""
    try:
        return os.open(folder, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None


def _wipe_folder(folder: Path) -> None:
    with suppress(OSError):
        for path in folder.rglob("*"):
            if not path.is_dir():
                paths.wipe(path)
    shutil.rmtree(folder, ignore_errors=True)


def _gather(
    connection: sqlite3.Connection,
    source: Path,
    progress: SalvageProgress,
    tell: Callable[[SalvageProgress], None],
) -> None:
    """The rows of the file, in tables again."""
    for pragma in ("foreign_keys = OFF", "synchronous = OFF"):
        connection.execute(f"PRAGMA {pragma}")
    with immediate(connection):
        for number, (table, row) in enumerate(salvage(source, progress)):
            connection.execute(_INSERTS[table], _fitting(table, row))
            if number % 1000 == 0:
                tell(progress)
        connection.execute("UPDATE turns SET status = 'interrupted' WHERE status = 'open'")
        # What was deleted stays deleted, also where it was not wiped yet.
        connection.execute(
            "DELETE FROM turns WHERE conversation_id IN (SELECT conversation_id FROM doomed)"
        )
        # The page with the conversation's own row may be lost, and its turns not.
        connection.execute(
            "INSERT INTO conversations SELECT conversation_id, substr(min(prompt), 1, 60),"
            " max(profile), min(started), max(started) FROM turns"
            " WHERE conversation_id NOT IN (SELECT id FROM conversations)"
            " GROUP BY conversation_id"
        )
        connection.execute(
            "DELETE FROM tags WHERE conversation_id NOT IN (SELECT id FROM conversations)"
        )
        for table in ("proposals", "notes"):
            connection.execute(
                f"DELETE FROM {table} WHERE turn_id NOT IN (SELECT id FROM turns)"  # noqa: S608
            )
    tell(progress)


def _fitting(table: str, row: Row) -> Row:
    return row[:_COLUMNS_OF_A_TURN] if table == "turns" else row


def _add(store: Store, rows: Store) -> dict[str, int]:
    done = add(store, archive.read(rows))
    return {
        "new": len(done.new),
        "same": len(done.same),
        "renamed": len(done.renamed),
        "turns": done.turns,
    }


def _add_spending(target: sqlite3.Connection, rows: Store, source: Path) -> None:
    """Add what was spent by the file that was put aside, once; of a copy, what is missing."""
    mark = f"recovered {source.name}"
    is_part = source.resolve() in [file.resolve() for file in damaged_files(paths.database_file())]
    done = target.execute("SELECT 1 FROM upkeep WHERE task = ?", (mark,)).fetchone()
    if is_part and done is None:
        # The new file began at nothing: both together were spent.
        combine = "{name} = {name} + excluded.{name}"
        target.execute("INSERT INTO upkeep VALUES (?)", (mark,))
    else:
        combine = "{name} = max({name}, excluded.{name})"
    for table, keys in (("spending", "day, model"), ("days", "day")):
        for row in _rows_of(rows, table):
            names = [name for name in row.keys() if name not in keys.split(", ")]  # noqa: SIM118
            changes = ", ".join(combine.format(name=name) for name in names)
            places = ", ".join("?" * len(row))
            target.execute(
                f"INSERT INTO {table} VALUES ({places})"  # noqa: S608
                f" ON CONFLICT ({keys}) DO UPDATE SET {changes}",
                tuple(row),
            )


def _add_comparisons(store: Store, rows: Store) -> None:
    """Add the blind choices that are not there."""
    there = store.comparisons.since()
    for comparison in rows.comparisons.since():
        # One whose contenders are lost tells nothing.
        if len(comparison.contenders) > 1 and comparison not in there:
            store.comparisons.add(comparison)


def _rows_of(rows: Store, table: str) -> Iterator[sqlite3.Row]:
    with rows.connection(writing=False) as connection:
        yield from connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
