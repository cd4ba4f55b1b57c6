"""The journal of calls, so that no cost is lost when a process is killed.

Before each request is sent, a line is written to the journal of this process (see `store.lease`).
Another line is written when the call has ended, and then its usage is added to the database. The
next process that opens the store counts what a killed process had begun: by the endpoint's count if
the call had ended, else by the estimate in its first line.

The journal holds numbers and names of models, no prompts and no answers.
"""

from __future__ import annotations

import atexit
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moa_cli.core.conversation import Usage
from moa_cli.core.ledger import CallBegun
from moa_cli.core.money import Price, check_price
from moa_cli.core.values import load_value
from moa_cli.store.lease import Lease, lease_for

# Bytes. A longer journal is rewritten without the calls that are in the database.
_LONGEST_JOURNAL = 1_000_000
# `json.dumps` would make an encoder for each line.
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


@dataclass
class JournalledCall:
    """A request that was sent or was about to be sent.

    Attributes:
        number: Its number in the journal.
        day: The day when it began, in the time zone of the budget.
        group: The same number for all calls of a turn.
        turn: The turn's number in the store, or None if it is not kept.
        begun: What was known when it began.
        usage: What the call took; None until it has ended. If a call needs several requests, the
            last one holds all of it.
        void: Whether nothing is billed for it.
        booked: Whether it is in the database.
    """

    number: int
    day: str
    group: int
    turn: int | None
    begun: CallBegun
    usage: Usage | None = None
    void: bool = False
    booked: bool = False

    @property
    def taken(self) -> Usage:
        """What it took; an estimate if that is not known."""
        return self.begun.usage if self.usage is None else self.usage


@dataclass(frozen=True)
class SpendingEntry:
    """What a call took, to be added to the database.

    Attributes:
        day: The day that it counts for.
        model: The model name.
        usage: What it took.
        first: Whether it is the first call of its model in its turn.
        numbers: The numbers of its requests in the journal.
    """

    day: str
    model: str
    usage: Usage
    first: bool
    numbers: tuple[int, ...]


class Journal:
    """The journal of this process for one store; threads may share it.

    Attributes:
        lease: The lease that it belongs to. None if no file can be written; then a kill loses it.
        trouble: Why the last line could not be written, or None.
    """

    def __init__(self, lease: Lease | None) -> None:
        self.lease = lease
        self.trouble: OSError | None = None
        self._mutex = threading.Lock()
        self._entries: dict[int, JournalledCall] = {}
        self._number = 0
        self._groups = 0
        self._size = 0
        self._kept_turn = 0
        self._forgotten: list[int] = []

    def group(self) -> int:
        """A new number for the calls of one turn."""
        with self._mutex:
            self._groups += 1
            return self._groups

    def begin(self, day: str, group: int, turn: int | None, begun: CallBegun) -> int:
        """Note that a request will be sent, and return its number."""
        with self._mutex:
            self._number += 1
            entry = JournalledCall(self._number, day, group, turn, begun)
            self._entries[entry.number] = entry
            self._kept_turn = turn or self._kept_turn
            self._write(_begin_line(entry))
            return entry.number

    def grown(self, number: int, completion_tokens: int) -> None:
        """Note how long its answer may be."""
        with self._mutex:
            entry = self._entries[number]
            entry.begun = replace(entry.begun, completion_tokens=completion_tokens)
            self._write(f'{{"grown":{number},"completion":{completion_tokens}}}')

    def priced(self, number: int, price: Price) -> None:
        """Note the price of its model, once that is known."""
        with self._mutex:
            entry = self._entries[number]
            entry.begun = replace(entry.begun, price=price)
            self._write(_ENCODE({"priced": number, "price": vars(price)}))

    def void(self, number: int) -> None:
        """Note that nothing is billed for it."""
        with self._mutex:
            self._entries[number].void = True
            self._done(number)
            self._write(f'{{"void":{number}}}')

    def end(self, numbers: Sequence[int], usage: Usage) -> None:
        """Note what a call took. numbers: of its requests."""
        with self._mutex:
            for number in numbers[:-1]:
                self._entries[number].void = True
            self._entries[numbers[-1]].usage = usage
            self._write(_end_line(numbers, usage))

    def booked(self, numbers: Iterable[int]) -> None:
        """Note that these are in the database."""
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
        """Drop calls that are in the database, except those of the turn that runs now."""
        old: list[int] = []
        lines: list[str] = []
        for entry in self._entries.values():
            if entry.booked and (entry.turn is None or entry.turn != self._kept_turn):
                old.append(entry.number)
            else:
                lines += _lines(entry)
        try:
            lease.rewrite(iter(lines))
        except OSError:
            return  # The longer journal is still correct.
        self._size = sum(map(len, lines))
        for number in old:
            del self._entries[number]
        self._forgotten += old

    def forgotten(self) -> list[int]:
        """Numbers that the journal no longer holds, so that the database can forget them too."""
        with self._mutex:
            forgotten, self._forgotten = self._forgotten, []
            return forgotten

    def _write(self, line: str) -> None:
        if self.lease is None:
            return
        self._size += len(line)
        try:
            self.lease.write(line)
            self.trouble = None
        except OSError as error:
            self.trouble = error

    def close(self) -> None:
        """End the journal in good order."""
        if self.lease is not None:
            self.lease.close(settled=all(call.booked for call in self._entries.values()))


# By the path of the database.
_JOURNALS: dict[Path, Journal] = {}
_USERS: dict[Path, set[int]] = {}


def journal_for(database: Path, user: object) -> Journal:
    """The journal of this process for a database file.

    Args:
        database: The file.
        user: The object that will call `leave_journal`, unless the process ends before.

    Raises:
        OSError: It cannot be written.
    """
    lease = lease_for(database)
    journal = _JOURNALS.get(database)
    if journal is None or journal.lease is not lease:
        journal = _JOURNALS[database] = Journal(lease)
    _USERS.setdefault(database, set()).add(id(user))
    return journal


def leave_journal(database: Path, user: object) -> None:
    """Note that a user no longer needs the journal; it ends with its last user."""
    users = _USERS.get(database, set())
    users.discard(id(user))
    journal = _JOURNALS.get(database)
    if not users and journal is not None and journal.lease is not None:
        del _JOURNALS[database]
        if journal.lease.is_mine(database):
            journal.close()


@atexit.register
def _close_all() -> None:
    for database, journal in list(_JOURNALS.items()):
        # A forked process leaves the journal of its parent alone.
        if journal.lease is not None and journal.lease.is_mine(database):
            journal.close()


class TurnCalls:
    """Notes the calls of one turn; see `ledger.TurnLedger`.

    Args:
        journal: Where they are noted.
        today: Returns the current day.
        ended: Called with what is to be added to the database.
        trouble: Called if a line cannot be written.
        turn: Returns the number of the turn in the store, or None if it has none yet.
    """

    def __init__(
        self,
        journal: Journal,
        today: Callable[[], str],
        ended: Callable[[SpendingEntry], None],
        trouble: Callable[[OSError], None],
        turn: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._journal = journal
        self._group = journal.group()
        self._today = today
        self._ended = ended
        self._trouble = trouble
        self._turn = turn
        self._models: set[str] = set()
        self._days: dict[int, str] = {}
        self.grown = journal.grown
        self.priced = journal.priced

    def begin(self, call: CallBegun) -> int:
        """See `TurnLedger.begin`."""
        day = self._today()
        number = self._journal.begin(day, self._group, self._turn(), call)
        self._days[number] = day
        if self._journal.trouble is not None:
            self._trouble(self._journal.trouble)
        return number

    def void(self, number: int) -> None:
        """See `TurnLedger.void`."""
        self._days.pop(number, None)
        self._journal.void(number)

    def end(self, numbers: Sequence[int], model: str, usage: Usage) -> None:
        """See `TurnLedger.end`."""
        self._journal.end(numbers, usage)
        # It counts for the day whose budget allowed it.
        day = [self._days.pop(number) for number in numbers][-1]
        first = model not in self._models
        self._models.add(model)
        self._ended(SpendingEntry(day, model, usage, first, tuple(numbers)))


def _lines(entry: JournalledCall) -> Iterator[str]:
    yield _begin_line(entry)
    if entry.void:
        yield f'{{"void":{entry.number}}}'
    if entry.usage is not None:
        yield _end_line((entry.number,), entry.usage)


def _begin_line(entry: JournalledCall) -> str:
    begun = entry.begun
    table = {
        "begin": entry.number,
        "day": entry.day,
        "group": entry.group,
        "turn": entry.turn,
        **vars(begun),
        "price": None if begun.price is None else vars(begun.price),
    }
    return _ENCODE(table)


def _end_line(numbers: Sequence[int], usage: Usage) -> str:
    return _ENCODE({"end": list(numbers), "usage": vars(usage)})


def read_calls(lines: Iterable[str]) -> list[JournalledCall]:
    """The calls that a journal holds. Broken lines are left out."""
    calls: dict[int, JournalledCall] = {}
    for line in lines:
        try:
            _read(json.loads(line), calls)
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
    return list(calls.values())


def _read(table: dict[str, Any], calls: dict[int, JournalledCall]) -> None:
    """Apply a line. Raises ValueError, TypeError or LookupError if it is not a valid one."""
    if "begin" in table:
        number, day, group, turn = (table.pop(key) for key in ("begin", "day", "group", "turn"))
        calls[number] = JournalledCall(
            int(number), str(day), int(group), turn, load_value(CallBegun, table)
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
