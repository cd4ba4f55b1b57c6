"""Finds the files to import: named ones, files in a folder or a zip archive, and standard input.

Archives are not unpacked to the disk: the files in them are read in place.
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
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from moa_cli.core import paths

# The most files in a folder or an archive.
_MOST_FILES = 100_000
_TOO_MANY = f"holds more than {_MOST_FILES} files"
# Limits against archives that expand without end. _MOST_BYTES: the size of all files in an archive.
# A file in it may have at most _FREE_BYTES, or _MOST_TIMES its packed size if that is more. Text
# usually has about 10 times its packed size, zeros 1000 times.
_MOST_BYTES, _FREE_BYTES, _MOST_TIMES = 32 << 30, 1 << 30, 100
_TOO_LARGE = "expands to more than an export does"
_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_GZIP = b"\x1f\x8b"


class ArchiveFault(ValueError):
    """An archive that cannot be read, or that is not safe to read."""


@dataclass(frozen=True)
class ImportedFile:
    """A file to import from.

    name: for messages. open: opens the file; it may be called again after the file is closed.
    modified: seconds since 1970. path: its path; None if it is not a file on the disk. given:
    whether the user named this file itself, and not a folder or an archive that contains it.
    """

    name: str
    open: Callable[[], contextlib.AbstractContextManager[BinaryIO]]
    modified: float
    path: Path | None = None
    given: bool = True

    def start(self) -> bytes:
        """Its first 4 kB."""
        with self.open() as file:
            return file.read(1 << 12)


@contextmanager
def parts_of(argument: str, piped: BinaryIO) -> Iterator[Iterator[ImportedFile]]:
    """Yield the files that an argument means. They can be opened until the block ends.

    argument: the path of a file or a folder, or `-` for `piped`, the standard input. Raises
    OSError, or ValueError if an archive cannot be read.
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
            part = _file(path, argument)
        else:
            # A pipe can be read only once.
            with open(path, "rb") as file:
                part = _spooled(stack, file, argument)
        yield _unpacked(stack, part)


def lines_of(file: BinaryIO, encoding: str, longest: int) -> Iterator[str]:
    """The lines of a text file.

    Raises ValueError if one has `longest` characters or more, or if the file is not text.
    """
    text = io.TextIOWrapper(file, encoding, newline="\n")
    try:
        while line := text.readline(longest):
            if len(line) == longest:
                raise ValueError("a line is too long")
            yield line
    except UnicodeDecodeError:
        raise ValueError(f"not {encoding.removesuffix('-sig').upper()} text") from None
    finally:
        # Without this, the wrapper would close the file, which may be read again.
        text.detach()


def _file(path: Path, name: str, *, given: bool = True) -> ImportedFile:
    return ImportedFile(name, lambda: open(path, "rb"), path.stat().st_mtime, path, given)


def _spooled(stack: ExitStack, file: BinaryIO, name: str) -> ImportedFile:
    """A copy of a stream that can be read only once, in a file without a name."""
    held = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    shutil.copyfileobj(file, held)

    @contextmanager
    def again() -> Iterator[BinaryIO]:
        held.seek(0)
        yield held

    return ImportedFile(name, again, os.fstat(held.fileno()).st_mtime)


def _in_folder(folder: Path, name: str) -> Iterator[ImportedFile]:
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
                raise ValueError(_TOO_MANY)
            with contextlib.suppress(OSError):
                paths.refuse_database(path)
                yield _file(path, str(Path(name, path.relative_to(folder))), given=False)


def _unpacked(stack: ExitStack, part: ImportedFile) -> Iterator[ImportedFile]:
    """The file itself, or the files in it if it is an archive."""
    if part.start().startswith(_GZIP):
        raise ValueError("is compressed; `gunzip -c FILE | moa history import -` reads it")
    if not part.start().startswith((_ZIP, _EMPTY_ZIP)):
        yield part
        return
    with _zip_faults():
        # `zipfile` reads an archive from its end, so it needs a file in which it can seek.
        source = stack.enter_context(part.open())
        archive = stack.enter_context(zipfile.ZipFile(source))
    files = [info for info in archive.infolist() if not info.is_dir()]
    if len(files) > _MOST_FILES:
        raise ValueError(_TOO_MANY)
    if sum(info.file_size for info in files) > _MOST_BYTES:
        raise ArchiveFault(_TOO_LARGE)
    for info in sorted(files, key=lambda info: info.filename):
        name = f"{part.name}: {info.filename}"
        yield ImportedFile(name, partial(_member, archive, info), part.modified, given=False)


@contextmanager
def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[BinaryIO]:
    # The check can rely on the size in the archive, because `zipfile` gives no more bytes than
    # that.
    if info.file_size > max(_FREE_BYTES, _MOST_TIMES * info.compress_size):
        raise ArchiveFault(_TOO_LARGE)
    with _zip_faults(), archive.open(info) as file:
        yield cast("BinaryIO", file)


@contextmanager
def _zip_faults() -> Iterator[None]:
    """Turn the errors of `zipfile` for a broken archive into ArchiveFault."""
    try:
        yield
    except RecursionError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ArchiveFault(f"cannot be read as a zip archive: {error}") from None
    except UnicodeDecodeError:
        raise ArchiveFault("cannot be read as a zip archive: a name in it is not text") from None
