"""What was spent, and reserved, over several connections to one file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from moa_cli.cli.budget import _day_cap
from moa_cli.conversation import Charge, Usage
from moa_cli.errors import BudgetReached
from moa_cli.events import AggregatorFinished, AggregatorStarted, TurnStarted
from moa_cli.store import Spender, Store

PAID = Charge(1, "lab:a", Usage(5, 5, calls=1, cost=0.25))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "conversations.db"


def test_what_one_turn_has_reserved_another_cannot_spend(file: Path) -> None:
    first, second = Store.open(file).spending, Store.open(file).spending
    first.add(PAID, first=True)
    assert first.reserve("one", 0.5, 1.0) == 0.25
    # 0.25 is spent and 0.5 reserved: 0.5 more is too much, 0.25 is not.
    assert second.reserve("two", 0.5, 1.0) == 0.75
    assert second.reserve("two", 0.25, 1.0) == 0.75
    first.release("one")
    assert first.reserve("three", 0.5, 1.0) == 0.5


def test_a_turns_next_reservation_takes_the_place_of_its_last(file: Path) -> None:
    spending = Store.open(file).spending
    for _ in range(3):
        assert spending.reserve("one", 0.9, 1.0) == 0


def test_the_reservations_of_a_process_that_is_gone_are_void(file: Path) -> None:
    spending = Store.open(file).spending
    spending.reserve("one", 0.9, 1.0)
    with sqlite3.connect(file) as database:
        # The highest that a process can have on Linux is far below.
        database.execute("UPDATE reserved SET process = 2147483646")
    database.close()
    assert spending.reserve("two", 0.9, 1.0) == 0


def test_no_budget_is_kept_where_spending_could_not_be_written_down(file: Path) -> None:
    store = Store.open(file)
    cap = _day_cap(1.0, store.spending)
    assert cap.left(Usage(), Usage(cost=0.1), Usage(), "turn") == pytest.approx(0.9)
    warnings: list[str] = []
    spender = Spender(store.spending, warnings.append)
    spender.handle(TurnStarted(profile="p", prompt="hi", rounds=0, aggregator="lab:a"))
    # From here on as with a full disk: reading works, writing does not.
    store._connection.execute("PRAGMA query_only = ON")
    spender.handle(AggregatorStarted(name="a", model="lab:a", references=0))
    spender.handle(AggregatorFinished(model="lab:a", text="hi", usage=PAID.usage))
    (warning,) = warnings
    assert "what this turn cost is not kept" in warning
    with pytest.raises(BudgetReached, match=r"budget\.day cannot be kept"):
        cap.left(Usage(), Usage(cost=0.1), Usage(), "turn")
