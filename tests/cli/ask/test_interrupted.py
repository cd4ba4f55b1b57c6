"""`moa ask`, ended from outside: what had come of the reply is kept, every call is ended, the
terminal is left as it was, and there is no traceback."""

from __future__ import annotations

import signal
import subprocess
import textwrap
import time

import pytest

from tests.support.command import PATIENCE, Moa
from tests.support.talk import at_empty_prompt
from tests.support.upstream import Reply, Upstream

HEADER = "moa: profile lab: lab:a, lab:b, lab:c → lab:agg\n"
STUCK = Reply(chunks=["Half ", "of ", "it"], stall_after=2)
LEFT = "3 proposals are kept: `moa ask --remerge` writes a reply from them"
SIGNALS = [(signal.SIGINT, 130, "moa: interrupted\n"), (signal.SIGTERM, 143, "")]


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, str]:
    """Exit code, standard output and standard error."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err.decode()


@pytest.mark.parametrize(("number", "code", "said"), SIGNALS)
def test_a_signal_while_the_reply_is_written_keeps_what_came(
    moa: Moa, upstream: Upstream, number: int, code: int, said: str
) -> None:
    upstream.always("agg", STUCK)
    with moa.start("ask", "hi") as process:
        assert process.stdout is not None
        came = process.stdout.read(len(b"Half of "))
        process.send_signal(number)
        result = ended(process)
    assert came == b"Half of "
    assert result == (code, b"\n", HEADER + said.replace("\n", f"; {LEFT}\n"))
    upstream.wait_for(lambda: upstream.open_connections == 0)
    assert [request.disconnected for request in upstream.chats("agg")] == [True]


@pytest.mark.parametrize(("number", "code", "said"), SIGNALS)
def test_a_signal_while_proposers_work_ends_their_calls(
    moa: Moa, upstream: Upstream, number: int, code: int, said: str
) -> None:
    upstream.always("*", STUCK)
    with moa.start("ask", "hi") as process:
        upstream.wait_for(lambda: [r.sent for r in upstream.chats()] == [2, 2, 2])
        process.send_signal(number)
        result = ended(process)
    assert result == (code, b"", HEADER + said)
    upstream.wait_for(lambda: upstream.open_connections == 0)
    assert all(request.disconnected for request in upstream.chats())


def test_a_signal_that_comes_several_times_ends_all_in_order(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", STUCK)
    for _ in range(4):
        with moa.start("ask", "hi") as process:
            upstream.requests.clear()
            upstream.wait_for(lambda: [r.sent for r in upstream.chats()] == [2, 2, 2])
            # As `timeout` does with a program that passes the signal on.
            for _ in range(20):
                process.send_signal(signal.SIGTERM)
                time.sleep(0.005)
            code, out, err = ended(process)
        # The last ones may come when there is nothing more to put in order.
        assert code in (143, -signal.SIGTERM)
        assert (out, err) == (b"", HEADER)
        upstream.wait_for(lambda: upstream.open_connections == 0)


def test_a_signal_while_a_retry_is_waited_for_ends_the_wait(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(status=429, headers={"Retry-After": "50"}))
    with moa.start("ask", "-v", "hi", env={"MOA_RETRIES": "3"}) as process:
        assert process.stderr is not None
        # Of all three: a call that is still under way has its usage told at the end.
        waiting = 0
        while waiting < 3:
            waiting += b": again in 5" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    assert (code, out) == (130, b"")
    assert err.endswith("moa: interrupted\n")
    assert "Traceback" not in err


def test_ctrl_c_while_panels_are_shown_leaves_the_terminal_as_it_was(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("*", STUCK)
    with moa.terminal("ask", "hi") as terminal:
        terminal.wait_for("Half of")
        # Keys come one by one, so that an Esc is read at once.
        assert terminal.modes() == (False, False)
        assert not terminal.shows_cursor()
        terminal.send("\x03")
        assert terminal.wait() == 130
        assert terminal.lines() == [HEADER.strip(), "moa: interrupted"]
        assert terminal.modes_after == terminal.modes_before
        assert terminal.shows_cursor()
    upstream.wait_for(lambda: upstream.open_connections == 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_program_that_is_terminated_leaves_the_terminal_as_it_was(
    moa: Moa, upstream: Upstream, number: int
) -> None:
    upstream.always("*", STUCK)
    with moa.terminal("ask", "hi") as terminal:
        terminal.wait_for("Half of")
        terminal.process.send_signal(number)
        assert terminal.wait() == (-number if number == signal.SIGQUIT else 143)
        assert terminal.modes_after == terminal.modes_before
        assert terminal.shows_cursor()
        assert terminal.lines() == [HEADER.strip()]


def test_ctrl_c_while_the_reply_is_shown_leaves_what_came(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(chunks=["# One\n\n", "*two* ", "three"], stall_after=2))
    with moa.terminal("ask", "hi") as terminal:
        terminal.wait_for("two")
        terminal.wait_for("Ctrl-C: stop")
        terminal.send("\x03")
        assert terminal.wait() == 130
        said = textwrap.wrap(f"moa: interrupted; {LEFT}", 80)
        assert terminal.lines()[-6:] == ["", "One", "", "two", *said]
        assert terminal.modes_after == terminal.modes_before
        assert terminal.shows_cursor()


def test_an_aggregator_that_breaks_off_is_told_of_below_what_it_wrote(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(chunks=["# One\n\n", "*two* ", "three"], drop_after=2, pause=0.3))
    with moa.terminal("ask", "hi", columns=120) as terminal:
        assert terminal.wait() == 1
        lines = terminal.lines()
    assert lines[-6:-2] == ["", "One", "", "two"]
    assert lines[-2].startswith("moa: lab:agg: lab: the connection to 127.0.0.1")
    assert lines[-1] == f"moa: {LEFT}"


def test_a_fallback_is_told_of_above_the_reply_and_once(moa: Moa, upstream: Upstream) -> None:
    moa.profile("lab", "a", aggregator={"model": "lab:agg", "fallbacks": ["lab:spare"]})
    upstream.always("agg", Reply(status=400, error={"error": {"message": "no"}}, delay=0.3))
    upstream.always("spare", Reply(text="One.", delay=0.3))
    with moa.terminal("ask", "hi") as terminal:
        assert terminal.wait() == 0
        assert terminal.lines()[2:] == [
            "✗ lab:agg: lab refused the request (400): no",
            "↻ lab:spare replies in its place",
            "",
            "One.",
        ]


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_why_the_aggregator_gives_no_reply_is_told_once_and_whole(
    moa: Moa, upstream: Upstream, command: str
) -> None:
    no = Reply(status=400, error={"error": {"message": "no such thing"}})
    upstream.always("agg", no)
    with moa.terminal(command, *(["hi"] if command == "ask" else []), columns=120) as terminal:
        if command == "chat":
            at_empty_prompt(terminal)
            terminal.send("hi\r")
        terminal.wait_for("moa: lab:agg: lab refused the request (400): no such thing")
        terminal.wait_for("remerge")
        assert sum("no such thing" in line for line in terminal.lines()) == 1
