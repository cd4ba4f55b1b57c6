"""Taking conversations in: all files are read and checked first, then written.

The second reading writes in many short transactions, so that other processes wait for no more
than a moment. Until a conversation's last turn is there, its turns belong to no conversation: it
is wholly there or not at all. What a killed import left is taken away by the next one.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from moa_cli.core.conversation import KeptConversation, KeptTurn
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.file_lock import try_lock
from moa_cli.core.text import dumps
from moa_cli.store.absorb import database_of
from moa_cli.store.archive import StoredTurns, turn_values
from moa_cli.store.incoming.coming import ConversationHead, IncomingConversation, identity_of
from moa_cli.store.incoming.json_stream import EncodingFault
from moa_cli.store.incoming.parts import ArchiveFault, Part, parts_of
from moa_cli.store.incoming.recognise import reading, recognise, refuse
from moa_cli.store.packing import as_unicode
from moa_cli.store.store import Store

NO_REPLY, OTHER_FILE = "conversation without a reply", "other file"
# Seconds that one transaction may last, and that must pass before the next: who waits for the
# file looks at it every twentieth of a second at least.
_HELD, _FREE = 0.08, 0.06
# Turns that are read before some are written.
_READ_AHEAD = 50


@dataclass
class ImportResult:
    """What came of the files of one source (see `recognise.SOURCES`), by conversations' ids.

    new: were not there. same: are there already. renamed: are there with other content; the ids
    that they would have with those that they got. longer: were there, and got these many turns
    more. turns: how many were taken in all. left: what was not taken, by kind.
    """

    source: str
    new: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    longer: list[tuple[str, int]] = field(default_factory=list)
    turns: int = 0
    left: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Decision:
    """What to do with one conversation of a file. first: the turn, from 0, to begin with."""

    do: Literal["begin", "go on", "skip"]
    identity: str = ""
    first: int = 0


def take(
    store: Store,
    arguments: Sequence[str],
    piped: BinaryIO,
    *,
    source: str | None = None,
    tags: Sequence[str] = (),
    dry_run: bool = False,
    waiting: Callable[[], None] = lambda: None,
) -> list[ImportResult]:
    """Take in the conversations of files, folders and archives; - is `piped`.

    source: what the files are, where that need not be told by their content. tags: what the
    conversations are tagged with. dry_run: only tell what would be taken. waiting: called once if
    another process has to end its import first.
    Raises StoreError, naming the file and the place in it, and OSError. Nothing is taken then,
    unless the trouble is with writing.
    """
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(_alone(store, waiting))
            store.clear_unfinished()
        plan = _Plan(store, source)
        for argument in arguments:
            plan.read(argument, stack.enter_context(_parts(argument, piped)))
        if not dry_run:
            plan.carry_out(tags)
        return list(plan.took.values())


def add(store: Store, conversations: Iterable[KeptConversation]) -> ImportResult:
    """Take in our own conversations, as `archive.read` gives them. Raises StoreError, OSError."""
    took = ImportResult("moa")
    with _alone(store, lambda: None):
        store.clear_unfinished()
        plan = _Plan(store, None)
        with _writing(store, ()) as writer:
            for conversation in conversations:
                decision = plan.decide(_again(conversation), took, alone=True)
                writer.write(_again(conversation), decision)
    return took


def _again(conversation: KeptConversation) -> IncomingConversation:
    held = conversation
    head = ConversationHead(
        held.id, held.title, held.profile, held.created, held.updated, held.tags
    )
    return IncomingConversation(
        f"conversation {held.id}",
        iter(held.turns),
        lambda: head,
        exact=True,
        identity=lambda: held.id,
    )


class _Plan:
    """What is to be done with each conversation of each file, in their order."""

    def __init__(self, store: Store, source: str | None) -> None:
        self.took: dict[str, ImportResult] = {}
        self._store = store
        self._source = source
        self._parts: list[tuple[Part, str]] = []
        self._decisions: list[_Decision] = []
        # The keys of the turns that conversations will have after what is planned so far.
        self._planned: dict[str, list[bytes]] = {}

    def read(self, argument: str, parts: Iterator[Part]) -> None:
        """Read files, check them, and decide. Raises StoreError."""
        others, known = 0, len(self._parts)
        for part in parts:
            with _named(part.name):
                source = self._source_of(part)
                if source is None:
                    others += 1
                    continue
                self._parts.append((part, source))
                took = self.took.setdefault(source, ImportResult(source))
                with reading(part, source) as conversations:
                    for coming in conversations:
                        self._decisions.append(self.decide(coming, took, alone=part.given))
        if len(self._parts) == known:
            raise StoreError(f"{argument}: holds no export of conversations")
        if others:
            self.took[self._parts[known][1]].left[OTHER_FILE] += others

    def _source_of(self, part: Part) -> str | None:
        wanted = self._source
        if part.given and wanted is not None:
            return wanted
        try:
            found = recognise(part)
        except ArchiveFault:
            raise
        except ValueError:
            if part.given:
                raise
            # Some other file of those that lie about.
            return None
        if part.given and found is None:
            raise refuse(part)
        return found if wanted in (None, found) else None

    def decide(self, coming: IncomingConversation, took: ImportResult, *, alone: bool) -> _Decision:
        """What to do with a conversation, whose turns are read for it.

        alone: whether none of those read before can be the same.
        """
        keys: list[bytes] = []
        count, answered, needed = 0, False, True
        for kept in coming.turns:
            if count == 0 and coming.exact and alone:
                # A key takes as long as all the rest: none where nothing is to be compared.
                identity = coming.identity()
                needed = identity is None or self._store.has(identity)
            if needed:
                keys.append(_key(kept, exact=coming.exact))
            count += 1
            answered = answered or kept.turn.reply is not None
        head = coming.head()
        if not answered and not coming.exact:
            took.left[NO_REPLY] += 1
            return _Decision("skip")
        decision = self._compared(head, keys, count, coming, took)
        if decision.do != "skip":
            took.left += coming.left
            took.turns += count - decision.first
        return decision

    def _compared(
        self,
        head: ConversationHead,
        keys: list[bytes],
        count: int,
        coming: IncomingConversation,
        took: ImportResult,
    ) -> _Decision:
        for identity in _ids(head.id, keys):
            there = self._known(identity, exact=coming.exact)
            if there is None:
                self._planned[identity] = keys
                if identity == head.id:
                    took.new.append(identity)
                else:
                    took.renamed.append((head.id, identity))
                return _Decision("begin", identity)
            if there == keys or (not coming.exact and there[: len(keys)] == keys):
                break
            if not coming.exact and keys[: len(there)] == there:
                # It went on where it came from, and not here.
                self._planned[identity] = keys
                took.longer.append((identity, count - len(there)))
                return _Decision("go on", identity, len(there))
        took.same.append(identity)
        return _Decision("skip")

    def _known(self, identity: str, *, exact: bool) -> list[bytes] | None:
        """The keys of the turns of that conversation; None if there is none."""
        if identity in self._planned:
            return self._planned[identity]
        if not self._store.has(identity):
            return None
        return [_key(kept, exact=exact) for kept in StoredTurns(self._store, identity)]

    def carry_out(self, tags: Sequence[str]) -> None:
        """Write what was decided. Raises StoreError."""
        decisions = iter(self._decisions)
        if all(decision.do == "skip" for decision in self._decisions):
            return
        with _writing(self._store, tags) as writer:
            for part, source in self._parts:
                with _named(part.name), reading(part, source) as conversations:
                    for coming in conversations:
                        decision = next(decisions, None)
                        if decision is None:
                            raise ValueError("has changed while it was read")
                        writer.write(coming, decision)


def _ids(identity: str, keys: list[bytes]) -> Iterator[str]:
    """The conversation's id, then others that are made of its content.

    So a file that is imported twice makes no second copy, also under another id.
    """
    yield identity
    content = hashlib.sha256(b"".join(keys)).hexdigest()
    for attempt in itertools.count():
        yield identity_of("content", str(attempt), identity, content)


def _key(kept: KeptTurn, *, exact: bool) -> bytes:
    """What tells a turn from another. Of our own, all fields do, but not when it was asked: a
    time that lay in the future is another one each time."""
    if exact:
        values = turn_values(kept)
        del values["started"]
        text = as_unicode(dumps(values))
    else:
        reply = "" if kept.turn.reply is None else f"\0{kept.turn.reply}"
        text = as_unicode(kept.turn.user + reply)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


@contextmanager
def _writing(store: Store, tags: Sequence[str]) -> Iterator[_Writer]:
    """While inside, conversations are written; in the end, all that are complete are there."""
    try:
        with store.unlinked():
            writer = _Writer(store, tags)
            yield writer
            writer.flush()
    except BaseException:
        with contextlib.suppress(StoreError):
            store.clear_unfinished()
        raise


class _Writer:
    """Writes turns and conversations, many in a transaction, for as long as one may last."""

    def __init__(self, store: Store, tags: Sequence[str]) -> None:
        self._store = store
        self._tags = tags
        self._steps: deque[Callable[[sqlite3.Connection], None]] = deque()
        self._pace = _Pace()
        # The conversation of which some turns are written, but not all.
        self._begun: str | None = None

    def write(self, coming: IncomingConversation, decision: _Decision) -> None:
        """Write a conversation's turns, then itself."""
        for place, kept in enumerate(coming.turns):
            if decision.do != "skip" and place >= decision.first:
                self._add(self._turn(decision, kept))
        head = coming.head()
        if decision.do != "skip":
            self._add(self._end(decision, head))

    def _add(self, step: Callable[[sqlite3.Connection], None]) -> None:
        self._steps.append(step)
        if len(self._steps) >= _READ_AHEAD:
            self.flush()

    def _turn(self, decision: _Decision, kept: KeptTurn) -> Callable[[sqlite3.Connection], None]:
        def write(connection: sqlite3.Connection) -> None:
            if decision.do == "begin" and self._begun != decision.identity:
                self._begin(connection, decision.identity)
            self._store.keep_turn(decision.identity, kept)

        return write

    def _begin(self, connection: sqlite3.Connection, identity: str) -> None:
        # Deleted since it was planned: to wipe its old turns would take the new ones along.
        if connection.execute(
            "SELECT 1 FROM doomed WHERE conversation_id = ?", (identity,)
        ).fetchone():
            raise StoreError(f"conversation {identity} is being deleted", hint="import it again")
        self._begun = identity

    def _end(
        self, decision: _Decision, head: ConversationHead
    ) -> Callable[[sqlite3.Connection], None]:
        def write(connection: sqlite3.Connection) -> None:
            identity = decision.identity
            if decision.do == "begin":
                connection.execute(
                    "INSERT INTO conversations (id, title, profile, created, updated)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (
                        identity,
                        as_unicode(head.title),
                        as_unicode(head.profile),
                        head.created,
                        head.updated,
                    ),
                )
                connection.execute("DELETE FROM unfinished WHERE conversation_id = ?", (identity,))
                self._begun = None
            else:
                connection.execute(
                    "UPDATE conversations SET updated = max(updated, ?) WHERE id = ?",
                    (head.updated, identity),
                )
            self._store.tag(identity, [*head.tags, *self._tags])

        return write

    def flush(self) -> None:
        """Write all that waits. Raises StoreError."""
        while self._steps:
            with self._pace.step(), self._store.connection(writing=True) as connection:
                while self._steps and not self._pace.over():
                    self._steps.popleft()(connection)
                if self._begun is not None:
                    connection.execute(
                        "INSERT OR IGNORE INTO unfinished VALUES (?)", (self._begun,)
                    )


class _Pace:
    """Lets others at the file between short transactions."""

    def __init__(self) -> None:
        self._began = self._ended = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """One transaction, as soon as the next one may begin."""
        time.sleep(max(0.0, self._ended + _FREE - time.monotonic()))
        self._began = time.monotonic()
        yield
        self._ended = time.monotonic()

    def over(self) -> bool:
        """Whether it has lasted long enough."""
        return time.monotonic() - self._began > _HELD


@contextmanager
def _parts(argument: str, piped: BinaryIO) -> Iterator[Iterator[Part]]:
    with ExitStack() as stack:
        yield _named_parts(argument, stack.enter_context(parts_of(argument, piped)))


def _named_parts(argument: str, parts: Iterator[Part]) -> Iterator[Part]:
    with _named("standard input" if argument == "-" else argument):
        yield from parts


@contextmanager
def _named(name: str) -> Iterator[None]:
    """While inside, what is wrong with a file is a StoreError that names it."""
    try:
        yield
    except RecursionError:
        raise StoreError(f"{name}: is nested too deeply") from None
    except EncodingFault as error:
        raise UsageError(f"{name}: {error}") from None
    except ValueError as error:
        raise StoreError(f"{name}: {error}") from None


@contextmanager
def _alone(store: Store, waiting: Callable[[], None]) -> Iterator[None]:
    """Until no other process imports into the store: two would not see each other's plans.

    The kernel drops the lock of a process that dies. Raises OSError.
    """
    with store.connection(writing=False) as connection:
        database = database_of(connection)
    # A file of its own: to close one of the database's would drop SQLite's locks.
    path = database.with_name(f"{database.name}.importing")
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        if try_lock(handle) is False:
            waiting()
            while try_lock(handle) is False:
                time.sleep(_FREE)
        yield
    finally:
        os.close(handle)
