"""Imports conversations: reads and checks all files first, then reads them again and writes.

The second pass writes in many short transactions, so that other processes wait only for a moment.
The row of a conversation is written after its last turn, so that it is imported as a whole or not
at all. The next import removes the turns that a killed import left.
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
# Seconds that one transaction may last, and seconds of pause before the next one. In the pause,
# other processes can write: they try at least every twentieth of a second.
_TRANSACTION_SECONDS, _PAUSE_SECONDS = 0.08, 0.06
# The writer writes this many turns together. It reads up to four times as many while it pauses.
_TOGETHER = 50


@dataclass
class ImportResult:
    """The result of an import from the files of one source.

    source: a key of `recognise.SOURCES`. new: the ids of conversations that were added. same: the
    ids of conversations that existed already. renamed: the id in the file and the new id of each
    conversation that was added under another id, because a different conversation has its id.
    longer: the id of each conversation that got more turns, and how many. turns: how many turns
    were added in all. left: counts of what was not imported or was changed, by kind.
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

    Raises StoreError, which names the place, if a file is broken; OSError if it cannot be read.
    Then nothing is imported.
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
                # Made twice, because the turns of an incoming conversation can be read only once.
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
        """Decide what to do with a conversation, and note it in `result`. This reads its turns.

        alone: whether none of the conversations that were read before can be the same one.
        """
        keys: list[bytes] = []
        count, answered, needed = 0, False, True
        for kept in conversation.turns:
            if count == 0 and conversation.exact and alone:
                # Keys are made only if the store has a conversation with this id, because making
                # them takes as long as all the rest.
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
                # The other program has added turns to it since the last import; moa has not.
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
    """A key by which two turns are compared. It is made of the texts; for turns of moa, of all
    fields but the time.

    The time does not count, because a time in the future is replaced by now, which differs at each
    import.
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
    """Yield a writer. At the end of the block, its steps are written. After an error, incomplete
    conversations are removed."""
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
    """Writes turns and conversations. A transaction writes as many as its time allows."""

    _store: Store
    _tags: Sequence[str]
    _steps: deque[Callable[[Connection], None]] = field(default_factory=deque)
    _ended: float = 0.0
    # The id of the conversation of which only some turns are written so far.
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
        waiting = len(self._steps)
        paused = time.monotonic() >= self._ended + _PAUSE_SECONDS
        if waiting >= (_TOGETHER if paused else 4 * _TOGETHER):
            self._transaction()

    def _turn(self, decision: _Decision, kept: KeptTurn, connection: Connection) -> None:
        identity = decision.identity
        if decision.do == "begin" and self._begun != identity:
            # The conversation may have been deleted since the plan was made. Then the wiping of its
            # old turns would remove the new ones, too.
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
            self._transaction()

    def _transaction(self) -> None:
        time.sleep(max(0.0, self._ended + _PAUSE_SECONDS - time.monotonic()))
        with self._store.connection(writing=True) as connection:
            deadline = time.monotonic() + _TRANSACTION_SECONDS
            while self._steps and time.monotonic() < deadline:
                self._steps.popleft()(connection)
            if self._begun is not None:
                connection.execute("INSERT OR IGNORE INTO unfinished VALUES (?)", (self._begun,))
        self._ended = time.monotonic()


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn an error about the content of a file into one that names the file."""
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
    """Let only one process at a time import into the store, and wait for another one that does.
    Raises OSError.

    Two imports at the same time would not know each other's plans.
    """
    with store.connection(writing=False) as connection:
        database = database_of(connection)
    # The lock is not on a file of the database. Closing such a file would drop the locks that
    # SQLite holds on it.
    path = database.with_name(f"{database.name}.importing")
    with ExitStack() as stack:
        if stack.enter_context(locked(path, seconds=0.0)) is False:
            waiting()
            stack.enter_context(locked(path))
        yield
