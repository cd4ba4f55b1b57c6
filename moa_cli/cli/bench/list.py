"""`moa bench list`: the datasets, and where their files are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moa_cli.cli.options import Data, JsonArray
from moa_cli.cli.output import print_json, print_lines, print_table
from moa_cli.core.errors import BenchError, UsageError

if TYPE_CHECKING:
    from moa_cli.bench.data.datasets import KnownDataset


def list_(data: Data = None, json: JsonArray = False) -> None:
    """List the datasets, and where their files are."""
    from moa_cli.bench.data.datasets import DATASETS
    from moa_cli.bench.data.loading import data_folder
    from moa_cli.terminal.table import Column

    folder = data_folder(data)
    datasets = list(DATASETS.values())
    files = [dataset.file(folder) for dataset in datasets]
    counts = list(map(_count, datasets, files))
    if json:
        print_json(
            [
                {
                    "name": dataset.name,
                    "items": count,
                    "measures": dataset.measures,
                    "licence": dataset.licence,
                    "file": None if file is None else str(file),
                }
                for dataset, file, count in zip(datasets, files, counts, strict=True)
            ]
        )
        return
    places = [
        _missing(dataset) if file is None else str(file.relative_to(folder))
        for dataset, file in zip(datasets, files, strict=True)
    ]
    columns = [
        Column("name", [dataset.name for dataset in datasets]),
        Column("items", ["" if count is None else f"{count:,}" for count in counts], right=True),
        Column("file", places, widest=40),
        Column("licence", [dataset.licence for dataset in datasets], widest=40),
        Column("measures", [dataset.measures for dataset in datasets]),
    ]
    print_table(columns)
    print_lines([f"(in {folder})"])


def _missing(dataset: KnownDataset) -> str:
    return f"missing: moa bench fetch {dataset.name}" if dataset.fetched else "missing"


def _count(dataset: KnownDataset, file: Path | None) -> int | None:
    """How many items it has; None if there is no file, or it is wrong."""
    if file is None:
        return None
    try:
        return len(list(dataset.read(file)))
    except (BenchError, UsageError):
        return None
