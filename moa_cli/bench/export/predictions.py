"""A folder of prompts, the predictions of a mixture and of a base model, and who won."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from moa_cli.bench.export.answers import (
    Choice,
    Exported,
    Judge,
    Run,
    check_one_turn,
    has_judge,
    json_bytes,
    json_lines,
    read_judge,
)
from moa_cli.bench.judge.judgements import Judgement
from moa_cli.bench.scoring.alpaca import DRAW
from moa_cli.core.errors import UsageError

__all__ = ["moa_folder"]


def moa_folder(choice: Choice) -> Exported:
    """`prompts.jsonl`, `moa_preds.jsonl`, `base_preds.jsonl` and `results.json`."""
    run, arm = choice.run, choice.run.arm(choice.arm)
    check_one_turn(run, "moa")
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
        "prompts.jsonl": json_lines(prompts),
        "moa_preds.jsonl": json_lines(predictions[arm]),
        "base_preds.jsonl": json_lines(predictions[base]),
        "results.json": json_bytes(json.dumps(results, indent=2)),
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
