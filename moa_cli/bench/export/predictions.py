"""A folder of prompts, the predictions of a mixture and of a base model, and who won."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from moa_cli.bench.export.choice import (
    ExportChoice,
    Exported,
    ExportFormat,
    JudgeVerdicts,
    check_one_turn,
    json_bytes,
    json_lines,
)
from moa_cli.bench.run.arms import SINGLE
from moa_cli.bench.run.reader import RunReader
from moa_cli.bench.run.records import Judgement
from moa_cli.bench.scoring.alpaca import DRAW
from moa_cli.core.errors import UsageError


def _predictions(choice: ExportChoice) -> Exported:
    """`prompts.jsonl`, `moa_preds.jsonl`, `base_preds.jsonl` and `results.json`."""
    run, arm = choice.run, choice.named_arm(choice.arm)
    check_one_turn(run, "moa")
    base = _base(choice, arm)
    told = choice.verdicts() if choice.judge or run.judges else None
    prompts = [{"id": item.id, "prompt": item.turns[0]} for item in run.items]
    predictions = {
        side: [
            {"id": item.id, "model": name, "prediction": result.replies[0]}
            for item, result in choice.answers(side)
        ]
        for side, name in ((arm, choice.named(arm)), (base, choice.name_of(base)))
    }
    results = {
        "dataset": run.settings.dataset.name,
        "prompts": len(prompts),
        "moa": {"arm": arm, "model": choice.named(arm), "predictions": len(predictions[arm])},
        "base": {"arm": base, "model": choice.name_of(base), "predictions": len(predictions[base])},
        **_wins(run, arm, base, told),
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


def _base(choice: ExportChoice, arm: str) -> str:
    """The arm to compare with: the one typed, else the aggregator alone, else the first model
    alone, else any other."""
    if choice.base is not None:
        return choice.named_arm(choice.base)
    settings = choice.run.settings
    others = [other for other in settings.arms if other != arm]
    if not others:
        raise UsageError(
            "there is no other arm to compare with",
            hint="run with --arms mixture,single, or export another format",
        )
    aggregator = f"{SINGLE}{settings.aggregator.get('model')}"
    alone = [other for other in others if other.startswith(SINGLE)]
    return aggregator if aggregator in others else (alone or others)[0]


def _wins(run: RunReader, arm: str, base: str, told: JudgeVerdicts | None) -> dict[str, Any]:
    """How often which of both won, of the items on which the judge's verdicts tell it.

    If the judge compared `arm` with `base`, its preference decides; else the higher score.
    """
    if told is None:
        return {"judge": None}
    scores: dict[tuple[str, str], list[Judgement]] = {}
    for verdict in told.by_name.values():
        scores.setdefault((verdict.arm, verdict.item), []).append(verdict)
    direct = told.judge.settings.against == base
    margins = []
    for item in run.items:
        mine = _score(scores.get((arm, item.id), ()))
        theirs = DRAW if direct else _score(scores.get((base, item.id), ()))
        if mine is not None and theirs is not None:
            margins.append(mine - theirs)
    return {
        "judge": told.judge.settings.model,
        "judged_by": "comparison" if direct else "scores",
        "judged": len(margins),
        "moa_wins": sum(margin > 0 for margin in margins),
        "base_wins": sum(margin < 0 for margin in margins),
        "ties": sum(margin == 0 for margin in margins),
    }


def _score(verdicts: Iterable[Judgement]) -> float | None:
    """The mean over turns, or over skills; None without one, or where a turn has none."""
    values: list[float] = []
    for verdict in verdicts:
        if verdict.value is None and not verdict.skills:
            return None
        values += verdict.skills.values() if verdict.value is None else [verdict.value]
    return sum(values) / len(values) if values else None


PREDICTIONS = ExportFormat(_predictions, judged=True, compares=True)
