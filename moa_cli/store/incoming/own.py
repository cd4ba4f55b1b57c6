"""Reads moa's own exports, one turn at a time, and refuses what does not follow their format.

The format is described in `store.archive`.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from moa_cli.core.conversation import KeptTurn, Turn
from moa_cli.core.errors import StoreError
from moa_cli.core.events import from_dict, to_dict
from moa_cli.core.values import check_plain, load_value
from moa_cli.store.archive import FORMAT, TAGGED, VERSION
from moa_cli.store.incoming.conversation import (
    ConversationHead,
    IncomingConversation,
    bounded,
    not_later,
    seconds_of,
)
from moa_cli.store.incoming.json_stream import JsonFault, JsonStream
from moa_cli.store.store import ID_LETTERS
from moa_cli.store.stored_values import checked_tag

NONE_OF_OURS = f'not an export of conversations ("format" is not "{FORMAT}")'
_ID = re.compile(rf"[{ID_LETTERS}]{{10}}")
_LAST_PLACE = 10**6
_KEYS = ("id", "title", "profile", "created", "updated", "turns")


def check_heading(values: Mapping[str, Any], name: str) -> None:
    """Check that this version can read a file.

    Args:
        values: Its `format` and `version`.
        name: The file's name for messages.

    Raises:
        ValueError: The file is not an export of moa.
        StoreError: A newer version wrote it.
    """
    if values.get("format") != FORMAT:
        raise ValueError(NONE_OF_OURS)
    version = values.get("version")
    if type(version) is not int:
        raise ValueError("version is not a whole number")
    if version > max(VERSION, TAGGED):
        raise StoreError(
            f"{name}: was written by a newer version of moa (format {version})",
            hint="update moa to read it",
        )


def conversations(stream: JsonStream) -> Iterator[IncomingConversation]:
    """The conversations of a file whose heading has been checked.

    Raises:
        ValueError: The file is broken.
    """
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
                f"conversation {number}",
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


class _ConversationReader:
    """Reads one conversation of the file, whose keys may come in any order."""

    def __init__(self, stream: JsonStream, number: int, seen: set[str]) -> None:
        self.left: Counter[str] = Counter()
        self._stream = stream
        self._number = number
        self._seen = seen
        self._values: dict[str, Any] = {}

    def identity(self) -> str | None:
        """Its id, or None while that has not been read."""
        return self._values.get("id")

    @property
    def _where(self) -> str:
        return f"conversation {self._values.get('id', self._number)}"

    def turns(self) -> Iterator[KeptTurn]:
        """Read its turns; the rest is read on the way. Raises ValueError."""
        try:
            for key in self._stream.members():
                if key in ("id", "turns") and key in self._values:
                    raise ValueError(f"{key} appears twice")
                if key == "turns":
                    yield from self._turns()
                elif key == "id":
                    self._take_id(self._stream.value())
                elif key in _KEYS or key == "tags":
                    self._values[key] = self._stream.value()
                else:
                    raise ValueError(f"unknown key {key!r}")
        except (JsonFault, _IdFault):
            raise
        except ValueError as error:
            raise ValueError(f"{self._where}: {error}") from None

    def _take_id(self, identity: Any) -> None:
        if not isinstance(identity, str) or not _ID.fullmatch(identity):
            raise _IdFault(_without_id(self._number))
        if identity in self._seen:
            raise _IdFault(f"conversation {identity} appears twice")
        self._seen.add(identity)
        self._values["id"] = identity

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

    def head(self) -> ConversationHead:
        """Its head, once all turns have been read. Raises ValueError."""
        values = self._values
        if "id" not in values:
            raise ValueError(_without_id(self._number))
        try:
            for key in _KEYS:
                if key not in values:
                    raise ValueError(f"{key} is missing")
            check_plain(str, values["title"], "title")
            check_plain(str, values["profile"], "profile")
            created, updated = (_time(values, key, self.left) for key in ("created", "updated"))
            tags = values.get("tags", [])
            if not isinstance(tags, list):
                raise ValueError("tags is not a list")
            return ConversationHead(
                values["id"],
                values["title"],
                values["profile"],
                created,
                updated,
                tuple(dict.fromkeys(map(_tag, tags))),
            )
        except ValueError as error:
            raise ValueError(f"{self._where}: {error}") from None


class _IdFault(ValueError):
    """A conversation has no valid id; the message names the conversation."""


def _tag(value: Any) -> str:
    check_plain(str, value, "a tag")
    return checked_tag(value)


def _turn(values: Any, told: Counter[str]) -> KeptTurn:
    if not isinstance(values, dict):
        raise ValueError("not a table")
    rest = dict(values)
    for key in ("prompt", "started"):
        if key not in values:
            raise ValueError(f"{key} is missing")
    prompt, started = rest.pop("prompt"), _time(rest, "started", told)
    settings, notes = rest.pop("settings", ""), rest.pop("notes", [])
    del rest["started"]
    for key in ("user", "stored_as"):
        if key in rest:
            raise ValueError(f"Turn has no {key}")
    check_plain(str, prompt, "prompt")
    check_plain(str, settings, "settings")
    turn = load_value(Turn, {"user": prompt, "status": "interrupted", **rest}, strict=True)
    _check_places(turn)
    if not isinstance(notes, list):
        raise ValueError("notes is not a list")
    notes = tuple(_note(note, told) for note in notes)
    if turn.status == "open":
        # No process will end it here.
        turn = dataclasses.replace(turn, status="interrupted")
    return KeptTurn(bounded(turn, told), started, settings, notes)


def _time(values: Mapping[str, Any], key: str, told: Counter[str]) -> float:
    check_plain(float, values[key], key)
    at = seconds_of(values[key])
    if at is None:
        raise ValueError(f"{key} is not a time in seconds since 1970")
    return not_later(at, told)


def _check_places(turn: Turn) -> None:
    places = [(proposal.layer, proposal.index) for layer in turn.proposals for proposal in layer]
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
