"""Turns that a signal or a crash cut are shown, looked at, merged and asked again by a new process;
and a chat that ends says how to come back to it."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing

import pytest

from tests.support.command import PATIENCE, Moa
from tests.support.kept import proposals_in
from tests.support.talk import at_empty_prompt, at_prompt, references, sent
from tests.support.upstream import Reply, Upstream

SILENT = Reply(text="One sentence. Another one", stall_after=2)


@pytest.fixture
def lab(moa: Moa, upstream: Upstream) -> Moa:
    """Two proposers, and a conversation with one turn."""
    moa.profile("lab", "a", "b")
    upstream.always("a", Reply(text="from a"))
    upstream.always("b", Reply(text="from b"))
    assert moa.run("ask", "whole").code == 0
    return moa


def latest(moa: Moa) -> str:
    """The id of the latest conversation."""
    return str(json.loads(moa.run("history", "list", "--json").text)[0]["id"])


def cut(
    moa: Moa, upstream: Upstream, number: signal.Signals, phase: str, line: str = "unlucky"
) -> None:
    """A turn of a chat that goes on, cut off in a layer of proposers or while its reply comes."""
    upstream.enqueue({"proposers": "b", "reply": "agg"}[phase], SILENT)
    before = len(upstream.chats("agg"))
    with moa.terminal("chat", "-c", columns=100) as terminal:
        at_empty_prompt(terminal)
        terminal.send(f"{line}\r")
        if phase == "reply":
            upstream.wait_for(lambda: len(upstream.chats("agg")) > before)
            terminal.wait_for("One sentence")
        else:
            # The first turn has two.
            terminal.wait_for(lambda: proposals_in(moa) == 3)
        terminal.process.send_signal(number)
        terminal.process.wait(PATIENCE)


@pytest.mark.parametrize("phase", ["proposers", "reply"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_turn_that_was_cut_is_shown_looked_at_merged_and_asked_again(
    lab: Moa, upstream: Upstream, number: signal.Signals, phase: str
) -> None:
    cut(lab, upstream, number, phase)
    identity = latest(lab)
    merged_from = ["from a"] if phase == "proposers" else ["from a", "from b"]
    upstream.enqueue("agg", Reply(text="merged at last"), Reply(text="asked again"))
    with lab.terminal("chat", columns=100, rows=40) as terminal:
        at_empty_prompt(terminal)
        assert (
            f"moa: the last conversation was cut off: whole; /resume {identity} goes on with it"
            in terminal.lines()
        )
        terminal.send("/resume\r")
        terminal.wait_for("Enter resumes")
        assert "2 turns  lab  (cut off) whole" in "\n".join(terminal.shown())
        terminal.send("\r")
        terminal.wait_for("› unlucky")
        at_empty_prompt(terminal)
        count = len(merged_from) + (phase == "proposers" and number != signal.SIGKILL)
        shown = terminal.lines()
        if phase == "reply" and number != signal.SIGKILL:
            assert any(line.startswith("the reply was cut off; ") for line in shown)
        else:
            proposals = "1 proposal is" if count == 1 else f"{count} proposals are"
            assert any(line.startswith(f"no reply yet; {proposals} kept") for line in shown)
        terminal.send("/show\r")
        terminal.wait_for("1  round 1  lab:a: from a")
        terminal.send("/remerge\r")
        terminal.wait_for("merged at last")
        at_empty_prompt(terminal)
        assert [text.splitlines()[0] for text in references(upstream)][: len(merged_from)] == (
            merged_from
        )
        assert sent(upstream)[-1] == ["whole", "ok", "unlucky"]
        terminal.send("/retry\r")
        terminal.wait_for("asked again")
        at_empty_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
        assert terminal.shown()[-1] == f"to continue: moa chat --cid {identity}"
    turns = json.loads(lab.run("history", "show", identity, "--json").text)["turns"]
    assert [turn["reply"] for turn in turns] == ["ok", "asked again"]


def test_an_earlier_turn_without_a_reply_stays_to_be_seen(lab: Moa, upstream: Upstream) -> None:
    cut(lab, upstream, signal.SIGKILL, "reply")
    assert lab.run("ask", "-c", "later").code == 0
    with lab.terminal("chat", "-c", rows=40) as terminal:
        at_empty_prompt(terminal)
        lines = terminal.lines()
    start = lines.index("› unlucky")
    assert lines[start + 1 : start + 3] == ["no reply", ""]
    assert "› later" in lines[start:]


def test_ask_says_that_a_turn_without_a_reply_is_not_sent_along(
    lab: Moa, upstream: Upstream
) -> None:
    cut(lab, upstream, signal.SIGKILL, "reply")
    ran = lab.run("ask", "-c", "later")
    told = "moa: its last turn has no reply, and is not sent; 2 proposals are kept: "
    assert f"{told}`moa ask --remerge` writes a reply from them\n" in ran.err
    assert sent(upstream)[-1] == ["whole", "ok", "later"]


def test_a_whole_conversation_is_not_called_cut(lab: Moa) -> None:
    with lab.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        assert not any("cut off" in line for line in terminal.lines())


def test_leaving_says_how_to_come_back(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("hello\r")
        terminal.wait_for("(4 calls")
        at_empty_prompt(terminal)
        terminal.send("/exit\r")
        assert terminal.wait() == 0
        identity = latest(moa)
        assert terminal.shown()[-1] == f"to continue: moa chat --cid {identity}"
    with moa.terminal("chat", "--cid", identity) as terminal:
        at_empty_prompt(terminal)
        assert "› hello" in terminal.lines()
        terminal.send("/new\r")
        terminal.wait_for("a new conversation")
        at_empty_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
        assert "to go on" not in "\n".join(terminal.lines())


@pytest.mark.parametrize("saved", [True, False])
def test_what_is_not_saved_names_no_way_back(moa: Moa, saved: bool) -> None:
    with moa.terminal("chat", *([] if saved else ["--no-save"])) as terminal:
        at_empty_prompt(terminal)
        if not saved:
            terminal.send("hello\r")
            terminal.wait_for("(4 calls")
            at_empty_prompt(terminal)
        terminal.send("\x04")
        assert terminal.wait() == 0
        assert "to go on" not in "\n".join(terminal.lines())


def test_in_a_pipe_nothing_is_added(moa: Moa) -> None:
    assert "to go on" not in moa.run("chat", stdin=b"hello\n").err


def test_what_was_deleted_meanwhile_names_no_way_back(moa: Moa) -> None:
    with moa.terminal("chat") as terminal:
        at_empty_prompt(terminal)
        terminal.send("hello\r")
        terminal.wait_for("(4 calls")
        at_empty_prompt(terminal)
        assert moa.run("history", "delete", "--all", "--yes").code == 0
        terminal.send("\x04")
        assert terminal.wait() == 0
        assert "to go on" not in "\n".join(terminal.lines())


REFUSED = Reply(status=400)


@pytest.mark.parametrize("again", ["/retry", "hi"])
def test_a_try_without_a_reply_gives_way_to_the_one_that_has_it(
    moa: Moa, upstream: Upstream, again: str
) -> None:
    upstream.enqueue("agg", REFUSED, REFUSED, Reply(text="at last"))
    moa.run("chat", stdin=f"hi\n{again}\n{again}\nnext\n/export out.md\n".encode())
    turns = json.loads(moa.run("history", "show", "--json").text)["turns"]
    assert [(turn["prompt"], turn["reply"]) for turn in turns] == [
        ("hi", "at last"),
        ("next", "ok"),
    ]
    text = (moa.folder / "out.md").read_text("utf-8")
    assert (text.count("at last"), text.count("refused")) == (1, 0)
    with moa.terminal("chat", "-c", rows=40) as terminal:
        at_empty_prompt(terminal)
        assert terminal.lines().count("› hi") == 1
        assert not any("no reply" in line for line in terminal.lines())


def test_a_try_with_proposals_does_not_give_way_to_one_without_any(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", REFUSED, Reply(text="merged"))
    for name in "abc":
        upstream.enqueue(name, Reply(text=f"from {name}"), REFUSED)
    moa.run("chat", stdin=b"hi\n/retry\n/remerge\n")
    [turn] = json.loads(moa.run("history", "show", "--json").text)["turns"]
    assert turn["reply"] == "merged"
    assert [proposal["text"] for proposal in turn["proposals"][0]] == ["from a", "from b", "from c"]


def test_a_retry_that_gives_nothing_leaves_the_turn_that_was_answered(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", Reply(text="first"))
    for name in "abc":
        upstream.enqueue(name, Reply(text="one"), REFUSED)
    moa.run("chat", stdin=b"hi\n/retry\nnext\n")
    turns = json.loads(moa.run("history", "show", "--json").text)["turns"]
    assert [(turn["prompt"], turn["reply"]) for turn in turns] == [("hi", "first"), ("next", "ok")]


def test_after_a_retry_that_failed_the_next_command_can_be_typed(
    lab: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", Reply(text="first"), REFUSED)
    with lab.terminal("chat") as terminal:
        for line, shown in (("hi", "first"), ("/retry", "are kept: /remerge")):
            at_prompt(terminal)
            terminal.send(f"{line}\r")
            terminal.wait_for(shown)
        at_prompt(terminal)
        terminal.send("/remerge\r")
        terminal.wait_for(lambda: "ok" in terminal.lines())
        at_empty_prompt(terminal)
    assert kept(lab) == [("hi", "ok")]


def test_undo_after_a_failure_takes_back_what_failed(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(text="first"), REFUSED)
    ran = moa.run("chat", stdin=b"hi\nfails\n/undo\nnext\n")
    assert "forgot: fails" in ran.err
    turns = json.loads(moa.run("history", "show", "--json").text)["turns"]
    assert [(turn["prompt"], turn["reply"]) for turn in turns] == [("hi", "first"), ("next", "ok")]
    assert sent(upstream)[-1] == ["hi", "first", "next"]


def test_undo_after_a_new_try_that_failed_takes_back_the_answered_turn_with_it(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", Reply(text="first"), REFUSED)
    moa.run("chat", stdin=b"hi\n/retry\n/undo\nnext\n")
    turns = json.loads(moa.run("history", "show", "--json").text)["turns"]
    assert [(turn["prompt"], turn["reply"]) for turn in turns] == [("next", "ok")]


def failed_retry(moa: Moa, upstream: Upstream, *more: str) -> None:
    """A chat with one answered message, whose `/retry` leaves only proposals, as does a `/remerge`
    directly after it."""
    upstream.enqueue("agg", Reply(text="first"), REFUSED, *[REFUSED] * (more[:1] == ("/remerge",)))
    for name in "ab":
        upstream.enqueue(name, Reply(text="old"), Reply(text=f"new {name}"))
    moa.run("chat", stdin="\n".join(["hi", "/retry", *more]).encode())


def kept(moa: Moa) -> list[tuple[str, str | None]]:
    """The turns of the latest conversation."""
    turns = json.loads(moa.run("history", "show", "--json").text)["turns"]
    return [(turn["prompt"], turn["reply"]) for turn in turns]


CHAT = ("chat", "-c")


@pytest.mark.parametrize(
    ("command", "lines", "turns"),
    [
        (CHAT, ["/remerge"], [("hi", "ok")]),
        (CHAT, ["/retry"], [("hi", "ok")]),
        (CHAT, ["/fork", "/remerge"], [("hi", "ok")]),
        (CHAT, ["/undo", "next"], [("next", "ok")]),
        (("ask", "--remerge"), [], [("hi", "ok")]),
    ],
)
def test_a_new_try_that_failed_is_still_one_in_the_next_process(
    lab: Moa,
    upstream: Upstream,
    command: tuple[str, ...],
    lines: list[str],
    turns: list[tuple[str, str]],
) -> None:
    failed_retry(lab, upstream)
    assert kept(lab) == [("hi", "first"), ("hi", None)]
    assert lab.run(*command, stdin="\n".join(lines).encode()).code == 0
    assert kept(lab) == turns
    assert sent(upstream)[-1] == [turns[0][0]]
    if "/remerge" in lines or not lines:
        assert references(upstream) == ["new a", "new b"]


def test_a_file_that_a_new_try_adds_makes_no_other_message_of_it(
    lab: Moa, upstream: Upstream
) -> None:
    (lab.folder / "notes.txt").write_text("noted", "utf-8")
    for reply in (REFUSED, Reply(text="better")):
        upstream.enqueue("agg", Reply(text="first"), reply)
        lab.run("chat", stdin=b"hi\n/file notes.txt\n/retry")
        assert lab.run("chat", "-c", stdin=b"/remerge").code == 0
        [(prompt, reply_text)] = kept(lab)
        assert (prompt.splitlines()[0], "noted" in prompt, reply_text) == ("hi", True, "ok")


def test_copies_exports_and_what_is_recovered_know_the_new_try(
    lab: Moa, upstream: Upstream
) -> None:
    failed_retry(lab, upstream)
    data = lab.state.parent / "data"
    assert lab.run("history", "export", "--all", "-o", "all.json").code == 0
    assert json.loads((lab.folder / "all.json").read_text())["version"] == 5
    (data / "conversations.db").rename(data / "old.db")
    for command in ("import", "all.json"), ("recover", str(data / "old.db")):
        assert lab.run("history", *command).code == 0
        assert lab.run("history", "export", "--all").out
        assert lab.run("chat", "-c", stdin=b"/remerge").code == 0
        assert kept(lab) == [("hi", "ok")]
        assert lab.run("history", "delete", "--all", "--yes").code == 0


def test_a_new_try_that_failed_is_not_shown_as_a_message_of_its_own(
    lab: Moa, upstream: Upstream
) -> None:
    failed_retry(lab, upstream)
    told = "another attempt to answer the message above, whose reply stays; failed: lab:agg: lab "
    assert f"\n› hi\n\n({told}" in lab.run("history", "show").text
    assert told in lab.run("history", "export", "--all").text.replace("\\", "")
    with lab.terminal("chat", "-c", columns=100) as terminal:
        at_empty_prompt(terminal)
        kept = "2 proposals are kept: /remerge writes a reply from them"
        assert f"no reply; the one above stays; {kept}" in terminal.lines()


def test_a_file_of_an_older_version_goes_on(lab: Moa, upstream: Upstream) -> None:
    failed_retry(lab, upstream)
    with closing(sqlite3.connect(lab.state.parent / "data" / "conversations.db")) as file:
        file.executescript("ALTER TABLE turns DROP COLUMN asks_again; PRAGMA user_version = 11;")
    assert lab.run("chat", "-c", stdin=b"next").code == 0
    assert kept(lab) == [("hi", "first"), ("hi", None), ("next", "ok")]


def test_what_nothing_asks_again_is_exported_as_before(lab: Moa, upstream: Upstream) -> None:
    failed_retry(lab, upstream, "/retry")
    values = json.loads(lab.run("history", "export", "--all", "--format", "json").text)
    assert values["version"] == 1
    assert not any("asks_again" in turn for turn in values["conversations"][0]["turns"])


@pytest.mark.parametrize("phase", ["proposers", "reply"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_new_try_that_was_cut_doubles_no_message(
    lab: Moa, upstream: Upstream, number: signal.Signals, phase: str
) -> None:
    cut(lab, upstream, number, phase, "/retry")
    partial = phase == "reply" and number == signal.SIGHUP
    in_two = [("whole", "ok"), ("whole", None)]
    assert kept(lab) == ([("whole", "One sentence. ")] if partial else in_two)
    assert lab.run("chat", "-c", stdin=b"/remerge\nnext").code == 0
    assert kept(lab) == [("whole", "ok"), ("next", "ok")]
    assert sent(upstream)[-1] == ["whole", "ok", "next"]


@pytest.mark.parametrize(
    "between", [["/remerge"], ["/retry a b"], ["/fork"], ["/remerge", "/fork"]]
)
def test_the_proposals_of_a_new_try_that_failed_stay_until_they_are_merged(
    lab: Moa, upstream: Upstream, between: list[str]
) -> None:
    failed_retry(lab, upstream, *between, "/remerge")
    assert references(upstream) == ["new a", "new b"]
    assert sent(upstream)[-1] == ["hi"]
    assert kept(lab) == [("hi", "ok")]


def test_a_chat_that_is_kept_later_keeps_a_new_try_as_one(lab: Moa, upstream: Upstream) -> None:
    failed_retry(lab, upstream)
    assert lab.run("history", "delete", "--all", "--yes").code == 0
    upstream.enqueue("agg", Reply(text="first"), REFUSED)
    lab.run("chat", "--no-save", stdin=b"hi\n/retry\n/save\n/remerge\nnext")
    assert kept(lab) == [("hi", "ok"), ("next", "ok")]


def test_a_message_sent_twice_is_two_messages_after_a_failure(lab: Moa, upstream: Upstream) -> None:
    upstream.enqueue("agg", Reply(text="first"))
    for name in "ab":
        upstream.enqueue(name, Reply(text="one"), REFUSED)
    lab.run("chat", stdin=b"more\nmore")
    assert kept(lab) == [("more", "first"), ("more", None)]
    assert lab.run("chat", "-c", stdin=b"/retry").code == 0
    assert kept(lab) == [("more", "first"), ("more", "ok")]


def test_the_same_text_after_a_failed_retry_is_another_message(
    lab: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", Reply(text="first"), REFUSED)
    for name in "ab":
        upstream.enqueue(name, Reply(text="old"), Reply(text="new"), REFUSED)
    lab.run("chat", stdin=b"hi\n/retry\nhi")
    assert kept(lab) == [("hi", "first"), ("hi", None)]
    assert lab.run("chat", "-c", stdin=b"/retry").code == 0
    assert kept(lab) == [("hi", "first"), ("hi", "ok")]


def test_a_try_takes_back_what_it_replaces_and_no_failed_message_between(
    lab: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", Reply(text="first"), REFUSED, REFUSED, Reply(text="second"))
    ran = lab.run("chat", stdin=b"more\nmore\nlater\n/undo\n/remerge\nnext")
    assert "another moa" not in ran.err
    assert kept(lab) == [("more", None), ("more", "second"), ("next", "ok")]
