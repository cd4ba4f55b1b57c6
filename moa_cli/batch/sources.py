"""The input of a batch, read as a stream and as often as needed: memory does not grow with it.

A first reading checks every row before anything is sent, later ones work it off. A file is opened
anew each time. What comes through a pipe is kept compressed in memory, because it comes only once
and must not be written to a disk without a word.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from moa_cli.bench.data.items import DataRow
from moa_cli.core import paths
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text_files import text_of

_BLOCK = 1 << 20
_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# An error of the decoder this close to the end of what is read may be the cut's, not the text's.
_CUT = 16

# A row before it is understood: its number in the input, and what the format has for it.
Record = tuple[int, Any]


@dataclass(frozen=True)
class Source:
    """Bytes that can be read from their beginning any number of times.

    name: what messages call it. open: raises OSError. Content that is compressed by gzip is read
    unpacked, whatever it is called.
    """

    name: str
    open: Callable[[], BinaryIO]

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
            while block := file.read(_BLOCK):
                found.update(block)
            return found.hexdigest()

    def pieces(self) -> Iterator[str]:
        """The text in pieces, each of which but the last ends with a line.

        Raises UsageError, naming the line, if it is not text.
        """
        with self.unpacked() as file:
            begin = file.read(2)
        return self._wide_pieces() if begin in _UTF16 else self._pieces()

    def _pieces(self) -> Iterator[str]:
        end, first_line = self._line_end(), 1
        for data in _whole_lines(self.unpacked, end):
            yield text_of(data, self.name, first_line=first_line)
            first_line += data.count(b"\n")

    def _line_end(self) -> bytes:
        """What ends lines: `\\r` only where there is no `\\n` in the whole file."""
        with self.unpacked() as file:
            block = file.read(_BLOCK)
            if b"\r" not in block:
                return b"\n"
            while block:
                if b"\n" in block:
                    return b"\n"
                block = file.read(_BLOCK)
        return b"\r"

    def _wide_pieces(self) -> Iterator[str]:
        """Of UTF-16, whose line ends cannot be looked for in its bytes."""
        decoder = codecs.getincrementaldecoder("utf-16")()
        rest, first = "", True
        with self.unpacked() as file:
            while True:
                block = file.read(_BLOCK)
                try:
                    text = rest + decoder.decode(block, final=not block)
                except UnicodeDecodeError:
                    raise UsageError(
                        f"{self.name}: is not valid UTF-16 text", hint="save it again as UTF-8"
                    ) from None
                if "\0" in text:
                    raise UsageError(f"{self.name}: is not text: it holds a NUL character")
                if first:
                    # Some programs write the mark twice.
                    text, first = text.lstrip("\ufeff"), False
                if not block:
                    yield text
                    return
                cut = text.rfind("\n") + 1
                if cut:
                    yield text[:cut]
                rest = text[cut:]

    def lines(self) -> Iterator[Record]:
        """Lines that are not blank, with their numbers from 1, without their ends."""
        number, end = 0, ""
        for piece in self.pieces():
            end = end or ("\n" if "\n" in piece else "\r")
            lines = piece.split(end)
            if not lines[-1]:
                del lines[-1]
            for line in lines:
                number += 1
                if line.strip():
                    yield number, line.removesuffix("\r")


def _whole_lines(open_bytes: Callable[[], Any], end: bytes) -> Iterator[bytes]:
    """The content in pieces that end with a line."""
    with open_bytes() as file:
        rest: list[bytes] = []
        while block := file.read(_BLOCK):
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
            # A named pipe gives its bytes once.
            with path.open("rb") as stream:
                return piped_source(stream, str(path))
        path.open("rb").close()
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror}") from None
    return Source(str(path), lambda: path.open("rb"))


def piped_source(stream: BinaryIO, name: str) -> Source:
    """What a stream gives once, kept compressed in memory. Raises OSError."""
    kept = io.BytesIO()
    with gzip.GzipFile(fileobj=kept, mode="wb", compresslevel=1, mtime=0) as packed:
        begin = stream.read(_BLOCK)
        # Packed twice, it would be unpacked once.
        inner = _Joined(begin, stream)
        unpacked = gzip.GzipFile(fileobj=inner) if begin.startswith(_GZIP) else inner
        try:
            while block := unpacked.read(_BLOCK):
                packed.write(block)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BenchError(f"{name}: is damaged gzip data: {error}") from None
    data = kept.getbuffer()
    return Source(name, lambda: io.BytesIO(data))


class _Joined(io.RawIOBase):
    """A stream with what was read of it already."""

    def __init__(self, begin: bytes, stream: BinaryIO) -> None:
        self._begin, self._stream = begin, stream

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if self._begin:
            if size < 0:
                size = len(self._begin)
            found, self._begin = self._begin[:size], self._begin[size:]
            return found
        return self._stream.read(size)


class JsonRows:
    """Rows of JSON: an object on each line, or one list of objects."""

    def __init__(self, source: Source) -> None:
        self._source = source
        first = next((piece for piece in source.pieces() if piece.strip()), "")
        self._is_list = first.lstrip().startswith("[")

    def records(self) -> Iterator[Record]:
        """Number and text of each line, or number and value of each element."""
        return _elements(self._source) if self._is_list else self._source.lines()

    def row(self, record: Record) -> DataRow:
        """Raises BenchError, naming the line, if it is not a JSON object."""
        number, found = record
        name = self._source.name
        place = f"{name}: row {number}" if self._is_list else f"{name}:{number}"
        if not self._is_list:
            try:
                found = json.loads(found)
            except (ValueError, RecursionError) as error:
                raise BenchError(f"{place}: is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise BenchError(f"{place}: is not a JSON object")
        return DataRow(place, number, found)


class LineRows:
    """Rows of text: a prompt on each line."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def records(self) -> Iterator[Record]:
        """Number and text of each line that is not blank."""
        return self._source.lines()

    def row(self, record: Record) -> DataRow:
        """The prompt of a line."""
        number, line = record
        return DataRow(f"{self._source.name}:{number}", number, {"prompt": line})


Rows = JsonRows | LineRows


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
    """JSON text of which only a part is in memory."""

    def __init__(self, source: Source) -> None:
        self._name = source.name
        self._pieces = source.pieces()
        self._text, self._at, self._line = "", 0, 1
        self._decoder = json.JSONDecoder()

    def _more(self) -> bool:
        """Read on; whether there is more."""
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
                # Text that is read in part fails at its end, or in the string that goes on there.
                torn = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _CUT
                if torn and self._more_by_half():
                    continue
                raise self.error(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:
                raise self.error(str(error)) from None
            return found

    def _more_by_half(self) -> bool:
        """Read on so far that reading a long value again and again stays cheap."""
        wanted = (len(self._text) - self._at) * 3 // 2
        read = False
        while len(self._text) - self._at <= wanted and self._more():
            read = True
        return read

    def error(self, why: str, at: int | None = None) -> BenchError:
        """That the text is wrong there. at: in the part in memory."""
        line = self._line + self._text.count("\n", 0, self._at if at is None else at)
        return BenchError(f"{self._name}:{line}: is not JSON: {why}")
