"""Fetches public datasets into the data folder. A file is only written when it is complete and
checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from moa_cli.bench.data.datasets import DATASETS, PublicFile
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text import meant, without_login

ALL = "all"
# The most bytes that are read for one file. It is far more than the largest of the files has.
_MOST_BYTES = 64 << 20


def names_of(typed: str) -> tuple[str, ...]:
    """The datasets that a typed name means: one, or all for `all`. Raises UsageError if it cannot
    be fetched."""
    public = tuple(name for name, dataset in DATASETS.items() if dataset.fetched)
    if typed == ALL:
        return public
    if typed in public:
        return (typed,)
    if typed in DATASETS:
        dataset = DATASETS[typed]
        file = Path(dataset.files[0])
        raise UsageError(
            f"{typed} is not fetched: {dataset.why_unfetched}",
            hint=f"put its {file.name} into the folder `{file.parent}` of the data folder",
        )
    hint = meant(typed, [*public, ALL])
    raise UsageError(f"there is no dataset `{typed}` to fetch", hint=hint)


def address_of(source: PublicFile) -> str:
    """The address to fetch a file from: the publisher's, or one below MOA_BENCH_MIRROR. A mirror
    uses the publisher's addresses without `https://` as paths."""
    mirror = os.environ.get("MOA_BENCH_MIRROR")
    if not mirror:
        return source.address
    return f"{mirror.rstrip('/')}/{source.address.removeprefix('https://')}"


async def fetch(
    name: str,
    folder: Path,
    download: Callable[[str], AsyncIterator[bytes]],
    say: Callable[[str], None],
) -> int:
    """Fetch the missing files of a dataset. Returns how many were fetched. A partial file is not
    written.

    folder: the data folder. download: yields the bytes at an address; raises ClientError. say: gets
    a message on each file. Raises BenchError if a file is not the published one, OSError.
    """
    sources = DATASETS[name].fetched
    fetched = 0
    for number, source in enumerate(sources, 1):
        path, place = folder / source.file, f"{name}, {number} of {len(sources)}: {source.file}"
        unchecked = "" if source.sha256 else ", not checked (no published hash)"
        if _is_there(path, source):
            say(f"{place} is there{unchecked}")
            continue
        address = address_of(source)
        shown = without_login(address)
        say(f"{place} from {shown}{unchecked}")
        data = bytearray()
        async for chunk in download(address):
            data += chunk
            if len(data) > _MOST_BYTES:
                wrong = "is longer than any file of a dataset"
                raise BenchError(f"{shown}: {wrong}", hint="nothing was kept")
        if wrong := _wrong(data, source):
            wrong = f"is not the published file: {wrong}"
            raise BenchError(f"{shown}: {wrong}", hint="nothing was kept")
        paths.make_private(path.parent)
        with paths.replacing(path) as file:
            file.write(data)
        fetched += 1
    return fetched


def _is_there(path: Path, source: PublicFile) -> bool:
    try:
        return not _wrong(path.read_bytes(), source)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _wrong(data: bytes | bytearray, source: PublicFile) -> str:
    """Why these bytes are not those of the published file; "" if they are."""
    if source.sha256 is not None:
        found = hashlib.sha256(data).hexdigest()
        return "" if found == source.sha256 else f"its SHA-256 is {found[:12]}…"
    lines = sum(bool(line.strip()) for line in data.split(b"\n"))
    return "" if lines == source.lines else f"it has {lines} lines instead of {source.lines}"
