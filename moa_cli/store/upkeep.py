"""Maintains the database file in small steps, so that other processes can use it meanwhile.

The steps wipe deleted texts, pack rows that an older version wrote, and return free room to the
disk. Each step is a transaction of about a twentieth of a second. Between two steps, other
processes can write. The tables `doomed` and `upkeep` list what is still to be done, so any later
process can continue.

A deleted conversation disappears from every list at once. Its turns are deleted in steps. SQLite
overwrites their texts (`secure_delete`), but the search index keeps the words of deleted turns in
older segments, until all segments are merged into one.

Copies of deleted texts can remain in one more place. When SQLite moves rows between pages to
balance its trees, it leaves copies in the unused part of pages. They are removed only if the whole
file is rewritten (VACUUM), and no other process can write meanwhile. A small file takes a moment,
so this is done at once. A large file is rewritten when nobody has used it for a while, or when the
user asks for it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moa_cli.store.schema import Connection, immediate, transaction
from moa_cli.store.stored_values import pack, unpack

_STEP_SECONDS = 0.05
# Seconds between two steps: as long as the last step took, within these limits.
_SHORTEST_REST, _LONGEST_REST = 0.01, 0.1
_ROWS, _MERGE_PAGES, _FREE_PAGES = 50, 100, 500
# Single deleted turns get this in place of a conversation's id. A real id has no spaces.
_SINGLE = "single turns"
_MERGE, _PACK, _EMPTY_LOG = "merge words", "pack proposals", "empty the log"
_REWRITE = "write the file anew"
# A file of this size is rewritten within about a third of a second.
_SMALL_BYTES = 50_000_000


@dataclass(frozen=True)
class PendingUpkeep:
    """The upkeep that is still to be done.

    conversations: the number of deleted conversations that still have turns. merge: whether the
    search index may have words of deleted texts. log: whether the write-ahead log may have them; it
    cannot be emptied while other processes read. traces: whether unused parts of pages may have
    them. pack: whether there are proposals of an older version. trouble: why the wiping after a
    deletion has stopped, or None.
    """

    conversations: int = 0
    merge: bool = False
    log: bool = False
    pack: bool = False
    traces: bool = False
    trouble: str | None = None

    @property
    def words(self) -> bool:
        """Whether the file may still contain words of deleted conversations."""
        return bool(self.conversations or self.merge or self.log or self.traces)


def doom(connection: Connection, identities: Sequence[str], turns: Sequence[int] = ()) -> None:
    """Remove conversations from every list, and single turns from their conversations.

    `work` deletes the turns. Raises sqlite3.Error.
    """
    # The turns stay for now. With foreign keys on, SQLite would delete them with the conversation.
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        with immediate(connection):
            # Single turns become turns of an additional conversation, which is deleted.
            for identity in [*identities, _SINGLE] if turns else identities:
                connection.execute(
                    "INSERT OR IGNORE INTO doomed (conversation_id) VALUES (?)", (identity,)
                )
                connection.execute("DELETE FROM conversations WHERE id = ?", (identity,))
                connection.execute("DELETE FROM tags WHERE conversation_id = ?", (identity,))
            for turn in turns:
                connection.execute(
                    "UPDATE turns SET conversation_id = ? WHERE id = ?", (_SINGLE, turn)
                )
    finally:
        connection.execute("PRAGMA foreign_keys = ON")


def wipe_traces(connection: Connection) -> None:
    """Let `work` remove the traces of deleted rows that did not belong to conversations, such as
    comparisons. Raises sqlite3.Error."""
    with immediate(connection):
        _add(connection, _REWRITE, _EMPTY_LOG)


def leftover(connection: Connection) -> PendingUpkeep:
    """The upkeep that is still to be done. Raises sqlite3.Error."""
    with transaction(connection, "DEFERRED"):
        (doomed,) = connection.execute("SELECT count(*) FROM doomed").fetchone()
        tasks = {task for (task,) in connection.execute("SELECT task FROM upkeep")}
    return PendingUpkeep(
        int(doomed), _MERGE in tasks, _EMPTY_LOG in tasks, _PACK in tasks, _REWRITE in tasks
    )


def work(connection: Connection, *, seconds: float) -> PendingUpkeep:
    """Do upkeep for about `seconds`. Returns what is left. Raises sqlite3.Error."""
    deadline = time.monotonic() + seconds
    for _ in _steps(connection):
        if time.monotonic() >= deadline:
            break
    return leftover(connection)


def _steps(connection: Connection) -> Iterator[None]:
    """Do all steps, with a rest after each one."""
    for step in (_wipe_turns, _merge_words, _pack_proposals, _rewrite_small, _give_back):
        began = time.monotonic()
        while step(connection):
            yield
            taken = time.monotonic() - began
            time.sleep(min(max(taken, _SHORTEST_REST), _LONGEST_REST))
            began = time.monotonic()
    _empty_log(connection)
    yield


def _has(connection: Connection, task: str) -> bool:
    return connection.execute("SELECT 1 FROM upkeep WHERE task = ?", (task,)).fetchone() is not None


def _add(connection: Connection, *tasks: str) -> None:
    for task in tasks:
        connection.execute("INSERT OR IGNORE INTO upkeep VALUES (?)", (task,))


def _done(connection: Connection, task: str) -> None:
    connection.execute("DELETE FROM upkeep WHERE task = ?", (task,))


def _wipe_turns(connection: Connection) -> bool:
    """Delete turns of one deleted conversation; return whether there may be more."""
    row = connection.execute("SELECT conversation_id FROM doomed LIMIT 1").fetchone()
    if row is None:
        return False
    identity = row[0]
    began = time.monotonic()
    with immediate(connection):
        _add(connection, _MERGE, _REWRITE, _EMPTY_LOG)
        while time.monotonic() - began < _STEP_SECONDS:
            # Parts are deleted one at a time, because an image may take as long as a thousand
            # turns.
            if connection.execute(
                "DELETE FROM parts WHERE rowid = (SELECT parts.rowid FROM turns JOIN parts"
                " ON turn_id = turns.id WHERE conversation_id = ? LIMIT 1)",
                (identity,),
            ).rowcount:
                continue
            if _delete_turns(connection, identity) < _ROWS:
                connection.execute("DELETE FROM doomed WHERE conversation_id = ?", (identity,))
                break
    return True


def _delete_turns(connection: Connection, identity: str) -> int:
    """Delete some turns of a conversation. Returns how many were deleted."""
    some = "(SELECT id FROM turns WHERE conversation_id = ? LIMIT ?)"
    try:
        gone = connection.execute(f"DELETE FROM turns WHERE id IN {some}", (identity, _ROWS))
        return gone.rowcount
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
    from moa_cli.store import search

    numbers = [number for (number,) in connection.execute(some[1:-1], (identity, _ROWS))]
    search.delete_damaged(connection, numbers)
    return len(numbers)


def _merge_words(connection: Connection) -> bool:
    """Merge some pages of the search index; return whether there is more to merge."""
    if not _has(connection, _MERGE):
        return False
    from moa_cli.store import search

    began = time.monotonic()
    while search.wipe_step(connection, _MERGE_PAGES):
        if time.monotonic() - began >= _STEP_SECONDS:
            return True
    with immediate(connection):
        # Another process may have deleted more texts since.
        if search.is_wiped(connection):
            _done(connection, _MERGE)
    return False


def _pack_proposals(connection: Connection) -> bool:
    """Move some proposals of an older version to the new table; return whether there are more."""
    if not _has(connection, _PACK):
        return False
    began = time.monotonic()
    with immediate(connection):
        while time.monotonic() - began < _STEP_SECONDS:
            rows = connection.execute(
                "SELECT turn_id, layer, place, proposal FROM old_proposals LIMIT ?", (_ROWS,)
            ).fetchall()
            for *place, proposal in rows:
                connection.execute(
                    "INSERT OR IGNORE INTO proposals VALUES (?, ?, ?, ?)",
                    (*place, _packed(proposal)),
                )
                connection.execute(
                    "DELETE FROM old_proposals WHERE turn_id = ? AND layer = ? AND place = ?", place
                )
            if len(rows) < _ROWS:
                _done(connection, _PACK)
                return False
    return True


def _packed(proposal: str | bytes) -> str | bytes:
    try:
        return pack(unpack(proposal))
    except (ValueError, TypeError):
        # A damaged proposal is not changed.
        return proposal


def _give_back(connection: Connection) -> bool:
    """Return some free pages to the disk; return whether there are more.

    Files of an older version keep their free pages for new conversations.
    """
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


def seconds_to_wipe(connection: Connection) -> float:
    """How long a caller should wait for the wiping. It is longer for a small file, because that can
    be finished."""
    return 3.0 if _is_small(connection) else 0.2


def _is_small(connection: Connection) -> bool:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return bool(pages * size <= _SMALL_BYTES)


def _rewrite_small(connection: Connection) -> bool:
    """Rewrite a small file, if this is still to be done."""
    if _has(connection, _REWRITE) and not _has(connection, _MERGE) and _is_small(connection):
        rewrite(connection)
    return False


def rewrite(connection: Connection) -> bool:
    """Rewrite the file without free pages and traces. No other process can write meanwhile.

    Returns whether it was done. It fails while another process writes, or if the disk is full.
    """
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
    except sqlite3.OperationalError:
        return False
    with immediate(connection):
        _done(connection, _REWRITE)
    return True


def _empty_log(connection: Connection) -> None:
    """Empty the write-ahead log, which contains older states of pages, unless it is in use."""
    if not _has(connection, _EMPTY_LOG) or _has(connection, _MERGE):
        return
    # The task is deleted first, because this change is written to the log, too. If the log cannot
    # be emptied, the task is added again.
    with immediate(connection):
        _done(connection, _EMPTY_LOG)
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        with immediate(connection):
            _add(connection, _EMPTY_LOG)
