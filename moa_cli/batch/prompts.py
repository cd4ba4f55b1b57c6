"""A batch: prompts from a file that a profile answers, one line of output for each."""

from __future__ import annotations

import hashlib
import io
import json
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from functools import lru_cache, partial
from itertools import groupby, islice
from typing import Any, Literal

from moa_cli.batch.index import Index
from moa_cli.batch.lines import LineWriter
from moa_cli.batch.reading import PLAIN, InputFormat, is_openai, unused_fields
from moa_cli.batch.shards import Shard
from moa_cli.batch.sources import (
    JoinedRows,
    Position,
    Record,
    Rows,
    Source,
    TableRows,
    rows_of,
)
from moa_cli.bench.data.items import DataRow, Item, read_own
from moa_cli.bench.run.arms import Arm, make_arms
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.settings import WorkSettings
from moa_cli.core.conversation import Message, Part, text_of_parts
from moa_cli.core.errors import BenchError
from moa_cli.core.files.attachments import file_of_uri
from moa_cli.core.text import are, plural
from moa_cli.core.values import JSON, ValueFault
from moa_cli.engine.prompts import AGGREGATE_AND_SYNTHESIZE
from moa_cli.profile import Profile, to_table, waiting_for_all
from moa_cli.server.wires.chat_messages import read_message, with_call_ids

_KEPT_FILES = 64
_INPUT = "input"
# Up to this many rows, reading on is faster than seeking.
_NEAR = 64
# At most this many reasons why rows are left out are shown.
_MOST_REASONS = 5


@dataclass(frozen=True)
class InputDigest:
    """The input of a batch.

    lines: how many rows. sha256: the hash of its bytes, unpacked. rows: the hash of the parsed
    rows, which does not depend on line ends or the encoding. ids: the hash of the ids of prompts; a
    blank line changes the numbers of those after it. rows and ids are None in files of older
    versions.
    """

    lines: int
    sha256: str
    rows: str | None = None
    ids: str | None = None

    def is_beginning_of(self, later: InputDigest | None) -> bool:
        """Whether a later input begins with the same rows. later: its first rows, as many as this
        input has; None if it has fewer."""
        if later is None or self.rows is None:
            return later is not None and self.sha256 == later.sha256
        return self.rows == later.rows and self.ids in (None, later.ids)


@dataclass(frozen=True, kw_only=True)
class BatchSettings(WorkSettings):
    """The content of batch.json: everything on which the output of a batch depends; see
    `Batch`."""

    input: InputDigest
    strict: bool
    proposals: bool
    profile: Mapping[str, Any]
    prompt: str
    reading: Mapping[str, Any] | None = None
    shard: str | None = None
    provider_batch: Literal[True] | None = None


@dataclass(frozen=True)
class Intake:
    """What the first reading of the input found.

    digest: the digest of the input. bad: how many rows are left out. reasons: why, for the first of
    them. unused: fields of OpenAI's rows that have no effect, because the profile decides.
    """

    digest: InputDigest
    bad: int = 0
    reasons: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


@dataclass
class Batch:
    """What is asked, and how the answers are written.

    source: where the prompts come from. kind: its format, one of FORMATS. reading: how rows become
    prompts. limit: how many rows, from the first; None is all. strict: whether a turn that lost a
    proposer counts as failed. proposals: whether output lines include the proposals. shard: the
    share of the prompts that is answered; None is all. by_jobs: whether the batch interfaces of
    providers answer, at their prices.

    rows: the reader of the source. arm: the mixture that answers.

    Raises UsageError or BenchError if the source cannot be read in this format.
    """

    profile: Profile
    source: Source
    kind: str
    reading: InputFormat = PLAIN
    limit: int | None = None
    strict: bool = False
    proposals: bool = False
    shard: Shard | None = None
    by_jobs: bool = False
    rows: Rows = field(init=False)
    arm: Arm = field(init=False)

    def __post_init__(self) -> None:
        self.rows = rows_of(self.source, self.kind)
        for table in self.rows.parts if isinstance(self.rows, JoinedRows) else (self.rows,):
            if isinstance(table, TableRows):
                self.reading.check_columns(table.source.name, table.names)
        if self.by_jobs:
            # A quorum would discard answers that are paid for anyway.
            self.profile = waiting_for_all(self.profile)
        if self.strict:
            [self.arm] = make_arms(self.profile, ("mixture",), "")
        else:
            self.arm = Arm("mixture", replace(self.profile, multi_turn=True))

    @property
    def share(self) -> slice:
        """Which of the prompts are answered."""
        return slice(None) if self.shard is None else self.shard.places

    @property
    def writer(self) -> LineWriter:
        """The writer of the output's lines."""
        return LineWriter(self.profile.name, self.proposals, self.reading.samples)

    def reader(self) -> Callable[[Record], Item]:
        """A function that makes an item of a record. It raises BenchError, naming the line and the
        field."""
        read_messages = _MessageReader()

        def read(record: Record) -> Item:
            row = self.rows.row(record)
            item = self.reading.item(row, read_messages)
            if any("\ud800" <= character <= "\udfff" for character in item.id):
                raise BenchError(f"{row.place}: the id holds half of a surrogate pair")
            return item

        return read

    def models(self) -> tuple[str, ...]:
        """The models that are asked."""
        return tuple(dict.fromkeys(self.arm.profile.models()))

    def settings(self, digest: InputDigest) -> BatchSettings:
        """Everything on which a line of output depends."""
        return BatchSettings(
            input=digest,
            strict=self.strict,
            proposals=self.proposals,
            profile={"name": self.profile.name, **to_table(self.profile)},
            prompt=AGGREGATE_AND_SYNTHESIZE,
            reading=self.reading.settings,
            shard=None if self.shard is None else str(self.shard),
            provider_batch=True if self.by_jobs else None,
        )

    def take_in(self, index: Index, known: InputDigest | None) -> tuple[Intake, bool]:
        """Check every row and add its ids to the index. An input that was checked before and is
        unchanged is not read again.

        known: the input of an earlier start. Returns what was found, and whether the input is the
        known one, perhaps with more rows at its end.
        Raises BenchError, naming the line, if a row is wrong or an id occurs twice, UsageError if
        the input is not text.
        """
        way, stamp = [type(self.rows).__name__, repr(self.reading)], self.source.stamp()
        checked = index.meta(_INPUT) or [None, None, None]
        # An unchanged stamp avoids the hash: for a large file, that takes as long as the rest of a
        # start.
        is_same = stamp is not None and stamp == checked[2]
        if checked[0] == way and (is_same or self.source.sha256() == checked[1][0][1]):
            index.set_meta(_INPUT, [*checked[:2], stamp])
            digest, bad, reasons, unused = checked[1]
            found = Intake(InputDigest(*digest), bad, tuple(reasons), tuple(unused))
            same = known is not None and known.is_beginning_of(found.digest)
            if known is None or same:
                return found, same
        index.forget_ids()
        index.set_meta(_INPUT, None)
        found, before = self._check(index, known, self.source.sha256())
        index.set_meta(_INPUT, [way, astuple(found), self.source.stamp() and stamp])
        return found, known is not None and known.is_beginning_of(before)

    def _check(
        self, index: Index, known: InputDigest | None, sha256: str
    ) -> tuple[Intake, InputDigest | None]:
        """Read the input: what was found, and its first rows, as many as the known input has."""
        seen, ids = hashlib.sha256(), hashlib.sha256()
        count, before = 0, None
        reasons: list[str] = []
        unused: dict[str, None] = {}
        bad = 0
        read = self.reader()

        def passed(position: Position) -> None:
            index.add_position(count, position.start, position.lines)

        for place, record in enumerate(self.rows.records(passed=passed)):
            try:
                item = read(record)
                row = _bytes_of(item)
                for order, sample in enumerate(
                    self.reading.sampled(item), place * self.reading.samples
                ):
                    if not index.add_id(sample.id, order, _mark(row)):
                        raise _twice(self.rows.row(record).place, sample.id)
                seen.update(row + b"\n")
                ids.update(item.id.encode() + b"\n")
                if is_openai(item.fields):
                    unused |= dict.fromkeys(unused_fields(item.fields))
            except BenchError as error:
                if not self.reading.skip_bad:
                    raise
                bad += 1
                reasons += [error.message] * (len(reasons) < _MOST_REASONS)
                index.add_bad(place)
                seen.update(json.dumps(record[1], default=str).encode() + b"\n")
            count += 1
            if known is not None and count == known.lines:
                before = InputDigest(count, sha256, seen.hexdigest(), ids.hexdigest())
        if count == bad:
            told = f": all {plural(bad, 'row')} {are(bad)} bad, first {reasons[0]}" if bad else ""
            raise BenchError(f"{self.source.name}: holds no prompts{told}")
        digest = InputDigest(count, sha256, seen.hexdigest(), ids.hexdigest())
        return Intake(digest, bad, tuple(reasons), tuple(unused)), before


def _bytes_of(item: Item) -> bytes:
    """All fields of the item's row."""
    return json.dumps(item.fields).encode()


def _mark(row: bytes) -> bytes:
    return hashlib.blake2b(row, digest_size=8).digest()


def _twice(name: str, identity: str) -> BenchError:
    return BenchError(
        f"{name}: two lines have the id {identity}",
        hint="lines without an `id` are called by their number",
    )


class Todo:
    """The work of a batch: its prompts without an answer. Each iteration reads the input again.

    count: how many places, from the first, belong to the batch. running: by item id, the work that
    some caller still holds.
    """

    def __init__(self, batch: Batch, index: Index, count: int) -> None:
        self.batch = batch
        self.index = index
        self.count = count
        self.running: weakref.WeakValueDictionary[str, Work] = weakref.WeakValueDictionary()

    def __len__(self) -> int:
        return self.index.done.count(0, 0, self.count)

    def __iter__(self) -> Iterator[Work]:
        return self.at(self._places())

    def at(self, places: Iterable[int]) -> Iterator[Work]:
        """The work at these places, which must be in ascending order."""
        for work in self._works(iter(places)):
            self.running[work.item.id] = work
            yield work

    def place(self, item: str) -> int | None:
        """The place of an item that has no answer; None if it has one, or is not in the input."""
        return None if self.index.is_done(item) else self.index.place(item)

    def sample(self, most: int) -> list[Work]:
        """At most this many of the prompts, spread evenly over the input."""
        step = max(1, -(-len(self) // most))
        return list(self._works(islice(self.index.open_places(self.count), 0, None, step)))

    def _places(self) -> Iterator[int]:
        place = -1
        while (place := self.index.next_open(place + 1, self.count)) >= 0:
            yield place

    def _works(self, places: Iterator[int]) -> Iterator[Work]:
        """The work at these places, which must be in ascending order. Raises BenchError if the
        input has changed."""
        read, reading = self.batch.reader(), self.batch.reading
        rows = _RisingRows(self.batch, self.index)
        for row, wanted in groupby(places, lambda place: place // reading.samples):
            record = rows.record(row)
            item = read(record)
            if not self.index.knows(item.id, row * reading.samples, _mark(_bytes_of(item))):
                raise BenchError(
                    f"{self.batch.source.name}: row {record[0]} has changed since it was checked",
                    hint="undo the change and run the same command again, or name another OUT",
                )
            samples = list(reading.sampled(item))
            for place in wanted:
                yield Work(self.batch.arm, samples[place % reading.samples], place)


class _RisingRows:
    """Reads single rows of a batch's input, in ascending order. It seeks over long gaps between
    two rows."""

    def __init__(self, batch: Batch, index: Index) -> None:
        self._batch = batch
        self._index = index
        self._next, self._records = 0, batch.rows.records()

    def record(self, row: int) -> Record:
        """The record of that row, which counts from 0. Raises BenchError if the input has become
        shorter."""
        if row - self._next > _NEAR:
            found, start, lines = self._index.position(row) or (0, 0, 0)
            if found > self._next:
                self._next = found
                self._records = self._batch.rows.records(Position(start, lines))
        for record in self._records:
            self._next += 1
            if self._next > row:
                return record
        raise BenchError(f"{self._batch.source.name}: has fewer rows than when it was checked")


def read_prompts(data: bytes, name: str) -> tuple[Item, ...]:
    """The prompts in a file's bytes: at least one, with unique ids.

    name: the name of the file. Its suffix decides whether each line is a prompt or a JSON object
    (see `read_own`).
    Raises BenchError, naming the line, if the input is wrong, UsageError if it is not text.
    """
    is_json = name.lower().endswith((".jsonl", ".ndjson", ".json"))
    rows = rows_of(Source(name, lambda: io.BytesIO(data)), "jsonl" if is_json else "lines")
    read_messages = _MessageReader()
    items = tuple(read_own(rows.row(record), read_messages) for record in rows.records())
    if not items:
        raise BenchError(f"{name}: holds no prompts")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise _twice(name, item.id)
        seen.add(item.id)
    return items


class _MessageReader:
    """Reads the messages of rows, in the format of chat completions. The text of attached files is
    extracted.

    A file that many rows attach is read once, if it is among the last ones.
    """

    def __init__(self) -> None:
        self._file = lru_cache(maxsize=_KEPT_FILES)(partial(file_of_uri, error=BenchError))

    def __call__(self, row: DataRow, given: list[object]) -> list[Message]:
        """The messages of a row. Raises BenchError, naming the line and the field."""
        return with_call_ids([self._read(row, *placed) for placed in enumerate(given)])

    def _read(self, row: DataRow, place: int, given: object) -> Message:
        try:
            message = read_message(given)
        except ValueFault as fault:
            fault.path = ("messages", place, *fault.path)
            raise BenchError(f"{row.place}: {fault.sentence(JSON)}") from None
        if not any(map(_is_file, message.parts)):
            return message
        parts = []
        for number, part in enumerate(message.parts):
            try:
                parts.append(self._file(part.url, part.name) if _is_file(part) else part)
            except BenchError as error:
                at = JSON.path(("messages", place, "content", number))
                raise BenchError(f"{row.place}: `{at}`: {error.message}", hint=error.hint) from None
        kept = tuple(parts) if any(part.kind != "text" for part in parts) else ()
        return replace(message, content=text_of_parts(parts), parts=kept)


def _is_file(part: Part) -> bool:
    """Whether a part is a file whose text is not extracted yet."""
    return part.kind == "file" and bool(part.url) and not part.text
