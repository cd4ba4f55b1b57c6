"""Choosing a conversation to go on with, at a real terminal: what is listed, what typing leaves
of it, which one is gone on with, and that nothing of the list remains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.command import Moa, Terminal
from tests.support.kept import keep
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Reply, Upstream

KEYS = "Enter resumes"
HOSTILE = "\x1b[31mred\x1b]0;gone\x07 \x9b2J\u202eevil [/INST]\nsecond line"


@pytest.fixture
def three(moa: Moa) -> dict[str, str]:
    """Three conversations, `horses` the latest; their ids."""
    return {
        "zebras": keep(moa, ("what do zebras wear?", "They wear stripes."), ("Why?", "Flies.")),
        "rain": keep(
            moa, ("what is rain?", "Water, falling from café roofs."), title="Wetter Übung"
        ),
        "horses": keep(moa, ("and horses?", "Saddles, at most.")),
    }


@contextmanager
def picker(moa: Moa) -> Iterator[Terminal]:
    """A chat that shows the list of conversations."""
    with moa.terminal("chat", "--resume") as terminal:
        terminal.wait_for(KEYS)
        yield terminal


def listed(terminal: Terminal) -> list[str]:
    """The list's rows, without when."""
    rows = [line for line in terminal.shown() if re.match(r"[› ] (\d{4}-)?\d\d-\d\d ", line)]
    return [re.sub(r"(\d{4}-)?\d\d-\d\d( \d\d:\d\d)? +", "", row) for row in rows]


def titles(terminal: Terminal) -> list[str]:
    """The titles in the list; the marked one begins with ›."""
    return [re.sub(r"\d+ turns? +lab +", "", row) for row in listed(terminal)]


def wait_for_mark(terminal: Terminal, title: str) -> None:
    """Until the conversation of that title is the marked one."""
    terminal.wait_for(lambda: f"› {title}" in titles(terminal))


def last_sent(upstream: Upstream) -> list[str]:
    """What the aggregator was sent last, without system messages."""
    messages = upstream.chats("agg")[-1].messages
    return [str(message["content"]) for message in messages if message["role"] != "system"]


@pytest.mark.usefixtures("three")
def test_colours_in_a_paste_that_is_not_marked_as_one_are_left_out(moa: Moa) -> None:
    with picker(moa) as terminal:
        terminal.send("\x1b[31mhorses\x1b[0m")
        terminal.wait_for(lambda: titles(terminal) == ["› and horses?"])


@pytest.mark.usefixtures("three")
def test_the_latest_conversations_are_listed_first(moa: Moa) -> None:
    with picker(moa) as terminal:
        assert listed(terminal) == [
            "› 1 turn   lab  and horses?",
            "  1 turn   lab  Wetter Übung",
            "  2 turns  lab  what do zebras wear?",
        ]
        assert terminal.shown()[0] == "Resume:"
        assert terminal.shown()[4:6] == ["› and horses?", "Saddles, at most."]


def test_the_chosen_conversation_goes_on_and_is_shown(
    moa: Moa, upstream: Upstream, three: dict[str, str]
) -> None:
    with picker(moa) as terminal:
        terminal.send("\x1b[B\x1b[B")
        terminal.wait_for(lambda: titles(terminal)[2:] == ["› what do zebras wear?"])
        terminal.send("\r")
        at_empty_prompt(terminal)
        lines = terminal.lines()
        assert not any("Resume:" in line or KEYS in line for line in lines)
        start = lines.index("› what do zebras wear?")
        assert lines[start : start + 7] == [
            "› what do zebras wear?",
            "",
            "They wear stripes.",
            "",
            "› Why?",
            "",
            "Flies.",
        ]
        terminal.send("Really?\r")
        terminal.wait_for(lambda: bool(upstream.chats("agg")))
        terminal.wait_for("(4 calls")
    sent = ["what do zebras wear?", "They wear stripes.", "Why?", "Flies.", "Really?"]
    assert last_sent(upstream) == sent
    listing = moa.run("history", "list").text.splitlines()
    assert len(listing) == 3
    assert listing[0].startswith(three["zebras"])
    assert "3 turns" in listing[0]


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ("zebr", "what do zebras wear?"),
        ("wear stri", "what do zebras wear?"),
        ("übung", "Wetter Übung"),
        ("ubung", "Wetter Übung"),
        ("CAFE", "Wetter Übung"),
        ("addle", "and horses?"),
        ("zebra fly", "what do zebras wear?"),
        ("wetter roofs", "Wetter Übung"),
        ("horses?", "and horses?"),
        ('"saddles (', "and horses?"),
    ],
)
def test_typing_narrows_by_title_and_by_what_was_said(moa: Moa, typed: str, left: str) -> None:
    with picker(moa) as terminal:
        terminal.send(typed)
        terminal.wait_for(lambda: titles(terminal) == [f"› {left}"])


def test_an_id_is_found_by_its_beginning(moa: Moa, three: dict[str, str]) -> None:
    with picker(moa) as terminal:
        terminal.send(three["rain"][:6])
        terminal.wait_for(lambda: titles(terminal) == ["› Wetter Übung"])


@pytest.mark.usefixtures("three")
def test_the_words_around_a_hit_are_shown_below(moa: Moa) -> None:
    with picker(moa) as terminal:
        terminal.send("roof")
        terminal.wait_for("Water, falling from café roofs.")
        assert b"\x1b[0;1;4mroofs" in terminal.raw


@pytest.mark.usefixtures("three")
def test_nothing_that_matches_cannot_be_chosen_and_ctrl_u_begins_anew(moa: Moa) -> None:
    with picker(moa) as terminal:
        terminal.send("giraffes\r")
        terminal.wait_for("no conversation contains these words")
        assert titles(terminal) == []
        terminal.send("\x15")
        terminal.wait_for(lambda: len(titles(terminal)) == 3)
        terminal.send("rain")
        terminal.wait_for(lambda: titles(terminal) == ["› Wetter Übung"])


@pytest.mark.usefixtures("three")
def test_an_enter_at_once_chooses_what_was_typed_for(moa: Moa) -> None:
    with picker(moa) as terminal:
        terminal.send("zebras\r")
        at_empty_prompt(terminal)
        assert "› what do zebras wear?" in terminal.lines()


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("key", ["\x1b", "\x03", "\x04"], ids=["Esc", "Ctrl-C", "Ctrl-D"])
def test_leaving_leaves_nothing_behind(moa: Moa, upstream: Upstream, key: str) -> None:
    with picker(moa) as terminal:
        terminal.send("zeb")
        terminal.wait_for("Resume: zeb")
        terminal.send(key)
        assert terminal.wait() == 0
        assert terminal.lines() == []
        assert terminal.modes_after == terminal.modes_before
        assert terminal.shows_cursor()
    assert not upstream.chats("agg")


@pytest.mark.usefixtures("three")
def test_a_termination_leaves_the_terminal_as_it_was(moa: Moa) -> None:
    with picker(moa) as terminal:
        terminal.process.terminate()
        assert terminal.wait() == 143
        assert terminal.lines() == []
        assert terminal.modes_after == terminal.modes_before


@pytest.mark.parametrize("rows", [10, 24, 60])
def test_a_long_list_is_walked_through(moa: Moa, rows: int) -> None:
    for number in range(40):
        keep(moa, (f"question {number:02}", "yes"))

    with moa.terminal("chat", "--resume", rows=rows) as terminal:
        terminal.wait_for(KEYS)
        shown = len(titles(terminal))
        assert len(terminal.shown()) <= min(15, rows)
        assert shown == min(15, rows - 1) - 4
        for keys, place in (
            ("\x1b[6~", shown),
            ("\x1b[5~\x1b[5~", 0),
            ("\x1b[F", 39),
            ("\x1b[A\x1b[A", 37),
            ("\x1b[B\x1b[B\x1b[B", 39),
            ("\x1b[H", 0),
        ):
            terminal.send(keys)
            wait_for_mark(terminal, f"question {39 - place:02}")
            assert len(titles(terminal)) == shown


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (60, 20), (80, 24), (200, 60)])
def test_hostile_and_wide_titles_stay_on_their_lines(moa: Moa, columns: int, rows: int) -> None:
    keep(moa, ("漢字とかな交じり文" * 9, "長い" * 200))
    keep(moa, (HOSTILE, HOSTILE), title=HOSTILE, profile="lab\x1b[2J")
    keep(moa, ("👩‍🚀🇩🇪" * 40, "ok"))
    with moa.terminal("chat", "--resume", columns=columns, rows=rows) as terminal:
        terminal.wait_for("Enter resumes")
        shown = terminal.shown()
        assert len(listed(terminal)) == 3
        assert len(shown) == 7
        assert re.search("👩 ?🚀 ?DE", shown[1])
        assert "red" in shown[2]
        assert "evil" in shown[2]
        assert b"\x1b[31m" not in terminal.raw
        assert b"gone" not in terminal.raw
        assert "\u202e" not in terminal.raw.decode()
        terminal.send("\x03")
        assert terminal.wait() == 0
        assert terminal.lines() == []


@pytest.mark.usefixtures("three")
def test_after_a_change_of_size_the_list_is_there_once(moa: Moa) -> None:
    with moa.terminal("chat", "--resume", columns=120, rows=30) as terminal:
        terminal.wait_for(KEYS)
        for place, (columns, rows) in enumerate(((50, 12), (100, 40), (30, 6)), 1):
            # What is drawn for one size must not be shown at the next.
            terminal.settle()
            terminal.resize(columns, rows)
            terminal.send("\x1b[B")
            marked = ["and horses?", "Wetter Übung", "what do zebras wear?"][min(place, 2)]
            wait_for_mark(terminal, marked)
            assert "\n".join(terminal.shown()).count("Resume:") == 1
            assert len(terminal.shown()) == (7 if rows > 7 else 4)
        terminal.settle()
        terminal.send("\x03")
        assert terminal.wait() == 0
        assert terminal.lines() == []


def test_without_a_terminal_the_other_options_are_named(moa: Moa) -> None:
    keep(moa, ("hi", "ho"))
    ran = moa.run("chat", "--resume", stdin=b"hello\n")
    assert (ran.code, ran.text) == (2, "")
    assert ran.err.count("\n") == 1
    assert "-c" in ran.err
    assert "--cid" in ran.err
    with moa.terminal("chat", "--resume", env={"TERM": "dumb"}) as terminal:
        assert terminal.wait() == 2
        assert "--cid" in " ".join(terminal.lines())


@pytest.mark.parametrize("other", [["-c"], ["--cid", "abc"]], ids=" ".join)
def test_two_ways_of_choosing_are_refused(moa: Moa, other: list[str]) -> None:
    ran = moa.run("chat", "--resume", *other)
    assert (ran.code, ran.text) == (2, "")
    assert ran.err == "moa: --resume, -c and --cid cannot be used together\n"


def test_where_nothing_is_kept_that_is_said(moa: Moa) -> None:
    with moa.terminal("chat", "--resume") as terminal:
        assert terminal.wait() == 1
        assert terminal.lines() == ["moa: there is no conversation to continue"]


def test_in_a_chat_another_conversation_is_gone_on_with(
    moa: Moa, upstream: Upstream, three: dict[str, str]
) -> None:
    upstream.always("agg", Reply(text="indeed"))
    with moa.terminal("chat", "--temperature", "0.3", rows=50) as terminal:
        at_empty_prompt(terminal)
        terminal.send("something new\r")
        terminal.wait_for("(4 calls")
        at_empty_prompt(terminal)
        terminal.send("/resume\r")
        terminal.wait_for(KEYS)
        assert titles(terminal)[0] == "› something new"
        terminal.send("zebras")
        terminal.wait_for(lambda: titles(terminal) == ["› what do zebras wear?"])
        terminal.send("\r")
        at_empty_prompt(terminal)
        assert f"continuing {three['zebras']}: what do zebras wear?" in terminal.lines()
        assert "Flies." in terminal.lines()
        terminal.send("Really?\r")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 2)
        terminal.wait_for(lambda: "\n".join(terminal.lines()).count("(4 calls") == 2)
        at_empty_prompt(terminal)
        terminal.send(f"/resume {three['horses'][:5]}\r")
        terminal.wait_for("Saddles, at most.")
        terminal.send("/resume\r")
        terminal.wait_for(KEYS)
        terminal.send("\x1b")
        terminal.wait_for(lambda: KEYS not in "\n".join(terminal.shown()))
        at_empty_prompt(terminal)
        terminal.send("/resume zzz\r")
        terminal.wait_for("there is no conversation `zzz`")
    assert last_sent(upstream)[0] == "what do zebras wear?"
    assert upstream.chats("agg")[-1].body["temperature"] == 0.3
    listing = moa.run("history", "list").text.splitlines()
    assert listing[0].startswith(three["zebras"])
    assert "3 turns" in listing[0]
    assert "1 turn " in listing[1]


def test_over_plain_lines_an_id_is_needed(
    moa: Moa, upstream: Upstream, three: dict[str, str]
) -> None:
    lines = f"/resume\n/resume {three['zebras'][:6]}\nReally?\n"
    ran = moa.run("chat", stdin=lines.encode())
    assert ran.code == 0
    assert "moa: /resume needs an id here (`moa history list`)" in ran.err
    assert last_sent(upstream)[0] == "what do zebras wear?"


@pytest.mark.parametrize(
    ("count", "told"), [(10, None), (11, "1 earlier turn"), (14, "4 earlier turns")]
)
def test_of_a_long_conversation_the_last_turns_are_shown(
    moa: Moa, count: int, told: str | None
) -> None:
    identity = keep(moa, *((f"question {n:02}", f"answer {n:02}") for n in range(count)))
    with moa.terminal("chat", "-c", rows=60) as terminal:
        at_empty_prompt(terminal)
        lines = terminal.lines()
    shown = [line for line in lines if line.startswith("› question")]
    assert shown == [f"› question {n:02}" for n in range(count - 10, count)]
    line = f"{told}: moa history show {identity}"
    assert (line in lines) == (told is not None)
