"""Recovers what ended processes left behind: open turns, begun calls and reserved budget.

A process may be killed at any time. The next one that opens the store finds its lease (see
`store.lease`), counts the calls in its journal, marks its turns as interrupted, and frees the
budget that it had reserved.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moa_cli.core.conversation import Charge, Turn, Usage, check_usage
from moa_cli.core.values import load_value
from moa_cli.store.calls import JournalledCall, SpendingEntry, read_calls
from moa_cli.store.lease import DeadLease, dead_leases, has_lease
from moa_cli.store.schema import immediate
from moa_cli.store.stored_values import dump, unpack, without_defaults

# Fields of a turn that have columns or tables of their own.
_APART = ("user", "reply", "status", "proposals", "stored_as")
# In place of the number of a call: the whole journal is in the database.
_WHOLE = 0


def settle_ended_processes(connection: sqlite3.Connection, database: Path) -> None:
    """Count the calls of ended processes, end their turns, and free what they had reserved.

    Each process is settled once, in one transaction, even if this process is killed on the way.

    Args:
        connection: The database.
        database: Its file.

    Raises:
        sqlite3.Error: The database cannot be written. What is left is settled another time.
    """
    for lease in dead_leases(database):
        try:
            calls = read_calls(lease.lines())
            with immediate(connection):
                _settle(connection, lease, calls)
        except OSError:
            lease.leave()
            continue
        except BaseException:
            lease.leave()
            raise
        lease.remove()
    _end_turns(connection, database)


def _settle(
    connection: sqlite3.Connection, lease: DeadLease, calls: Sequence[JournalledCall]
) -> None:
    rows = connection.execute("SELECT call FROM booked WHERE lease = ?", (lease.token,))
    booked = {int(row[0]) for row in rows}
    if _WHOLE not in booked:
        for entry in _spending_entries(calls, booked):
            add_spending_entry(connection, entry)
    turns = connection.execute(
        "SELECT id, profile, rest FROM turns WHERE status = 'open' AND lease = ?", (lease.token,)
    ).fetchall()
    for row in turns:
        _end_turn(connection, row, [call for call in calls if call.turn == row["id"]])
    connection.execute("DELETE FROM reserved WHERE lease = ?", (lease.token,))
    connection.execute("DELETE FROM booked WHERE lease = ?", (lease.token,))
    connection.execute("INSERT INTO booked VALUES (?, ?)", (lease.token, _WHOLE))


def _spending_entries(calls: Sequence[JournalledCall], booked: set[int]) -> Iterator[SpendingEntry]:
    """Those of the calls that are not in the database yet."""
    seen = {(call.group, call.begun.model) for call in calls if call.number in booked}
    for call in calls:
        if call.void or call.number in booked or not _makes_sense(call.taken):
            continue
        key = (call.group, call.begun.model)
        yield SpendingEntry(call.day, call.begun.model, call.taken, key not in seen, (call.number,))
        seen.add(key)


def add_spending_entry(connection: sqlite3.Connection, entry: SpendingEntry) -> None:
    """Add what a call took to the sums of its day and model. Raises sqlite3.Error."""
    usage = entry.usage
    connection.execute(
        "INSERT INTO spending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (day, model) DO UPDATE SET turns = turns + excluded.turns,"
        " calls = calls + excluded.calls,"
        " prompt_tokens = prompt_tokens + excluded.prompt_tokens,"
        " completion_tokens = completion_tokens + excluded.completion_tokens,"
        " estimated_calls = estimated_calls + excluded.estimated_calls,"
        " unpriced_calls = unpriced_calls + excluded.unpriced_calls,"
        " cost = cost + excluded.cost",
        (
            entry.day,
            entry.model,
            int(entry.first),
            usage.calls,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.estimated_calls,
            usage.unpriced_calls,
            usage.cost,
        ),
    )


def forget_ended(connection: sqlite3.Connection, database: Path) -> None:
    """Forget which calls were counted, for processes whose journals are gone."""
    for (token,) in connection.execute("SELECT DISTINCT lease FROM booked").fetchall():
        if not has_lease(database, token):
            connection.execute("DELETE FROM booked WHERE lease = ?", (token,))


def _end_turns(connection: sqlite3.Connection, database: Path) -> None:
    """End turns of processes without a lease: earlier versions had none, or it was removed."""
    rows = connection.execute("SELECT id, profile, rest, lease FROM turns WHERE status = 'open'")
    for row in rows.fetchall():
        if not has_lease(database, row["lease"]):
            _end_turn(connection, row, ())


def _end_turn(
    connection: sqlite3.Connection, row: sqlite3.Row, calls: Sequence[JournalledCall]
) -> None:
    """Mark a turn as interrupted, with the usage of its calls in the journal."""
    kept = _loaded(row["rest"])
    if kept is None:
        places = set()
        ledger = []
        proposals = connection.execute(
            "SELECT layer, place, proposal FROM every_proposal WHERE turn_id = ?"
            " ORDER BY layer, place",
            (row["id"],),
        )
        for layer, place, text in proposals.fetchall():
            places.add((layer, place))
            ledger += _charge(layer, text)
        ledger += [
            Charge(call.begun.layer, call.begun.model, call.taken)
            for call in calls
            if not call.void
            and (call.begun.layer, call.begun.index) not in places
            and _makes_sense(call.taken)
        ]
        kept = Turn(user="", profile=row["profile"], ledger=tuple(ledger))
    usage = sum((charge.usage for charge in kept.ledger), Usage())
    connection.execute(
        "UPDATE turns SET status = 'interrupted', rest = ? WHERE id = ? AND status = 'open'",
        (rest_of(dataclasses.replace(kept, usage=usage)), row["id"]),
    )


def _loaded(rest: str) -> Turn | None:
    """What is stored of a turn whose reply was complete when the process was killed."""
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


def _makes_sense(usage: Usage) -> bool:
    try:
        check_usage(usage)
    except ValueError:
        return False
    return True


def rest_of(turn: Turn) -> str:
    """The fields of a turn without a column of their own, as JSON."""
    bare = without_defaults(turn.with_proposals(()))
    rest = {name: value for name, value in bare.items() if name not in _APART}
    # This makes it not empty; it is empty while a turn runs.
    rest["profile"] = turn.profile
    return dump(rest)


def database_of(connection: sqlite3.Connection) -> Path:
    """The file of a connection to a database."""
    # As bytes, because the name of a folder may not be UTF-8.
    (name,) = connection.execute(
        "SELECT CAST(file AS BLOB) FROM pragma_database_list WHERE name = 'main'"
    ).fetchone()
    return Path(os.fsdecode(name or b""))
