"""`moa chat` without a terminal: each line of standard input is a prompt or a command, standard
output holds the replies alone, and the exit code says whether every prompt was answered."""

from __future__ import annotations

import signal
import subprocess
import threading

import pytest

from tests.support.command import PATIENCE, Moa
from tests.support.upstream import Reply, Upstream

HEADER = "moa: profile lab: lab:a, lab:b, lab:c → lab:agg\n"


def prompts(upstream: Upstream) -> list[list[str]]:
    """What the aggregator was sent, call by call, without system messages."""
    return [
        [str(message["content"]) for message in request.messages if message["role"] != "system"]
        for request in upstream.chats("agg")
    ]


def test_each_line_is_a_prompt_and_the_replies_are_alone_on_stdout(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", Reply(text="# One\n\n"), Reply(text="two [/INST]"))
    ran = moa.run("chat", stdin=b"first\r\n\n   \nsecond")
    assert (ran.code, ran.text) == (0, "# One\ntwo [/INST]\n")
    assert prompts(upstream) == [["first"], ["first", "# One\n\n", "second"]]
    assert ran.err.startswith(HEADER + "(4 calls, ")
    assert ran.err.count("\n") == 3
    assert "\x1b" not in ran.err


def test_commands_are_obeyed_and_two_slashes_are_none(moa: Moa, upstream: Upstream) -> None:
    lines = b"/rounds 0\n//exit is a command\n/nope\n/exit\nnever\n"
    ran = moa.run("chat", stdin=lines)
    assert ran.out == b"ok\n"
    assert prompts(upstream) == [["/exit is a command"]]
    assert "rounds 0\n" in ran.err
    assert "moa: there is no command /nope" in ran.err
    assert len(upstream.chats()) == 1


def test_a_prompt_without_an_answer_is_told_of_and_makes_the_code_1(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.enqueue("agg", Reply(status=400), Reply(text="two"))
    ran = moa.run("chat", stdin=b"first\nsecond\n")
    assert (ran.code, ran.out) == (1, b"two\n")
    assert prompts(upstream)[-1] == ["second"]
    assert "moa: lab:agg: lab refused the request (400)" in ran.err


def test_nothing_to_ask_is_no_failure(moa: Moa, upstream: Upstream) -> None:
    for stdin in (None, b"", b"\n\n"):
        ran = moa.run("chat", stdin=stdin)
        assert (ran.code, ran.out) == (0, b"")
    assert upstream.requests == []


def test_a_last_line_without_its_end_is_taken(moa: Moa, upstream: Upstream) -> None:
    assert moa.run("chat", stdin="\ufeffgr\xfc\xdf".encode()).code == 0
    assert prompts(upstream) == [["gr\xfc\xdf"]]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffone\r\ntw\xf6\u2028still two\r\n".encode("utf-16-le"),
        "\ufeffone\ntw\xf6\u2028still two".encode("utf-16-be"),
        "\ufeffone\rtw\xf6\u2028still two\r".encode(),
    ],
    ids=["utf-16-le", "utf-16-be", "lone carriage returns"],
)
def test_lines_are_taken_as_other_systems_write_them(
    moa: Moa, upstream: Upstream, content: bytes
) -> None:
    assert moa.run("chat", stdin=content).code == 0
    assert [turn[-1] for turn in prompts(upstream)] == ["one", "tw\xf6\u2028still two"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"gr\xfc\xdf", "is not UTF-8 text: byte 3 of line 2 is 0xFC"),
        (b"a\0b", "is not text: line 2 holds a NUL character"),
        (b"\xff\xfea\0", "is not UTF-8 text: it is UTF-16, it seems"),
    ],
)
def test_a_line_that_is_no_text_ends_the_chat_and_is_told(
    moa: Moa, upstream: Upstream, line: bytes, said: str
) -> None:
    ran = moa.run("chat", stdin=b"first\n" + line + b"\nthird\n")
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith(f"moa: standard input: {said}")
    assert prompts(upstream) == [["first"]]


@pytest.mark.parametrize("option", ["--no-multi-turn", "--no_multi_turn"])
def test_without_multi_turn_no_history_is_sent(moa: Moa, upstream: Upstream, option: str) -> None:
    assert moa.run("chat", option, stdin=b"first\nsecond\n").code == 0
    assert prompts(upstream) == [["first"], ["second"]]


def test_what_is_kept_can_be_renamed_and_forked_once_it_has_begun(moa: Moa) -> None:
    ran = moa.run("chat", stdin=b"/fork\n/rename rain\n/rename\nhi\n/rename rain\n/fork\n")
    unkept = "moa: this conversation is not saved, or has no turn yet\n"
    assert ran.err.startswith(f"{HEADER}{unkept}{unkept}moa: /rename needs a title\n")
    *_, renamed, copied = ran.err.splitlines()
    assert renamed == "renamed: rain"
    listed = moa.run("history", "list").text.splitlines()
    assert sorted(line.split()[-1] for line in listed) == ["(copy)", "rain"]
    assert copied.removeprefix("a copy: ") in [line.split()[0] for line in listed]


def test_a_reply_comes_while_the_next_line_is_waited_for(moa: Moa) -> None:
    with moa.start("chat", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            process.stdin.write(b"hi\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"ok\n"
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait_for_a_line(moa: Moa, number: int, code: int) -> None:
    with moa.start("chat", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hi\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ok\n"
        assert process.stderr is not None
        while b"4 calls" not in process.stderr.readline():
            pass
        process.send_signal(number)
        # Before standard input is closed, which would end it too.
        assert process.wait(60) == code
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_turn_ends_the_program_with_what_came(
    moa: Moa, upstream: Upstream, number: int, code: int
) -> None:
    upstream.always("agg", Reply(chunks=["Half ", "of ", "it"], stall_after=2))
    with moa.start("chat", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"first\nsecond\n")
        process.stdin.flush()
        assert process.stdout.read(8) == b"Half of "
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (code, b"\n")
    assert b"Traceback" not in err
    assert prompts(upstream) == [["first"]]
    upstream.wait_for(lambda: upstream.open_connections == 0)


def test_a_reader_who_leaves_early_sees_no_traceback(moa: Moa, upstream: Upstream) -> None:
    gone = threading.Event()
    upstream.always("agg", Reply(chunks=["a line\n"] * 2000, stall_after=1000, go_on=gone))
    with moa.start("chat", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hi\nhi\n")
        process.stdin.close()
        process.stdin = None
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        gone.set()
        process.stdout = None
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 141
    assert err.decode() == HEADER
