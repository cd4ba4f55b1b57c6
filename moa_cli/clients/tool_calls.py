"""Reads tool calls in the forms that providers use; returns pieces that each name their call.

By OpenAI's rules each piece has the index of its call, and the first piece of a call has an id. In
practice, endpoints leave out the index (Mistral, Cohere's layer), give every call the index 0
(Gemini, Ollama), repeat id and name with each piece, leave out the id or give two calls the same
one (models on local servers), and write arguments as an object instead of text. If two calls are
read as one, the arguments are malformed; if one call is read as two, each has half of the
arguments.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moa_cli.core.text import WholeCharacters, is_json
from moa_cli.core.tools import ToolKind, ToolPiece


@dataclass
class _Begun:
    """A call that has begun. told: the id that the endpoint sent; empty if it sent none."""

    number: int
    told: str
    name: str
    written: str = ""
    characters: WholeCharacters = field(default_factory=WholeCharacters)

    @property
    def whole(self) -> bool:
        """Whether the arguments are complete."""
        return is_json(self.written)


class ToolCallReader:
    """Reads the calls of one answer; numbers them in the order in which they begin."""

    def __init__(self) -> None:
        # By the endpoint's index: the latest call with this index.
        self._at: dict[int, _Begun] = {}
        self._last: _Begun | None = None
        self._begun: list[_Begun] = []
        self._ids: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._begun)

    def read(self, body: Mapping[str, Any], *, whole: bool = False) -> tuple[ToolPiece, ...]:
        """The pieces in a delta or a message; an entry without the shape of a call is ignored.

        whole: whether each entry is a call of its own.
        """
        calls: object = body.get("tool_calls")
        if isinstance(calls, Mapping):
            calls = [calls]
        if not calls and isinstance(body.get("function_call"), Mapping):
            # OpenAI's form before there were tools; older servers still use it.
            calls = [{"index": 0, "function": body["function_call"]}]
        listed = calls if isinstance(calls, list) else []
        rows = [call for call in listed if isinstance(call, Mapping)]
        # Several entries without an index in one piece are several calls.
        own = whole or (len(rows) > 1 and not any(_index(row) is not None for row in rows))
        return tuple(piece for row in rows if (piece := self._piece(row, own=own)) is not None)

    def _piece(self, row: Mapping[str, Any], *, own: bool) -> ToolPiece | None:
        """The piece in an entry; None if the entry is empty or repeats a call. own: whether the
        entry begins a call of its own."""
        kind: ToolKind = "custom" if isinstance(row.get("custom"), Mapping) else "function"
        inner = row.get(kind)
        inner = inner if isinstance(inner, Mapping) else {}
        told, name = _text(row.get("id")), _text(inner.get("name"))
        written = inner.get("input" if kind == "custom" else "arguments")
        text = written if isinstance(written, str) else ""
        if isinstance(written, Mapping | list):
            # Ollama's own form: a JSON object instead of JSON text.
            text = json.dumps(written)
        if not (told or name or text):
            return None
        index = _index(row)
        call = None if own else self._before(index, told)
        if call is not None and not _begins_another(call, told, name, text):
            if told and text and text == call.written and call.whole:
                # The endpoint repeats the whole call at the end.
                return None
            # The id was sent with the first piece of the call, and usually the name, too.
            late, call.name = ("" if call.name else name), call.name or name
            text = call.characters.take(text)
            call.written += text
            self._last = call
            return ToolPiece(call.number, name=late, arguments=text, kind=kind)
        call = self._last = _Begun(len(self._begun), told, name)
        call.written = text = call.characters.take(text)
        self._begun.append(call)
        if index is not None:
            self._at[index] = call
        return ToolPiece(call.number, self._unique(told), name, text, kind)

    def _before(self, index: int | None, told: str) -> _Begun | None:
        """The call that a piece of this index and id seems to continue; None if there is no such
        call."""
        if index is not None:
            return self._at.get(index)
        if told:
            return next((call for call in reversed(self._begun) if call.told == told), None)
        return self._last

    def _unique(self, told: str) -> str:
        """An id that no other call of the answer has, because results are matched by id."""
        if not told or told in self._ids:
            told = f"call_{uuid.uuid4().hex[:24]}"
        self._ids.add(told)
        return told


def _begins_another(call: _Begun, told: str, name: str, text: str) -> bool:
    """Whether a piece begins another call than the one that its index or its id names."""
    if told and call.told and told != call.told:
        # Gemini's form of several calls: each is complete and has an id of its own.
        return True
    if not name or not call.name:
        return False
    if name != call.name:
        return not (told and call.told)
    # A repeated name belongs to the same call until its arguments are complete.
    return text.lstrip()[:1] == "{" and text != call.written and call.whole


def _index(row: Mapping[str, Any]) -> int | None:
    index = row.get("index")
    return index if type(index) is int else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value) if type(value) is int else ""
