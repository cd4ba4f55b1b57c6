"""The calls of this process, written down before they are sent and when they have ended.

A line goes to the journal of the process's lease (`store.lease`) before each request is sent, and
another when the call has ended; then its usage is added to the database. What a process that was
killed had begun stands in its journal, and whoever opens the store next counts it: with what the
endpoint told if the call had ended, else with the estimate from its first line.

There are no words in it, only numbers and the names of models.
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

# Then the lines of calls that are in the database are taken out of the journal.
_LONGEST_JOURNAL = 1_000_000
# Two lines a call: json.dumps would make an encoder for each.
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


@dataclass
class JournalledCall:
    """A request that was sent, or was about to be.

    day: when it was begun, in the zone of the budget. group: the same for all of a turn.
    turn: its number in the store, if it is kept there. usage: None until its call has ended;
    of several requests of a call, the last one holds it all. void: nothing is billed for it.
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
        """What it took: estimated if that is not known."""
        return self.begun.usage if self.usage is None else self.usage


@dataclass(frozen=True)
class Booking:
    """What a call took, to be added to the database. first: whether it is its model's first in
    its turn. numbers: of its requests in the journal."""

    day: str
    model: str
    usage: Usage
    first: bool
    numbers: tuple[int, ...]


class Journal:
    """The journal of this process for one store; threads may share it.

    lease: None where there can be no file, and so nothing outlives a kill. trouble: why the last
    line could not be written, or None.
    """

    def __init__(self, lease: Lease | None) -> None:
        self.lease = lease
        self.trouble: OSError | None = None
        self._mutex = threading.Lock()
        self._made: dict[int, JournalledCall] = {}
        self._number = 0
        self._groups = 0
        self._size = 0
        self._kept_turn = 0
        self._forgotten: list[int] = []

    def group(self) -> int:
        """A number for the calls of one turn."""
        with self._mutex:
            self._groups += 1
            return self._groups

    def begin(self, day: str, group: int, turn: int | None, begun: CallBegun) -> int:
        """A request is about to be sent; its number."""
        with self._mutex:
            self._number += 1
            made = JournalledCall(self._number, day, group, turn, begun)
            self._made[made.number] = made
            self._kept_turn = turn or self._kept_turn
            self._write(_begin_line(made))
            return made.number

    def grown(self, number: int, completion_tokens: int) -> None:
        """Its answer may be that long."""
        with self._mutex:
            made = self._made[number]
            made.begun = replace(made.begun, completion_tokens=completion_tokens)
            self._write(f'{{"grown":{number},"completion":{completion_tokens}}}')

    def priced(self, number: int, price: Price) -> None:
        """The price of its model has become known."""
        with self._mutex:
            made = self._made[number]
            made.begun = replace(made.begun, price=price)
            self._write(_ENCODE({"priced": number, "price": vars(price)}))

    def void(self, number: int) -> None:
        """Nothing is billed for it."""
        with self._mutex:
            self._made[number].void = True
            self._done(number)
            self._write(f'{{"void":{number}}}')

    def end(self, numbers: Sequence[int], usage: Usage) -> None:
        """A call has taken that."""
        with self._mutex:
            for number in numbers[:-1]:
                self._made[number].void = True
            self._made[numbers[-1]].usage = usage
            self._write(_end_line(numbers, usage))

    def booked(self, numbers: Iterable[int]) -> None:
        """These are in the database."""
        with self._mutex:
            for number in numbers:
                self._done(number)
            if self._size > _LONGEST_JOURNAL and self.lease is not None:
                self._shorten(self.lease)

    def _done(self, number: int) -> None:
        made = self._made[number]
        made.booked = True
        if self.lease is None:
            del self._made[number]

    def _shorten(self, lease: Lease) -> None:
        """Take out what nobody needs again: not the calls of the turn that is kept now."""
        old: list[int] = []
        lines: list[str] = []
        for made in self._made.values():
            if made.booked and (made.turn is None or made.turn != self._kept_turn):
                old.append(made.number)
            else:
                lines += _lines(made)
        try:
            lease.rewrite(iter(lines))
        except OSError:
            return  # As long as before, and as true.
        self._size = sum(map(len, lines))
        for number in old:
            del self._made[number]
        self._forgotten += old

    def forgotten(self) -> list[int]:
        """Numbers that the journal holds no more, so that the database need not remember them."""
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
        """The process ends in good order."""
        if self.lease is not None:
            self.lease.close(settled=all(call.booked for call in self._made.values()))


# By the path of the database.
_JOURNALS: dict[Path, Journal] = {}
_USERS: dict[Path, set[int]] = {}


def journal_for(database: Path, user: object) -> Journal:
    """This process's journal for that database file. Raises OSError if there can be none.

    user: who calls `leave_journal` in the end, if before the process's own end.
    """
    lease = lease_for(database)
    journal = _JOURNALS.get(database)
    if journal is None or journal.lease is not lease:
        journal = _JOURNALS[database] = Journal(lease)
    _USERS.setdefault(database, set()).add(id(user))
    return journal


def leave_journal(database: Path, user: object) -> None:
    """That user needs the journal no more; it ends with its last one."""
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
        # A copy of a process (fork) leaves what its parent holds alone.
        if journal.lease is not None and journal.lease.is_mine(database):
            journal.close()


class TurnCalls:
    """The calls of one turn; see `ledger.TurnLedger`.

    today: the day now. turn: the turn's number in the store by now, if it has one.
    ended: given what is to be added to the database. trouble: told why a line is not written.
    """

    def __init__(
        self,
        journal: Journal,
        today: Callable[[], str],
        ended: Callable[[Booking], None],
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

    def begin(self, call: CallBegun) -> int:
        """See `TurnLedger.begin`."""
        day = self._today()
        number = self._journal.begin(day, self._group, self._turn(), call)
        self._days[number] = day
        if self._journal.trouble is not None:
            self._trouble(self._journal.trouble)
        return number

    def grown(self, number: int, completion_tokens: int) -> None:
        """See `TurnLedger.grown`."""
        self._journal.grown(number, completion_tokens)

    def priced(self, number: int, price: Price) -> None:
        """See `TurnLedger.priced`."""
        self._journal.priced(number, price)

    def void(self, number: int) -> None:
        """See `TurnLedger.void`."""
        self._days.pop(number, None)
        self._journal.void(number)

    def end(self, numbers: Sequence[int], model: str, usage: Usage) -> None:
        """See `TurnLedger.end`."""
        self._journal.end(numbers, usage)
        # The day whose budget let it begin.
        day = [self._days.pop(number) for number in numbers][-1]
        first = model not in self._models
        self._models.add(model)
        self._ended(Booking(day, model, usage, first, tuple(numbers)))


def _lines(made: JournalledCall) -> Iterator[str]:
    yield _begin_line(made)
    if made.void:
        yield f'{{"void":{made.number}}}'
    if made.usage is not None:
        yield _end_line((made.number,), made.usage)


def _begin_line(made: JournalledCall) -> str:
    begun = made.begun
    table = {
        "begin": made.number,
        "day": made.day,
        "group": made.group,
        "turn": made.turn,
        **vars(begun),
        "price": None if begun.price is None else vars(begun.price),
    }
    return _ENCODE(table)


def _end_line(numbers: Sequence[int], usage: Usage) -> str:
    return _ENCODE({"end": list(numbers), "usage": vars(usage)})


def read_calls(lines: Iterable[str]) -> list[JournalledCall]:
    """The calls that a journal tells of. What is no line of one (a torn one) is passed over."""
    made: dict[int, JournalledCall] = {}
    for line in lines:
        try:
            _read(json.loads(line), made)
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
    return list(made.values())


def _read(table: dict[str, Any], made: dict[int, JournalledCall]) -> None:
    """Raises ValueError, TypeError or LookupError for what is no line."""
    if "begin" in table:
        number, day, group, turn = (table.pop(key) for key in ("begin", "day", "group", "turn"))
        made[number] = JournalledCall(
            int(number), str(day), int(group), turn, load_value(CallBegun, table)
        )
    elif "grown" in table:
        call = made[table["grown"]]
        call.begun = replace(call.begun, completion_tokens=int(table["completion"]))
    elif "priced" in table:
        call = made[table["priced"]]
        price = load_value(Price, table["price"])
        check_price(price)
        call.begun = replace(call.begun, price=price)
    elif "void" in table:
        made[table["void"]].void = True
    elif "end" in table:
        *earlier, last = table["end"]
        for number in earlier:
            made[number].void = True
        made[last].usage = load_value(Usage, table["usage"])
