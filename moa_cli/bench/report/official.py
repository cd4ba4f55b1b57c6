"""Length-controlled win rates by alpaca_eval itself, beside those of our own fit."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from moa_cli.bench.data.datasets import data_file
from moa_cli.bench.data.json_lines import read_table
from moa_cli.bench.judge.judgements import (
    JUDGE_FILE,
    REFERENCE,
    judge_folder,
    read_judgements,
    read_texts,
)
from moa_cli.bench.report.measures import DIFFICULTY, OWN_FIT
from moa_cli.bench.report.scores import ArmScores, Metric, Scores
from moa_cli.bench.run.folder import read_results, read_settings
from moa_cli.bench.scoring.means import Mean
from moa_cli.core.errors import BenchError
from moa_cli.core.installation import install_command

__all__ = ["OFFICIAL", "with_official"]

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
    names = [one.arm for one in arms if any(metric.name == OWN_FIT for metric in one.metrics)]
    if scores.judge is None or not names:
        return scores
    rows = dict(_rows(scores, scores.judge.model, names))
    file = data_file(read_settings(scores.path), data, *DIFFICULTY)
    told = _fitted({"gamed": str(file), "arms": rows})
    found: Mapping[str, float] = told["arms"]
    note = (
        f"{OFFICIAL}: the value is that of alpaca_eval {told['version']}, the standard error that"
        " of our own fit"
    )
    return replace(
        scores,
        arms=tuple(_beside(one, found) for one in scores.arms),
        anchors=tuple(_beside(one, found) for one in scores.anchors),
        notes=(*scores.notes, note),
    )


def _rows(
    scores: Scores, judge: str, names: list[str]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """For each arm what alpaca_eval calls annotations: `output_2` is judged."""
    folder = judge_folder(scores.path, judge)
    against = read_table(folder / JUDGE_FILE).get("against")
    texts = {
        (one.arm, one.item): one.replies[0]
        for one in (*read_results(scores.path), *read_texts(folder).values())
        if one.replies
    }
    verdicts = read_judgements(folder)
    for name in names:
        yield (
            name,
            [
                {
                    "index": int(one.item),
                    "preference": one.value,
                    "generator_1": "reference",
                    "generator_2": name,
                    "output_1": texts[against or REFERENCE, one.item],
                    "output_2": texts[name, one.item],
                }
                for one in verdicts
                if one.arm == name
                and one.value is not None
                and (name, one.item) in texts
                and (against or REFERENCE, one.item) in texts
            ],
        )


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
    for one in arm.metrics:
        metrics.append(one)
        value = found.get(arm.arm, math.nan)
        if one.name == OWN_FIT and math.isfinite(value):
            mean = Mean(value, one.mean.standard_error, one.mean.n)
            metrics.append(replace(one, name=OFFICIAL, mean=mean))
    return replace(arm, metrics=tuple(metrics))
