"""The items of an evaluation, and how they are read from files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from moa_cli.core.conversation import Conversation, Message, Part
from moa_cli.core.errors import BenchError
from moa_cli.core.files.text import lines_of, read_bytes, text_of


@dataclass(frozen=True)
class Item:
    """One item of a dataset.

    id: unique in its dataset, and stable. turns: the user's messages, one for each turn.
    before: messages that precede the first turn. answer: the right answer as in the dataset.
    fields: the unchanged row of the file. parts: all parts of the first message, if there are any
    besides text. speaker: the name of the first message's author. epoch: the epoch that the item
    is asked in, from 1 (see `data.epochs`).
    """

    id: str
    turns: tuple[str, ...]
    category: str | None = None
    answer: str | None = None
    before: tuple[Message, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    parts: tuple[Part, ...] = field(default=(), repr=False)
    speaker: str = ""
    epoch: int = 1

    def ask(self, conversation: Conversation, turn: int) -> Conversation:
        """The conversation with the message of that turn (from 0) added as its open turn."""
        if turn or not (self.parts or self.speaker):
            return conversation.ask(self.turns[turn])
        asked = conversation.ask(self.turns[0], self.parts)
        *before, last = asked.turns
        return replace(asked, turns=(*before, replace(last, speaker=self.speaker)))


@dataclass(frozen=True)
class DataRow:
    """A row of a file. place: file and line (or number of the row), for messages."""

    place: str
    number: int
    fields: Mapping[str, Any]

    def text(self, *names: str) -> str:
        """The text in the first of these fields that exists. Raises BenchError if there is none."""
        found = next((self.fields[name] for name in names if name in self.fields), None)
        if isinstance(found, str) and found.strip():
            return found
        wanted = " or ".join(f"`{name}`" for name in names)
        raise BenchError(f"{self.place}: {wanted} is missing or is not text")

    def optional(self, name: str) -> str | None:
        """The text or number in that field, as text; None if there is none."""
        found = self.fields.get(name)
        if isinstance(found, str):
            return found
        if isinstance(found, int | float) and not isinstance(found, bool):
            return str(found)
        return None


def read_file(path: Path) -> bytes:
    """The bytes of a file. Raises BenchError, naming the file, if it cannot be read."""
    return read_bytes(path, BenchError)


def sha256_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def text_in(path: Path) -> str:
    """The text of a file, with unchanged line ends.

    Raises BenchError, naming the file, if it cannot be read, UsageError if it is not text.
    """
    return text_of(read_file(path), str(path))


def rows_of_lines(path: Path) -> Iterator[DataRow]:
    """The rows of a file that has a JSON object on each line, without empty lines, or one list of
    objects.

    Raises BenchError, naming file and line, or UsageError if the file is not text.
    """
    text = text_in(path)
    if text.lstrip().startswith("["):
        yield from _rows_of_list(text, str(path))
        return
    for number, line in enumerate(lines_of(text), 1):
        if line.strip():
            place = f"{path}:{number}"
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BenchError(f"{place}: is not JSON: {error}") from None
            yield _row(values, place, number)


def rows_of_json(path: Path) -> Iterator[DataRow]:
    """The rows of a JSON file that is one list of objects. Raises BenchError, naming the row."""
    return _rows_of_list(text_in(path), str(path))


def _rows_of_list(text: str, name: str) -> Iterator[DataRow]:
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise BenchError(f"{name}:{error.lineno}: is not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{name}:1: is not JSON: {error}") from None
    if not isinstance(table, list):
        raise BenchError(f"{name}: is not a list of objects")
    for number, row in enumerate(table, 1):
        yield _row(row, f"{name}: row {number}", number)


def _row(values: object, place: str, number: int) -> DataRow:
    if not isinstance(values, dict):
        raise BenchError(f"{place}: is not a JSON object")
    return DataRow(place, number, values)


def read_own(
    row: DataRow, read_messages: Callable[[DataRow, list[object]], list[Message]] | None = None
) -> Item:
    """An item of a user's own file. A row has `prompt`, or `messages` that end with the user's, and
    perhaps `answer`, `category` and `id`. Without `id`, the id is the number of the line.

    read_messages: reads `messages`; the default accepts only messages of text.
    Raises BenchError, naming file and line.
    """
    if row.fields.get("prompt") is None and row.fields.get("messages") is not None:
        # In a table, each row has all columns.
        messages = _messages(row, read_messages or _text_messages)
    else:
        messages = [Message("user", row.text("prompt"))]
    last = messages[-1]
    answer = row.optional("answer")
    return Item(
        id=row.optional("id") or str(row.number),
        turns=(last.content,),
        parts=last.parts,
        speaker=last.name,
        category=row.optional("category"),
        # An empty cell of a table tells nothing.
        answer=answer if answer and answer.strip() else None,
        before=tuple(messages[:-1]),
        fields=row.fields,
    )


def _messages(
    row: DataRow, read: Callable[[DataRow, list[object]], list[Message]]
) -> list[Message]:
    given = row.fields["messages"]
    if not isinstance(given, list):
        raise _no_messages(row)
    found = read(row, given)
    if not found or found[-1].role != "user" or not found[-1].content.strip():
        raise BenchError(f"{row.place}: the last of `messages` is not from the user")
    return found


def _text_messages(row: DataRow, given: list[object]) -> list[Message]:
    found = []
    for message in given:
        table = message if isinstance(message, dict) else {}
        role, content = table.get("role"), table.get("content")
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise _no_messages(row)
        found.append(Message(role, content))
    return found


def _no_messages(row: DataRow) -> BenchError:
    return BenchError(f"{row.place}: `messages` is not a list of {{role, content}}")
