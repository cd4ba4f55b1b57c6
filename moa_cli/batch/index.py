"""The index of a batch: which prompts are done, and where lines and calls are in their files.

The output and the journal are the batch (docs/decisions/0010); the index only saves reading them
again. It is a SQLite database beside the journal, or in memory if the batch keeps no state. Each
commit includes how far the files are indexed, so that a start after a kill reads on from there. If
the index is missing or does not match the files (someone edited them), it is rebuilt from them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

from moa_cli.core.errors import BenchError

INDEX = "index.db"
_FORMAT = 3
_TURNED = bytes([1]) + bytes(255)
_SUFFIXES = ("", "-wal", "-shm", "-journal")
# The index is committed after this many changes, or seconds. A kill loses at most these; they are
# read again from the files.
_MOST_CHANGES, _MOST_SECONDS = 2000, 2.0
# A file counts as the one that was indexed if this many bytes before the mark are unchanged.
_TAIL = 1 << 16
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE ids (id TEXT PRIMARY KEY, place INTEGER, mark BLOB) WITHOUT ROWID;
CREATE TABLE bad (place INTEGER PRIMARY KEY);
CREATE TABLE positions (place INTEGER PRIMARY KEY, start INTEGER, lines INTEGER);
CREATE TABLE lines (place INTEGER PRIMARY KEY, start INTEGER, good INTEGER);
CREATE TABLE held (place INTEGER PRIMARY KEY, id TEXT, good INTEGER, line TEXT);
CREATE TABLE calls (item TEXT, key TEXT, start INTEGER, answered INTEGER, line TEXT);
CREATE INDEX calls_by_key ON calls (key);
CREATE INDEX calls_by_item ON calls (item);
"""


@dataclass(frozen=True)
class OutputLine:
    """A line of output. place: the place of its prompt in the input. good: whether the prompt was
    answered, and did not fail."""

    place: int
    id: str
    text: str
    good: bool


class Index:
    """The index that the module describes. No other process may have the folder open.

    A place is the number of a prompt in the input, from 0. path: None keeps the index in memory.
    before_commit: functions that are called before each commit, to set marks. done: a byte for each
    place, 1 where no answer is needed any more. Raises BenchError if the file cannot be made.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.before_commit: list[Callable[[], None]] = []
        self.done = bytearray()
        # A byte for each row, 1 where it needs no answer.
        self._needless = bytearray()
        self._changes, self._committed = 0, time.monotonic()
        try:
            self._open()
            if self.meta("format") != _FORMAT:
                raise sqlite3.DatabaseError("is of another version")
        except sqlite3.DatabaseError:
            # Start anew: everything in the index can be read again from the files.
            self.remove()
            try:
                self._open()
            except sqlite3.Error as error:
                raise BenchError(f"{path}: cannot be made: {error}") from None

    def _open(self) -> None:
        name = ":memory:" if self._path is None else str(self._path)
        if self._path is not None:
            self._path.touch(mode=0o600)
        self._database = sqlite3.connect(name, isolation_level=None, check_same_thread=False)
        # Without other processes, SQLite needs no shared memory, which some file systems lack.
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute("PRAGMA cache_size = -16000")
        tables = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables:
            self._database.executescript(_TABLES)
            self._begin()
            self.set_meta("format", _FORMAT)
            self.commit()
        self._begin()

    def _begin(self) -> None:
        if not self._database.in_transaction:
            self._database.execute("BEGIN")

    def commit(self) -> None:
        """Save all changes so far, so that a kill does not lose them."""
        for tell in self.before_commit:
            tell()
        if self._database.in_transaction:
            self._database.execute("COMMIT")
        self._begin()
        self._changes, self._committed = 0, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to commit. Each look counts as a change."""
        self._changes += 1
        if self._changes % 16:
            return False
        late = time.monotonic() - self._committed > _MOST_SECONDS
        return late or self._changes >= _MOST_CHANGES

    def close(self) -> None:
        """Close the database. Changes since the last commit are undone."""
        self._database.close()

    def remove(self) -> None:
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self._database.close()
        if self._path is not None:
            for suffix in _SUFFIXES:
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def meta(self, name: str) -> Any:
        """The value that `set_meta` stored under that name; None if there is none."""
        row = self._database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def set_meta(self, name: str, value: Any) -> None:
        self._database.execute("REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    # What is done.

    def load_done(self, rows: int, samples: int, share: slice = slice(None)) -> None:
        """Fill `done` for that many rows, with that many samples of each.

        Bad rows and the rows of other shards need no answer. share: which of the good rows this
        batch answers.
        """
        count = rows * samples
        bad = {row for (row,) in self._database.execute("SELECT place FROM bad")}
        good = [row for row in range(rows) if row not in bad] if bad else range(rows)
        self._needless = bytearray(b"\1" * rows)
        for row in good[share]:
            self._needless[row] = 0
        self.done = bytearray(count)
        for sample in range(samples):
            self.done[sample::samples] = self._needless
        query = "SELECT place FROM lines WHERE good UNION ALL SELECT place FROM held WHERE good"
        for (place,) in self._database.execute(query):
            if place < count:
                self.done[place] = 1

    def set_done(self, place: int) -> None:
        if place < len(self.done):
            self.done[place] = 1

    def count_needless(self, rows: int) -> int:
        """How many of the first rows need no answer."""
        return self._needless.count(1, 0, rows)

    def next_open(self, place: int, end: int) -> int:
        """The next prompt, from that place on, that needs an answer; -1 if there is none before
        the end."""
        return self.done.find(0, place, end)

    def open_places(self, end: int) -> Iterator[int]:
        """The places before the end that need an answer now, whatever is answered later."""
        return compress(range(end), self.done[:end].translate(_TURNED))

    def is_done(self, identity: str) -> bool:
        """Whether the prompt with that id needs no answer any more."""
        place = self.place(identity)
        return place is not None and place < len(self.done) and bool(self.done[place])

    # The ids, the bad rows and the positions of the input.

    def forget_ids(self) -> None:
        """Forget the prompts, because the input is read anew."""
        self._database.execute("DELETE FROM ids")
        self._database.execute("DELETE FROM bad")
        self._database.execute("DELETE FROM positions")

    def add_id(self, identity: str, place: int, mark: bytes) -> bool:
        """Note a prompt. False if another prompt has that id. mark: a hash of the prompt's row."""
        row = (identity, place, mark)
        found = self._database.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", row)
        return found.rowcount > 0

    def knows(self, identity: str, place: int, mark: bytes) -> bool:
        """Whether the prompt was noted with this place and this mark."""
        query = "SELECT place, mark FROM ids WHERE id = ?"
        found: object = self._database.execute(query, (identity,)).fetchone()
        return found == (place, mark)

    def add_bad(self, row: int) -> None:
        """Note a row that is left out because it cannot be asked."""
        self._database.execute("INSERT INTO bad VALUES (?)", (row,))

    def add_position(self, row: int, start: int, lines: int) -> None:
        """Note a position from which that row can be read."""
        # Two positions have the same row if only blank lines are between them.
        self._database.execute("REPLACE INTO positions VALUES (?, ?, ?)", (row, start, lines))

    def position(self, row: int) -> tuple[int, int, int] | None:
        """The last noted position at or before that row, as its own row, start and lines. None if
        there is none."""
        query = "SELECT place, start, lines FROM positions WHERE place <= ? ORDER BY place DESC"
        found: tuple[int, int, int] | None = self._database.execute(query, (row,)).fetchone()
        return found

    def place(self, identity: str) -> int | None:
        """The place of the prompt with that id; None if there is none."""
        row = self._database.execute("SELECT place FROM ids WHERE id = ?", (identity,)).fetchone()
        return None if row is None else row[0]

    # The lines of the output.

    def forget_lines(self) -> None:
        """Forget the lines, because the output is read anew."""
        self._database.execute("DELETE FROM lines")

    def add_line(self, place: int, start: int, *, good: bool) -> None:
        """Note a line of the output that begins at that byte. good: whether it is an answer."""
        self._database.execute("REPLACE INTO lines VALUES (?, ?, ?)", (place, start, good))

    def count_failed(self) -> int:
        """How many lines of the output are failures."""
        query = "SELECT count(*) FROM lines WHERE NOT good"
        return int(self._database.execute(query).fetchone()[0])

    def in_order(self) -> bool:
        """Whether the lines of the output have the order of their prompts in the input."""
        query = "SELECT start FROM lines ORDER BY place"
        before = -1
        for (start,) in self._database.cursor().execute(query):
            if start < before:
                return False
            before = start
        return True

    def move_lines(self, order: str, rewrite: Callable[[Iterator[int]], Iterator[int]]) -> None:
        """Rewrite the output, and note where each line begins then.

        order: `place` keeps all lines, in the order of their prompts; `start` keeps only the good
        ones, in their present order. rewrite: gets the old start of each line in the new order, and
        yields its new start.
        """
        chosen = "WHERE good ORDER BY start" if order == "start" else "ORDER BY place"
        query = f"SELECT place, start, good FROM lines {chosen}"  # noqa: S608
        self._database.execute("CREATE TEMP TABLE moved (place INTEGER, start INTEGER, good)")
        try:
            begun = (start for _, start, _ in self._database.cursor().execute(query))
            lines = self._database.cursor().execute(query)
            for (place, _, good), start in zip(lines, rewrite(begun), strict=True):
                self._database.execute("INSERT INTO moved VALUES (?, ?, ?)", (place, start, good))
            self._database.execute("DELETE FROM lines")
            self._database.execute("INSERT INTO lines SELECT place, start, good FROM moved")
        finally:
            self._database.execute("DROP TABLE moved")

    # Lines that wait until the lines before them are written.

    def hold(self, line: OutputLine) -> None:
        """Keep a line that has to wait."""
        row = (line.place, line.id, line.good, line.text)
        self._database.execute("REPLACE INTO held VALUES (?, ?, ?, ?)", row)

    def take_held(self, place: int) -> OutputLine | None:
        """The waiting line of that place, which is removed; None if there is none."""
        query = "SELECT id, line, good FROM held WHERE place = ?"
        row = self._database.execute(query, (place,)).fetchone()
        if row is None:
            return None
        self._database.execute("DELETE FROM held WHERE place = ?", (place,))
        return OutputLine(place, row[0], row[1], bool(row[2]))

    def held(self) -> Iterator[int]:
        """The places of lines that wait, in order."""
        query = "SELECT place FROM held ORDER BY place"
        return (place for (place,) in self._database.cursor().execute(query))

    def drop_failed(self) -> None:
        """Forget the waiting lines of failed prompts: these prompts are asked again."""
        self._database.execute("DELETE FROM held WHERE NOT good")

    # The calls of prompts that have no line in the output yet.

    def forget_calls(self) -> None:
        """Forget the calls, because the journal is read anew."""
        self._database.execute("DELETE FROM calls")

    def add_call(
        self, item: str, key: str, start: int, *, answered: bool, line: str | None = None
    ) -> None:
        """Note a call. start: the byte at which it begins in the journal. line: the call itself, if
        there is no journal file."""
        row = (item, key, start, answered, line)
        self._database.execute("INSERT INTO calls VALUES (?, ?, ?, ?, ?)", row)

    def call(self, key: str) -> tuple[int, str | None] | None:
        """The start and the line of the latest answered call with that key; see `add_call`."""
        query = "SELECT start, line FROM calls WHERE key = ? AND answered ORDER BY rowid DESC"
        row = self._database.execute(query, (key,)).fetchone()
        return None if row is None else (row[0], row[1])

    def calls_of(self, item: str) -> list[tuple[int, str | None]]:
        """All calls of a prompt, including those that were not answered."""
        query = "SELECT start, line FROM calls WHERE item = ? ORDER BY rowid"
        return list(self._database.execute(query, (item,)))

    def count_calls(self) -> int:
        """How many answered calls there are."""
        query = "SELECT count(*) FROM calls WHERE answered"
        return int(self._database.execute(query).fetchone()[0])

    def settle(self, item: str) -> None:
        """Forget the calls of a prompt: its line is written, so nobody looks for them any more."""
        self._database.execute("DELETE FROM calls WHERE item = ?", (item,))

    # How far files are indexed.

    def mark(self, name: str, path: Path, size: int, lines: int) -> None:
        """Note that this many bytes and lines of a file are indexed."""
        self.set_meta(name, [size, lines, _tail(path, size)])

    def marked(self, name: str, path: Path) -> tuple[int, int]:
        """How many bytes and lines of a file are indexed; 0 if it is not the file that `mark`
        saw."""
        found = self.meta(name)
        if found is None:
            return 0, 0
        size, lines, tail = found
        return (size, lines) if _tail(path, size) == tail else (0, 0)


def _tail(path: Path, size: int) -> str | None:
    """A hash of the last bytes before that size; None if the file is shorter or unreadable."""
    if not size:
        return ""
    try:
        with path.open("rb") as file:
            begin = max(0, size - _TAIL)
            file.seek(begin)
            data = file.read(size - begin)
    except OSError:
        return None
    return hashlib.sha256(data).hexdigest() if len(data) == size - begin else None
