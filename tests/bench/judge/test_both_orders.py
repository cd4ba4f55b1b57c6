"""A judge of pairs is asked in both orders: its verdicts are combined, and what it makes of the
position is told."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from moa_cli.bench.report.scores import ArmScores, scores_of
from tests.support.bench.judge import JUDGE, TEMPLATE
from tests.support.bench.own_runs import answered_twice, call_lines, write_prompts
from tests.support.bench.tables import jsonl_rows
from tests.support.command import Moa, Ran
from tests.support.upstream import Reply, Request, Upstream

PROMPTS = 8
START = ("bench", "judge", "run", "--judge", "lab:judge", "-y", "--against", "single:lab:b")
BOTH = (*START, "--both-orders")


def preferring(probability_of_first: float) -> dict[str, Any]:
    """Log-probabilities by which the output shown first is better, with that probability."""
    told = [
        {"token": token, "logprob": math.log(share)}
        for token, share in (("m", probability_of_first), ("M", 1 - probability_of_first))
    ]
    return {"content": [{"token": "m", "logprob": -0.2, "top_logprobs": told}]}


def is_first(request: Request) -> bool:
    """Whether the judge is shown the output of the model a (or agg) first, not b's."""
    _, first, _ = request.messages[-1]["content"].split(" | ")
    return not str(first).startswith("b says")


@pytest.fixture
def run(moa: Moa, upstream: Upstream) -> Moa:
    folder = moa.folder / "data" / "alpaca_eval"
    folder.mkdir(parents=True)
    (folder / "judge_prompt_alpaca_eval_clf.txt").write_text(TEMPLATE, "utf-8")
    moa.environment["MOA_BENCH_DATA"] = str(folder.parent)
    moa.profile("two", "a", aggregator="b")
    name = write_prompts(moa, PROMPTS)
    ran = moa.run("bench", "run", name, "-p", "two", "-y", "--arms", "single", "-o", "run")
    assert ran.code == 0, ran.err
    upstream.requests.clear()
    return moa


def verdicts(moa: Moa) -> list[dict[str, Any]]:
    return jsonl_rows(moa.folder / "run/judges/lab-judge/judgements.jsonl")


def arm(moa: Moa) -> ArmScores:
    found = scores_of(moa.folder / "run", "lab:judge", moa.folder / "data")
    return next(told for told in found.arms if told.arm == "single:lab:a")


def value(moa: Moa, name: str) -> float:
    metric = arm(moa).metric(name)
    assert metric is not None
    assert metric.mean.value is not None
    return metric.mean.value


def position(ran: Ran) -> str:
    [note] = [line for line in ran.text.splitlines() if line.startswith("position")]
    return note


def test_each_pair_is_asked_in_both_orders(run: Moa, upstream: Upstream) -> None:
    upstream.always("judge", JUDGE)
    ran = run.run(*BOTH)
    assert ran.code == 0, ran.err
    assert "pairs in both orders, by log-probabilities, against single:lab:b; 2 calls" in ran.err
    assert f"{2 * PROMPTS} calls; tokens in" in ran.err
    assert len(upstream.chats("judge")) == 2 * PROMPTS
    assert answered_twice(upstream) == []
    firsts = [is_first(request) for request in upstream.chats("judge")]
    assert sum(firsts) == PROMPTS
    told = verdicts(run)
    assert [line["turn"] for line in told] == [0, 1] * PROMPTS
    assert {line["switched"] for line in told[:2]} == {True, False}
    # A judge that always prefers what it sees first (at 80 %) tells nothing of the outputs.
    assert value(run, "win rate") == pytest.approx(50)
    assert value(run, "discrete win rate") == pytest.approx(50)
    assert value(run, "both orders agree") == 0
    assert value(run, "follows the position") == 100
    note = position(ran)
    assert note.startswith(
        "position: at 8 of 8 pairs the judge prefers the same position in both orders (100.0 %,"
    )
    assert "the first 8 times, the second 0" in note
    assert note.endswith("shown first, an output gets +60.0 ± 0.0 points")


def test_what_both_orders_say_is_their_mean(run: Moa, upstream: Upstream) -> None:
    """At half of the items the judge is sure of a, at the others it follows the first position."""

    def says(request: Request) -> dict[str, Any]:
        thing = int(re.search(r"of thing (\d+)", request.messages[-1]["content"])[1])  # type: ignore[index]
        if thing % 2:
            return preferring(0.9 if is_first(request) else 0.1)
        return preferring(0.7)

    upstream.always("judge", Reply(text="m", logprobs=says))
    ran = run.run(*BOTH)
    assert ran.code == 0, ran.err
    assert value(run, "win rate") == pytest.approx((90 + 50) / 2)
    assert value(run, "discrete win rate") == pytest.approx((100 + 50) / 2)
    assert value(run, "both orders agree") == 50
    assert value(run, "follows the position") == 50
    # Wilson's interval of 4 of 8.
    assert "(50.0 %, 95 % 21.5 to 78.5), the first 4 times, the second 0" in position(ran)
    assert "shown first, an output gets +20.0 ± " in position(ran)


def test_a_discrete_judge_has_wins_losses_and_ties(run: Moa, upstream: Upstream) -> None:
    def says(request: Request) -> str:
        thing = int(re.search(r"of thing (\d+)", request.messages[-1]["content"])[1])  # type: ignore[index]
        if thing % 2:
            return "m" if is_first(request) else "M"
        return "M"

    upstream.always("judge", Reply(text=says))
    ran = run.run(*BOTH)
    assert ran.code == 0, ran.err
    assert "pairs in both orders" in ran.err
    assert value(run, "win rate") == 75
    note = position(ran)
    assert "the first 0 times, the second 4" in note
    report = run.run("bench", "report", "run")
    assert "follows the position" in report.text
    assert note in report.text.replace("\n", " ").replace("  ", " ")


def test_it_goes_on_where_it_was_killed_and_as_it_was_begun(run: Moa, upstream: Upstream) -> None:
    upstream.enqueue("judge", *[JUDGE] * 5)
    upstream.always("judge", Reply(stall_after=0))
    folder = run.folder / "run/judges/lab-judge"
    with run.start(*BOTH) as process:
        upstream.wait_for(lambda: len(call_lines(folder)) == 5)
        process.kill()
    upstream.always("judge", JUDGE)
    # Without the option: it was begun so.
    ran = run.run(*START)
    assert ran.code == 0, ran.err
    finished = [request for request in upstream.chats("judge") if request.finished]
    assert len(finished) == 2 * PROMPTS
    assert answered_twice(upstream) == []
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run.run(*BOTH).code == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_one_order_grows_to_both_and_pays_only_the_other(run: Moa, upstream: Upstream) -> None:
    upstream.always("judge", JUDGE)
    assert run.run(*START).code == 0
    one = verdicts(run)
    assert len(one) == len(upstream.chats("judge")) == PROMPTS
    ran = run.run(*BOTH)
    assert ran.code == 0, ran.err
    assert f"moa: {PROMPTS} calls; tokens in" in ran.err
    assert len(upstream.chats("judge")) == 2 * PROMPTS
    assert answered_twice(upstream) == []
    assert verdicts(run)[::2] == one
    [item, *_] = map(json.loads, run.run("bench", "items", "run").text.splitlines())
    assert [said["turn"] for said in item["verdicts"]] == [1, 1]
    assert {said["shown_first"] for said in item["verdicts"]} == {True, False}
    settings = json.loads((run.folder / "run/judges/lab-judge/judge.json").read_text("utf-8"))
    assert settings["kind"] == "pairwise_both_orders"


def test_all_judges_of_a_panel_are_asked_alike(run: Moa, upstream: Upstream) -> None:
    upstream.always("judge", JUDGE)
    upstream.always("other", JUDGE)
    assert run.run(*BOTH).code == 0
    ran = run.run(*START, "--judge", "lab:other")
    assert ran.code == 0, ran.err
    assert len(upstream.chats("other")) == 2 * PROMPTS
    # Both judges follow the position wholly: of each answer both orders together say a draw.
    assert f"{PROMPTS} answers judged by all" in ran.text
    told = json.loads(run.run("bench", "agreement", "run", "--json").text)
    assert told["pairs"][0]["units"] == PROMPTS
    assert told["pairs"][0]["same"] == 1


def test_ratings_have_no_order(run: Moa, upstream: Upstream) -> None:
    ran = run.run(
        *("bench", "judge", "run", "--judge", "lab:judge", "-y"), "--rubric", "x", "--both-orders"
    )
    assert ran.code == 2
    assert "--both-orders: mine is not judged in pairs" in ran.err
    assert not upstream.chats()
