"""Checks a store, copies it, and recovers the readable rows of a damaged one.

All of this is safe while other processes use the store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from moa_cli.core import paths
from moa_cli.core.errors import StoreError
from moa_cli.core.files.scratch import scratch_folder, wipe_scratch_folders
from moa_cli.store import archive, upkeep
from moa_cli.store.database import connect, damaged_files, open_database
from moa_cli.store.ended_processes import SUMS
from moa_cli.store.incoming.take import ImportResult, add
from moa_cli.store.salvage import SalvageProgress, salvage
from moa_cli.store.schema import Connection, immediate, store_errors
from moa_cli.store.store import Store
from moa_cli.store.stored_values import as_unicode

_MOST_FAULTS = 20
_BACKING_UP, _RECOVERING = ".moa-backup-", ".moa-recover-"
# A pattern for the random end that `mkdtemp` adds to the names above.
_RANDOM = "????????"
# The target of INSERT for the rows of a table. A table that is not listed is its own target, with
# all of its columns.
_TARGETS = {
    "turns": (
        "turns (id, conversation_id, started, process, profile, settings, prompt, status, reply,"
        " rest, withdrawn, asks_again)"
    ),
    "old_proposals": "proposals",
    "notes": "notes (rowid, turn_id, event)",
    "comparisons": "comparisons (id, chosen, winner)",
}
# The columns of a turn in the first version. In later ones, `lease` and `asks_again` follow them.
_COLUMNS_OF_A_TURN = 11


@dataclass(frozen=True)
class CheckResult:
    """The result of a check.

    size: bytes of the file. free: unused bytes of it. faults: the damage in SQLite's words, at most
    20. unreadable: the number of damaged values. left: the upkeep that is still to be done.
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
        """Whether everything can be read."""
        return not self.faults and not self.unreadable


def check(store: Store) -> CheckResult:
    """Check a store by reading all of it. Raises StoreError if it cannot be read at all."""
    with store.connection(writing=False) as connection:
        faults = _faults(connection)
        if faults:
            return CheckResult(0, 0, 0, 0, faults)
        turns, pages, free, size = connection.execute(
            "SELECT (SELECT count(*) FROM turns), page_count, freelist_count, page_size"
            " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        ).fetchone()
        left = upkeep.leftover(connection)
        before = store.unreadable
        conversations = store.conversations(limit=-1)
        for conversation in conversations:
            store.load(conversation.id)
    unreadable = store.unreadable - before
    return CheckResult(len(conversations), turns, pages * size, free * size, (), unreadable, left)


def _faults(connection: Connection) -> tuple[str, ...]:
    try:
        rows = connection.execute(f"PRAGMA integrity_check({_MOST_FAULTS})").fetchall()
        faults = tuple(str(row[0]) for row in rows if row[0] != "ok")
    except sqlite3.DatabaseError as error:
        faults = (str(error),)
    return faults + _index_faults(connection)


def _index_faults(connection: Connection) -> tuple[str, ...]:
    """What is wrong with the search index. Older versions of SQLite do not check it, but no turn
    can be written if it is damaged."""
    try:
        connection.execute(
            "CREATE VIRTUAL TABLE IF NOT EXISTS temp.index_terms"
            " USING fts5vocab ('main', 'search_index', 'row')"
        )
        connection.execute("SELECT sum(cnt) FROM index_terms").fetchone()
    except sqlite3.DatabaseError as error:
        # A store that is open only to read takes no temporary table.
        readonly = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY
        return () if readonly else (f"the search index is damaged: {error}",)
    return ()


def back_up(store: Store, target: Path) -> int:
    """Copy a store in its present state into one file. Returns the size of the file in bytes.

    Other processes can write meanwhile. The copy is either complete, or there is none. It replaces
    an existing file. Raises StoreError if the store is damaged, OSError if the copy cannot be
    written.
    """
    paths.refuse_database(target)
    wipe_scratch_folders(target.parent, f"{_BACKING_UP}{_RANDOM}")
    with scratch_folder(target.parent, _BACKING_UP) as folder:
        aside = folder / target.name
        with store_errors(), store.connection(writing=False) as source:
            # This begins a read transaction, so that the copy has one state of the store.
            source.execute("SELECT 1 FROM sqlite_master").fetchone()
            copy = connect(aside)
            try:
                source.backup(copy)
                # The copy is a single file, without a log.
                copy.execute("PRAGMA journal_mode = DELETE")
                faults = _faults(copy)
            finally:
                copy.close()
        if faults:
            raise StoreError(
                f"the copy is damaged, as the history is: {faults[0]}",
                hint="to recover what can be read: `moa history recover`",
            )
        aside.chmod(0o600)
        aside.replace(target)
    return target.stat().st_size


@dataclass(frozen=True)
class RecoveryResult:
    """The result of a recovery: what was added, and how much could not be read."""

    added: ImportResult
    unreadable: int
    progress: SalvageProgress


def recover(store: Store, source: Path, tell: Callable[[SalvageProgress], None]) -> RecoveryResult:
    """Add everything that can be read in another database file to a store.

    Conversations and comparisons that are in the store already are not added again. The other file
    is not changed. tell: called repeatedly while the file is read. Raises StoreError, or OSError if
    the file cannot be read.
    """
    paths.refuse_database(source)
    progress = SalvageProgress()
    wipe_leftovers()
    with scratch_folder(paths.data_dir(), _RECOVERING) as folder:
        with store_errors():
            connection, _ = open_database(folder / "rows.db")
            try:
                _gather(connection, source, progress, tell)
            finally:
                connection.close()
        rows = Store.open(folder / "rows.db")
        try:
            added = add(store, archive.read(rows))
            with store.connection(writing=True) as target, store_errors():
                _add_spending(target, rows, source)
            there = store.comparisons.since()
            for comparison in rows.comparisons.since(texts=True):
                # A comparison is useless if its contenders were lost.
                known = replace(comparison, texts=None) in there
                if len(comparison.contenders) > 1 and not known:
                    store.comparisons.add(comparison)
        finally:
            rows.close()
    return RecoveryResult(added, rows.unreadable, progress)


def wipe_leftovers() -> None:
    """Wipe the copies that killed recoveries left in the data folder."""
    wipe_scratch_folders(paths.data_dir(), f"{_RECOVERING}{_RANDOM}")


def _gather(
    connection: Connection,
    source: Path,
    progress: SalvageProgress,
    tell: Callable[[SalvageProgress], None],
) -> None:
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    with immediate(connection):
        for number, (table, row) in enumerate(salvage(source, progress)):
            if table == "turns":
                # The lease is not needed. A row of an older version lacks `asks_again`.
                asks_again = row[_COLUMNS_OF_A_TURN + 1 : _COLUMNS_OF_A_TURN + 2] or (0,)
                row = (*row[:_COLUMNS_OF_A_TURN], *asks_again)
            # If both tables have a proposal for one place, the one in `proposals` is newer than the
            # one in `old_proposals`.
            do = "REPLACE" if table == "proposals" else "IGNORE"
            places = ", ".join("?" * len(row))
            connection.execute(
                f"INSERT OR {do} INTO {_TARGETS.get(table, table)} VALUES ({places})", row
            )
            if number % 1000 == 0:
                tell(progress)
        for statement in (
            "UPDATE turns SET status = 'interrupted' WHERE status = 'open'",
            # Deleted conversations stay deleted, even those that were not wiped yet.
            "DELETE FROM turns WHERE conversation_id IN (SELECT conversation_id FROM doomed)",
            # A conversation may be lost while its turns are readable, so it is made from them.
            "INSERT INTO conversations SELECT conversation_id, substr(min(prompt), 1, 60),"
            " max(profile), min(started), max(started) FROM turns"
            " WHERE conversation_id NOT IN (SELECT id FROM conversations)"
            " GROUP BY conversation_id",
            "DELETE FROM tags WHERE conversation_id NOT IN (SELECT id FROM conversations)",
            *(
                f"DELETE FROM {table} WHERE turn_id NOT IN (SELECT id FROM turns)"
                for table in ("proposals", "notes", "parts")
            ),
        ):
            connection.execute(statement)
    tell(progress)


def _add_spending(target: Connection, rows: Store, source: Path) -> None:
    """Add the spending of the other file.

    A damaged file that was put aside has the spending up to that time. It is added, but only once.
    Any other file is a copy of the store. For each sum, the higher one of the two files counts.
    """
    mark = as_unicode(f"recovered {source.name}")
    damaged = damaged_files(paths.database_file())
    is_part = paths.resolved(source) in [paths.resolved(file) for file in damaged]
    done = target.execute("SELECT 1 FROM upkeep WHERE task = ?", (mark,)).fetchone()
    if is_part and done is None:
        # The new file in its place began without spending, so both sums are added.
        combine = "{name} = {name} + excluded.{name}"
        target.execute("INSERT INTO upkeep VALUES (?)", (mark,))
    else:
        combine = "{name} = max({name}, excluded.{name})"
    sums: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("spending", "day, model", SUMS),
        ("key_spending", "day, key", ("cost",)),
        ("days", "day", ("turns",)),
    )
    for table, keys, names in sums:
        with rows.connection(writing=False) as connection:
            spent = connection.execute(f"SELECT * FROM {table}").fetchall()
        changes = ", ".join(combine.format(name=name) for name in names)
        for row in spent:
            places = ", ".join("?" * len(row))
            target.execute(
                f"INSERT INTO {table} VALUES ({places})"
                f" ON CONFLICT ({keys}) DO UPDATE SET {changes}",
                tuple(row),
            )
