"""A run asks each item several times: the epochs are kept apart, shared, grown and resumed."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from typing import Any

from tests.support.bench.own_runs import (
    ANSWER,
    call_lines,
    item_lines,
    write_lines,
    write_prompts,
)
from tests.support.bench.tables import jsonl_rows
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

FILES = ("run.json", "items.jsonl")


def asked(upstream: Upstream) -> Counter[str]:
    """How often each request was sent."""
    return Counter(json.dumps(request.body, sort_keys=True) for request in upstream.chats())


def numbered() -> Reply:
    """A model that never says the same twice."""
    number = count(1)
    return Reply(text=lambda request: f"{request.model} says it for the {next(number)}th time")


def same(moa: Moa, first: str, second: str) -> bool:
    folders = (moa.folder / first, moa.folder / second)
    return all((folders[0] / n).read_bytes() == (folders[1] / n).read_bytes() for n in FILES)


def test_each_item_is_asked_as_often_as_there_are_epochs(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", numbered())
    start = ["bench", "run", write_prompts(moa, 3), "-y", "--arms", "mixture,single"]
    ran = moa.run(*start, "--epochs", "3", "-o", "run")
    assert ran.code == 0, ran.err
    assert "3 items, 3 times each" in ran.err
    # The two arms share the proposals of an epoch: three proposers, two replies.
    assert "45 calls" in ran.err
    lines = item_lines(moa.folder / "run")
    ids = [line["item"] for line in lines if line["arm"] == "mixture"]
    assert ids == [
        *("1", "2", "3"),
        *("1 epoch 2", "2 epoch 2", "3 epoch 2"),
        *("1 epoch 3", "2 epoch 3", "3 epoch 3"),
    ]
    assert json.loads((moa.folder / "run" / "run.json").read_text("utf-8"))["epochs"] == 3
    proposals: dict[str, dict[str, set[Any]]] = {}
    for line in lines:
        if line["arm"] != "single:lab:agg":
            continue
        proposals.setdefault(line["item"].partition(" ")[0], {})[line["item"]] = set(
            line["replies"]
        )
    assert all(len(set.union(*said.values())) == 3 for said in proposals.values())
    firsts = [times for body, times in asked(upstream).items() if '"a"' in body]
    assert firsts == [3, 3, 3]


def test_one_epoch_is_a_run_without_epochs(moa: Moa, upstream: Upstream) -> None:
    start = ["bench", "run", write_prompts(moa, 2), "-y"]
    assert moa.run(*start, "-o", "plain").code == 0
    assert moa.run(*start, "--epochs", "1", "-o", "once").code == 0
    assert same(moa, "plain", "once")
    assert "epochs" not in (moa.folder / "once" / "run.json").read_text("utf-8")


def test_a_run_grows_by_epochs_items_and_arms(moa: Moa, upstream: Upstream) -> None:
    start = ["bench", "run", write_prompts(moa, 6), "-y"]
    ran = moa.run(*start, "-n", "4", "-o", "run")
    assert ran.code == 0, ran.err
    wider = [*start, "--epochs", "3", "--arms", "mixture,single"]
    ran = moa.run(*wider, "-o", "run")
    assert ran.code == 0, ran.err
    assert "the run grows from 4 to 6 items" in ran.err
    assert "the run grows from 1 epoch to 3" in ran.err
    # Three proposers and two replies.
    assert len(upstream.chats()) == 6 * 3 * 5
    assert moa.run(*wider, "-o", "fresh").code == 0
    assert same(moa, "run", "fresh")
    # Without the option it goes on as it was begun.
    again = moa.run(*start, "--arms", "mixture,single", "-o", "run")
    assert (again.code, len(upstream.chats())) == (0, 2 * 6 * 3 * 5)
    assert same(moa, "run", "fresh")


def test_fewer_epochs_than_there_are_lose_results(moa: Moa, upstream: Upstream) -> None:
    start = ["bench", "run", write_prompts(moa, 2), "-y", "-o", "run"]
    assert moa.run(*start, "--epochs", "3").code == 0
    ran = moa.run(*start, "--epochs", "2")
    assert ran.code == 1
    assert "`epochs` was 3, is 2" in ran.err
    assert len(upstream.chats()) == 2 * 3 * 4


def test_a_run_that_is_killed_within_an_epoch_goes_on(moa: Moa, upstream: Upstream) -> None:
    start = ["bench", "run", write_prompts(moa, 4), "-y", "--epochs", "3", "--concurrency", "2"]
    upstream.enqueue("*", *[ANSWER] * 23)
    upstream.always("*", Reply(stall_after=0))
    with moa.start(*start, "-o", "run") as process:
        upstream.wait_for(lambda: len(call_lines(moa.folder / "run")) == 23)
        process.kill()
    upstream.always("*", ANSWER)
    ran = moa.run(*start, "-o", "run")
    assert ran.code == 0, ran.err
    answered = [request for request in upstream.chats() if request.finished]
    assert len(answered) == 4 * 3 * 4
    assert moa.run(*start, "-o", "fresh").code == 0
    assert same(moa, "run", "fresh")


def test_runs_share_the_answers_of_the_same_epoch(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", numbered())
    start = ["bench", "run", write_prompts(moa, 2), "-y", "--cache", "shared"]
    assert moa.run(*start, "-o", "once").code == 0
    assert len(upstream.chats()) == 8
    ran = moa.run(*start, "--epochs", "2", "-o", "twice")
    assert ran.code == 0, ran.err
    # The first epoch is there; the second one is not answered from it.
    assert "8 calls; tokens in" in ran.err
    assert len(upstream.chats()) == 16
    lines = {line["item"]: line["replies"] for line in item_lines(moa.folder / "twice")}
    assert lines["1"] != lines["1 epoch 2"]
    assert moa.run(*start, "--epochs", "2", "-o", "again").code == 0
    assert len(upstream.chats()) == 16
    assert same(moa, "twice", "again")


def test_each_epoch_has_a_seed_of_its_own(moa: Moa, upstream: Upstream) -> None:
    moa.profile("seeded", {"model": "lab:a", "seed": 7, "samples": 2}, "b")
    ran = moa.run(
        *("bench", "run", write_prompts(moa, 1), "-y", "-p", "seeded", "--epochs", "2"), "-o", "run"
    )
    assert ran.code == 0, ran.err
    seeds = sorted(request.body.get("seed") for request in upstream.chats("a"))
    assert seeds == [7, 8, 1007, 1008]
    assert all("seed" not in request.body for request in upstream.chats("b"))
    settings = json.loads((moa.folder / "run" / "run.json").read_text("utf-8"))
    assert settings["seed_step"] == 1000
    assert settings["profile"]["proposers"][0]["seed"] == 7


def test_an_id_that_reads_like_an_epoch_is_refused_only_with_epochs(
    moa: Moa, upstream: Upstream
) -> None:
    rows = [{"id": name, "prompt": f"say {name}"} for name in ("q", "q epoch 2")]
    write_lines(moa.folder / "odd.jsonl", rows)
    start = ["bench", "run", "odd.jsonl", "-y", "-o", "run"]
    ran = moa.run(*start, "--epochs", "2")
    assert ran.code == 2
    assert "the item `q epoch 2` is called as a later epoch of `q` would be" in ran.err
    assert not upstream.chats()
    assert moa.run(*start).code == 0
    made = moa.run("bench", "export", "run", "--to", "jsonl", "-o", "-")
    assert [row["id"] for row in map(json.loads, made.text.splitlines())] == ["q", "q epoch 2"]


def test_an_export_holds_one_epoch_or_tells_them_apart(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", numbered())
    start = ["bench", "run", write_prompts(moa, 2), "-y", "--epochs", "2", "-o", "run"]
    assert moa.run(*start).code == 0
    refused = moa.run("bench", "export", "run", "--to", "alpaca")
    assert refused.code == 2
    assert "--epoch is needed: --to alpaca holds one answer to an item" in refused.err
    missing = moa.run("bench", "export", "run", "--to", "alpaca", "--epoch", "3")
    assert (missing.code, "the run has 2 epochs" in missing.err) == (2, True)
    lines = {line["item"]: line["replies"][0] for line in item_lines(moa.folder / "run")}
    made = moa.run("bench", "export", "run", "--to", "alpaca", "--epoch", "2", "-o", "-")
    assert made.code == 0, made.err
    outputs = [row["output"] for row in json.loads(made.text)]
    assert outputs == [lines["1 epoch 2"], lines["2 epoch 2"]]
    items = moa.run("bench", "items", "run")
    told = [json.loads(line)["item"] for line in items.text.splitlines()]
    assert told == ["1", "1 epoch 2", "2", "2 epoch 2"]
    whole = moa.run("bench", "export", "run", "--to", "jsonl", "-o", "all.jsonl")
    assert whole.code == 0, whole.err
    named = [(row["id"], row["epoch"]) for row in jsonl_rows(moa.folder / "all.jsonl")]
    assert named == [("1", 1), ("2", 1), ("1", 2), ("2", 2)]
