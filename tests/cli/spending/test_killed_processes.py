"""What was spent by processes that were killed. The upstream's log is the truth."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.command import PATIENCE, Moa
from tests.support.server import serving
from tests.support.upstream import Reply, Request, Upstream

PRICES: list[dict[str, object]] = [
    {"id": name, "pricing": {"input": 1.0, "output": 2.0}} for name in ("a", "b", "agg", "judge")
]
# A turn: three calls of a hundred tokens at most, at 2 USD a million.
_LONGEST = 100
_ANSWER = Reply(chunks=["x "] * 40, pause=0.01)
# It does not end before the kill, however late that comes.
_UNENDED = replace(_ANSWER, stall_after=3)
_NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(models=PRICES) as running:
        running.always("*", _ANSWER)
        yield running


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    machine = Moa(tmp_path, upstream.url)
    machine.profile("lab", "a", "b", max_tokens=_LONGEST)
    # So that the prices are known when the first call is made.
    assert machine.run("ask", "--estimate", "hi").code == 0
    return machine


def budget(moa: Moa, upstream: Upstream, **limits: object) -> None:
    provider = {"lab": {"base_url": upstream.url, "api_key_env": "LAB_KEY"}}
    moa.configure(providers=provider, budget=limits)


def stats(moa: Moa) -> list[dict[str, Any]]:
    ran = moa.run("history", "stats", "--json")
    assert ran.code == 0, ran.err
    values: list[dict[str, Any]] = json.loads(ran.text)["models"] if ran.text else []
    return values


def spent(moa: Moa) -> float:
    return sum(float(row["known_cost"]) for row in stats(moa))


def journal(moa: Moa) -> list[dict[str, Any]]:
    """What the running processes have written down of their calls."""
    files = (moa.state.parent / "data" / "running").glob("*.jsonl")
    # The last line may be being written.
    lines = [line for file in files for line in file.read_text("utf-8").split("\n")[:-1]]
    return [json.loads(line) for line in lines]


def bill(requests: list[Request]) -> float:
    """What the endpoint would ask for, by its own log."""
    return sum(prompt * 1e-6 + completion * 2e-6 for prompt, completion in usages(requests))


def usages(requests: list[Request]) -> list[tuple[int, int]]:
    return [request.usage for request in requests]


def billed(upstream: Upstream) -> list[Request]:
    return [request for request in upstream.chats() if request.usage != (0, 0)]


def kill_at(process: subprocess.Popen[bytes], upstream: Upstream, model: str, sent: int) -> None:
    """As soon as that many pieces of an answer have been sent."""
    before = len(upstream.chats(model))
    upstream.wait_for(
        lambda: any(row.sent >= sent for row in upstream.chats(model)[max(before - 1, 0) :])
    )
    process.kill()
    process.wait()
    upstream.wait_for(lambda: upstream.in_flight == 0)


@pytest.mark.parametrize(
    ("before", "arguments", "ledger"),
    [
        (None, ["hi"], ["lab:a", "lab:b", "lab:agg", "lab:judge"]),
        (500, ["--remerge"], ["lab:a", "lab:b", "lab:agg", "lab:judge"]),
        (200, ["--remerge"], ["lab:agg", "lab:judge"]),
        (200, ["--remerge", "--strategy", "vote", "--final-answer", "regex:x"], ["lab:judge"]),
    ],
    ids=["asked", "merged after a failure", "merged anew", "voted anew"],
)
def test_the_report_of_a_turn_that_is_killed_behind_its_reply_is_counted(
    moa: Moa, upstream: Upstream, before: int | None, arguments: list[str], ledger: list[str]
) -> None:
    if before is not None:
        upstream.enqueue("agg", Reply(status=before))
        assert moa.run("ask", "hi").code == (before != 200)
    upstream.always("judge", _UNENDED)
    with moa.start("ask", *arguments, "--report", "--judge-model", "lab:judge") as process:
        kill_at(process, upstream, "judge", 3)
    turn = json.loads(moa.run("history", "show", "--json").text)["turns"][-1]
    assert turn["reply"]
    charged = turn["ledger"]
    assert sorted(charge["model"] for charge in charged) == sorted(ledger)
    assert charged[-1]["model"] == "lab:judge"
    assert turn["usage"]["calls"] == len(ledger)
    assert turn["usage"]["estimated_calls"] == 1
    assert sum(row["calls"] for row in stats(moa)) == len(upstream.chats()) - (before == 500)


def test_each_call_of_a_killed_turn_is_counted(moa: Moa, upstream: Upstream) -> None:
    upstream.always("a", _UNENDED)
    upstream.always("b", Reply(delay=60))
    with moa.start("ask", "hi") as process:
        kill_at(process, upstream, "a", 3)
    rows = {row["model"]: row for row in stats(moa)}
    assert rows.keys() == {"lab:a", "lab:b"}
    assert all(row["calls"] == row["estimated_calls"] == row["turns"] == 1 for row in rows.values())
    # As long as it may become: nobody knows how far it came.
    assert all(row["completion_tokens"] == _LONGEST for row in rows.values())
    (row,) = json.loads(moa.run("history", "list", "--json").text)
    assert row["usage"]["calls"] == 2
    assert row["usage"]["cost"] == pytest.approx(spent(moa)) != 0
    (turn,) = json.loads(moa.run("history", "show", "--json").text)["turns"]
    assert (turn["status"], len(turn["ledger"])) == ("interrupted", 2)
    moa.run("history", "export", "--all", "-o", "all.json")
    (conversation,) = json.loads((moa.folder / "all.json").read_text())["conversations"]
    assert conversation["turns"][0]["usage"]["estimated_calls"] == 2


def test_a_price_that_comes_while_the_answer_does_is_written_down(
    moa: Moa, upstream: Upstream
) -> None:
    shutil.rmtree(moa.state.parent / "cache" / "prices")
    upstream.always("a", Reply(chunks=["x "] * 90, pause=0.02, stall_after=80))
    with moa.start("ask", "-a", "lab:a", "-r", "0", "hi") as process:
        upstream.wait_for(lambda: any("priced" in entry for entry in journal(moa)))
        kill_at(process, upstream, "a", 80)
    (row,) = stats(moa)
    assert row["cost"] == pytest.approx((row["prompt_tokens"] + 2 * _LONGEST) / 1e6)


def test_a_call_that_ended_before_the_kill_counts_as_it_was_told(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("a", Reply(text="short", usage=(7, 3)))
    upstream.always("b", Reply(delay=60))
    with moa.start("ask", "hi") as process:
        upstream.wait_for(lambda: any("end" in entry for entry in journal(moa)))
        process.kill()
        process.wait()
    rows = {row["model"]: row for row in stats(moa)}
    assert (rows["lab:a"]["prompt_tokens"], rows["lab:a"]["completion_tokens"]) == (7, 3)
    assert (rows["lab:a"]["estimated_calls"], rows["lab:b"]["estimated_calls"]) == (0, 1)


def test_an_answer_that_outgrows_its_estimate_is_counted_as_far_as_it_came(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("open", "a")
    upstream.always("a", Reply(chunks=["x "] * 3000, stall_after=2500))
    with moa.start("ask", "-p", "open", "hi") as process:
        upstream.wait_for(lambda: any(entry.get("completion", 0) >= 2500 for entry in journal(moa)))
        process.kill()
        process.wait()
    (row,) = stats(moa)
    assert 2500 <= row["completion_tokens"] <= 2500 * 1.5


def test_what_a_killed_process_left_is_counted_once(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(delay=60))
    with moa.start("ask", "hi") as process:
        upstream.wait_for(lambda: len(upstream.chats()) == 2)
        process.kill()
        process.wait()
    running = moa.state.parent / "data" / "running"
    shutil.copytree(running, moa.folder / "copy")
    first = stats(moa)
    assert sum(row["calls"] for row in first) == 2
    assert list(running.iterdir()) == []
    # As after a kill between the transaction and the removal of the files.
    shutil.rmtree(running)
    shutil.copytree(moa.folder / "copy", running)
    assert stats(moa) == first
    assert list(running.iterdir()) == []


def test_a_torn_journal_is_read_as_far_as_it_goes(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(delay=60))
    with moa.start("ask", "hi") as process:
        upstream.wait_for(lambda: len(upstream.chats()) == 2)
        process.kill()
        process.wait()
    (journal,) = (moa.state.parent / "data" / "running").glob("*.jsonl")
    lines = journal.read_bytes()
    assert b"hi" not in lines
    bad = b'{"end":[1],"usage":{"cost":NaN,"calls":1}}\n[]\n{"grown":99}\n\xff\n{"begin":3,"da'
    journal.write_bytes(lines + bad)
    rows = stats(moa)
    # The second one is counted as begun; what cannot be right is not.
    assert sum(row["calls"] for row in rows) == 1


def test_files_of_running_processes_are_private_and_gone_at_the_end(
    moa: Moa, upstream: Upstream
) -> None:
    running = moa.state.parent / "data" / "running"
    upstream.always("*", Reply(chunks=["x "] * 9, stall_after=3))
    with moa.start("ask", "hi") as process:
        upstream.wait_for(lambda: len(upstream.chats()) == 2)
        assert running.stat().st_mode & 0o777 == 0o700
        files = list(running.iterdir())
        assert {path.suffix for path in files} == {".lock", ".jsonl"}
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
        # Others leave the files of one that runs alone, and its turn open.
        assert stats(moa) == []
        assert len(list(running.iterdir())) == 2
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert list(running.iterdir()) == []


@contextmanager
def in_namespace(moa: Moa, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command as the only process of a container, so to speak."""
    with subprocess.Popen(
        [*_NAMESPACE, "--kill-child", sys.executable, "-m", "moa_cli", *arguments],
        cwd=moa.folder,
        env=moa.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _needs_namespaces() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here")
    tried = subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"no PID namespace can be made here: {tried.stderr.decode().strip()}")


def kill_loop(moa: Moa, upstream: Upstream, times: int, *, namespaces: bool) -> int:
    """Kill so many turns in mid-answer, or fewer if the budget ends them; how many were asked."""
    upstream.always("*", _UNENDED)
    for number in range(times):
        asked = len(upstream.chats())
        started = in_namespace(moa, "ask", "hi") if namespaces else moa.start("ask", "hi")
        with started as process:
            upstream.wait_for(
                lambda: (
                    process.poll() is not None
                    or any(request.sent for request in upstream.chats()[asked:])  # noqa: B023
                )
            )
            if process.poll() is not None:
                assert process.returncode == 3, process.communicate()
                times = number
                break
            process.kill()
            process.wait()
        upstream.wait_for(lambda: upstream.in_flight == 0)
    upstream.always("*", _ANSWER)
    return times


@pytest.mark.parametrize("namespaces", [False, True], ids=["here", "in a PID namespace"])
def test_a_kill_loop_does_not_escape_the_days_budget(
    moa: Moa, upstream: Upstream, namespaces: bool
) -> None:
    if namespaces:
        _needs_namespaces()
    # Each turn takes a little more than 0.0006, if all of it is used.
    limit = 0.003
    budget(moa, upstream, day=limit)
    turns = kill_loop(moa, upstream, 30, namespaces=namespaces)
    assert 2 <= turns <= 12
    assert bill(billed(upstream)) <= limit
    assert bill(billed(upstream)) <= spent(moa) <= limit
    ran = moa.run("ask", "hi")
    assert ran.code == 3
    assert "spent today" in ran.err


def test_a_reservation_whose_process_left_no_files_holds_nobody_up(
    moa: Moa, upstream: Upstream
) -> None:
    budget(moa, upstream, day=0.0007)
    assert kill_loop(moa, upstream, 1, namespaces=False) == 1
    shutil.rmtree(moa.state.parent / "data" / "running")
    ran = moa.run("ask", "hi")
    assert ran.code == 0, ran.err


def test_two_kills_in_a_container_do_not_jam_the_days_budget(moa: Moa, upstream: Upstream) -> None:
    _needs_namespaces()
    # Room for four turns, of which two are killed early.
    budget(moa, upstream, day=0.0028)
    assert kill_loop(moa, upstream, 2, namespaces=True) == 2
    with in_namespace(moa, "ask", "hi") as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert out.startswith(b"x x")


def _zones_apart() -> tuple[str, str]:
    """Two zones that never have the same day."""
    return "Etc/GMT+12", "Pacific/Kiritimati"


def test_the_next_day_starts_free_and_the_day_is_the_zones(moa: Moa, upstream: Upstream) -> None:
    today, another = _zones_apart()
    budget(moa, upstream, day=0.0007, zone=today)
    assert moa.run("ask", "hi").code == 0
    assert moa.run("ask", "hi").code == 3
    # The clock on the wall is nobody's business.
    assert moa.run("ask", "hi", env={"TZ": another}).code == 3
    assert moa.run("ask", "hi", env={"TZ": today}).code == 3
    assert f"months are those of {today}" in moa.run("history", "stats").err
    budget(moa, upstream, day=0.0007, zone=another)
    assert moa.run("ask", "hi").code == 0


def test_what_a_killed_process_had_begun_belongs_to_its_own_day(
    moa: Moa, upstream: Upstream
) -> None:
    today, another = _zones_apart()
    budget(moa, upstream, day=0.0007, zone=today)
    assert kill_loop(moa, upstream, 1, namespaces=False) == 1
    budget(moa, upstream, day=0.0007, zone=another)
    assert moa.run("ask", "hi").code == 0


@pytest.mark.parametrize("zone", ["Europe/Berlim", "", "../etc/passwd", "America", "utc\0"])
def test_a_zone_that_is_none_is_refused_by_name(moa: Moa, upstream: Upstream, zone: str) -> None:
    budget(moa, upstream, zone=zone)
    ran = moa.run("ask", "hi")
    assert ran.code == 2
    assert "`budget.zone`" in ran.err
    assert "Traceback" not in ran.err
    if zone.startswith("Europe"):
        assert "did you mean `Europe/Berlin`?" in ran.err
    assert upstream.chats() == []


def test_what_others_reserved_is_not_called_spent(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(chunks=["x "] * 9, stall_after=1))
    budget(moa, upstream, day=0.001)
    with moa.start("ask", "hi"):
        upstream.wait_for(lambda: len(upstream.chats()) == 2)
        ran = moa.run("ask", "hi")
    assert ran.code == 3
    assert "budget.day $0.0010 would be exceeded: $0 spent today, $0.00" in ran.err
    assert "reserved by turns that run now, up to $0.00" in ran.err


def prompts(moa: Moa) -> None:
    (moa.folder / "in.txt").write_text("one\ntwo\nthree\n")


def test_a_batch_writes_down_what_it_spends_and_obeys_the_day(moa: Moa, upstream: Upstream) -> None:
    prompts(moa)
    # A prompt may take a little more than 0.0006, and takes 0.00024.
    budget(moa, upstream, day=0.001)
    ran = moa.run("batch", "in.txt", "out.jsonl", "--concurrency", "1")
    assert ran.code == 3
    assert "budget.day" in ran.err
    assert spent(moa) == pytest.approx(bill(billed(upstream)), rel=0.05)
    assert len(billed(upstream)) == sum(row["calls"] for row in stats(moa)) in (3, 6)


def test_a_batch_that_is_killed_counts_what_it_had_begun_for_its_own_cap_too(
    moa: Moa, upstream: Upstream
) -> None:
    prompts(moa)
    upstream.always("*", Reply(chunks=["x "] * 9, stall_after=1))
    arguments = ["batch", "in.txt", "out.jsonl", "--concurrency", "2", "--max-cost", "0.003"]
    kills = 0
    while kills < 20:
        asked = len(upstream.chats())
        with moa.start(*arguments) as process:
            upstream.wait_for(
                lambda: process.poll() is not None or len(upstream.chats()) > asked  # noqa: B023
            )
            if process.poll() is not None:
                break
            process.kill()
            process.wait()
        kills += 1
        upstream.wait_for(lambda: upstream.in_flight == 0)
    assert process.returncode == 3, process.communicate()
    assert 2 < kills < 20
    assert bill(billed(upstream)) <= 0.003
    assert sum(row["calls"] for row in stats(moa)) >= len(billed(upstream))
    assert spent(moa) <= 0.0031


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["ask", "library", "serve"])
def test_many_kills_at_random_moments_lose_no_call(moa: Moa, upstream: Upstream, kind: str) -> None:
    chance = random.Random(17)
    upstream.always("*", Reply(chunks=["x "] * 20, pause=0.01))
    kills = {"ask": 120, "library": 60, "serve": 20}[kind]
    for number in range(kills):
        asked = len(upstream.chats())
        with _started(moa, kind) as process:
            # As a rule not before there is something to lose.
            if number % 5:
                upstream.wait_for(lambda: len(upstream.chats()) > asked)  # noqa: B023
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
            process.wait()
        upstream.wait_for(lambda: upstream.in_flight == 0)
    rows = stats(moa)
    assert sum(row["calls"] for row in rows) >= len(billed(upstream)) > kills
    assert spent(moa) >= bill(billed(upstream))


_LIBRARY = "import moa_cli; [moa_cli.ask('hi') for _ in range(9)]"


@contextmanager
def _started(moa: Moa, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    if kind == "ask":
        with moa.start("ask", "hi") as process:
            yield process
    elif kind == "library":
        with subprocess.Popen(
            [sys.executable, "-c", _LIBRARY], cwd=moa.folder, env=moa.environment
        ) as process:
            yield process
    else:
        with serving(moa) as server:

            def ask() -> None:
                with httpx.Client(trust_env=False, timeout=30) as client:
                    body = {"model": "moa", "messages": [{"role": "user", "content": "hi"}]}
                    try:
                        while True:
                            client.post(f"{server.url}/chat/completions", json=body)
                    except httpx.HTTPError:
                        return

            askers = [threading.Thread(target=ask) for _ in range(4)]
            for asker in askers:
                asker.start()
            yield server.process
            for asker in askers:
                asker.join()
