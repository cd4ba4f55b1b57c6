"""Suspension, in a shell in tmux: by Ctrl-Z and by signals, at the prompt and in a turn, in `chat`
and in `ask`. The shell gets a whole terminal, and so does the program after `fg`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.talk import sent
from tests.support.tmux import Tmux, needs_tmux
from tests.support.upstream import Reply, Upstream

pytestmark = [needs_tmux, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

SHELL = "shell$"
LIVE = set("╭│╰▸")


@contextmanager
def shell(moa: Moa, folder: Path, command: str, **size: int) -> Iterator[Tmux]:
    """A shell with control of jobs, in which the command was typed."""
    environment = moa.environment | {"PS1": f"{SHELL} ", "PROMPT_COMMAND": "", "HISTFILE": ""}
    with Tmux(folder, environment, "bash", "--norc", "--noprofile", "-i", **size) as window:
        window.wait_for(SHELL)
        enter(window, f'clear; moa() {{ {sys.executable} -m moa_cli "$@"; }}')
        enter(window, command)
        yield window


def enter(window: Tmux, text: str) -> None:
    """Type a line."""
    window.type(text)
    window.press("Enter")


def at_shell(window: Tmux) -> None:
    """Until the shell waits for a line."""
    window.wait_for(lambda: window.cursor_row().rstrip() == SHELL)


def at_prompt(window: Tmux, text: str = "") -> None:
    """Until the prompt of the chat is there, with this text in its line."""
    window.wait_for(lambda: window.cursor_row().rstrip() == f"› {text}".rstrip())


def process(window: Tmux) -> int:
    """The process id of the command."""
    children = Path(f"/proc/{window.pid()}/task/{window.pid()}/children")
    found: list[int] = []

    def running() -> bool:
        found[:] = [int(child) for child in children.read_text().split()]
        return bool(found)

    window.wait_for(running)
    return found[-1]


def stopped(number: int) -> bool:
    """Whether a process, or a child of it, is stopped."""
    children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T" or any(stopped(int(child)) for child in children)


def shell_is_whole(window: Tmux) -> None:
    """The shell has its cursor, its echo, and no rows that move."""
    at_shell(window)
    assert window.shows_cursor()
    window.type("echo a''b")
    window.wait_for(lambda: window.cursor_row().rstrip() == f"{SHELL} echo a''b")
    window.press("Enter")
    window.wait_for(lambda: "ab" in window.screen())
    at_shell(window)


def torn(window: Tmux) -> list[str]:
    """Rows of panels in the scrollback or on the screen."""
    return [line for line in window.lines() if set(line) & LIVE]


def lines_of(window: Tmux, word: str) -> int:
    return len([line for line in window.lines() if word in line])


@contextmanager
def slow(upstream: Upstream) -> Iterator[threading.Event]:
    """Proposers that write nearly all of it, and then wait for the event."""
    done = threading.Event()
    upstream.always("*", Reply(text="some words of an answer that stops"))
    upstream.always("c", Reply(text="words", after=done))
    upstream.always("agg", Reply(text="# Title\n\nThe reply."))
    yield done
    done.set()


@pytest.mark.parametrize("how", ["Ctrl-Z", "SIGTSTP"])
@pytest.mark.parametrize("command", ["chat", "ask Why?"])
def test_a_turn_is_suspended_and_goes_on(
    moa: Moa, upstream: Upstream, tmp_path: Path, how: str, command: str
) -> None:
    with slow(upstream) as done, shell(moa, tmp_path, f"moa {command}", rows=32) as window:
        if command == "chat":
            at_prompt(window)
            enter(window, "Why?")
        window.wait_for("╭─ ")
        for _ in range(2):
            if how == "Ctrl-Z":
                window.press("C-z")
            else:
                os.kill(process(window), signal.SIGTSTP)
            at_shell(window)
            assert torn(window) == []
            shell_is_whole(window)
            enter(window, "fg")
            window.wait_for("╭─ ")
        done.set()
        window.wait_for("The reply.")
        at_prompt(window) if command == "chat" else at_shell(window)
        assert torn(window) == []
        assert lines_of(window, "The reply.") == 1
        if command == "chat":
            enter(window, "And?")
            upstream.wait_for(lambda: len(sent(upstream)) == 2)
        else:
            shell_is_whole(window)


@pytest.mark.parametrize(
    ("line", "shown"), [("/model", "Enter makes it A"), ("exit", "Leave the chat? (y/n)")]
)
def test_a_list_and_a_question_are_suspended_and_go_on(
    moa: Moa, tmp_path: Path, line: str, shown: str
) -> None:
    with shell(moa, tmp_path, "moa chat", rows=32) as window:
        at_prompt(window)
        enter(window, line)
        window.wait_for(shown)
        window.press("C-z")
        shell_is_whole(window)
        enter(window, "fg")
        window.wait_for(lambda: shown in "\n".join(window.screen()).rpartition("fg")[2])
        window.press("Escape") if line == "/model" else window.type("n")
        at_prompt(window)


@pytest.mark.parametrize("command", ["chat", "ask Why?"])
def test_a_turn_that_was_stopped_unasked_is_whole_after_fg(
    moa: Moa, upstream: Upstream, tmp_path: Path, command: str
) -> None:
    with slow(upstream) as done, shell(moa, tmp_path, f"moa {command}", rows=32) as window:
        if command == "chat":
            at_prompt(window)
            enter(window, "Why?")
        window.wait_for("╭─ ")
        os.kill(process(window), signal.SIGSTOP)
        at_shell(window)
        enter(window, "fg")
        window.wait_for("╭─ ")
        done.set()
        window.wait_for("The reply.")
        at_prompt(window) if command == "chat" else at_shell(window)
        assert window.shows_cursor()
        assert lines_of(window, "The reply.") == 1
        if command == "chat":
            enter(window, "And?")
            upstream.wait_for(lambda: len(sent(upstream)) == 2)
        else:
            shell_is_whole(window)


@pytest.mark.parametrize("command", ["chat", "ask Why?"])
def test_a_turn_goes_on_in_the_background_and_leaves_the_terminal_alone(
    moa: Moa, upstream: Upstream, tmp_path: Path, command: str
) -> None:
    with slow(upstream) as done, shell(moa, tmp_path, f"moa {command}", rows=32) as window:
        if command == "chat":
            at_prompt(window)
            enter(window, "Why?")
        window.wait_for("╭─ ")
        window.press("C-z")
        at_shell(window)
        enter(window, "bg")
        shell_is_whole(window)
        time.sleep(0.5)
        assert torn(window) == []
        enter(window, "fg")
        window.wait_for("╭─ ")
        done.set()
        window.wait_for("The reply.")
        at_prompt(window) if command == "chat" else at_shell(window)
        assert torn(window) == []


def test_a_question_that_is_asked_in_the_background_is_answered_there(
    moa: Moa, upstream: Upstream, tmp_path: Path
) -> None:
    with slow(upstream) as done, shell(moa, tmp_path, "moa ask Why? &", rows=32) as window:
        upstream.wait_for(lambda: len(upstream.chats("c")) == 1)
        window.press("Enter")
        shell_is_whole(window)
        done.set()
        window.wait_for("The reply.")
        enter(window, "wait; echo en''ded")
        window.wait_for("ended")
        assert torn(window) == []
        shell_is_whole(window)


@pytest.mark.parametrize("command", ["chat", "ask Why?"])
def test_ctrl_l_in_a_turn_draws_again_what_something_else_has_written_into(
    moa: Moa, upstream: Upstream, tmp_path: Path, command: str
) -> None:
    with slow(upstream) as done, shell(moa, tmp_path, f"moa {command}", rows=32) as window:
        if command == "chat":
            at_prompt(window)
            enter(window, "Why?")
        window.wait_for("╭─ ")
        terminal = Path(f"/proc/{process(window)}/fd/2").readlink()
        terminal.write_text("a message for all", "utf-8")
        window.wait_for("a message for all")
        window.press("C-l")
        window.wait_for(lambda: "a message for all" not in "\n".join(window.screen()))
        done.set()
        window.wait_for("The reply.")
        at_prompt(window) if command == "chat" else at_shell(window)
        window.type("x")
        window.wait_for(lambda: window.cursor_row().rstrip().endswith("x"))
        assert "The reply." in "\n".join(window.screen())
        assert torn(window) == []


def test_keys_that_clear_or_leave_do_not_reach_the_shell_after_ask(
    moa: Moa, upstream: Upstream, tmp_path: Path
) -> None:
    with slow(upstream) as done, shell(moa, tmp_path, "moa ask Why?", rows=32) as window:
        window.wait_for("╭─ ")
        note = "a message for all"
        Path(f"/proc/{process(window)}/fd/2").readlink().write_text(note, "utf-8")
        window.wait_for(note)
        window.press("C-d", "C-d", "C-l")
        # The last one was read, so the others were, too.
        window.wait_for(lambda: note not in "\n".join(window.screen()))
        done.set()
        window.wait_for("The reply.")
        shell_is_whole(window)
        assert "The reply." in "\n".join(window.screen())


@pytest.mark.parametrize("how", ["Ctrl-Z", "SIGTSTP", "SIGSTOP"])
def test_at_the_prompt_the_line_is_there_again(
    moa: Moa, upstream: Upstream, tmp_path: Path, how: str
) -> None:
    with shell(moa, tmp_path, "moa chat") as window:
        at_prompt(window)
        window.type("half")
        at_prompt(window, "half")
        if how == "Ctrl-Z":
            window.press("C-z")
        else:
            os.kill(process(window), getattr(signal, how))
        at_shell(window)
        if how != "SIGSTOP":
            assert lines_of(window, "half") == 0
        shell_is_whole(window)
        enter(window, "fg")
        at_prompt(window, "half")
        window.type(" a line")
        at_prompt(window, "half a line")
        window.press("Enter")
        upstream.wait_for(lambda: bool(sent(upstream)))
    assert sent(upstream) == [["half a line"]]


def test_an_enter_right_after_fg_sends(moa: Moa, upstream: Upstream, tmp_path: Path) -> None:
    with shell(moa, tmp_path, "moa chat") as window:
        at_prompt(window)
        window.type("half")
        at_prompt(window, "half")
        window.press("C-z")
        at_shell(window)
        window.type("fg")
        # In one go: the program is not in raw mode again when the second one is typed.
        window.press("Enter", "Enter")
        upstream.wait_for(lambda: bool(sent(upstream)))
    assert sent(upstream) == [["half"]]


def test_an_editor_is_suspended_with_the_chat(moa: Moa, upstream: Upstream, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho editing\nread line\necho "$line" > "$1"\n')
    editor.chmod(0o700)
    moa.environment |= {"EDITOR": str(editor)}
    with shell(moa, tmp_path, "moa chat") as window:
        at_prompt(window)
        window.press("C-x", "C-e")
        window.wait_for("editing")
        window.press("C-z")
        at_shell(window)
        enter(window, "fg")
        window.wait_for(lambda: not stopped(process(window)))
        enter(window, "from the editor")
        at_prompt(window, "from the editor")
        window.press("Enter")
        upstream.wait_for(lambda: bool(sent(upstream)))
    assert sent(upstream) == [["from the editor"]]


@pytest.mark.parametrize("limit", ["first_token", "hedge_after"])
def test_the_time_of_a_suspension_is_no_silence_of_a_model(
    moa: Moa, upstream: Upstream, limit: str
) -> None:
    upstream.always("agg", Reply(text="The reply.", after=(spoken := threading.Event())))
    moa.profile("lab", "a", aggregator={"model": "lab:agg", limit: 3.0})
    with moa.start("ask", "Why?") as running:
        upstream.wait_for(lambda: bool(upstream.chats("agg")))
        os.kill(running.pid, signal.SIGSTOP)
        time.sleep(5.0)
        os.kill(running.pid, signal.SIGCONT)
        time.sleep(0.3)
        spoken.set()
        out, _ = running.communicate()
    assert (running.returncode, out) == (0, b"The reply.\n")
    assert len(upstream.chats("agg")) == 1
