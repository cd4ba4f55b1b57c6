"""Conversations in one SQLite file, used by any number of processes at once."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from moa_cli.core import paths
from moa_cli.core.conversation import KeptTurn, Proposal, Turn
from moa_cli.core.errors import NoConversation, StoreError
from moa_cli.store import upkeep
from moa_cli.store.absorb import absorb, database_of, rest_of
from moa_cli.store.backlog import Backlog, take_in
from moa_cli.store.comparisons import Comparisons
from moa_cli.store.database import open_database, open_to_read
from moa_cli.store.packing import as_unicode, dump, pack, without_defaults
from moa_cli.store.reading import Reader
from moa_cli.store.schema import Connection, immediate, patience, store_errors, transaction
from moa_cli.store.spending import Spending
from moa_cli.store.upkeep import PendingUpkeep

_LONGEST_TITLE = 60
# Without 0, o, 1, l and i: an id may be read aloud and typed again.
ID_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
_COLUMNS = "started, process, lease, profile, settings, prompt, status, reply, rest"


class Store(Reader):
    """Open one with `Store.open`; close it when done.

    damaged: where a damaged file was put aside at opening, or None. notice: what should be known
    of a store that can only be read, or None. spending: what was paid.
    comparisons: what was chosen blind.
    """

    def __init__(self, connection: Connection, damaged: Path | None = None) -> None:
        super().__init__(connection)
        self._connection: Connection = connection
        self.damaged = damaged
        self.notice: str | None = None
        self.backlog = Backlog(self)
        self._file: Path | None = None
        self._identity: tuple[int, int] | None = None
        self.spending = Spending(connection)
        self.spending.follow = self._follow
        self.comparisons = Comparisons(connection)

    @classmethod
    def open(cls, path: Path | None = None, tell: Callable[[str], None] | None = None) -> Store:
        """The store in `path` (default: the data folder's).

        tell: called with a sentence where opening, or a later write, takes long. Raises StoreError.
        """
        path = path or paths.database_file()
        connection, damaged = open_database(path, _take_up_leases, tell)
        store = cls(connection, damaged)
        store._file, store._identity = path, _identity_of(path)
        store._take_in()
        return store

    @classmethod
    def open_to_read(
        cls, path: Path | None = None, tell: Callable[[str], None] | None = None
    ) -> Store:
        """The same, also where nothing can be written: then it changes nothing, and `notice` says
        what that means. Raises StoreError."""
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

    def _take_in(self) -> None:
        """Write what other processes could not. That waits if it cannot be done at once."""
        with patience(self._connection, 0.0), suppress(StoreError):
            take_in(self)

    def close(self) -> None:
        """Give the file back."""
        self.backlog.close()
        self.spending.close()

    @property
    def folder(self) -> Path:
        """Where the file is."""
        return (self._file or paths.database_file()).parent

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with store_errors():
            self._follow()
            with immediate(self._connection):
                yield self._connection

    def _follow(self) -> None:
        """Open the new file where another process has put a damaged one aside: what is written
        into the old one would be seen by nobody."""
        if self._file is None or self._connection.in_transaction:
            return
        if _identity_of(self._file) == self._identity:
            return
        connection, _ = open_database(self._file, _take_up_leases)
        old, self._connection = self._connection, connection
        connection.patience, connection.waiting = old.patience, old.waiting
        self._identity = _identity_of(self._file)
        Reader.__init__(self, connection)
        self.spending.use(connection)
        self.comparisons.use(connection)
        old.close()

    def begin_conversation(
        self, prompt: str, profile: str, identity: str | None = None, at: float | None = None
    ) -> str:
        """A new conversation, titled by its first prompt; returns its id.

        identity: the id, if it has one already. at: seconds since 1970, if not now.
        """
        identity = identity or new_id()
        now = time.time() if at is None else at
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, ?)",
                (identity, _title(prompt), profile, now, now),
            )
        return identity

    def keep_turn(self, conversation: str, kept: KeptTurn) -> None:
        """A turn that has ended elsewhere, whole; within `connection(writing=True)`."""
        turn = kept.turn
        cursor = self._connection.execute(
            f"INSERT INTO turns ({_COLUMNS}, conversation_id)"  # noqa: S608
            " VALUES (?, 0, '', ?, ?, ?, ?, ?, ?, ?)",
            (
                kept.started,
                as_unicode(turn.profile),
                as_unicode(kept.settings),
                as_unicode(turn.user),
                turn.status,
                None if turn.reply is None else as_unicode(turn.reply),
                rest_of(turn),
                conversation,
            ),
        )
        number = int(cursor.lastrowid or 0)
        for layer in turn.proposals:
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
    ) -> int:
        """A new open turn; returns its id.

        settings: the resolved profile as TOML. started: seconds since 1970, if not now.
        Raises NoConversation if the conversation was deleted in the meantime.
        """
        with self._writing() as connection:
            now = time.time() if started is None else started
            turn = Turn(user=prompt, profile=profile)
            found = connection.execute(
                "UPDATE conversations SET updated = ?, profile = ? WHERE id = ?",
                (now, profile, conversation),
            )
            if not found.rowcount:
                raise NoConversation(f"the conversation {conversation} was deleted")
            return self.add_turn(conversation, turn, started=now, settings=settings)

    def has_turn(self, conversation: str, turn: int | None) -> bool:
        """Whether there is a turn of that number, and it is one of that conversation."""
        with store_errors():
            row = self._connection.execute(
                "SELECT 1 FROM turns t JOIN conversations c ON c.id = t.conversation_id"
                " WHERE t.id = ? AND c.id = ?",
                (turn, conversation),
            ).fetchone()
        return row is not None

    @property
    def identity(self) -> tuple[int, int] | None:
        """Which file is open: another one if it was put aside or replaced."""
        return self._identity

    def turns_since(self, identity: str, number: int | None) -> int:
        """How many turns of a conversation came after the one of that number; 0 for None."""
        if number is None:
            return 0
        with store_errors():
            (count,) = self._connection.execute(
                "SELECT count(*) FROM turns WHERE conversation_id = ? AND id > ? AND NOT withdrawn",
                (identity, number),
            ).fetchone()
        return int(count)

    def end_interrupted(self, turn: int) -> None:
        """The turn's process has ended; so has the turn, if it had not before."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE turns SET status = 'interrupted' WHERE id = ? AND status = 'open'", (turn,)
            )

    def add_turn(self, conversation: str, turn: Turn, *, started: float, settings: str) -> int:
        """A turn of which nothing but the question is kept yet; returns its id.

        started: seconds since 1970. settings: as for `begin_turn`.
        """
        with self._writing() as connection:
            cursor = connection.execute(
                "INSERT INTO turns (conversation_id, started, process, lease, profile, settings,"
                " prompt, status) VALUES (?, ?, 0, ?, ?, ?, ?, ?)",
                (
                    conversation,
                    started,
                    self._lease() if turn.status == "open" else "",
                    turn.profile,
                    as_unicode(settings),
                    as_unicode(turn.user),
                    turn.status,
                ),
            )
        return int(cursor.lastrowid or 0)

    def _lease(self) -> str:
        """What tells other processes that this one lives."""
        try:
            return self.spending.lease()
        except StoreError:
            # Others take the turn for one that was interrupted, until it ends.
            return ""

    def add_proposal(self, turn: int, proposal: Proposal) -> None:
        """A proposal that has ended, well or not."""
        kept = pack(without_defaults(proposal))
        with self._writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO proposals VALUES (?, ?, ?, ?)",
                (turn, proposal.layer, proposal.index, kept),
            )

    def add_note(self, turn: int, event: dict[str, Any]) -> None:
        """An event worth keeping that no proposal tells of: a retry, a lost aggregator."""
        with self._writing() as connection:
            connection.execute("INSERT INTO notes VALUES (?, ?)", (turn, dump(event)))

    def end_turn(self, identity: int, turn: Turn) -> None:
        """What came of the turn, partial if its status says so."""
        reply = None if turn.reply is None else as_unicode(turn.reply)
        with self._writing() as connection:
            connection.execute(
                "UPDATE turns SET status = ?, reply = ?, rest = ? WHERE id = ?",
                (turn.status, reply, rest_of(turn), identity),
            )

    def withdraw(self, turn: int, conversation: str | None = None) -> None:
        """The turn was taken back, or another stands in its place; it is kept, but no part of
        the conversation any more.

        conversation: of no other one, where another file may stand in the place of the turn's.
        """
        with self._writing() as connection:
            connection.execute(
                "UPDATE turns SET withdrawn = 1"
                " WHERE id = ?1 AND (?2 IS NULL OR conversation_id = ?2)",
                (turn, conversation),
            )

    def fork(self, identity: str) -> str:
        """A new conversation with the same turns; returns its id."""
        with store_errors(), immediate(self._connection):
            row = self._connection.execute(
                "SELECT title, profile FROM conversations WHERE id = ?", (identity,)
            ).fetchone()
            new, now = new_id(), time.time()
            self._connection.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, ?)",
                (new, row["title"], row["profile"], now, now),
            )
            self._connection.execute(
                "INSERT INTO tags SELECT ?, tag FROM tags WHERE conversation_id = ?",
                (new, identity),
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
                    "INSERT INTO proposals SELECT ?, layer, place, proposal FROM every_proposal"
                    " WHERE turn_id = ?",
                    (copied, old),
                )
        return new

    def rename(self, identity: str, title: str) -> None:
        """Give a conversation another title."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE conversations SET title = ? WHERE id = ?", (as_unicode(title), identity)
            )

    def tag(self, identity: str, tags: Iterable[str]) -> None:
        """Give a conversation tags, which have been checked, beside those that it has."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO tags SELECT id, ? FROM conversations WHERE id = ?",
                [(tag, identity) for tag in tags],
            )

    def untag(self, identity: str, tags: Iterable[str]) -> None:
        """Take tags from a conversation."""
        with self._writing() as connection:
            connection.executemany(
                "DELETE FROM tags WHERE conversation_id = ? AND tag = ?",
                [(identity, tag) for tag in tags],
            )

    def delete(
        self, identities: Sequence[str], turns: Sequence[int] = (), *, seconds: float | None = None
    ) -> PendingUpkeep:
        """Delete conversations, and single turns of others, and wipe their words from the file.

        They are gone from every list at once. Their words are then overwritten step by step, so
        that other processes can write in between.

        seconds: how long that may take now; by default, as long as it needs in a small file, and
        next to nothing in a large one. Returns what is left to be done by `upkeep.work` afterwards.
        Raises StoreError.
        """
        with store_errors():
            if turns:
                self._retitle(turns)
            upkeep.doom(self._connection, identities, turns)
            if seconds is None:
                seconds = upkeep.seconds_to_wipe(self._connection)
            return upkeep.work(self._connection, seconds=seconds)

    def leftover(self) -> PendingUpkeep:
        """What is left to be wiped or packed. Raises StoreError."""
        with store_errors():
            return upkeep.leftover(self._connection)

    def _retitle(self, turns: Sequence[int]) -> None:
        """Give other titles to conversations that are titled by these turns, which go."""
        going = set(turns)
        with immediate(self._connection):
            for turn in turns:
                row = self._connection.execute(
                    "SELECT conversation_id AS id, prompt FROM turns WHERE id = ?", (turn,)
                ).fetchone()
                if row is None:
                    continue
                others = self._connection.execute(
                    "SELECT id, prompt FROM turns WHERE conversation_id = ? ORDER BY withdrawn, id",
                    (row["id"],),
                )
                first = next((other["prompt"] for other in others if other["id"] not in going), "")
                self._connection.execute(
                    "UPDATE conversations SET title = ? WHERE id = ? AND title = ?",
                    (_title(first), row["id"], _title(row["prompt"])),
                )

    def upkeep(self, *, seconds: float) -> PendingUpkeep:
        """Go on with wiping and packing for about so many seconds; returns what is left then.

        Raises StoreError.
        """
        with store_errors():
            return upkeep.work(self._connection, seconds=seconds)

    def rewrite(self, *, seconds: float = 30.0) -> bool:
        """Write the file anew, without unused room and what may stand in it; nobody else can
        write meanwhile.

        seconds: to wait for others that write. Returns whether it was done. Raises StoreError.
        """
        deadline = time.monotonic() + seconds
        with store_errors():
            while not (done := upkeep.rewrite(self._connection)) and time.monotonic() < deadline:
                time.sleep(0.1)
            upkeep.work(self._connection, seconds=1.0)
        return done

    def changes(self) -> int:
        """A number that is another one once any other process has written."""
        with store_errors():
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def clear_unfinished(self) -> None:
        """Take away what killed imports left, and all else that is still to be wiped.

        Only for the one process that imports. Raises StoreError.
        """
        with store_errors():
            rows = self._connection.execute("SELECT conversation_id FROM unfinished").fetchall()
            if rows:
                upkeep.doom(self._connection, [row[0] for row in rows])
                with immediate(self._connection):
                    self._connection.execute("DELETE FROM unfinished")
            # A conversation that comes again must not meet the wiping of its older turns.
            while upkeep.leftover(self._connection).conversations:
                upkeep.work(self._connection, seconds=1.0)

    @contextmanager
    def unlinked(self) -> Iterator[None]:
        """While inside, turns may be written before the conversation that they belong to."""
        with store_errors():
            self._connection.execute("PRAGMA foreign_keys = OFF")
            try:
                yield
            finally:
                self._connection.execute("PRAGMA foreign_keys = ON")

    @contextmanager
    def connection(
        self, *, writing: bool, seconds: float | None = None
    ) -> Iterator[sqlite3.Connection]:
        """The connection in one transaction: what is read is one state of the file, what is
        written is there wholly or not at all.

        seconds: how long to wait for another process that writes, if not as long as usual.
        Raises StoreError.
        """
        with store_errors():
            if writing:
                self._follow()
            connection = self._connection
            kind = "IMMEDIATE" if writing else "DEFERRED"
            with patience(connection, seconds), transaction(connection, kind):
                yield connection


def _identity_of(path: Path) -> tuple[int, int] | None:
    """Which file is there. It is not opened for that (see `store.database`)."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _take_up_leases(connection: Connection) -> None:
    """Count what processes that have ended had begun, and end their turns. Where another process
    writes, or nothing can be written, that waits for the next opening."""
    with patience(connection, 0.0), suppress(sqlite3.OperationalError):
        absorb(connection, database_of(connection))


def _title(prompt: str) -> str:
    return as_unicode(" ".join(prompt.split())[:_LONGEST_TITLE]) or "untitled"


def new_id() -> str:
    """An id for a new conversation."""
    return "".join(secrets.choice(ID_LETTERS) for _ in range(10))
