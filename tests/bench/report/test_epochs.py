"""What a report makes of runs that asked each item several times: the answers to one item are one
observation."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from moa_cli.bench.report.differences import differences_in
from moa_cli.bench.report.scores import scores_of
from moa_cli.bench.report.values import read_valued
from tests.support.bench.judge import JUDGE, TEMPLATE
from tests.support.bench.own_runs import answered_twice, item_lines, write_lines, write_prompts
from tests.support.bench.tables import jsonl_rows
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
ITEMS, EPOCHS = 12, 4


def graded(moa: Moa, upstream: Upstream, chances: dict[str, float]) -> dict[str, list[list[float]]]:
    """A run over sums; by model, for each item what each epoch was worth, 0 or 100."""
    drawn = random.Random(5)

    def says(request: Request) -> str:
        right = drawn.random() < chances[request.model]
        return f"The answer is {4 if right else 5}"

    upstream.always("*", Reply(text=says))
    rows = [{"prompt": f"what is {n} + {4 - n}?", "answer": "4"} for n in range(1, ITEMS + 1)]
    write_lines(moa.folder / "sums.jsonl", rows)
    moa.profile("two", "a", aggregator="b")
    ran = moa.run(
        *("bench", "run", "sums.jsonl", "-p", "two", "--arms", "single", "-y", "-o", "run"),
        *("--epochs", str(EPOCHS)),
    )
    assert ran.code == 0, ran.err
    worth: dict[str, list[list[float]]] = {}
    for model in chances:
        lines = [ln for ln in item_lines(moa.folder / "run") if ln["arm"] == f"single:lab:{model}"]
        values = [100.0 * line["replies"][0].endswith("4") for line in lines]
        worth[model] = [values[place::ITEMS] for place in range(ITEMS)]
    return worth


def test_the_epochs_of_an_item_are_one_observation(moa: Moa, upstream: Upstream) -> None:
    worth = graded(moa, upstream, {"a": 0.6, "b": 0.8})
    by_item = {model: [sum(said) / EPOCHS for said in items] for model, items in worth.items()}
    told = scores_of(moa.folder / "run", None)
    assert (told.asked, told.epochs) == (ITEMS, EPOCHS)
    for arm in told.arms:
        model = arm.arm.removeprefix("single:lab:")
        accuracy = arm.metric("accuracy")
        assert accuracy is not None
        assert (accuracy.mean.n, accuracy.asked, accuracy.partial) == (48, 48, False)
        assert accuracy.mean.value == pytest.approx(sum(by_item[model]) / ITEMS)
        assert accuracy.mean.standard_error == pytest.approx(stats.sem(by_item[model]))
        figures = told.by_epoch()[arm.arm]
        epochs = [sum(said[epoch] for said in worth[model]) / ITEMS for epoch in range(EPOCHS)]
        assert [epoch.value for epoch in figures.by_epoch] == pytest.approx(epochs)
        assert figures.between == pytest.approx(stats.sem(epochs))
        assert figures.pooled.standard_error == pytest.approx(stats.sem(by_item[model]))
    found = differences_in(read_valued(moa.folder / "run", None))
    assert found is not None
    [pair] = found.pairs
    test = stats.ttest_rel(by_item["a"], by_item["b"])
    interval = test.confidence_interval(0.95)
    assert pair.found.items == ITEMS
    assert pair.found.z == pytest.approx(test.statistic)
    assert (pair.found.interval.low, pair.found.interval.high) == pytest.approx(tuple(interval))


def test_a_report_tells_each_epoch_and_the_error_between_them(moa: Moa, upstream: Upstream) -> None:
    worth = graded(moa, upstream, {"a": 0.6, "b": 1.0})
    ran = moa.run("bench", "report", "run")
    assert ran.code == 0, ran.err
    lines = ran.text.splitlines()
    start = lines.index("By epoch, right answers, %")
    heads = lines[start + 1].split()
    assert heads[-4:] == ["pooled", "±", "between", "epochs"]
    epochs = [sum(said[epoch] for said in worth["a"]) / ITEMS for epoch in range(EPOCHS)]
    [row] = [line for line in lines[start:] if line.startswith("single:lab:a")][:1]
    assert row.split()[1:5] == [f"{value:.1f}" for value in epochs]
    # Twelve items, not 48: all of them right is 76 to 100 % (Wilson), not 93 to 100 %.
    interval = lines[lines.index("95 % intervals, right answers, %") :]
    [right] = [line for line in interval if line.startswith("single:lab:b")][:1]
    assert right.split()[1:] == ["100.0", "75.8", "100.0", "12"]
    made = json.loads(moa.run("bench", "report", "run", "--format", "json").text)
    told = made["runs"][0]["epochs"]
    assert (told["asked"], told["unit"]) == (EPOCHS, "right answers, %")
    assert [mean["value"] for mean in told["arms"]["single:lab:a"]["by_epoch"]] == epochs
    assert told["arms"]["single:lab:b"]["between"] == 0
    page = moa.run("bench", "report", "run", "--format", "html")
    assert "By epoch, right answers, %" in page.text
    analysed = moa.run("bench", "select", "run")
    assert f"each over the same {ITEMS} items" in analysed.text


def test_one_epoch_has_no_figures_of_epochs(moa: Moa, upstream: Upstream) -> None:
    upstream.always("*", Reply(text="The answer is 4"))
    write_lines(moa.folder / "sums.jsonl", [{"prompt": "2 + 2?", "answer": "4"}])
    assert moa.run("bench", "run", "sums.jsonl", "-y", "-o", "run").code == 0
    assert "epoch" not in moa.run("bench", "report", "run").text
    made = json.loads(moa.run("bench", "report", "run", "--format", "json").text)
    assert "epochs" not in made["runs"][0]


@pytest.fixture
def pairs(moa: Moa) -> Moa:
    """A judge's prompt, and outputs to compare with."""
    folder = moa.folder / "data" / "alpaca_eval"
    folder.mkdir(parents=True)
    (folder / "judge_prompt_alpaca_eval_clf.txt").write_text(TEMPLATE, "utf-8")
    moa.environment["MOA_BENCH_DATA"] = str(folder.parent)
    prompts = [row["prompt"] for row in jsonl_rows(moa.folder / write_prompts(moa, 3))]
    for name in ("reference", "anchor"):
        rows = [
            {"instruction": prompt, "output": f"{name} of {prompt}", "generator": name}
            for prompt in prompts
        ]
        (moa.folder / f"{name}.json").write_text(json.dumps(rows), "utf-8")
    return moa


def verdicts(moa: Moa) -> list[dict[str, Any]]:
    return jsonl_rows(moa.folder / "run/judges/lab-judge/judgements.jsonl")


def test_a_judge_judges_each_epoch_and_released_outputs_once(
    pairs: Moa, upstream: Upstream
) -> None:
    upstream.always("judge", JUDGE)
    start = ["bench", "run", "mine.jsonl", "-y", "-o", "run"]
    judge = ["bench", "judge", "run", "--judge", "lab:judge", "-y"]
    judge += ["--reference", "reference.json", "--anchors", "anchor.json"]
    assert pairs.run(*start).code == 0
    assert pairs.run(*judge).code == 0
    assert len(upstream.chats("judge")) == 6
    # It grows with the run, and pays only what is new.
    assert pairs.run(*start, "--epochs", "3").code == 0
    ran = pairs.run(*judge)
    assert ran.code == 0, ran.err
    assert "6 calls; tokens in" in ran.err
    assert len(upstream.chats("judge")) == 12
    # All models say the same to the same request, so the judge is asked the same in each epoch.
    assert len(answered_twice(upstream, lambda request: request.model == "judge")) == 3
    named = [(line["arm"], line["item"]) for line in verdicts(pairs)]
    assert named[:2] == [("mixture", "1"), ("anchor:anchor", "1")]
    assert named[-3:] == [("mixture", f"{number} epoch 3") for number in "123"]
    told = scores_of(pairs.folder / "run", "lab:judge", pairs.folder / "data")
    [mixture], [anchor] = told.arms, told.anchors
    rates = [arm.metric("win rate") for arm in (mixture, anchor)]
    assert [(rate.mean.n, rate.asked) for rate in rates if rate] == [(9, 9), (3, 3)]
    # In both orders each epoch is asked once more.
    assert pairs.run(*judge, "--both-orders").code == 0
    assert len(upstream.chats("judge")) == 24
    told = scores_of(pairs.folder / "run", "lab:judge", pairs.folder / "data")
    rate = told.arms[0].metric("win rate")
    assert rate is not None
    assert rate.mean.value == pytest.approx(50)
    assert rate.mean.n == 9


def test_answers_that_were_given_are_those_of_all_epochs(pairs: Moa, upstream: Upstream) -> None:
    ran = pairs.run(
        *("bench", "run", "mine.jsonl", "-y", "-o", "run", "--epochs", "2"),
        *("--reference-paths", "anchor.json"),
    )
    assert ran.code == 0, ran.err
    assert len(upstream.chats()) == len(upstream.chats("agg")) == 6
    assert all("anchor of say" in json.dumps(request.messages) for request in upstream.chats())
