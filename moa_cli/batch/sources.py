"""The input of a batch, read as a stream and as often as needed: memory does not grow with it.

The first reading checks every row before any request is sent; later readings fetch the rows to
answer. A file is opened anew for each reading. Data from a pipe is kept compressed in memory: it
can be read only once, and it must not be written to a disk without the user's knowledge.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import hashlib
import io
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from moa_cli.batch.tables import check_parquet
from moa_cli.bench.data.items import DataRow
from moa_cli.bench.data.tables import CellRows, check_names, delimiter_of, row_of_cells
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.files.text import text_of

BLOCK = 1 << 20
# Bytes that are read at once from text. Each block starts a position at which a later reading can
# begin.
_PIECE = 1 << 16
_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# After this many seconds, a further change to a file gets a different modification time: the
# coarsest file system, FAT, counts in steps of two seconds.
_SETTLED = 3.0
# A JSON error that is no more than this many characters before the end of a block may come from
# the cut between two blocks, and not from the text.
_CUT = 16

_PAGE = re.compile(r"\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_PARQUET_ROWS = 1000
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}

# A row before it is parsed: its number in the input, and its raw content, whose type depends on
# the format.
Record = tuple[int, Any]


@dataclass(frozen=True)
class Position:
    """A place in a source where a line begins.

    start: how many bytes of the unpacked text are before it; for Parquet, how many row groups; for
    joined files, how many files. lines: how many lines are before it; for Parquet and joined files,
    how many rows.
    """

    start: int = 0
    lines: int = 0


# Called with a position before the first row that begins at it or after it is read.
Passed = Callable[[Position], None]


_START = Position()


def _ignored(position: Position) -> None:
    """For readings whose positions nobody needs."""


@dataclass(frozen=True)
class Source:
    """Bytes that can be read from their beginning any number of times.

    name: as messages show it. open: raises OSError. stamp: returns values that change when the
    content changes, or None where no such values are known. Content that is compressed by gzip is
    unpacked, whatever its file name.
    """

    name: str
    open: Callable[[], BinaryIO]
    stamp: Callable[[], list[Any] | None] = lambda: None

    @contextmanager
    def unpacked(self) -> Iterator[BinaryIO]:
        """The content, unpacked. Raises BenchError if it cannot be read or unpacked."""
        try:
            with self.open() as raw:
                packed = raw.read(len(_GZIP)) == _GZIP
                raw.seek(0)
                if not packed:
                    yield raw
                    return
                with gzip.GzipFile(fileobj=raw, mode="rb") as content:
                    yield cast("BinaryIO", content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BenchError(f"{self.name}: is a damaged gzip file: {error}") from None
        except OSError as error:
            raise BenchError(f"{self.name}: cannot be read: {error.strerror or error}") from None

    def sha256(self) -> str:
        """The SHA-256 of the unpacked content, in hexadecimal."""
        with self.unpacked() as file:
            found = hashlib.sha256()
            while block := file.read(BLOCK):
                found.update(block)
            return found.hexdigest()

    def pieces(self, begin: Position = _START, passed: Passed = _ignored) -> Iterator[str]:
        """The text in pieces. Each piece ends at a line end, except perhaps the last.

        begin: a position that `passed` got in an earlier reading.
        Raises UsageError, naming the line, if the content is not text.
        """
        with self.unpacked() as file:
            first = file.read(2)
        return self._wide_pieces() if first in _UTF16 else self._pieces(begin, passed)

    def _pieces(self, begin: Position, passed: Passed) -> Iterator[str]:
        end, start, lines = self._line_end(), begin.start, begin.lines
        for data in _whole_lines(self.unpacked, end, start):
            passed(Position(start, lines))
            yield text_of(data, self.name, first_line=lines + 1)
            lines += data.count(end)
            start += len(data)

    def _line_end(self) -> bytes:
        """The line end of this file: `\\r` only if the whole file has no `\\n`."""
        with self.unpacked() as file:
            block = file.read(BLOCK)
            if b"\r" not in block:
                return b"\n"
            while block:
                if b"\n" in block:
                    return b"\n"
                block = file.read(BLOCK)
        return b"\r"

    def _wide_pieces(self) -> Iterator[str]:
        """The pieces of UTF-16 text. It is decoded first, because a byte of `\\n` may be part of
        another character."""
        decoder = codecs.getincrementaldecoder("utf-16")()
        rest, first = "", True
        with self.unpacked() as file:
            while True:
                block = file.read(BLOCK)
                try:
                    text = rest + decoder.decode(block, final=not block)
                except UnicodeDecodeError:
                    raise UsageError(
                        f"{self.name}: is not valid UTF-16 text", hint="save it again as UTF-8"
                    ) from None
                if "\0" in text:
                    raise UsageError(f"{self.name}: is not text: it holds a NUL character")
                if first:
                    # Some programs write the byte order mark twice.
                    text, first = text.lstrip("\ufeff"), False
                if not block:
                    yield text
                    return
                cut = text.rfind("\n") + 1
                if cut:
                    yield text[:cut]
                rest = text[cut:]

    def lines(self, begin: Position = _START, passed: Passed = _ignored) -> Iterator[Record]:
        """Each line that is not blank, without its line end, after its number, which counts from
        1. See `pieces`."""
        number, end = begin.lines, ""
        for piece in self.pieces(begin, passed):
            end = end or ("\n" if "\n" in piece else "\r")
            lines = piece.split(end)
            if not lines[-1]:
                del lines[-1]
            for line in lines:
                number += 1
                if line.strip():
                    yield number, line.removesuffix("\r")


@dataclass(frozen=True)
class JoinedSource(Source):
    """Several files that `JoinedRows` reads one after another."""

    parts: tuple[Source, ...] = ()

    @classmethod
    def of(cls, name: str, parts: Sequence[Source]) -> Source:
        """These files under one name; a single one has its own."""
        if len(parts) == 1:
            return parts[0]

        def stamp() -> list[Any] | None:
            stamps = [part.stamp() for part in parts]
            return None if None in stamps else stamps

        return cls(name, parts[0].open, stamp, tuple(parts))

    def sha256(self) -> str:
        found = hashlib.sha256()
        for part in self.parts:
            found.update(part.sha256().encode())
        return found.hexdigest()


def _whole_lines(open_bytes: Callable[[], Any], end: bytes, start: int) -> Iterator[bytes]:
    """The content from byte `start`, where a line begins, in pieces that end at a line end."""
    with open_bytes() as file:
        file.seek(start)
        rest: list[bytes] = []
        while block := file.read(_PIECE):
            cut = block.rfind(end) + 1
            if not cut:
                rest.append(block)
                continue
            yield b"".join([*rest, block[:cut]])
            rest = [block[cut:]]
        last = b"".join(rest)
        if last:
            yield last


def file_source(path: Path) -> Source:
    """A file as a source. Raises BenchError if it cannot be read."""
    try:
        paths.refuse_database(path)
        if not paths.is_file(path):
            # A named pipe can be read only once.
            with path.open("rb") as stream:
                return piped_source(stream, str(path))
        path.open("rb").close()
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror}") from None
    return Source(str(path), lambda: path.open("rb"), partial(_stamp_of, path))


def file_sources(path: Path) -> list[Source]:
    """A file, or all files of a folder or of a pattern with `*`, in the order of their names.

    Raises BenchError if there is nothing that can be read.
    """
    found = [str(path)]
    try:
        if path.is_dir():
            found = [str(path / name) for name in data_files(_names_in(path))]
        elif glob.has_magic(str(path)) and not path.exists():
            # As in a shell, `*` does not stand for hidden files, which `Path.glob` finds, too.
            matches = glob.glob(str(path), recursive=True)  # noqa: PTH207
            found = sorted(name for name in matches if not Path(name).is_dir())
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror}") from None
    if not found:
        raise BenchError(f"{path}: there are no such files")
    return [file_source(Path(name)) for name in found]


def data_files(names: Iterable[str]) -> list[str]:
    """The files of a folder that hold data, in order. names: their paths in it. Left out are hidden
    files and folders, and those of programs that write folders, such as `_SUCCESS`."""
    return sorted(name for name in names if not re.search(r"(^|[/\\])[._]", name))


def _names_in(folder: Path) -> Iterator[str]:
    """The paths of all files in a folder. Raises OSError."""

    def failed(error: OSError) -> None:
        raise error

    for inner, _, names in os.walk(folder, onerror=failed):
        for name in names:
            path = Path(inner, name)
            if path.is_file():
                yield str(path.relative_to(folder))


def _stamp_of(path: Path) -> list[Any] | None:
    """The stamp of a file; see `Source`. None if the file was changed just now: it could change
    again without a new modification time."""
    try:
        found = path.stat()
    except OSError:
        return None
    if time.time() - max(found.st_mtime, found.st_ctime) < _SETTLED:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def piped_source(stream: BinaryIO, name: str) -> Source:
    """A source of the bytes of a stream, which are read now and kept compressed in memory.

    Raises OSError, or BenchError if it is damaged gzip data.
    """
    kept = io.BytesIO()
    with gzip.GzipFile(fileobj=kept, mode="wb", compresslevel=1, mtime=0) as packed:
        begin = stream.read(BLOCK)
        # Compressed input is unpacked first: `Source` unpacks only once.
        inner = _Joined(begin, stream)
        unpacked = gzip.GzipFile(fileobj=inner) if begin.startswith(_GZIP) else inner
        try:
            while block := unpacked.read(BLOCK):
                packed.write(block)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BenchError(f"{name}: is damaged gzip data: {error}") from None
    data = kept.getbuffer()
    return Source(name, lambda: io.BytesIO(data))


class _Joined(io.RawIOBase):
    """A stream, preceded by the bytes that were read from it already."""

    def __init__(self, begin: bytes, stream: BinaryIO) -> None:
        self._begin, self._stream = begin, stream

    def read(self, size: int = -1) -> bytes:
        if self._begin:
            if size < 0:
                size = len(self._begin)
            found, self._begin = self._begin[:size], self._begin[size:]
            return found
        return self._stream.read(size)


class JsonRows:
    """Rows of JSON: either one object on each line, or one list of objects."""

    def __init__(self, source: Source) -> None:
        self._source = source
        first = next((piece for piece in source.pieces() if piece.strip()), "")
        self._is_list = first.lstrip().startswith("[")

    def records(self, begin: Position = _START, passed: Passed = _ignored) -> Iterator[Record]:
        """Number and text of each line, or number and value of each list element; see
        `Source.pieces`. A list has no positions, so it is always read from its start."""
        if self._is_list:
            return _elements(self._source)
        return self._source.lines(begin, passed)

    def row(self, record: Record) -> DataRow:
        """The fields of a record. Raises BenchError, naming the line, if it is not a JSON
        object."""
        number, found = record
        name = self._source.name
        place = f"{name}: row {number}" if self._is_list else f"{name}:{number}"
        if not self._is_list:
            try:
                found = json.loads(found)
            except (ValueError, RecursionError) as error:
                # A file with one object over many lines is JSON, but no JSON lines.
                hint = "each object stands on a line of its own" if found.strip() == "{" else None
                raise BenchError(f"{place}: is not JSON: {error}", hint=hint) from None
        if not isinstance(found, dict):
            raise BenchError(f"{place}: is not a JSON object")
        return DataRow(place, number, found)


class LineRows:
    """Rows of plain text: each line is a prompt. Raises UsageError if it is a web page, which a
    wrong address gives."""

    def __init__(self, source: Source) -> None:
        self._source = source
        if _PAGE.match(next(source.pieces(), "")):
            raise UsageError(f"{source.name}: is a web page, and not a list of prompts")

    def records(self, begin: Position = _START, passed: Passed = _ignored) -> Iterator[Record]:
        """Number and text of each line that is not blank; see `Source.pieces`."""
        return self._source.lines(begin, passed)

    def row(self, record: Record) -> DataRow:
        """The prompt of a line."""
        number, line = record
        return DataRow(f"{self._source.name}:{number}", number, {"prompt": line})


class TableRows:
    """Rows of a CSV or TSV table; see `moa_cli.bench.data.tables`. Raises UsageError if two columns
    have the same name."""

    def __init__(self, source: Source, *, tabs: bool) -> None:
        self.source = source
        self._delimiter = delimiter_of(next(source.pieces(), ""), tabs=tabs)
        self.names: tuple[str, ...] = tuple(next((cells for _, cells in self._cells()), []))
        check_names(source.name, self.names)

    def _cells(self, begin: Position = _START, passed: Passed = _ignored) -> Iterator[Record]:
        """The cells of each row that is not blank, after the number of its first line."""
        met = begin

        def meet(position: Position) -> None:
            nonlocal met
            met = position

        def lines() -> Iterator[str]:
            for piece in self.source.pieces(begin, meet):
                # A piece may begin within a cell of several lines: reading cannot begin there.
                if met.lines == rows.number - 1:
                    passed(met)
                # This keeps line ends and, unlike `splitlines`, does not split at form feeds.
                yield from io.StringIO(piece, newline="")

        rows = CellRows(self.source.name, lines(), self._delimiter, begin.lines + 1)
        return iter(rows)

    def records(self, begin: Position = _START, passed: Passed = _ignored) -> Iterator[Record]:
        """Number and cells of each row below the head; see `Source.pieces`."""
        return islice(self._cells(begin, passed), begin == _START, None)

    def row(self, record: Record) -> DataRow:
        """The cells of a record by column. Raises BenchError, naming the line, if it has more or
        fewer cells than the head."""
        number, cells = record
        return row_of_cells(f"{self.source.name}:{number}", number, self.names, cells)


class ParquetRows:
    """Rows of a Parquet file, read one row group after another.

    Raises UsageError if pyarrow is not installed; reading raises BenchError if the file is damaged.
    """

    def __init__(self, source: Source) -> None:
        check_parquet(source.name)
        self._source = source

    def records(self, begin: Position = _START, passed: Passed = _ignored) -> Iterator[Record]:
        """Number and values of each row. Each row group is a position."""
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        number = begin.lines
        with self._source.unpacked() as file:
            # A Parquet file is read from its end, and a gzip file cannot be read from its end.
            whole = cast("object", file)
            if isinstance(whole, gzip.GzipFile):
                whole = io.BytesIO(whole.read())
            try:
                table = ParquetFile(whole)
                check_names(self._source.name, table.schema_arrow.names)
                for group in range(begin.start, table.num_row_groups):
                    passed(Position(group, number))
                    for batch in table.iter_batches(_PARQUET_ROWS, row_groups=[group]):
                        for row in batch.to_pylist():
                            number += 1
                            yield number, row
            except ArrowException as error:
                wrong = f"{self._source.name}: is a damaged Parquet file: {error}"
                raise BenchError(wrong) from None

    def row(self, record: Record) -> DataRow:
        """The values of a row as JSON has them: types that JSON lacks, such as times, become
        text."""
        number, values = record
        fields = json.loads(json.dumps(values, default=str))
        return DataRow(f"{self._source.name}: row {number}", number, fields)


class JoinedRows:
    """The rows of several files, one file after another. parts: the rows of each file."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = parts

    def records(self, begin: Position = _START, passed: Passed = _ignored) -> Iterator[Record]:
        """The number of each row among all rows, with its file's number and its record in that
        file. The start of each file is a position."""
        number = begin.lines
        for part in range(begin.start, len(self.parts)):
            passed(Position(part, number))
            for record in self.parts[part].records():
                number += 1
                yield number, (part, record)

    def row(self, record: Record) -> DataRow:
        """The fields of a record. Its place names the file; its number counts over all files."""
        number, (part, inner) = record
        found: DataRow = self.parts[part].row(inner)
        return replace(found, number=number)


Rows = JsonRows | LineRows | TableRows | ParquetRows | JoinedRows
FORMATS = ("jsonl", "lines", "csv", "tsv", "parquet")


def format_of(name: str) -> str:
    """The format of a file, one of FORMATS, by the suffix of its name. Without a known suffix it
    is `lines`."""
    name = name.lower().removesuffix(".gz")
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    return "lines"


def rows_of(source: Source, kind: str) -> Rows:
    """A reader for a source of that format. Raises UsageError or BenchError if it cannot be read
    as such."""
    if isinstance(source, JoinedSource):
        return JoinedRows([rows_of(part, kind) for part in source.parts])
    if kind == "parquet":
        return ParquetRows(source)
    if kind in ("csv", "tsv"):
        return TableRows(source, tabs=kind == "tsv")
    return LineRows(source) if kind == "lines" else JsonRows(source)


def _elements(source: Source) -> Iterator[Record]:
    """The elements of a JSON list, one at a time, with their numbers from 1."""
    text = _Text(source)
    text.skip("[")
    if text.peek() == "]":
        text.skip("]")
    else:
        number = 0
        while True:
            number += 1
            yield number, text.value()
            if text.peek() == "]":
                text.skip("]")
                break
            text.skip(",")
    if text.peek():
        raise text.error("Extra data")


class _Text:
    """JSON text that is parsed while only a part of it is in memory."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._pieces = source.pieces()
        self._text, self._at, self._line = "", 0, 1
        self._decoder = json.JSONDecoder()

    def _more(self) -> bool:
        """Read the next piece. False at the end of the text."""
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._line += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :] + piece, 0
        return True

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self, wanted: str) -> None:
        """Step over a character that must come next."""
        if self.peek() != wanted:
            raise self.error(f"Expecting '{wanted}' delimiter")
        self._at += 1

    def value(self) -> Any:
        """The value that comes next."""
        self.peek()
        while True:
            try:
                found, self._at = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # An incomplete value fails near the end of the text in memory, or at the start of
                # a string that continues in the next piece.
                torn = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _CUT
                if torn and self._more_by_half():
                    continue
                raise self.error(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:
                raise self.error(str(error)) from None
            return found

    def _more_by_half(self) -> bool:
        """Make the text in memory half as long again. Parsing starts over after each reading;
        with this growth the total work for a long value stays proportional to its length."""
        wanted = (len(self._text) - self._at) * 3 // 2
        read = False
        while len(self._text) - self._at <= wanted and self._more():
            read = True
        return read

    def error(self, why: str, at: int | None = None) -> BenchError:
        """The error for a wrong text. at: its index in the part in memory; None is the current
        one."""
        line = self._line + self._text.count("\n", 0, self._at if at is None else at)
        return BenchError(f"{self._name}:{line}: is not JSON: {why}")
