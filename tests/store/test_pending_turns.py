"""What cannot be written now is not lost: it waits, is told of, and is written later."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moa_cli.core.conversation import Turn
from moa_cli.store.database import put_aside
from moa_cli.store.store import Store
from tests.support.command import PATIENCE, Moa
from tests.support.kept import open_store
from tests.support.recording import RecorderAlone, events
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Reply, Upstream


def database(moa: Moa) -> Path:
    return moa.state.parent / "data" / "conversations.db"


@contextmanager
def lock(file: Path) -> Iterator[None]:
    """As another process that writes, and does not end."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def prompts(store: Store) -> list[str]:
    return [
        turn.user
        for summary in store.conversations(limit=1000)
        for turn in store.load(summary.id).turns
    ]


def leave_waiting(store: Store) -> None:
    """As if the process had been killed: the file of what waits stays, without a lock."""
    assert store.backlog._file is not None
    store.backlog._file.leave()
    store.backlog._file = None


def pending(file: Path) -> list[Path]:
    return list((file.parent / "pending").glob("*"))


def test_a_turn_beside_a_locked_store_is_told_of_and_written_by_the_next_command(
    moa: Moa,
) -> None:
    assert moa.run("ask", "before").code == 0
    with lock(database(moa)):
        ran = moa.run("ask", "meanwhile")
    assert (ran.code, ran.text) == (0, "ok\n")
    assert (
        "another process is writing to the history: this turn waits in a file of its own" in ran.err
    )
    [file] = pending(database(moa))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    ran = moa.run("history", "show", "--json")
    [turn] = json.loads(ran.text)["turns"]
    assert (turn["prompt"], turn["reply"], turn["status"]) == ("meanwhile", "ok", "finished")
    assert len(turn["proposals"][0]) == 3
    assert pending(database(moa)) == []


def test_turns_beside_a_locked_store_are_counted_once(moa: Moa) -> None:
    assert moa.run("ask", "before").code == 0
    with lock(database(moa)):
        assert moa.run("ask", "meanwhile").code == 0
    for _ in range(2):
        told = json.loads(moa.run("history", "stats", "--json").text)
        assert list(told["turns_by_month"].values()) == [2]
    with lock(database(moa)), moa.terminal("chat") as terminal:
        terminal.wait_for("›")
        terminal.send("first\r")
        terminal.wait_for("4 calls")
        at_empty_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
    told = json.loads(moa.run("history", "stats", "--json").text)
    assert list(told["turns_by_month"].values()) == [3]


def test_a_chat_writes_what_waited_as_soon_as_it_can(moa: Moa) -> None:
    assert moa.run("ask", "before").code == 0
    with moa.terminal("chat") as terminal:
        terminal.wait_for("›")
        with lock(database(moa)):
            terminal.send("first\r")
            terminal.wait_for("4 calls")
            terminal.send("second\r")
            terminal.wait_for(lambda: terminal.raw.count(b"4 calls") == 2)
        terminal.send("third\r")
        terminal.wait_for(lambda: terminal.raw.count(b"4 calls") == 3)
        # Before the prompt is there, Ctrl-D is none.
        at_empty_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
    assert pending(database(moa)) == []
    store = open_store(database(moa))
    [latest] = store.conversations(limit=1)
    assert [turn.user for turn in store.load(latest.id).turns] == ["first", "second", "third"]
    assert [turn.status for turn in store.load(latest.id).turns] == ["finished"] * 3
    store.close()


def test_a_kill_while_the_store_is_locked_loses_no_proposal(moa: Moa, upstream: Upstream) -> None:
    assert moa.run("ask", "before").code == 0
    upstream.always("agg", Reply(delay=60))
    with lock(database(moa)), moa.start("ask", "killed") as process:
        upstream.wait_for(lambda: len(upstream.chats("agg")) == 2)
        process.kill()
        process.wait()
    [turn] = json.loads(moa.run("history", "show", "--json").text)["turns"]
    assert (turn["prompt"], turn["status"]) == ("killed", "interrupted")
    assert [proposal["text"] for proposal in turn["proposals"][0]] == ["ok"] * 3


def test_what_waits_is_taken_in_once_by_processes_that_start_together(tmp_path: Path) -> None:
    file = tmp_path / "conversations.db"
    store = open_store(file)
    warnings: list[str] = []
    with lock(file):
        for number in range(3):
            recorder = RecorderAlone(store, None, "", warnings.append)
            for event in events(f"waiting {number}"):
                recorder.handle(event)
            recorder.close()
        store._connection.close()
        leave_waiting(store)
    code = "import sys; from pathlib import Path; from moa_cli.store.store import Store;"
    code += "Store.open(Path(sys.argv[1])).close()"
    openers = [subprocess.Popen([sys.executable, "-c", code, str(file)]) for _ in range(6)]
    assert [opener.wait(60) for opener in openers] == [0] * 6
    again = open_store(file)
    assert sorted(prompts(again)) == ["waiting 0", "waiting 1", "waiting 2"]
    again.close()
    assert pending(file) == []


def test_a_line_that_a_kill_has_cut_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "conversations.db"
    store = open_store(file)
    with lock(file):
        recorder = RecorderAlone(store, None, "", lambda text: None)
        for event in events()[:7]:
            recorder.handle(event)
        leave_waiting(store)
    store._connection.close()
    [left] = pending(file)
    left.write_bytes(left.read_bytes() + b'{"turn": 0, "kind": "pro')
    again = open_store(file)
    [summary] = again.conversations()
    [turn] = again.load(summary.id).turns
    assert turn.status == "interrupted"
    assert [proposal.text for proposal in turn.proposals[0]] == ["one", ""]
    again.close()


def test_a_line_that_a_full_disk_has_cut_spoils_no_later_one(tmp_path: Path) -> None:
    file = tmp_path / "conversations.db"
    store = open_store(file)
    with lock(file):
        recorder = RecorderAlone(store, None, "", lambda text: None)
        for event in events()[:7]:
            recorder.handle(event)
        assert store.backlog._file is not None
        # Half of a line, and then the disk has room again.
        os.write(store.backlog._file.lines.handle, b'{"turn": 0, "kind": "pro')
        store.backlog._file.lines._torn = True
        for event in events()[7:]:
            recorder.handle(event)
        recorder.close()
        leave_waiting(store)
    store._connection.close()
    again = open_store(file)
    [summary] = again.conversations()
    [turn] = again.load(summary.id).turns
    assert (turn.status, turn.reply) == ("finished", "so.")
    again.close()
    assert pending(file) == []


def test_ctrl_c_acts_at_once_while_a_command_waits(moa: Moa) -> None:
    assert moa.run("ask", "before").code == 0
    with lock(database(moa)), moa.terminal("history", "delete", "--older-than", "0h", "-y") as term:
        term.wait_for("another process is writing to the history; waiting for it")
        term.send("\x03")
        assert term.wait() == 130
    assert len(moa.run("history", "list").text.splitlines()) == 1


def test_a_conversation_deleted_elsewhere_goes_on_as_a_new_one(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        terminal.wait_for("›")
        terminal.send("first\r")
        terminal.wait_for("4 calls")
        store = open_store(database(moa))
        [gone] = store.conversations()
        store.close()
        assert moa.run("history", "delete", "--yes", gone.id).code == 0
        terminal.send("second\r")
        terminal.wait_for("another process has deleted the conversation")
        terminal.wait_for(lambda: terminal.raw.count(b"4 calls") == 2)
        terminal.send("third\r")
        terminal.wait_for(lambda: terminal.raw.count(b"4 calls") == 3)
        # Before the prompt is there, Ctrl-D is none.
        at_empty_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
        assert terminal.raw.count(b"has deleted the conversation") == 1
    store = open_store(database(moa))
    [kept] = store.conversations()
    assert kept.id != gone.id
    assert [turn.user for turn in store.load(kept.id).turns] == ["second", "third"]
    store.close()


def test_two_chats_on_one_conversation_are_told_of_each_other(moa: Moa) -> None:
    assert moa.run("ask", "first").code == 0
    with moa.terminal("chat", "-c") as terminal:
        terminal.wait_for("›")
        assert moa.run("ask", "-c", "elsewhere").code == 0
        terminal.send("here\r")
        terminal.wait_for("another moa has added 1 turn to this conversation")
        terminal.send("f")
        terminal.wait_for("4 calls")
        terminal.send("again\r")
        terminal.wait_for(lambda: terminal.raw.count(b"4 calls") == 2)
        # Before the prompt is there, Ctrl-D is none.
        at_empty_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
        assert terminal.raw.count(b"another moa has added") == 1


def test_a_store_put_aside_under_a_chat_takes_its_later_turns(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        terminal.wait_for("›")
        terminal.send("first\r")
        terminal.wait_for("4 calls")
        put_aside(database(moa))
        assert moa.run("history", "list").code == 0
        terminal.send("second\r")
        terminal.wait_for(lambda: terminal.raw.count(b"4 calls") == 2)
        # Before the prompt is there, Ctrl-D is none.
        at_empty_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
    store = open_store(database(moa))
    assert prompts(store) == ["second"]
    store.close()


def test_undo_after_the_store_was_put_aside_takes_back_no_other_turn(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("first\r")
        terminal.wait_for("4 calls")
        at_empty_prompt(terminal)
        put_aside(database(moa))
        assert moa.run("ask", "elsewhere").code == 0
        terminal.send("/undo\r")
        terminal.wait_for("forgot: first")
        # Before the prompt is there, Ctrl-D is none.
        at_empty_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
    store = open_store(database(moa))
    assert prompts(store) == ["elsewhere"]
    store.close()


def everywhere(file: Path) -> bytes:
    """All bytes of the data folder."""
    return b"".join(path.read_bytes() for path in file.parent.rglob("*") if path.is_file())


def test_what_comes_of_a_turn_that_was_deleted_meanwhile_goes_with_it(
    moa: Moa, upstream: Upstream
) -> None:
    released = threading.Event()
    upstream.always("c", Reply(text="a planted answer", after=released))
    with moa.start("ask", "a planted question") as process:
        while not moa.run("history", "list").text:
            assert process.poll() is None
        assert moa.run("history", "delete", "--all", "--yes").code == 0
        released.set()
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, b"ok\n")
    assert "this turn is not saved: the conversation" in err.decode()
    assert "was deleted" in err.decode()
    assert moa.run("history", "clean").code == 0
    assert moa.run("history", "list").text == ""
    assert pending(database(moa)) == []
    assert b"planted" not in everywhere(database(moa))


def test_what_waits_of_a_deleted_turn_does_not_wait_for_ever(tmp_path: Path) -> None:
    file = tmp_path / "conversations.db"
    store = open_store(file)
    recorder = RecorderAlone(store, None, "rounds = 1", print)
    told = events()
    for event in told[:4]:
        recorder.handle(event)
    with lock(file):
        for event in told[4:]:
            recorder.handle(event)
        recorder.close()
        assert pending(file)
        # As a kill leaves it.
        [waiting] = pending(file)
        left = waiting.read_bytes()
    assert recorder.conversation is not None
    store.delete([recorder.conversation])
    store.close()
    waiting.write_bytes(left)
    other = open_store(file)
    assert prompts(other) == []
    assert pending(file) == []
    other.close()


def test_a_turn_whose_file_was_put_aside_is_whole_in_the_new_one(
    moa: Moa, upstream: Upstream
) -> None:
    released = threading.Event()
    upstream.always("agg", Reply(text="the reply", after=released))
    with moa.start("ask", "a planted question") as process:
        upstream.wait_for(lambda: len(upstream.chats("agg")) == 1)
        put_aside(database(moa))
        # It has the number in the new file that the first one has in the old.
        upstream.enqueue("agg", Reply(text="another reply"))
        assert moa.run("ask", "another question").text == "another reply\n"
        released.set()
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, b"the reply\n"), err
    store = open_store(database(moa))
    turns = [turn for row in store.conversations() for turn in store.load(row.id).turns]
    assert sorted((turn.user, turn.reply) for turn in turns) == [
        ("a planted question", "the reply"),
        ("another question", "another reply"),
    ]
    assert [len(turn.proposals[0]) for turn in turns] == [3, 3]
    store.close()


def test_a_full_disk_is_told_and_history_can_still_be_read(tmp_path: Path, moa: Moa) -> None:
    # A device that is full at any moment stands in the way of every new file.
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no full device here")
    assert moa.run("ask", "kept").code == 0
    store = open_store(database(moa))
    store._connection.execute("PRAGMA max_page_count = 1")
    warnings: list[str] = []
    recorder = RecorderAlone(store, None, "", warnings.append)
    for event in events("q " * 50_000):
        recorder.handle(event)
    recorder.close()
    assert [warning.partition(":")[0] for warning in warnings] == ["this turn is not saved yet"]
    store._connection.execute("PRAGMA max_page_count = 1000000")
    store.close()
    reader = Store.open_to_read(database(moa))
    assert len(prompts(reader)) == 2
    reader.close()


def test_history_in_a_folder_that_cannot_be_written_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "conversations.db"
    store = open_store(file)
    identity = store.begin_conversation("kept", "lab")
    turn = store.begin_turn(identity, "kept", "lab", "")
    store.end_turn(turn, Turn("kept", "reply", "finished", "lab"))
    store.close()
    script = (
        # The interpreter's own files may be closed to others: what is needed is loaded before.
        "import os, sys; from pathlib import Path; from moa_cli.store.store import Store;"
        "Store.open(Path(sys.argv[2])).close(); os.setuid(65534);"
        "store = Store.open_to_read(Path(sys.argv[1]));"
        "print([summary.title for summary in store.conversations()],"
        " [found.snippet for found in store.search('reply')])"
    )
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    for path in (tmp_path, file):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    ran = subprocess.run(
        [sys.executable, "-c", script, str(file), str(tmp_path.parent / "other.db")],
        capture_output=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(b"['kept']")


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_it_is_told_above_what_is_drawn_anew(moa: Moa, upstream: Upstream, command: str) -> None:
    upstream.always("b", Reply(text="ok", delay=1.2))
    upstream.always("c", Reply(text="ok", delay=2.4))
    assert moa.run("ask", "before").code == 0
    told = "moa: another process is writing to the history; this turn is written when it can be"
    rows = textwrap.wrap(told, 80)
    assert len(rows) == 2
    with (
        moa.terminal(command, *(["hi"] if command == "ask" else []), columns=80) as terminal,
        lock(database(moa)),
    ):
        if command == "chat":
            at_empty_prompt(terminal)
            terminal.send("hi\r")
        terminal.wait_for("written when it")
        terminal.wait_for("4 calls" if command == "chat" else "file of its")
        lines = terminal.lines()
    place = lines.index(rows[0])
    assert lines[place : place + 2] == rows
    # Nothing is left of what was drawn.
    named = [line for line in lines if "lab:c" in line]
    assert all(line.startswith(("✓ lab:c", "moa: profile lab: ")) for line in named)
