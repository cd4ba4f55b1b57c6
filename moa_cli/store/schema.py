"""The tables of the database, their migrations, and transactions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from moa_cli.core.errors import StoreError, StoreLocked
from moa_cli.store import terms

_POLL_SECONDS = 0.01


def _pack_proposals(connection: sqlite3.Connection) -> None:
    """Replace the table of proposals by one that takes less room.

    The old table was WITHOUT ROWID, in which a row of more than a quarter of a page takes whole
    pages. `store.upkeep` moves the old rows, a few at a time; `every_proposal` shows both tables.
    """
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'old_proposals'")
    if known.fetchone():
        return
    # `upkeep` has the tasks that are still to be done, `doomed` the conversations that are deleted
    # but not wiped yet. By the columns `state` and `mark`, rows of `doomed` can be recognised in a
    # damaged file.
    _run(
        connection,
        """
        ALTER TABLE proposals RENAME TO old_proposals;
        CREATE TABLE proposals (
            turn_id INTEGER NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
            layer INTEGER NOT NULL,
            place INTEGER NOT NULL,
            proposal BLOB NOT NULL,
            PRIMARY KEY (turn_id, layer, place)
        );
        CREATE VIEW every_proposal AS
            SELECT turn_id, layer, place, CAST(proposal AS BLOB) AS proposal FROM proposals
            UNION ALL
            SELECT turn_id, layer, place, CAST(proposal AS BLOB) FROM old_proposals;
        CREATE TABLE upkeep (task TEXT PRIMARY KEY) WITHOUT ROWID;
        CREATE TABLE doomed (
            conversation_id TEXT PRIMARY KEY,
            state TEXT NOT NULL DEFAULT 'doomed',
            mark INTEGER NOT NULL DEFAULT 1
        ) WITHOUT ROWID;
        INSERT INTO upkeep SELECT 'pack proposals'
            WHERE EXISTS (SELECT 1 FROM old_proposals);
        """,
    )


def _know_by_leases(connection: sqlite3.Connection) -> None:
    """Identify processes by leases (see `store.lease`) instead of process ids."""
    _add_to_turns(connection, "lease", "TEXT NOT NULL DEFAULT ''")
    # `booked` has the calls of a lease that are counted in `spending`; 0 means all of them.
    connection.execute(
        "CREATE TABLE IF NOT EXISTS booked (lease TEXT NOT NULL, call INTEGER NOT NULL,"
        " PRIMARY KEY (lease, call)) WITHOUT ROWID"
    )


def _know_new_attempts(connection: sqlite3.Connection) -> None:
    """Note which turns ask the message of an earlier turn again (see `conversation.Turn`)."""
    _add_to_turns(connection, "asks_again", "INTEGER NOT NULL DEFAULT 0")


def _add_to_turns(connection: sqlite3.Connection, name: str, kind: str) -> None:
    columns = connection.execute("SELECT name FROM pragma_table_info('turns')").fetchall()
    if (name,) not in [tuple(row) for row in columns]:
        connection.execute(f"ALTER TABLE turns ADD COLUMN {name} {kind}")


def _run(connection: sqlite3.Connection, script: str) -> None:
    """Execute the statements of a script. `executescript` is not used, because it would commit the
    transaction."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            connection.execute(pending)
            pending = ""


# The condition that a turn has a summary. It cannot match inside a text, because there a quotation
# mark is escaped.
HAS_SUMMARY = "instr(rest, '\"summary_so_far\":') > 0"
# The version from which on there is the search index of `store.terms`.
_WITH_TERMS = 5
# A script or function for each version. `user_version` is the number of those that were run. Never
# change a released one: add another. It need not create what a later one drops anyway.
_MIGRATIONS: tuple[str | Callable[[sqlite3.Connection], None], ...] = (
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
    """,
    # Spending contains no prompts and replies, and stays when conversations are deleted.
    """
    UPDATE turns SET rest = replace(rest, '"unknown_calls": ', '"estimated_calls": ');
    UPDATE proposals
        SET proposal = replace(proposal, '"unknown_calls": ', '"estimated_calls": ')
        WHERE typeof(proposal) = 'text';
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
    CREATE TABLE days (day TEXT PRIMARY KEY, turns INTEGER NOT NULL) WITHOUT ROWID;
    """,
    # Blind comparisons also stay when conversations are deleted.
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
    _pack_proposals,
    # The search index has the terms of `store.terms`; `store.search` describes its tables. An
    # earlier index was the table `words`.
    """
    DROP TRIGGER IF EXISTS words_insert;
    DROP TRIGGER IF EXISTS words_update;
    DROP TRIGGER IF EXISTS words_delete;
    DROP TABLE IF EXISTS words;
    CREATE VIEW IF NOT EXISTS search_texts AS
        SELECT id, moa_terms(prompt) AS prompt, moa_terms(reply) AS reply FROM turns;
    CREATE VIRTUAL TABLE IF NOT EXISTS search_index USING fts5 (
        prompt, reply, content = 'search_texts', content_rowid = 'id', tokenize = 'ascii'
    );
    INSERT INTO search_index (search_index) VALUES ('rebuild');
    CREATE TABLE IF NOT EXISTS search_words (word TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE VIRTUAL TABLE IF NOT EXISTS search_terms USING fts5vocab ('search_index', 'row');
    INSERT OR IGNORE INTO search_words
        SELECT term FROM search_terms WHERE moa_words(term) <> '[]';
    DROP TABLE search_terms;
    CREATE TABLE IF NOT EXISTS search_doubted (word TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS search_unwiped (
        name TEXT PRIMARY KEY,
        begun INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TRIGGER IF NOT EXISTS search_insert AFTER INSERT ON turns BEGIN
        INSERT INTO search_index (rowid, prompt, reply)
            VALUES (new.id, moa_terms(new.prompt), moa_terms(new.reply));
        INSERT OR IGNORE INTO search_words
            SELECT value FROM json_each(moa_words(new.prompt, new.reply));
    END;
    CREATE TRIGGER IF NOT EXISTS search_update AFTER UPDATE OF prompt, reply ON turns
        WHEN old.prompt IS NOT new.prompt OR old.reply IS NOT new.reply
    BEGIN
        INSERT INTO search_index (search_index, rowid, prompt, reply)
            VALUES ('delete', old.id, moa_terms(old.prompt), moa_terms(old.reply));
        INSERT INTO search_index (rowid, prompt, reply)
            VALUES (new.id, moa_terms(new.prompt), moa_terms(new.reply));
        INSERT OR IGNORE INTO search_words
            SELECT value FROM json_each(moa_words(new.prompt, new.reply));
    END;
    CREATE TRIGGER IF NOT EXISTS search_replace AFTER UPDATE OF prompt, reply ON turns
        WHEN old.prompt IS NOT new.prompt
            OR (old.reply IS NOT NULL AND old.reply IS NOT new.reply)
    BEGIN
        INSERT OR IGNORE INTO search_doubted
            SELECT value FROM json_each(moa_words(old.prompt, old.reply));
        INSERT OR REPLACE INTO search_unwiped VALUES ('search_index', 0);
    END;
    CREATE TRIGGER IF NOT EXISTS search_delete AFTER DELETE ON turns BEGIN
        INSERT INTO search_index (search_index, rowid, prompt, reply)
            VALUES ('delete', old.id, moa_terms(old.prompt), moa_terms(old.reply));
        INSERT OR IGNORE INTO search_doubted
            SELECT value FROM json_each(moa_words(old.prompt, old.reply));
        INSERT OR REPLACE INTO search_unwiped VALUES ('search_index', 0);
    END;
    """,
    # A conversation is in `unfinished` while its turns are imported, and in `conversations` once
    # all of them are written.
    """
    CREATE TABLE IF NOT EXISTS tags (
        conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        tag TEXT NOT NULL,
        PRIMARY KEY (conversation_id, tag)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS unfinished (conversation_id TEXT PRIMARY KEY) WITHOUT ROWID;
    """,
    _know_by_leases,
    # The parts of prompts with more than text, packed like proposals. Images are stored here and
    # not in `turns`, so that a list or a search does not read them.
    """
    CREATE TABLE IF NOT EXISTS parts (
        turn_id INTEGER NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
        place INTEGER NOT NULL,
        part BLOB NOT NULL,
        PRIMARY KEY (turn_id, place)
    );
    """,
    # The spending of each named key of `moa serve`. A reservation is for the budget of the day, or,
    # if it has a key, for the budget of that key.
    """
    CREATE TABLE IF NOT EXISTS key_spending (
        day TEXT NOT NULL,
        key TEXT NOT NULL,
        cost REAL NOT NULL,
        PRIMARY KEY (day, key)
    ) WITHOUT ROWID;
    DROP TABLE IF EXISTS reserved;
    CREATE TABLE reserved (
        holder TEXT PRIMARY KEY,
        lease TEXT NOT NULL,
        day TEXT NOT NULL,
        cost REAL NOT NULL,
        key TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    """,
    # An index of the turns with a summary (see `conversation.Turn`). There are few of them, and
    # each search reads all of them.
    f"""
    CREATE INDEX IF NOT EXISTS turns_with_summary ON turns (id) WHERE {HAS_SUMMARY};
    """,
    # The texts of a comparison, packed like proposals: `details` (a note, and which answers were
    # the same), and `texts` (prompt and answers) if the user allowed it.
    """
    CREATE TABLE IF NOT EXISTS comparison_words (
        comparison_id INTEGER NOT NULL REFERENCES comparisons (id) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        packed BLOB NOT NULL,
        PRIMARY KEY (comparison_id, kind)
    );
    """,
    _know_new_attempts,
)


class Connection(sqlite3.Connection):
    """A connection to a store that can wait until it may write.

    patience: seconds to wait while another process writes. waiting: called once if that takes
    longer than a moment. damaged: how many texts were read that are not UTF-8.
    """

    patience = 30.0
    waiting: Callable[[], None] | None = None
    damaged = 0

    def decoded(self, data: bytes) -> str:
        """A text of the file. One damaged byte must not make all other rows unreadable."""
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.damaged += 1
            return data.decode("utf-8", "replace")

    def patiently(self, statement: str) -> sqlite3.Cursor:
        """Execute a statement that needs a lock, and wait for the lock. Returns the result.

        This loop is needed because SQLite's own wait is short, so that Ctrl-C works. Raises
        sqlite3.Error, also if the lock is not free within `patience`.
        """
        began = time.monotonic()
        told = False
        while True:
            try:
                return self.execute(statement)
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() - began >= self.patience:
                    raise
            if not told and self.waiting is not None:
                self.waiting()
            told = True
            time.sleep(_POLL_SECONDS)


@contextmanager
def patience(connection: Connection, seconds: float | None) -> Iterator[None]:
    """Within the block, wait at most `seconds` for other processes; None changes nothing."""
    before = connection.patience
    if seconds is not None:
        connection.patience = seconds
    try:
        yield
    finally:
        connection.patience = before


# Where SQLite's own words do not tell what to look at.
_REASONS = {
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened, or its folder cannot be written",
    sqlite3.SQLITE_READONLY: "the file or its folder cannot be written",
    sqlite3.SQLITE_IOERR: "the disk is full, or cannot be read or written",
    sqlite3.SQLITE_FULL: "the disk is full",
}


# In SQLite's words about a damaged search index, and about a trigger that cannot read a text.
_DAMAGED = ("fts5", "user-defined function")


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn errors of SQLite, and of the functions that its triggers call, into StoreError."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if kind == sqlite3.SQLITE_BUSY:
            raise StoreLocked(
                "another process is writing to the conversations",
                hint="wait until it has finished, or end it",
            ) from None
        hint = None
        damaged = kind == sqlite3.SQLITE_CORRUPT or isinstance(error, UnicodeDecodeError)
        if damaged or any(words in str(error) for words in _DAMAGED):
            hint = "the file is damaged: see `moa history check` and `moa history recover`"
        raise StoreError(
            f"the conversations could not be read or written: {in_words(error)}", hint=hint
        ) from None


def in_words(error: Exception) -> str:
    """Why SQLite cannot use the file, for a user to act on."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_SHMMAP:
        return "its file system lacks shared memory; set MOA_DATA_DIR to a folder on a local disk"
    return _REASONS.get(code & 0xFF, str(error))


class Queries:
    """Base of classes that read from a connection; errors of SQLite become StoreError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def use(self, connection: Connection) -> None:
        """Continue with the connection to another file, when the store has changed to it."""
        self._connection = connection

    def _rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        connection = self._connection
        with store_errors():
            # SQLite's own decoding is faster, but fails at a damaged text.
            connection.text_factory = str
            try:
                return connection.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                # An error of the sqlite3 module, not of SQLite, has no code.
                if hasattr(error, "sqlite_errorcode"):
                    raise
            finally:
                connection.text_factory = connection.decoded
            return connection.execute(sql, values).fetchall()

    def _row(self, sql: str, *values: object) -> sqlite3.Row | None:
        with store_errors():
            row: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
            return row

    def _column(self, sql: str, *values: object) -> list[Any]:
        """The first value of each row."""
        return [row[0] for row in self._rows(sql, *values)]


@contextmanager
def transaction(connection: Connection, kind: str) -> Iterator[None]:
    """Do everything in the block in one transaction, or nothing if the block raises.

    kind: DEFERRED to read, IMMEDIATE to write. Within another transaction, the block becomes a
    part of it.
    """
    if connection.in_transaction:
        yield
        return
    connection.patiently(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        _roll_back(connection)
        raise
    # A read transaction is rolled back, because a COMMIT fails if the file is damaged.
    connection.execute("COMMIT" if kind == "IMMEDIATE" else "ROLLBACK")


def _roll_back(connection: Connection) -> None:
    # A full disk may have ended the transaction already.
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def immediate(connection: Connection) -> AbstractContextManager[None]:
    """A transaction that writes. No other process can write meanwhile."""
    return transaction(connection, "IMMEDIATE")


def is_current(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the tables are of this version. Raises StoreError if they are of a newer one."""
    version = _version(connection)
    if version > len(_MIGRATIONS):
        raise StoreError(
            f"{path}: was written by a newer version of moa", hint="update moa to read it"
        )
    return version == len(_MIGRATIONS)


def migrate(connection: Connection, path: Path) -> None:
    """Bring the tables to this version. Raises StoreError if a newer version of moa wrote them."""
    # The triggers of the search index call the functions of `terms`.
    terms.register(connection)
    if is_current(connection, path):
        return
    with immediate(connection):
        # Another process may have migrated the file meanwhile.
        if is_current(connection, path):
            return
        version = _version(connection)
        if 0 < version < _WITH_TERMS:
            _mend_texts(connection)
        for script in _MIGRATIONS[version:]:
            if callable(script):
                script(connection)
            else:
                _run(connection, script)
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")


def _mend_texts(connection: Connection) -> None:
    """Mend texts of turns that are not UTF-8, because SQLite cannot pass them to the functions of
    the search index."""
    found, before = [], connection.damaged
    for turn, prompt, reply in connection.execute("SELECT id, prompt, reply FROM turns"):
        if connection.damaged > before:
            before = connection.damaged
            found.append((prompt, reply, turn))
    connection.executemany("UPDATE turns SET prompt = ?, reply = ? WHERE id = ?", found)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
