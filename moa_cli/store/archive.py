"""Writes conversations as one JSON file, which any store can import.

The file is an object: `format` is "moa-conversations", `version` is 1, and `conversations` is a
list. If a conversation has tags, `version` is 2, which releases without tags refuse.

A conversation has `id`, `title`, `profile`, `created` and `updated` (seconds since 1970), `tags` if
there are any, and `turns`. A turn has `prompt`, `reply`, `status`, `started`, `settings` (the
resolved profile as TOML), `notes` (events such as a retry or a lost aggregator), and all other
fields of `conversation.Turn`; `proposals` are by layer. Turns that were taken back are left out,
and a turn that still runs is written as interrupted. Fields with a default may be missing; unknown
fields are refused.

An export that is imported into an empty store and exported again is the same to the byte.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from moa_cli.core.conversation import KeptConversation, KeptTurn
from moa_cli.core.text import dumps
from moa_cli.store.store import Store

FORMAT, VERSION, TAGGED = "moa-conversations", 1, 2
_HEADS = "SELECT id, title, profile, created, updated FROM conversations"


def read(
    store: Store, identities: Iterable[str] | None = None
) -> Generator[KeptConversation, None, None]:
    """Read conversations in the order in which they began.

    All of them are read from one state of the file, one turn at a time while the caller loops.

    Args:
        store: Where they are.
        identities: Their ids; None for all conversations.

    Raises:
        StoreError: The store cannot be read.
    """
    with store.connection(writing=False) as connection:
        heads = connection.execute(f"{_HEADS} ORDER BY created, id").fetchall()
        wanted = None if identities is None else set(identities)
        for head in heads:
            identity = head["id"]
            if wanted is None or identity in wanted:
                yield KeptConversation(
                    **dict(head), turns=StoredTurns(store, identity), tags=store.tags(identity)
                )


class StoredTurns(Sequence[KeptTurn]):
    """The turns of a conversation in a store; each one is read when it is accessed."""

    def __init__(self, store: Store, identity: str) -> None:
        self._store = store
        self._numbers = store.turn_numbers(identity)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self._store.kept_turn(number) for number in self._numbers[place]]
        return self._store.kept_turn(self._numbers[place])


def text_of(conversations: Iterable[KeptConversation], *, tagged: bool = False) -> Iterator[str]:
    """The text of a file that holds `conversations`, in pieces.

    tagged: whether any of them may have tags.
    """
    version = TAGGED if tagged else VERSION
    yield f'{{\n  "format": "{FORMAT}",\n  "version": {version},\n  "conversations": ['
    before, end = "\n    ", "]\n}\n"
    for conversation in conversations:
        yield before
        yield from _text(conversation)
        before, end = ",\n    ", "\n  ]\n}\n"
    yield end


def _text(conversation: KeptConversation) -> Iterator[str]:
    """A conversation, indented by four spaces.

    JSON texts hold no line ends, so each line end is one between two values.
    """
    values = {**vars(conversation), "tags": list(conversation.tags)}
    del values["turns"]
    if not conversation.tags:
        del values["tags"]
    head = dumps(values, indent=2).removesuffix("\n}")
    yield head.replace("\n", "\n    ") + ',\n      "turns": ['
    before, end = "\n        ", "]\n    }"
    for kept in conversation.turns:
        yield before + dumps(turn_values(kept), indent=2).replace("\n", "\n        ")
        before, end = ",\n        ", "\n      ]\n    }"
    yield end


def turn_values(kept: KeptTurn) -> dict[str, Any]:
    """A turn as the file holds it."""
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
