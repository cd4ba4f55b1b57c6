"""A forked command behaves as one that is started afresh."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.command import PATIENCE, Moa, forks
from tests.support.upstream import Reply, Upstream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands are forked on Linux only")


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["--version"], None),
        (["no-such-command"], None),
        (["ask", "--help"], None),
        (["ask", "hi", "--no-save"], None),
        (["ask", "--no-save"], "from a pipe, ünïcode".encode()),
        (["ask", "--no-save"], b"\xff is no text"),
        (["ask", "--no-save"], b"more than a pipe holds " * 20_000),
        (["ask", "--no-save", "-f", os.fsdecode(b"no such file \xff")], None),
        (["ask", "-p", "no-such-profile", "hi"], None),
        (["history", "path"], None),
        (["config", "list"], b""),
    ],
    ids=str,
)
def test_exit_code_and_output_are_those_of_a_fresh_process(
    moa: Moa, upstream: Upstream, arguments: list[str], stdin: bytes | None
) -> None:
    upstream.always("agg", Reply(text=lambda request: f"{len(str(request.messages))} ünïcode"))
    given = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    # The first call makes the folders and the prices' cache, which both then find.
    moa.run("ask", "hi", "--no-save")
    with moa.start(*arguments, stdin=given) as process:
        out, err = process.communicate(stdin, timeout=PATIENCE)
    ran = moa.run(*arguments, stdin=stdin)
    assert (ran.code, ran.out, ran.err) == (process.returncode, out, err.decode())


def test_a_command_that_does_not_end_is_killed(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(stall_after=0))
    with pytest.raises(subprocess.TimeoutExpired):
        forks().run(["ask", "hi"], moa.folder, moa.environment, None, seconds=0.01)
    upstream.wait_for(lambda: upstream.in_flight == 0)


def test_commands_run_beside_each_other(moa: Moa, upstream: Upstream) -> None:
    released = threading.Event()
    upstream.always("agg", Reply(after=released))
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(moa.run, "ask", "-r", "0", f"question {n}") for n in range(3)]
        upstream.wait_for(lambda: upstream.in_flight == 3)
        released.set()
        assert [command.result().text for command in running] == ["ok\n"] * 3
