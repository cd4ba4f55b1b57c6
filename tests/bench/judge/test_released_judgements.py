"""Judges that say what released judgements say: the scores are the released ones, end to end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from moa_cli.bench.report.scores import ArmScores, Scores, scores_of
from moa_cli.bench.scoring.means import Metric
from tests.support.bench.own_runs import call_lines, write_lines
from tests.support.bench.tables import csv_rows, jsonl_rows
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

JUDGE = "lab:judge"


def metric(arm: ArmScores, name: str) -> Metric:
    """Its figure of that name."""
    return next(each_metric for each_metric in arm.metrics if each_metric.name == name)


def judged(moa: Moa, name: str, data: Path, anchors: Sequence[Path] = ()) -> Scores:
    """Run a dataset by one model, and let the judge have it."""
    moa.profile("one", "m", aggregator="m")
    ran = moa.run("bench", "run", name, "-p", "one", "--arms", "single", "-y", "--data", str(data))
    assert ran.code == 0, ran.err
    run = moa.folder / "runs" / f"{name}-one"
    files = [part for anchor in anchors for part in ("--anchors", str(anchor))]
    start = ["bench", "judge", f"runs/{name}-one", "--judge", JUDGE, "-y", *files]
    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    return scores_of(run, JUDGE)


def said(request: Request) -> str:
    """All that is asked."""
    return "\n".join(str(message["content"]) for message in request.messages)


def slice_of(data: Path, folder: Path) -> Path:
    """A data folder whose AlpacaEval holds the 50 instructions with released outputs."""
    real = data / "alpaca_eval"
    chosen = set(json.loads((real / "slice50/indices.json").read_text("utf-8")))
    rows = json.loads((real / "instructions.json").read_text("utf-8"))
    made = folder / "data" / "alpaca_eval"
    made.mkdir(parents=True)
    kept = [row for row in rows if row["index"] in chosen]
    (made / "instructions.json").write_text(json.dumps(kept), "utf-8")
    for name, place in (
        ("gpt4_1106_preview.json", "slice50/model_outputs/gpt4_1106_preview.json"),
        ("df_gamed.csv", "reconstructed/df_gamed.csv"),
        ("judge_prompt_alpaca_eval_clf.txt", "judge_prompt_alpaca_eval_clf.txt"),
    ):
        (made / name).symlink_to(real / place)
    return made.parent


def test_released_completions_give_the_released_preferences(
    moa: Moa, upstream: Upstream, data: Path, tmp_path: Path
) -> None:
    slice50 = data / "alpaca_eval/slice50"
    names = ("gpt-3.5-turbo-1106", "claude-2", "vicuna-13b-v1.5")
    released: list[dict[str, Any]] = []
    for name in names:
        released += json.loads((slice50 / f"annotations/{name}.json").read_text("utf-8"))
    outputs = {annotation["instruction"]: annotation["output_2"] for annotation in released[:50]}

    def completion(request: Request) -> dict[str, Any]:
        text = said(request)
        parts = ("instruction", "output_1", "output_2")
        [found] = [
            annotation
            for annotation in released
            if all(annotation[part].strip() in text for part in parts)
        ]
        raw: dict[str, Any] = found["raw_completion"]
        return raw

    upstream.always("m", Reply(text=lambda request: outputs[said(request)]))
    upstream.always(
        "judge",
        Reply(
            text=lambda request: str(completion(request)["message"]["content"]),
            logprobs=lambda request: completion(request)["logprobs"],
        ),
    )
    anchors = [slice50 / f"model_outputs/{name}.json" for name in names[1:]]
    scores = judged(moa, "alpaca", slice_of(data, tmp_path), anchors)

    folder = moa.folder / "runs/alpaca-one/judges/lab-judge"
    told = {
        (row["arm"], row["item"]): row["value"] for row in jsonl_rows(folder / "judgements.jsonl")
    }
    rows = json.loads((data / "alpaca_eval/instructions.json").read_text("utf-8"))
    index = {annotation["instruction"]: str(annotation["index"]) for annotation in rows}
    arms = dict(
        zip(names, ("single:lab:m", *(f"anchor:{name}" for name in names[1:])), strict=True)
    )
    for annotation in released:
        value = told[arms[annotation["generator_2"]], index[annotation["instruction"]]]
        assert value == pytest.approx(annotation["preference"], abs=1e-9)
    assert len(told) == len(released)

    by_arm = {arm.arm: arm for arm in (*scores.arms, *scores.anchors)}
    for row in csv_rows(slice50 / "expected_metrics.csv"):
        if row["model"] not in arms:
            continue
        arm = by_arm[arms[row["model"]]]
        mean = metric(arm, "win rate").mean
        assert mean.value == pytest.approx(float(row["win_rate"]), abs=1e-6)
        assert mean.standard_error == pytest.approx(float(row["standard_error"]), abs=1e-6)
        discrete = metric(arm, "discrete win rate").mean.value
        assert discrete == pytest.approx(float(row["discrete_win_rate"]))
        controlled = metric(arm, "LC win rate (own fit)").mean.value
        # Of a subset, the thin fit is this near.
        assert controlled == pytest.approx(float(row["length_controlled_winrate"]), abs=1.5)
        assert (mean.n, metric(arm, "win rate").asked) == (50, 50)
    asked = [request.body for request in upstream.chats("judge")]
    assert all((body["max_tokens"], body["top_logprobs"]) == (1, 5) for body in asked)
    assert len(asked) == 150
    assert all(line["logprobs"] for line in call_lines(folder))


def test_golden_ratings_of_mt_bench(moa: Moa, upstream: Upstream, data: Path) -> None:
    golden = data / "mt_bench/golden"
    answers = {
        row["question_id"]: row["choices"][0]["turns"]
        for row in jsonl_rows(golden / "moa-alpha.jsonl")
    }
    questions = {
        row["turns"][0]: row["question_id"] for row in jsonl_rows(data / "mt_bench/question.jsonl")
    }
    judgments = {
        row["user_prompt"]: row["judgment"] for row in jsonl_rows(golden / "gpt-4_single.jsonl")
    }

    def answer(request: Request) -> str:
        [first, *more] = [
            message["content"] for message in request.messages if message["role"] == "user"
        ]
        return str(answers[questions[first]][len(more)])

    upstream.always("m", Reply(text=answer))
    upstream.always("judge", Reply(text=lambda request: judgments[request.messages[-1]["content"]]))
    beta = write_lines(
        moa.folder / "beta.jsonl",
        ({**row, "model_id": "moa-beta"} for row in jsonl_rows(golden / "moa-beta.jsonl")),
    )
    scores = judged(moa, "mt", data, [beta])

    expected = json.loads((golden / "expected.json").read_text("utf-8"))
    [alpha], [anchor] = scores.arms, scores.anchors
    assert anchor.arm == "anchor:moa-beta"
    for arm, name in ((alpha, "moa-alpha"), (anchor, "moa-beta")):
        means = expected[name]
        for figure, key in (("turn 1", "turn_1"), ("turn 2", "turn_2"), ("average", "average")):
            assert metric(arm, figure).mean.value == pytest.approx(means[key], abs=1e-9)
        found = {
            category: each_metric.mean.value for category, [each_metric] in arm.by_category.items()
        }
        assert found == pytest.approx(means["by_category"])
        average = metric(arm, "average")
        assert average.asked - average.mean.n == means["unparsed"]
    assert any(note.startswith("partial: turn 1 74 of 80") for note in scores.notes)


def test_golden_reviews_of_flask(moa: Moa, upstream: Upstream, data: Path) -> None:
    reviews = jsonl_rows(data / "flask/golden/review.jsonl")
    replies = {annotation["instruction"]: annotation["target_txt"] for annotation in reviews}

    def review(request: Request) -> str:
        text = said(request)
        parts = ("instruction", "target_txt", "answer")
        found = [review for review in reviews if all(review[part] in text for part in parts)]
        return str(max(found, key=lambda review: len(review["instruction"]))["review"])

    upstream.always("m", Reply(text=lambda request: replies[request.messages[-1]["content"]]))
    upstream.always("judge", Reply(text=review))
    scores = judged(moa, "flask", data)

    [arm] = scores.arms
    rows = csv_rows(data / "flask/golden/expected_skill.csv")
    for row in rows:
        mean = metric(arm, row["skill"]).mean
        assert mean.value == pytest.approx(float(row["avg"]))
        assert mean.n == int(row["count"])
    whole = metric(arm, "mean").mean
    assert whole.n == sum(int(row["count"]) for row in rows)
    assert whole.value == pytest.approx(sum(float(row["score"]) for row in rows) / whole.n)
    # Six reviews cannot be read, which is said.
    assert metric(arm, "mean").partial
