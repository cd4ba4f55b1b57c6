"""The tables of the database, their changes over time, and transactions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from moa_cli.errors import StoreError

__all__ = [
    "alive",
    "immediate",
    "migrate",
    "store_errors",
    "transaction",
]

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


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the tables up to date.

    Raises StoreError if a newer version of moa wrote them, sqlite3.Error if it cannot be done.
    """
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
