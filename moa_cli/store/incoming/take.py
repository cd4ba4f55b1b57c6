"""Imports conversations: reads and checks all files first, then reads them again and writes.

The second pass writes in many short transactions, so that other processes wait only for a moment.
A conversation gets its row when its last turn is written, so it is imported as a whole or not at
all. The next import removes what a killed one left.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, Literal

from moa_cli.core.conversation import KeptConversation, KeptTurn
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.files.lock import locked
from moa_cli.core.text import dumps
from moa_cli.store.archive import StoredTurns, turn_values
from moa_cli.store.ended_processes import database_of
from moa_cli.store.incoming.conversation import IncomingConversation, identity_of
from moa_cli.store.incoming.json_stream import EncodingFault
from moa_cli.store.incoming.parts import ArchiveFault, ImportedFile, parts_of
from moa_cli.store.incoming.recognise import reading, recognise, refuse
from moa_cli.store.schema import Connection
from moa_cli.store.store import Store
from moa_cli.store.stored_values import as_unicode

NO_REPLY, OTHER_FILE = "conversation without a reply", "other file"
# Seconds that one transaction may last, and that pass before the next one, so that other processes
# get in: they look at least every twentieth of a second.
_TRANSACTION_SECONDS, _PAUSE_SECONDS = 0.08, 0.06
# Turns that are read before they are written.
_READ_AHEAD = 50


@dataclass
class ImportResult:
    """What was imported from the files of one source, a key of `recognise.SOURCES`.

    new, same: ids of conversations that were added, and that existed already. renamed: the id in
    the file and the new one of those added under another id, because theirs belongs to other
    content. longer: ids of those that got more turns, and how many. turns: how many were added in
    all. left: what was not imported or was changed, counted by kind.
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
    """What to do with one conversation of a file. first: the first turn to write, from 0."""

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
    """Import the conversations of files, folders and archives; return a result for each source.

    arguments: their paths, or `-` for `piped`, the standard input. source: which program exported
    them; None to recognise it by their content. tags: for each conversation. dry_run: only report
    what would be imported. waiting: called once if another process has to end its import first.

    If a file is broken, StoreError names the place in it; if it cannot be read, that is an OSError.
    Nothing is imported then.
    """
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(_alone(store, waiting))
            store.clear_unfinished()
        plan = _ImportPlan(store, source)
        for argument in arguments:
            with _named("standard input" if argument == "-" else argument):
                plan.read(argument, stack.enter_context(parts_of(argument, piped)))
        if not dry_run:
            plan.carry_out(tags)
        return list(plan.results.values())


def add(store: Store, conversations: Iterable[KeptConversation]) -> ImportResult:
    """Import conversations of another store of moa, as `archive.read` gives them.

    Raises StoreError if the store cannot be written, OSError if it cannot be locked.
    """
    result = ImportResult("moa")
    with _alone(store, lambda: None):
        store.clear_unfinished()
        plan = _ImportPlan(store)
        with _writing(store, ()) as writer:
            for kept in conversations:
                # The turns of an incoming conversation can be read only once.
                decision = plan.decide(_incoming(kept), result, alone=True)
                writer.write(_incoming(kept), decision)
    return result


def _incoming(kept: KeptConversation) -> IncomingConversation:
    turns = iter(kept.turns)
    return IncomingConversation(turns, lambda: kept, exact=True, identity=lambda: kept.id)


@dataclass(eq=False)
class _ImportPlan:
    """Decides what to do with each conversation of each file, and then does it."""

    _store: Store
    _source: str | None = None
    results: dict[str, ImportResult] = field(default_factory=dict)
    _parts: list[tuple[ImportedFile, str]] = field(default_factory=list)
    _decisions: list[_Decision] = field(default_factory=list)
    # The keys of the turns that conversations will have when the plan is carried out.
    _planned: dict[str, list[bytes]] = field(default_factory=dict)

    def read(self, argument: str, parts: Iterator[ImportedFile]) -> None:
        """Read and check files, and decide on each conversation. Raises StoreError."""
        others, known = 0, len(self._parts)
        for part in parts:
            with _named(part.name):
                source = self._source_of(part)
                if source is None:
                    others += 1
                    continue
                self._parts.append((part, source))
                result = self.results.setdefault(source, ImportResult(source))
                with reading(part, source) as conversations:
                    for conversation in conversations:
                        self._decisions.append(self.decide(conversation, result, alone=part.given))
        if len(self._parts) == known:
            raise StoreError(f"{argument}: holds no export of conversations")
        if others:
            self.results[self._parts[known][1]].left[OTHER_FILE] += others

    def _source_of(self, part: ImportedFile) -> str | None:
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
            # A folder may hold files of any kind.
            return None
        if part.given and found is None:
            raise refuse(part)
        return found if wanted in (None, found) else None

    def decide(
        self, conversation: IncomingConversation, result: ImportResult, *, alone: bool
    ) -> _Decision:
        """Decide what to do with a conversation, and note it in `result`; this reads its turns.

        alone: whether no conversation that was read before can be the same.
        """
        keys: list[bytes] = []
        count, answered, needed = 0, False, True
        for kept in conversation.turns:
            if count == 0 and conversation.exact and alone:
                # Making keys takes as long as all the rest, so only if there is one to compare.
                own = conversation.identity()
                needed = own is None or self._store.has(own)
            if needed:
                keys.append(_key(kept, exact=conversation.exact))
            count += 1
            answered = answered or kept.turn.reply is not None
        wanted = conversation.head().id
        if not answered and not conversation.exact:
            result.left[NO_REPLY] += 1
            return _Decision("skip")
        for identity in _ids(wanted, keys):
            there = self._known(identity, exact=conversation.exact)
            if there is None:
                decision = _Decision("begin", identity)
                if identity == wanted:
                    result.new.append(identity)
                else:
                    result.renamed.append((wanted, identity))
                break
            if there == keys or (not conversation.exact and there[: len(keys)] == keys):
                result.same.append(identity)
                return _Decision("skip")
            if not conversation.exact and keys[: len(there)] == there:
                # The other program added turns to it; moa did not.
                decision = _Decision("go on", identity, len(there))
                result.longer.append((identity, count - len(there)))
                break
        self._planned[identity] = keys
        result.left += conversation.left
        result.turns += count - decision.first
        return decision

    def _known(self, identity: str, *, exact: bool) -> list[bytes] | None:
        """The keys of that conversation's turns; None if there is no such conversation."""
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
                    for conversation in conversations:
                        decision = next(decisions, None)
                        if decision is None:
                            raise ValueError("the file changed while it was read")
                        writer.write(conversation, decision)


def _ids(identity: str, keys: list[bytes]) -> Iterator[str]:
    """The conversation's own id, then others made from its content.

    They are the same each time, so importing a file twice makes no second copy under a new id.
    """
    yield identity
    content = hashlib.sha256(b"".join(keys)).hexdigest()
    for attempt in itertools.count():
        yield identity_of("content", str(attempt), identity, content)


def _key(kept: KeptTurn, *, exact: bool) -> bytes:
    """What tells a turn from another: its texts, and for turns of moa all fields but its time.

    A time in the future is replaced by now, so it differs at each import.
    """
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
    """Yield a writer; write what it holds in the end, or remove what is incomplete on an error."""
    try:
        with store.unlinked():
            writer = _Writer(store, tags)
            yield writer
            writer.flush()
    except BaseException:
        with contextlib.suppress(StoreError):
            store.clear_unfinished()
        raise


@dataclass(eq=False)
class _Writer:
    """Writes turns and conversations, as many in a transaction as its time allows."""

    _store: Store
    _tags: Sequence[str]
    _steps: deque[Callable[[Connection], None]] = field(default_factory=deque)
    _ended: float = 0.0
    # The conversation of which only some turns are written.
    _begun: str | None = None

    def write(self, conversation: IncomingConversation, decision: _Decision) -> None:
        """Write a conversation's turns, then the conversation."""
        for place, kept in enumerate(conversation.turns):
            if decision.do != "skip" and place >= decision.first:
                self._add(partial(self._turn, decision, kept))
        head = conversation.head()
        if decision.do != "skip":
            self._add(partial(self._end, decision, head))

    def _add(self, step: Callable[[Connection], None]) -> None:
        self._steps.append(step)
        if len(self._steps) >= _READ_AHEAD:
            self.flush()

    def _turn(self, decision: _Decision, kept: KeptTurn, connection: Connection) -> None:
        identity = decision.identity
        if decision.do == "begin" and self._begun != identity:
            # It may have been deleted since the plan was made: wiping its old turns would take the
            # new ones too.
            if connection.execute(
                "SELECT 1 FROM doomed WHERE conversation_id = ?", (identity,)
            ).fetchone():
                raise StoreError(
                    f"conversation {identity} is being deleted", hint="import it again"
                )
            self._begun = identity
        self._store.keep_turn(identity, kept)

    def _end(self, decision: _Decision, head: KeptConversation, connection: Connection) -> None:
        identity = decision.identity
        if decision.do == "begin":
            self._store.add_conversation(
                identity, head.title, head.profile, head.created, head.updated
            )
            connection.execute("DELETE FROM unfinished WHERE conversation_id = ?", (identity,))
            self._begun = None
        else:
            connection.execute(
                "UPDATE conversations SET updated = max(updated, ?) WHERE id = ?",
                (head.updated, identity),
            )
        self._store.tag(identity, [*head.tags, *self._tags])

    def flush(self) -> None:
        """Write everything that waits. Raises StoreError."""
        while self._steps:
            time.sleep(max(0.0, self._ended + _PAUSE_SECONDS - time.monotonic()))
            with self._store.connection(writing=True) as connection:
                deadline = time.monotonic() + _TRANSACTION_SECONDS
                while self._steps and time.monotonic() < deadline:
                    self._steps.popleft()(connection)
                if self._begun is not None:
                    connection.execute(
                        "INSERT OR IGNORE INTO unfinished VALUES (?)", (self._begun,)
                    )
            self._ended = time.monotonic()


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn what is wrong with a file into an error that names it."""
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
    """Wait until no other process imports into the store, and keep others out. Raises OSError.

    Two imports at once would not see each other's plans.
    """
    with store.connection(writing=False) as connection:
        database = database_of(connection)
    # Not a file of the database: closing one would drop the locks that SQLite holds on it.
    path = database.with_name(f"{database.name}.importing")
    with ExitStack() as stack:
        if stack.enter_context(locked(path, seconds=0.0)) is False:
            waiting()
            stack.enter_context(locked(path))
        yield
