"""Turns on their way into the database, and where they wait when it cannot be written.

What happens in a turn is written as it happens. While another process holds the database, or the
disk is full, it waits here, and in a file of its own in the folder `pending`, so that it outlives
this process. It is written as soon as that can be: with the next event, the next turn, or by the
next process that opens the store.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moa_cli.core import paths
from moa_cli.core.conversation import Proposal, Turn
from moa_cli.core.errors import NoConversation, StoreError, StoreLocked
from moa_cli.core.file_lock import try_lock
from moa_cli.core.values import load_value
from moa_cli.store.packing import dump, without_defaults

if TYPE_CHECKING:
    from moa_cli.store.store import Store

# Between two attempts on a database that is locked: each one holds up what is on the screen.
_RETRY_SECONDS = 1.0
_LAST_TRY_SECONDS = 0.5
_MARK = "taken in "


@dataclass(eq=False)
class TurnOnItsWay:
    """A turn that is being written. number: its number in the store, None until it is there.

    conversation: its id. new: whether that conversation begins with it. known: the number of the
    latest turn of the conversation that this process knows, None if it does not matter.
    others: how many turns other processes have added since then. file: which file the number is
    of. written: what stands in that file, to be written again if another takes its place.
    """

    conversation: str
    new: bool = False
    known: int | None = None
    number: int | None = None
    others: int = 0
    file: object = None
    written: list[_Step] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Step:
    """Something to be written of one turn. kind: begin, proposal, note or end."""

    turn: TurnOnItsWay
    kind: str
    values: Mapping[str, Any]


class Backlog:
    """What is to be written into a store, in order; it belongs to one process and thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._steps: list[_Step] = []
        self._tried = -_RETRY_SECONDS
        self._file: _PendingFile | None = None
        self._keys: dict[int, int] = {}

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._steps)

    def begin(self, turn: TurnOnItsWay, prompt: str, profile: str, settings: str) -> None:
        """The turn has begun. settings: the resolved profile as TOML.

        Raises StoreLocked or StoreError as the other methods do, NoConversation if the
        conversation was deleted; then nothing of the turn waits.
        """
        values = {"prompt": prompt, "profile": profile, "settings": settings, "at": time.time()}
        self._put(_Step(turn, "begin", values))

    def proposal(self, turn: TurnOnItsWay, proposal: Proposal) -> None:
        """A proposal has ended."""
        self._put(_Step(turn, "proposal", without_defaults(proposal)))

    def note(self, turn: TurnOnItsWay, event: Mapping[str, Any]) -> None:
        """Something happened that no proposal tells of."""
        self._put(_Step(turn, "note", event))

    def end(self, turn: TurnOnItsWay, ended: Turn) -> None:
        """What came of the turn, so far."""
        self._put(_Step(turn, "end", without_defaults(replace(ended, proposals=()))))

    def _put(self, step: _Step) -> None:
        """Write a step, and those that wait before it.

        Raises StoreLocked if it has to wait, StoreError if the database cannot be written; it
        waits then, too. Raises OSError besides where it would not outlive this process,
        NoConversation if the turn's conversation was deleted; then nothing of it waits.
        """
        self._steps.append(step)
        waits = self._file is not None
        if waits and time.monotonic() - self._tried < _RETRY_SECONDS:
            self._keep([step])
            return
        try:
            self._write(0.0)
        except NoConversation:
            raise
        except StoreError:
            self._keep([step] if waits else self._steps)
            raise

    def flush(self, seconds: float = _LAST_TRY_SECONDS) -> bool:
        """Try once more to write what waits; whether all of it is written."""
        if self._steps:
            with contextlib.suppress(StoreError):
                self._write(seconds)
        return not self._steps

    def _write(self, seconds: float) -> None:
        self._tried = time.monotonic()
        store = self._store
        turns = list(dict.fromkeys(step.turn for step in self._steps))
        places = [(turn, turn.number, turn.file, list(turn.written)) for turn in turns]
        gone: list[TurnOnItsWay] = []
        try:
            with store.connection(writing=True, seconds=seconds):
                for step in self._steps:
                    if step.turn not in gone:
                        try:
                            _carry_out(store, step)
                        except NoConversation:
                            gone.append(step.turn)
        except BaseException:
            # Rolled back, so that the numbers of this attempt are nobody's.
            for turn, number, file, written in places:
                turn.number, turn.file, turn.written = number, file, written
            raise
        last = self._steps[-1].turn
        self._steps = []
        if self._file is not None:
            self._file.remove()
            self._file = None
            self._keys = {}
        # What was deleted meanwhile takes what comes of it along.
        if last in gone:
            raise NoConversation(f"the conversation {last.conversation} was deleted")

    def _keep(self, steps: list[_Step]) -> None:
        """Write steps into the file of what waits. Raises OSError."""
        if self._file is None:
            self._file = _PendingFile.create(_folder(self._store))
        for step in steps:
            key = self._keys.setdefault(id(step.turn), len(self._keys))
            self._file.add(
                {
                    "turn": key,
                    "conversation": step.turn.conversation,
                    "new": step.turn.new,
                    "number": step.turn.number,
                    "kind": step.kind,
                    "values": step.values,
                }
            )

    def close(self) -> None:
        """Try a last time; what cannot be written now stays for the next process."""
        self.flush()
        if self._file is not None:
            self._file.leave()
            self._file = None


def _carry_out(store: Store, step: _Step) -> None:
    """Write one step, within a transaction. Raises NoConversation if the turn was deleted."""
    turn, values = step.turn, step.values
    if step.kind != "begin" and not store.has_turn(turn.conversation, turn.number):
        if not turn.written or turn.file == store.identity:
            raise NoConversation(f"the conversation {turn.conversation} was deleted")
        # Another file stands in the place of the one that the turn was begun in.
        again, turn.written = turn.written, []
        turn.new, turn.known = not store.has(turn.conversation), None
        for written in again:
            _carry_out(store, written)
    turn.written.append(step)
    if step.kind == "begin":
        if turn.new:
            store.begin_conversation(
                values["prompt"], values["profile"], turn.conversation, values["at"]
            )
        turn.others = store.turns_since(turn.conversation, turn.known)
        turn.number = store.begin_turn(
            turn.conversation,
            values["prompt"],
            values["profile"],
            values["settings"],
            started=values["at"],
        )
        turn.file = store.identity
        return
    assert turn.number is not None
    match step.kind:
        case "proposal":
            store.add_proposal(turn.number, load_value(Proposal, values))
        case "note":
            store.add_note(turn.number, dict(values))
        case "end":
            store.end_turn(turn.number, load_value(Turn, values))


def _folder(store: Store) -> Path:
    return store.folder / "pending"


class _PendingFile:
    """A file of steps, locked by the process that writes it for as long as that lives."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle
        self._torn = False

    @classmethod
    def create(cls, folder: Path) -> _PendingFile:
        """A new file. Raises OSError."""
        paths.make_private(folder)
        path = folder / f"{secrets.token_hex(8)}.jsonl"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try_lock(handle)
        return cls(path, handle)

    @classmethod
    def take_up(cls, path: Path) -> _PendingFile | None:
        """The file of a process that has ended; None if it lives, or another reads it."""
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:
            return None
        if try_lock(handle) is False or not _is_there(path, handle):
            os.close(handle)
            return None
        return cls(path, handle)

    def add(self, values: Mapping[str, Any]) -> None:
        """One more line. Raises OSError."""
        # A line that a full disk has cut must not spoil the next one, too.
        data = (b"\n" if self._torn else b"") + dump(values).encode() + b"\n"
        try:
            self._torn = os.write(self._handle, data) < len(data)
        except OSError:
            self._torn = True
            raise
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines. Raises OSError, ValueError if none of them is one of ours."""
        found, others = [], 0
        with os.fdopen(os.dup(self._handle), "rb") as file:
            file.seek(0)
            for line in file:
                # A kill, or a full disk, leaves half of a line.
                try:
                    values = json.loads(line)
                except (ValueError, RecursionError):
                    others += 1
                    continue
                if not isinstance(values, dict):
                    raise ValueError("a line that is not a table")
                found.append(values)
        if others and not found:
            raise ValueError("nothing of it can be read")
        return found

    def remove(self) -> None:
        """All of it is written."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.leave()

    def leave(self) -> None:
        """It stays for another process."""
        os.close(self._handle)


def _is_there(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def take_in(store: Store) -> int:
    """Write what processes that have ended could not; returns how many turns that were.

    Each file is taken in once, also where this process is killed on the way. Raises StoreError.
    """
    folder = _folder(store)
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    count = 0
    for path in files:
        file = _PendingFile.take_up(path)
        if file is None:
            continue
        try:
            count += _take_in(store, file)
        except StoreLocked:
            file.leave()
            return count
        except (OSError, ValueError, TypeError, KeyError, StoreError):
            # It stays where it is, for `moa history check` and a newer version to see.
            file.leave()
            continue
        file.remove()
    return count


def _take_in(store: Store, file: _PendingFile) -> int:
    turns: dict[int, TurnOnItsWay] = {}
    mark = _MARK + file.path.stem
    with store.connection(writing=True) as connection:
        if connection.execute("SELECT 1 FROM upkeep WHERE task = ?", (mark,)).fetchone():
            return 0
        _forget_marks(connection, _folder(store))
        for values in file.lines():
            key = int(values["turn"])
            if key not in turns:
                turns[key] = _known(store, values)
            # Of what was deleted meanwhile, nothing is to come back or to stay in the file.
            with contextlib.suppress(NoConversation):
                _carry_out(store, _Step(turns[key], str(values["kind"]), values["values"]))
        for turn in turns.values():
            if turn.number is not None and store.has_turn(turn.conversation, turn.number):
                store.end_interrupted(turn.number)
        connection.execute("INSERT INTO upkeep VALUES (?)", (mark,))
    return len(turns)


def _known(store: Store, values: Mapping[str, Any]) -> TurnOnItsWay:
    """The turn of a line, whose conversation may be gone by now."""
    identity, number = str(values["conversation"]), values["number"]
    if values["kind"] == "begin":
        return TurnOnItsWay(identity, new=not store.has(identity))
    return TurnOnItsWay(identity, number=None if number is None else int(number))


def _forget_marks(connection: sqlite3.Connection, folder: Path) -> None:
    """Forget those files that are gone."""
    rows = connection.execute("SELECT task FROM upkeep WHERE task GLOB ?", (f"{_MARK}*",))
    for (task,) in rows.fetchall():
        if not (folder / f"{task.removeprefix(_MARK)}.jsonl").exists():
            connection.execute("DELETE FROM upkeep WHERE task = ?", (task,))
