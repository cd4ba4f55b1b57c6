"""Who lives still, by locks; and the journals beside them."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moa_cli.core.conversation import Usage
from moa_cli.core.ledger import CallBegun, Standing
from moa_cli.core.money import Price
from moa_cli.store.calls import SpendingEntry, TurnCalls, read_calls
from moa_cli.store.lease import dead_leases
from moa_cli.store.spending import CallRecorder, Spending
from moa_cli.store.store import Store
from tests.support.kept import open_store

CALL = CallBegun("lab:a", 10, 90, Price(1.0, 1.0), 1, 0)
# Opens the store, begins a call, says so, and lives until its input ends.
_PROCESS = """
import os, sys
from pathlib import Path
from moa_cli.core.ledger import CallBegun
from moa_cli.core.money import Price
from moa_cli.store.spending import CallRecorder
from moa_cli.store.store import Store
spending = Store.open(Path(sys.argv[1])).spending
turn = CallRecorder(spending, print).begin_turn()
turn.begin(CallBegun("lab:a", 10, 90, Price(1.0, 1.0), 1, 0))
spending.reserve("theirs", 0.5, 1.0)
{more}
print(flush=True)
sys.stdin.read()
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "conversations.db"


def started(file: Path, more: str = "") -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", _PROCESS.format(more=more), str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def spent(spending: Spending) -> Standing:
    standing = spending.reserve("mine", 0.0, 1.0)
    return Standing(round(standing.spent, 9), standing.reserved)


def test_what_a_process_has_reserved_is_its_own_until_it_ends(file: Path) -> None:
    spending = open_store(file).spending
    process = started(file)
    assert spent(spending) == Standing(0.0, 0.5)
    process.communicate()
    # The reservation is gone, and the call that it had begun is spent: both at once.
    assert spent(spending) == Standing(100e-6, 0.0)
    assert spent(spending) == Standing(100e-6, 0.0)
    assert [row.turns for row in spending.by_month()] == [1]


def test_a_child_that_outlives_its_parent_holds_no_lease_of_it(file: Path) -> None:
    """As after a fork, and after a start of another program."""
    more = (
        "import subprocess, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os.close(0); os.close(1); time.sleep(60); os._exit(0)\n"
        "open(sys.argv[1] + '.child', 'w').write(str(child))\n"
    )
    spending = open_store(file).spending
    process = started(file, more)
    child = int(Path(f"{file}.child").read_text())
    try:
        process.communicate()
        assert spent(spending) == Standing(100e-6, 0.0)
    finally:
        os.kill(child, 9)


def test_many_that_find_a_dead_lease_count_it_once(file: Path) -> None:
    Store.open(file).close()
    process = started(file)
    process.communicate()
    opening = (
        "import sys; from pathlib import Path; from moa_cli.store.store import Store;"
        "Store.open(Path(sys.argv[1]))"
    )
    openers = [
        subprocess.Popen([sys.executable, "-c", opening, str(file)], stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    assert [opener.communicate()[1] for opener in openers] == [b""] * 6
    (row,) = open_store(file).spending.by_month()
    assert row.usage.calls == 1


def test_a_database_that_cannot_be_written_leaves_the_journal(file: Path) -> None:
    Store.open(file).close()
    started(file).communicate()
    blocked = open_store(file).spending
    # Of another process, that was killed in the meantime.
    started(file).communicate()
    blocked._connection.execute("PRAGMA query_only = ON")
    (lease,) = dead_leases(file)
    assert len(read_calls(lease.lines())) == 1
    lease.close(settled=False)
    (row,) = open_store(file).spending.by_month()
    assert row.usage.calls == 2


def test_without_locks_a_lease_holds_by_its_date(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    spending = open_store(file).spending
    started(file).communicate()
    monkeypatch.setattr(fcntl, "flock", none)
    assert spent(spending) == Standing(0.0, 0.5)
    (lock,) = (path for path in (file.parent / "running").glob("*.lock") if _is_theirs(path))
    os.utime(lock, (time.time() - 7200, time.time() - 7200))
    assert spent(spending) == Standing(100e-6, 0.0)


def _is_theirs(lock: Path) -> bool:
    return lock.with_suffix(".jsonl").exists()


def test_a_long_journal_is_shortened_and_loses_no_call(file: Path) -> None:
    store = open_store(file)
    warnings: list[str] = []
    book = CallRecorder(store.spending, warnings.append)
    waiting = book.begin_turn()
    first = waiting.begin(CALL)
    turn = book.begin_turn()
    for _ in range(6000):
        turn.end([turn.begin(CALL)], "lab:a", Usage(10, 10, calls=1, cost=1e-6))
    (journal,) = (file.parent / "running").glob("*.jsonl")
    assert journal.stat().st_size < 1_100_000
    made = read_calls(journal.read_text().splitlines())
    assert made[0].number == first
    assert made[0].usage is None
    waiting.end([first], "lab:a", Usage(10, 10, calls=1, cost=1e-6))
    (row,) = store.spending.by_month()
    assert row.usage.calls == 6001
    marks = store._connection.execute("SELECT count(*) FROM booked").fetchone()[0]
    assert marks < 6000
    assert warnings == []


def test_what_the_database_counts_as_told_the_journal_knows_too(file: Path) -> None:
    """Where the process is killed in between, the next one takes the turn's usage from there."""
    store = open_store(file)
    turn = CallRecorder(store.spending, lambda _: None).begin_turn()

    async def ended() -> None:
        turn.end([turn.begin(CALL)], "lab:a", Usage(calls=1, cost=2.0))
        (path,) = (file.parent / "running").glob("*.jsonl")
        [call] = read_calls(path.read_text().splitlines())
        assert call.usage == Usage(calls=1, cost=2.0)

    asyncio.run(ended())
    assert [row.usage.cost for row in store.spending.by_month()] == [2.0]


def test_calls_that_end_together_in_an_event_loop_are_one_write_and_none_is_lost(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(file)
    trouble: list[OSError] = []
    journal = store.spending.journal(trouble.append)
    turn = TurnCalls(journal, lambda: "2026-11-20", lambda entry: None, trouble.append)
    written: list[bytes] = []
    write = os.write

    def noted(handle: int, data: bytes) -> int:
        written.append(data)
        return write(handle, data)

    monkeypatch.setattr(os, "write", noted)

    def kept() -> list[float | None]:
        (path,) = (file.parent / "running").glob("*.jsonl")
        calls = read_calls(path.read_text().splitlines())
        return [None if call.usage is None else call.usage.cost for call in calls]

    async def served() -> None:
        numbers = [turn.begin(CALL) for _ in range(4)]
        # A call is there before it is sent.
        assert kept() == [None] * 4
        for number in numbers[:3]:
            turn.end([number], "lab:a", Usage(calls=1, cost=number * 1.0))
        await asyncio.sleep(0)
        assert kept() == [1.0, 2.0, 3.0, None]
        assert len(written) == 5
        # What begins behind an end does not overtake it.
        turn.end(numbers[3:], "lab:a", Usage(calls=1, cost=4.0))
        turn.begin(CALL)
        assert kept() == [1.0, 2.0, 3.0, 4.0, None]
        assert len(written) == 6

    asyncio.run(served())
    # Without an event loop, nothing waits.
    turn.end([5], "lab:a", Usage(calls=1, cost=5.0))
    assert kept() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert trouble == []


def test_a_call_counts_for_the_day_on_which_it_began(file: Path) -> None:
    store = open_store(file)
    days = iter(["2026-11-20", "2026-11-21", "2026-11-21"])
    ended: list[SpendingEntry] = []
    trouble: list[OSError] = []
    journal = store.spending.journal(trouble.append)
    turn = TurnCalls(journal, lambda: next(days), ended.append, trouble.append)
    number = turn.begin(CALL)
    another = turn.begin(CALL)
    for item in (another, number):
        turn.end([item], "lab:a", Usage(calls=1, cost=0.25))
    assert [day.day for day in ended] == ["2026-11-21", "2026-11-20"]
    assert trouble == []
