"""Scores of made-up runs, and run folders written by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moa_cli.bench.report.scores import ArmScores, Scores
from moa_cli.bench.run.settings import JudgeSettings
from moa_cli.bench.scoring.flask import SKILLS
from moa_cli.bench.scoring.means import Mean, Metric
from moa_cli.core.conversation import Usage
from tests.support.bench.own_runs import write_lines

__all__ = [
    "ARMS",
    "JUDGE",
    "arm",
    "made",
    "metric",
    "scores",
    "write_judgements",
    "write_questions",
    "write_run",
]

JUDGE = JudgeSettings(model="lab:judge", date="2026-03-01", kind="pairwise")
ARMS = (
    "mixture",
    "self",
    "single:together:Qwen/Qwen1.5-110B-Chat",
    "single:together:Qwen/Qwen1.5-72B-Chat",
    "single:together:meta-llama/Llama-3-70b-chat-hf",
    "single:together:mistralai/Mixtral-8x22B-Instruct-v0.1",
    "single:together:microsoft/WizardLM-2-8x22B",
    "single:together:databricks/dbrx-instruct",
)
_CATEGORIES = (
    *("writing", "roleplay", "extraction", "math"),
    *("coding", "reasoning", "stem", "humanities"),
)


def metric(
    name: str, unit: str, value: float | None, error: float | None = 0.5, n: int = 80, **more: int
) -> Metric:
    """A metric; asked is n where `more` does not say it."""
    return Metric(name, Mean(value, error, n), more.get("asked", n), unit)


def arm(
    name: str,
    metrics: Iterable[Metric],
    by_category: Mapping[str, tuple[Metric, ...]] | None = None,
    *,
    cost: float | None = 0.0123,
    seconds: float = 12.5,
) -> ArmScores:
    """An arm's scores, with what it took."""
    return ArmScores(
        arm=name,
        metrics=tuple(metrics),
        by_category=by_category or {},
        answered=80,
        failed=0,
        usage=Usage(prompt_tokens=123456, completion_tokens=65432, calls=320, cost=cost or 0.0),
        cost_per_item=Mean(cost, None if cost is None else cost / 9, 80 if cost else 0),
        seconds_path=Mean(seconds, seconds / 11, 80),
        seconds_sum=Mean(3 * seconds, seconds / 5, 80),
    )


def scores(dataset: str, arms: Sequence[ArmScores], **more: Any) -> Scores:
    """A run's scores, by JUDGE."""
    known = Scores(Path(f"runs/{dataset}-lab"), dataset, 80, 80, JUDGE, tuple(arms), (), ())
    return replace(known, **more)


def made(dataset: str, names: Sequence[str] = ARMS) -> Scores:
    """Scores over one of the datasets, with all that a judge or right answers give there."""
    return scores(
        dataset,
        [_made_arm(dataset, name, place) for place, name in enumerate(names)],
        judge=None if dataset == "math" else JUDGE,
    )


def _made_arm(dataset: str, name: str, place: int) -> ArmScores:
    categories: dict[str, tuple[Metric, ...]] = {}
    if dataset == "alpaca":
        metrics = [
            metric("win rate", "%", 59.8 - 5.3 * place, 1.6),
            metric("LC win rate (own fit)", "%", 65.1 - 4.1 * place, 1.2),
            metric("length", "characters", 1825.3 + 31 * place, 12.0),
        ]
    elif dataset == "mt":
        metrics = [
            metric(turn, "of 10", 9.44 - 0.37 * place, 0.21)
            for turn in ("turn 1", "turn 2", "average")
        ]
        categories = {
            category: (metric("average", "of 10", 9.3 - 0.4 * place - 0.13 * number, 0.4, 20),)
            for number, category in enumerate(_CATEGORIES)
        }
    elif dataset == "flask":
        values = [4.4 - 0.21 * place + 0.05 * (number % 3) for number in range(len(SKILLS))]
        metrics = [metric("mean", "of 5", 4.2 - 0.2 * place, 0.04)]
        metrics += [
            metric(skill, "of 5", value, 0.08) for skill, value in zip(SKILLS, values, strict=True)
        ]
    else:
        metrics = [metric("accuracy", "%", 57.6 - 4.5 * place, 2.2)]
        for number in (1, 2):
            metrics.append(
                metric(f"accuracy, layer {number}, mean", "%", 42.0 + 5 * number - 3 * place, 1.9)
            )
    took = {"cost": 0.0191 / (place + 1), "seconds": 31.5 / (place + 1)}
    return arm(name, metrics, categories, **took)


def write_questions(data: Path, dataset: str, count: int) -> Path:
    """The file of GSM8K (all answers are 4) or MT-Bench in a data folder, with so many items."""
    if dataset == "mt":
        questions = [
            {
                "question_id": number,
                "category": _CATEGORIES[number % len(_CATEGORIES)],
                "turns": [f"what is {number}?", "and why?"],
            }
            for number in range(count)
        ]
        return write_lines(data / "mt_bench" / "question.jsonl", questions)
    rows = [
        {"index": number, "question": f"what is {number} + {4 - number}?", "answer": "so #### 4"}
        for number in range(count)
    ]
    return write_lines(data / "gsm8k" / "test.jsonl", rows)


def write_run(
    folder: Path,
    file: Path,
    arms: Mapping[str, Collection[int]],
    *,
    limit: int | None = None,
    failed: Collection[int] = (),
) -> Path:
    """The folder of a run over `write_questions`' file.

    arms: the items that each answers wrongly. limit: the first so many only. failed: items that
    no arm answered. Of the first layer's two proposals one is right.
    """
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    asked = rows[:limit]
    name = "mt" if "question_id" in rows[0] else "gsm8k"
    dataset = {
        **{"name": name, "known": True, "file": file.name, "items": len(rows)},
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    settings = {"dataset": dataset, "limit": limit, "arms": list(arms), "source": str(file)}
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(settings), "utf-8")
    results = [
        _result(arm, number, row, wrong=number in wrong, failed=number in failed)
        for arm, wrong in arms.items()
        for number, row in enumerate(asked)
    ]
    write_lines(folder / "items.jsonl", results)
    calls = {"item": "0", "turn": 0, "model": "lab:a", "text": "4", "seconds": 1.5}
    keys = [f"{number}-{who}" for number in range(len(asked)) for who in ("a", "b", *arms)]
    write_lines(folder / "calls.jsonl", [{"key": key, **calls} for key in keys])
    return folder


def _result(
    arm: str, number: int, row: Mapping[str, Any], *, wrong: bool, failed: bool
) -> dict[str, Any]:
    known = {"arm": arm, "item": str(number), "category": row.get("category")}
    if failed:
        return {**known, "error": {"kind": "ServerFailed", "message": "out of order"}}
    reply = "The answer is 5" if wrong else "The answer is 4"
    proposals = [
        {"model": f"lab:{model}", "text": f"The answer is {said}", "key": f"{number}-{model}"}
        for model, said in (("a", 4), ("b", 7))
    ]
    turn = {
        "proposals": [proposals],
        "reply": {"model": "lab:agg", "text": reply, "key": f"{number}-{arm}"},
    }
    usage = {"calls": 3, "prompt_tokens": 300, "completion_tokens": 90, "cost": 0.003}
    turns = [turn] * len(row.get("turns", [1]))
    return {**known, "replies": [reply] * len(turns), "turns": turns, "usage": usage}


def write_judgements(
    run: Path, ratings: Mapping[str, Sequence[float | None]], model: str = JUDGE.model
) -> None:
    """What a judge of MT-Bench said: each arm's rating for each item, the same for both turns.
    An arm `anchor:NAME` is of released outputs."""
    folder = run / "judges" / model.replace(":", "-")
    folder.mkdir(parents=True)
    told = {"model": model, "date": JUDGE.date, "discrete": False, "kind": "rating"}
    (folder / "judge.json").write_text(json.dumps(told), "utf-8")
    write_lines(
        folder / "judgements.jsonl",
        [
            {"arm": arm, "item": str(number), "turn": turn, "value": value, "key": "k"}
            for arm, values in ratings.items()
            for number, value in enumerate(values)
            for turn in (0, 1)
        ],
    )
    anchors = [rating for rating in ratings if rating.startswith("anchor:")]
    write_lines(
        folder / "outputs.jsonl",
        [
            {"arm": arm, "item": str(number), "category": "writing", "replies": ["one", "two"]}
            for arm in anchors
            for number in range(len(ratings[arm]))
        ],
    )
