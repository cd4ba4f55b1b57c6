"""`moa ask`, told that it is enough: the reply is written from what has arrived, in every way of
output, and the second stop cancels."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.support.command import PATIENCE, Moa
from tests.support.kept import proposals_in
from tests.support.talk import references
from tests.support.upstream import Reply, Upstream

SILENT = Reply(stall_after=0)
STUCK = Reply(chunks=["Half ", "of ", "it"], stall_after=2)
HEADER = "moa: profile lab: lab:a, lab:b, lab:c → lab:agg\n"
LOST = "lab:b: not waited for; lab:c: not waited for"


def one_arrived(moa: Moa, upstream: Upstream) -> None:
    """The first proposal is written down, which it is before anybody is told of it."""
    upstream.wait_for(lambda: proposals_in(moa) == 1)


@pytest.fixture
def slow(upstream: Upstream) -> Upstream:
    """b has begun its answer, c says nothing."""
    upstream.always("a", Reply(text="from a"))
    upstream.always("b", STUCK)
    upstream.always("c", SILENT)
    return upstream


@pytest.mark.parametrize("options", [[], ["--no-stream"], ["--json"], ["--output", "jsonl"]])
def test_sigint_writes_the_reply_from_what_has_arrived(
    moa: Moa, slow: Upstream, options: list[str]
) -> None:
    with moa.start("ask", "hi", *options) as process:
        one_arrived(moa, slow)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    said = f"{HEADER}moa: enough: going on with 1 of 3\nmoa: degraded, lost {LOST}\n"
    assert err.decode() == said
    if options == ["--json"]:
        told = json.loads(out)
        assert (told["reply"], told["status"]) == ("ok", "finished")
        assert "; ".join(told["lost"]) == LOST
    elif options == ["--output", "jsonl"]:
        assert json.loads(out.splitlines()[-1])["kind"] == "turn_finished"
    else:
        assert out == b"ok\n"
    assert references(slow) == ["from a"]
    assert [slow.chats(model)[0].disconnected for model in "abc"] == [False, True, True]
    slow.wait_for(lambda: slow.open_connections == 0)


def test_the_second_sigint_cancels_and_says_how_to_go_on(moa: Moa, slow: Upstream) -> None:
    slow.always("agg", SILENT)
    with moa.start("ask", "hi") as process:
        one_arrived(moa, slow)
        process.send_signal(signal.SIGINT)
        slow.wait_for(lambda: bool(slow.chats("agg")))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, b"")
    kept = "1 proposal is kept: `moa ask --remerge` writes a reply from it"
    assert err.decode().splitlines()[-1] == f"moa: interrupted; {kept}"
    slow.wait_for(lambda: slow.open_connections == 0)


@pytest.mark.parametrize("again", [False, True])
def test_texts_that_still_stream_are_used_or_kept(
    moa: Moa, upstream: Upstream, again: bool
) -> None:
    """again: whether it is stopped a second time, while the reply is awaited."""
    for model in "ab":
        begun = ["Rain ", "falls ", f"on {model}. ", "It ", "i"]
        upstream.always(model, Reply(chunks=begun, stall_after=4))
    upstream.always("c", STUCK)
    upstream.enqueue("agg", SILENT if again else Reply(text="ok"), Reply(text="ok"))
    with moa.terminal("ask", "hi", columns=120, rows=40) as terminal:
        terminal.wait_for("Ctrl-C: write the reply now")
        terminal.wait_for(lambda: "\n".join(terminal.shown()).count(" It") == 2)
        terminal.send("\x03")
        terminal.wait_for("enough: going on with 2 of 3")
        if again:
            terminal.wait_for("Ctrl-C: cancel")
            terminal.send("\x03")
        assert terminal.wait() == (130 if again else 0)
        lines = terminal.lines()
    if again:
        kept = "2 proposals are kept: `moa ask --remerge` writes a reply from them"
        assert lines[-1] == f"moa: interrupted; {kept}"
        ran = moa.run("ask", "--remerge")
        assert ran.out == b"ok\n"
        assert ran.err == "moa: 2 proposals (lab:a unfinished, lab:b unfinished) → lab:agg\n"
    assert references(upstream) == [
        f"Rain falls on {model}. It [This response is unfinished.]" for model in "ab"
    ]


def test_a_turn_that_is_cancelled_keeps_what_still_streamed(moa: Moa, upstream: Upstream) -> None:
    begun = ["Rain ", "falls ", "on a. ", "It ", "i"]
    upstream.always("a", Reply(chunks=begun, stall_after=4))
    upstream.always("b", SILENT)
    upstream.always("c", Reply(status=400))
    with moa.start("ask", "--output", "jsonl", "hi") as process:
        assert process.stdout is not None
        while b'"It "' not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert moa.run("ask", "--remerge").out == b"ok\n"
    assert references(upstream) == ["Rain falls on a. It [This response is unfinished.]"]


def test_what_is_not_saved_is_not_said_to_be_kept(moa: Moa, slow: Upstream) -> None:
    slow.always("agg", SILENT)
    with moa.start("ask", "--no-save", "-v", "hi") as process:
        assert process.stderr is not None
        while b"Ctrl-C" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        slow.wait_for(lambda: bool(slow.chats("agg")))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "moa: interrupted" in err.decode().splitlines()


def test_the_steps_say_once_what_the_key_does(moa: Moa, slow: Upstream) -> None:
    with moa.start("ask", "-v", "hi") as process:
        assert process.stderr is not None
        line = b""
        while b"Ctrl-C" not in line:
            line = process.stderr.readline()
        assert line == (
            b"moa: waiting for lab:b, lab:c (1 of 3 have ended); Ctrl-C: write the reply now\n"
        )
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, b"ok\n")
    assert b"Ctrl-C" not in err


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize("key", ["\x03", "\x1b"], ids=["Ctrl-C", "Esc"])
def test_a_key_at_a_terminal_does_the_same(
    moa: Moa, slow: Upstream, key: str, columns: int
) -> None:
    read = threading.Event()
    slow.always("agg", Reply(text="ok", after=read))
    with moa.terminal("ask", "hi", columns=columns, rows=34) as terminal:
        terminal.wait_for("Ctrl-C: write the reply now")
        terminal.send(key)
        terminal.wait_for("enough: going on with 1 of 3")
        terminal.wait_for("Ctrl-C: cancel")
        read.set()
        assert terminal.wait() == 0
        assert terminal.lines()[-2:] == ["", "ok"]
        assert terminal.modes_after == terminal.modes_before
    assert references(slow) == ["from a"]


def test_before_anything_has_arrived_the_board_says_that_the_key_cancels(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("*", SILENT)
    with moa.terminal("ask", "hi") as terminal:
        terminal.wait_for("Ctrl-C: cancel")
        # Keys that begin with an Esc are none, and one that is typed for the shell is not either.
        terminal.send("\x1b[A\x1bOPls")
        time.sleep(0.5)
        assert terminal.process.poll() is None
        terminal.send("\x1b")
        assert terminal.wait() == 130
        assert terminal.lines() == [HEADER.strip(), "moa: interrupted"]
        assert terminal.modes_after == terminal.modes_before


def test_the_reply_may_go_to_a_file(moa: Moa, slow: Upstream, tmp_path: Path) -> None:
    with moa.terminal("ask", "hi", stdout=tmp_path / "reply") as terminal:
        terminal.wait_for("Ctrl-C: write the reply now")
        terminal.send("\x1b")
        assert terminal.wait() == 0
    assert (tmp_path / "reply").read_text("utf-8") == "ok\n"


def test_rounds_that_have_not_begun_are_skipped(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", Reply(text="from a", delay=0.5))
    upstream.always("b", SILENT)
    moa.profile("lab", "a", "b", rounds=2)
    with moa.start("ask", "hi") as process:
        one_arrived(moa, upstream)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert references(upstream) == ["from a"]
    assert len(upstream.chats()) == 3
