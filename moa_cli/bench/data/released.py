"""Released answers of other models, in the formats of the three evaluations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moa_cli.bench.data.items import DataRow, Item, rows_of_json, rows_of_lines
from moa_cli.core.errors import BenchError


@dataclass(frozen=True)
class Released:
    """One author's answers. name: the author's. replies: by item id, one a turn.

    file, sha256: where they were read.
    """

    name: str
    replies: Mapping[str, tuple[str, ...]]
    file: str
    sha256: str


@dataclass(frozen=True)
class AnswerFile:
    """A file of answers. name: who gave them, None if it does not say so. replies: one a turn, by
    what the format knows a question by."""

    name: str | None
    replies: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class AnswerFormat:
    """How an evaluation writes answers down. key: what it knows an item by."""

    read: Callable[[Path], AnswerFile]
    key: Callable[[Item], str] = lambda item: item.id


def read_released(path: Path, form: AnswerFormat, items: Sequence[Item]) -> Released:
    """The answers in a file to these items; not all of them need be there.

    Raises BenchError if it cannot be read, or answers none of the items.
    """
    file = form.read(path)
    replies = {
        item.id: file.replies[form.key(item)] for item in items if form.key(item) in file.replies
    }
    if not replies:
        raise BenchError(f"{path}: answers none of the run's items")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Released(_author(file, path), replies, path.name, sha256)


def read_outputs(paths: Sequence[Path], items: Sequence[Item]) -> dict[str, dict[str, str]]:
    """The answers in each file of model outputs, by the author's name and item id; found by the
    item's instruction, as the authors' scripts do.

    Raises BenchError if a file cannot be read, or lacks an answer to an item.
    """
    found: dict[str, dict[str, str]] = {}
    for path in paths:
        file = _alpaca(path, DataRow.text)
        by_item = {}
        for item in items:
            if len(item.turns) > 1:
                raise BenchError(f"{path}: item {item.id} has several turns; this format holds one")
            if item.turns[0] not in file.replies:
                raise BenchError(f"{path}: has no answer to item {item.id}")
            [by_item[item.id]] = file.replies[item.turns[0]]
        name = _author(file, path)
        while name in found:
            name += "'"
        found[name] = by_item
    return found


def _author(file: AnswerFile, path: Path) -> str:
    return "".join((file.name or path.stem).split())


def _text(row: DataRow, name: str) -> str:
    """An answer, which may be empty."""
    found = row.fields.get(name)
    if not isinstance(found, str):
        raise BenchError(f"{row.place}: `{name}` is missing or is not text")
    return found


def _alpaca(path: Path, text: Callable[[DataRow, str], str] = _text) -> AnswerFile:
    name: str | None = None
    answers: dict[str, tuple[str, ...]] = {}
    for row in rows_of_json(path):
        answers[row.text("instruction")] = (text(row, "output"),)
        name = row.optional("generator") or name
    return AnswerFile(name, answers)


def _fastchat(path: Path) -> AnswerFile:
    name: str | None = None
    answers: dict[str, tuple[str, ...]] = {}
    for row in rows_of_lines(path):
        try:
            turns = tuple(row.fields["choices"][0]["turns"])
        except (LookupError, TypeError):
            turns = (None,)
        if not all(isinstance(turn, str) for turn in turns):
            raise BenchError(f"{row.place}: is not an answer in FastChat's format")
        answers[row.optional("question_id") or ""] = turns
        name = row.optional("model_id") or name
    return AnswerFile(name, answers)


def _flask(path: Path) -> AnswerFile:
    rows = list(rows_of_lines(path))
    return AnswerFile(
        None, {row.optional("question_id") or "": (_text(row, "text"),) for row in rows}
    )


MODEL_OUTPUTS = AnswerFormat(_alpaca, lambda item: item.turns[0])
FASTCHAT = AnswerFormat(_fastchat)
FLASK = AnswerFormat(_flask)
