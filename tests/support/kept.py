"""Conversations put straight into a store."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from moa_cli.core.conversation import Proposal, Turn, Usage
from moa_cli.store.calls import SpendingEntry
from moa_cli.store.store import Store
from tests.support.command import Moa

__all__ = ["counted_calls", "fill", "keep", "open_store", "pay", "proposals_in", "sound"]

# The stores that the running test has opened.
_opened: list[Store] = []


def open_store(file: Path) -> Store:
    """A store that is closed after the test at the latest; see `close_opened`."""
    store = Store.open(file)
    _opened.append(store)
    return store


def close_opened() -> None:
    """Close the files of the stores that a test has opened. Without it, Python 3.13 and newer warn
    of them, in whatever test runs by then."""
    while _opened:
        # What a store has still to write is for its test to check.
        _opened.pop().spending.close()


def keep(moa: Moa, *turns: tuple[str, str], title: str | None = None, profile: str = "lab") -> str:
    """Keep a conversation of prompts and replies, as the latest; returns its id."""
    store = Store.open(database(moa))
    try:
        identity = store.begin_conversation(turns[0][0], profile)
        for prompt, reply in turns:
            number = store.begin_turn(identity, prompt, profile, "rounds = 1")
            store.end_turn(number, Turn(prompt, reply, "finished", profile))
        if title is not None:
            store.rename(identity, title)
        return identity
    finally:
        store.close()


def database(moa: Moa) -> Path:
    """The file of the store."""
    return moa.state.parent / "data" / "conversations.db"


def sound(moa: Moa) -> None:
    """Nothing of the store is damaged."""
    with closing(sqlite3.connect(database(moa))) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert not list(database(moa).parent.glob("*damaged*"))


def counted_calls(moa: Moa) -> int:
    """How many calls are counted in what was spent."""
    values: dict[str, Any] = json.loads(moa.run("history", "stats", "--json").text)
    return sum(int(model["calls"]) for model in values["models"])


def proposals_in(moa: Moa) -> int:
    """How many proposals are written down so far."""
    try:
        with closing(sqlite3.connect(f"{database(moa).as_uri()}?mode=ro", uri=True)) as file:
            return int(file.execute("SELECT count(*) FROM proposals").fetchone()[0])
    except sqlite3.OperationalError:
        # There is no file, or no table in it, yet.
        return 0


def pay(store: Store, usage: Usage) -> None:
    """A turn of one call."""
    entry = SpendingEntry(store.spending.today(), "lab:a", usage, True, ())
    store.spending.book(1, [entry], None)


def fill(store: Store, conversations: int) -> None:
    """So many conversations of five turns, each with three proposals and paid for."""
    for number in range(conversations):
        identity = store.begin_conversation(f"subject {number}", "lab")
        for place in range(5):
            turn = store.begin_turn(identity, f"question {number}.{place}", "lab", "rounds = 1")
            usage = Usage(100, 50, calls=1, cost=0.25)
            for index in range(3):
                text = f"proposal {number}.{place}.{index} " + "long " * 500 * (index == 2)
                store.add_proposal(turn, Proposal(1, index, "a", "lab:a", text, usage=usage))
            reply = f"reply {number}.{place} " + "and so on " * 100
            store.end_turn(
                turn, Turn(f"question {number}.{place}", reply, "finished", "lab", usage=usage)
            )
            pay(store, usage)
