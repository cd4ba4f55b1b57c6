"""The files of other evaluators, and our own lines.

Formats: AlpacaEval's `model_outputs.json`; FastChat's answers and single-answer judgments
(`llm_judge/common.py`); FLASK's answers and reviews (`gpt_review/gpt4_eval.py`); a folder of
prompts, predictions of a mixture and of a base model, and who won. Nothing depends on when or
how often it is exported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping

from moa_cli.bench.data.items import Item
from moa_cli.bench.export.answers import (
    Choice,
    Exported,
    Run,
    check_one_turn,
    json_bytes,
    json_lines,
    read_judge,
    slug,
)
from moa_cli.bench.export.predictions import moa_folder
from moa_cli.bench.judge.kinds import Question, read_kind
from moa_cli.bench.run.results import Result
from moa_cli.bench.scoring import flask, mt_bench
from moa_cli.core.errors import UsageError

__all__ = ["COMPARING", "FORMATS", "JUDGED"]


def _alpaca(choice: Choice) -> Exported:
    run, arm = choice.run, choice.run.arm(choice.arm)
    check_one_turn(run, "alpaca")
    answers = run.answers(arm)
    rows = [
        {
            "instruction": item.turns[0],
            "dataset": item.category or str(run.settings["dataset"]["name"]),
            "output": result.replies[0],
            "generator": choice.named(arm),
        }
        for item, result in answers
    ]
    return Exported(
        {"model_outputs.json": json_bytes(json.dumps(rows, indent=2))},
        len(run.items),
        _lost(run, answers),
    )


def _mt(choice: Choice) -> Exported:
    run, arm = choice.run, choice.run.arm(choice.arm)
    _only(run, "mt")
    name = choice.named(arm)
    answers = run.answers(arm)
    rows = [
        {
            "question_id": item.fields["question_id"],
            "answer_id": _identity(name, item.id, *result.replies),
            "model_id": name,
            "choices": [{"index": 0, "turns": list(result.replies)}],
            "tstamp": run.when(result),
        }
        for item, result in answers
    ]
    return Exported({f"{slug(name)}.jsonl": json_lines(rows)}, len(run.items), _lost(run, answers))


def _mt_judgments(choice: Choice) -> Exported:
    run, arm = choice.run, choice.run.arm(choice.arm)
    _only(run, "mt")
    judge = read_judge(run, choice.judge)
    kind = read_kind(run.settings, run.data, {})
    rows = []
    for item, result in run.answers(arm):
        for turn in range(kind.turns(item)):
            question = Question(arm, item, turn, result.replies)
            verdict = judge.verdicts.get(question.name)
            if verdict is None:
                continue
            entry = judge.find(verdict.key)
            prompt = mt_bench.prompt_name(item.category or "", 1 if turn == 0 else 2)
            rows.append(
                {
                    "question_id": item.fields["question_id"],
                    "model": choice.named(arm),
                    "judge": [judge.model, prompt],
                    "user_prompt": kind.call(question, "text").messages[-1].content,
                    "judgment": verdict.text,
                    "score": -1 if verdict.value is None else _short(verdict.value),
                    "turn": turn + 1,
                    "tstamp": entry.when if entry else 0.0,
                }
            )
    asked = sum(map(kind.turns, run.items))
    files = {f"{slug(judge.model)}_single.jsonl": json_lines(rows)}
    return Exported(files, asked, asked - len(rows))


def _flask(choice: Choice) -> Exported:
    run, arm = choice.run, choice.run.arm(choice.arm)
    _only(run, "flask")
    answers = run.answers(arm)
    rows = [
        {"question_id": item.fields["idx"], "text": result.replies[0]} for item, result in answers
    ]
    name = f"{slug(choice.named(arm))}.jsonl"
    return Exported({name: json_lines(rows)}, len(run.items), _lost(run, answers))


def _flask_reviews(choice: Choice) -> Exported:
    run, arm = choice.run, choice.run.arm(choice.arm)
    _only(run, "flask")
    judge = read_judge(run, choice.judge)
    rows = []
    for item, result in run.answers(arm):
        verdict = judge.verdicts.get((arm, item.id, 0))
        if verdict is None:
            continue
        entry = judge.find(verdict.key)
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
                "total_tokens_step4": entry.usage.total_tokens if entry else 0,
            }
        )
    name = f"{slug(choice.named(arm))}_review.jsonl"
    return Exported({name: json_lines(rows)}, len(run.items), len(run.items) - len(rows))


def _jsonl(choice: Choice) -> Exported:
    run = choice.run
    arms = run.arms if choice.arm is None else [run.arm(choice.arm)]
    rows = []
    missing = 0
    for arm in arms:
        answers = run.answers(arm)
        missing += _lost(run, answers)
        rows += [
            {"id": item.id, "arm": arm, "turn": turn, "prompt": prompt, "reply": reply}
            for item, result in answers
            for turn, (prompt, reply) in enumerate(zip(item.turns, result.replies, strict=False), 1)
        ]
    name = str(run.settings["dataset"]["name"])
    files = {f"{slug(name)}-replies.jsonl": json_lines(rows)}
    return Exported(files, len(arms) * len(run.items), missing)


FORMATS: Mapping[str, Callable[[Choice], Exported]] = {
    "alpaca": _alpaca,
    "mt": _mt,
    "mt-judgments": _mt_judgments,
    "flask": _flask,
    "flask-reviews": _flask_reviews,
    "moa": moa_folder,
    "jsonl": _jsonl,
}

JUDGED = ("mt-judgments", "flask-reviews", "moa")
COMPARING = ("moa",)


def _lost(run: Run, answers: list[tuple[Item, Result]]) -> int:
    return len(run.items) - len(answers)


def _only(run: Run, dataset: str) -> None:
    if run.dataset != dataset:
        raise UsageError(
            f"{run.path}: is no run of `moa bench run {dataset}`", hint="--to jsonl holds any run"
        )


def _identity(*parts: str) -> str:
    """An id of what these texts say, as long as FastChat's."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:22]


def _short(number: float) -> float | int:
    return int(number) if number == int(number) else number
