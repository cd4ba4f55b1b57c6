"""Calls in flight: of the process, of a provider, and of one that refuses what is too much."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from tests.support.bench.own_runs import write_lines
from tests.support.command import Moa
from tests.support.server import QUESTION, serving
from tests.support.upstream import Reply, Request, Upstream

_PROPOSERS = [f"m{number}" for number in range(8)]


def _set(moa: Moa, provider: Mapping[str, Any] | None = None, **settings: Any) -> None:
    """Settings of the process, and of the provider."""
    lab = {**moa.settings()["providers"]["lab"], **(provider or {})}
    moa.configure(**{"retries": 4, **settings}, providers={"lab": lab})


@pytest.fixture
def small(moa: Moa, upstream: Upstream) -> Upstream:
    """A provider that takes two calls at once; the profile has eight proposers."""
    moa.profile("lab", *_PROPOSERS)
    _set(moa)
    upstream.at_once = 2
    upstream.always("*", Reply(text="an answer", pause=0.2))
    return upstream


def _refuse_with(upstream: Upstream, status: int, **headers: str) -> None:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    upstream.too_many = replace(upstream.too_many, status=status, headers=told)


@pytest.mark.parametrize("retry_after", [None, "0", "-1", "1", "Wed, 21 Oct 2015 07:28:00 GMT"])
@pytest.mark.parametrize("late", [False, True])
def test_all_proposers_answer_at_a_provider_that_takes_two_calls(
    moa: Moa, small: Upstream, retry_after: str | None, late: bool
) -> None:
    _refuse_with(small, 429, **({} if retry_after is None else {"Retry_After": retry_after}))
    if late:
        small.always("*", Reply(text="an answer", delay=0.4))
    ran = moa.run("ask", "hi", "--json")
    assert ran.code == 0, ran.err
    turn = json.loads(ran.out)
    assert [len(layer) for layer in turn["proposals"]] == [8]
    assert turn.get("lost", []) == []
    assert small.peak == 2
    assert len(small.refused) <= 0.2 * len(small.chats())


@pytest.mark.parametrize("status", [503, 529])
def test_overload_is_waited_for_like_too_many_requests(
    moa: Moa, small: Upstream, status: int
) -> None:
    _refuse_with(small, status)
    ran = moa.run("ask", "hi", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out).get("lost", []) == []
    assert len(small.refused) <= 0.2 * len(small.chats())


def test_the_next_command_knows_what_the_provider_takes(moa: Moa, small: Upstream) -> None:
    assert moa.run("ask", "hi").code == 0
    small.refused.clear()
    assert moa.run("ask", "hi").code == 0
    assert small.refused == []


def test_a_limit_that_is_set_is_never_gone_beyond(moa: Moa, small: Upstream) -> None:
    _set(moa, {"concurrency": 2})
    ran = moa.run("ask", "hi")
    assert ran.code == 0, ran.err
    assert (small.peak, small.refused) == (2, [])


def test_requests_a_minute_are_counted(moa: Moa, upstream: Upstream) -> None:
    _set(moa, {"rpm": 3})
    with moa.start("ask", "hi", "-v") as process:
        upstream.wait_for(lambda: len(upstream.chats()) == 3)
        assert process.stderr is not None
        # The aggregator is the fourth call.
        assert any(b"3 of 3 answered" in line for line in process.stderr)
        assert process.poll() is None
        assert len(upstream.chats()) == 3


def test_a_server_does_not_pass_on_what_its_provider_refuses(moa: Moa, small: Upstream) -> None:
    small.always("*", Reply(text="an answer", pause=0.01))
    moa.profile("lab", "a", "b", "c")
    with serving(moa) as server, ThreadPoolExecutor(33) as clients:
        asked = [clients.submit(server.ask, messages=QUESTION) for _ in range(33)]
        answers = [answer.result() for answer in asked]
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json()["moa"].get("lost", []) == [] for answer in answers)
    assert small.peak == 2
    assert len(small.refused) <= 0.2 * len(small.chats())


def test_concurrency_is_that_of_all_turns_of_a_server(moa: Moa, upstream: Upstream) -> None:
    four = threading.Event()

    def reply(_: Request) -> Reply:
        # None is answered before four are in flight.
        if upstream.in_flight >= 4:
            four.set()
        return Reply(text="an answer", pause=0.05, after=four)

    upstream.always("*", reply)
    _set(moa, {"concurrency": 64})
    with serving(moa, "--concurrency", "4") as server, ThreadPoolExecutor(8) as clients:
        for answer in clients.map(lambda _: server.ask(messages=QUESTION), range(8)):
            assert answer.status_code == 200
    assert upstream.peak == 4


def test_a_batch_is_answered_whole_by_a_provider_that_takes_two_calls(
    moa: Moa, small: Upstream
) -> None:
    small.always("*", Reply(text="an answer", pause=0.005))
    moa.profile("lab", "a", "b", "c")
    rows = [{"prompt": f"thing {number}"} for number in range(100)]
    prompts = write_lines(moa.folder / "in.jsonl", rows).name
    ran = moa.run("batch", prompts, "out.jsonl", "-y")
    assert ran.code == 0, ran.err
    answers = [json.loads(line) for line in (moa.folder / "out.jsonl").read_text().splitlines()]
    assert len(answers) == 100
    assert all("error" not in answer and not answer.get("lost") for answer in answers)
    assert small.peak == 2
    assert len(small.refused) <= 0.05 * len(small.chats())


def test_a_time_that_is_too_long_to_wait_ends_the_call_at_once(moa: Moa, small: Upstream) -> None:
    moa.profile("lab", "a", "b")
    small.at_once = 0
    _refuse_with(small, 429, Retry_After="7200")
    ran = moa.run("ask", "hi")
    assert ran.code == 75
    assert "too many requests" in ran.err
    # Both were sent before one of them was refused; nothing was sent after that.
    assert len(small.chats()) == 2


@pytest.mark.parametrize("columns", [100, 50])
def test_the_board_shows_what_is_not_sent_yet(moa: Moa, small: Upstream, columns: int) -> None:
    _set(moa, {"concurrency": 2})
    held = threading.Event()
    small.always("*", Reply(text="an answer", after=held))
    with moa.terminal("ask", "hi", columns=columns, rows=40) as terminal:
        terminal.wait_for("6 not sent")
        if columns == 100:
            terminal.wait_for("lab:m7  not sent yet, waiting for the limit of lab")
            assert "lab:m1  waiting" in "\n".join(terminal.shown())
        held.set()
        assert terminal.wait() == 0
        assert "not sent" not in "\n".join(terminal.shown())


def test_lines_tell_what_is_not_sent_yet(moa: Moa, small: Upstream) -> None:
    _set(moa, {"concurrency": 2})
    held = threading.Event()
    small.always("*", Reply(text="an answer", after=held))
    with moa.start("ask", "hi", "-v") as process:
        assert process.stderr is not None
        told: list[str] = []
        for line in iter(process.stderr.readline, b""):
            told.append(line.decode())
            if len([said for said in told if "not sent yet" in said]) == 6:
                held.set()
    waits = [line for line in told if "not sent yet" in line]
    assert waits == [
        f"moa: lab:m{number}: not sent yet, waiting for the limit of lab\n"
        for number in range(2, 8)
    ]


def test_a_provider_that_is_left_alone_is_named(moa: Moa, small: Upstream) -> None:
    moa.profile("lab", "a", "b")
    small.at_once = 0
    _refuse_with(small, 429, Retry_After="30")
    with moa.terminal("ask", "hi", columns=100) as terminal:
        terminal.wait_for("not sent yet, lab is paused for 3")
        terminal.send("\x03")
        assert terminal.wait() == 130
