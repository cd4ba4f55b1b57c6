"""Control of a turn in flight, at a real terminal: what Ctrl-C and Esc stop in each phase, what
becomes of keys typed meanwhile, and that the terminal is left as it was found."""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pexpect
import pytest
from pyte.modes import DECAWM

from tests.support.command import PATIENCE, Moa, Terminal
from tests.support.talk import references, sent
from tests.support.upstream import Reply, Upstream

SILENT = Reply(stall_after=0)
STUCK = Reply(chunks=["Half ", "of ", "it"], stall_after=2)
REFUSED = Reply(status=400, error={"error": {"message": "no"}})
CTRL_C, ESC = "\x03", "\x1b"
KEPT = "moa: interrupted; the reply so far is kept"
NOTHING = "moa: interrupted; nothing was kept"
MERGED = "moa: interrupted; 2 proposals are kept: /remerge writes a reply from them"
both_keys = pytest.mark.parametrize("key", [CTRL_C, ESC], ids=["Ctrl-C", "Esc"])


def line(terminal: Terminal) -> str | None:
    """The first line of what stands in the editor; None while there is no editor."""
    rows = terminal.shown()
    prompts = [place for place, row in enumerate(rows) if row.startswith("›")]
    bar = bool(rows) and rows[-1].startswith("lab · 1 round")
    if not prompts or not bar or terminal.modes() != (False, False):
        return None
    return rows[prompts[-1]].removeprefix("›").strip()


def ends(terminal: Terminal) -> list[str]:
    """What was said first at the end of each turn."""
    told: list[str] = []
    last = ""
    for each_line in terminal.lines():
        counts = re.match(r"\(\d+ calls?, ", each_line)
        # Behind the news of a turn that had no good end stands what it took.
        if re.match(r"moa: (?!profile|/help)", each_line) or (counts and last not in told):
            told.append(each_line)
        last = each_line
    return told


def at_prompt(terminal: Terminal, turns: int, text: str = "") -> None:
    """Until so many turns have ended and `text` stands in the editor."""
    terminal.wait_for(lambda: len(ends(terminal)) == turns and line(terminal) == text)


@contextmanager
def asked(moa: Moa, *seen: str, reply: str | None = None) -> Iterator[Terminal]:
    """A chat whose first question is `Why?`, once all that is to be `seen` is, and a line of the
    reply reads so."""
    with moa.terminal("chat") as terminal:
        at_prompt(terminal, 0)
        terminal.send("Why?\r")
        for text in seen:
            terminal.wait_for(text)
        terminal.wait_for(lambda: reply is None or reply in terminal.lines())
        yield terminal


def rest(terminal: Terminal, seconds: float) -> None:
    """Do nothing for a while."""
    until = time.monotonic() + seconds
    terminal.wait_for(lambda: time.monotonic() > until)


def type_in_turn(terminal: Terminal, keys: str, go_on: threading.Event) -> None:
    """Type while a reply is held, which comes once the program has read the keys."""
    terminal.send(keys)
    terminal.wait_for(terminal.is_read)
    go_on.set()


def gone(upstream: Upstream, *models: str) -> None:
    """The last calls to these were hung up on."""
    upstream.wait_for(lambda: all(upstream.chats(model)[-1].disconnected for model in models))


@both_keys
def test_the_first_stop_goes_on_with_what_has_arrived(
    moa: Moa, upstream: Upstream, key: str
) -> None:
    upstream.enqueue("a", Reply(text="from a"))
    upstream.enqueue("b", STUCK)
    upstream.enqueue("c", SILENT)
    with asked(moa, "✓ lab:a", "Half of", "Esc: write the reply now") as terminal:
        terminal.send(key)
        at_prompt(terminal, 1)
        lines = terminal.lines()
        told = lines.index("enough: going on with 1 of 3")
        assert [row[:7] for row in lines[told + 1 : told + 4]] == ["✓ lab:a", "– lab:b", "– lab:c"]
        assert lines[told + 2] == "– lab:b  not waited for"
        assert lines[told + 4 : told + 6] == ["", "ok"]
        terminal.send("And?\r")
        at_prompt(terminal, 2)
    assert [upstream.chats(model)[0].disconnected for model in "abc"] == [False, True, True]
    assert references(upstream, 0) == ["from a"]
    assert sent(upstream)[1] == ["Why?", "ok", "And?"]


@both_keys
def test_the_second_stop_cancels_while_the_aggregator_is_silent(
    moa: Moa, upstream: Upstream, key: str
) -> None:
    upstream.enqueue("b", SILENT)
    upstream.enqueue("agg", SILENT)
    with asked(moa, "✓ lab:a", "✓ lab:c") as terminal:
        terminal.send(key)
        terminal.wait_for("reading 2 proposals · Esc: cancel")
        terminal.send(key)
        at_prompt(terminal, 1, "Why?")
        assert ends(terminal) == [MERGED]
        gone(upstream, "b", "agg")
        terminal.send(" again\r")
        at_prompt(terminal, 2)
    assert sent(upstream) == [["Why?"], ["Why? again"]]


@both_keys
def test_the_first_stop_cancels_while_nothing_has_arrived(
    moa: Moa, upstream: Upstream, key: str
) -> None:
    upstream.enqueue("a", SILENT)
    upstream.enqueue("b", SILENT)
    upstream.enqueue("c", STUCK)
    with asked(moa, "Half of", "Esc: cancel") as terminal:
        terminal.send(key)
        at_prompt(terminal, 1, "Why?")
        assert ends(terminal) == [NOTHING]
        assert not [row for row in terminal.lines() if "lab:a " in row]
        gone(upstream, "a", "b", "c")
    assert upstream.chats("agg") == []


@both_keys
def test_a_stop_while_the_reply_comes_keeps_what_came(
    moa: Moa, upstream: Upstream, key: str
) -> None:
    upstream.enqueue("agg", STUCK, Reply(text="more"))
    with asked(moa, reply="Half of") as terminal:
        terminal.send(key)
        at_prompt(terminal, 1)
        assert ends(terminal) == [KEPT]
        terminal.send("And?\r")
        at_prompt(terminal, 2)
        assert "more" in terminal.lines()
    assert upstream.chats("agg")[0].disconnected
    assert sent(upstream)[1] == sent(upstream, "a")[1] == ["Why?", "Half of ", "And?"]


def test_a_signal_from_elsewhere_stops_the_turn_as_the_key_does(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", STUCK)
    with asked(moa, reply="Half of") as terminal:
        terminal.process.send_signal(signal.SIGINT)
        at_prompt(terminal, 1)
        assert ends(terminal) == [KEPT]


def test_ctrl_c_at_an_empty_prompt_gives_a_hint_and_a_second_one_leaves(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_prompt(terminal, 0)
        terminal.send(CTRL_C * 2)
        assert terminal.wait() == 0
        assert terminal.lines().count("(Ctrl-C again, Ctrl-D or /exit leaves)") == 1


def test_two_that_are_far_apart_do_not_leave(moa: Moa, upstream: Upstream) -> None:
    with moa.terminal("chat") as terminal:
        at_prompt(terminal, 0)
        for _ in range(2):
            terminal.send(CTRL_C)
            terminal.wait_for("Ctrl-D or /exit leaves")
            rest(terminal, 2.2)
        terminal.send("Why?\r")
        at_prompt(terminal, 1)
    assert len(upstream.chats("agg")) == 1


def test_ctrl_c_in_a_line_empties_it_and_is_no_first_of_two(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_prompt(terminal, 0)
        for _ in range(3):
            terminal.send("half a line")
            at_prompt(terminal, 0, "half a line")
            terminal.send(CTRL_C)
            at_prompt(terminal, 0)
        assert terminal.process.poll() is None


def test_what_is_typed_in_a_turn_waits_for_the_next_prompt(moa: Moa, upstream: Upstream) -> None:
    go_on = threading.Event()
    upstream.enqueue("agg", Reply(text="one two three", after=go_on, pause=0.05))
    with asked(moa, "reading 3 proposals") as terminal:
        # The cursor keys and Alt-Enter begin with an Esc, but are none.
        type_in_turn(terminal, "nextx\x1b[D\x1b[C\x7f\x1b\rline", go_on)
        at_prompt(terminal, 1, "next")
        assert "one two three" in terminal.lines()
        assert len(upstream.chats("agg")) == 1
        terminal.send("\r")
        at_prompt(terminal, 2)
    assert sent(upstream)[1] == ["Why?", "one two three", "next\nline"]


def test_an_enter_typed_in_a_turn_sends_the_next_one(moa: Moa, upstream: Upstream) -> None:
    go_on = threading.Event()
    upstream.enqueue("agg", Reply(text="one two", after=go_on, pause=0.05))
    with asked(moa, "reading 3 proposals") as terminal:
        type_in_turn(terminal, "And?\rThen?\rhalf", go_on)
        at_prompt(terminal, 3, "half")
    assert [call[-1] for call in sent(upstream)] == ["Why?", "And?", "Then?"]


def test_after_a_cancelled_turn_nothing_is_sent_unasked(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", STUCK)
    with asked(moa, reply="Half of") as terminal:
        terminal.send(f"And?\r{CTRL_C}")
        at_prompt(terminal, 1, "And?")
        assert ends(terminal) == [KEPT]
        assert len(upstream.chats("agg")) == 1
        terminal.send("\r")
        at_prompt(terminal, 2)
    assert sent(upstream)[1] == ["Why?", "Half of ", "And?"]


def test_what_was_typed_ahead_stands_below_a_prompt_that_comes_back(
    moa: Moa, upstream: Upstream
) -> None:
    for model in "abc":
        upstream.enqueue(model, STUCK)
    with asked(moa, "Half of") as terminal:
        terminal.send(f"And?\r{CTRL_C}")
        at_prompt(terminal, 1, "Why?")
        assert ends(terminal) == [NOTHING]
        terminal.send("\r")
        at_prompt(terminal, 2)
    assert sent(upstream, "a")[1] == ["Why?\nAnd?"]


def test_keys_that_leave_or_clear_do_not_act_on_the_fresh_reply(
    moa: Moa, upstream: Upstream
) -> None:
    go_on = threading.Event()
    upstream.enqueue("agg", Reply(text="one two three", after=go_on, pause=0.05))
    with asked(moa, "reading 3 proposals") as terminal:
        type_in_turn(terminal, "half\x04\x0c a line\x04", go_on)
        at_prompt(terminal, 1, "half a line")
        terminal.settle()
        assert terminal.process.poll() is None
        assert "one two three" in terminal.shown()
        terminal.send("\r")
        at_prompt(terminal, 2)
    assert sent(upstream)[1][-1] == "half a line"


def test_a_paste_in_a_turn_is_one_message_and_is_not_sent(moa: Moa, upstream: Upstream) -> None:
    go_on = threading.Event()
    upstream.enqueue("agg", Reply(text="one two", after=go_on, pause=0.05))
    with asked(moa, "reading 3 proposals") as terminal:
        type_in_turn(terminal, "\x1b[200~one\r\ntwo\n/exit\x03\r\x1b[201~", go_on)
        at_prompt(terminal, 1, "one")
        assert len(upstream.chats("agg")) == 1
        terminal.send("end\r")
        at_prompt(terminal, 2)
    assert sent(upstream)[1][-1] == "one\ntwo\n/exit\x03\nend"


@pytest.mark.parametrize(
    ("pasted", "asked_for"),
    [
        ("    return x\r\n\r\nreturn y\r\n", "    return x\n\nreturn y"),
        ("\n  \n\tmake all\n", "\tmake all"),
        ("    only_line()", "    only_line()"),
        (" a context line\n-old\n+new", " a context line\n-old\n+new"),
        ("    // a comment\n    int x;", "    // a comment\n    int x;"),
        (" kept out of the history", "kept out of the history"),
    ],
)
def test_pasted_code_keeps_the_indentation_of_its_first_line(
    moa: Moa, upstream: Upstream, pasted: str, asked_for: str
) -> None:
    with moa.terminal("chat") as terminal:
        at_prompt(terminal, 0)
        terminal.send(f"\x1b[200~{pasted}\x1b[201~")
        terminal.wait_for(terminal.has_answered)
        terminal.send("\r")
        at_prompt(terminal, 1)
    for model in ("a", "agg"):
        assert sent(upstream, model) == [[asked_for]]


def test_a_provider_s_failure_leaves_the_conversation_whole(moa: Moa, upstream: Upstream) -> None:
    with asked(moa) as terminal:
        at_prompt(terminal, 1)
        for model in "abc":
            upstream.enqueue(model, REFUSED)
        terminal.send("And?\r")
        at_prompt(terminal, 2, "And?")
        assert "refused the request (400)" in ends(terminal)[1]
        upstream.enqueue("agg", Reply(chunks=["Half ", "of ", "it"], drop_after=2))
        terminal.send("\r")
        at_prompt(terminal, 4)
        assert ends(terminal)[3] == "moa: 3 proposals are kept: /remerge writes a reply from them"
        terminal.send("Then?\r")
        at_prompt(terminal, 5)
    assert sent(upstream) == [
        ["Why?"],
        ["Why?", "ok", "And?"],
        ["Why?", "ok", "And?", "Half of ", "Then?"],
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("phase", ["prompt", "proposers", "reply"])
def test_a_program_that_is_ended_leaves_the_terminal_as_it_found_it(
    moa: Moa, upstream: Upstream, phase: str, number: signal.Signals
) -> None:
    upstream.always("a" if phase == "proposers" else "agg", STUCK)
    with moa.terminal("chat") as terminal:
        at_prompt(terminal, 0)
        assert terminal.flags() != terminal.flags_before
        if phase != "prompt":
            terminal.send("Why?\r")
            terminal.wait_for("Half of")
        terminal.process.send_signal(number)
        terminal.wait_for(lambda: terminal.process.poll() is not None)
        assert terminal.flags() == terminal.flags_before
        assert terminal.wait() == (-number if number == signal.SIGQUIT else 143)
        assert terminal.shows_cursor()
        assert DECAWM in terminal.screen.mode
        raw = bytes(terminal.raw)
        assert raw.rfind(b"\x1b[?2004l") > raw.rfind(b"\x1b[?2004h") > 0
        assert b"Traceback" not in raw


def test_ctrl_z_at_the_prompt_suspends_and_the_line_is_there_again(moa: Moa) -> None:
    # A shell with control of its jobs; at a terminal that does not tell where its cursor is.
    environment = moa.environment | {"PS1": "$ ", "PROMPT_TOOLKIT_NO_CPR": "1"}
    options: dict[str, Any] = {"env": environment, "cwd": str(moa.folder), "encoding": "utf-8"}
    shell = pexpect.spawn("bash", ["--norc", "--noprofile", "-i"], timeout=PATIENCE, **options)
    try:
        shell.expect_exact("$ ")
        shell.sendline(f"{sys.executable} -m moa_cli chat")
        shell.expect_exact("›")
        shell.send("half a line")
        shell.expect_exact("half a line")
        shell.send("\x1a")
        shell.expect_exact("Stopped")
        shell.sendline("fg")
        shell.expect_exact("›")
        shell.expect_exact("half a line")
        shell.send(f"{CTRL_C}")
        shell.expect_exact("›")
        shell.send("\x04")
        shell.expect_exact("$ ")
        shell.sendline("echo left=$?")
        shell.expect_exact("left=0")
    finally:
        shell.close(force=True)


def test_a_turn_that_is_stopped_while_a_model_is_silent_took_that_time_too(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("*", Reply(text="ok"))
    upstream.always("agg", Reply(text="Some words", stall_after=1))
    with moa.terminal("chat", columns=120) as terminal:
        at_prompt(terminal, 0)
        terminal.send("Why?\r")
        terminal.wait_for("no token for 5")
        terminal.send("\x03")
        terminal.wait_for("interrupted; the reply so far is kept")
        at_prompt(terminal, 1)
        [told] = re.findall(r"^\(4 calls, .* ([\d.]+) s\)$", "\n".join(terminal.lines()), re.M)
        assert float(told) >= 5
