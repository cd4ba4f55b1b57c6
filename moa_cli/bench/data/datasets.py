"""The datasets that are known by name, in their upstreams' own files, and a user's own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moa_cli.bench.data.items import Item, Row, read_own, rows_of_json, rows_of_lines
from moa_cli.bench.data.sources import SOURCES
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.file_names import why_unfit
from moa_cli.core.text import nearest

__all__ = ["DATASETS", "Dataset", "Known", "data_file", "data_folder", "dataset_of", "load_dataset"]

_VARIABLE = "MOA_BENCH_DATA"


@dataclass(frozen=True)
class Known:
    """A dataset that is known by name.

    measures: in one line. licence: of its data. files: below the data folder, the first that is
    there is taken.
    """

    name: str
    measures: str
    licence: str
    files: tuple[str, ...]
    read: Callable[[Path], Iterator[Item]]

    def file(self, folder: Path) -> Path | None:
        """Its file in the data folder, if it is there."""
        return next((folder / one for one in self.files if paths.is_file(folder / one)), None)

    def remedy(self) -> str:
        """What gets its file."""
        return f"`moa bench fetch {self.name}` gets it" if self.name in SOURCES else "put it there"


@dataclass(frozen=True)
class Dataset:
    """What a run asks. name: of a known one, or the stem of the user's file.

    known: whether it is one by name. file: as given or found. sha256: of the file's bytes.
    """

    name: str
    known: bool
    file: Path
    sha256: str
    items: tuple[Item, ...]


def data_folder(given: Path | None) -> Path:
    """Where data is looked for. given: what was typed, before MOA_BENCH_DATA and the cache."""
    if given is not None:
        return given
    named = os.environ.get(_VARIABLE)
    return paths.expand(named) if named else paths.cache_dir() / "bench"


def load_dataset(name: str, folder: Path) -> Dataset:
    """The dataset of that name, or in the user's file of that path (it ends in `.jsonl`).

    Raises BenchError if a file is missing or wrong, UsageError for an unknown name.
    """
    if name.endswith((".jsonl", ".json")) or os.sep in name:
        path = paths.expand(name)
        if not paths.is_file(path):
            raise BenchError(f"{path}: no such file")
        unfit = why_unfit(path.stem)
        if unfit:
            # A run's folder and its exports are called by the dataset.
            raise UsageError(f"{path}: {unfit}", hint="rename the file")
        return _loaded(path.stem, path, map(read_own, rows_of_lines(path)), known=False)
    if name not in DATASETS:
        near = nearest(name, DATASETS)
        hint = f"did you mean `{near}`?" if near else f"known: {', '.join(DATASETS)}, FILE.jsonl"
        raise UsageError(f"there is no dataset `{name}`", hint=hint)
    one = DATASETS[name]
    file = one.file(folder)
    if file is None:
        raise BenchError(
            f"{folder / one.files[0]}: no such file",
            hint=f"{one.remedy()}; --data names another folder",
        )
    return _loaded(name, file, one.read(file), known=True)


def dataset_of(settings: Mapping[str, Any], given: Path | None = None) -> Dataset:
    """What a run asked, from what its run.json says.

    given: the data folder, or the user's own file, where that has been moved since.
    Raises BenchError if the file is missing, or not what the run read.
    """
    told = settings["dataset"]
    name, source = told["name"], Path(settings.get("source") or told["file"])
    if not told["known"]:
        moved = given if given is not None and paths.is_file(given) else None
        found = load_dataset(str(moved or source), data_folder(None))
    elif given is None and paths.is_file(source):
        found = _loaded(name, source, DATASETS[name].read(source), known=True)
    else:
        found = load_dataset(name, data_folder(given))
    if found.sha256 != told["sha256"]:
        raise BenchError(f"{found.file}: has changed since the run", hint="--data names another")
    return found


def data_file(settings: Mapping[str, Any], given: Path | None, *names: str) -> Path | None:
    """The first of these files that is there: in the data folder, or in the one that the run's
    dataset came from.

    settings: what the run's run.json says. given: see `data_folder`.
    """
    folders = [data_folder(given)]
    if settings["dataset"]["known"] and "source" in settings:
        folders.append(Path(settings["source"]).parent.parent)
    places = (folder / name for folder in folders for name in names)
    return next((one for one in places if paths.is_file(one)), None)


def _loaded(name: str, path: Path, read: Iterator[Item], *, known: bool) -> Dataset:
    items = tuple(read)
    if not items:
        raise BenchError(f"{path}: holds no items")
    seen: set[str] = set()
    for one in items:
        if one.id in seen:
            raise BenchError(f"{path}: two items have the id {one.id}")
        seen.add(one.id)
    return Dataset(name, known, path, hashlib.sha256(path.read_bytes()).hexdigest(), items)


def _alpaca(path: Path) -> Iterator[Item]:
    for row in rows_of_json(path):
        yield Item(
            # The place in upstream's order, which is how its own files name an item.
            id=row.optional("index") or str(row.number - 1),
            turns=(row.text("instruction"),),
            category=row.optional("dataset"),
            fields=row.fields,
        )


def _mt(path: Path) -> Iterator[Item]:
    for row in rows_of_lines(path):
        turns = row.fields.get("turns")
        if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
            raise BenchError(f"{row.place}: `turns` is no list of texts")
        yield Item(
            id=_id(row, "question_id"),
            turns=tuple(turns),
            category=row.text("category"),
            fields=row.fields,
        )


def _flask(path: Path) -> Iterator[Item]:
    for row in rows_of_lines(path):
        yield Item(
            id=_id(row, "idx"),
            turns=(row.text("instruction", "text"),),
            category=row.optional("task"),
            answer=row.optional("answer"),
            fields=row.fields,
        )


def _gsm8k(path: Path) -> Iterator[Item]:
    for row in rows_of_lines(path):
        worked, mark, final = row.text("answer").rpartition("####")
        yield Item(
            id=row.optional("index") or str(row.number - 1),
            turns=(row.text("question"),),
            answer=final.strip() if mark else worked,
            fields=row.fields,
        )


def _math(path: Path) -> Iterator[Item]:
    for row in rows_of_lines(path):
        yield Item(
            id=row.optional("unique_id") or str(row.number - 1),
            turns=(row.text("problem"),),
            category=row.optional("type"),
            answer=row.text("solution"),
            fields=row.fields,
        )


def _id(row: Row, name: str) -> str:
    found = row.optional(name)
    if found is None:
        raise BenchError(f"{row.place}: `{name}` is missing")
    return found


DATASETS = {
    one.name: one
    for one in (
        Known(
            "alpaca",
            "AlpacaEval 2: open instructions, pairwise against a reference's answers",
            "CC BY-NC 4.0, not for commercial use",
            ("alpaca_eval/instructions.json", "alpaca_eval/model_outputs.json"),
            _alpaca,
        ),
        Known(
            "mt",
            "MT-Bench: conversations of two turns in 8 categories, rated from 1 to 10",
            "Apache-2.0",
            ("mt_bench/question.jsonl",),
            _mt,
        ),
        Known(
            "flask",
            "FLASK: 12 skills, rated from 1 to 5",
            "none told by upstream",
            ("flask/flask_evaluation.jsonl", "flask/slice60.jsonl"),
            _flask,
        ),
        Known(
            "gsm8k",
            "GSM8K: grade-school arithmetic with known answers",
            "MIT",
            ("gsm8k/test.jsonl", "gsm8k/slice50.jsonl"),
            _gsm8k,
        ),
        Known(
            "math",
            "MATH: competition problems with known answers",
            "MIT, but disputed",
            ("math/test.jsonl",),
            _math,
        ),
    )
}
