"""Bringing public datasets into the data folder, each file whole and checked, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from moa_cli.bench.data.sources import SOURCES, Source, address_of
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text import nearest

__all__ = ["ALL", "fetch", "names_of"]

ALL = "all"
# Far more than the largest of the files.
_MOST_BYTES = 64 << 20


def names_of(typed: str) -> tuple[str, ...]:
    """The datasets that are meant: one, or `all`. Raises UsageError for what cannot be fetched."""
    if typed == ALL:
        return tuple(SOURCES)
    if typed in SOURCES:
        return (typed,)
    if typed == "math":
        raise UsageError(
            "math is not fetched: its redistribution is disputed",
            hint="put its test.jsonl into the folder `math` of the data folder",
        )
    near = nearest(typed, [*SOURCES, ALL])
    hint = f"did you mean `{near}`?" if near else f"there are {', '.join([*SOURCES, ALL])}"
    raise UsageError(f"there is no dataset `{typed}` to fetch", hint=hint)


async def fetch(
    name: str,
    folder: Path,
    download: Callable[[str], AsyncIterator[bytes]],
    say: Callable[[str], None],
) -> int:
    """Fetch what is missing of a dataset's files; returns how many files that were.

    folder: the data folder. download: the bytes at an address; raises ClientError. say: told of
    each file. Raises BenchError if a file is not the published one, OSError if the folder cannot
    be written. Nothing is written of a file that is not whole.
    """
    sources = SOURCES[name]
    fetched = 0
    for number, source in enumerate(sources, 1):
        path, place = folder / source.file, f"{name}, {number} of {len(sources)}: {source.file}"
        unchecked = "" if source.sha256 else ", not checked (no published hash)"
        if _is_there(path, source):
            say(f"{place} is there{unchecked}")
            continue
        address = address_of(source)
        say(f"{place} from {address}{unchecked}")
        data = bytearray()
        async for chunk in download(address):
            data += chunk
            if len(data) > _MOST_BYTES:
                raise BenchError(f"{address}: is longer than any of the files", hint=_NOTHING_KEPT)
        wrong = _wrong(data, source)
        if wrong:
            raise BenchError(f"{address}: is not the published file: {wrong}", hint=_NOTHING_KEPT)
        paths.make_private(path.parent)
        with paths.replacing(path) as file:
            file.write(data)
        fetched += 1
    return fetched


_NOTHING_KEPT = "nothing of it was kept"


def _is_there(path: Path, source: Source) -> bool:
    try:
        return not _wrong(path.read_bytes(), source)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _wrong(data: bytes | bytearray, source: Source) -> str:
    """Why these are not the file's bytes; "" if they are."""
    if source.sha256 is not None:
        found = hashlib.sha256(data).hexdigest()
        return "" if found == source.sha256 else f"its SHA-256 is {found[:12]}…"
    lines = sum(bool(line.strip()) for line in data.split(b"\n"))
    return "" if lines == source.lines else f"it has {lines} lines instead of {source.lines}"
