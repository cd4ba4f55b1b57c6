"""A run that was stopped goes on: no answered call is made again, and nothing shows of it."""

from __future__ import annotations

import json
import signal
import stat
from pathlib import Path

import pytest

from moa_cli.bench.run.settings import JudgeSettings, differences
from tests.support.bench.own_runs import (
    ANSWER,
    answered_twice,
    call_lines,
    item_lines,
    write_prompts,
)
from tests.support.command import PATIENCE, Moa
from tests.support.upstream import Reply, Upstream

SILENT = Reply(stall_after=0)


def stopped(
    moa: Moa, upstream: Upstream, arguments: list[str], run: Path, calls: int, how: signal.Signals
) -> tuple[int, str]:
    """Start a run, stop it once so many calls were answered and are in the journal; its code
    and standard error."""
    upstream.enqueue("*", *[ANSWER] * calls)
    upstream.always("*", SILENT)
    with moa.start(*arguments) as process:
        upstream.wait_for(lambda: len(call_lines(run)) == calls)
        process.send_signal(how)
        _, err = process.communicate(timeout=PATIENCE)
    upstream.always("*", ANSWER)
    return process.returncode, err.decode()


def test_a_run_killed_at_40_percent_goes_on_as_if_nothing_had_been(
    moa: Moa, upstream: Upstream
) -> None:
    moa.profile("two", "a", "b")
    prompts = write_prompts(moa, 200)
    start = ["bench", "run", prompts, "-p", "two", "-y", "--concurrency", "8"]
    run, whole = moa.folder / "runs" / "mine-two", moa.folder / "whole"

    code, _ = stopped(moa, upstream, start, run, 240, signal.SIGKILL)
    assert code == -signal.SIGKILL
    # Items end one after another, so that little is open.
    assert len(item_lines(run)) >= 60

    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    assert answered_twice(upstream) == []
    assert len([request for request in upstream.chats() if request.finished]) == 600

    assert moa.run(*start, "-o", "whole").code == 0
    for name in ("run.json", "items.jsonl"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert [line["item"] for line in item_lines(run)] == [f"{n}" for n in range(1, 201)]


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(moa: Moa, upstream: Upstream) -> None:
    prompts = write_prompts(moa, 6)
    start = ["bench", "run", prompts, "-y", "--concurrency", "3"]
    run = moa.folder / "runs" / "mine-lab"
    code, err = stopped(moa, upstream, start, run, 10, signal.SIGINT)
    assert code == 130
    assert err.splitlines()[-1].startswith("moa: interrupted at ")
    assert err.splitlines()[-1].endswith("run the same command again to resume")
    assert "Traceback" not in err
    # Calls that were cut off may be billed: they stand there, too.
    cut = [line for line in call_lines(run) if line["error"]]
    assert {row["error"] for row in cut} == {"cut off"}
    assert all(row["usage"]["estimated_calls"] for row in cut)

    assert moa.run(*start).code == 0
    assert answered_twice(upstream) == []
    assert len(item_lines(run)) == 6


def test_a_finished_run_is_only_told_of(moa: Moa, upstream: Upstream) -> None:
    start = ["bench", "run", write_prompts(moa, 2), "-y"]
    first = moa.run(*start)
    asked = len(upstream.chats())
    again = moa.run(*start)
    assert (again.code, again.text) == (0, first.text)
    assert len(upstream.chats()) == asked == 8


def test_torn_last_lines_are_dropped(moa: Moa, upstream: Upstream) -> None:
    start = ["bench", "run", write_prompts(moa, 3), "-y", "--concurrency", "1"]
    assert moa.run(*start).code == 0
    run = moa.folder / "runs" / "mine-lab"
    whole = {name: (run / name).read_bytes() for name in ("run.json", "items.jsonl")}
    for name in ("calls.jsonl", "items.jsonl"):
        (run / name).write_bytes((run / name).read_bytes()[:-20])
    assert len(call_lines(run)) == 11
    assert moa.run(*start).code == 0
    assert len(upstream.chats()) == 13
    assert {name: (run / name).read_bytes() for name in whole} == whole
    assert len(call_lines(run)) == 12


def test_a_damaged_line_is_named(moa: Moa) -> None:
    start = ["bench", "run", write_prompts(moa, 2), "-y"]
    moa.run(*start)
    calls = moa.folder / "runs" / "mine-lab" / "calls.jsonl"
    calls.write_bytes(b"{}\n" + calls.read_bytes())
    ran = moa.run(*start)
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err.startswith("moa: runs/mine-lab/calls.jsonl:1: is damaged: ")
    assert ran.err.count("\n") == 1


def test_samples_keep_their_places_also_after_retries(moa: Moa, upstream: Upstream) -> None:
    moa.configure(retries=2, providers=moa.settings()["providers"])
    moa.profile("three", {"model": "lab:a", "samples": 3}, rounds=2)
    said = iter(range(10_000))
    upstream.always("a", Reply(text=lambda _: f"answer number {next(said)}"))
    upstream.enqueue("a", Reply(status=503, error={"error": {"message": "busy"}}))
    start = ["bench", "run", write_prompts(moa, 4), "-p", "three", "-y"]
    assert moa.run(*start).code == 0
    asked = len(upstream.chats())
    items = moa.folder / "runs" / "mine-three" / "items.jsonl"
    before = items.read_bytes()
    items.unlink()
    assert moa.run(*start).code == 0
    assert items.read_bytes() == before
    assert len(upstream.chats()) == asked
    [first, *_] = item_lines(items.parent)
    texts = [row["text"] for row in first["turns"][0]["proposals"][0]]
    assert len(set(texts)) == 3


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (["-t", "0.3"], "`profile.temperature` was unset, is 0.3"),
        (["-n", "1"], "`limit` was unset, is 1"),
        (["--arms", "single"], "`arms` was "),
        (["-a", "lab:other"], '`profile.aggregator.model` was "lab:agg", is "lab:other"'),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_other_settings_are_refused_by_naming_what_differs(
    moa: Moa, upstream: Upstream, changed: list[str], told: str
) -> None:
    start = ["bench", "run", write_prompts(moa, 2), "-y"]
    moa.run(*start)
    asked = len(upstream.chats())
    ran = moa.run(*start, *changed)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, b"", 1)
    assert f"runs/mine-lab: is a run with other settings: {told}" in ran.err
    assert len(upstream.chats()) == asked


def test_long_settings_that_begin_alike_are_told_by_where_they_differ() -> None:
    long = "Rate how well the reply answers what was asked, and take a point for each "
    old, new = (
        JudgeSettings(model="lab:judge", kind="rubric", rubric=long + error)
        for error in ("invented name.", "repetition.")
    )
    assert list(differences(old, new)) == [
        '`rubric` was …ke a point for each invented name.", is …ke a point for each repetition."'
    ]


def test_another_description_of_the_profile_is_no_other_run(moa: Moa, upstream: Upstream) -> None:
    """Those of a version that kept a profile's description for typed models are gone on with."""
    start = ["bench", "run", write_prompts(moa, 2), "-y"]
    moa.profile("lab", "a", description="as it was")
    moa.run(*start)
    asked = len(upstream.chats())
    moa.profile("lab", "a", description="as it is now")
    assert moa.run(*start).code == 0
    moa.profile("lab", "a")
    assert moa.run(*start).code == 0
    assert len(upstream.chats()) == asked


def test_changed_data_is_refused(moa: Moa) -> None:
    name = write_prompts(moa, 2)
    moa.run("bench", "run", name, "-y")
    file = moa.folder / name
    file.write_bytes(file.read_bytes().replace(b"thing 1", b"thing one"))
    ran = moa.run("bench", "run", name, "-y")
    assert ran.code == 1
    assert "`dataset.sha256` was " in ran.err


def test_one_process_at_a_time(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", SILENT)
    start = ["bench", "run", write_prompts(moa, 2), "-y"]
    with moa.start(*start):
        upstream.wait_for(lambda: upstream.in_flight > 0)
        ran = moa.run(*start)
    assert (ran.code, ran.out) == (1, b"")
    assert ran.err == "moa: runs/mine-lab: another process is running it\n"


def test_nobody_else_can_read_a_run(moa: Moa) -> None:
    moa.run("bench", "run", write_prompts(moa, 1), "-y")
    run = moa.folder / "runs" / "mine-lab"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in run.iterdir()}
    assert modes == dict.fromkeys(("run.json", "calls.jsonl", "items.jsonl"), 0o600)
    assert stat.S_IMODE(run.stat().st_mode) == 0o700


def test_run_json_holds_what_results_depend_on(moa: Moa) -> None:
    name = write_prompts(moa, 1)
    moa.run("bench", "run", name, "-y")
    settings = json.loads((moa.folder / "runs" / "mine-lab" / "run.json").read_bytes())
    assert settings["dataset"]["file"] == name
    assert settings["arms"] == ["mixture"]
    assert settings["profile"]["aggregator"] == {"model": "lab:agg"}
    assert settings["prompt"].startswith("You have been provided with a set of responses")
    assert settings["facts"]["lab:a"] == {"context_length": None, "price": None}
