"""A file of lines that only grows while a batch runs, and is read from where an index ends."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from moa_cli.batch.index import Index
from moa_cli.core import paths
from moa_cli.core.errors import BenchError

_T = TypeVar("_T")


class GrowingFile:
    """Lines in a file that its owner alone can read; made with the first one.

    Each line is with the system when `add` returns. A last line without its end, from a kill while
    it was written, is cut off. name: of the file's mark in the index. fits: whether the file is
    the one that the index was made of, so that only what follows the mark is unread.
    Raises BenchError if it cannot be read.
    """

    def __init__(self, path: Path, index: Index, name: str) -> None:
        self.path = path
        self._index, self._name = index, name
        self._size, self._count = index.marked(name, path)
        self.fits = self._size > 0
        self._file: BinaryIO | None = None
        if path.exists():
            self._open()

    def _open(self) -> BinaryIO:
        if self._file is None:
            try:
                paths.refuse_database(self.path)
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                wrong = f"{self.path}: cannot be opened: {error.strerror}"
                raise BenchError(wrong) from None
            self._file = os.fdopen(handle, "r+b", buffering=0)
        return self._file

    def unread(self, load: Callable[[str], _T]) -> Iterator[tuple[int, _T]]:
        """What `load` makes of each line behind the mark, with the byte that it begins at.

        load: raises ValueError for what is no such line. Raises BenchError, naming file and line,
        then.
        """
        if self._file is None:
            return
        with self.path.open("rb") as file:
            if not self._size and file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
                # Who takes out a line with an editor on Windows may get a byte order mark.
                self._size = len(codecs.BOM_UTF8)
            file.seek(self._size)
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                start, self._size, self._count = self._size, self._size + len(raw), self._count + 1
                try:
                    found = load(raw.decode())
                except (ValueError, RecursionError) as error:
                    raise BenchError(
                        f"{self.path}:{self._count}: is damaged: {error}",
                        hint="remove the line to continue",
                    ) from None
                yield start, found

    def mark(self) -> None:
        """Tell the index that it knows all lines up to here."""
        if self._size:
            self._index.mark(self._name, self.path, self._size, self._count)

    def add(self, line: str) -> int:
        """Write one line; the byte that it begins at. Raises OSError."""
        file = self._open()
        start, data = self._size, line.encode() + b"\n"
        if file.seek(0, os.SEEK_END) != start:
            file.truncate(start)
            file.seek(start)
        _write(file, data)
        self._size, self._count = start + len(data), self._count + 1
        return start

    def line_at(self, start: int) -> str:
        """The line that begins there, without its end. Raises OSError."""
        file = self._open()
        file.seek(start)
        data = b""
        while not data.endswith(b"\n"):
            block = file.read(1 << 14)
            if not block:
                break
            end = block.find(b"\n") + 1
            data += block[:end] if end else block
        return data.decode().removesuffix("\n")

    def rewrite(self, starts: Iterable[int]) -> Iterator[int]:
        """Replace the content, in one step, by the lines that begin there; yields where each
        begins then. Raises OSError."""
        self._size = self._count = 0
        with self.path.open("rb") as old, paths.replacing(self.path) as new:
            for start in starts:
                old.seek(start)
                line = old.readline()
                new.write(line)
                yield self._size
                self._size, self._count = self._size + len(line), self._count + 1
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _write(file: BinaryIO, data: bytes) -> None:
    """All of it: a raw file may take a part only."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
