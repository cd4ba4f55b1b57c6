"""The store: conversations in one SQLite file, which any number of processes use at once.

`Store` writes conversations and turns, `Reader` (its base) reads them. Steps of a turn that cannot
be written now wait in a `Backlog`. Spending and blind comparisons have their own classes.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from moa_cli.core import paths
from moa_cli.core.conversation import KeptTurn, Part, Proposal, Turn
from moa_cli.core.errors import NoConversation, StoreError
from moa_cli.store import upkeep
from moa_cli.store.backlog import Backlog, import_pending
from moa_cli.store.comparisons import Comparisons
from moa_cli.store.database import open_database, open_to_read
from moa_cli.store.ended_processes import rest_of
from moa_cli.store.reading import Reader
from moa_cli.store.schema import (
    Connection,
    immediate,
    in_words,
    patience,
    store_errors,
    transaction,
)
from moa_cli.store.spending import Spending
from moa_cli.store.stored_values import (
    as_unicode,
    dump,
    pack,
    storable,
    title_of_copy,
    without_copy_mark,
    without_defaults,
)
from moa_cli.store.upkeep import PendingUpkeep

_LONGEST_TITLE = 60
# Without 0, o, 1, l and i, which people confuse when they read an id aloud or type it again.
ID_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"


class Store(Reader):
    """A store of conversations. Open one with `Store.open`, and close it when you are done.

    Its methods raise StoreError. damaged: where a damaged file was put aside when the store was
    opened, or None. notice: a notice for the user about a store that can only be read, or None.
    backlog: the steps that are still to be written. identity: identifies the open file; it changes
    when another file replaces it. spending: the costs of turns. comparisons: the blind comparisons.
    """

    def __init__(self, connection: Connection, damaged: Path | None = None) -> None:
        super().__init__(connection)
        self._connection: Connection = connection
        self.damaged = damaged
        self.notice: str | None = None
        self.backlog = Backlog(self)
        self._file: Path | None = None
        self.identity: tuple[int, int] | None = None
        self.spending = Spending(connection, self._follow)
        self.comparisons = Comparisons(connection)

    @classmethod
    def open(cls, path: Path | None = None, tell: Callable[[str], None] | None = None) -> Store:
        """Open a store, and create it if need be.

        path: its file; None for the one in the data folder. tell: called with a sentence if
        opening or a later write takes long.
        """
        path = path or paths.database_file()
        connection, damaged = open_database(path, tell)
        store = cls(connection, damaged)
        store._file, store.identity = path, _identity_of(path)
        # Write the steps that earlier processes could not write. If the file is busy, a later
        # opening does it.
        with patience(connection, 0.0), suppress(StoreError):
            import_pending(store)
        return store

    @classmethod
    def open_to_read(
        cls, path: Path | None = None, tell: Callable[[str], None] | None = None
    ) -> Store:
        """Open a store even if it cannot be written; then it only reads, and `notice` says so."""
        path = path or paths.database_file()
        try:
            return cls.open(path, tell)
        except StoreError:
            if not paths.is_file(path):
                raise
        connection, notice = open_to_read(path)
        store = cls(connection)
        store.notice = notice
        return store

    def close(self) -> None:
        """Write the steps that still wait, if possible, and close the file."""
        self.backlog.close()
        self.spending.close()

    @property
    def folder(self) -> Path:
        return (self._file or paths.database_file()).parent

    def _write(self, sql: str, *values: object) -> sqlite3.Cursor:
        """Execute one statement in its own transaction, or in the transaction that runs."""
        with self.connection(writing=True) as connection:
            return connection.execute(
                sql, [as_unicode(value) if isinstance(value, str) else value for value in values]
            )

    def _insert(self, table: str, **columns: object) -> int:
        places = ", ".join("?" * len(columns))
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"
        return int(self._write(sql, *columns.values()).lastrowid or 0)

    def _follow(self) -> None:
        """Open the new file if another process has put a damaged one aside.

        Nobody reads the old file any more, so a write into it would be lost.
        """
        if self._file is None or self._connection.in_transaction:
            return
        if _identity_of(self._file) == self.identity:
            return
        connection, _ = open_database(self._file)
        old, self._connection = self._connection, connection
        connection.patience, connection.waiting = old.patience, old.waiting
        self.identity = _identity_of(self._file)
        Reader.__init__(self, connection)
        self.spending.use(connection)
        self.comparisons.use(connection)
        old.close()

    def begin_conversation(
        self, prompt: str, profile: str, identity: str | None = None, at: float | None = None
    ) -> str:
        """Begin a conversation, titled by its first prompt, and return its id.

        identity: None for a new id. at: when it began, in seconds since 1970; None for now.
        """
        identity = identity or new_id()
        now = time.time() if at is None else at
        self.add_conversation(identity, _title(prompt), profile, now, now)
        return identity

    def add_conversation(
        self, identity: str, title: str, profile: str, created: float, updated: float
    ) -> None:
        """Add a conversation. The times are in seconds since 1970."""
        self._insert(
            "conversations",
            id=identity,
            title=title,
            profile=profile,
            created=created,
            updated=updated,
        )

    def keep_turn(self, conversation: str, kept: KeptTurn) -> None:
        turn = kept.turn
        number = self._add_turn(
            turn.parts,
            conversation_id=conversation,
            started=kept.started,
            profile=turn.profile,
            settings=kept.settings,
            prompt=turn.user,
            status=turn.status,
            reply=turn.reply,
            rest=rest_of(turn),
            asks_again=turn.asks_again,
        )
        for layer in (*turn.proposals, turn.reviews):
            for proposal in layer:
                self.add_proposal(number, proposal)
        for note in kept.notes:
            self.add_note(number, dict(note))

    def begin_turn(
        self,
        conversation: str,
        prompt: str,
        profile: str,
        settings: str,
        *,
        started: float | None = None,
        parts: Sequence[Part] = (),
        asks_again: bool = False,
    ) -> int:
        """Begin a turn, and return its number.

        settings: the resolved profile as TOML. started: when it began, in seconds since 1970; None
        for now. parts: all parts of the prompt, if not all of them are text. asks_again: whether
        its reply is to replace the reply to the same prompt in an earlier turn. Raises
        NoConversation if the conversation was deleted in the meantime.
        """
        with self.connection(writing=True):
            now = time.time() if started is None else started
            query = "UPDATE conversations SET updated = ?, profile = ? WHERE id = ?"
            if not self._write(query, now, profile, conversation).rowcount:
                raise NoConversation(f"the conversation {conversation} was deleted")
            # Without a lease, other processes show the turn as interrupted until it ends.
            lease = ""
            with suppress(StoreError):
                lease = self.spending.lease()
            return self._add_turn(
                parts,
                conversation_id=conversation,
                started=now,
                lease=lease,
                profile=profile,
                settings=settings,
                prompt=prompt,
                status="open",
                asks_again=asks_again,
            )

    def _add_turn(self, parts: Sequence[Part], **columns: object) -> int:
        number = self._insert("turns", process=0, **columns)
        for place, part in enumerate(storable(parts)):
            kept = pack(without_defaults(part))
            self._write("INSERT INTO parts VALUES (?, ?, ?)", number, place, kept)
        return number

    def has_turn(self, conversation: str, turn: int | None) -> bool:
        """Whether that conversation exists and has a turn of that number."""
        query = "SELECT 1 FROM turns JOIN conversations c ON c.id = conversation_id"
        return self._row(f"{query} WHERE turns.id = ? AND c.id = ?", turn, conversation) is not None

    def end_interrupted(self, turn: int) -> None:
        """Mark a turn as interrupted if it is still open: its process has ended."""
        query = "UPDATE turns SET status = 'interrupted' WHERE id = ? AND status = 'open'"
        self._write(query, turn)

    def add_proposal(self, turn: int, proposal: Proposal) -> None:
        """Write a proposal that has ended, with or without an answer."""
        values = turn, proposal.layer, proposal.index, pack(without_defaults(proposal))
        self._write("INSERT OR REPLACE INTO proposals VALUES (?, ?, ?, ?)", *values)

    def add_note(self, turn: int, event: dict[str, Any]) -> None:
        """Write an event that is not part of a proposal, such as a retry or a lost aggregator."""
        self._write("INSERT INTO notes VALUES (?, ?)", turn, dump(event))

    def end_turn(self, identity: int, turn: Turn) -> None:
        """Write the result of a turn; it is partial if its status says so. If it has a reply, the
        turns that it asks again are taken back."""
        query = "UPDATE turns SET status = ?, reply = ?, rest = ? WHERE id = ?"
        again = "UPDATE turns SET asks_again = 0 WHERE id = ? AND asks_again"
        with self.connection(writing=True):
            self._write(query, turn.status, turn.reply, rest_of(turn), identity)
            if turn.reply and self._write(again, identity).rowcount:
                self._replace_asked_again(identity)

    def _replace_asked_again(self, turn: int) -> None:
        """Take back the latest turn before this one that has a reply to the same prompt, to which a
        file may have been added; and all that asked that turn again."""
        for earlier in self._rows(
            "SELECT o.id, o.asks_again, o.withdrawn FROM turns t JOIN turns o"
            " ON o.conversation_id = t.conversation_id AND o.id < t.id"
            " AND substr(t.prompt, 1, length(o.prompt)) = o.prompt"
            " AND (o.asks_again OR o.reply IS NOT NULL)"
            " WHERE t.id = ? ORDER BY o.id DESC",
            turn,
        ):
            if not earlier["withdrawn"]:
                self.withdraw(earlier["id"])
            # What stands before it is another message, even if its words are the same. This step
            # may come late, when the replaced turn is taken back already.
            if not earlier["asks_again"]:
                return

    def rewrite_turn(self, conversation: str, turn: Turn) -> None:
        """Rewrite a turn that has ended, for example to add a summary. Raises StoreError if the
        conversation has no such turn."""
        query = "UPDATE turns SET rest = ? WHERE id = ? AND conversation_id = ?"
        if not self._write(query, rest_of(turn), turn.stored_as, conversation).rowcount:
            raise StoreError("the turn is not saved yet, or was deleted")

    def withdraw(self, turn: int, conversation: str | None = None) -> None:
        """Mark a turn as taken back or replaced: it stays in the file, but not in the conversation.

        conversation: mark the turn only if it belongs to this conversation. The number may be from
        another file, which the open file has replaced.
        """
        self._write(
            "UPDATE turns SET withdrawn = 1 WHERE id = ?1 AND (?2 IS NULL OR conversation_id = ?2)",
            turn,
            conversation,
        )

    def fork(self, identity: str, turns: Sequence[int] | None = None) -> str:
        """Copy a conversation, and return the id of the copy.

        turns: the numbers of the turns to copy; None for all but those taken back.
        """
        new, now = new_id(), time.time()
        columns = (
            "started, process, lease, profile, settings, prompt, status, reply, rest, asks_again"
        )
        with store_errors(), immediate(self._connection):
            execute = self._connection.execute
            execute(
                "INSERT INTO conversations SELECT ?1, ?2, profile, ?3, ?3 FROM conversations"
                " WHERE id = ?4",
                (new, self._title_of_copy(identity), now, identity),
            )
            copied_tags = "INSERT INTO tags SELECT ?, tag FROM tags WHERE conversation_id = ?"
            execute(copied_tags, (new, identity))
            for old in self.turn_numbers(identity) if turns is None else turns:
                made = execute(
                    f"INSERT INTO turns (conversation_id, {columns}) SELECT ?, {columns} FROM turns"
                    " WHERE id = ? AND conversation_id = ?",
                    (new, old, identity),
                )
                if not made.rowcount:
                    # The turn was deleted meanwhile.
                    continue
                for copied in (
                    "proposals SELECT ?, layer, place, proposal FROM every_proposal",
                    "parts SELECT ?, place, part FROM parts",
                ):
                    execute(f"INSERT INTO {copied} WHERE turn_id = ?", (made.lastrowid, old))
        return new

    def _title_of_copy(self, identity: str) -> str:
        title = self.title(identity)
        begins = f"{without_copy_mark(title)} (copy"
        taken = self._column(
            "SELECT title FROM conversations WHERE substr(title, 1, ?) = ?", len(begins), begins
        )
        return title_of_copy(title, set(taken))

    def rename(self, identity: str, title: str) -> None:
        self._write("UPDATE conversations SET title = ? WHERE id = ?", title, identity)

    def tag(self, identity: str, tags: Iterable[str]) -> None:
        """Add tags to a conversation. They have to be checked (see `stored_values.checked_tag`)."""
        query = "INSERT OR IGNORE INTO tags SELECT id, ? FROM conversations WHERE id = ?"
        with self.connection(writing=True):
            for tag in tags:
                self._write(query, tag, identity)

    def untag(self, identity: str, tags: Iterable[str]) -> None:
        with self.connection(writing=True):
            for tag in tags:
                self._write("DELETE FROM tags WHERE conversation_id = ? AND tag = ?", identity, tag)

    def delete(
        self, identities: Sequence[str], turns: Sequence[int] = (), *, seconds: float | None = None
    ) -> PendingUpkeep:
        """Delete conversations, and single turns of others, and wipe their words from the file.

        They disappear from every list at once. Their words are then overwritten step by step, so
        that other processes can write in between. seconds: how long to do this now; None finishes a
        small file, and stops almost at once for a large one. Returns what is left for `upkeep`.
        """
        with store_errors():
            if turns:
                self._retitle(turns)
            upkeep.doom(self._connection, identities, turns)
            return self._wipe(seconds)

    def delete_comparisons(self, numbers: Iterable[int], *, texts_only: bool) -> PendingUpkeep:
        """Delete comparisons, or only their prompts and answers, and wipe their words from the
        file. Returns what is left for `upkeep`."""
        with store_errors():
            with immediate(self._connection):
                self.comparisons.delete(numbers, texts_only=texts_only)
                upkeep.wipe_traces(self._connection)
            return self._wipe()

    def _wipe(self, seconds: float | None = None) -> PendingUpkeep:
        """Wipe what was deleted. An error, such as a full disk, does not undo the deletion, so it
        is returned."""
        try:
            if seconds is None:
                seconds = upkeep.seconds_to_wipe(self._connection)
            return upkeep.work(self._connection, seconds=seconds)
        except sqlite3.Error as error:
            return replace(upkeep.leftover(self._connection), trouble=in_words(error))

    def leftover(self) -> PendingUpkeep:
        with store_errors():
            return upkeep.leftover(self._connection)

    def _retitle(self, turns: Sequence[int]) -> None:
        """Give new titles to conversations whose titles come from turns that will be deleted."""
        going = set(turns)
        with immediate(self._connection):
            for turn in turns:
                row = self._row("SELECT conversation_id, prompt FROM turns WHERE id = ?", turn)
                if row is None:
                    continue
                others = self._rows(
                    "SELECT id, prompt FROM turns WHERE conversation_id = ? ORDER BY withdrawn, id",
                    row["conversation_id"],
                )
                first = next((other["prompt"] for other in others if other["id"] not in going), "")
                title, gone = self.title(row["conversation_id"]), _title(row["prompt"])
                if gone in (title, without_copy_mark(title)):
                    query = "UPDATE conversations SET title = ? WHERE id = ?"
                    named = _title(first) + title.removeprefix(gone)
                    self._write(query, named, row["conversation_id"])

    def upkeep(self, *, seconds: float) -> PendingUpkeep:
        """Continue to wipe and pack for about `seconds`. Returns what is left then."""
        with store_errors():
            return upkeep.work(self._connection, seconds=seconds)

    def rewrite(self, *, seconds: float = 30.0) -> bool:
        """Rewrite the file without unused room and the traces in it. Returns whether it was done.

        No other process can write meanwhile. seconds: how long to wait for others that write.
        """
        deadline = time.monotonic() + seconds
        with store_errors():
            while not (done := upkeep.rewrite(self._connection)) and time.monotonic() < deadline:
                time.sleep(0.1)
            upkeep.work(self._connection, seconds=1.0)
        return done

    def changes(self) -> int:
        """A number that changes whenever another process has written."""
        with store_errors():
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def clear_unfinished(self) -> None:
        """Remove the turns that killed imports left, and everything else that is still to be wiped.

        Only the process that holds the lock for imports may call it.
        """
        with store_errors():
            if unfinished := self._column("SELECT conversation_id FROM unfinished"):
                upkeep.doom(self._connection, unfinished)
                self._write("DELETE FROM unfinished")
            # All wiping is done now. Later, the wiping of a conversation's old turns would also
            # remove new turns that are imported for it.
            while upkeep.leftover(self._connection).conversations:
                upkeep.work(self._connection, seconds=1.0)

    @contextmanager
    def unlinked(self) -> Iterator[None]:
        """Allow turns to be written before the conversation that they belong to."""
        with store_errors():
            self._connection.execute("PRAGMA foreign_keys = OFF")
            try:
                yield
            finally:
                self._connection.execute("PRAGMA foreign_keys = ON")

    @contextmanager
    def connection(self, *, writing: bool, seconds: float | None = None) -> Iterator[Connection]:
        """Yield the connection within one transaction.

        All reads see one state of the file. All writes are done together or not at all. seconds:
        how long to wait for another process that writes; None for the usual time.
        """
        with store_errors():
            if writing:
                self._follow()
            connection = self._connection
            kind = "IMMEDIATE" if writing else "DEFERRED"
            with patience(connection, seconds), transaction(connection, kind):
                yield connection


def _identity_of(path: Path) -> tuple[int, int] | None:
    """A key that identifies the file at a path. It is found without opening the file (see
    `store.database`)."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _title(prompt: str) -> str:
    return " ".join(prompt.split())[:_LONGEST_TITLE] or "untitled"


def new_id() -> str:
    return "".join(secrets.choice(ID_LETTERS) for _ in range(10))
