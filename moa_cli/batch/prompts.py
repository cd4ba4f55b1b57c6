"""A batch: prompts from a file, and the lines that come of them."""

from __future__ import annotations

import hashlib
import io
import json
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from typing import Any

from moa_cli.batch.index import Index
from moa_cli.batch.journal import IndexedJournal
from moa_cli.batch.sources import JsonRows, LineRows, Record, Rows, Source
from moa_cli.bench.data.items import DataRow, Item, read_own
from moa_cli.bench.run.arms import Arm, make_arms
from moa_cli.bench.run.journal import CallAnswer, Result, path_seconds
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.settings import WorkSettings
from moa_cli.core.attachments import file_of_uri
from moa_cli.core.conversation import Message, Part, text_of_parts
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.jsonl import usage_to_dict
from moa_cli.core.text import dumps
from moa_cli.core.values import JSON, ValueFault
from moa_cli.engine.prompts import AGGREGATE_AND_SYNTHESIZE
from moa_cli.profile import Profile, to_table
from moa_cli.server.wires.chat_messages import read_message, with_call_ids

_KEPT_FILES = 64
_INPUT = "input"
# What a line of output says itself; an input's field of such a name is put under `input`.
_OURS = (
    "reply",
    "profile",
    "model",
    "usage",
    "cost",
    "seconds",
    "finish_reason",
    "citations",
    "lost",
    "proposals",
    "error",
    "input",
)


@dataclass(frozen=True)
class InputDigest:
    """The input of a batch.

    lines: how many prompts. sha256: of its bytes, unpacked. rows: of what they mean, whatever
    ends lines or encodes letters; None in files of versions that did not know it.
    """

    lines: int
    sha256: str
    rows: str | None = None


@dataclass(frozen=True, kw_only=True)
class BatchSettings(WorkSettings):
    """batch.json: all that the lines of a batch's output depend on; see `Batch`."""

    input: InputDigest
    strict: bool
    proposals: bool
    profile: Mapping[str, Any]
    prompt: str


@dataclass(frozen=True)
class Batch:
    """What is asked, and how it is written down.

    source: of the prompts. rows: how it is read. arm: what answers. limit: how many prompts, from
    the first; None is all. strict: whether a turn that lost a proposer has failed. proposals:
    whether lines hold them.
    """

    profile: Profile
    source: Source
    rows: Rows
    arm: Arm
    limit: int | None
    strict: bool
    proposals: bool

    def items(self) -> Iterator[tuple[int, Record, Callable[[Record], Item]]]:
        """Place and record of each prompt in input order, and what makes an item of it."""
        read_messages = _MessageReader()

        def item(record: Record) -> Item:
            return read_own(self.rows.row(record), read_messages)

        return ((place, record, item) for place, record in enumerate(self.rows.records()))

    def models(self) -> tuple[str, ...]:
        """The models that are asked."""
        return tuple(dict.fromkeys(self.arm.profile.models()))

    def settings(self, digest: InputDigest) -> BatchSettings:
        """All that a line of output depends on."""
        return BatchSettings(
            input=digest,
            strict=self.strict,
            proposals=self.proposals,
            profile={"name": self.profile.name, **to_table(self.profile)},
            prompt=AGGREGATE_AND_SYNTHESIZE,
        )

    def take_in(self, index: Index, known: InputDigest | None) -> tuple[InputDigest, bool]:
        """Check every prompt and tell the index their ids; what was checked before is not read
        again.

        known: the input of an earlier start. Returns the input of this one, and whether it is the
        same or goes on from there, with more prompts behind it.
        Raises BenchError, naming the line, where it is wrong or an id is there twice, UsageError
        if it is not text.
        """
        sha256, kind = self.source.sha256(), type(self.rows).__name__
        checked = index.meta(_INPUT)
        if checked is not None and checked[:2] == [sha256, kind]:
            digest = InputDigest(*checked[2])
            same = known is not None and (known.sha256 == sha256 or known.rows == digest.rows)
            if known is None or same:
                return digest, same
        index.forget_ids()
        index.set_meta(_INPUT, None)
        seen, count, before = hashlib.sha256(), 0, None
        for place, record, read in self.items():
            item = read(record)
            if not index.add_id(item.id, place):
                raise BenchError(
                    f"{self.source.name}: two lines have the id {item.id}",
                    hint="lines without an `id` are called by their number",
                )
            seen.update(json.dumps(item.fields).encode() + b"\n")
            count += 1
            if known is not None and count == known.lines:
                before = seen.hexdigest()
        if not count:
            raise BenchError(f"{self.source.name}: holds no prompts")
        digest = InputDigest(count, sha256, seen.hexdigest())
        index.set_meta(_INPUT, [sha256, kind, astuple(digest)])
        same = known is not None and (known.sha256 == sha256 or before == known.rows is not None)
        return digest, same

    def line(self, item: Item, result: Result, journal: IndexedJournal) -> str:
        """What came of an item as a line of JSON, without its line end."""
        fields = {name: value for name, value in item.fields.items() if name != "id"}
        clashing = {name: fields.pop(name) for name in _OURS if name in fields}
        identity = item.fields.get("id")
        if str(identity) != item.id:
            clashing |= {"id": identity} if "id" in item.fields else {}
            identity = int(item.id)
        values: dict[str, Any] = {"id": identity, **fields}
        if clashing:
            values["input"] = clashing
        return dumps(values | self._outcome(result, journal))

    def _outcome(self, result: Result, journal: IndexedJournal) -> dict[str, Any]:
        turn = result.turns[-1] if result.turns else None
        reply = turn.reply if turn else None
        usage = usage_to_dict(journal.usage_of(result.item))
        values: dict[str, Any] = {
            "reply": result.replies[-1] if result.replies else None,
            "profile": self.profile.name,
            "model": (reply.answered_by or reply.model) if reply else None,
            "usage": usage,
            "cost": usage["cost"],
            "seconds": round(path_seconds(result, journal), 3),
            "finish_reason": reply.finish_reason if reply else None,
        }
        if reply and reply.citations:
            values["citations"] = [asdict(cited) for cited in reply.citations]
        if turn and turn.lost:
            values["lost"] = list(turn.lost)
        if self.proposals and turn:
            values["proposals"] = [list(map(_proposal, layer)) for layer in turn.proposals]
        if result.error is not None:
            values["error"] = asdict(result.error)
        return values


def _proposal(answer: CallAnswer) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model": answer.model,
        "answered_by": answer.answered_by,
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": usage_to_dict(answer.usage),
    }
    if answer.citations:
        values["citations"] = [asdict(cited) for cited in answer.citations]
    if answer.unfinished:
        values["unfinished"] = True
    return values if answer.error is None else values | {"error": asdict(answer.error)}


class Todo:
    """The prompts of a batch that have no answer, as work; gone through again, it is read again.

    count: of places, from the first, that belong to it. running: the work that somebody holds on
    to, by its item's id.
    """

    def __init__(self, batch: Batch, index: Index, count: int) -> None:
        self._batch = batch
        self._index = index
        self.count = count
        self.running: weakref.WeakValueDictionary[str, Work] = weakref.WeakValueDictionary()

    def __len__(self) -> int:
        return self._index.done.count(0, 0, self.count)

    def __iter__(self) -> Iterator[Work]:
        for place, record, read in islice(self._batch.items(), self.count):
            if not self._index.is_done(place):
                work = Work(self._batch.arm, read(record), place)
                self.running[work.item.id] = work
                yield work

    def sample(self, most: int) -> list[Work]:
        """So many of them at most, spread evenly."""
        step = max(1, -(-len(self) // most))
        found, number = [], 0
        for place, record, read in islice(self._batch.items(), self.count):
            if not self._index.is_done(place):
                if number % step == 0:
                    found.append(Work(self._batch.arm, read(record), place))
                number += 1
        return found


def make_batch(
    profile: Profile,
    source: Source,
    *,
    lines: bool,
    limit: int | None = None,
    strict: bool = False,
    proposals: bool = False,
) -> Batch:
    """The batch that is asked for.

    source: of the prompts. lines: whether each line is a prompt, and not a JSON object (see
    `read_own`). The others: see `Batch`. Raises UsageError if the source is not text.
    """
    rows = LineRows(source) if lines else JsonRows(source)
    if strict:
        [arm] = make_arms(profile, ("mixture",), "")
    else:
        arm = Arm("mixture", replace(profile, multi_turn=True))
    return Batch(profile, source, rows, arm, limit, strict, proposals)


def read_prompts(data: bytes, name: str, *, lines: bool) -> tuple[Item, ...]:
    """The prompts in a file's bytes, one at least; their ids are unique.

    name: what messages call it. lines: whether each line is a prompt, and not a JSON object
    (see `read_own`). Raises BenchError, naming the line, where the input is wrong, UsageError if it
    is not text.
    """
    source = Source(name, lambda: io.BytesIO(data))
    rows = LineRows(source) if lines else JsonRows(source)
    read_messages = _MessageReader()
    items = tuple(read_own(rows.row(record), read_messages) for record in rows.records())
    if not items:
        raise BenchError(f"{name}: holds no prompts")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise BenchError(
                f"{name}: two lines have the id {item.id}",
                hint="lines without an `id` are called by their number",
            )
        seen.add(item.id)
    return items


class _MessageReader:
    """Reads the messages of lines, as a chat completion has them; files get their texts.

    A file that many lines ask about is read once.
    """

    def __init__(self) -> None:
        self._file = lru_cache(maxsize=_KEPT_FILES)(partial(file_of_uri, error=BenchError))

    def __call__(self, row: DataRow, given: list[object]) -> list[Message]:
        """The messages of a line. Raises BenchError naming the line and the field."""
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
    """Whether a part holds a file whose text is not known."""
    return part.kind == "file" and bool(part.url) and not part.text


def is_json_name(name: str) -> bool:
    """Whether a file of that name holds JSON lines, and not a prompt on each line."""
    return name.lower().endswith((".jsonl", ".ndjson", ".json"))


def check_no_table(name: str, remedy: str) -> None:
    """Raise UsageError for a file that is named as a table: its head would be sent as a prompt.

    remedy: what to do about it.
    """
    if name.lower().endswith((".csv", ".tsv")):
        raise UsageError(f"{name}: is a table, whose lines are not prompts", hint=remedy)
