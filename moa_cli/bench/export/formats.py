"""The files of other evaluators, and our own lines. To add a format: a function, and its entry in
`FORMATS`.

Formats: AlpacaEval's `model_outputs.json`; FastChat's answers and single-answer judgments
(`llm_judge/common.py`); FLASK's answers and reviews (`gpt_review/gpt4_eval.py`); a folder of
prompts, predictions of a mixture and of a base model, and who won. Nothing depends on when or
how often it is exported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from itertools import starmap
from typing import Any

from moa_cli.bench.data.items import Item
from moa_cli.bench.export.choice import (
    ExportChoice,
    Exported,
    ExportFormat,
    check_one_turn,
    json_bytes,
    json_lines,
    slug,
)
from moa_cli.bench.export.predictions import PREDICTIONS
from moa_cli.bench.judge.kind import Question
from moa_cli.bench.judge.kinds import kind_of
from moa_cli.bench.run.reader import RunReader
from moa_cli.bench.run.records import Result
from moa_cli.bench.scoring import flask, mt_bench
from moa_cli.core.errors import UsageError


def _alpaca(choice: ExportChoice) -> Exported:
    run, arm = choice.run, choice.named_arm(choice.arm)
    check_one_turn(run, "alpaca")
    answers = choice.answers(arm)
    rows = [
        {
            "instruction": item.turns[0],
            "dataset": item.category or run.settings.dataset.name,
            "output": result.replies[0],
            "generator": choice.named(arm),
        }
        for item, result in answers
    ]
    files = {"model_outputs.json": json_bytes(json.dumps(rows, indent=2))}
    return Exported(files, len(run.items), _lost(run, answers))


def _mt(choice: ExportChoice) -> Exported:
    name = choice.named(choice.named_arm(choice.arm))
    return _answers(
        choice,
        "mt",
        lambda item, result: {
            "question_id": item.fields["question_id"],
            "answer_id": _identity(name, item.id, *result.replies),
            "model_id": name,
            "choices": [{"index": 0, "turns": list(result.replies)}],
            "tstamp": _when(choice.run, result),
        },
    )


def _flask(choice: ExportChoice) -> Exported:
    return _answers(
        choice,
        "flask",
        lambda item, result: {"question_id": item.fields["idx"], "text": result.replies[0]},
    )


def _answers(
    choice: ExportChoice, dataset: str, row: Callable[[Item, Result], dict[str, Any]]
) -> Exported:
    """A file with a row for each answer, called as the arm is."""
    run, arm = choice.run, choice.named_arm(choice.arm)
    _only(run, dataset)
    answers = choice.answers(arm)
    files = {f"{slug(choice.named(arm))}.jsonl": json_lines(starmap(row, answers))}
    return Exported(files, len(run.items), _lost(run, answers))


def _mt_judgments(choice: ExportChoice) -> Exported:
    run, arm = choice.run, choice.named_arm(choice.arm)
    _only(run, "mt")
    told = choice.verdicts()
    model = told.judge.settings.model
    prompts = kind_of(told.judge).prompts(run, {})
    rows = []
    for item, result in choice.answers(arm):
        for turn in range(prompts.turns(item)):
            question = Question(arm, item, turn, result.replies)
            verdict = told.by_name.get(question.name)
            if verdict is None:
                continue
            record = told.call(verdict)
            prompt = mt_bench.prompt_name(item.category or "", mt_bench.turn_number(turn))
            rows.append(
                {
                    "question_id": item.fields["question_id"],
                    "model": choice.named(arm),
                    "judge": [model, prompt],
                    "user_prompt": prompts.call(question, "text").messages[-1].content,
                    "judgment": verdict.text,
                    "score": -1 if verdict.value is None else _short(verdict.value),
                    "turn": turn + 1,
                    "tstamp": record.when if record else 0.0,
                }
            )
    asked = sum(map(prompts.turns, run.items))
    files = {f"{slug(model)}_single.jsonl": json_lines(rows)}
    return Exported(files, asked, asked - len(rows))


def _flask_reviews(choice: ExportChoice) -> Exported:
    run, arm = choice.run, choice.named_arm(choice.arm)
    _only(run, "flask")
    told = choice.verdicts()
    rows = []
    for item, result in choice.answers(arm):
        verdict = told.by_name.get((arm, item.id, 0))
        if verdict is None:
            continue
        record = told.call(verdict)
        scores = flask.parse_review(verdict.text).scores
        rows.append(
            {
                **item.fields,
                "target_txt": result.replies[0],
                "review": verdict.text,
                "score": {
                    skill: "N/A" if score is None else _short(score)
                    for skill, score in scores.items()
                },
                "total_tokens_step4": record.usage.total_tokens if record else 0,
            }
        )
    name = f"{slug(choice.named(arm))}_review.jsonl"
    return Exported({name: json_lines(rows)}, len(run.items), len(run.items) - len(rows))


def _jsonl(choice: ExportChoice) -> Exported:
    run = choice.run
    arms = run.settings.arms if choice.arm is None else (choice.named_arm(choice.arm),)
    rows = []
    missing = 0
    for arm in arms:
        answers = choice.answers(arm)
        missing += _lost(run, answers)
        rows += [
            {"id": item.id, "arm": arm, "turn": turn, "prompt": prompt, "reply": reply}
            for item, result in answers
            for turn, (prompt, reply) in enumerate(zip(item.turns, result.replies, strict=False), 1)
        ]
    name = run.settings.dataset.name
    files = {f"{slug(name)}-replies.jsonl": json_lines(rows)}
    return Exported(files, len(arms) * len(run.items), missing)


FORMATS: Mapping[str, ExportFormat] = {
    "alpaca": ExportFormat(_alpaca),
    "mt": ExportFormat(_mt),
    "mt-judgments": ExportFormat(_mt_judgments, judged=True),
    "flask": ExportFormat(_flask),
    "flask-reviews": ExportFormat(_flask_reviews, judged=True),
    "moa": PREDICTIONS,
    "jsonl": ExportFormat(_jsonl),
}


def _lost(run: RunReader, answers: list[tuple[Item, Result]]) -> int:
    return len(run.items) - len(answers)


def _when(run: RunReader, result: Result) -> float:
    """When the last call of an answer ended, seconds since 1970; 0 if that is not told."""
    reply = result.turns[-1].reply if result.turns else None
    record = run.calls.find(reply.key) if reply else None
    return record.when if record else 0.0


def _only(run: RunReader, dataset: str) -> None:
    if run.dataset is None or run.dataset.name != dataset:
        raise UsageError(
            f"{run.path}: is not a run of `moa bench run {dataset}`",
            hint="--to jsonl holds any run",
        )


def _identity(*parts: str) -> str:
    """An id of what these texts say, as long as FastChat's."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:22]


def _short(number: float) -> float | int:
    return int(number) if number == int(number) else number
