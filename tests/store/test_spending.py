"""What was spent, and reserved, over several connections to one file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from moa_cli.config.schema import BudgetSettings, Config
from moa_cli.core.conversation import Usage
from moa_cli.core.errors import BudgetReached
from moa_cli.core.ledger import CallBegun, Standing
from moa_cli.store.accounts import budgets
from moa_cli.store.calls import SpendingEntry
from moa_cli.store.spending import CallRecorder, Spending
from tests.support.kept import open_store

USAGE = Usage(5, 5, calls=1, cost=0.25)
CALL = CallBegun("lab:a", 5, 5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "conversations.db"


def pay(spending: Spending, usage: Usage = USAGE) -> list[str]:
    """One call that was made and has ended; what was warned of."""
    warnings: list[str] = []
    turn = CallRecorder(spending, warnings.append).begin_turn()
    turn.end([turn.begin(CALL)], CALL.model, usage)
    return warnings


def test_what_one_turn_has_reserved_another_cannot_spend(file: Path) -> None:
    first, second = open_store(file).spending, open_store(file).spending
    pay(first)
    assert first.reserve("one", 0.5, 1.0) == Standing(0.25)
    # 0.25 is spent and 0.5 reserved: 0.5 more is too much, 0.25 is not.
    assert second.reserve("two", 0.5, 1.0) == Standing(0.25, 0.5)
    assert second.reserve("two", 0.25, 1.0) == Standing(0.25, 0.5)
    first.release("one")
    assert first.reserve("three", 0.5, 1.0) == Standing(0.25, 0.25)


def test_a_turns_next_reservation_takes_the_place_of_its_last(file: Path) -> None:
    spending = open_store(file).spending
    for _ in range(3):
        assert spending.reserve("one", 0.9, 1.0) == Standing(0.0)


def test_the_reservations_of_a_process_that_is_gone_are_void(file: Path) -> None:
    spending = open_store(file).spending
    spending.reserve("one", 0.9, 1.0)
    with closing(sqlite3.connect(file)) as database, database:
        # Nobody holds such a lease.
        database.execute("UPDATE reserved SET lease = '0123456789abcdef'")
    database.close()
    assert spending.reserve("two", 0.9, 1.0) == Standing(0.0)


def test_the_reservations_of_another_day_do_not_count(file: Path) -> None:
    spending = open_store(file).spending
    spending.reserve("one", 0.9, 1.0)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE reserved SET day = '2026-01-01'")
    database.close()
    assert spending.reserve("two", 0.9, 1.0) == Standing(0.0)


def test_a_row_that_cannot_be_right_spoils_no_sum(file: Path) -> None:
    spending = open_store(file).spending
    pay(spending)
    with closing(sqlite3.connect(file)) as database, database:
        for number, cost in enumerate(("9e999", "-1e308", "1e308", "'much'")):
            database.execute(
                f"INSERT INTO spending VALUES (?, 'lab:{number}', 1, 1, 1, 1, 0, 0, {cost})",
                (spending.today(),),
            )
        database.execute(
            "INSERT INTO spending VALUES (?, 'lab:x', 1, 1, -5, 1, 0, 0, 1)", (spending.today(),)
        )
    database.close()
    assert spending.reserve("one", 0.5, 1.0) == Standing(0.25)
    assert [(row.model, row.usage.cost) for row in spending.by_month()] == [("lab:a", 0.25)]
    assert spending.unsound() == 5


def test_no_budget_is_kept_where_spending_could_not_be_written_down(file: Path) -> None:
    store = open_store(file)
    [budget] = budgets(Config(budget=BudgetSettings(day=1.0)), store.spending)
    held = budget.reserve(0.1)
    assert budget.remaining() == pytest.approx(0.9)
    # From here on as with a full disk: reading works, writing does not.
    store._connection.execute("PRAGMA query_only = ON")
    (warning,) = pay(store.spending)
    assert "the cost of this turn cannot be recorded" in warning
    with pytest.raises(BudgetReached, match=r"budget\.day cannot be kept"):
        budget.reserve(0.1, instead_of=held)
    with pytest.raises(BudgetReached, match=r"budget\.day cannot be kept"):
        budget.remaining()
    # What could not be written is held on to, and counts as soon as it can be.
    store._connection.execute("PRAGMA query_only = OFF")
    budget.reserve(0.1, instead_of=held)
    assert budget.remaining() == pytest.approx(0.65)


def test_what_a_named_key_took_is_its_own_and_the_day_s(tmp_path: Path) -> None:
    store = open_store(tmp_path / "conversations.db")
    spending = store.spending
    today = spending.today()
    usage = Usage(calls=1, prompt_tokens=1, completion_tokens=1, cost=0.25)
    entries = [SpendingEntry(today, "lab:a", usage, True, (), key) for key in ("x", "x", "y", "")]
    spending.book(1, entries, None)
    assert spending.standing() == Standing(1.0)
    assert spending.standing(key="x") == Standing(0.5)
    assert spending.standing(key="none") == Standing(0.0)
    assert spending.reserve("one", 0.5, 1.0, key="x") == Standing(0.5)
    assert spending.reserve("two", 0.25, 1.0, key="x") == Standing(0.5, 0.5)
    # A key's reservation is no part of the day's, whose own the same turn makes.
    assert spending.standing() == Standing(1.0)
    assert spending.standing(key="y") == Standing(0.25)
    spending.release("one")
    assert spending.standing(key="x") == Standing(0.5)
    store.close()
