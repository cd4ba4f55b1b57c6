"""The journal of calls, so that no cost is lost when a process is killed.

Before each request is sent, a line is written to the journal of this process (see `store.lease`).
Another line is written when the call has ended, and then its usage is added to the database. The
next process that opens the store counts the calls that a killed process had begun: by the usage in
the journal if the call had ended, else by the estimate in its first line.

The journal contains numbers and names of models, but no prompts and no answers.
"""

from __future__ import annotations

import atexit
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from moa_cli.core.conversation import Usage
from moa_cli.core.frozen import quickly_made
from moa_cli.core.ledger import CallBegun
from moa_cli.core.money import Price, check_price, price_values
from moa_cli.core.values import load_value
from moa_cli.store.lease import Lease, lease_for

# A journal of more bytes is rewritten without the calls that are in the database.
_LONGEST_JOURNAL = 1_000_000
# More turns than one process can begin: a larger number in a journal is damage.
_MOST_TURNS = 1_000_000_000
# One encoder for all lines, because `json.dumps` would make a new one for each line.
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
# A template for a usage as JSON. All fields are numbers.
_USAGE = "{" + ",".join([f'"{field.name}":%r' for field in fields(Usage)]) + "}"


@dataclass
class JournalledCall:
    """A request that was sent or was about to be sent.

    number: in the journal. day: when it began, in the time zone of the budget. group: a number that
    all calls of a turn share. turn: the number of the turn in the store; None if it is not stored.
    usage: None until the call has ended; if a call needs several requests, the last one has the
    usage of all. void: whether nothing is billed for it. booked: whether it is in the database.
    key: the name of the key of `moa serve` that it was made for; "" if there is none.
    """

    number: int
    day: str
    group: int
    turn: int | None
    begun: CallBegun
    usage: Usage | None = None
    void: bool = False
    booked: bool = False
    key: str = ""

    @property
    def taken(self) -> Usage:
        """Its usage; an estimate if the real usage is not known."""
        return self.begun.usage if self.usage is None else self.usage


@quickly_made
@dataclass(frozen=True)
class SpendingEntry:
    """The usage of a call, to be added to the sums of its day and model in the database.

    first: whether it is the first call of its model in its turn. numbers: of its requests in the
    journal. key: the name of the key of `moa serve` that it was made for, or "".
    """

    day: str
    model: str
    usage: Usage
    first: bool
    numbers: tuple[int, ...]
    key: str = ""


@dataclass(eq=False)
class Journal:
    """The journal of this process for one store; threads may share it.

    lease: the lease that it belongs to; None if no file can be written, so that the journal is lost
    when the process is killed. trouble: why the last line could not be written, or None. users: the
    ids of the objects that write it.
    """

    lease: Lease | None
    trouble: OSError | None = None
    users: set[int] = field(default_factory=set)
    _mutex: threading.Lock = field(default_factory=threading.Lock)
    _entries: dict[int, JournalledCall] = field(default_factory=dict)
    _number: int = 0
    _size: int = 0
    _kept_turn: int = 0
    _forgotten: list[int] = field(default_factory=list)
    # Lines about ended calls. They are written with the next line, or at the next turn of the event
    # loop.
    _held: list[str] = field(default_factory=list)
    _uncounted: int = 0
    _uncounted_day: str = ""

    def begin(
        self, day: str, group: int | None, turn: int | None, begun: CallBegun, key: str = ""
    ) -> int:
        """Note that a request will be sent, and return its number.

        group: the number of the first request of the same turn; None if this is the first.
        """
        with self._mutex:
            self._number += 1
            entry = JournalledCall(self._number, day, group or self._number, turn, begun, key=key)
            self._entries[entry.number] = entry
            self._kept_turn = turn or self._kept_turn
            self._write(_begin_line(entry))
            return entry.number

    def grown(self, number: int, completion_tokens: int) -> None:
        """Note how many tokens the answer to the request may have."""
        with self._mutex:
            entry = self._entries[number]
            entry.begun = replace(entry.begun, completion_tokens=completion_tokens)
            self._write(f'{{"grown":{number},"completion":{completion_tokens}}}')

    def priced(self, number: int, price: Price) -> None:
        """Note the price of the request's model, when it becomes known."""
        with self._mutex:
            entry = self._entries[number]
            entry.begun = replace(entry.begun, price=price)
            self._write(_ENCODE({"priced": number, "price": price_values(price)}))

    def void(self, number: int) -> None:
        """Note that nothing is billed for the request."""
        with self._mutex:
            self._entries[number].void = True
            self._done(number)
            self._write(f'{{"void":{number}}}')

    def end(self, numbers: Sequence[int], usage: Usage) -> str:
        """Note the usage of a call. Returns the day when its last request began."""
        with self._mutex:
            for number in numbers[:-1]:
                self._entries[number].void = True
            last = self._entries[numbers[-1]]
            last.usage = usage
            self._write_soon(_end_line(numbers, usage))
            return last.day

    def uncounted(self, turns: int, day: str) -> None:
        """Change the number of turns that began but are not counted in the database. turns: is
        added to the number; it may be negative. The next process counts the turns that are left at
        the end."""
        with self._mutex:
            self._uncounted, self._uncounted_day = self._uncounted + turns, day

    def booked(self, numbers: Iterable[int]) -> None:
        """Note that these requests are in the database."""
        with self._mutex:
            for number in numbers:
                self._done(number)
            if self._size > _LONGEST_JOURNAL and self.lease is not None:
                self._shorten(self.lease)

    def _done(self, number: int) -> None:
        entry = self._entries[number]
        entry.booked = True
        if self.lease is None:
            del self._entries[number]

    def _shorten(self, lease: Lease) -> None:
        """Remove the calls that are in the database, except those of the turn that runs now."""
        old: list[int] = []
        lines: list[str] = []
        for entry in self._entries.values():
            if entry.booked and (entry.turn is None or entry.turn != self._kept_turn):
                old.append(entry.number)
                continue
            lines.append(_begin_line(entry))
            if entry.void:
                lines.append(f'{{"void":{entry.number}}}')
            if entry.usage is not None:
                lines.append(_end_line((entry.number,), entry.usage))
        try:
            lease.rewrite(lines)
        except OSError:
            return  # The longer journal is still correct.
        self._held.clear()
        self._size = sum(map(len, lines))
        for number in old:
            del self._entries[number]
        self._forgotten += old

    def forgotten(self) -> list[int]:
        """The numbers of calls that were removed from the journal since the last call, so that the
        database can remove them from `booked`, too."""
        with self._mutex:
            forgotten, self._forgotten = self._forgotten, []
            return forgotten

    def _write(self, *lines: str) -> None:
        if self.lease is None:
            return
        lines, self._held = (*self._held, *lines), []
        if not lines:
            return
        self._size += sum(map(len, lines))
        try:
            self.lease.write("\n".join(lines))
            self.trouble = None
        except OSError as error:
            self.trouble = error

    def _write_soon(self, line: str) -> None:
        """Write a line at the next turn of the event loop, together with others. A server ends
        several calls in one turn of the loop, and a write takes longer than making the line. If the
        process is killed before, the line is missing, as after a kill a moment earlier."""
        import asyncio

        if self.lease is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write(line)
            return
        if not self._held:
            loop.call_soon(self.write_held)
        self._held.append(line)

    def write_held(self) -> None:
        """Write the lines about ended calls that wait for the next turn of the event loop."""
        with self._mutex:
            self._write()

    def close(self) -> None:
        """End the journal. A forked process does nothing, because the journal is its parent's."""
        if self.lease is not None and self.lease.is_mine:
            left = self._uncounted
            turns = (_ENCODE({"turns": left, "day": self._uncounted_day}),) if left else ()
            self._write(*turns)
            settled = not left and all(call.booked for call in self._entries.values())
            self.lease.close(settled=settled)


# The journals of this process, by the path of the database.
_JOURNALS: dict[Path, Journal] = {}


def journal_for(database: Path, user: object) -> Journal:
    """The journal of this process for a database file. Raises OSError if it cannot be written.

    user: the object that will call `leave_journal`, unless the process ends before.
    """
    lease = lease_for(database)
    journal = _JOURNALS.get(database)
    if journal is None or journal.lease is not lease:
        journal = _JOURNALS[database] = Journal(lease)
    journal.users.add(id(user))
    return journal


def leave_journal(database: Path, user: object) -> None:
    """Note that a user no longer needs the journal; it ends with its last user."""
    journal = _JOURNALS.get(database)
    if journal is not None:
        journal.users.discard(id(user))
        if not journal.users:
            del _JOURNALS[database]
            journal.close()


@atexit.register
def _close_all() -> None:
    for journal in list(_JOURNALS.values()):
        journal.close()


@dataclass(eq=False)
class TurnCalls:
    """Notes the calls of one turn in a journal; see `ledger.TurnLedger`.

    today: returns the current day. ended: called with the entry to add to the database. trouble:
    called if a line cannot be written. turn: returns the number of the turn in the store, or None
    if it has none yet. key: the name of the key of `moa serve` that the turn is made for, or "".
    """

    _journal: Journal
    _today: Callable[[], str]
    _ended: Callable[[SpendingEntry], None]
    _trouble: Callable[[OSError], None]
    _turn: Callable[[], int | None] = lambda: None
    key: str = ""
    _group: int | None = None
    _models: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        journal = self._journal
        self.grown, self.priced, self.void = journal.grown, journal.priced, journal.void

    def begin(self, call: CallBegun) -> int:
        """See `TurnLedger.begin`."""
        number = self._journal.begin(self._today(), self._group, self._turn(), call, self.key)
        self._group = self._group or number
        if self._journal.trouble is not None:
            self._trouble(self._journal.trouble)
        return number

    def end(self, numbers: Sequence[int], model: str, usage: Usage) -> None:
        """See `TurnLedger.end`."""
        # The call counts for the day on which it began, because the budget of that day allowed it.
        day = self._journal.end(numbers, usage)
        first = model not in self._models
        self._models.add(model)
        self._ended(SpendingEntry(day, model, usage, first, tuple(numbers), self.key))


def _begin_line(entry: JournalledCall) -> str:
    begun = entry.begun
    key = f'"key":{_text(entry.key)},' if entry.key else ""
    price = "null" if begun.price is None else _ENCODE(price_values(begun.price))
    return (
        f'{{"begin":{entry.number},"day":{_text(entry.day)},"group":{entry.group},'
        f'"turn":{_number(entry.turn)},{key}"model":{_text(begun.model)},'
        f'"prompt_tokens":{begun.prompt_tokens},"completion_tokens":{begun.completion_tokens},'
        f'"price":{price},"layer":{begun.layer},"index":{_number(begun.index)}}}'
    )


def _end_line(numbers: Sequence[int], usage: Usage) -> str:
    # The same text as from `_ENCODE`, in a fraction of the time.
    told = _USAGE % tuple(vars(usage).values())
    return f'{{"end":[{",".join(map(str, numbers))}],"usage":{told}}}'


@lru_cache(maxsize=256)
def _text(text: str) -> str:
    """A text as JSON. It is cached, because nearly all calls of a process have the same few
    texts."""
    return _ENCODE(text)


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)


def read_calls(lines: Iterable[str]) -> list[JournalledCall]:
    """The calls in a journal. Broken lines are left out."""
    calls: dict[int, JournalledCall] = {}
    for line in lines:
        try:
            _read(json.loads(line), calls)
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
    return list(calls.values())


def read_turns(lines: Iterable[str]) -> dict[str, int]:
    """For each day, the number of turns that the process of a journal could not count. Broken lines
    are left out."""
    found: dict[str, int] = {}
    for line in lines:
        if not line.startswith('{"turns":'):
            continue
        with suppress(ValueError, TypeError, LookupError, RecursionError):
            table = json.loads(line)
            day, turns = str(table["day"]), table["turns"]
            if type(turns) is int and 0 < turns <= _MOST_TURNS:
                found[day] = found.get(day, 0) + turns
    return found


def _read(table: dict[str, Any], calls: dict[int, JournalledCall]) -> None:
    """Apply a line. Raises ValueError, TypeError or LookupError if it is not a valid one."""
    if "begin" in table:
        number, day, group, turn = (table.pop(name) for name in ("begin", "day", "group", "turn"))
        key = str(table.pop("key", ""))
        calls[number] = JournalledCall(
            int(number), str(day), int(group), turn, load_value(CallBegun, table), key=key
        )
    elif "grown" in table:
        call = calls[table["grown"]]
        call.begun = replace(call.begun, completion_tokens=int(table["completion"]))
    elif "priced" in table:
        call = calls[table["priced"]]
        price = load_value(Price, table["price"])
        check_price(price)
        call.begun = replace(call.begun, price=price)
    elif "void" in table:
        calls[table["void"]].void = True
    elif "end" in table:
        *earlier, last = table["end"]
        for number in earlier:
            calls[number].void = True
        calls[last].usage = load_value(Usage, table["usage"])
