"""Two chats on one conversation notice each other, and overwrite nothing of each other's."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from tests.support.command import PATIENCE, Moa, Terminal
from tests.support.talk import at_empty_prompt, at_prompt, sent
from tests.support.upstream import Reply, Upstream

CHOICE = "r reads it · f continues in a copy without it · Esc goes back:"
ADDED = "another moa has added 1 turn to this conversation"


@pytest.fixture
def begun(moa: Moa) -> Moa:
    """A conversation with one turn."""
    moa.profile("lab", "a", "b")
    assert moa.run("ask", "first").code == 0
    return moa


def conversations(moa: Moa) -> dict[str, list[str]]:
    """The prompts of each conversation, the latest first."""
    listed: list[dict[str, Any]] = json.loads(moa.run("history", "list", "--json").text)
    found = {}
    for row in listed:
        shown = json.loads(moa.run("history", "show", row["id"], "--json").text)
        found[str(row["id"])] = [str(turn["prompt"]) for turn in shown["turns"]]
    return found


def ask(terminal: Terminal, prompt: str, upstream: Upstream) -> None:
    """Ask, and wait until the turn has ended."""
    before = len(upstream.chats("agg"))
    terminal.send(f"{prompt}\r")
    terminal.wait_for(lambda: len(upstream.chats("agg")) > before)
    at_empty_prompt(terminal)


def test_before_a_turn_the_second_chat_may_go_on_in_a_copy(begun: Moa, upstream: Upstream) -> None:
    [original] = conversations(begun)
    with begun.terminal("chat", "-c") as one, begun.terminal("chat", "-c") as other:
        at_empty_prompt(one)
        at_empty_prompt(other)
        ask(one, "from one", upstream)
        other.send("from the other\r")
        other.wait_for(f"{ADDED}\n{CHOICE}")
        assert len(upstream.chats("agg")) == 2
        other.send("f")
        other.wait_for("a copy: ")
        other.wait_for(lambda: len(upstream.chats("agg")) == 3)
        at_empty_prompt(other)
        # It is told once: the copy is the second chat's own.
        ask(other, "more", upstream)
        ask(one, "on", upstream)
    assert sent(upstream)[2] == ["first", "ok", "from the other"]
    found = conversations(begun)
    assert found.pop(original) == ["first", "from one", "on"]
    assert list(found.values()) == [["first", "from the other", "more"]]


def test_before_a_turn_the_second_chat_may_read_what_was_added(
    begun: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", Reply(text="an answer elsewhere"))
    with begun.terminal("chat", "-c") as terminal:
        at_empty_prompt(terminal)
        assert begun.run("ask", "-c", "elsewhere").code == 0
        terminal.send("here\r")
        terminal.wait_for(ADDED)
        terminal.send("r")
        terminal.wait_for("an answer elsewhere")
        at_prompt(terminal)
        terminal.wait_for("› here")
        terminal.send("\r")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 3)
        at_empty_prompt(terminal)
    assert sent(upstream)[-1] == ["first", "ok", "elsewhere", "an answer elsewhere", "here"]
    assert list(conversations(begun).values()) == [["first", "elsewhere", "here"]]


def test_going_back_sends_nothing_and_keeps_the_prompt(begun: Moa, upstream: Upstream) -> None:
    with begun.terminal("chat", "-c") as terminal:
        at_empty_prompt(terminal)
        assert begun.run("ask", "-c", "elsewhere").code == 0
        terminal.send("here\r")
        terminal.wait_for(ADDED)
        terminal.send("xyz\x1b")
        terminal.wait_for(f"{CHOICE} Esc")
        at_prompt(terminal)
        terminal.wait_for("› here")
        terminal.settle()
    assert len(upstream.chats("agg")) == 2


@pytest.mark.parametrize("key", ["f", "\x1b"])
def test_a_retry_is_asked_about_and_takes_nothing_back(
    begun: Moa, upstream: Upstream, key: str
) -> None:
    [original] = conversations(begun)
    with begun.terminal("chat", "-c") as terminal:
        at_empty_prompt(terminal)
        assert begun.run("ask", "-c", "elsewhere").code == 0
        terminal.send("/retry\r")
        terminal.wait_for(ADDED)
        terminal.send(key)
        if key == "f":
            terminal.wait_for(lambda: len(upstream.chats("agg")) == 3)
            at_empty_prompt(terminal)
        else:
            terminal.wait_for("› /retry")
    found = conversations(begun)
    assert found.pop(original) == ["first", "elsewhere"]
    assert list(found.values()) == ([["first"]] if key == "f" else [])


def test_after_a_turn_it_says_what_came_meanwhile(begun: Moa, upstream: Upstream) -> None:
    go_on = threading.Event()
    with begun.terminal("chat", "-c") as terminal:
        at_empty_prompt(terminal)
        upstream.enqueue("agg", Reply(text="slow", after=go_on))
        terminal.send("here\r")
        upstream.wait_for(lambda: len(upstream.chats("agg")) == 2)
        ran = begun.run("ask", "-c", "elsewhere")
        assert ran.code == 0
        told = (
            "moa: another moa process is still answering its last turn, so that turn is not sent\n"
        )
        assert told in ran.err
        go_on.set()
        terminal.wait_for(ADDED)
        at_empty_prompt(terminal)
        terminal.send("more\r")
        terminal.wait_for(f"{ADDED}\n{CHOICE}")
    assert list(conversations(begun).values()) == [["first", "here", "elsewhere"]]


def test_a_turn_that_still_runs_elsewhere_is_read_when_it_has_ended(
    begun: Moa, upstream: Upstream
) -> None:
    go_on = threading.Event()
    with begun.terminal("chat", "-c", columns=40) as terminal:
        at_empty_prompt(terminal)
        upstream.enqueue("agg", Reply(text="slow", after=go_on))
        with begun.start("ask", "-c", "elsewhere") as process:
            upstream.wait_for(lambda: len(upstream.chats("agg")) == 2)
            terminal.send("here\r")
            # The lines are folded between words.
            terminal.wait_for("r reads it · f continues in a copy\nwithout it · Esc goes back:")
            terminal.send("r")
            terminal.wait_for("another moa process is still answering\nthis")
            terminal.wait_for("› here")
            go_on.set()
            assert process.wait(PATIENCE) == 0
        terminal.send("\r")
        terminal.wait_for("another moa has changed 1 turn of this\nconversation")
        terminal.send("r")
        terminal.wait_for("slow")
        terminal.wait_for("› here")
        terminal.send("\r")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 3)
        at_empty_prompt(terminal)
    assert sent(upstream)[-1] == ["first", "ok", "elsewhere", "slow", "here"]


def test_a_turn_that_was_taken_back_elsewhere_is_noticed(begun: Moa, upstream: Upstream) -> None:
    with begun.terminal("chat", "-c") as terminal:
        at_empty_prompt(terminal)
        begun.run("chat", "-c", stdin=b"/undo\n")
        terminal.send("here\r")
        terminal.wait_for("another moa has taken back 1 turn of this conversation")
        terminal.send("r")
        at_prompt(terminal)
        terminal.send("\r")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 2)
        at_empty_prompt(terminal)
    assert sent(upstream)[-1] == ["here"]


def test_keys_typed_ahead_do_not_answer(begun: Moa, upstream: Upstream) -> None:
    go_on = threading.Event()
    with begun.terminal("chat", "-c") as terminal:
        at_empty_prompt(terminal)
        upstream.enqueue("agg", Reply(text="slow", after=go_on))
        terminal.send("here\r")
        upstream.wait_for(lambda: len(upstream.chats("agg")) == 2)
        assert begun.run("ask", "-c", "elsewhere").code == 0
        terminal.send("more\rfar")
        go_on.set()
        terminal.wait_for(CHOICE)
        terminal.settle()
        assert f"{CHOICE} f" not in "\n".join(terminal.shown())
        terminal.send("\x1b")
        terminal.wait_for("› morefar")
    assert len(upstream.chats("agg")) == 3


def test_over_plain_lines_it_is_told_once(begun: Moa, upstream: Upstream) -> None:
    import subprocess

    with begun.start("chat", "-c", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        upstream.wait_for(lambda: len(upstream.chats("agg")) == 2)
        assert begun.run("ask", "-c", "elsewhere").code == 0
        _, err = process.communicate(b"two\nthree\n")
    assert err.decode().count("another moa has added") == 1
    assert sorted(*conversations(begun).values()) == sorted(
        ["first", "one", "elsewhere", "two", "three"]
    )


def test_a_chat_alone_asks_nothing(begun: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(text="1"), Reply(status=400, error="no"), Reply(text="2"))
    with begun.terminal("chat", "-c", rows=60) as terminal:
        at_empty_prompt(terminal)
        ask(terminal, "more", upstream)
        terminal.send("fails\r")
        terminal.wait_for("/remerge writes a reply from them")
        terminal.wait_for(lambda: terminal.shown()[-2:-1] == ["› fails"])
        terminal.send("\x15")
        at_empty_prompt(terminal)
        for line in ("/remerge", "/retry", "/undo", "/fork", "new", "/fork", "/remerge", "again"):
            terminal.send(f"{line}\r")
            at_empty_prompt(terminal)
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 8)
        at_empty_prompt(terminal)
        assert "another moa" not in "\n".join(terminal.lines())


def test_what_needs_a_conversation_that_was_deleted_meanwhile_says_so(
    begun: Moa, upstream: Upstream
) -> None:
    import subprocess

    commands = ("/tag a", "/tag", "/rename b", "/fork", "/save")
    with begun.start("chat", "-c", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        upstream.wait_for(lambda: len(upstream.chats("agg")) == 2)
        while len(*conversations(begun).values()) < 2:
            assert process.poll() is None
        assert begun.run("history", "delete", "--all", "--yes").code == 0
        _, err = process.communicate("\n".join([*commands, "/export out.md", "two", ""]).encode())
    gone = "moa: another process has deleted this conversation (the next turn begins a new one"
    assert err.decode().count(gone) == len(commands)
    assert not {"renamed: b", "no tags"} & set(err.decode().splitlines())
    # What the chat knows is still there.
    assert "first" in (begun.folder / "out.md").read_text("utf-8")
    assert sent(upstream)[-1] == ["first", "ok", "one", "ok", "two"]
    assert list(conversations(begun).values()) == [["two"]]


def test_a_new_try_that_fails_is_no_change_by_another_moa(begun: Moa, upstream: Upstream) -> None:
    refused = Reply(status=400, error="no")
    upstream.enqueue("agg", refused)
    upstream.enqueue("a", refused)
    upstream.enqueue("b", refused)
    ran = begun.run("chat", "-c", stdin=b"/remerge\n/retry\nmore\n")
    assert ran.err.count("refused the request (400): no") == 2
    assert "another moa" not in ran.err
    assert sent(upstream)[-1] == ["first", "ok", "more"]


def test_on_a_dumb_terminal_one_chooses_too(begun: Moa, upstream: Upstream) -> None:
    with begun.terminal("chat", "-c", env={"TERM": "dumb"}) as terminal:
        terminal.wait_for("ok\n\n›")
        assert begun.run("ask", "-c", "elsewhere").code == 0
        terminal.send("here\r")
        terminal.wait_for(f"{ADDED}\n{CHOICE}")
        terminal.send("f")
        terminal.wait_for(lambda: len(upstream.chats("agg")) == 3)
        terminal.wait_for("(3 calls")
        assert b"\x1b" not in bytes(terminal.raw)
    assert sent(upstream)[-1] == ["first", "ok", "here"]
