"""What is done on the file beside other processes, a little at a time: wiping what was deleted,
packing what an older version wrote, giving back room.

Each step is a transaction of its own of about a twentieth of a second. Between two steps others
may write. What is still to be done stands in the file itself (the tables `doomed` and `upkeep`),
so that any later process can go on with it.

A conversation that is deleted is taken out of every list at once. Its turns go in steps. SQLite
overwrites what they held (`secure_delete`), but the search index keeps a deleted turn's words in
its older segments: they are gone once all segments are merged into one.

That is not all. Where SQLite moves rows from page to page to balance its trees, it leaves copies of
them in the unused part of pages. Only writing the whole file anew (VACUUM) takes those away. That
holds up whoever writes, for a moment if the file is small; a large one is written anew when nobody
has used it for a while, or when the user says so.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moa_cli.store import search
from moa_cli.store.packing import pack, unpack
from moa_cli.store.schema import immediate, transaction

_STEP_SECONDS = 0.05
# Between two steps: as long as the last one took, so that whoever waits gets in.
_SHORTEST_REST, _LONGEST_REST = 0.01, 0.1
_ROWS, _MERGE_PAGES, _FREE_PAGES = 50, 100, 500
# In the place of a conversation's id, which has no space.
_SINGLE = "single turns"
_DOOM = "INSERT OR IGNORE INTO doomed (conversation_id) VALUES (?)"
_MERGE, _PACK, _EMPTY_LOG = "merge words", "pack proposals", "empty the log"
_REWRITE = "write the file anew"
# Such a file is written anew within about a third of a second.
_SMALL_BYTES = 50_000_000


@dataclass(frozen=True)
class PendingUpkeep:
    """What is still to be done.

    conversations: deleted ones whose turns are not all gone. merge: whether the word index still
    holds deleted words. log: whether the write-ahead log does, which other processes that read
    keep from being emptied. pack: whether there are proposals of an older version.
    traces: whether unused parts of pages may hold deleted words.
    """

    conversations: int = 0
    merge: bool = False
    log: bool = False
    pack: bool = False
    traces: bool = False

    @property
    def words(self) -> bool:
        """Whether words of deleted conversations may still stand in the file."""
        return bool(self.conversations or self.merge or self.log or self.traces)


def doom(
    connection: sqlite3.Connection, identities: Sequence[str], turns: Sequence[int] = ()
) -> None:
    """Take conversations out of every list, and single turns out of theirs; the turns are deleted
    by `work`.

    Raises sqlite3.Error.
    """
    # The turns stay behind for now, which they may not while references are checked.
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        with immediate(connection):
            for identity in identities:
                connection.execute(
                    "INSERT OR IGNORE INTO doomed (conversation_id) VALUES (?)", (identity,)
                )
                connection.execute("DELETE FROM conversations WHERE id = ?", (identity,))
                connection.execute("DELETE FROM tags WHERE conversation_id = ?", (identity,))
            if turns:
                # As if they were those of one more conversation, which is deleted.
                connection.execute(
                    "INSERT OR IGNORE INTO doomed (conversation_id) VALUES (?)", (_SINGLE,)
                )
                connection.executemany(
                    "UPDATE turns SET conversation_id = ? WHERE id = ?",
                    [(_SINGLE, turn) for turn in turns],
                )
    finally:
        connection.execute("PRAGMA foreign_keys = ON")


def leftover(connection: sqlite3.Connection) -> PendingUpkeep:
    """What is to be done. Raises sqlite3.Error."""
    with transaction(connection, "DEFERRED"):
        (doomed,) = connection.execute("SELECT count(*) FROM doomed").fetchone()
        tasks = {task for (task,) in connection.execute("SELECT task FROM upkeep")}
    return PendingUpkeep(
        int(doomed), _MERGE in tasks, _EMPTY_LOG in tasks, _PACK in tasks, _REWRITE in tasks
    )


def work(connection: sqlite3.Connection, *, seconds: float) -> PendingUpkeep:
    """Do what there is to do, for about so many seconds; returns what is left.

    Raises sqlite3.Error.
    """
    deadline = time.monotonic() + seconds
    for _ in _steps(connection):
        now = time.monotonic()
        if now >= deadline:
            break
    return leftover(connection)


def _steps(connection: sqlite3.Connection) -> Iterator[None]:
    """Work, step by step, resting between two."""
    for step in (_wipe_turns, _merge_words, _pack_proposals, _rewrite_small, _give_back):
        while True:
            began = time.monotonic()
            if not step(connection):
                break
            yield
            taken = time.monotonic() - began
            time.sleep(min(max(taken, _SHORTEST_REST), _LONGEST_REST))
    _empty_log(connection)
    yield


def _has(connection: sqlite3.Connection, task: str) -> bool:
    return connection.execute("SELECT 1 FROM upkeep WHERE task = ?", (task,)).fetchone() is not None


def _add(connection: sqlite3.Connection, task: str) -> None:
    connection.execute("INSERT OR IGNORE INTO upkeep VALUES (?)", (task,))


def _done(connection: sqlite3.Connection, task: str) -> None:
    connection.execute("DELETE FROM upkeep WHERE task = ?", (task,))


def _wipe_turns(connection: sqlite3.Connection) -> bool:
    """Delete turns of one doomed conversation; whether there may be more."""
    row = connection.execute("SELECT conversation_id FROM doomed LIMIT 1").fetchone()
    if row is None:
        return False
    identity = row[0]
    began = time.monotonic()
    with immediate(connection):
        _add(connection, _MERGE)
        _add(connection, _REWRITE)
        _add(connection, _EMPTY_LOG)
        while time.monotonic() - began < _STEP_SECONDS:
            gone = connection.execute(
                "DELETE FROM turns WHERE id IN"
                " (SELECT id FROM turns WHERE conversation_id = ? LIMIT ?)",
                (identity, _ROWS),
            ).rowcount
            if gone < _ROWS:
                connection.execute("DELETE FROM doomed WHERE conversation_id = ?", (identity,))
                break
    return True


def _merge_words(connection: sqlite3.Connection) -> bool:
    """Merge some pages of the search index; whether there is more to merge."""
    if not _has(connection, _MERGE):
        return False
    began = time.monotonic()
    while search.wipe_step(connection, _MERGE_PAGES):
        if time.monotonic() - began >= _STEP_SECONDS:
            return True
    with immediate(connection):
        # Another process may have deleted more since.
        if search.is_wiped(connection):
            _done(connection, _MERGE)
    return False


def _pack_proposals(connection: sqlite3.Connection) -> bool:
    """Move some proposals of an older version to where they take less room; whether there are
    more."""
    if not _has(connection, _PACK):
        return False
    began = time.monotonic()
    with immediate(connection):
        while time.monotonic() - began < _STEP_SECONDS:
            rows = connection.execute(
                "SELECT turn_id, layer, place, proposal FROM old_proposals LIMIT ?", (_ROWS,)
            ).fetchall()
            for turn, layer, place, proposal in rows:
                connection.execute(
                    "INSERT OR IGNORE INTO proposals VALUES (?, ?, ?, ?)",
                    (turn, layer, place, _packed(proposal)),
                )
                connection.execute(
                    "DELETE FROM old_proposals WHERE turn_id = ? AND layer = ? AND place = ?",
                    (turn, layer, place),
                )
            if len(rows) < _ROWS:
                _done(connection, _PACK)
                return False
    return True


def _packed(proposal: str | bytes) -> str | bytes:
    try:
        return pack(unpack(proposal))
    except (ValueError, TypeError):
        # It cannot be read, and is not lost for that.
        return proposal


def _give_back(connection: sqlite3.Connection) -> bool:
    """Give some free pages back to the disk; whether there are more. A file of an older version
    gives none back: new conversations fill them."""
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if mode != 2 or not free:
        return False
    began = time.monotonic()
    with immediate(connection):
        while free and time.monotonic() - began < _STEP_SECONDS:
            connection.execute(f"PRAGMA incremental_vacuum({_FREE_PAGES})").fetchall()
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return bool(free)


def seconds_to_wipe(connection: sqlite3.Connection) -> float:
    """How long somebody who waits for the wiping should wait: all of it is done in a small file
    within a moment, and in a large one after that anyway."""
    return 3.0 if _is_small(connection) else 0.2


def _is_small(connection: sqlite3.Connection) -> bool:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return bool(pages * size <= _SMALL_BYTES)


def _rewrite_small(connection: sqlite3.Connection) -> bool:
    """Write a small file anew, if that is to be done."""
    if _has(connection, _REWRITE) and not _has(connection, _MERGE) and _is_small(connection):
        rewrite(connection)
    return False


def rewrite(connection: sqlite3.Connection) -> bool:
    """Write the file anew, without free pages and traces; nobody else can write meanwhile.

    Returns whether it was done: not while another process writes, nor without room on the disk.
    """
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
    except sqlite3.OperationalError:
        return False
    with immediate(connection):
        _done(connection, _REWRITE)
    return True


def _empty_log(connection: sqlite3.Connection) -> None:
    """Empty the write-ahead log, which holds older states of pages, unless it is in use."""
    if not _has(connection, _EMPTY_LOG) or _has(connection, _MERGE):
        return
    # The task is taken out first: else that very change would fill the log again. Where the log
    # could not be emptied, it comes back.
    with immediate(connection):
        _done(connection, _EMPTY_LOG)
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        with immediate(connection):
            _add(connection, _EMPTY_LOG)
