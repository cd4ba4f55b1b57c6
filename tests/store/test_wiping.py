"""Deleted words leave the file, in steps between which others write."""

from __future__ import annotations

import dataclasses
import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from moa_cli.core.conversation import Proposal, Turn
from moa_cli.store import upkeep
from moa_cli.store.store import Store
from tests.support.command import PATIENCE, Moa
from tests.support.kept import open_store

SECRET = "xyzzyplugh"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "data" / "conversations.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    """An empty store."""
    opened = open_store(file)
    yield opened
    opened.close()


def fill(store: Store, conversations: int, turns: int, word: str = "") -> list[str]:
    """Conversations of random words, `word` among them in each text; their ids."""
    some = random.Random(conversations)
    vocabulary = ["".join(some.choices("abcdefgh", k=6)) for _ in range(2000)]
    made = []
    for number in range(conversations):
        identity = store.begin_conversation(f"{word} title {number}", "lab")
        for place in range(turns):
            text = " ".join([*some.choices(vocabulary, k=40), f"{word}{place}", word])
            turn = store.begin_turn(identity, text, "lab", f"system = '{word}'")
            store.add_proposal(turn, Proposal(1, 0, "a", "lab:a", f"{text} {text}"))
            store.add_note(turn, {"kind": "retrying", "model": word})
            store.end_turn(turn, Turn(text, text, "finished", "lab", lost=(word,)))
        made.append(identity)
    return made


def holds(file: Path, word: str) -> list[str]:
    """The files of the store in whose bytes the word stands."""
    found = []
    for path in file.parent.rglob("*"):
        if path.is_file():
            data = path.read_bytes().lower()
            if word.encode() in data or word.encode("utf-16-le") in data:
                found.append(path.name)
    return found


def test_a_deleted_word_is_in_no_byte_of_the_file(store: Store, file: Path) -> None:
    fill(store, 5, 5)
    chosen = fill(store, 3, 5, SECRET)
    assert holds(file, SECRET)
    left = store.delete(chosen, seconds=30)
    assert left == upkeep.PendingUpkeep()
    assert store.search(SECRET) == []
    assert holds(file, SECRET) == []
    assert len(store.conversations()) == 5


def test_what_a_kill_left_to_be_wiped_is_wiped_later(store: Store, file: Path) -> None:
    fill(store, 5, 5)
    chosen = fill(store, 3, 20, SECRET)
    left = store.delete(chosen, seconds=-1.0)
    assert left.words
    assert store.search(SECRET) == []
    assert len(store.conversations()) == 5
    assert [summary.id for summary in store.conversations() if summary.id in chosen] == []
    rounds = 0
    while store.upkeep(seconds=0.0).words:
        rounds += 1
    assert rounds >= 2
    assert holds(file, SECRET) == []
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


def test_words_that_are_deleted_while_others_are_wiped_go_too(store: Store, file: Path) -> None:
    fill(store, 5, 5)
    first, second = fill(store, 2, 20, SECRET)
    store.delete([first], seconds=-1.0)
    store.upkeep(seconds=0.0)
    store.upkeep(seconds=0.0)
    left = store.delete([second], seconds=30)
    assert not left.words
    assert holds(file, SECRET) == []


def test_the_log_that_another_process_reads_is_told_and_emptied_later(
    store: Store, file: Path
) -> None:
    chosen = fill(store, 1, 3, SECRET)
    reader = sqlite3.connect(file, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM turns").fetchone()
    left = store.delete(chosen, seconds=1)
    assert left == upkeep.PendingUpkeep(log=True)
    reader.execute("ROLLBACK")
    reader.close()
    assert store.upkeep(seconds=1) == upkeep.PendingUpkeep()
    assert holds(file, SECRET) == []


@pytest.mark.slow
def test_others_write_while_a_large_conversation_is_wiped(store: Store, file: Path) -> None:
    [chosen] = fill(store, 1, 3000, SECRET)
    written: list[float] = []
    done = threading.Event()

    def write() -> None:
        with closing(Store.open(file)) as other:
            identity = other.begin_conversation("beside", "lab")
            while not done.is_set():
                other.begin_turn(identity, "beside", "lab", "")
                written.append(time.monotonic())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        left = store.delete([chosen], seconds=0.5)
        while left.words and left != upkeep.PendingUpkeep(log=True):
            left = store.upkeep(seconds=0.5)
    finally:
        done.set()
        writer.join()
    # One write after the other, all through the wiping.
    assert len(written) > 20
    store.upkeep(seconds=60)
    assert holds(file, SECRET) == []


def test_wiping_goes_on_by_itself_after_a_kill(moa: Moa) -> None:
    file = moa.state.parent / "data" / "conversations.db"
    store = open_store(file)
    [large] = fill(store, 1, 300, SECRET)
    store.delete([large], seconds=-1.0)
    store.close()
    assert holds(file, SECRET)
    assert moa.run("history", "list").text == ""
    deadline = time.monotonic() + PATIENCE
    while holds(file, SECRET) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert holds(file, SECRET) == []


def test_code_in_the_working_directory_is_not_run_by_what_goes_on_wiping(moa: Moa) -> None:
    file = moa.state.parent / "data" / "conversations.db"
    store = open_store(file)
    [identity] = fill(store, 1, 3, SECRET)
    upkeep.doom(store._connection, [identity])
    store.close()
    foreign = moa.folder / "moa_cli"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("")
    (foreign / "__main__.py").write_text("open('was-run', 'w').close()\n")
    # As the installed command runs: the working directory is none of Python's folders.
    subprocess.run(
        [sys.executable, "-P", "-m", "moa_cli", "history", "list"],
        cwd=moa.folder,
        env=moa.environment,
        check=True,
    )
    deadline = time.monotonic() + PATIENCE
    while holds(file, SECRET) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert holds(file, SECRET) == []
    assert not (moa.folder / "was-run").exists()


def test_delete_tells_what_really_happened(moa: Moa) -> None:
    file = moa.state.parent / "data" / "conversations.db"
    store = open_store(file)
    first, second = fill(store, 2, 30, SECRET)
    store.close()
    ran = moa.run("history", "delete", "--yes", first)
    assert (ran.code, ran.err) == (0, "moa: deleted 1 conversation\n")
    reader = sqlite3.connect(file, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM turns").fetchone()
    ran = moa.run("history", "delete", "--yes", second)
    assert "deleted text stays in the write-ahead log until other moa processes end" in ran.err
    reader.execute("ROLLBACK")
    reader.close()
    ran = moa.run("history", "clean")
    assert (ran.code, ran.err) == (0, "moa: done: no deleted text is left in the file\n")
    assert moa.run("history", "search", SECRET).text == ""
    assert holds(file, SECRET) == []


def test_what_an_older_version_wrote_is_packed_beside_other_work(store: Store, file: Path) -> None:
    [identity] = fill(store, 1, 120)
    before = store.load(identity)
    by_number = {turn.stored_as: turn for turn in before.turns}
    connection = store._connection
    rows = connection.execute("SELECT * FROM every_proposal").fetchall()
    connection.execute("DELETE FROM proposals")
    for row in rows:
        values = [row["turn_id"], row["layer"], row["place"]]
        proposal = by_number[row["turn_id"]].proposals[0][0]
        text = json.dumps(dataclasses.asdict(proposal), ensure_ascii=False)
        connection.execute("INSERT INTO old_proposals VALUES (?, ?, ?, ?)", (*values, text))
    connection.execute("INSERT INTO upkeep VALUES ('pack proposals')")
    assert store.load(identity) == before
    assert store.upkeep(seconds=30) == upkeep.PendingUpkeep()
    assert connection.execute("SELECT count(*) FROM old_proposals").fetchone()[0] == 0
    assert store.load(identity) == before
