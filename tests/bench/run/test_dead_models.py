"""A model that does not answer stops a run after a few items, and its repair goes on."""

from __future__ import annotations

import pytest

from tests.support.bench.own_runs import ANSWER, answered_twice, item_lines, write_prompts
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

UNKNOWN = Reply(status=404, error={"error": {"message": "there is no such model"}})
DOWN = Reply(status=503, error={"error": {"message": "out of order"}})
UNPAID = Reply(status=402, error={"error": {"message": "no credit left"}})


def items_asked(upstream: Upstream) -> int:
    """How many items any model was asked about."""
    return len({str(request.messages[-1]["content"]) for request in upstream.chats("a")})


@pytest.mark.parametrize("dead", ["b", "agg"])
@pytest.mark.parametrize("reply", [UNKNOWN, DOWN], ids=["unknown", "down"])
def test_a_dead_model_stops_the_run_within_ten_items(
    moa: Moa, upstream: Upstream, dead: str, reply: Reply
) -> None:
    upstream.always(dead, reply)
    start = ["bench", "run", write_prompts(moa, 100), "-y", "--arms", "mixture,single"]
    ran = moa.run(*start)
    assert ran.code == 1
    assert f"stopped: lab:{dead} failed for " in ran.err
    assert "fix this, then run the same command again to resume" in ran.err
    assert items_asked(upstream) <= 10
    assert "Traceback" not in ran.err

    upstream.always(dead, ANSWER)
    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    assert answered_twice(upstream, lambda request: request.model != dead) == []
    assert moa.run(*start, "-o", "fresh").code == 0
    for name in ("run.json", "items.jsonl"):
        written = (moa.folder / "runs" / "mine-lab" / name).read_bytes()
        assert written == (moa.folder / "fresh" / name).read_bytes()


@pytest.mark.parametrize("place", ["proposer", "aggregator"])
def test_a_typo_is_put_right_in_the_same_folder(moa: Moa, upstream: Upstream, place: str) -> None:
    upstream.always("tpyo", UNKNOWN)
    wrong, right = (["b", "tpyo"], ["b", "typo"]) if place == "proposer" else (["b"], ["b"])
    ends = ("agg", "agg") if place == "proposer" else ("tpyo", "typo")
    start = ["bench", "run", write_prompts(moa, 30), "-y", "--arms", "single,mixture", "-o", "run"]
    moa.profile("lab", "a", *wrong, aggregator=ends[0])
    assert moa.run(*start).code == 1
    assert any(line["error"] is None for line in item_lines(moa.folder / "run"))

    moa.profile("lab", "a", *right, aggregator=ends[1])
    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    # Its refusals are not shared: the arms may each have had one of an item.
    assert answered_twice(upstream, lambda request: request.model != "tpyo") == []
    assert moa.run(*start, "-o", "fresh").code == 0
    for name in ("run.json", "items.jsonl"):
        assert (moa.folder / "run" / name).read_bytes() == (
            moa.folder / "fresh" / name
        ).read_bytes()


def test_a_dead_proposer_may_be_left_out(moa: Moa, upstream: Upstream) -> None:
    upstream.always("c", UNKNOWN)
    start = ["bench", "run", write_prompts(moa, 20), "-y"]
    assert moa.run(*start).code == 1
    moa.profile("lab", "a", "b")
    assert moa.run(*start).code == 0
    assert answered_twice(upstream) == []
    assert len(upstream.chats("a")) == 20


def test_credit_that_ends_on_the_way_stops_the_run(moa: Moa, upstream: Upstream) -> None:
    upstream.enqueue("b", *[ANSWER] * 20)
    upstream.always("b", UNPAID)
    start = ["bench", "run", write_prompts(moa, 100), "-y", "--concurrency", "4"]
    ran = moa.run(*start)
    assert ran.code == 1
    assert "stopped: lab:b failed for 3 items in a row" in ran.err
    assert 20 <= items_asked(upstream) <= 30
    upstream.always("b", ANSWER)
    assert moa.run(*start).code == 0
    assert answered_twice(upstream, lambda request: request.model != "b") == []


def test_a_refusal_of_single_items_stops_nothing(moa: Moa, upstream: Upstream) -> None:
    filtered = Reply(status=400, error={"error": {"message": "filtered", "code": "content_filter"}})
    upstream.always("b", filtered)
    ran = moa.run("bench", "run", write_prompts(moa, 12), "-y")
    assert ran.code == 1
    assert "stopped" not in ran.err
    assert items_asked(upstream) == 12


def test_it_goes_on_regardless_where_that_is_asked_for(moa: Moa, upstream: Upstream) -> None:
    upstream.always("b", UNKNOWN)
    start = ["bench", "run", write_prompts(moa, 12), "-y", "--stop-after"]
    ran = moa.run(*start, "5")
    assert "stopped: lab:b failed for 5 items in a row" in ran.err
    ran = moa.run(*start, "0")
    assert ran.code == 1
    assert "stopped" not in ran.err
    assert items_asked(upstream) == 12
