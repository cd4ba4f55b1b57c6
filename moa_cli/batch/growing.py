"""A file to which a batch appends lines. A new start reads only the lines not yet indexed."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from moa_cli.batch.index import Index
from moa_cli.bench.data.json_lines import Lines
from moa_cli.core import paths
from moa_cli.core.errors import BenchError

_T = TypeVar("_T")


class GrowingFile(Lines):
    """A file of lines. The index knows all lines before the file's mark.

    name: the name of the mark in the index. fits: whether the file is the one that was indexed, so
    that only the lines after the mark are unread. Raises BenchError if the file cannot be opened.
    """

    def __init__(self, path: Path, index: Index, name: str) -> None:
        super().__init__(path)
        self._index, self._name = index, name
        self._size, self._count = index.marked(name, path)
        self.fits = self._size > 0
        if path.exists():
            self._open()

    def _open(self) -> BinaryIO:
        try:
            return super()._open()
        except OSError as error:
            raise BenchError(f"{self.path}: cannot be opened: {error.strerror}") from None

    def unread(self, load: Callable[[str], _T]) -> Iterator[tuple[int, _T]]:
        """The value that `load` makes of each line after the mark, after the byte at which the line
        begins.

        load: raises ValueError for a line that it cannot read. Raises BenchError, naming the file
        and the line, in that case.
        """
        if self._file is None:
            return
        with self.path.open("rb") as file:
            if not self._size and file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
                # Some editors on Windows add a byte order mark when a user edits the file.
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
        """Note in the index that it knows all lines up to here."""
        if self._size:
            self._index.mark(self._name, self.path, self._size, self._count)

    def add(self, line: str) -> int:
        start = self._append(line)
        self._count += 1
        return start

    def line_at(self, start: int) -> str:
        """The line that begins at that byte, without its line end. Raises OSError."""
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
        """Replace the content, in one step, by the lines that begin at these bytes, in this order.
        Yields the byte at which each line begins in the new file. Raises OSError."""
        self._size = self._count = 0
        with self.path.open("rb") as old, paths.replacing(self.path) as new:
            for start in starts:
                old.seek(start)
                line = old.readline()
                new.write(line)
                yield self._size
                self._size, self._count = self._size + len(line), self._count + 1
        self.close()
