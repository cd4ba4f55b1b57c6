"""Released answers of other models, as AlpacaEval's `model_outputs.json` holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moa_cli.bench.data.items import Item, rows_of_json
from moa_cli.core.errors import BenchError

__all__ = ["Outputs", "read_outputs"]


@dataclass(frozen=True)
class Outputs:
    """name: the author's. answers: by item id."""

    name: str
    answers: dict[str, str]


def read_outputs(paths: Sequence[Path], items: Sequence[Item]) -> list[Outputs]:
    """The answers in each file, found by the item's instruction, as the authors' scripts do.

    Raises BenchError if a file cannot be read, or lacks an answer to an item.
    """
    found: list[Outputs] = []
    for path in paths:
        answers, name = _read(path)
        by_item = {}
        for item in items:
            if len(item.turns) > 1:
                raise BenchError(f"{path}: item {item.id} has several turns, and no such answers")
            if item.turns[0] not in answers:
                raise BenchError(f"{path}: has no answer to item {item.id}")
            by_item[item.id] = answers[item.turns[0]]
        taken = [one.name for one in found]
        while name in taken:
            name += "'"
        found.append(Outputs(name, by_item))
    return found


def _read(path: Path) -> tuple[dict[str, str], str]:
    """The answers by instruction, and who gave them."""
    answers: dict[str, str] = {}
    name = path.stem
    for row in rows_of_json(path):
        answers[row.text("instruction")] = row.text("output")
        name = row.optional("generator") or name
    return answers, "".join(name.split())
