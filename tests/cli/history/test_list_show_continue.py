"""Conversations are kept, gone on with, found, and deleted, from the command line."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

FREE = {f"lab:{name}": {"prompt": 0, "completion": 0} for name in ("a", "b", "agg")}


@pytest.fixture
def kept(moa: Moa, upstream: Upstream) -> Moa:
    moa.profile("lab", "a", "b")
    upstream.always("agg", Reply(text="stripes"))
    assert moa.run("ask", "what do zebras wear?").code == 0
    return moa


def test_a_turn_is_listed_and_shown(kept: Moa) -> None:
    listed = kept.run("history", "list")
    assert listed.code == 0
    identity = listed.text.split()[0]
    assert "1 turn" in listed.text
    assert listed.text.rstrip().endswith("what do zebras wear?")
    shown = kept.run("history", "show", identity[:5])
    assert shown.text == "› what do zebras wear?\n\nstripes\n"
    with_proposals = kept.run("history", "show", identity, "--proposals").text
    assert "── lab:a (round 1)\nok\n" in with_proposals
    values = json.loads(kept.run("history", "show", identity, "--json").text)
    assert values["turns"][0]["reply"] == "stripes"
    assert json.loads(kept.run("history", "list", "--json").text)[0]["id"] == identity


@pytest.mark.parametrize("command", [("list",), ("search", "zebras")])
def test_any_number_may_be_the_limit(kept: Moa, command: tuple[str, ...]) -> None:
    ran = kept.run("history", *command, "-n", str(2**70))
    assert (ran.code, ran.err) == (0, "")
    assert "zebras" in ran.text


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names are Unicode there")
def test_the_name_of_the_folder_may_be_no_text(moa: Moa, tmp_path: Path) -> None:
    moa.environment["MOA_DATA_DIR"] = str(tmp_path / os.fsdecode(b"\xff?#%41"))
    assert moa.run("ask", "what do zebras wear?").code == 0
    assert moa.run("history", "export", "--all", "--format", "json", "-o", "kept.json").code == 0
    assert moa.run("history", "delete", "--all", "--yes").err == "moa: deleted 1 conversation\n"
    assert moa.run("history", "import", "kept.json").err == "moa: imported 1 conversation\n"
    assert moa.run("history", "list").text.endswith("what do zebras wear?\n")


def test_the_last_conversation_goes_on(kept: Moa, upstream: Upstream) -> None:
    assert kept.run("ask", "-c", "and horses?").code == 0
    sent = upstream.chats("agg")[-1].messages
    assert [message["content"] for message in sent[1:]] == [
        "what do zebras wear?",
        "stripes",
        "and horses?",
    ]
    assert "2 turns" in kept.run("history", "list").text


def test_a_conversation_goes_on_by_the_beginning_of_its_id(kept: Moa, upstream: Upstream) -> None:
    identity = kept.run("history", "list").text.split()[0]
    kept.run("ask", "something else")
    assert kept.run("ask", "--cid", identity[:6], "and horses?").code == 0
    assert "what do zebras wear?" in str(upstream.chats("agg")[-1].messages)
    wrong = kept.run("ask", "--cid", "zzz", "hi")
    assert (wrong.code, wrong.text) == (1, "")
    assert "there is no conversation `zzz`" in wrong.err


def test_words_are_found_with_the_hits_marked(kept: Moa) -> None:
    found = kept.run("history", "search", "zebras")
    assert "what do [zebras] wear?" in found.text
    assert kept.run("history", "search", "giraffes").text == ""


def test_deleting_asks_and_then_is_thorough(kept: Moa) -> None:
    identity = kept.run("history", "list").text.split()[0]
    assert kept.run("history", "delete", identity).code == 2
    assert kept.run("history", "delete").code == 2
    assert kept.run("history", "delete", identity, "--yes").code == 0
    assert kept.run("history", "list").text == ""
    assert kept.run("history", "delete", "--older-than", "30d", "-y").code == 0
    assert kept.run("history", "delete", "--older-than", "soon", "-y").code == 2


def test_without_a_terminal_deleting_is_refused_and_says_what_to_pass(kept: Moa) -> None:
    identity = kept.run("history", "list").text.split()[0]
    ran = kept.run("history", "delete", identity, stdin=b"y\n")
    assert (ran.code, ran.err) == (
        2,
        "moa: cannot confirm: standard input is not a terminal; pass --yes\n",
    )
    assert identity in kept.run("history", "list").text


@pytest.mark.parametrize(("answer", "left"), [("y\r", 1), ("n\r", 12)])
def test_the_question_names_what_is_deleted(kept: Moa, answer: str, left: int) -> None:
    assert kept.run("ask", "-c", "and horses?").code == 0
    for number in range(11):
        assert kept.run("ask", "-r", "0", f"question \x1b[31m{number} {'long ' * 40}").code == 0
    *newer, oldest = [line.split()[0] for line in kept.run("history", "list").text.splitlines()]
    chosen = [oldest, *newer[:-1], oldest]
    with kept.terminal("history", "delete", *chosen, rows=40) as terminal:
        terminal.wait_for("[y/N]")
        lines = terminal.shown()
        terminal.send(answer)
        assert (terminal.wait() == 0) == (left == 1)
    assert lines[0] == f"  {oldest} · 2 turns · what do zebras wear?"
    assert lines[1].startswith(f"  {newer[0]} · 1 turn · question 10 long long")
    assert len(lines) == 12
    assert lines[10:] == ["  and 1 more", "Delete 11 conversations permanently? [y/N]:"]
    assert len(kept.run("history", "list").text.splitlines()) == left


@pytest.mark.parametrize("how", ["--no-save", "MOA_SAVE", "config"])
def test_nothing_is_kept_where_it_is_not_wanted(moa: Moa, upstream: Upstream, how: str) -> None:
    moa.profile("lab", "a", "b")
    flags = ["--no-save"] if how == "--no-save" else []
    env = {"MOA_SAVE": "0"} if how == "MOA_SAVE" else {}
    if how == "config":
        config = moa.config / "config.toml"
        config.write_text("save = false\n" + config.read_text())
    assert moa.run("ask", "a secret", *flags, env=env).code == 0
    assert moa.run("history", "list").text == ""


def test_a_failed_turn_is_kept_with_why(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", "b")
    upstream.always("*", Reply(status=400))
    assert moa.run("ask", "will this work?").code == 1
    identity = moa.run("history", "list").text.split()[0]
    assert "(failed: no proposer answered)" in moa.run("history", "show", identity).text


def test_a_store_that_cannot_be_opened_costs_a_warning(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", "b")
    file = moa.run("history", "path").text.strip()
    assert moa.run("ask", "one").code == 0
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    ran = moa.run("ask", "two")
    assert (ran.code, ran.text) == (0, "ok\n")
    assert "is not saved" in ran.err


def test_no_key_reaches_the_file(kept: Moa) -> None:
    file = kept.run("history", "path").text.strip()
    key = kept.environment["LAB_KEY"].encode()
    with open(file, "rb") as content:
        assert key not in content.read()


@pytest.mark.parametrize(
    "command",
    [
        ("ask", "-c", "hi"),
        ("ask", "--no-save", "hi"),
        ("history", "stats"),
        ("history", "list"),
        ("history", "export", "--all"),
    ],
)
def test_whatever_finds_the_file_damaged_tells_of_it(kept: Moa, command: tuple[str, ...]) -> None:
    file = Path(kept.run("history", "path").text.strip())
    for leftover in file.parent.glob(f"{file.name}-*"):
        leftover.unlink()
    file.write_bytes(b"no database" * 1000)
    settings = tomllib.loads((kept.config / "config.toml").read_text())
    kept.configure(**settings, budget={"day": 5.0}, prices=FREE)
    ran = kept.run(*command)
    assert "the file of conversations was damaged and put aside" in ran.err
    assert "budget.day starts again from 0" in ran.err
    assert len(list(file.parent.glob("*.damaged-*"))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_history_that_cannot_be_written_is_read_and_continued(
    kept: Moa, upstream: Upstream
) -> None:
    """In a folder whose name is not UTF-8."""
    data = kept.state.parent / os.fsdecode(b"d\xff%23?")
    (kept.state.parent / "data").rename(data)
    kept.environment["MOA_DATA_DIR"] = str(data)
    # Nobody can write a database whose log cannot be opened, not even root.
    (data / "conversations.db-wal").mkdir()
    assert "what do zebras wear?" in kept.run("history", "list").text
    ran = kept.run("ask", "-c", "and horses?")
    assert (ran.code, ran.text) == (0, "stripes\n")
    assert "this conversation is not saved" in ran.err
    sent = [message["content"] for message in upstream.chats("agg")[-1].messages[-3:]]
    assert sent == ["what do zebras wear?", "stripes", "and horses?"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_names_that_are_not_utf8_are_no_error(kept: Moa) -> None:
    odd = os.fsdecode(b"x\xff")
    identity = kept.run("history", "list").text.split()[0]
    assert kept.run("history", "tag", identity, odd).code == 0
    assert identity in kept.run("history", "list", "--tag", odd).text
    assert kept.run("history", "list", "--profile", odd).text == ""
    assert kept.run("history", "search", "zebras", "--profile", odd).text == ""
    assert kept.run("history", "backup", f"{odd}.db").code == 0
    assert kept.run("history", "recover", f"{odd}.db").code == 0
