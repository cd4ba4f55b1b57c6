"""Released answers of other models, in the formats of the published evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from moa_cli.bench.data.items import DataRow, Item, rows_of_json, rows_of_lines, sha256_of
from moa_cli.core.errors import BenchError


@dataclass(frozen=True)
class ReleasedDigest:
    """A file of released outputs. name: the name of their author, which is usually a model."""

    name: str
    file: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Released:
    """One author's answers. replies: by item id, one for each turn."""

    digest: ReleasedDigest
    replies: Mapping[str, tuple[str, ...]]


# Each answer in a file, as three values: its author, if known; the key by which the format names
# the question; and the replies, one for each turn.
AnswerRows = Iterator[tuple[str | None, str, tuple[str, ...]]]


@dataclass(frozen=True)
class AnswerFormat:
    """The format of an evaluation's answers. rows: reads a file. key: gives the key by which the
    format names an item."""

    rows: Callable[[Path], AnswerRows]
    key: Callable[[Item], str] = lambda item: item.id

    def read(self, path: Path) -> tuple[str, dict[str, tuple[str, ...]]]:
        """The author's name (the file's, if there is none) and the replies by the format's keys."""
        name, replies = path.stem, {}
        for author, key, turns in self.rows(path):
            name, replies[key] = author or name, turns
        return "".join(name.split()), replies


def read_released(path: Path, form: AnswerFormat, items: Sequence[Item]) -> Released:
    """The answers in a file to these items. Some answers may be missing.

    Raises BenchError if the file cannot be read, or answers none of the items.
    """
    name, found = form.read(path)
    replies = {item.id: found[form.key(item)] for item in items if form.key(item) in found}
    if not replies:
        raise BenchError(f"{path}: answers none of the run's items")
    return Released(ReleasedDigest(name, path.name, sha256_of(path)), replies)


def read_outputs(paths: Sequence[Path], items: Sequence[Item]) -> dict[str, dict[str, str]]:
    """The answers in each file of model outputs, by the author's name and the item's id. Answers
    are matched by the item's instruction, as the MoA authors' scripts do.

    Raises BenchError if a file cannot be read, or lacks an answer to an item.
    """
    found: dict[str, dict[str, str]] = {}
    for path in paths:
        name, replies = AnswerFormat(partial(_alpaca, text=DataRow.text)).read(path)
        by_item = {}
        for item in items:
            if len(item.turns) > 1:
                raise BenchError(f"{path}: item {item.id} has several turns; this format holds one")
            if item.turns[0] not in replies:
                raise BenchError(f"{path}: has no answer to item {item.id}")
            [by_item[item.id]] = replies[item.turns[0]]
        while name in found:
            name += "'"
        found[name] = by_item
    return found


def _text(row: DataRow, name: str) -> str:
    """An answer, which may be empty."""
    found = row.fields.get(name)
    if not isinstance(found, str):
        raise BenchError(f"{row.place}: `{name}` is missing or is not text")
    return found


def _alpaca(path: Path, text: Callable[[DataRow, str], str] = _text) -> AnswerRows:
    for row in rows_of_json(path):
        yield row.optional("generator"), row.text("instruction"), (text(row, "output"),)


def _fastchat(path: Path) -> AnswerRows:
    for row in rows_of_lines(path):
        try:
            turns = tuple(row.fields["choices"][0]["turns"])
        except (LookupError, TypeError):
            turns = (None,)
        if not all(isinstance(turn, str) for turn in turns):
            raise BenchError(f"{row.place}: is not an answer in FastChat's format")
        yield row.optional("model_id"), row.optional("question_id") or "", turns


def _flask(path: Path) -> AnswerRows:
    for row in rows_of_lines(path):
        yield None, row.optional("question_id") or "", (_text(row, "text"),)


def _arena(path: Path) -> AnswerRows:
    """Reads both the present and the former format of Arena-Hard's repository."""
    for row in rows_of_lines(path):
        try:
            if "messages" in row.fields:
                said = row.fields["messages"][-1]["content"]
                reply = said if isinstance(said, str) else said["answer"]
            else:
                reply = row.fields["choices"][0]["turns"][0]["content"]
        except (LookupError, TypeError):
            reply = None
        if not isinstance(reply, str):
            raise BenchError(f"{row.place}: is not an answer in Arena-Hard's format")
        author = row.optional("model") or row.optional("model_id")
        yield author, row.optional("uid") or row.optional("question_id") or "", (reply,)


MODEL_OUTPUTS = AnswerFormat(_alpaca, lambda item: item.turns[0])
FASTCHAT = AnswerFormat(_fastchat)
FLASK = AnswerFormat(_flask)
ARENA_ANSWERS = AnswerFormat(_arena)
