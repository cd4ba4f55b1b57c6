"""Released answers of other models, in the formats of the three evaluations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moa_cli.bench.data.items import Item, Row, rows_of_json, rows_of_lines
from moa_cli.bench.run.results import Result
from moa_cli.core.errors import BenchError

__all__ = ["Released", "fastchat_answers", "read_released"]


@dataclass(frozen=True)
class Released:
    """One author's answers. name: the author's. replies: by item id, one a turn.

    file, sha256: where they were read.
    """

    name: str
    replies: Mapping[str, tuple[str, ...]]
    file: str
    sha256: str

    def told(self) -> dict[str, Any]:
        """Where they come from, as JSON values."""
        return {"name": self.name, "file": self.file, "sha256": self.sha256}

    def results(self, arm: str, items: Sequence[Item]) -> list[Result]:
        """They as results of that arm, in the order of the items."""
        return [
            Result(arm, one.id, one.category, self.replies[one.id])
            for one in items
            if one.id in self.replies
        ]


def read_released(path: Path, kind: str, items: Sequence[Item]) -> Released:
    """The answers in a file to these items; not all of them need be there.

    kind: "pairwise" reads AlpacaEval's `model_outputs.json` (found by instruction), "rating"
    FastChat's answers, "skills" FLASK's (both found by question).
    Raises BenchError if it cannot be read, or answers none of the items.
    """
    name, answers = _READERS[kind](path)
    key: Callable[[Item], str] = (lambda one: one.turns[0]) if kind == "pairwise" else _id
    replies = {one.id: answers[key(one)] for one in items if key(one) in answers}
    if not replies:
        raise BenchError(f"{path}: answers none of the run's items")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Released("".join((name or path.stem).split()), replies, path.name, sha256)


def _id(item: Item) -> str:
    return item.id


_Answers = tuple[str | None, dict[str, tuple[str, ...]]]


def _alpaca(path: Path) -> _Answers:
    name: str | None = None
    answers: dict[str, tuple[str, ...]] = {}
    for row in rows_of_json(path):
        answers[row.text("instruction")] = (_text(row, "output"),)
        name = row.optional("generator") or name
    return name, answers


def fastchat_answers(path: Path) -> _Answers:
    """Who answered, and the turns by question id. Raises BenchError if it is no such file."""
    name, answers = None, {}
    for row in rows_of_lines(path):
        try:
            turns = tuple(row.fields["choices"][0]["turns"])
        except (LookupError, TypeError):
            turns = (None,)
        if not all(isinstance(one, str) for one in turns):
            raise BenchError(f"{row.place}: is no answer as FastChat writes it")
        answers[row.optional("question_id") or ""] = turns
        name = row.optional("model_id") or name
    return name, answers


def _flask(path: Path) -> _Answers:
    answers: dict[str, tuple[str, ...]] = {}
    for row in rows_of_lines(path):
        answers[row.optional("question_id") or ""] = (_text(row, "text"),)
    return None, answers


def _text(row: Row, name: str) -> str:
    """An answer, which may be empty."""
    found = row.fields.get(name)
    if not isinstance(found, str):
        raise BenchError(f"{row.place}: `{name}` is missing, or no text")
    return found


_READERS: Mapping[str, Callable[[Path], _Answers]] = {
    "pairwise": _alpaca,
    "rating": fastchat_answers,
    "skills": _flask,
}
