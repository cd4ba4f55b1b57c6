"""Processes that use one store beside each other take nothing from each other.

SQLite's locks are the kernel's, which drops those of a process when the process closes any
descriptor of the file. So nothing but SQLite may open it, whatever a user names.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Moa, Terminal
from tests.support.kept import keep
from tests.support.server import serving
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Upstream
from tests.support.watched import Watch


@pytest.fixture
def watch(moa: Moa, tmp_path: Path) -> Watch:
    """Who opens the database beside SQLite."""
    return Watch(moa, tmp_path)


def database(moa: Moa) -> Path:
    return moa.state.parent / "data" / "conversations.db"


def asked(moa: Moa, question: str, sql: str) -> Any:
    """What the database answers, once all processes have ended."""
    connection = sqlite3.connect(database(moa))
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], question
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def calls(moa: Moa) -> int:
    [(found,)] = asked(moa, "calls", "SELECT total(calls) FROM spending")
    return int(found)


def test_a_server_counts_every_call_beside_commands_that_come_and_go(
    moa: Moa, upstream: Upstream
) -> None:
    with serving(moa) as server:
        server.ask()
        assert moa.run("history", "stats").code == 0
        for _ in range(5):
            server.ask()
            assert moa.run("history", "list").code == 0
        server.end()
    assert calls(moa) == len([request for request in upstream.requests if request.is_chat]) == 24


def test_a_server_and_turns_of_others_damage_nothing(moa: Moa, upstream: Upstream) -> None:
    with serving(moa) as server:
        for number in range(6):
            server.ask()
            ran = moa.run("ask", f"question {number}")
            assert ran.code == 0, ran.err
            assert "damaged" not in ran.err
        server.end()
    assert calls(moa) == len([request for request in upstream.requests if request.is_chat])
    assert len(asked(moa, "turns", "SELECT id FROM turns WHERE status = 'finished'")) == 6
    assert not list(database(moa).parent.glob("*damaged*"))


def _answered(terminal: Terminal, turns: int) -> bool:
    return terminal.raw.count(b"4 calls") >= turns


def test_a_chat_that_looked_at_the_list_loses_no_turn_of_others(moa: Moa) -> None:
    keep(moa, ("an old question", "an old answer"))
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("first\r")
        terminal.wait_for("4 calls")
        terminal.send("/resume\r")
        terminal.wait_for("Enter resumes")
        terminal.send("\x1b")
        at_empty_prompt(terminal)
        for number in range(2):
            assert moa.run("ask", f"elsewhere {number}").code == 0
            terminal.send(f"here {number}\r")
            terminal.wait_for(partial(_answered, terminal, number + 2))
        # Before the prompt is there, Ctrl-D is none.
        at_empty_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
    assert len(asked(moa, "turns", "SELECT id FROM turns WHERE status = 'finished'")) == 6


def test_nothing_but_sqlite_opens_the_database(moa: Moa, watch: Watch) -> None:
    (moa.folder / "in.txt").write_text("a line\n", "utf-8")
    keep(moa, ("why is that?", "because"))
    for arguments in (
        ["ask", "hello"],
        ["ask", "-c", "and then?"],
        ["history", "list"],
        ["history", "show"],
        ["history", "search", "because"],
        ["history", "stats"],
        ["history", "export", "--all", "-o", "all.json"],
        ["history", "import", "all.json"],
        ["history", "path"],
        ["history", "delete", "--older-than", "1d", "--yes"],
        ["batch", "--yes", "in.txt", "out.jsonl"],
        ["doctor", "--offline"],
    ):
        ran = moa.run(*arguments)
        assert ran.code == 0, (arguments, ran.err)
    with serving(moa) as server:
        server.ask()
        server.end()
    with moa.terminal("chat", "--resume") as terminal:
        terminal.wait_for("Enter resumes")
        terminal.send("\r")
        terminal.wait_for("› and then?")
        at_empty_prompt(terminal)
        terminal.send("/resume\r")
        terminal.wait_for("Enter resumes")
        terminal.send("\x1b")
        at_empty_prompt(terminal)
        terminal.send("\x04")
        terminal.wait()
    assert watch.touched() == []


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("link", [False, True], ids=["by its name", "by a link"])
def test_a_chat_attaches_no_database(
    moa: Moa, watch: Watch, tmp_path: Path, suffix: str, link: bool
) -> None:
    keep(moa, ("why?", "because"))
    named = Path(f"{database(moa)}{suffix}")
    if link:
        (tmp_path / "notes.txt").symlink_to(named)
        named = tmp_path / "notes.txt"
    ran = moa.run("chat", stdin=f"first\n/file {named}\nsecond\n".encode())
    assert "cannot be read: moa keeps its conversations in it" in ran.err
    assert watch.touched() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "-f", "{db}", "what is this?"],
        ["ask", "-p", "{db}", "what is this?"],
        ["ask", "--no-save", "-m", "local:{db}", "what is this?"],
        ["batch", "{db}", "out.jsonl"],
        ["batch", "file://{db}", "out.jsonl"],
        ["batch", "in.txt", "{db}"],
        ["history", "import", "{db}"],
        ["history", "export", "--all", "--force", "-o", "{db}"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_no_command_reads_or_overwrites_the_database(
    moa: Moa, watch: Watch, arguments: list[str]
) -> None:
    (moa.folder / "in.txt").write_text("a line\n", "utf-8")
    keep(moa, ("why?", "because"))
    before = database(moa).read_bytes()
    ran = moa.run(*(part.format(db=database(moa)) for part in arguments))
    assert ran.code != 0
    assert str(database(moa)) in ran.err
    assert "Traceback" not in ran.err
    assert watch.touched() == []
    assert database(moa).read_bytes() == before
