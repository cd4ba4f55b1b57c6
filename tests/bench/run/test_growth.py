"""A run grows by items, arms and proposers: it pays only what is new, and equals a fresh one."""

from __future__ import annotations

import json

import pytest

from tests.support.bench.folders import write_judge
from tests.support.bench.own_runs import (
    ANSWER,
    answered_twice,
    call_lines,
    item_lines,
    write_prompts,
)
from tests.support.bench.tables import jsonl_rows
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

FILES = ("run.json", "items.jsonl")


def grown(moa: Moa, upstream: Upstream, before: list[str], after: list[str]) -> tuple[int, int]:
    """A run is begun by one command, and goes on by another in the same folder; it then equals one
    that was begun by the latter. The calls of both starts in the folder, and of the fresh one."""
    ran = moa.run("bench", "run", *before, "-y", "-o", "run")
    assert ran.code == 0, ran.err
    ran = moa.run("bench", "run", *after, "-y", "-o", "run")
    assert ran.code == 0, ran.err
    paid = len(upstream.chats())
    assert moa.run("bench", "run", *after, "-y", "-o", "fresh").code == 0
    for name in FILES:
        assert (moa.folder / "run" / name).read_bytes() == (
            moa.folder / "fresh" / name
        ).read_bytes()
    return paid, len(upstream.chats()) - paid


def test_a_run_of_100_grows_to_200_items_and_by_an_arm(moa: Moa, upstream: Upstream) -> None:
    prompts = write_prompts(moa, 200)
    moa.profile("two", "a", "b")
    start = [prompts, "-p", "two"]
    paid, fresh = grown(
        moa, upstream, [*start, "-n", "100"], [*start, "--arms", "mixture,self,single"]
    )
    # Proposers and aggregator; a second sample and what is made of both; the aggregator alone.
    assert paid == fresh == 200 * (3 + 2 + 1)


def test_a_run_grows_by_proposers_and_samples(moa: Moa, upstream: Upstream) -> None:
    prompts = write_prompts(moa, 6)
    moa.profile("two", "a", "b")
    moa.profile("four", "new", "a", {"model": "lab:b", "samples": 2})
    arms = ["--arms", "mixture,single"]
    paid, fresh = grown(
        moa, upstream, [prompts, "-p", "two", *arms], [prompts, "-p", "four", *arms]
    )
    # What the aggregator made of two proposals is paid for, and no longer a result.
    assert paid == fresh + 6
    assert {line["arm"] for line in item_lines(moa.folder / "run")} == {
        "mixture",
        *(f"single:lab:{model}" for model in ("new", "a", "b", "agg")),
    }


@pytest.mark.parametrize("end", ["\n", ""], ids=["with a line end", "without one"])
def test_lines_are_added_to_the_user_s_file(moa: Moa, upstream: Upstream, end: str) -> None:
    name = write_prompts(moa, 5)
    file = moa.folder / name
    whole = file.read_bytes()
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]).rstrip() + end.encode())
    start = ["bench", "run", name, "-y"]
    first = moa.run(*start)
    assert first.code == 0, first.err
    file.write_bytes(whole)
    # Before it goes on, the run is what it was.
    assert "3" in moa.run("bench", "report", "runs/mine-lab").text
    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    assert "the run grows from 3 to 5 items" in ran.err
    assert len(upstream.chats()) == 20
    assert moa.run(*start, "-o", "fresh").code == 0
    for each in FILES:
        written = (moa.folder / "runs" / "mine-lab" / each).read_bytes()
        assert written == (moa.folder / "fresh" / each).read_bytes()


@pytest.mark.parametrize("ends", [(b"\n", b"\r\n"), (b"\r\n", b"\n")], ids=["to CRLF", "to LF"])
def test_a_file_with_other_line_ends_is_the_same(
    moa: Moa, upstream: Upstream, ends: tuple[bytes, bytes]
) -> None:
    name = write_prompts(moa, 4)
    file = moa.folder / name
    before, after = (file.read_bytes().replace(b"\n", end) for end in ends)
    file.write_bytes(b"".join(before.splitlines(keepends=True)[:3]))
    start = ["bench", "run", name, "-y"]
    assert moa.run(*start).code == 0
    file.write_bytes(b"".join(after.splitlines(keepends=True)[:3]))
    ran = moa.run(*start)
    assert (ran.code, len(upstream.chats())) == (0, 12), ran.err
    assert "3" in moa.run("bench", "report", "runs/mine-lab").text
    file.write_bytes(after)
    assert moa.run(*start).code == 0
    assert len(upstream.chats()) == 16
    file.write_bytes(after.replace(b"a", b"b", 1))
    assert "is a run with other settings" in moa.run(*start).err


def test_growth_is_told_and_nothing_changes_before_it_is_wanted(
    moa: Moa, upstream: Upstream
) -> None:
    start = ["bench", "run", write_prompts(moa, 4)]
    assert moa.run(*start, "-y", "-n", "2").code == 0
    run = moa.folder / "runs" / "mine-lab"
    before = [(run / name).read_bytes() for name in FILES]
    moa.profile("lab", "a", "b", "c", "d")
    with moa.terminal(*start, "--arms", "mixture,single", columns=200) as terminal:
        terminal.wait_for("Go on? [y/N]")
        terminal.send("n\r")
        assert terminal.wait() == 1
        told = "\n".join(terminal.shown())
    assert "the run grows from 2 to 4 items" in told
    assert "the run grows by single:lab:a" in told
    assert "the profile has other models" in told
    assert [(run / name).read_bytes() for name in FILES] == before
    assert len(upstream.chats()) == 8


def test_a_growth_that_is_killed_goes_on(moa: Moa, upstream: Upstream) -> None:
    prompts = write_prompts(moa, 30)
    moa.profile("two", "a", "b")
    moa.profile("three", "a", "b", "c")
    start = ["bench", "run", prompts, "-y", "-o", "run", "--concurrency", "4"]
    assert moa.run(*start, "-p", "two", "-n", "20", "--sample", "first").code == 0
    wider = [*start, "-p", "three"]
    upstream.enqueue("*", *[ANSWER] * 25)
    upstream.always("*", Reply(stall_after=0))
    with moa.start(*wider) as process:
        upstream.wait_for(lambda: len(call_lines(moa.folder / "run")) == 60 + 25)
        process.kill()
    upstream.always("*", ANSWER)
    assert moa.run(*wider).code == 0
    assert answered_twice(upstream) == []
    assert moa.run(*wider, "-o", "fresh").code == 0
    for name in FILES:
        assert (moa.folder / "run" / name).read_bytes() == (
            moa.folder / "fresh" / name
        ).read_bytes()


def test_a_judge_judges_again_what_was_answered_again(moa: Moa, upstream: Upstream) -> None:
    prompts = write_prompts(moa, 2)
    start = ["bench", "run", prompts, "-y", "-o", "run", "--arms", "mixture,single"]
    assert moa.run(*start).code == 0
    run = moa.folder / "run"
    write_judge(run, [("mixture", "1", 7.0), ("single:lab:a", "1", 6.0)])
    moa.profile("lab", "a", "b", "c", "d")
    assert moa.run(*start).code == 0
    [verdict] = jsonl_rows(run / "judges" / "lab-judge" / "judgements.jsonl")
    assert verdict["arm"] == "single:lab:a"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["-t", "0.3"], "`profile.temperature` was unset, is 0.3"),
        (["-n", "1"], "`limit` was unset, is 1"),
        (["--arms", "self"], "`arms[1]` was "),
        (["--rounds", "2"], "`profile.rounds` was "),
        (["-p", "fewer"], "`profile.proposers` was "),
        (["-p", "other"], "`profile.proposers[1].model` was "),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_what_would_lose_results_is_refused(
    moa: Moa, upstream: Upstream, changed: list[str], told: str
) -> None:
    moa.profile("fewer", "a", "b")
    moa.profile("other", "z", "b", "c")
    start = ["bench", "run", write_prompts(moa, 2), "-y", "-o", "run"]
    moa.run(*start)
    asked = len(upstream.chats())
    ran = moa.run(*start, *changed)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, b"", 1)
    assert f"run: is a run with other settings: {told}" in ran.err
    assert len(upstream.chats()) == asked


def test_settings_of_a_run_that_nothing_came_of_may_be_others(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(status=404, error={"error": {"message": "no such model"}}))
    start = ["bench", "run", write_prompts(moa, 2), "-y"]
    assert moa.run(*start).code == 1
    upstream.always("*", Reply())
    ran = moa.run(*start, "-t", "0.3")
    assert ran.code == 0, ran.err
    settings = json.loads((moa.folder / "runs" / "mine-lab" / "run.json").read_bytes())
    assert settings["profile"]["temperature"] == 0.3
