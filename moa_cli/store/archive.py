"""Writes conversations as one JSON file, and reads such files, which any store can import.

The file is an object: `format` is "moa-conversations", `version` is 1, and `conversations` is a
list. If a conversation has tags, `version` is 2, which releases without tags refuse. If a turn has
images, files or tool calls, `version` is 3. If a turn has a summary, it is 4. If a turn failed to
replace the reply to an earlier one, it is 5.

A conversation has `id`, `title`, `profile`, `created` and `updated` (seconds since 1970), `tags` if
there are any, and `turns`. A turn has `prompt`, `reply`, `status`, `started`, `settings` (the
resolved profile as TOML), `notes` (events such as a retry or a lost aggregator), and all other
fields of `conversation.Turn`; `proposals` are by layer. Turns that were taken back are left out,
and a turn that still runs is written as interrupted. Fields with a default may be missing; unknown
fields are refused.

If an export is imported into an empty store and exported again, the second file is byte-identical.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from moa_cli.core.conversation import KeptConversation, KeptTurn, Part, Turn, without_empty
from moa_cli.core.errors import StoreError, UsageError
from moa_cli.core.events import from_dict, to_dict
from moa_cli.core.text import dumps
from moa_cli.core.values import check_plain, load_value, plain_values
from moa_cli.store.incoming.conversation import IncomingConversation, bounded, not_later, seconds_of
from moa_cli.store.incoming.json_stream import JsonFault, JsonStream
from moa_cli.store.store import ID_LETTERS, Store
from moa_cli.store.stored_values import checked_tag

FORMAT, VERSION, TAGGED, WITH_PARTS = "moa-conversations", 1, 2, 3
WITH_SUMMARIES, WITH_ATTEMPTS = 4, 5
_ID = re.compile(rf"[{ID_LETTERS}]{{10}}")
_LAST_PLACE = 10**6
# A valid address of an image or a file: empty, a data URI, or a web address.
_ADDRESS = re.compile(r"\Z|data:[\w.+-]+/[\w.+-]+;base64,[A-Za-z0-9+/=]*\Z|https?://[^\s]+\Z", re.I)
NO_ADDRESS = "address of an image that is none"
_KEYS = ("id", "title", "profile", "created", "updated", "turns")


def read(
    store: Store, identities: Iterable[str] | None = None
) -> Generator[KeptConversation, None, None]:
    """Read the conversations of these ids (None: all) in the order in which they began.

    All of them are read from one state of the file. The caller's loop reads one turn at a time.
    """
    with store.connection(writing=False) as connection:
        wanted = None if identities is None else set(identities)
        for head in connection.execute(
            "SELECT id, title, profile, created, updated FROM conversations"
            " WHERE typeof(id) = 'text' ORDER BY created, id"
        ).fetchall():
            identity = head["id"]
            if wanted is None or identity in wanted:
                turns, tags = StoredTurns(store, identity), store.tags(identity)
                yield KeptConversation(
                    identity,
                    store.sound_text(head["title"]),
                    store.sound_text(head["profile"]),
                    store.sound_time(head["created"]),
                    store.sound_time(head["updated"]),
                    turns,
                    tags,
                )


class StoredTurns(Sequence[KeptTurn]):
    """The turns of a conversation in a store; each one is read when it is accessed."""

    def __init__(self, store: Store, identity: str) -> None:
        self._store = store
        self._numbers = store.turn_numbers(identity)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: Any) -> Any:
        return self._store.kept_turn(self._numbers[place])


def text_of(
    conversations: Iterable[KeptConversation],
    *,
    tagged: bool = False,
    parts: bool = False,
    summaries: bool = False,
    attempts: bool = False,
) -> Iterator[str]:
    """The text of an export file with `conversations`, in pieces.

    tagged: whether any of them may have tags. parts: whether a turn may have more than text.
    summaries: whether a turn may have a summary. attempts: whether one may have `asks_again`.
    """
    version = WITH_PARTS if parts else TAGGED if tagged else VERSION
    version = WITH_ATTEMPTS if attempts else WITH_SUMMARIES if summaries else version
    yield f'{{\n  "format": "{FORMAT}",\n  "version": {version},\n  "conversations": ['
    before, end = "\n    ", "]\n}\n"
    for conversation in conversations:
        yield before
        yield from _text(conversation)
        before, end = ",\n    ", "\n  ]\n}\n"
    yield end


def _text(conversation: KeptConversation) -> Iterator[str]:
    """A conversation, indented by four spaces.

    The indentation can be added at every line end, because texts in JSON contain no line ends.
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
    values: dict[str, Any] = plain_values(kept.turn, without_empty)
    del values["stored_as"]
    status = values.pop("status")
    first = {
        "prompt": values.pop("user"),
        "reply": values.pop("reply"),
        "status": "interrupted" if status == "open" else status,
        "started": kept.started,
        "settings": kept.settings,
        "notes": list(kept.notes),
    }
    return first | values


def check_heading(values: Mapping[str, Any], name: str) -> None:
    """Check that this version can read the file of that name, by its `format` and `version`.

    Raises ValueError if it is not an export of moa, StoreError if a newer version wrote it.
    """
    if values.get("format") != FORMAT:
        raise ValueError(f'not an export of conversations ("format" is not "{FORMAT}")')
    version = values.get("version")
    if type(version) is not int:
        raise ValueError("version is not a whole number")
    if version > WITH_ATTEMPTS:
        raise StoreError(
            f"{name}: was written by a newer version of moa (format {version})",
            hint="update moa to read it",
        )


def conversations(stream: JsonStream) -> Iterator[IncomingConversation]:
    """The conversations of a file whose heading has been checked. Raises ValueError."""
    seen: set[str] = set()
    found = False
    for key in stream.members():
        if key != "conversations":
            stream.value()
            continue
        if found:
            raise ValueError("conversations appears twice")
        if stream.next() != "[":
            raise ValueError("conversations is not a list")
        found = True
        for number in stream.items():
            if stream.next() != "{":
                stream.value()
                raise ValueError(_without_id(number))
            reading = _ConversationReader(stream, number, seen)
            yield IncomingConversation(
                reading.turns(),
                reading.head,
                exact=True,
                left=reading.left,
                identity=reading.identity,
            )
    stream.end()
    if not found:
        raise ValueError("conversations is not a list")


def _without_id(number: int) -> str:
    return f"conversation {number} has no id (10 letters or digits, none of 0, 1, i, l and o)"


@dataclasses.dataclass(eq=False)
class _ConversationReader:
    """Reads one conversation of the file, whose keys may come in any order."""

    _stream: JsonStream
    _number: int
    _seen: set[str]
    _values: dict[str, Any] = dataclasses.field(default_factory=dict)
    left: Counter[str] = dataclasses.field(default_factory=Counter)

    def identity(self) -> str | None:
        """Its id, or None if the id has not been read yet."""
        return self._values.get("id")

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Add the name of the conversation to errors that do not tell the place."""
        try:
            yield
        except (JsonFault, _IdFault):
            raise
        except ValueError as error:
            where = self._values.get("id", self._number)
            raise ValueError(f"conversation {where}: {error}") from None

    def turns(self) -> Iterator[KeptTurn]:
        """Read its turns, and on the way the rest of the conversation. Raises ValueError."""
        with self._named():
            for key in self._stream.members():
                if key in ("id", "turns") and key in self._values:
                    raise ValueError(f"{key} appears twice")
                if key == "turns":
                    yield from self._turns()
                elif key == "id":
                    identity = self._stream.value()
                    if not isinstance(identity, str) or not _ID.fullmatch(identity):
                        raise _IdFault(_without_id(self._number))
                    if identity in self._seen:
                        raise _IdFault(f"conversation {identity} appears twice")
                    self._seen.add(identity)
                    self._values["id"] = identity
                elif key in (*_KEYS, "tags"):
                    self._values[key] = self._stream.value()
                else:
                    raise ValueError(f"unknown key {key!r}")

    def _turns(self) -> Iterator[KeptTurn]:
        if self._stream.next() != "[":
            raise ValueError("turns is not a list")
        self._values["turns"] = True
        for number in self._stream.items():
            values = self._stream.value()
            try:
                kept = _turn(values, self.left)
            except ValueError as error:
                raise ValueError(f"turn {number}: {error}") from None
            yield kept

    def head(self) -> KeptConversation:
        """The conversation without its turns, after these have been read. Raises ValueError."""
        values = self._values
        if "id" not in values:
            raise ValueError(_without_id(self._number))
        with self._named():
            for key in _KEYS:
                if key not in values:
                    raise ValueError(f"{key} is missing")
            title, profile = values["title"], values["profile"]
            check_plain(str, title, "title")
            check_plain(str, profile, "profile")
            created, updated = (_time(values, key, self.left) for key in ("created", "updated"))
            tags = values.get("tags", [])
            if not isinstance(tags, list):
                raise ValueError("tags is not a list")
            checked = tuple(dict.fromkeys(map(_tag, tags)))
        return KeptConversation(values["id"], title, profile, created, updated, (), checked)


class _IdFault(ValueError):
    """A conversation has no valid id; the message names the conversation."""


def _tag(value: Any) -> str:
    check_plain(str, value, "a tag")
    try:
        return checked_tag(value)
    except UsageError as error:
        raise ValueError(error.message) from None


def _turn(values: Any, told: Counter[str]) -> KeptTurn:
    if not isinstance(values, dict):
        raise ValueError("not a table")
    rest = dict(values)
    for key in ("prompt", "started"):
        if key not in values:
            raise ValueError(f"{key} is missing")
    started = _time(rest, "started", told)
    prompt, settings, notes = rest.pop("prompt"), rest.pop("settings", ""), rest.pop("notes", [])
    del rest["started"]
    for key in ("user", "stored_as"):
        if key in rest:
            raise ValueError(f"Turn has no {key}")
    check_plain(str, prompt, "prompt")
    check_plain(str, settings, "settings")
    turn = load_value(Turn, {"user": prompt, "status": "interrupted", **rest}, strict=True)
    _check_places(turn)
    turn = dataclasses.replace(turn, parts=_known_parts(turn.parts, told))
    if not isinstance(notes, list):
        raise ValueError("notes is not a list")
    notes = tuple(_note(note, told) for note in notes)
    if turn.status == "open":
        # In this store, no process will end the turn.
        turn = dataclasses.replace(turn, status="interrupted")
    return KeptTurn(bounded(turn, told), started, settings, notes)


def _time(values: Mapping[str, Any], key: str, told: Counter[str]) -> float:
    check_plain(float, values[key], key)
    at = seconds_of(values[key])
    if at is None:
        raise ValueError(f"{key} is not a time in seconds since 1970")
    return not_later(at, told)


def _known_parts(parts: tuple[Part, ...], told: Counter[str]) -> tuple[Part, ...]:
    """The parts of a prompt. An address that must not be sent to a model is left out, and
    counted."""
    kept = tuple(
        part if _ADDRESS.match(part.url) else dataclasses.replace(part, url="") for part in parts
    )
    if kept != parts:
        told[NO_ADDRESS] += sum(part != before for part, before in zip(kept, parts, strict=True))
    return kept


def _check_places(turn: Turn) -> None:
    layers = (*turn.proposals, turn.reviews)
    places = [(proposal.layer, proposal.index) for layer in layers for proposal in layer]
    if len(set(places)) < len(places):
        raise ValueError("two proposals have the same layer and index")
    if any(not 0 <= number <= _LAST_PLACE for place in places for number in place):
        raise ValueError("a proposal's layer or index is out of range")


def _note(note: Any, told: Counter[str]) -> Mapping[str, Any]:
    if not isinstance(note, dict):
        raise ValueError("a note is not a table")
    event = from_dict(note, strict=True)
    kept = bounded(event, told)
    return note if kept is event else to_dict(kept)
