"""The accessible mode, read as a screen reader reads it: each line is added below the last one, no
line is drawn or changed, each layer and each model is announced once, progress comes at the chosen
interval, and the reply comes in whole sentences."""

from __future__ import annotations

import re
import threading

import pytest

from tests.support.command import KEY, Moa, Terminal
from tests.support.upstream import Reply, Upstream

# What moves the cursor or takes away what is on the screen.
MOVES = re.compile(rb"\x1b\[\d*(?:;\d+)*[A-HJKSTfsu]|\x1b[78MD]|\r(?!\r*\n)")
DRAWN = re.compile("[\u2500-\u27bf\u2190-\u21ff\u00b7\u203a]")
ACCESSIBLE = {"MOA_ACCESSIBLE": "1", "MOA_PROGRESS_INTERVAL": "1"}
QUIET = {"MOA_ACCESSIBLE": "1", "MOA_PROGRESS_INTERVAL": "0"}


def without_seconds(lines: list[str]) -> list[str]:
    """The lines with each duration as `N`: a busy machine takes longer."""
    return [re.sub(r"[\d.]+ (seconds?|s)\b", "N", line) for line in lines]


def once(lines: list[str]) -> list[str]:
    """The lines without those about the progress, of which there are as many as time passes."""
    return [line for line in without_seconds(lines) if not line.startswith("moa: after N: ")]


def test_each_layer_and_model_is_announced_once_and_nothing_is_drawn(
    moa: Moa, upstream: Upstream
) -> None:
    held, first = threading.Event(), threading.Event()
    upstream.always("b", Reply(after=held))
    upstream.always("agg", Reply(text="It is blue. That is all", after=first))
    with moa.terminal("ask", "hi", "-r", "2", columns=120, env=ACCESSIBLE) as terminal:
        terminal.wait_for("waiting for lab:b; Ctrl-C: write the reply now")
        held.set()
        terminal.wait_for("waiting for the first words of lab:agg; Ctrl-C: cancel")
        first.set()
        assert terminal.wait() == 0
        assert once(terminal.lines()) == [
            "moa: profile lab (changed): (lab:a, lab:b, lab:c) times 2 rounds, then lab:agg",
            "moa: round 1: lab:a, lab:b and lab:c are asked",
            "moa: round 1: 3 of 3 answered in N",
            "moa: round 2: lab:a, lab:b and lab:c are asked",
            "moa: round 2: 3 of 3 answered in N",
            "moa: lab:agg writes the reply",
            "It is blue. That is all",
        ]
        progress = [line for line in terminal.lines() if line.startswith("moa: after ")]
        assert "2 of 3 have ended, waiting for lab:b" in progress[0]
        # The key is named once for what it does.
        assert sum("write the reply now" in line for line in progress) == 1
        assert not MOVES.search(bytes(terminal.raw))
        assert not DRAWN.search("\n".join(terminal.lines()))
        assert b"\x1b" not in terminal.raw


def test_without_an_interval_no_progress_is_told(moa: Moa, upstream: Upstream) -> None:
    upstream.always("b", Reply(delay=1.2))
    with moa.terminal("ask", "hi", "--accessible", "--progress-interval", "0") as terminal:
        assert terminal.wait() == 0
        assert without_seconds(terminal.lines()) == [
            "moa: profile lab: lab:a, lab:b, lab:c, then lab:agg",
            "moa: round 1: lab:a, lab:b and lab:c are asked",
            "moa: round 1: 3 of 3 answered in N",
            "moa: lab:agg writes the reply",
            "ok",
        ]


def test_the_reply_comes_in_whole_sentences(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(chunks=["One is 3.", "5 of moa.toml. And the sec"], stall_after=2))
    with moa.terminal("ask", "hi", "--stall", "3", env=ACCESSIBLE) as terminal:
        terminal.wait_for("One is 3.5 of moa.toml.")
        terminal.wait_for("moa: lab:agg has written nothing for")
        shown = [line for line in terminal.shown() if line.startswith("One")]
        assert shown == ["One is 3.5 of moa.toml."]
        terminal.wait()
        assert "And the sec" in terminal.lines()


def test_a_lost_model_and_a_replaced_writer_are_told_in_words(moa: Moa, upstream: Upstream) -> None:
    upstream.always("b", Reply(status=500))
    upstream.always("agg", Reply(status=500))
    moa.profile("lab", "a", "b", aggregator={"model": "lab:agg", "fallbacks": ["lab:c"]})
    with moa.terminal("ask", "hi", columns=200, env=QUIET) as terminal:
        assert terminal.wait() == 0
        told = [line for line in terminal.lines() if "Internal Server Error" in line]
    assert len(told) == 2
    assert "lab:c replies in its place" in told[0]
    assert told[1].startswith("moa: degraded, lost lab:b: ")


def test_proposals_have_headings_without_lines(moa: Moa) -> None:
    ran = moa.run("ask", "hi", "--show-proposals", env=QUIET)
    assert "\nlab:a (round 1):\nok\n" in ran.err
    assert not DRAWN.search(ran.err)


def test_a_long_turn_ends_with_the_bell(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(delay=1.1))
    with moa.terminal("ask", "hi", "--bell", "1", env=QUIET) as terminal:
        assert terminal.wait() == 0
        assert terminal.raw.count(b"\a") == 1


def test_in_a_pipe_the_reply_stays_as_it_is(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="A → b.  And · c\n\n"))
    ran = moa.run("ask", "hi", env=QUIET)
    assert ran.text == "A → b.  And · c\n"
    assert moa.run("ask", "hi", "-q", env=ACCESSIBLE).err == ""
    ran = moa.run("ask", "hi", "--output", "jsonl", env=ACCESSIBLE)
    assert ran.err == "moa: profile lab: lab:a, lab:b, lab:c, then lab:agg\n"


def test_no_word_is_broken_at_the_edge_of_the_screen(moa: Moa, upstream: Upstream) -> None:
    held = threading.Event()
    upstream.always("b", Reply(after=held))
    with moa.terminal("ask", "hi", columns=40, env=ACCESSIBLE) as terminal:
        terminal.wait_for(lambda: "waiting for lab:b; Ctrl-C: " in " ".join(terminal.lines()))
        held.set()
        terminal.wait()
        assert "Ctrl-C: write the reply now" in " ".join(terminal.lines())


def at_prompt(terminal: Terminal) -> None:
    terminal.wait_for(
        lambda: (
            terminal.has_answered()
            and terminal.screen.display[terminal.screen.cursor.y].rstrip() == "You:"
            and terminal.modes() == (False, False)
        )
    )


def test_a_chat_is_a_list_of_lines(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", Reply(text="Blue by day, and dark at night."))
    upstream.always("b", Reply(text="Blue by day, not at night."))
    moa.profile("lab", "a", "b")
    with moa.terminal("chat", columns=100, rows=50, env=QUIET) as terminal:
        for line in ("why?", "/diff 1 2", "/show all", "/resume"):
            at_prompt(terminal)
            terminal.send(f"{line}\r")
        at_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
        lines = [re.sub(r"\(\d+ calls.*", "…", line) for line in terminal.lines()]
        assert lines.pop().startswith("to continue: moa chat --cid ")
        assert without_seconds(lines) == [
            "moa: profile lab: lab:a, lab:b, then lab:agg",
            "moa: /help lists the commands, Ctrl-D leaves",
            "You: why?",
            "moa: round 1: lab:a and lab:b are asked",
            "moa: round 1: 2 of 2 answered in N",
            "moa: lab:agg writes the reply",
            "ok",
            "…",
            "You: /diff 1 2",
            "lab:a: Blue by day, (only here: and dark) at night.",
            "lab:b: Blue by day, (only here: not) at night.",
            "You: /show all",
            "lab:a: Blue by day, and dark at night.",
            "lab:b: Blue by day, not at night.",
            "You: /resume",
            "moa: /resume needs an id here (`moa history list`)",
            "You:",
        ]
        # No menu and no bar below the line, for which the cursor would have to go there and back.
        assert not re.search(rb"\x1b\[\d*[ABHfsu]", bytes(terminal.raw))
        assert b"\x1b[6n" not in terminal.raw


def test_completions_are_printed_below_the_line(moa: Moa) -> None:
    with moa.terminal("chat", columns=100, rows=50, env=QUIET) as terminal:
        at_prompt(terminal)
        terminal.send("/re\t")
        terminal.wait_for("/remerge")
        assert not DRAWN.search("\n".join(terminal.lines()))


def test_it_can_be_switched_on_in_a_chat(moa: Moa) -> None:
    with moa.terminal("chat", columns=100, rows=50) as terminal:
        terminal.wait_for("›")
        terminal.wait_for(lambda: terminal.modes() == (False, False))
        terminal.send("/set accessible on\r")
        at_prompt(terminal)
        assert "lab ·" not in "\n".join(terminal.shown())


def test_what_was_kept_is_read_without_a_pager_and_signs(moa: Moa) -> None:
    assert moa.run("ask", "hi", "there").code == 0
    with moa.terminal("history", "show", "--proposals", env=QUIET) as terminal:
        assert terminal.wait() == 0
        assert terminal.lines()[:4] == ["You: hi there", "", "lab:a (round 1):", "ok"]
        assert not DRAWN.search("\n".join(terminal.lines()))
        assert b"\x1b" not in terminal.raw
    with moa.terminal("chat", "--resume", env=QUIET) as terminal:
        assert terminal.wait() == 2
        assert "`moa history list` names them" in " ".join(terminal.lines())


@pytest.mark.parametrize("value", ["-1", "4000", "soon"])
def test_the_interval_is_a_number_of_seconds(moa: Moa, value: str) -> None:
    ran = moa.run("ask", "hi", env={"MOA_PROGRESS_INTERVAL": value})
    assert ran.code == 2
    assert "MOA_PROGRESS_INTERVAL" in ran.err
    assert KEY not in ran.err


def test_tables_of_a_chat_are_read_row_by_row(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(text="ok"))
    with moa.terminal("chat", "--accessible", columns=200) as terminal:
        terminal.wait_for("You:")
        terminal.send("Why?\r")
        terminal.wait_for("cost unknown")
        terminal.send("/help\r")
        terminal.wait_for("begins with a slash")
        said = "\n".join(terminal.lines())
        assert "Tab completes." in said
        assert not re.search("opens a menu|Ctrl-O", said)
        terminal.send("/context\r")
        terminal.wait_for("profile sets it")
        terminal.send("/model lab:agg\r")
        terminal.wait_for("take one")
        lines = terminal.lines()
        said = "\n".join(lines)
        assert re.search(r"^lab:agg: full 0%, room [\d,]+, context 32,768 assumed$", said, re.M)
        assert (
            "lab:agg: context unknown, dollars per million tokens in unknown, dollars per"
            " million tokens out unknown"
        ) in lines
