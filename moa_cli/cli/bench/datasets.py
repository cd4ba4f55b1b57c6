"""`moa bench list` and `moa bench fetch`: the datasets, and where their files are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moa_cli.cli.exit_codes import INTERRUPTED, TERMINATED
from moa_cli.cli.options import Data, JsonArray
from moa_cli.cli.output import output_width, print_json, print_lines, say
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural

if TYPE_CHECKING:
    from moa_cli.bench.data.datasets import KnownDataset


def list_(data: Data = None, json: JsonArray = False) -> None:
    """List the datasets, and where their files are."""
    from moa_cli.bench.data.datasets import DATASETS
    from moa_cli.bench.data.loading import data_folder
    from moa_cli.cli.bench.cells import fitting_table
    from moa_cli.terminal.table import Column

    folder = data_folder(data)
    datasets = list(DATASETS.values())
    files = [dataset.file(folder) for dataset in datasets]
    counts = list(map(_count, datasets, files))
    if json:
        rows = zip(datasets, files, counts, strict=True)
        print_json(
            [
                {
                    "name": dataset.name,
                    "items": count,
                    "measures": dataset.measures,
                    "licence": dataset.licence,
                    "file": None if file is None else str(file),
                }
                for dataset, file, count in rows
            ]
        )
        return
    places = [str(file.relative_to(folder)) if file else "missing" for file in files]
    for number, dataset in enumerate(datasets):
        if files[number] is None and dataset.fetched:
            places[number] += f": moa bench fetch {dataset.name}"
    columns = [
        Column("name", [dataset.name for dataset in datasets]),
        Column("items", ["" if count is None else f"{count:,}" for count in counts], right=True),
        Column("file", places, widest=40),
        Column("licence", [dataset.licence for dataset in datasets], widest=40),
        Column("measures", [dataset.measures for dataset in datasets]),
    ]
    print_lines([*fitting_table(columns, output_width()), f"(in {folder})"])


def _count(dataset: KnownDataset, file: Path | None) -> int | None:
    """How many items a dataset has; None if there is no file, or it cannot be read."""
    if file is None:
        return None
    try:
        return len(list(dataset.read(file)))
    except (BenchError, UsageError):
        return None


def fetch(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="alpaca, mt, flask, arena_hard, gsm8k, or all.")
    ],
    data: Data = None,
) -> None:
    """Fetch a public dataset at a fixed commit: only files that are missing, each verified."""
    import asyncio

    from moa_cli.bench.data.fetching import names_of
    from moa_cli.bench.data.loading import data_folder

    names = names_of(name)
    folder = data_folder(data)
    try:
        asyncio.run(_fetch(names, folder))
    except KeyboardInterrupt:
        say("interrupted; run the same command again to fetch what is missing")
        raise typer.Exit(INTERRUPTED) from None
    except asyncio.CancelledError:
        raise typer.Exit(TERMINATED) from None


async def _fetch(names: tuple[str, ...], folder: Path) -> None:
    from moa_cli.bench.data.datasets import DATASETS
    from moa_cli.bench.data.fetching import fetch
    from moa_cli.clients.download import download
    from moa_cli.terminal.tty import cancel_on_termination

    cancel_on_termination()
    place = one_line(str(folder))
    for name in names:
        fetched = await fetch(name, folder, download, say)
        files = plural(len(DATASETS[name].fetched), "file")
        print_lines(
            [
                f"{name}: {files} in {place}, {fetched} fetched",
                f"{name}: licence: {DATASETS[name].licence}",
            ]
        )
