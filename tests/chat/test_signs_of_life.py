"""Signs of life at a real terminal: the status line that stays through the whole turn and leaves
nothing behind, the terminal's title, and the bell after a long turn."""

from __future__ import annotations

import re
import threading
from functools import partial
from typing import Any

import pytest

from tests.support.command import Moa, Terminal
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Reply, Upstream

STUCK = Reply(chunks=["The ", "first ", "line\n\n", "and ", "half "], stall_after=5)
PUSH, POP = b"\x1b[22;2t", b"\x1b[23;2t"
SIZES = [(80, 24), (200, 50), (40, 12)]


def titles(terminal: Terminal) -> list[str]:
    """All that were set."""
    return [title.decode() for title in re.findall(rb"\x1b\]2;(.*?)\x1b\\", terminal.raw)]


def rings(terminal: Terminal) -> int:
    """How often the bell rang."""
    return terminal.raw.count(b"\a")


def times_told(terminal: Terminal) -> int:
    """How many different times were told."""
    return len(set(re.findall(rb"\d\.\d s", bytes(terminal.raw))))


def has_told(terminal: Terminal, times: int) -> bool:
    return times_told(terminal) >= times


def status(terminal: Terminal) -> str:
    """The last row on the screen."""
    rows = terminal.shown()
    return rows[-1] if rows else ""


@pytest.mark.parametrize(("columns", "rows"), SIZES)
@pytest.mark.parametrize("options", [(), ("--plain",)], ids=["drawn", "plain"])
def test_a_reply_that_stalls_is_seen_to_stall_and_how_to_stop_it(
    moa: Moa, upstream: Upstream, columns: int, rows: int, options: tuple[str, ...]
) -> None:
    upstream.enqueue("agg", STUCK)
    with moa.terminal("chat", *options, columns=columns, rows=rows) as terminal:
        at_empty_prompt(terminal)
        terminal.send("Why?\r")
        terminal.wait_for(lambda: status(terminal).startswith("▸ lab:agg"))
        terminal.wait_for(lambda: re.search("no token for|silent", status(terminal)) is not None)
        seen = status(terminal)
        assert seen.endswith("Esc: stop")
        assert len(seen) <= columns
        if columns >= 80:
            assert re.fullmatch(
                r"▸ lab:agg  writing · .* · no token for \d+\.\d s · Esc: stop", seen
            )
        assert "and half" in terminal.shown()[-2]
        terminal.send("\x1b")
        terminal.wait_for("moa: interrupted; the reply")
        at_empty_prompt(terminal)
        lines = terminal.lines()
    assert lines.count("The first line") == 1
    assert [line for line in lines if "and half" in line] == ["and half"]
    assert not [line for line in lines if re.search("no token|silent|Esc: stop", line)]


def test_the_screen_never_stands_still_from_the_prompt_to_the_reply(
    moa: Moa, upstream: Upstream
) -> None:
    steps = (
        "round 1 of 2: 0 of 2 answered",
        "round 2 of 2: 0 of 2 answered",
        "reading 2 proposals",
    )
    go_on = [threading.Event() for _ in steps]
    first, second, last = go_on
    upstream.enqueue("a", *(Reply(text="from a", after=held) for held in (first, first)))
    upstream.always("a", Reply(text="from a", after=second))
    upstream.enqueue("agg", Reply(text="The end.", after=last))
    moa.profile("lab", "a", "a", rounds=2)
    with moa.terminal("ask", "hi") as terminal:
        for step, held in zip(steps, go_on, strict=True):
            terminal.wait_for(step)
            # Tenths of a second are told while nothing comes.
            terminal.wait_for(partial(has_told, terminal, times_told(terminal) + 5))
            held.set()
        assert terminal.wait() == 0
        lines = terminal.lines()
    assert lines[-1] == "The end."
    assert not [line for line in lines if "Ctrl-C" in line]


@pytest.mark.parametrize("options", [("--json",), ("--no-stream",), ("--plain", "--no-stream")])
def test_it_stays_while_a_reply_is_held_back(
    moa: Moa, upstream: Upstream, options: tuple[str, ...]
) -> None:
    words = ["word "] * 20
    seen = threading.Event()
    upstream.enqueue("agg", Reply(chunks=words, stall_after=10, go_on=seen))
    with moa.terminal("ask", "hi", *options) as terminal:
        terminal.wait_for("▸ lab:agg  writing")
        seen.set()
        assert terminal.wait() == 0
        assert not [line for line in terminal.lines() if "writing" in line]
        assert "word word" in "\n".join(terminal.lines())


def test_the_title_says_what_is_done_and_is_given_back(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(text="The end.", delay=0.3))
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        assert titles(terminal) == []
        terminal.send("Why?\r")
        terminal.wait_for("The end.")
        at_empty_prompt(terminal)
        told = titles(terminal)
        raw = bytes(terminal.raw)
    assert told[0] == "moa: preparing"
    assert "moa: round 1: 2 of 3 answered" in told
    assert told[-3:] == ["moa: lab:agg waiting", "moa: lab:agg writing", "moa: lab:agg done"]
    assert raw.count(PUSH) == raw.count(POP) == 1
    assert raw.index(PUSH) < raw.index(b"\x1b]2;")
    assert raw.rindex(POP) > raw.rindex(b"\x1b]2;")


def test_a_turn_that_is_cancelled_gives_the_title_back_and_does_not_ring(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("*", Reply(stall_after=0))
    with moa.terminal("chat", "--bell", "1") as terminal:
        at_empty_prompt(terminal)
        terminal.send("Why?\r")
        terminal.wait_for("Esc: cancel")
        # Longer than the bell waits for.
        terminal.wait_for(lambda: bool(re.search(r" (1\.[5-9]|[2-9]\.\d) s", status(terminal))))
        terminal.send("\x1b")
        terminal.wait_for("nothing was kept")
        terminal.settle()
        assert terminal.raw.count(PUSH) == terminal.raw.count(POP) == 1
        assert rings(terminal) == 0


def test_names_of_models_cannot_act_through_the_title(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", aggregator={"model": "lab:x\x1b]2;owned\x07y"})
    with moa.terminal("ask", "hi") as terminal:
        terminal.wait()
        assert not [title for title in titles(terminal) if re.search("[\x00-\x1f\x7f-\x9f]", title)]
        assert b"\x07" not in terminal.raw


@pytest.mark.parametrize(
    ("options", "settings", "variables", "expected"),
    [
        ((), {}, {}, 0),
        (("--bell", "1"), {}, {}, 1),
        ((), {"bell": 1}, {}, 1),
        ((), {}, {"MOA_BELL": "1"}, 1),
        (("--bell", "0"), {"bell": 1}, {}, 0),
        ((), {"bell": False}, {}, 0),
        (("--bell", "1", "--no-live"), {}, {}, 1),
        (("--bell", "1", "-q"), {}, {}, 0),
    ],
)
def test_the_bell_rings_once_after_a_long_turn(
    moa: Moa,
    upstream: Upstream,
    options: tuple[str, ...],
    settings: dict[str, Any],
    variables: dict[str, str],
    expected: int,
) -> None:
    moa.configure(
        providers={"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}}, **settings
    )
    upstream.enqueue("agg", Reply(text="The end.", delay=1.2))
    with moa.terminal("ask", "hi", *options, env=variables) as terminal:
        assert terminal.wait() == 0
        assert rings(terminal) == expected


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_neither_title_nor_bell(
    moa: Moa, upstream: Upstream, term: str
) -> None:
    upstream.enqueue("agg", Reply(text="The end.", delay=1.2))
    with moa.terminal("ask", "hi", "--bell", "1", env={"TERM": term}) as terminal:
        assert terminal.wait() == 0
        assert b"\x1b" not in terminal.raw
        assert rings(terminal) == 0


def test_a_pipe_gets_neither(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(text="The end.", delay=1.2))
    ran = moa.run("ask", "hi", "--bell", "1")
    assert not re.search("[\x1b\a]", ran.out.decode() + ran.err)


def test_the_title_can_be_left_alone(moa: Moa) -> None:
    with moa.terminal("ask", "hi", "--no-title") as terminal:
        assert terminal.wait() == 0
        assert titles(terminal) == []
        assert PUSH not in terminal.raw
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("/set title off\r")
        terminal.wait_for("title = off")
        terminal.send("/set bell 3\r")
        terminal.wait_for("bell = 3")
        terminal.send("/set bell loud\r")
        terminal.wait_for("bell must be a number of seconds or off, not 'loud'")
        terminal.send("Why?\r")
        terminal.wait_for("(4 calls, ")
        assert titles(terminal) == []
