"""Kept conversations at a terminal: the table of `history list`, and `history show` drawn, and
through the pager where it is long."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from wcwidth import wcswidth

from tests.support.command import Moa
from tests.support.kept import keep

REPLY = "# Head\n\nSome *words* and `code`."
DRAWN = ["› Why?", "", "Head", "", "Some words and code."]
RAW = ["› Why?", "", "# Head", "", "Some *words* and `code`."]
HOSTILE = "red \x1b[31m\x1b]0;gone\x07\x9b2J\u202eend"
LONG = "\n\n".join(f"line {number}" for number in range(40))
# Ignores Ctrl-C, as `less` does, and waits for a line from the terminal.
PAGER = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
pathlib.Path("paged").write_bytes(sys.stdin.buffer.read())
print("PAGER", flush=True)
open("/dev/tty").readline()
"""


@pytest.fixture
def pager(moa: Moa) -> Path:
    """Make a program of ours the pager; returns the file that it writes what it is given to."""
    script = moa.folder / "pager.py"
    script.write_text(PAGER)
    moa.environment["PAGER"] = f"{sys.executable} {script}"
    return moa.folder / "paged"


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_the_list_is_a_table_that_fits(moa: Moa, columns: int) -> None:
    wide = keep(moa, ("漢字とかな交じり文の題名" * 9, "yes"), profile="a-profile-of-a-long-name")
    hostile = keep(moa, ("one", "yes"), ("two", "yes"), title=HOSTILE)
    with moa.terminal("history", "list", columns=columns) as terminal:
        assert terminal.wait() == 0
        head, second, first = terminal.lines()
    assert b"\x1b[31m" not in terminal.raw
    assert b"gone" not in terminal.raw
    assert second.startswith(f"{hostile}  ")
    assert first.startswith(f"{wide}  ")
    assert second.index("red end") == head.index("title") == wcswidth(first[: first.index("漢")])
    assert wcswidth(first.rstrip()) <= columns
    assert ("profile" in head) == (columns == 200)
    if "turns" in head:
        assert second[head.index("turns") + 4] == "2"


def test_what_is_found_is_folded_below_its_conversation(moa: Moa) -> None:
    asked = "why is the sky blue in the evening, and not red as one would think?"
    identity = keep(moa, (asked, "yes"))
    with moa.terminal("history", "search", "sky", columns=50) as terminal:
        assert terminal.wait() == 0
        head, *words = terminal.written()
    assert (len(head), head[:10], head[-1]) == (50, identity, "…")
    assert len(words) > 1
    assert all(line.startswith("    ") and len(line) <= 50 for line in words)
    assert " ".join(" ".join(words).split()) == f"prompt: {asked}"


def test_without_a_terminal_the_list_has_no_head_and_cuts_nothing(moa: Moa) -> None:
    identity = keep(moa, ("a " * 30, "yes"))
    (line,) = moa.run("history", "list", env={"COLUMNS": "20"}).text.splitlines()
    assert line.startswith(f"{identity}  ")
    assert line.endswith(("a " * 30).strip())
    assert "\t" not in line


def test_an_empty_list_is_told_of_at_a_terminal_only(moa: Moa) -> None:
    assert moa.run("history", "list").text == ""
    with moa.terminal("history", "list") as terminal:
        assert terminal.wait() == 0
        assert terminal.lines() == ["moa: there are no conversations"]


def test_without_an_id_the_latest_is_shown(moa: Moa) -> None:
    assert moa.run("history", "show").err == "moa: there are no conversations\n"
    keep(moa, ("first", "one"))
    keep(moa, ("second", "two"))
    assert moa.run("history", "show").text == "› second\n\ntwo\n"


def test_replies_are_drawn_at_a_terminal_and_raw_elsewhere(moa: Moa, tmp_path: Path) -> None:
    keep(moa, ("Why?", REPLY))
    for arguments, expected in (([], DRAWN), (["--plain"], RAW)):
        with moa.terminal("history", "show", *arguments) as terminal:
            assert terminal.wait() == 0
            assert terminal.lines() == expected
    with moa.terminal("history", "show", env={"TERM": "dumb"}) as terminal:
        assert terminal.wait() == 0
        assert terminal.lines() == RAW
        assert b"\x1b" not in terminal.raw
    assert moa.run("history", "show").text.splitlines() == RAW
    with moa.terminal("history", "show", stdout=tmp_path / "out") as terminal:
        assert terminal.wait() == 0
    assert (tmp_path / "out").read_text().splitlines() == RAW


@pytest.mark.parametrize("arguments", [[], ["--plain"]], ids=["drawn", "plain"])
def test_a_long_conversation_goes_through_the_pager(
    moa: Moa, pager: Path, arguments: list[str]
) -> None:
    keep(moa, ("Why?", LONG), ("And?", HOSTILE))
    with moa.terminal("history", "show", *arguments) as terminal:
        terminal.wait_for("PAGER")
        paged = pager.read_text()
        # A key of the pager's, which ends nothing else.
        terminal.send("\x03")
        terminal.send("\n")
        assert terminal.wait() == 0
        assert "line 39" not in "\n".join(terminal.lines())
        assert terminal.modes_after == terminal.modes_before
    assert "line 0\n" in paged
    assert "line 39\n" in paged
    assert "red end" in paged
    assert ("\x1b[1m› Why?" in paged) == (not arguments)
    for active in ("\x1b[31m", "\x1b]", "\x9b", "\u202e", "\x07"):
        assert active not in paged


@pytest.mark.usefixtures("pager")
def test_what_fits_or_is_wanted_at_once_goes_past_the_pager(moa: Moa, tmp_path: Path) -> None:
    keep(moa, ("Why?", LONG))
    with moa.terminal("history", "show", rows=100) as terminal:
        assert terminal.wait() == 0
        assert terminal.lines()[-1] == "line 39"
    with moa.terminal("history", "show", "--no-pager") as terminal:
        assert terminal.wait() == 0
        assert terminal.lines()[-1] == "line 39"
    with moa.terminal("history", "show", env={"PAGER": ""}) as terminal:
        assert terminal.wait() == 0
        assert terminal.lines()[-1] == "line 39"
    with moa.terminal("history", "show", env={"TERM": "dumb"}) as terminal:
        assert terminal.wait() == 0
        assert terminal.lines()[-1] == "line 39"
    assert not moa.run("history", "show").err


@pytest.mark.parametrize("command", ["no-such-pager-here", "false", "'half a quote", "/"])
def test_where_the_pager_is_of_no_use_the_text_is_printed(moa: Moa, command: str) -> None:
    keep(moa, ("Why?", LONG))
    with moa.terminal("history", "show", columns=100, env={"PAGER": command}) as terminal:
        assert terminal.wait() == 0
        lines = terminal.lines()
    assert lines[-2] == "line 39"
    assert lines[-1].startswith(f"moa: the pager `{command}` ")
    assert "Traceback" not in "\n".join(lines)


@pytest.mark.skipif(shutil.which("less") is None, reason="needs less")
def test_less_is_the_pager_if_none_is_named(moa: Moa) -> None:
    keep(moa, ("Why?", LONG))
    with moa.terminal("history", "show") as terminal:
        terminal.wait_for(lambda: terminal.shown()[-1:] == [":"])
        assert terminal.shown()[0] == "› Why?"
        assert "line 39" not in terminal.shown()
        terminal.send("q")
        assert terminal.wait() == 0
