"""Words that end other programs: they ask whether the user wants to leave, and reach no model."""

from __future__ import annotations

import pytest

from tests.support.command import Moa
from tests.support.talk import Talk, at_empty_prompt
from tests.support.upstream import Upstream

QUESTION = "Leave the chat? (y/n)"


@pytest.mark.parametrize("word", ["exit", "quit", "q", ":q", "Exit ", "quit()"])
def test_a_bare_word_asks_and_y_leaves(moa: Moa, upstream: Upstream, word: str) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send(f"{word}\r")
        terminal.wait_for(QUESTION)
        terminal.send("y")
        assert terminal.wait() == 0
        assert terminal.modes_after == terminal.modes_before
        assert f"{QUESTION} y" in terminal.lines()
    assert upstream.requests == []


@pytest.mark.parametrize("key", ["n", "\r", "\x1b", "\x03", "xn"])
def test_another_key_goes_back_to_the_prompt(moa: Moa, upstream: Upstream, key: str) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("quit\r")
        terminal.wait_for(QUESTION)
        terminal.send(key)
        at_empty_prompt(terminal)
        assert upstream.requests == []
        terminal.send("hello\r")
        terminal.wait_for("calls, ")
        assert upstream.chats("a")[0].messages[-1]["content"] == "hello"


def test_keys_typed_before_the_question_are_no_answer(moa: Moa, upstream: Upstream) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("quit\ry")
        terminal.wait_for(QUESTION)
        terminal.settle()
        assert terminal.process.poll() is None
        terminal.send("n")
        terminal.wait_for("› y")
    assert upstream.requests == []


@pytest.mark.parametrize("line", [" quit", "exit the loop", "q: what?"])
def test_a_longer_line_and_one_that_begins_with_a_space_are_sent(
    moa: Moa, upstream: Upstream, line: str
) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send(f"{line}\r")
        terminal.wait_for("calls, ")
    assert upstream.chats("a")[0].messages[-1]["content"] == line.strip()


@pytest.mark.parametrize("command", ["/exit", "/quit", "/q"])
def test_the_commands_leave_without_a_question(moa: Moa, command: str) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send(f"{command}\r")
        assert terminal.wait() == 0
        assert QUESTION not in "\n".join(terminal.lines())


def test_lines_from_a_pipe_are_prompts_whatever_they_say(talk: Talk) -> None:
    talk.do("quit")
    assert talk.sent("a") == [["quit"]]
