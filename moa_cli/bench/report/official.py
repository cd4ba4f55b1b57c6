"""Adds the length-controlled win rates that alpaca_eval itself computes to those of our own fit."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

from moa_cli.bench.data.epochs import epoch_of, origin_of
from moa_cli.bench.judge.pairwise import DIFFICULTY, OWN_FIT, preferences_of
from moa_cli.bench.judge.registry import kind_of
from moa_cli.bench.report.scores import ArmScores, Scores
from moa_cli.bench.run.folder import RunReader, read_run
from moa_cli.bench.run.journal import REFERENCE
from moa_cli.bench.scoring.means import Mean, Metric
from moa_cli.core.errors import BenchError
from moa_cli.core.installation import install_command

OFFICIAL = "LC win rate (alpaca_eval)"


def with_official(scores: Scores, data: Path | None) -> Scores:
    """The scores, with alpaca_eval's figure after each one of our own fit. alpaca_eval runs in a
    separate process, because it is large and changes settings of modules that it imports.

    data: see `scores_of`. Raises BenchError if alpaca_eval is not installed, or fails.
    """
    known = find_spec("alpaca_eval")
    # A folder with that name, such as that of its data, is found as a package without an origin.
    if known is None or known.origin is None:
        command = install_command("alpaca")
        raise BenchError("--official needs alpaca_eval", hint=f"install it with: {command}")
    arms = [*scores.arms, *scores.anchors]
    names = [arm.arm for arm in arms if any(metric.name == OWN_FIT for metric in arm.metrics)]
    if scores.judge is None or not names:
        return scores
    run = read_run(scores.path, data)
    # alpaca_eval takes one annotation for each instruction, so the epochs are fitted one by one.
    keys = {
        f"{number} {epoch}": (name, epoch)
        for number, name in enumerate(names)
        for epoch in range(1, scores.epochs + 1)
    }
    rows = {key: _rows(run, scores.judge.model, *asking) for key, asking in keys.items()}
    rows = {key: known for key, known in rows.items() if known}
    told = _fitted({"gamed": str(run.data_file(*DIFFICULTY)), "arms": rows})
    by_name: dict[str, list[float]] = {}
    for key, value in told["arms"].items():
        by_name.setdefault(keys[key][0], []).append(value)
    found = {name: fmean(values) for name, values in by_name.items()}
    note = (
        f"{OFFICIAL}: the value is that of alpaca_eval {told['version']}, the standard error that"
        " of our own fit"
        + (", and the value is the mean of the epochs'" if scores.epochs > 1 else "")
    )
    return replace(
        scores,
        arms=tuple(_beside(arm, found) for arm in scores.arms),
        anchors=tuple(_beside(arm, found) for arm in scores.anchors),
        notes=(*scores.notes, note),
    )


def _rows(run: RunReader, judge: str, name: str, epoch: int) -> list[dict[str, Any]]:
    """The results of an arm in an epoch as alpaca_eval's annotations. `output_2` is the one that is
    judged."""
    reader = run.judge(judge)
    against = reader.settings.against

    def reference(item: str) -> tuple[str, str]:
        # Released answers are stored once for all epochs, under the id in the dataset.
        return (REFERENCE, origin_of(item)) if against is None else (against, item)

    texts = {name: replies[0] for name, replies in run.shown(reader).items()}
    verdicts = [verdict for verdict in reader.judgements if verdict.arm == name]
    preferences = preferences_of(verdicts, kind_of(reader).games)
    return [
        {
            "index": int(origin_of(item)),
            "preference": preference,
            "generator_1": "reference",
            "generator_2": name,
            "output_1": texts[reference(item)],
            "output_2": texts[name, item],
        }
        for item, preference in preferences.items()
        if preference is not None
        and epoch_of(item) == epoch
        and (name, item) in texts
        and reference(item) in texts
    ]


def _fitted(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Run `official_fit` on this input. Returns its output. Raises BenchError if it fails."""
    program = Path(__file__).with_name("official_fit.py")
    # -P keeps the program's folder off the import path: its modules could hide others.
    done = subprocess.run(
        [sys.executable, "-P", str(program)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed no error"])[-1]
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
