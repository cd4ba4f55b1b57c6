"""Writes turns into the store as they happen, and keeps the steps that cannot be written yet.

While another process has locked the database, or the disk is full, the steps of a turn wait in
memory and in a file in the folder `pending`. The file stays when this process ends. The steps are
written as soon as possible: with the next event, with the next turn, or by the next process that
opens the store.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moa_cli.core import paths
from moa_cli.core.conversation import Part, Proposal, Turn
from moa_cli.core.errors import NoConversation, StoreError, StoreLocked
from moa_cli.core.files.lock import try_lock
from moa_cli.core.values import load_value
from moa_cli.store.lease import AppendedLines, take_up
from moa_cli.store.stored_values import dump

if TYPE_CHECKING:
    from moa_cli.store.store import Store

# Seconds between two attempts to write to a locked database. Each attempt blocks the screen for a
# moment.
_RETRY_SECONDS = 1.0
_LAST_TRY_SECONDS = 0.5
_FOLDER, _MARK = "pending", "taken in "


@dataclass(eq=False)
class PendingTurn:
    """A turn that is being written.

    conversation: its id. new: whether the conversation begins with this turn. known: the number of
    the conversation's latest turn that this process knows; None if that does not matter. number: of
    this turn in the store; None until it is written. others: how many turns other processes have
    added since `known`. file: the identity of the file that `number` belongs to (`Store.identity`).
    written: the steps that are in this file. They are written again if another file replaces it.
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
    """A part of a turn that is written by itself. kind: `begin`, `proposal`, `note` or `end`."""

    turn: PendingTurn
    kind: str
    values: Mapping[str, Any]


@dataclass(eq=False)
class Backlog:
    """The steps to write into a store, in order. A backlog belongs to one process and thread."""

    _store: Store
    _steps: list[_Step] = field(default_factory=list)
    _tried: float = -_RETRY_SECONDS
    _file: _PendingFile | None = None
    _keys: dict[int, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._steps)

    def put(self, turn: PendingTurn, kind: str, values: Mapping[str, Any]) -> None:
        """Write one step of a turn, after the steps that wait.

        values: for `begin`, `prompt`, `profile`, `settings` (the resolved profile as TOML), `at`
        and perhaps `parts` and `asks_again`; for other kinds, the fields of a proposal, an event or
        a turn.

        After StoreLocked (another process writes) or another StoreError, the step waits. After
        OSError, it waits only in memory, so it is lost when this process ends. After NoConversation
        (the conversation was deleted), no step of the turn waits.
        """
        step = _Step(turn, kind, values)
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
        """Try again to write the steps that wait. Returns whether all are written."""
        if self._steps:
            with contextlib.suppress(StoreError):
                self._write(seconds)
        return not self._steps

    def _write(self, seconds: float) -> None:
        self._tried = time.monotonic()
        store = self._store
        turns = list(dict.fromkeys(step.turn for step in self._steps))
        places = [(turn, turn.number, turn.file, list(turn.written)) for turn in turns]
        gone: list[PendingTurn] = []
        try:
            with store.connection(writing=True, seconds=seconds):
                for step in self._steps:
                    if step.turn not in gone:
                        try:
                            _carry_out(store, step)
                        except NoConversation:
                            gone.append(step.turn)
        except BaseException:
            # The transaction was rolled back, and the new numbers with it.
            for turn, number, file, written in places:
                turn.number, turn.file, turn.written = number, file, written
            raise
        last = self._steps[-1].turn
        self._steps = []
        if self._file is not None:
            self._file.remove()
            self._file = None
            self._keys = {}
        # Steps of deleted conversations are dropped.
        if last in gone:
            raise NoConversation(f"the conversation {last.conversation} was deleted")

    def _keep(self, steps: list[_Step]) -> None:
        """Write steps into the pending file. Raises OSError."""
        if self._file is None:
            self._file = _PendingFile.create(self._store.folder / _FOLDER)
        for step in steps:
            values = {
                "turn": self._keys.setdefault(id(step.turn), len(self._keys)),
                "conversation": step.turn.conversation,
                "new": step.turn.new,
                "number": step.turn.number,
                "kind": step.kind,
                "values": step.values,
            }
            self._file.lines.write(dump(values))

    def close(self) -> None:
        """Try a last time. Steps that cannot be written stay in the file for the next process."""
        self.flush()
        if self._file is not None:
            self._file.leave()
            self._file = None


def _carry_out(store: Store, step: _Step) -> None:
    """Write a step within a transaction. Raises NoConversation if the turn was deleted."""
    turn, values = step.turn, step.values
    if step.kind != "begin" and not store.has_turn(turn.conversation, turn.number):
        if not turn.written or turn.file == store.identity:
            raise NoConversation(f"the conversation {turn.conversation} was deleted")
        # Another file has replaced the one in which the turn began, so the steps so far are written
        # again.
        again, turn.written = turn.written, []
        turn.new, turn.known = not store.has(turn.conversation), None
        for written in again:
            _carry_out(store, written)
    turn.written.append(step)
    if step.kind == "begin":
        prompt, profile, at = values["prompt"], values["profile"], values["at"]
        if turn.new:
            store.begin_conversation(prompt, profile, turn.conversation, at)
        if turn.known:
            turn.others = sum(
                number > turn.known for number in store.turn_numbers(turn.conversation)
            )
        turn.number = store.begin_turn(
            turn.conversation,
            prompt,
            profile,
            values["settings"],
            started=at,
            parts=[load_value(Part, part) for part in values.get("parts", ())],
            asks_again=values.get("asks_again", False),
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


class _PendingFile:
    """A file of steps. The process that writes it keeps it locked until it ends."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self.lines = AppendedLines(handle)

    @classmethod
    def create(cls, folder: Path) -> _PendingFile:
        """Raises OSError."""
        paths.make_private(folder)
        path = folder / f"{secrets.token_hex(8)}.jsonl"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try_lock(handle)
        return cls(path, handle)

    def read(self) -> list[dict[str, Any]]:
        """All whole lines. Raises OSError, or ValueError if the file is not a pending file."""
        found, others = [], 0
        with os.fdopen(os.dup(self.lines.handle), "rb") as file:
            file.seek(0)
            for line in file:
                # A kill or a full disk can leave half of a line.
                try:
                    values = json.loads(line)
                except (ValueError, RecursionError):
                    others += 1
                    continue
                if not isinstance(values, dict):
                    raise ValueError("a line is not a JSON object")
                found.append(values)
        if others and not found:
            raise ValueError("no line can be read")
        return found

    def remove(self) -> None:
        """Remove the file, because all its steps are in the database."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.leave()

    def leave(self) -> None:
        """Close the file, and leave it for another process."""
        os.close(self.lines.handle)


def import_pending(store: Store) -> None:
    """Write the steps that ended processes could not write.

    Each file is written once, even if this process is killed on the way. Raises StoreError.
    """
    for path in sorted((store.folder / _FOLDER).glob("*.jsonl")):
        handle = take_up(path)
        if handle is None:
            continue
        file = _PendingFile(path, handle)
        try:
            _write_file(store, file)
        except StoreLocked:
            file.leave()
            return
        except (OSError, ValueError, TypeError, KeyError, StoreError):
            # The file stays, for a newer version to read.
            file.leave()
        else:
            file.remove()


def _write_file(store: Store, file: _PendingFile) -> None:
    turns: dict[int, PendingTurn] = {}
    mark = _MARK + file.path.stem
    with store.connection(writing=True) as connection:
        if connection.execute("SELECT 1 FROM upkeep WHERE task = ?", (mark,)).fetchone():
            return
        # Delete the marks of files that no longer exist.
        rows = connection.execute("SELECT task FROM upkeep WHERE task GLOB ?", (f"{_MARK}*",))
        for (task,) in rows.fetchall():
            if not file.path.with_name(f"{task.removeprefix(_MARK)}.jsonl").exists():
                connection.execute("DELETE FROM upkeep WHERE task = ?", (task,))
        for values in file.read():
            key = int(values["turn"])
            if key not in turns:
                turns[key] = _known(store, values)
            # Steps of deleted conversations are dropped.
            with contextlib.suppress(NoConversation):
                _carry_out(store, _Step(turns[key], str(values["kind"]), values["values"]))
        for turn in turns.values():
            if turn.number is not None and store.has_turn(turn.conversation, turn.number):
                store.end_interrupted(turn.number)
        connection.execute("INSERT INTO upkeep VALUES (?)", (mark,))


def _known(store: Store, values: Mapping[str, Any]) -> PendingTurn:
    """The turn that a line of a pending file belongs to. Its conversation may have been deleted."""
    identity, number = str(values["conversation"]), values["number"]
    if values["kind"] == "begin":
        return PendingTurn(identity, new=not store.has(identity))
    return PendingTurn(identity, number=None if number is None else int(number))
