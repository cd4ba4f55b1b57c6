"""Conversations in one SQLite file, used by any number of processes at once."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moa_cli.conversation import Conversation, Proposal, Turn
from moa_cli.errors import StoreError
from moa_cli.events import load_value
from moa_cli.store.schema import database_file, open_database

__all__ = ["Found", "Store", "Summary"]

_LONGEST_TITLE = 60
# Without 0, o, 1, l and i: an id may be read aloud and typed again.
_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
_COLUMNS = "started, process, profile, settings, prompt, status, reply, rest"
_APART = ("user", "reply", "status", "proposals", "stored_as")


@dataclass(frozen=True)
class Summary:
    """A conversation in a list. updated: seconds since 1970."""

    id: str
    title: str
    profile: str
    updated: float
    turns: int


@dataclass(frozen=True)
class Found:
    """A turn that a search found. snippet: words around the hits, hits between \\x02 and \\x03."""

    conversation: str
    title: str
    snippet: str


class Store:
    """Open one with `Store.open`; close it when done.

    damaged: where a damaged file was put aside at opening, or None.
    """

    def __init__(self, connection: sqlite3.Connection, damaged: Path | None = None) -> None:
        self._connection = connection
        self.damaged = damaged

    @classmethod
    def open(cls, path: Path | None = None) -> Store:
        """The store in `path` (default: the data folder's). Raises StoreError."""
        connection, damaged = open_database(path or database_file())
        store = cls(connection, damaged)
        with _errors():
            store._mark_interrupted()
        return store

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def _mark_interrupted(self) -> None:
        """Turns that were open in a process which is no more ended with it."""
        rows = self._connection.execute("SELECT id, process FROM turns WHERE status = 'open'")
        for row in rows.fetchall():
            if not _alive(row["process"]):
                self._connection.execute(
                    "UPDATE turns SET status = 'interrupted' WHERE id = ?", (row["id"],)
                )

    def begin_conversation(self, prompt: str, profile: str) -> str:
        """A new conversation, titled by its first prompt; returns its id."""
        identity = _new_id()
        title = " ".join(prompt.split())[:_LONGEST_TITLE] or "untitled"
        now = time.time()
        with _errors():
            self._connection.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, ?)",
                (identity, _clean(title), profile, now, now),
            )
        return identity

    def begin_turn(self, conversation: str, prompt: str, profile: str, settings: str) -> int:
        """A new open turn; returns its id. settings: the resolved profile as TOML."""
        with _errors(), self._transaction():
            now = time.time()
            cursor = self._connection.execute(
                "INSERT INTO turns (conversation_id, started, process, profile, settings, prompt,"
                " status) VALUES (?, ?, ?, ?, ?, ?, 'open')",
                (conversation, now, os.getpid(), profile, _clean(settings), _clean(prompt)),
            )
            self._connection.execute(
                "UPDATE conversations SET updated = ?, profile = ? WHERE id = ?",
                (now, profile, conversation),
            )
            return int(cursor.lastrowid or 0)

    def add_proposal(self, turn: int, proposal: Proposal) -> None:
        """A proposal that has ended, well or not."""
        text = _dump(dataclasses.asdict(proposal))
        with _errors():
            self._connection.execute(
                "INSERT OR REPLACE INTO proposals VALUES (?, ?, ?, ?)",
                (turn, proposal.layer, proposal.index, text),
            )

    def add_note(self, turn: int, event: dict[str, Any]) -> None:
        """An event worth keeping that no proposal tells of: a retry, a lost aggregator."""
        with _errors():
            self._connection.execute("INSERT INTO notes VALUES (?, ?)", (turn, _dump(event)))

    def end_turn(self, identity: int, turn: Turn) -> None:
        """What came of the turn, partial if its status says so."""
        rest = {k: v for k, v in dataclasses.asdict(turn).items() if k not in _APART}
        reply = None if turn.reply is None else _clean(turn.reply)
        with _errors():
            self._connection.execute(
                "UPDATE turns SET status = ?, reply = ?, rest = ? WHERE id = ?",
                (turn.status, reply, _dump(rest), identity),
            )

    def withdraw(self, turn: int) -> None:
        """The turn was taken back, or another stands in its place; it is kept, but no part of
        the conversation any more."""
        with _errors():
            self._connection.execute("UPDATE turns SET withdrawn = 1 WHERE id = ?", (turn,))

    def fork(self, identity: str) -> str:
        """A new conversation with the same turns; returns its id."""
        with _errors(), self._transaction():
            row = self._connection.execute(
                "SELECT title, profile FROM conversations WHERE id = ?", (identity,)
            ).fetchone()
            new, now = _new_id(), time.time()
            self._connection.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, ?)",
                (new, row["title"], row["profile"], now, now),
            )
            turns = self._connection.execute(
                "SELECT id FROM turns WHERE conversation_id = ? AND NOT withdrawn ORDER BY id",
                (identity,),
            ).fetchall()
            for (old,) in turns:
                copied = self._connection.execute(
                    f"INSERT INTO turns ({_COLUMNS}, conversation_id)"  # noqa: S608
                    f" SELECT {_COLUMNS}, ? FROM turns WHERE id = ?",
                    (new, old),
                ).lastrowid
                self._connection.execute(
                    "INSERT INTO proposals SELECT ?, layer, place, proposal FROM proposals"
                    " WHERE turn_id = ?",
                    (copied, old),
                )
        return new

    def conversations(
        self, *, limit: int = 20, since: float = 0, profile: str | None = None
    ) -> list[Summary]:
        """The latest conversations first. since: seconds since 1970."""
        with _errors():
            rows = self._connection.execute(
                "SELECT c.*, (SELECT count(*) FROM turns t WHERE t.conversation_id = c.id"
                " AND NOT withdrawn) AS turns"
                " FROM conversations c WHERE updated >= ? AND (? IS NULL OR profile = ?)"
                " ORDER BY updated DESC LIMIT ?",
                (since, profile, profile, limit),
            ).fetchall()
        return [
            Summary(row["id"], row["title"], row["profile"], row["updated"], row["turns"])
            for row in rows
        ]

    def find(self, prefix: str) -> str:
        """The one conversation whose id begins with `prefix`.

        Raises StoreError if there is none, or more than one.
        """
        with _errors():
            rows = self._connection.execute(
                "SELECT id FROM conversations WHERE substr(id, 1, ?) = ? LIMIT 2",
                (len(prefix), prefix),
            ).fetchall()
        if len(rows) == 1 and prefix:
            return str(rows[0]["id"])
        if rows:
            raise StoreError(f"several conversations begin with `{prefix}`", hint="give more of it")
        raise StoreError(f"there is no conversation `{prefix}`", hint="`moa history list`")

    def load(self, identity: str) -> Conversation:
        """The conversation of that id: turns that failed included, withdrawn ones not."""
        with _errors():
            rows = self._connection.execute(
                "SELECT * FROM turns WHERE conversation_id = ? AND NOT withdrawn ORDER BY id",
                (identity,),
            ).fetchall()
            proposals = self._connection.execute(
                "SELECT p.* FROM proposals p JOIN turns t ON t.id = p.turn_id"
                " WHERE t.conversation_id = ? ORDER BY p.turn_id, p.layer, p.place",
                (identity,),
            ).fetchall()
        return Conversation(tuple(_turn(row, proposals) for row in rows))

    def title(self, identity: str) -> str:
        """The title of a conversation."""
        with _errors():
            row = self._connection.execute(
                "SELECT title FROM conversations WHERE id = ?", (identity,)
            ).fetchone()
        return str(row["title"]) if row else ""

    def rename(self, identity: str, title: str) -> None:
        """Give a conversation another title."""
        with _errors():
            self._connection.execute(
                "UPDATE conversations SET title = ? WHERE id = ?", (_clean(title), identity)
            )

    def search(self, words: str, *, limit: int = 20) -> list[Found]:
        """Turns that hold all the words, the best first."""
        query = " ".join('"' + word.replace('"', '""') + '"' for word in words.split())
        if not query:
            return []
        with _errors():
            rows = self._connection.execute(
                "SELECT c.id, c.title, snippet(words, -1, char(2), char(3), '…', 16) AS hit"
                " FROM words JOIN turns t ON t.id = words.rowid"
                " JOIN conversations c ON c.id = t.conversation_id"
                " WHERE words MATCH ? ORDER BY rank LIMIT ?",
                (query, limit),
            ).fetchall()
        return [Found(row["id"], row["title"], row["hit"]) for row in rows]

    def delete(self, identities: Sequence[str]) -> None:
        """Delete conversations so that their words are in no page of the file any more."""
        with _errors():
            with self._transaction():
                for identity in identities:
                    self._connection.execute("DELETE FROM conversations WHERE id = ?", (identity,))
                # The index keeps words of deleted rows until its parts are merged.
                self._connection.execute("INSERT INTO words (words) VALUES ('rebuild')")
                self._connection.execute("INSERT INTO words (words) VALUES ('optimize')")
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def older_than(self, when: float) -> list[str]:
        """The conversations not touched since `when` (seconds since 1970)."""
        with _errors():
            rows = self._connection.execute(
                "SELECT id FROM conversations WHERE updated < ?", (when,)
            ).fetchall()
        return [str(row["id"]) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _new_id() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(10))


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"the conversations could not be read or written: {error}") from None


def _turn(row: sqlite3.Row, proposals: Sequence[sqlite3.Row]) -> Turn:
    layers: dict[int, list[Proposal]] = {}
    for one in proposals:
        if one["turn_id"] == row["id"]:
            loaded = load_value(Proposal, json.loads(one["proposal"]))
            layers.setdefault(one["layer"], []).append(loaded)
    rest = json.loads(row["rest"]) or {"profile": row["profile"]}
    return load_value(
        Turn,
        {
            "user": row["prompt"],
            "reply": row["reply"],
            "status": row["status"],
            "stored_as": row["id"],
            **rest,
        },
    ).with_proposals(tuple(tuple(layers[number]) for number in sorted(layers)))


def _dump(values: object) -> str:
    return _clean(json.dumps(values, ensure_ascii=False))


def _clean(text: str) -> str:
    # SQLite takes UTF-8, which cannot say half a surrogate pair.
    return text.encode("utf-8", "replace").decode()


def _alive(process: int) -> bool:
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return True
    return True
