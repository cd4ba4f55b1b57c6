"""The database file: opening it, its tables, and their changes over time."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from moa_cli import paths
from moa_cli.errors import StoreError

__all__ = [
    "alive",
    "database_file",
    "immediate",
    "open_database",
    "store_errors",
    "transaction",
]

_BUSY_SECONDS = 30.0

# One script a version; user_version counts those that have been run. Never change one that
# was released: add another.
_MIGRATIONS = (
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY,
        title TEXT NOT NULL,
        profile TEXT NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL
    );
    CREATE INDEX conversations_by_time ON conversations (updated);
    CREATE TABLE turns (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        started REAL NOT NULL,
        process INTEGER NOT NULL,
        profile TEXT NOT NULL,
        settings TEXT NOT NULL,
        prompt TEXT NOT NULL,
        status TEXT NOT NULL,
        reply TEXT,
        rest TEXT NOT NULL DEFAULT '{}',
        withdrawn INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX turns_by_conversation ON turns (conversation_id, id);
    CREATE INDEX turns_open ON turns (status) WHERE status = 'open';
    CREATE TABLE proposals (
        turn_id INTEGER NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
        layer INTEGER NOT NULL,
        place INTEGER NOT NULL,
        proposal TEXT NOT NULL,
        PRIMARY KEY (turn_id, layer, place)
    ) WITHOUT ROWID;
    CREATE TABLE notes (
        turn_id INTEGER NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
        event TEXT NOT NULL
    );
    CREATE INDEX notes_by_turn ON notes (turn_id);
    CREATE VIRTUAL TABLE words USING fts5 (
        prompt, reply, content = 'turns', content_rowid = 'id', tokenize = 'unicode61'
    );
    CREATE TRIGGER words_insert AFTER INSERT ON turns BEGIN
        INSERT INTO words (rowid, prompt, reply) VALUES (new.id, new.prompt, new.reply);
    END;
    CREATE TRIGGER words_update AFTER UPDATE OF prompt, reply ON turns BEGIN
        INSERT INTO words (words, rowid, prompt, reply)
            VALUES ('delete', old.id, old.prompt, old.reply);
        INSERT INTO words (rowid, prompt, reply) VALUES (new.id, new.prompt, new.reply);
    END;
    CREATE TRIGGER words_delete AFTER DELETE ON turns BEGIN
        INSERT INTO words (words, rowid, prompt, reply)
            VALUES ('delete', old.id, old.prompt, old.reply);
    END;
    """,
    # Spending holds no words, and outlives the conversations: what was paid was paid.
    """
    UPDATE turns SET rest = replace(rest, '"unknown_calls": ', '"estimated_calls": ');
    UPDATE proposals
        SET proposal = replace(proposal, '"unknown_calls": ', '"estimated_calls": ');
    CREATE TABLE spending (
        day TEXT NOT NULL,
        model TEXT NOT NULL,
        turns INTEGER NOT NULL,
        calls INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        estimated_calls INTEGER NOT NULL,
        unpriced_calls INTEGER NOT NULL,
        cost REAL NOT NULL,
        PRIMARY KEY (day, model)
    ) WITHOUT ROWID;
    CREATE TABLE reserved (
        holder TEXT PRIMARY KEY,
        process INTEGER NOT NULL,
        cost REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE days (day TEXT PRIMARY KEY, turns INTEGER NOT NULL) WITHOUT ROWID;
    """,
    # Blind choices hold no words either.
    """
    CREATE TABLE comparisons (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        chosen REAL NOT NULL,
        winner INTEGER
    );
    CREATE INDEX comparisons_by_time ON comparisons (chosen);
    CREATE TABLE contenders (
        comparison_id INTEGER NOT NULL REFERENCES comparisons (id) ON DELETE CASCADE,
        place INTEGER NOT NULL,
        arm TEXT NOT NULL,
        profile TEXT NOT NULL,
        settings TEXT NOT NULL,
        usage TEXT NOT NULL,
        seconds REAL NOT NULL,
        PRIMARY KEY (comparison_id, place)
    ) WITHOUT ROWID;
    """,
)


@contextmanager
def store_errors() -> Iterator[None]:
    """While inside, what SQLite raises is a StoreError."""
    try:
        yield
    except sqlite3.Error as error:
        hint = None
        if "malformed" in str(error):
            hint = "the file is damaged; move it away (`moa history path`) to begin a new one"
        raise StoreError(
            f"the conversations could not be read or written: {error}", hint=hint
        ) from None


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """While inside, all is done or nothing. kind: DEFERRED to read, IMMEDIATE to write."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def immediate(connection: sqlite3.Connection) -> AbstractContextManager[None]:
    """A transaction that writes: no other process does meanwhile."""
    return transaction(connection, "IMMEDIATE")


def database_file() -> Path:
    """The file that conversations are kept in."""
    return paths.data_dir() / "conversations.db"


def open_database(path: Path) -> tuple[sqlite3.Connection, Path | None]:
    """A connection to the file, made or brought up to date if need be.

    A file that is damaged is put aside, never deleted; its new place is returned beside the
    connection to a new file. Raises StoreError if the file cannot be used.
    """
    try:
        paths.make_private(path.parent)
        # SQLite would create it readable by all.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        return _connect(path), None
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path}: {error}") from None
    except sqlite3.DatabaseError:
        aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.replace(aside.with_name(aside.name + suffix))
        return open_database(path)[0], aside
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from None


def _connect(path: Path) -> sqlite3.Connection:
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
        _migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection) == len(_MIGRATIONS):
        return
    # Two processes may start at once: the second finds the work done.
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > len(_MIGRATIONS):
            raise StoreError(
                f"{path}: was written by a newer version of moa", hint="update moa to read it"
            )
        for script in _MIGRATIONS[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> list[str]:
    """The statements of a script; executescript would commit between them."""
    found, pending = [], ""
    for line in script.splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found


def alive(process: int) -> bool:
    """Whether there is such a process."""
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return True
    return True
