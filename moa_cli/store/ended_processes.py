"""Recovers what ended processes left behind: open turns, begun calls and reserved budget.

A process may be killed at any time. The next one that opens the store finds its lease (see
`store.lease`), counts the calls in its journal, marks its turns as interrupted, and frees the
budget that it had reserved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moa_cli.core.conversation import Charge, Turn, Usage, check_usage
from moa_cli.core.values import load_value
from moa_cli.store.calls import JournalledCall, SpendingEntry, read_calls, read_turns
from moa_cli.store.lease import dead_leases, has_lease
from moa_cli.store.schema import Connection, immediate
from moa_cli.store.stored_values import dump, unpack, without_defaults

# The sums in the table `spending`, in the order of its columns. All but `turns` are fields of
# `Usage`.
_TOKENS = ("prompt_tokens", "completion_tokens")
COUNTS = ("turns", "calls", *_TOKENS, "estimated_calls", "unpriced_calls")
SUMS = (*COUNTS, "cost")
# Fields of a turn that have columns or tables of their own.
_APART = ("user", "reply", "status", "proposals", "reviews", "stored_as", "parts", "asks_again")
# In the table `booked`, this stands in place of the number of a call. It means that the whole
# journal is in the database.
_WHOLE = 0
_TURNS = "SELECT id, profile, rest, lease, status FROM turns"


def settle_ended_processes(connection: Connection, database: Path) -> None:
    """Count the calls of ended processes, end their turns, and free what they had reserved.

    Each process is settled once, in one transaction, even if this process is killed on the way.
    Raises sqlite3.Error if the database cannot be written; what is left is settled another time.
    """
    for lease in dead_leases(database):
        settled = False
        try:
            lines = lease.lines()
            with immediate(connection):
                _settle(connection, lease.token, read_calls(lines), read_turns(lines))
            settled = True
        except OSError:
            continue
        finally:
            lease.close(settled=settled)
    # A turn may have no lease: earlier versions had none, and somebody may have removed one.
    for row in _open_turns(connection):
        if not has_lease(database, row["lease"]):
            _end_turn(connection, row, ())
    for (token,) in connection.execute("SELECT DISTINCT lease FROM reserved").fetchall():
        if not has_lease(database, token):
            connection.execute("DELETE FROM reserved WHERE lease = ?", (token,))


def _open_turns(connection: Connection) -> list[sqlite3.Row]:
    return connection.execute(f"{_TURNS} WHERE status = 'open'").fetchall()


def _settle(
    connection: Connection,
    lease: str,
    calls: Sequence[JournalledCall],
    turns: Mapping[str, int],
) -> None:
    rows = connection.execute("SELECT call FROM booked WHERE lease = ?", (lease,))
    booked = {int(row[0]) for row in rows}
    of_turns: defaultdict[int | None, list[JournalledCall]] = defaultdict(list)
    for call in calls:
        of_turns[call.turn].append(call)
    if _WHOLE not in booked:
        entries: list[SpendingEntry] = []
        seen = {(call.group, call.begun.model) for call in calls if call.number in booked}
        for call in _sound(calls):
            if call.number not in booked:
                model, numbers = call.begun.model, (call.number,)
                first = (call.group, model) not in seen
                seen.add((call.group, model))
                entry = SpendingEntry(call.day, model, call.taken, first, numbers, call.key)
                entries.append(entry)
        add_spending(connection, entries)
        for day, number in turns.items():
            count_turns(connection, day, number)
    for row in _open_turns(connection):
        if row["lease"] == lease:
            _end_turn(connection, row, of_turns.pop(row["id"], ()))
    if _WHOLE not in booked:
        # A later process may have made a reply or a report for a turn of another process.
        for turn in [turn for turn, begun in of_turns.items() if any(map(_cut_off, begun))]:
            for row in connection.execute(f"{_TURNS} WHERE id = ?", (turn,)).fetchall():
                _end_turn(connection, row, of_turns[turn])
    connection.execute("DELETE FROM reserved WHERE lease = ?", (lease,))
    connection.execute("DELETE FROM booked WHERE lease = ?", (lease,))
    connection.execute("INSERT INTO booked VALUES (?, ?)", (lease, _WHOLE))


def count_turns(connection: Connection, day: str, turns: int) -> None:
    """Add `turns` to the number of turns of a day. Raises sqlite3.Error."""
    connection.execute(
        "INSERT INTO days VALUES (?, ?)"
        " ON CONFLICT (day) DO UPDATE SET turns = turns + excluded.turns",
        (day, turns),
    )


def add_spending(connection: Connection, entries: Iterable[SpendingEntry]) -> None:
    """Add the usage of calls to the sums of their days, models and keys. Raises sqlite3.Error.

    The calls are added up first, so that there is one statement for each day and model. A busy
    server makes many calls of a few models.
    """
    sums: dict[tuple[str, str], tuple[int, Usage]] = {}
    of_keys: defaultdict[tuple[str, str], float] = defaultdict(float)
    for entry in entries:
        if entry.key:
            of_keys[entry.day, entry.key] += entry.usage.cost
        place = entry.day, entry.model
        turns, usage = sums.get(place, (0, Usage()))
        sums[place] = turns + int(entry.first), usage + entry.usage
    connection.executemany(
        "INSERT INTO spending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (day, model)"
        f" DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in SUMS)}",
        [
            (*place, turns, *(getattr(usage, name) for name in SUMS[1:]))
            for place, (turns, usage) in sums.items()
        ],
    )
    connection.executemany(
        "INSERT INTO key_spending VALUES (?, ?, ?) ON CONFLICT (day, key)"
        " DO UPDATE SET cost = cost + excluded.cost",
        [(*place, cost) for place, cost in of_keys.items()],
    )


def forget_ended(connection: Connection, database: Path) -> None:
    """Delete the notes on counted calls (`booked`) for processes whose journals are gone."""
    for (token,) in connection.execute("SELECT DISTINCT lease FROM booked").fetchall():
        if not has_lease(database, token):
            connection.execute("DELETE FROM booked WHERE lease = ?", (token,))


def _cut_off(call: JournalledCall) -> bool:
    """Whether a call had not ended when its process was killed."""
    return call.usage is None and not call.void


def _end_turn(connection: Connection, row: sqlite3.Row, calls: Sequence[JournalledCall]) -> None:
    """Add the calls in the journal to the usage of a turn, and mark it as interrupted if it is
    open."""
    kept = _loaded(row["rest"])
    if kept is None and row["status"] != "open":
        return
    proposals = connection.execute(
        "SELECT layer, place, proposal FROM every_proposal WHERE turn_id = ? ORDER BY layer, place",
        (row["id"],),
    ).fetchall()
    last = -1
    if kept is None:
        kept = Turn(user="", profile=row["profile"])
    else:
        # The stored turn was complete. The calls that were cut off were for a report, or for
        # another reply, after it.
        last = max((charge.layer for charge in kept.ledger), default=0)
        calls = list(filter(_cut_off, calls))
        # If the stored turn has no charges, the proposals are copies from a turn that this one
        # merges.
        proposals = [found for found in proposals if 0 < last < found["layer"]]
    places = {(layer, place) for layer, place, _ in proposals}
    ledger = list(kept.ledger)
    ledger += [charge for layer, _, text in proposals for charge in _charge(layer, text)]
    ledger += [
        Charge(max(call.begun.layer, last + 1), call.begun.model, call.taken)
        for call in _sound(calls)
        if (call.begun.layer, call.begun.index) not in places
    ]
    usage = sum((charge.usage for charge in ledger), Usage())
    connection.execute(
        "UPDATE turns SET status = ?, rest = ? WHERE id = ?",
        (
            "interrupted" if row["status"] == "open" else row["status"],
            rest_of(dataclasses.replace(kept, ledger=tuple(ledger), usage=usage)),
            row["id"],
        ),
    )


def _loaded(rest: str) -> Turn | None:
    """The stored fields of a turn whose reply was complete when the process was killed; None for
    other turns."""
    try:
        values = json.loads(rest)
        return load_value(Turn, {"user": "", **values}) if values else None
    except ValueError:
        return None


def _charge(layer: int, proposal: bytes) -> list[Charge]:
    """The charge of a stored proposal; none if it is damaged."""
    try:
        values: dict[str, Any] = unpack(proposal)
        usage = load_value(Usage, values.get("usage", {}))
        check_usage(usage)
        charge = Charge(layer, str(values["model"]), usage, values.get("answered_by"))
    except (ValueError, TypeError, LookupError):
        return []
    return [charge] if usage.calls else []


def _sound(calls: Sequence[JournalledCall]) -> list[JournalledCall]:
    """The calls that are billed and have plausible numbers."""
    found = []
    for call in calls:
        with contextlib.suppress(ValueError):
            check_usage(call.taken)
            found += [] if call.void else [call]
    return found


def rest_of(turn: Turn) -> str:
    """The fields of a turn without a column of their own, as JSON."""
    bare = without_defaults(turn.with_proposals(()))
    rest = {name: value for name, value in bare.items() if name not in _APART}
    # With this field, the result is never empty. An empty value marks a turn that still runs.
    rest["profile"] = turn.profile
    return dump(rest)


def database_of(connection: Connection) -> Path:
    # As bytes, because the name of a folder may not be UTF-8.
    (name,) = connection.execute(
        "SELECT CAST(file AS BLOB) FROM pragma_database_list WHERE name = 'main'"
    ).fetchone()
    return Path(os.fsdecode(name or b""))
