"""Length-controlled win rates by alpaca_eval itself, beside those of our own fit."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from moa_cli.bench.judge.kinds import DIFFICULTY, OWN_FIT
from moa_cli.bench.report.scores import ArmScores, Scores
from moa_cli.bench.run.folder import RunReader, read_run
from moa_cli.bench.run.journal import REFERENCE
from moa_cli.bench.scoring.means import Mean, Metric
from moa_cli.core.errors import BenchError
from moa_cli.core.installation import install_command

OFFICIAL = "LC win rate (alpaca_eval)"


def with_official(scores: Scores, data: Path | None) -> Scores:
    """The scores with alpaca_eval's figure behind each that our own fit has.

    It runs in a process of its own: it is large, and changes settings of what it imports.
    data: see `scores_of`. Raises BenchError if it is not installed, or fails.
    """
    known = find_spec("alpaca_eval")
    # A folder of that name (of its data) is no package.
    if known is None or known.origin is None:
        command = install_command("alpaca")
        raise BenchError("--official needs alpaca_eval", hint=f"install it with: {command}")
    arms = [*scores.arms, *scores.anchors]
    names = [arm.arm for arm in arms if any(metric.name == OWN_FIT for metric in arm.metrics)]
    if scores.judge is None or not names:
        return scores
    run = read_run(scores.path, data)
    rows = {name: _rows(run, scores.judge.model, name) for name in names}
    told = _fitted({"gamed": str(run.data_file(*DIFFICULTY)), "arms": rows})
    found: Mapping[str, float] = told["arms"]
    note = (
        f"{OFFICIAL}: the value is that of alpaca_eval {told['version']}, the standard error that"
        " of our own fit"
    )
    return replace(
        scores,
        arms=tuple(_beside(arm, found) for arm in scores.arms),
        anchors=tuple(_beside(arm, found) for arm in scores.anchors),
        notes=(*scores.notes, note),
    )


def _rows(run: RunReader, judge: str, name: str) -> list[dict[str, Any]]:
    """For an arm what alpaca_eval calls annotations: `output_2` is judged."""
    reader = run.judge(judge)
    reference = reader.settings.against or REFERENCE
    texts = {
        result.name: result.replies[0]
        for result in (*run.results, *reader.texts.values())
        if result.replies
    }
    return [
        {
            "index": int(verdict.item),
            "preference": verdict.value,
            "generator_1": "reference",
            "generator_2": name,
            "output_1": texts[reference, verdict.item],
            "output_2": texts[name, verdict.item],
        }
        for verdict in reader.judgements
        if verdict.arm == name
        and verdict.value is not None
        and (name, verdict.item) in texts
        and (reference, verdict.item) in texts
    ]


def _fitted(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What `official_fit` makes of it."""
    program = Path(__file__).with_name("official_fit.py")
    # -P: nothing is imported from the program's folder.
    done = subprocess.run(
        [sys.executable, "-P", str(program)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise BenchError(f"alpaca_eval failed: {last}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def _beside(arm: ArmScores, found: Mapping[str, float]) -> ArmScores:
    metrics: list[Metric] = []
    for metric in arm.metrics:
        metrics.append(metric)
        value = found.get(arm.arm, math.nan)
        if metric.name == OWN_FIT and math.isfinite(value):
            mean = Mean(value, metric.mean.standard_error, metric.mean.n)
            metrics.append(replace(metric, name=OFFICIAL, mean=mean))
    return replace(arm, metrics=tuple(metrics))
