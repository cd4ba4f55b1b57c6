"""What `moa bench list` does."""

from __future__ import annotations

import sys
from pathlib import Path

from moa_cli.bench.data.datasets import DATASETS, KnownDataset
from moa_cli.bench.data.items import Item
from moa_cli.bench.data.loading import data_folder
from moa_cli.core.errors import BenchError, UsageError

__all__ = ["run"]


def run(data: Path | None, *, json: bool) -> None:
    """Print the datasets, and where their files are."""
    folder = data_folder(data)
    rows = [(one, one.file(folder)) for one in DATASETS.values()]
    if json:
        from moa_cli.core.text import dumps

        values = [
            {
                "name": one.name,
                "items": _count(one, file),
                "measures": one.measures,
                "licence": one.licence,
                "file": None if file is None else str(file),
            }
            for one, file in rows
        ]
        sys.stdout.write(dumps(values, indent=2) + "\n")
        return
    from moa_cli.terminal.screen import terminal_size
    from moa_cli.terminal.table import Column, table_lines

    counts = [_count(one, file) for one, file in rows]
    places = [
        _missing(one) if file is None else str(file.relative_to(folder)) for one, file in rows
    ]
    columns = [
        Column("name", [one.name for one, _ in rows]),
        Column("items", ["" if count is None else f"{count:,}" for count in counts], right=True),
        Column("file", places, widest=40),
        Column("licence", [one.licence for one, _ in rows], widest=40),
        Column("measures", [one.measures for one, _ in rows]),
    ]
    width = terminal_size(sys.stdout)[0] if sys.stdout.isatty() else 1000
    sys.stdout.write("".join(f"{line}\n" for line in table_lines(columns, width)))
    sys.stdout.write(f"(in {folder})\n")


def _missing(dataset: KnownDataset) -> str:
    return f"missing: moa bench fetch {dataset.name}" if dataset.fetched else "missing"


def _count(dataset: KnownDataset, file: Path | None) -> int | None:
    """How many items it has; None if there is no file, or it is wrong."""
    if file is None:
        return None
    try:
        found: list[Item] = list(dataset.read(file))
    except (BenchError, UsageError):
        return None
    return len(found)
