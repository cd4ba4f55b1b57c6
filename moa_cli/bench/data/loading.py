"""A dataset with its items: a known one from the data folder, or a user's own file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moa_cli.bench.data.datasets import DATASETS
from moa_cli.bench.data.items import Item, read_own, rows_of_lines, sha256_of
from moa_cli.bench.data.tables import rows_of_table
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.files.new_file import why_unfit
from moa_cli.core.text import meant

_TABLES = (".csv", ".tsv")


@dataclass(frozen=True)
class DatasetSettings:
    """A dataset as run.json records it.

    name: the name of a known dataset, or the stem of the user's file. known: whether it is a known
    dataset. file: the file's name. sha256: the hash of its bytes. items: how many items it has.
    """

    name: str
    known: bool
    file: str
    sha256: str
    items: int


@dataclass(frozen=True)
class Dataset:
    """A dataset with its items. file: the user's, or the one found in the data folder."""

    settings: DatasetSettings
    file: Path
    items: tuple[Item, ...]


def data_folder(given: Path | None) -> Path:
    """The data folder: the given one, else MOA_BENCH_DATA, else one in the cache folder."""
    if given is not None:
        return given
    named = os.environ.get("MOA_BENCH_DATA")
    return paths.expand(named) if named else paths.cache_dir() / "bench"


def load_dataset(name: str, folder: Path) -> Dataset:
    """The dataset with that name or, if it is a path or ends as files with items do, the user's own
    file.

    folder: the data folder. Raises BenchError if a file is missing or wrong, UsageError if there
    is no dataset with that name.
    """
    is_table = name.lower().endswith(_TABLES)
    if is_table or name.lower().endswith((".jsonl", ".ndjson", ".json")) or os.sep in name:
        path = paths.expand(name)
        if not paths.is_file(path):
            raise BenchError(f"{path}: no such file")
        unfit = why_unfit(path.stem)
        if unfit:
            # The dataset's name becomes part of the names of a run's folder and exports.
            raise UsageError(f"{path}: {unfit}", hint="rename the file")
        rows = rows_of_table(path) if is_table else rows_of_lines(path)
        return _loaded(path.stem, path, map(read_own, rows), known=False)
    if name not in DATASETS:
        hint = meant(name, DATASETS, f"known: {', '.join(DATASETS)}, FILE.jsonl, FILE.csv")
        raise UsageError(f"there is no dataset `{name}`", hint=hint)
    known = DATASETS[name]
    file = known.file(folder)
    if file is None:
        remedy = f"`moa bench fetch {name}` gets it" if known.fetched else "put it there"
        hint = f"{remedy}; --data names another folder"
        raise BenchError(f"{folder / known.files[0]}: no such file", hint=hint)
    return _loaded(name, file, known.read(file), known=True)


def dataset_of(told: DatasetSettings, source: str | None, given: Path | None = None) -> Dataset:
    """The dataset that a run asked.

    told: the dataset as run.json records it. source: the file that the run read. given: the data
    folder or the user's own file, if that was moved since. Lines that were added to the user's own
    file are left out. Raises BenchError if the file is missing or has changed, UsageError if there
    is no dataset with that name, or its file is not text.
    """
    file = Path(source or told.file)
    if not told.known:
        moved = given if given is not None and paths.is_file(given) else None
        found = load_dataset(str(moved or file), data_folder(None))
    elif given is None and told.name in DATASETS and paths.is_file(file):
        found = _loaded(told.name, file, DATASETS[told.name].read(file), known=True)
    else:
        found = load_dataset(told.name, data_folder(given))
    if found.settings.sha256 != told.sha256:
        if is_continued(told, found.file):
            return Dataset(told, found.file, found.items[: told.items])
        raise BenchError(f"{found.file}: has changed since the run", hint="--data names another")
    return found


def is_continued(told: DatasetSettings, file: Path) -> bool:
    """Whether lines were added to the user's own file, or all its line ends were changed, as Git
    and editors do, and nothing else was changed in it.

    told: the dataset when the run read it. file: the present file. Raises OSError.
    """
    if told.known:
        return False
    data = paths.read_bytes(file)
    feeds = data.replace(b"\r\n", b"\n")
    forms = (data, feeds, feeds.replace(b"\n", b"\r\n"))
    return any(_begins(form, told.sha256) for form in dict.fromkeys(forms))


def _begins(data: bytes, sha256: str) -> bool:
    """Whether the first lines have that hash."""
    digest = hashlib.sha256()
    for line in data.splitlines(keepends=True):
        # The old file may have ended here without a line end, so both forms are compared.
        bare = digest.copy()
        bare.update(line.rstrip(b"\r\n"))
        digest.update(line)
        if sha256 in (digest.hexdigest(), bare.hexdigest()):
            return True
    return False


def _loaded(name: str, path: Path, read: Iterator[Item], *, known: bool) -> Dataset:
    items = tuple(read)
    if not items:
        raise BenchError(f"{path}: holds no items")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise BenchError(f"{path}: two items have the id {item.id}")
        seen.add(item.id)
    settings = DatasetSettings(name, known, path.name, sha256_of(path), len(items))
    return Dataset(settings, path, items)
