"""`moa bench fetch`: a public dataset at a fixed commit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moa_cli.cli.exit_codes import INTERRUPTED, TERMINATED
from moa_cli.cli.options import Data
from moa_cli.cli.output import print_lines, say
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="alpaca, mt, flask, gsm8k, or all.")],
    data: Data = None,
) -> None:
    """Fetch a public dataset at a fixed commit; only what is missing, and checked."""
    import asyncio

    from moa_cli.bench.data.fetching import names_of
    from moa_cli.bench.data.loading import data_folder

    names = names_of(name)
    folder = data_folder(data)
    try:
        asyncio.run(_fetch(names, folder))
    except KeyboardInterrupt:
        say("interrupted; the same command fetches what is missing")
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
                f"{name}: {files} in {place}, {fetched} fetched now",
                f"{name}: licence: {DATASETS[name].licence}",
            ]
        )
