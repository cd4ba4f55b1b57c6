"""What `moa bench fetch` does."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from moa_cli.bench.data.datasets import DATASETS
from moa_cli.bench.data.fetching import fetch, names_of
from moa_cli.bench.data.loading import data_folder
from moa_cli.cli.exit_codes import INTERRUPTED, TERMINATED
from moa_cli.clients.local.download import download
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import plural
from moa_cli.terminal.tty import cancel_on_termination, folded

__all__ = ["run"]


def run(name: str, data: Path | None) -> int:
    """Fetch a dataset's files, or those of all, and tell its licence; returns the exit code."""
    names = names_of(name)
    folder = data_folder(data)
    try:
        asyncio.run(_fetch(names, folder))
    except KeyboardInterrupt:
        _say("interrupted; the same command fetches what is missing")
        return INTERRUPTED
    except asyncio.CancelledError:
        return TERMINATED
    return 0


async def _fetch(names: tuple[str, ...], folder: Path) -> None:
    cancel_on_termination()
    for name in names:
        fetched = await fetch(name, folder, download, _say)
        files = plural(len(DATASETS[name].fetched), "file")
        place = one_line(str(folder))
        sys.stdout.write(f"{name}: {files} in {place}, {fetched} fetched now\n")
        sys.stdout.write(f"{name}: licence: {DATASETS[name].licence}\n")
        sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(folded(f"moa: {one_line(text)}", sys.stderr) + "\n")
    sys.stderr.flush()
