"""Reads a file of conversations, and refuses what is none."""

from __future__ import annotations

import dataclasses
import json
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from moa_cli.conversation import KeptConversation, KeptTurn, Turn
from moa_cli.errors import StoreError
from moa_cli.events import from_dict
from moa_cli.loading import hints_of, load_value
from moa_cli.store.archive import FORMAT, VERSION
from moa_cli.store.store import ID_LETTERS
from moa_cli.text_files import text_of

__all__ = ["parse"]

_ID = re.compile(rf"[{ID_LETTERS}]{{10}}")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
# The last second that a calendar of four-digit years can tell, in any time zone.
_LATEST = 253_402_200_000
_LARGEST = 2**63 - 1
_KEYS = ("id", "title", "profile", "created", "updated", "turns")
_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def parse(content: bytes, name: str) -> tuple[KeptConversation, ...]:
    """The conversations in the content of a file.

    name: the file, for messages. Raises StoreError that names it and says what is wrong where,
    UsageError if it is no text.
    """
    try:
        values = _json(text_of(content, name))
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f'not an export of conversations ("format" is not "{FORMAT}")')
        version = values.get("version")
        if type(version) is not int:
            raise ValueError("version is not a whole number")
        if version > VERSION:
            raise StoreError(
                f"{name}: was written by a newer version of moa (format {version})",
                hint="update moa to read it",
            )
        return tuple(_conversations(values.get("conversations")))
    except ValueError as error:
        raise StoreError(f"{name}: {error}") from None


def _json(text: str) -> Any:
    try:
        values = json.loads(text)
        if _HALF.search(text):
            # Half a surrogate pair is replaced here as the store does with every text.
            values = json.loads(json.dumps(values, ensure_ascii=False).encode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"not JSON: {error.msg} ({place})") from None
    except RecursionError:
        raise ValueError("not an export of conversations: it is nested too deeply") from None
    except ValueError:
        raise ValueError("not an export of conversations: a number is too long") from None
    return values


def _conversations(values: Any) -> Iterator[KeptConversation]:
    if not isinstance(values, list):
        raise ValueError("conversations is not a list")
    seen: set[str] = set()
    for number, one in enumerate(values, 1):
        identity = one.get("id") if isinstance(one, dict) else None
        if not isinstance(identity, str) or not _ID.fullmatch(identity):
            raise ValueError(
                f"conversation {number} has no id (10 letters or digits, none of 0, 1, i, l and o)"
            )
        if identity in seen:
            raise ValueError(f"conversation {identity} is there twice")
        seen.add(identity)
        try:
            yield _conversation(one)
        except ValueError as error:
            raise ValueError(f"conversation {identity}: {error}") from None


def _conversation(values: dict[str, Any]) -> KeptConversation:
    if unknown := values.keys() - set(_KEYS):
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}")
    for key in _KEYS:
        if key not in values:
            raise ValueError(f"{key} is missing")
    _check(values["title"], str, "title")
    _check(values["profile"], str, "profile")
    created, updated = (_time(values, key) for key in ("created", "updated"))
    if not isinstance(values["turns"], list):
        raise ValueError("turns is not a list")
    turns = []
    for number, one in enumerate(values["turns"], 1):
        try:
            turns.append(_turn(one))
        except ValueError as error:
            raise ValueError(f"turn {number}: {error}") from None
    return KeptConversation(
        values["id"], values["title"], values["profile"], created, updated, tuple(turns)
    )


def _turn(values: Any) -> KeptTurn:
    if not isinstance(values, dict):
        raise ValueError("not a table")
    rest = dict(values)
    for key in ("prompt", "started"):
        if key not in values:
            raise ValueError(f"{key} is missing")
    prompt, started = rest.pop("prompt"), _time(rest, "started")
    settings, notes = rest.pop("settings", ""), rest.pop("notes", [])
    del rest["started"]
    for key in ("user", "stored_as"):
        if key in rest:
            raise ValueError(f"Turn has no {key}")
    _check(prompt, str, "prompt")
    _check(settings, str, "settings")
    turn = load_value(Turn, {"user": prompt, "status": "interrupted", **rest})
    _check(turn, Turn, "turn")
    _check_places(turn)
    if not isinstance(notes, list):
        raise ValueError("notes is not a list")
    for note in notes:
        _check_note(note)
    if turn.status == "open":
        # The process that would end it is not here.
        turn = dataclasses.replace(turn, status="interrupted")
    return KeptTurn(turn, started, settings, tuple(notes))


def _time(values: Mapping[str, Any], key: str) -> float:
    value = values[key]
    _check(value, float, key)
    if not 0 <= value <= _LATEST:
        raise ValueError(f"{key} is no time in seconds since 1970")
    return float(value)


def _check_places(turn: Turn) -> None:
    places = [(one.layer, one.index) for layer in turn.proposals for one in layer]
    if len(set(places)) < len(places):
        raise ValueError("two proposals have the same layer and index")
    if any(not 0 <= number <= _LARGEST for place in places for number in place):
        raise ValueError("a proposal's layer or index is no place")


def _check_note(note: Any) -> None:
    if not isinstance(note, dict):
        raise ValueError("a note is not a table")
    event = from_dict(note)
    _check(event, type(event), "note")


def _check(value: Any, hint: Any, name: str) -> None:
    """Raises ValueError if `value`, or what is in it, is not of the type that it should have."""
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        for key, inner in hints_of(hint).items():
            _check(getattr(value, key), inner, key)
    elif origin is tuple:
        for item in value:
            _check(item, get_args(hint)[0], name)
    elif origin in (Union, types.UnionType):
        if value is not None:
            _check(value, next(one for one in get_args(hint) if one is not types.NoneType), name)
    elif origin is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{name} is none of {', '.join(map(str, get_args(hint)))}")
    elif hint in _KINDS and not _is_a(value, hint):
        raise ValueError(f"{name} is not {_KINDS[hint]}")


def _is_a(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is not float:
        return type(value) is kind
    # A whole number beyond all floats is none of ours.
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**300)
