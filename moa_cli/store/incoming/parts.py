"""The files that an import is made of: given by name, in a folder, in a zip archive, or piped in.

Nothing is ever unpacked to the disk: a file in an archive is read where it stands.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from moa_cli.core import paths
from moa_cli.store.incoming.json_stream import Readable

# Files in a folder or an archive; a longer list is no export.
_MOST_FILES = 100_000
# Bytes that an archive may expand to, and how many times its size they may be beyond a first
# gigabyte: text becomes ten times smaller, zeros a thousand times.
_MOST_BYTES, _FREE_BYTES, _MOST_TIMES = 32 << 30, 1 << 30, 100
_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"


class ArchiveFault(ValueError):
    """An archive that cannot be read, or should not be."""


@dataclass(frozen=True)
class Part:
    """A file to import from.

    name: for messages. open: begins to read it, any number of times, one at a time.
    modified: seconds since 1970. path: where it is, if it is a file of its own.
    given: whether the user named this very file.
    """

    name: str
    open: Callable[[], contextlib.AbstractContextManager[Readable]]
    modified: float
    path: Path | None = None
    given: bool = True

    def start(self) -> bytes:
        """How it begins."""
        with self.open() as file:
            return file.read(1 << 12)


@contextmanager
def parts_of(argument: str, piped: BinaryIO) -> Iterator[Iterator[Part]]:
    """The files behind what the user typed: a file's name, a folder's, or - for `piped`.

    Raises OSError, and ValueError for an archive that cannot be read.
    """
    with ExitStack() as stack:
        if argument == "-":
            yield _unpacked(stack, _spooled(stack, piped, "standard input"))
            return
        path = paths.expand(argument)
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            yield _in_folder(path, argument)
            return
        paths.refuse_database(path)
        if stat.S_ISREG(kind):
            yield _unpacked(stack, _file(path, argument))
            return
        # A pipe can be read once only.
        with open(path, "rb") as file:
            part = _spooled(stack, file, argument)
        yield _unpacked(stack, part)


def lines_of(file: Readable, encoding: str, longest: int) -> Iterator[str]:
    """The lines of a text file. Raises ValueError for one that is too long, or no text."""
    text = io.TextIOWrapper(io.BufferedReader(_Raw(file)), encoding, newline="\n")
    try:
        while line := text.readline(longest):
            if len(line) == longest:
                raise ValueError("not a text that can be read: a line is too long")
            yield line
    except UnicodeDecodeError:
        raise ValueError(f"not {encoding.removesuffix('-sig').upper()} text") from None


def _file(path: Path, name: str, *, given: bool = True) -> Part:
    return Part(name, lambda: open(path, "rb"), path.stat().st_mtime, path, given)


def _spooled(stack: ExitStack, file: BinaryIO, name: str) -> Part:
    """What can be read only once, in a file without a name."""
    held = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    shutil.copyfileobj(file, held)

    @contextmanager
    def again() -> Iterator[Readable]:
        held.seek(0)
        yield held

    return Part(name, again, os.fstat(held.fileno()).st_mtime)


def _in_folder(folder: Path, name: str) -> Iterator[Part]:
    """The files in a folder and in those inside it; links are not followed."""
    found = 0
    for place, folders, names in os.walk(folder):
        folders.sort()
        for file in sorted(names):
            path = Path(place, file)
            if path.is_symlink() or not path.is_file():
                continue
            found += 1
            if found > _MOST_FILES:
                raise ValueError(f"holds more than {_MOST_FILES} files")
            with contextlib.suppress(OSError):
                paths.refuse_database(path)
                shown = str(Path(name, path.relative_to(folder)))
                yield _file(path, shown, given=False)


def _unpacked(stack: ExitStack, part: Part) -> Iterator[Part]:
    """The part itself, or the files in it if it is an archive."""
    if not part.start().startswith((_ZIP, _EMPTY_ZIP)):
        yield part
        return
    with _zip_faults():
        # An archive is read from its end: not every source of bytes can do that.
        source = stack.enter_context(part.open())
        archive = stack.enter_context(zipfile.ZipFile(source))  # type: ignore[call-overload]
    files = [info for info in archive.infolist() if not info.is_dir()]
    if len(files) > _MOST_FILES:
        raise ValueError(f"holds more than {_MOST_FILES} files")
    expanded = _Expanded()
    for info in sorted(files, key=lambda info: info.filename):
        yield Part(
            f"{part.name}: {info.filename}",
            lambda info=info: _member(archive, info, expanded),  # type: ignore[misc]
            part.modified,
            given=False,
        )


class _Expanded:
    """How many bytes an archive has given."""

    def __init__(self) -> None:
        self.total = 0
        self.by_name: dict[str, int] = {}


@contextmanager
def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, expanded: _Expanded
) -> Iterator[Readable]:
    with _zip_faults():
        file = archive.open(info)
    with file:
        yield _Member(file, info.compress_size, expanded)


class _Member:
    """A file in an archive, up to what a sound one may hold."""

    def __init__(self, file: Readable, packed: int, expanded: _Expanded) -> None:
        self._file = file
        self._packed = packed
        self._expanded = expanded
        self._given = 0

    def read(self, size: int, /) -> bytes:
        """As of any file; raises ValueError."""
        with _zip_faults():
            data = self._file.read(size)
        self._given += len(data)
        self._expanded.total += len(data)
        if self._expanded.total > _MOST_BYTES or (
            self._given > max(_FREE_BYTES, _MOST_TIMES * self._packed)
        ):
            raise ArchiveFault("expands to more than an export does")
        return data


@contextmanager
def _zip_faults() -> Iterator[None]:
    """While inside, what `zipfile` raises of a file that is none is an ArchiveFault."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ArchiveFault(f"cannot be read as a zip archive: {error}") from None
    except UnicodeDecodeError:
        raise ArchiveFault("cannot be read as a zip archive: a name in it is not text") from None


class _Raw(io.RawIOBase):
    """A source of bytes as the wrapper of text wants it."""

    def __init__(self, file: Readable) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as there are bytes."""
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
