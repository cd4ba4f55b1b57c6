"""What `moa bench judge` says: what is judged and how, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from moa_cli.bench.judge.judging import JudgeFolder, JudgePlan
from moa_cli.bench.report.scores import ArmScores, Scores
from moa_cli.bench.run.settings import RunSettings
from moa_cli.bench.scoring.means import Metric
from moa_cli.cli.bench.text import where
from moa_cli.core.sanitize import one_line
from moa_cli.terminal.table import Column, table_lines

__all__ = ["plan_lines", "score_lines"]

_LONGEST_NOTE: Final = 2000
# There are a dozen skills, and figures of layers: a report has room for them.
_SHORT: Final = (
    "win rate",
    "LC win rate (own fit)",
    "discrete win rate",
    "average",
    "turn 1",
    "turn 2",
    "mean",
    "accuracy",
)


def plan_lines(plan: JudgePlan, folder: JudgeFolder, settings: RunSettings) -> Iterator[str]:
    """What is judged, by whom and how, and what is there already. settings: the run's."""
    how, judged = plan.kind.how, plan.judged
    if plan.kind.compares:
        how = "pairs, by its text (discrete)" if plan.asked == "text" else how
        how += f", against {judged.source.name if judged.source else judged.against}"
    yield f"{settings.dataset.name}: {plan.model} judges {', '.join(judged.replies)}: {how}"
    asked = len(plan.items)
    for arm in settings.arms:
        there = len(judged.replies.get(arm, ()))
        if arm in judged.replies and there < asked:
            yield f"{arm} has {there:,} of {asked:,} answers: its scores will be partial"
    lacking = sum(plan.prompts.turns(item) == 0 for item in plan.items)
    if lacking:
        yield f"{lacking:,} of {asked:,} items have no reference, and are not judged"
    yield where(folder, folder.judgements.values(), "judgements")


def score_lines(scores: Scores, width: int) -> list[str]:
    """A table of the arms' main figures, who judged, and what is to be said beside them."""
    rows = [*scores.arms, *scores.anchors]
    named = [name for name in _SHORT if any(_metric(one, name) for one in rows)]
    columns = [Column("arm", [one.arm for one in rows], widest=40)]
    for name in named:
        found = [_metric(one, name) for one in rows]
        unit = next(one.unit for one in found if one)
        columns.append(Column(f"{name} ({unit})", list(map(_told, found)), widest=44))
    lines = table_lines(columns, width)
    if scores.judge is not None:
        lines.append(one_line(f"judged by {scores.judge.model}, {scores.judge.date}"))
    return [*lines, *(one_line(note, _LONGEST_NOTE) for note in scores.notes)]


def _metric(arm: ArmScores, name: str) -> Metric | None:
    return next((one for one in arm.metrics if one.name == name), None)


def _told(metric: Metric | None) -> str:
    """`57.2 ± 1.6 (n 805)`: the mean, its standard error, and how many it is made of."""
    if metric is None or metric.mean.value is None:
        return "–"
    mean = metric.mean
    error = "" if mean.standard_error is None else f" ± {mean.standard_error:.2f}"
    n = f"{mean.n:,} of {metric.asked:,}, partial" if metric.partial else f"n {mean.n:,}"
    return f"{mean.value:.2f}{error} ({n})"
