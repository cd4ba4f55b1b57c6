"""Reads rows from a damaged database, page by page and without SQLite.

SQLite finds rows through a tree of pages, and stops at a damaged one. This module reads each page
with rows by itself, even if the pages that lead to it are damaged (see "Database File Format",
sections 1.6 and 2, in SQLite's documentation). The table of a row is recognised by its columns.
Freed pages contain no rows, because rows are overwritten when they are deleted. If a page is also
in the write-ahead log, its last state there counts.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from moa_cli.core import paths

_LEAF, _INDEX_LEAF = 0x0D, 0x0A
# The first bytes of pages without rows: branches of trees, maps of pages, continuations of a long
# row (which begin with the number of a page, a small number), and empty pages.
_OTHERS = (0x00, 0x01, 0x02, 0x03, 0x04, 0x05)
_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
_WAL_HEAD, _FRAME_HEAD = 32, 24
_WAL_MAGIC = (0x377F0682, 0x377F0683)
_WORST_BYTES = 256_000_000
# A text with more damaged bytes is not taken.
_MOST_DAMAGED_BYTES = 8

Row = tuple[Any, ...]


@dataclass
class SalvageProgress:
    """How far the reading of a file has come.

    pages: the number of pages of the file. done: how many of them were read. skipped: how many of
    these have rows that could not be read.
    """

    pages: int = 0
    done: int = 0
    skipped: int = 0


class _Damaged(Exception):
    """A page or a row is damaged."""


class _File:
    """The pages of a database file and its log. Raises OSError if it cannot be read."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._file = file
        self._bytes = os.fstat(file.fileno()).st_size
        self.size = self._page_size(path)
        self.count = -(-self._bytes // self.size)
        self._log = self._read_log(path.with_name(path.name + "-wal"))

    def _page_size(self, path: Path) -> int:
        head = self._file.read(100)
        told = int.from_bytes(head[16:18], "big") if len(head) >= 18 else 0
        told = 65536 if told == 1 else told
        if head.startswith(b"SQLite format 3\0") and told in _SIZES:
            return told
        # The head of the file is damaged. The write-ahead log has the page size, too.
        try:
            with path.with_name(path.name + "-wal").open("rb") as log:
                magic, _, size = struct.unpack(">III", log.read(12))
            if magic in _WAL_MAGIC and size in _SIZES:
                return int(size)
        except (OSError, struct.error):
            pass
        return self._likely_size()

    def _likely_size(self) -> int:
        """The page size for which the most places of the file look like the beginning of a page.

        A multiple of the real size fits about equally well, so the smallest such size is taken.
        """
        shares = {}
        for size in _SIZES:
            places = range(size, self._bytes - size + 1, size)
            found = sum(self._is_page(place, size) for place in places)
            shares[size] = found / len(places) if places else 0.0
        best = max(shares.values())
        return next(size for size in _SIZES if shares[size] >= 0.9 * best)

    def _is_page(self, place: int, size: int) -> bool:
        """Whether a page of a tree may begin at this place."""
        self._file.seek(place)
        head = self._file.read(8)
        if len(head) < 8 or head[0] not in (0x0D, 0x0A, 0x05, 0x02):
            return False
        cells, content = struct.unpack(">HH", head[3:7])
        return bool(cells) and 8 + 2 * cells <= (content or 65536) <= size

    def _read_log(self, path: Path) -> dict[int, bytes]:
        """The last committed state of each page in the log."""
        pages: dict[int, bytes] = {}
        try:
            data = path.read_bytes()
        except OSError:
            return pages
        if len(data) < _WAL_HEAD or int.from_bytes(data[:4], "big") not in _WAL_MAGIC:
            return pages
        salt, pending = data[16:24], {}
        step = _FRAME_HEAD + self.size
        for place in range(_WAL_HEAD, len(data) - step + 1, step):
            number, commit = struct.unpack(">II", data[place : place + 8])
            if data[place + 8 : place + 16] != salt:
                # This frame and all later ones are older: SQLite has already written them to the
                # file, and then begun the log again.
                break
            pending[number] = data[place + _FRAME_HEAD : place + step]
            if commit:
                pages |= pending
                pending = {}
                self.count = max(self.count, commit)
        return pages

    def page(self, number: int) -> bytes:
        """The page of that number, counted from 1."""
        if number in self._log:
            return self._log[number]
        self._file.seek((number - 1) * self.size)
        return self._file.read(self.size)


def salvage(path: Path, progress: SalvageProgress) -> Iterator[tuple[str, Row]]:
    """Read all rows that can be read of a database that no process uses.

    Yields the name of a table and a row of it. Rows of `turns`, `notes` and `comparisons` begin
    with the number of the row. `progress` is updated on the way. Raises OSError.
    """
    # The log is beside the file itself, not beside a link to it.
    path = paths.resolved(path)
    with path.open("rb") as opened:
        file = _File(path, opened)
        progress.pages = file.count
        for number in range(1, file.count + 1):
            progress.done = number
            page = file.page(number)
            start = 100 if number == 1 else 0
            if len(page) < file.size or page[start] not in (_LEAF, _INDEX_LEAF):
                progress.skipped += len(page) < file.size or page[start] not in _OTHERS
                continue
            try:
                for rowid, row in _rows(file, page, start):
                    table = _table_of(rowid, row)
                    # SQLite stores an id as the number of the row, not in the row.
                    if table in ("turns", "comparisons"):
                        yield table, (rowid, *row[1:])
                    elif table is not None:
                        yield table, (rowid, *row) if table == "notes" else row
            except _Damaged:
                progress.skipped += 1


def _rows(file: _File, page: bytes, start: int) -> Iterator[tuple[int | None, Row]]:
    """The rows of a leaf page, with the numbers of the rows if the page has them."""
    is_table = page[start] == _LEAF
    (count,) = struct.unpack(">H", page[start + 3 : start + 5])
    damaged = False
    for place in range(start + 8, min(start + 8 + 2 * count, len(page) - 1), 2):
        (cell,) = struct.unpack(">H", page[place : place + 2])
        try:
            size, cell = _varint(page, cell)
            rowid = None
            if is_table:
                rowid, cell = _varint(page, cell)
            yield rowid, _record(_payload(file, page, cell, size, is_table=is_table))
        except (_Damaged, IndexError, struct.error, ValueError):
            damaged = True
    if damaged:
        raise _Damaged


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Read a signed number of one to nine bytes. Returns it and the place where it ends."""
    value = 0
    for length in range(8):
        byte = data[place + length]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + length + 1
    value = value << 8 | data[place + 8]
    return value - (1 << 64) if value >= 1 << 63 else value, place + 9


def _payload(file: _File, page: bytes, place: int, size: int, *, is_table: bool) -> bytes:
    """The bytes of a row; a long one continues in a chain of other pages."""
    if not 0 < size <= _WORST_BYTES:
        raise _Damaged
    usable = file.size
    most = usable - 35 if is_table else (usable - 12) * 64 // 255 - 23
    if size <= most:
        data = page[place : place + size]
    else:
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= most else least
        (following,) = struct.unpack(">I", page[place + local : place + local + 4])
        parts, left = [page[place : place + local]], size - local
        seen: set[int] = set()
        while left > 0:
            if not 0 < following <= file.count or following in seen:
                raise _Damaged
            seen.add(following)
            more = file.page(following)
            (following,) = struct.unpack(">I", more[:4])
            parts.append(more[4 : 4 + left])
            left -= len(parts[-1])
        data = b"".join(parts)
    if len(data) != size:
        raise _Damaged
    return data


def _record(data: bytes) -> Row:
    end, place = _varint(data, 0)
    kinds = []
    while place < end:
        kind, place = _varint(data, place)
        kinds.append(kind)
    if place != end or not kinds:
        raise _Damaged
    values: list[Any] = []
    for kind in kinds:
        value, place = _value(data, place, kind)
        values.append(value)
    if place != len(data):
        raise _Damaged
    return tuple(values)


def _value(data: bytes, place: int, kind: int) -> tuple[Any, int]:
    if kind == 0:
        return None, place
    if kind in (8, 9):
        return kind - 8, place
    if kind >= 12:
        size = (kind - 12) // 2
        part = data[place : place + size]
        if len(part) != size:
            raise _Damaged
        return (_decoded(part) if kind % 2 else part), place + size
    width = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 7: 8}.get(kind, 0)
    part = data[place : place + width]
    if not width or len(part) != width:
        raise _Damaged
    if kind == 7:
        return struct.unpack(">d", part)[0], place + width
    return int.from_bytes(part, "big", signed=True), place + width


def _decoded(data: bytes) -> str:
    """A text, also if a few of its bytes are damaged. More of them are of an overwritten page."""
    text = data.decode("utf-8", "replace")
    if text.count("\ufffd") > _MOST_DAMAGED_BYTES:
        return data.decode()
    return text


_TEXT, _NUMBER, _KEPT, _NOTHING = str, (int, float), (str, bytes), type(None)
_DAY, _ID = re.compile(r"\d{4}-\d\d-\d\d"), re.compile("[a-z0-9]{10}")
_WORDS = re.compile("details|texts")
_DOOMED, _JSON = re.compile("doomed"), re.compile(r"\{.*", re.DOTALL)
# The columns of each table: values of a type, or texts that match a pattern. Rows of the tables in
# _WITHOUT_NUMBERS have no numbers, because these tables are WITHOUT ROWID.
_WITHOUT_NUMBERS: dict[str, Row] = {
    "spending": (_DAY, _TEXT, *(int,) * 6, _NUMBER),
    "key_spending": (_DAY, _TEXT, _NUMBER),
    "days": (_DAY, int),
    "old_proposals": (int, int, int, _KEPT),
    "tags": (_ID, _TEXT),
    "contenders": (int, int, _TEXT, _TEXT, _TEXT, _TEXT, _NUMBER),
    "doomed": (_TEXT, _DOOMED, int),
}
_NUMBERED: dict[str, Row] = {
    "conversations": (_ID, _TEXT, _TEXT, _NUMBER, _NUMBER),
    "proposals": (int, int, int, _KEPT),
    "turns": (_NOTHING, _TEXT, _NUMBER, int, _TEXT, _TEXT, _TEXT, _TEXT, *(object,) * 3),
    "comparisons": (_NOTHING, _NUMBER, (int, _NOTHING)),
    "comparison_words": (int, _WORDS, _KEPT),
    "notes": (int, _JSON),
    "parts": (int, int, _KEPT),
}


def _table_of(rowid: int | None, row: Row) -> str | None:
    """The table of a row, recognised by its columns; None if the row is not needed."""
    for table, kinds in (_WITHOUT_NUMBERS if rowid is None else _NUMBERED).items():
        # Later versions have added columns to `turns`.
        columns = row[: len(kinds)] if table == "turns" else row
        if len(columns) == len(kinds) and all(map(_fits, columns, kinds)):
            return table
    return None


def _fits(value: object, kind: Any) -> bool:
    if isinstance(kind, re.Pattern):
        return isinstance(value, str) and kind.fullmatch(value) is not None
    return isinstance(value, kind)
