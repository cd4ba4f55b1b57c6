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
from pathlib import Path
from typing import Any

from moa_cli import paths
from moa_cli.conversation import Proposal, Turn
from moa_cli.store.comparisons import Comparisons
from moa_cli.store.database import open_database
from moa_cli.store.reading import Reader, as_unicode
from moa_cli.store.schema import alive, immediate, store_errors, transaction
from moa_cli.store.spending import Spending

__all__ = ["ID_LETTERS", "Store"]

_LONGEST_TITLE = 60
# Without 0, o, 1, l and i: an id may be read aloud and typed again.
ID_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
_COLUMNS = "started, process, profile, settings, prompt, status, reply, rest"
_APART = ("user", "reply", "status", "proposals", "stored_as")


class Store(Reader):
    """Open one with `Store.open`; close it when done.

    damaged: where a damaged file was put aside at opening, or None. spending: what was paid.
    comparisons: what was chosen blind.
    """

    def __init__(self, connection: sqlite3.Connection, damaged: Path | None = None) -> None:
        super().__init__(connection)
        self.damaged = damaged
        self.spending = Spending(connection)
        self.comparisons = Comparisons(connection)

    @classmethod
    def open(cls, path: Path | None = None) -> Store:
        """The store in `path` (default: the data folder's). Raises StoreError."""
        connection, damaged = open_database(path or paths.database_file())
        store = cls(connection, damaged)
        with store_errors():
            store._mark_interrupted()
        return store

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def _mark_interrupted(self) -> None:
        """Turns that were open in a process which is no more ended with it."""
        rows = self._connection.execute("SELECT id, process FROM turns WHERE status = 'open'")
        for row in rows.fetchall():
            if not alive(row["process"]):
                self._connection.execute(
                    "UPDATE turns SET status = 'interrupted' WHERE id = ?", (row["id"],)
                )

    def begin_conversation(self, prompt: str, profile: str) -> str:
        """A new conversation, titled by its first prompt; returns its id."""
        identity = _new_id()
        title = " ".join(prompt.split())[:_LONGEST_TITLE] or "untitled"
        now = time.time()
        with store_errors():
            self._connection.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, ?)",
                (identity, as_unicode(title), profile, now, now),
            )
        return identity

    def begin_turn(self, conversation: str, prompt: str, profile: str, settings: str) -> int:
        """A new open turn; returns its id. settings: the resolved profile as TOML."""
        with store_errors(), immediate(self._connection):
            now = time.time()
            turn = Turn(user=prompt, profile=profile)
            number = self.add_turn(conversation, turn, started=now, settings=settings)
            self._connection.execute(
                "UPDATE conversations SET updated = ?, profile = ? WHERE id = ?",
                (now, profile, conversation),
            )
            return number

    def add_turn(self, conversation: str, turn: Turn, *, started: float, settings: str) -> int:
        """A turn of which nothing but the question is kept yet; returns its id.

        started: seconds since 1970. settings: as for `begin_turn`.
        """
        with store_errors():
            cursor = self._connection.execute(
                "INSERT INTO turns (conversation_id, started, process, profile, settings, prompt,"
                " status) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    conversation,
                    started,
                    os.getpid(),
                    turn.profile,
                    as_unicode(settings),
                    as_unicode(turn.user),
                    turn.status,
                ),
            )
        return int(cursor.lastrowid or 0)

    def add_proposal(self, turn: int, proposal: Proposal) -> None:
        """A proposal that has ended, well or not."""
        text = _dump(dataclasses.asdict(proposal))
        with store_errors():
            self._connection.execute(
                "INSERT OR REPLACE INTO proposals VALUES (?, ?, ?, ?)",
                (turn, proposal.layer, proposal.index, text),
            )

    def add_note(self, turn: int, event: dict[str, Any]) -> None:
        """An event worth keeping that no proposal tells of: a retry, a lost aggregator."""
        with store_errors():
            self._connection.execute("INSERT INTO notes VALUES (?, ?)", (turn, _dump(event)))

    def end_turn(self, identity: int, turn: Turn) -> None:
        """What came of the turn, partial if its status says so."""
        rest = {k: v for k, v in dataclasses.asdict(turn).items() if k not in _APART}
        reply = None if turn.reply is None else as_unicode(turn.reply)
        with store_errors():
            self._connection.execute(
                "UPDATE turns SET status = ?, reply = ?, rest = ? WHERE id = ?",
                (turn.status, reply, _dump(rest), identity),
            )

    def withdraw(self, turn: int) -> None:
        """The turn was taken back, or another stands in its place; it is kept, but no part of
        the conversation any more."""
        with store_errors():
            self._connection.execute("UPDATE turns SET withdrawn = 1 WHERE id = ?", (turn,))

    def fork(self, identity: str) -> str:
        """A new conversation with the same turns; returns its id."""
        with store_errors(), immediate(self._connection):
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

    def rename(self, identity: str, title: str) -> None:
        """Give a conversation another title."""
        with store_errors():
            self._connection.execute(
                "UPDATE conversations SET title = ? WHERE id = ?", (as_unicode(title), identity)
            )

    def delete(self, identities: Sequence[str]) -> None:
        """Delete conversations so that their words are in no page of the file any more."""
        with store_errors():
            with immediate(self._connection):
                for identity in identities:
                    self._connection.execute("DELETE FROM conversations WHERE id = ?", (identity,))
                # The index keeps words of deleted rows until its parts are merged.
                self._connection.execute("INSERT INTO words (words) VALUES ('rebuild')")
                self._connection.execute("INSERT INTO words (words) VALUES ('optimize')")
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def connection(self, *, writing: bool) -> Iterator[sqlite3.Connection]:
        """The connection in one transaction: what is read is one state of the file, what is
        written is there wholly or not at all. Raises StoreError."""
        with store_errors(), transaction(self._connection, "IMMEDIATE" if writing else "DEFERRED"):
            yield self._connection


def _new_id() -> str:
    return "".join(secrets.choice(ID_LETTERS) for _ in range(10))


def _dump(values: object) -> str:
    return as_unicode(json.dumps(values, ensure_ascii=False))
