"""What processes that were killed leave behind, put in order by the next one."""

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
from moa_cli.store.calls import Booking, JournalledCall, read_calls
from moa_cli.store.lease import DeadLease, dead_leases, has_lease
from moa_cli.store.packing import dump, unpack, without_defaults
from moa_cli.store.schema import immediate

# Stand in columns and tables of their own.
_APART = ("user", "reply", "status", "proposals", "stored_as")
# In place of a number of a call: the whole journal is in the database.
_WHOLE = 0


def absorb(connection: sqlite3.Connection, database: Path) -> None:
    """Count what processes that have ended had begun, end their turns, give back what they had
    reserved.

    All of one process is done in one transaction, once, also where this process is killed on the
    way. What cannot be written now stays for the next time. Raises sqlite3.Error then.
    """
    for lease in dead_leases(database):
        try:
            made = read_calls(lease.lines())
            with immediate(connection):
                _absorb(connection, lease, made)
        except OSError:
            lease.leave()
            continue
        except BaseException:
            lease.leave()
            raise
        lease.remove()
    _end_turns(connection, database)


def _absorb(
    connection: sqlite3.Connection, lease: DeadLease, made: Sequence[JournalledCall]
) -> None:
    rows = connection.execute("SELECT call FROM booked WHERE lease = ?", (lease.token,))
    booked = {int(row[0]) for row in rows}
    if _WHOLE not in booked:
        for booking in _bookings(made, booked):
            add_booking(connection, booking)
    turns = connection.execute(
        "SELECT id, profile, rest FROM turns WHERE status = 'open' AND lease = ?", (lease.token,)
    ).fetchall()
    for row in turns:
        _end_turn(connection, row, [call for call in made if call.turn == row["id"]])
    connection.execute("DELETE FROM reserved WHERE lease = ?", (lease.token,))
    connection.execute("DELETE FROM booked WHERE lease = ?", (lease.token,))
    connection.execute("INSERT INTO booked VALUES (?, ?)", (lease.token, _WHOLE))


def _bookings(made: Sequence[JournalledCall], booked: set[int]) -> Iterator[Booking]:
    """What is not in the database yet."""
    seen = {(call.group, call.begun.model) for call in made if call.number in booked}
    for call in made:
        if call.void or call.number in booked or not _makes_sense(call.taken):
            continue
        key = (call.group, call.begun.model)
        yield Booking(call.day, call.begun.model, call.taken, key not in seen, (call.number,))
        seen.add(key)


def add_booking(connection: sqlite3.Connection, booking: Booking) -> None:
    """Add what a call took to its day and model. Raises sqlite3.Error."""
    usage = booking.usage
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
            booking.day,
            booking.model,
            int(booking.first),
            usage.calls,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.estimated_calls,
            usage.unpriced_calls,
            usage.cost,
        ),
    )


def forget_ended(connection: sqlite3.Connection, database: Path) -> None:
    """Forget which calls of processes are in the database whose journals are gone."""
    for (token,) in connection.execute("SELECT DISTINCT lease FROM booked").fetchall():
        if not has_lease(database, token):
            connection.execute("DELETE FROM booked WHERE lease = ?", (token,))


def _end_turns(connection: sqlite3.Connection, database: Path) -> None:
    """End turns whose process has left no journal: it was of an earlier version, or somebody
    has removed its files."""
    rows = connection.execute("SELECT id, profile, rest, lease FROM turns WHERE status = 'open'")
    for row in rows.fetchall():
        if not has_lease(database, row["lease"]):
            _end_turn(connection, row, ())


def _end_turn(
    connection: sqlite3.Connection, row: sqlite3.Row, made: Sequence[JournalledCall]
) -> None:
    """Mark a turn interrupted, with what its calls took. made: those of its journal."""
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
            for call in made
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
    """What is kept of a turn whose reply was whole when it was killed."""
    try:
        values = json.loads(rest)
        return load_value(Turn, {"user": "", **values}) if values else None
    except ValueError:
        return None


def _charge(layer: int, proposal: bytes) -> list[Charge]:
    """What a kept proposal took; nothing if it cannot be read."""
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
    """What has no column of its own, as JSON."""
    bare = without_defaults(turn.with_proposals(()))
    rest = {name: value for name, value in bare.items() if name not in _APART}
    # Never empty: so is that of a turn that runs.
    rest["profile"] = turn.profile
    return dump(rest)


def database_of(connection: sqlite3.Connection) -> Path:
    """The file of a connection."""
    # As bytes: a folder's name need not be UTF-8.
    (name,) = connection.execute(
        "SELECT CAST(file AS BLOB) FROM pragma_database_list WHERE name = 'main'"
    ).fetchone()
    return Path(os.fsdecode(name or b""))
