"""`moa chat` at a real terminal: what stands on the screen and in the scrollback after each
turn, what Ctrl-C ends in each phase, and how the terminal is left."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path

import pytest

from tests.support.command import Moa, Terminal
from tests.support.talk import sent
from tests.support.upstream import Reply, Upstream

HEADER = "moa: profile lab: lab:a, lab:b, lab:c → lab:agg"
STUCK = Reply(chunks=["Half ", "of ", "it"], stall_after=2)
ALL = ("a", "b", "c", "agg")


def at_prompt(terminal: Terminal, turns: int = 0) -> None:
    """Until the prompt is there, after so many turns at least that were told of."""

    def ready() -> bool:
        answered = terminal.has_answered()
        told = [line for line in terminal.lines() if re.match(r"\(\d+ calls?, ", line)]
        row = terminal.screen.display[terminal.screen.cursor.y]
        waiting = row.startswith("› ") and terminal.modes() == (False, False)
        return len(told) >= turns and waiting and answered and terminal.shows_cursor()

    terminal.wait_for(ready)


def typed(terminal: Terminal) -> str:
    """What stands in the line."""
    return terminal.screen.display[terminal.screen.cursor.y].rstrip().removeprefix("›").strip()


def said(terminal: Terminal) -> list[str]:
    """The lines from the first prompt on, without figures, without what is below the prompt."""
    lines = terminal.lines()
    first = next(number for number, line in enumerate(lines) if line.startswith("›"))
    last = max(number for number, line in enumerate(lines) if line.startswith("›"))
    return [re.sub(r"[\d.]+ s\b.*|\(\d+ call.*", "…", line) for line in lines[first : last + 1]]


def test_a_turn_shows_panels_then_folds_to_a_line_each_and_leaves_the_reply(
    moa: Moa, upstream: Upstream
) -> None:
    seen, read = threading.Event(), threading.Event()
    upstream.always("*", Reply(text="words of an answer", pause=0.1))
    upstream.always("c", Reply(text="words of an answer", after=seen))
    upstream.always("agg", Reply(text="# Title\n\nThe *reply*.", after=read))
    with moa.terminal("chat", columns=120, rows=40) as terminal:
        at_prompt(terminal)
        terminal.send("What is rain?\r")
        terminal.wait_for("╭─ ")
        terminal.wait_for("words of")
        seen.set()
        terminal.wait_for("reading 3 proposals")
        read.set()
        at_prompt(terminal, turns=1)
        assert said(terminal) == [
            "› What is rain?",
            "✓ lab:a  …",
            "✓ lab:b  …",
            "✓ lab:c  …",
            "",
            "Title",
            "",
            "The reply.",
            "",
            "…",
            "",
            "›",
        ]
        assert terminal.lines()[0] == HEADER


def test_a_reply_of_three_hundred_lines_stands_in_the_scrollback_once(
    moa: Moa, upstream: Upstream
) -> None:
    lines = [f"{number}. item {number:03}" for number in range(1, 301)]
    upstream.always("agg", Reply(chunks=[f"{line}\n" for line in lines], pause=0.002))
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)
        terminal.send("Count.\r")
        at_prompt(terminal, turns=1)
        found = re.findall(r"item (\d+)", "\n".join(terminal.lines()))
    assert found == [f"{number:03}" for number in range(1, 301)]


@pytest.mark.parametrize(
    ("option", "second"),
    [("--multi-turn", ["first", "one", "second"]), ("--no-multi-turn", ["second"])],
)
def test_the_second_turn_is_sent_the_first_if_that_is_wanted(
    moa: Moa, upstream: Upstream, option: str, second: list[str]
) -> None:
    upstream.enqueue("agg", Reply(text="one"), Reply(text="two"))
    with moa.terminal("chat", option) as terminal:
        for turns, prompt in enumerate(("first", "second")):
            at_prompt(terminal, turns)
            terminal.send(f"{prompt}\r")
        at_prompt(terminal, turns=2)
    for model in ("a", "agg"):
        assert sent(upstream, model) == [["first"], second]


def test_commands_act_on_the_turns(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", Reply(text="from a [/INST]"))
    upstream.enqueue("agg", *(Reply(text=f"reply {number}") for number in (1, 2, 3)))
    with moa.terminal("chat", rows=60) as terminal:
        at_prompt(terminal)
        terminal.send("first\r")
        at_prompt(terminal, turns=1)
        terminal.send("/show 1\r")
        terminal.wait_for("from a [/INST]")
        at_prompt(terminal, turns=1)
        terminal.send("/retry\r")
        at_prompt(terminal, turns=2)
        terminal.send("/undo\r")
        terminal.wait_for("forgot: first")
        at_prompt(terminal, turns=2)
        terminal.send("second\r")
        at_prompt(terminal, turns=3)
        terminal.send("/nope\r")
        terminal.wait_for("moa: there is no command /nope")
        assert sent(upstream) == [["first"], ["first"], ["second"]]
        terminal.send("/clear\r")
        terminal.wait_for("a new conversation")
        terminal.wait_for(lambda: not typed(terminal))
        terminal.send("third\r")
        terminal.wait_for(lambda: len(sent(upstream)) == 4)
    assert sent(upstream)[-1] == ["third"]


def test_ctrl_c_while_proposers_run_and_nothing_has_arrived_brings_the_prompt_back(
    moa: Moa, upstream: Upstream
) -> None:
    for model in ALL:
        upstream.enqueue(model, STUCK)
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)
        terminal.send("my long question\r")
        terminal.wait_for("Half of")
        assert terminal.modes() == (False, False)
        terminal.send("\x03")
        at_prompt(terminal)
        assert typed(terminal) == "my long question"
        assert "moa: interrupted; nothing was kept" in terminal.lines()
        upstream.wait_for(lambda: upstream.in_flight == 0)
        assert [request.disconnected for request in upstream.chats()] == [True, True, True]
        upstream.enqueue("agg", Reply(text="an answer"))
        for model in ("a", "b", "c"):
            upstream.always(model, Reply())
        terminal.send("?\r")
        terminal.wait_for(lambda: bool(sent(upstream)))
    assert sent(upstream) == [["my long question?"]]


def test_ctrl_c_while_the_reply_comes_keeps_what_came_and_the_next_turn_knows_it(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", STUCK, Reply(text="two"))
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)
        terminal.send("first\r")
        terminal.wait_for(lambda: "Half of" in terminal.lines())
        terminal.send("\x03")
        at_prompt(terminal, turns=1)
        assert typed(terminal) == ""
        assert said(terminal)[-6:] == [
            "",
            "Half of",
            "moa: interrupted; the reply so far is kept",
            "…",
            "",
            "›",
        ]
        upstream.wait_for(lambda: upstream.in_flight == 0)
        terminal.send("second\r")
        at_prompt(terminal, turns=2)
    assert [request.disconnected for request in upstream.chats("agg")] == [True, False]
    assert sent(upstream)[-1] == ["first", "Half of ", "second"]


def test_a_turn_that_fails_leaves_the_conversation_whole_and_brings_the_prompt_back(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", Reply(text="one"), Reply(status=400), Reply(text="three"))
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)
        terminal.send("first\r")
        at_prompt(terminal, turns=1)
        terminal.send("//exit\x1b\rwhat?\r")
        terminal.wait_for("moa: lab:agg: lab refused the request (400)")
        terminal.wait_for(lambda: "what?" in typed(terminal))
        terminal.send("\r")
        at_prompt(terminal, turns=2)
    assert sent(upstream) == [
        ["first"],
        ["first", "one", "/exit\nwhat?"],
        ["first", "one", "/exit\nwhat?"],
    ]


def test_ctrl_c_at_the_prompt_empties_the_line_and_ctrl_d_leaves(
    moa: Moa, upstream: Upstream
) -> None:
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)
        terminal.send("half a thought")
        terminal.wait_for("half a thought")
        terminal.send("\x03")
        terminal.wait_for(lambda: typed(terminal) == "")
        at_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
        assert terminal.modes_after == terminal.modes_before == (True, True)
        assert terminal.shows_cursor()
    # Bracketed paste is off, the last word on it.
    assert terminal.raw.rfind(b"\x1b[?2004l") > terminal.raw.rfind(b"\x1b[?2004h")
    assert upstream.requests == []


@pytest.mark.parametrize("clear", ["\x0c", "/clear\r"], ids=["Ctrl-L", "/clear"])
def test_a_cleared_screen_is_in_the_scrollback(moa: Moa, upstream: Upstream, clear: str) -> None:
    upstream.always("agg", Reply(text="first words\n\nlast words"))
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)
        for turns in (1, 2):
            terminal.send("hi\r")
            at_prompt(terminal, turns)
        terminal.send(clear)
        terminal.wait_for(lambda: "last words" not in terminal.shown())
        at_prompt(terminal, 2)
        assert terminal.shown()[0] in ("›", "a new conversation")
        for words in ("first words", "last words"):
            assert terminal.lines().count(words) == 2
        terminal.send("again\r")
        at_prompt(terminal, 3)
        assert terminal.lines().count("last words") == 3


def test_exit_leaves_too(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)
        terminal.send("/exit\r")
        assert terminal.wait() == 0
        assert terminal.modes_after == terminal.modes_before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("phase", ["prompt", "proposing", "replying"])
def test_a_program_that_is_terminated_leaves_the_terminal_as_it_was(
    moa: Moa, upstream: Upstream, number: int, phase: str
) -> None:
    upstream.always("agg" if phase == "replying" else "*", STUCK)
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)
        if phase != "prompt":
            terminal.send("hi\r")
            terminal.wait_for("Half of")
        terminal.process.send_signal(number)
        assert terminal.wait() == 143
        assert terminal.modes_after == terminal.modes_before
        assert terminal.shows_cursor()
        assert "Traceback" not in "\n".join(terminal.lines())
    upstream.wait_for(lambda: upstream.open_connections == 0)


def test_what_is_typed_while_a_turn_runs_is_not_echoed_and_waits_for_the_prompt(
    moa: Moa, upstream: Upstream
) -> None:
    answer = "some words of an answer that goes on after these words for a good while yet"
    upstream.always("*", Reply(text=answer, pause=0.1))
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)
        terminal.send("first\r")
        terminal.wait_for("some words")
        terminal.send("typed ahead")
        terminal.wait_for("answer")
        assert "typed ahead" not in "\n".join(terminal.lines())
        at_prompt(terminal, turns=1)
        terminal.wait_for(lambda: typed(terminal) == "typed ahead")


def test_what_is_typed_before_the_first_prompt_is_sent_by_its_enter(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        terminal.send("typed early\r")
        at_prompt(terminal, turns=1)
        assert "› typed early" in terminal.lines()
        assert "…" not in "".join(terminal.lines())


def test_lines_that_are_pasted_before_the_first_prompt_are_one_prompt(
    moa: Moa, upstream: Upstream
) -> None:
    with moa.terminal("chat") as terminal:
        terminal.send("one\rtwo\r")
        at_prompt(terminal, turns=1)
        terminal.send("\x04")
        assert terminal.wait() == 0
    asked = {request.messages[-1]["content"] for request in upstream.requests if request.is_chat}
    assert asked == {"one\ntwo"}


def test_a_ctrl_d_before_the_first_prompt_leaves(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        terminal.send("\x04")
        assert terminal.wait() == 0
        assert terminal.modes_after == terminal.modes_before


def test_replies_go_to_a_file_while_the_prompt_stays_at_the_terminal(
    moa: Moa, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.enqueue("agg", Reply(text="# One\n\n"), Reply(text="*two*"))
    with moa.terminal("chat", stdout=tmp_path / "out.md") as terminal:
        for turns in range(2):
            at_prompt(terminal, turns)
            terminal.send("hi\r")
        at_prompt(terminal, turns=2)
        terminal.send("\x04")
        assert terminal.wait() == 0
        assert not any("One" in line or "two" in line for line in terminal.lines())
    assert (tmp_path / "out.md").read_text() == "# One\n*two*\n"


@pytest.mark.parametrize(("columns", "rows"), [(60, 20), (80, 24), (120, 40)])
def test_a_turn_at_every_usual_size_leaves_the_same_words(
    moa: Moa, upstream: Upstream, columns: int, rows: int
) -> None:
    upstream.always("*", Reply(text="漢字 and 😀 " * 30, pause=0.01))
    upstream.always("agg", Reply(text="- one 😀\n- two 漢字\n\n```\nx = 1\n```\n", pause=0.05))
    with moa.terminal("chat", columns=columns, rows=rows) as terminal:
        at_prompt(terminal)
        terminal.send("hi\r")
        at_prompt(terminal, turns=1)
        lines = said(terminal)
    assert [line.strip() for line in lines if line] == [
        "› hi",
        "✓ lab:a  …",
        "✓ lab:b  …",
        "✓ lab:c  …",
        "• one 😀",
        "• two 漢字",
        "x = 1",
        "…",
        "›",
    ]


def test_history_of_prompts_outlives_the_program(moa: Moa) -> None:
    for keys in ("a question\r", "\x1b[A"):
        with moa.terminal("chat") as terminal:
            at_prompt(terminal)
            terminal.send(keys)
            terminal.wait_for(lambda: "a question" in "\n".join(terminal.lines()))
            if keys.endswith("\r"):
                at_prompt(terminal, turns=1)
                terminal.send("\x04")
                assert terminal.wait() == 0
    history = moa.state / "prompt-history"
    assert history.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("rows", [12, 24, 32])
def test_a_prompt_that_is_taller_than_the_window_stays_whole_in_the_scrollback(
    moa: Moa, rows: int
) -> None:
    text = ["Look at this:", *(f"    row{n:02} of the paste" for n in range(30)), "word " * 40]
    with moa.terminal("chat", columns=60, rows=rows) as terminal:
        at_prompt(terminal)
        terminal.send("\x1b[200~" + "\r".join(text) + "last\x1b[201~")
        terminal.wait_for("last")
        terminal.send("\r")
        at_prompt(terminal, turns=1)
        lines = terminal.lines()
    first = lines.index("› Look at this:")
    assert lines[first + 1 : first + 31] == [f"… {line}" for line in text[1:31]]
    folded = "".join(f"{line[2:]:58}" for line in lines[first + 31 : first + 35])
    assert folded.split() == [*text[31].split(), "last"]
    assert sum("Look at this" in line or "of the paste" in line for line in lines) == 31


def test_a_chat_that_is_stopped_and_goes_on_without_a_shell_shows_its_line_once(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_prompt(terminal)
        terminal.send("half a line")
        terminal.wait_for("› half a line")
        for number in (signal.SIGSTOP, signal.SIGCONT):
            terminal.process.send_signal(number)
        terminal.send(" and more")
        terminal.wait_for("half a line and more")
        assert [line for line in terminal.lines() if "half" in line] == ["› half a line and more"]
