"""The files of other evaluators, and our own lines.

Formats: AlpacaEval's `model_outputs.json`; FastChat's answers and single-answer judgments
(`llm_judge/common.py`); FLASK's answers and reviews (`gpt_review/gpt4_eval.py`); a folder of
prompts, predictions of a mixture and of a base model, and who won. Nothing depends on when or
how often it is exported.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from moa_cli.bench.datasets import data_file
from moa_cli.bench.export import Exported, Judge, Run, has_judge, read_judge
from moa_cli.bench.items import Item, Row, rows_of_lines
from moa_cli.bench.judgements import Judgement
from moa_cli.bench.results import Result
from moa_cli.bench.scoring import flask, mt_bench
from moa_cli.bench.scoring.alpaca import DRAW
from moa_cli.errors import BenchError, UsageError

__all__ = ["COMPARING", "FORMATS", "JUDGED", "Choice"]


class Choice(NamedTuple):
    """What is to be exported, as it was typed, None where nothing was.

    base: the arm to compare with. judge: its model. name: what the arm is to be called.
    """

    run: Run
    judge: str | None = None
    arm: str | None = None
    base: str | None = None
    name: str | None = None

    def named(self, arm: str) -> str:
        """What the arm is called in the export."""
        return self.name or self.run.name(arm)


def _alpaca(choice: Choice) -> Exported:
    run, arm = choice.run, choice.run.arm(choice.arm)
    _one_turn(run, "alpaca")
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
    return _exported(
        run, {"model_outputs.json": _text(json.dumps(rows, indent=2))}, missing=_lost(run, answers)
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
    return _exported(run, {f"{_slug(name)}.jsonl": _lines(rows)}, missing=_lost(run, answers))


def _mt_judgments(choice: Choice) -> Exported:
    run, arm = choice.run, choice.run.arm(choice.arm)
    _only(run, "mt")
    judge = read_judge(run, choice.judge)
    prompts = mt_bench.judge_prompts(
        row.fields for row in _rows(run, "mt_bench/judge_prompts.jsonl")
    )
    references = {
        row.optional("question_id"): row.fields["choices"][0]["turns"]
        for row in _rows(run, "mt_bench/reference_answer_gpt-4.jsonl")
    }
    rows: list[dict[str, Any]] = []
    for item, result in run.answers(arm):
        category = item.category or ""
        turns: tuple[mt_bench.Turn, ...] = (1, 2)
        for turn in turns:
            verdict = judge.verdicts.get((arm, item.id, turn - 1))
            if verdict is None:
                continue
            reference = references.get(item.id, ())
            call = mt_bench.judge_call(
                prompts, category, item.turns, result.replies, turn, reference
            )
            entry = judge.find(verdict.key)
            rows.append(
                {
                    "question_id": item.fields["question_id"],
                    "model": choice.named(arm),
                    "judge": [judge.model, mt_bench.prompt_name(category, turn)],
                    "user_prompt": call.messages[-1].content,
                    "judgment": verdict.text,
                    "score": -1 if verdict.value is None else _short(verdict.value),
                    "turn": turn,
                    "tstamp": entry.when if entry else 0.0,
                }
            )
    asked = sum(len(item.turns) for item in run.items)
    files = {f"{_slug(judge.model)}_single.jsonl": _lines(rows)}
    return Exported(files, asked, asked - len(rows))


def _flask(choice: Choice) -> Exported:
    run, arm = choice.run, choice.run.arm(choice.arm)
    _only(run, "flask")
    answers = run.answers(arm)
    rows = [
        {"question_id": item.fields["idx"], "text": result.replies[0]} for item, result in answers
    ]
    name = f"{_slug(choice.named(arm))}.jsonl"
    return _exported(run, {name: _lines(rows)}, missing=_lost(run, answers))


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
    name = f"{_slug(choice.named(arm))}_review.jsonl"
    return _exported(run, {name: _lines(rows)}, missing=len(run.items) - len(rows))


def _moa(choice: Choice) -> Exported:
    run, arm = choice.run, choice.run.arm(choice.arm)
    _one_turn(run, "moa")
    base = _base(run, arm, choice.base)
    judge = read_judge(run, choice.judge) if choice.judge or has_judge(run) else None
    prompts = [{"id": item.id, "prompt": item.turns[0]} for item in run.items]
    predictions = {
        one: [
            {"id": item.id, "model": name, "prediction": result.replies[0]}
            for item, result in run.answers(one)
        ]
        for one, name in ((arm, choice.named(arm)), (base, run.name(base)))
    }
    results = {
        "dataset": run.settings["dataset"]["name"],
        "prompts": len(prompts),
        "moa": {"arm": arm, "model": choice.named(arm), "predictions": len(predictions[arm])},
        "base": {"arm": base, "model": run.name(base), "predictions": len(predictions[base])},
        **_wins(run, arm, base, judge),
    }
    files = {
        "prompts.jsonl": _lines(prompts),
        "moa_preds.jsonl": _lines(predictions[arm]),
        "base_preds.jsonl": _lines(predictions[base]),
        "results.json": _text(json.dumps(results, indent=2)),
    }
    asked = 2 * len(prompts)
    missing = asked - sum(map(len, predictions.values()))
    return Exported(files, asked, missing, folder=True)


def _base(run: Run, arm: str, typed: str | None) -> str:
    """The arm to compare with: the one typed, else the aggregator alone, else the first model
    alone, else any other."""
    if typed is not None:
        return run.arm(typed)
    others = [one for one in run.arms if one != arm]
    if not others:
        raise UsageError(
            "there is no other arm to compare with",
            hint="run with --arms mixture,single, or export another format",
        )
    aggregator = f"single:{run.settings['profile'].get('aggregator', {}).get('model')}"
    alone = [one for one in others if one.startswith("single:")]
    return aggregator if aggregator in others else (alone or others)[0]


def _wins(run: Run, arm: str, base: str, judge: Judge | None) -> dict[str, Any]:
    """How often which of both won, of the items on which the judge's verdicts tell it.

    If the judge compared `arm` with `base`, its preference decides; else the higher score.
    """
    if judge is None:
        return {"judge": None}
    scores: dict[tuple[str, str], list[Judgement]] = {}
    for verdict in judge.verdicts.values():
        scores.setdefault((verdict.arm, verdict.item), []).append(verdict)
    direct = judge.told.get("against") == base
    margins = []
    for item in run.items:
        mine = _score(scores.get((arm, item.id), ()))
        theirs = DRAW if direct else _score(scores.get((base, item.id), ()))
        if mine is not None and theirs is not None:
            margins.append(mine - theirs)
    return {
        "judge": judge.model,
        "judged_by": "comparison" if direct else "scores",
        "judged": len(margins),
        "moa_wins": sum(one > 0 for one in margins),
        "base_wins": sum(one < 0 for one in margins),
        "ties": sum(one == 0 for one in margins),
    }


def _score(verdicts: Iterable[Judgement]) -> float | None:
    """The mean over turns, or over skills; None without one, or where a turn has none."""
    values: list[float] = []
    for one in verdicts:
        if one.value is None and not one.skills:
            return None
        values += one.skills.values() if one.value is None else [one.value]
    return sum(values) / len(values) if values else None


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
    files = {f"{_slug(name)}-replies.jsonl": _lines(rows)}
    return Exported(files, len(arms) * len(run.items), missing)


FORMATS: Mapping[str, Callable[[Choice], Exported]] = {
    "alpaca": _alpaca,
    "mt": _mt,
    "mt-judgments": _mt_judgments,
    "flask": _flask,
    "flask-reviews": _flask_reviews,
    "moa": _moa,
    "jsonl": _jsonl,
}

JUDGED = ("mt-judgments", "flask-reviews", "moa")
COMPARING = ("moa",)


def _exported(run: Run, files: Mapping[str, bytes], *, missing: int) -> Exported:
    return Exported(files, len(run.items), missing)


def _lost(run: Run, answers: list[tuple[Item, Result]]) -> int:
    return len(run.items) - len(answers)


def _one_turn(run: Run, name: str) -> None:
    if any(len(item.turns) > 1 or item.before for item in run.items):
        raise UsageError(
            f"--to {name}: holds one prompt an item, the run has conversations",
            hint="--to jsonl holds them",
        )


def _only(run: Run, dataset: str) -> None:
    if run.dataset != dataset:
        raise UsageError(
            f"--to {dataset}: is of `moa bench run {dataset}` only", hint="--to jsonl holds any run"
        )


def _rows(run: Run, name: str) -> Iterable[Row]:
    file = data_file(run.settings, run.data, name)
    if file is None:
        raise BenchError(
            f"{name}: no such file in the data folder",
            hint=f"`moa bench fetch {run.dataset}` gets it; --data names another folder",
        )
    return rows_of_lines(file)


def _identity(*parts: str) -> str:
    """An id of what these texts say, as long as FastChat's."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:22]


def _short(number: float) -> float | int:
    return int(number) if number == int(number) else number


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "export"


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(_text(json.dumps(row)) for row in rows)


def _text(made: str) -> bytes:
    # Upstream reads in the encoding of the place: ASCII is right in all. DEL acts on terminals.
    return made.replace("\x7f", "\\u007f").encode("ascii") + b"\n"
