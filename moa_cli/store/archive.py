"""Conversations as one JSON file, which any store takes in again.

The file is an object: `format` is "moa-conversations", `version` 1, and `conversations` a list.

A conversation has `id`, `title`, `profile`, `created`, `updated` (seconds since 1970) and
`turns`, which have `prompt`, `reply`, `status`, `started`, `settings` (the resolved profile as
TOML), `notes` (retries and lost aggregators, as events), and all other fields of
`conversation.Turn`; `proposals` are by layer. Turns that were taken back are left out, and a
turn that runs while it is exported counts as interrupted. Fields that have a default may be
missing; unknown ones are refused.

Exported, imported into an empty store and exported again, a file is the same to the byte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from moa_cli.conversation import KeptConversation, KeptTurn
from moa_cli.json_text import dumps
from moa_cli.store.store import ID_LETTERS, Store

__all__ = ["FORMAT", "VERSION", "Imported", "add", "read", "text_of"]

FORMAT, VERSION = "moa-conversations", 1
_HEADS = "SELECT id, title, profile, created, updated FROM conversations"


def read(store: Store, identities: Iterable[str] | None = None) -> Iterator[KeptConversation]:
    """The conversations of these ids, or all, in the order in which they began.

    All of them are read from one state of the file, one at a time. Raises StoreError.
    """
    with store.connection(writing=False) as connection:
        heads = connection.execute(f"{_HEADS} ORDER BY created, id").fetchall()
        wanted = None if identities is None else set(identities)
        for head in heads:
            if wanted is None or head["id"] in wanted:
                yield _read(store, connection, head)


def _read(store: Store, connection: sqlite3.Connection, head: sqlite3.Row) -> KeptConversation:
    identity = head["id"]
    rows = connection.execute(
        "SELECT id, started, settings FROM turns WHERE conversation_id = ? AND NOT withdrawn",
        (identity,),
    )
    beside = {row["id"]: row for row in rows}
    notes: dict[int, list[dict[str, Any]]] = {}
    for note in connection.execute(
        "SELECT n.turn_id, n.event FROM notes n JOIN turns t ON t.id = n.turn_id"
        " WHERE t.conversation_id = ? ORDER BY n.rowid",
        (identity,),
    ):
        notes.setdefault(note["turn_id"], []).append(json.loads(note["event"]))
    turns = []
    for turn in store.load(identity).turns:
        number = turn.stored_as or 0
        row = beside[number]
        kept = tuple(notes.get(number, ()))
        turns.append(KeptTurn(turn, row["started"], row["settings"], kept))
    return KeptConversation(**dict(head), turns=tuple(turns))


def text_of(conversations: Iterable[KeptConversation]) -> Iterator[str]:
    """The text of a file that holds `conversations`, piece by piece."""
    yield f'{{\n  "format": "{FORMAT}",\n  "version": {VERSION},\n  "conversations": ['
    before, end = "\n    ", "]\n}\n"
    for conversation in conversations:
        # No text in JSON holds a line end: each one is between two values.
        yield before + _text(conversation).replace("\n", "\n    ")
        before, end = ",\n    ", "\n  ]\n}\n"
    yield end


def _text(conversation: KeptConversation) -> str:
    values = {**vars(conversation), "turns": list(map(_turn_values, conversation.turns))}
    return dumps(values, indent=2)


def _turn_values(kept: KeptTurn) -> dict[str, Any]:
    values = dataclasses.asdict(kept.turn)
    del values["stored_as"]
    first = {
        "prompt": values.pop("user"),
        "reply": values.pop("reply"),
        "status": values.pop("status"),
        "started": kept.started,
        "settings": kept.settings,
        "notes": list(kept.notes),
    }
    if first["status"] == "open":
        first["status"] = "interrupted"
    return first | values


@dataclass(frozen=True)
class Imported:
    """What came of an import, by id.

    new: were not there. same: are there already, equal. renamed: are there with other content;
    the ids in the file with those that they got.
    """

    new: tuple[str, ...]
    same: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]


def add(store: Store, conversations: Sequence[KeptConversation]) -> Imported:
    """Put conversations into the store, all or none. Raises StoreError."""
    new, same, renamed = [], [], []
    with store.connection(writing=True) as connection:
        for conversation in conversations:
            for identity in _ids(conversation):
                there = _there(store, connection, identity)
                if there is None:
                    _insert(store, connection, replace(conversation, id=identity))
                    if identity == conversation.id:
                        new.append(identity)
                    else:
                        renamed.append((conversation.id, identity))
                    break
                if _content(there) == _content(conversation):
                    same.append(identity)
                    break
    return Imported(tuple(new), tuple(same), tuple(renamed))


def _ids(conversation: KeptConversation) -> Iterator[str]:
    """The conversation's id, then others that are made of its content.

    So a file that is imported twice makes no second copy, also under another id.
    """
    yield conversation.id
    content = _content(conversation)
    for attempt in itertools.count():
        digest = hashlib.sha256(f"{attempt}{content}".encode()).digest()
        yield "".join(ID_LETTERS[byte % len(ID_LETTERS)] for byte in digest[:10])


def _content(conversation: KeptConversation) -> str:
    return _text(replace(conversation, id=""))


def _there(store: Store, connection: sqlite3.Connection, identity: str) -> KeptConversation | None:
    head = connection.execute(f"{_HEADS} WHERE id = ?", (identity,)).fetchone()
    return None if head is None else _read(store, connection, head)


def _insert(store: Store, connection: sqlite3.Connection, conversation: KeptConversation) -> None:
    one = conversation
    connection.execute(
        "INSERT INTO conversations (id, title, profile, created, updated) VALUES (?, ?, ?, ?, ?)",
        (one.id, one.title, one.profile, one.created, one.updated),
    )
    for kept in one.turns:
        turn = kept.turn
        number = store.add_turn(one.id, turn, started=kept.started, settings=kept.settings)
        for layer in turn.proposals:
            for proposal in layer:
                store.add_proposal(number, proposal)
        for note in kept.notes:
            store.add_note(number, dict(note))
        store.end_turn(number, turn)
