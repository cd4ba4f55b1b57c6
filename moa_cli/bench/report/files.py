"""A report as Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from moa_cli.bench.report.scores import ArmScores, Metric, Scores
from moa_cli.bench.report.sections import Section, Table, published_table, run_names
from moa_cli.bench.scoring.means import Mean
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import dumps
from moa_cli.documents.markdown import escaped

__all__ = ["csv_text", "json_text", "markdown"]

_HEADS = (
    "run",
    "arm",
    "metric",
    "category",
    "value",
    "standard error",
    "n",
    "asked",
    "judge",
    "date",
)


def markdown(sections: Sequence[Section], *, published: bool) -> str:
    """The report as a Markdown document."""
    parts = ["# Evaluation"]
    for section in sections:
        parts.append(f"## {escaped(section.dataset)}")
        parts += map(_markdown_table, section.tables)
        if section.notes:
            parts.append("\n".join(f"- {escaped(one)}" for one in section.notes))
        if published and section.published:
            parts.append(f"## {escaped(section.dataset)}: published figures")
            parts += [_markdown_table(published_table(one)) for one in section.published]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    rule = ["---" if place < table.keys else "---:" for place in range(len(table.heads))]
    cells = [[escaped(one) for one in row] for row in (table.heads, *table.rows)]
    rows = [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]
    parts = [f"**{escaped(table.title)}**", "\n".join(rows), *map(escaped, table.notes)]
    return "\n\n".join(parts)


def json_text(runs: Sequence[Scores], sections: Sequence[Section], *, published: bool) -> str:
    """All numbers, as precise as they are known."""
    table: dict[str, Any] = {
        "runs": [
            {
                "run": name,
                "path": str(one.path),
                "dataset": one.dataset,
                "asked": one.asked,
                "whole": one.whole,
                "judge": asdict(one.judge) if one.judge else None,
                "arms": list(map(_arm, one.arms)),
                "anchors": list(map(_arm, one.anchors)),
                "notes": list(one.notes),
            }
            for name, one in zip(run_names(runs), runs, strict=True)
        ]
    }
    if published:
        table["published"] = [
            {
                "dataset": one.dataset,
                "title": one.title,
                "judged": one.judged,
                "source": one.source,
                "note": one.note,
                "columns": list(one.columns),
                "rows": [
                    {
                        "name": name,
                        "figures": [
                            {"value": value, "spread": spread} for value, spread in figures
                        ],
                    }
                    for name, figures in one.rows
                ],
            }
            for section in sections
            for one in section.published
        ]
    return dumps(table, indent=2) + "\n"


def _arm(arm: ArmScores) -> dict[str, Any]:
    return {
        "arm": arm.arm,
        "metrics": list(map(_metric, arm.metrics)),
        "by_category": {
            category: list(map(_metric, found)) for category, found in arm.by_category.items()
        },
        "answered": arm.answered,
        "failed": arm.failed,
        "usage": asdict(arm.usage),
        "cost_per_item": _mean(arm.cost_per_item),
        "seconds_path": _mean(arm.seconds_path),
        "seconds_sum": _mean(arm.seconds_sum),
    }


def _metric(metric: Metric) -> dict[str, Any]:
    partial = metric.mean.n < metric.asked
    named = {"name": metric.name, "unit": metric.unit}
    return {**named, **_mean(metric.mean), "asked": metric.asked, "partial": partial}


def _mean(mean: Mean) -> dict[str, Any]:
    return {"value": mean.value, "standard_error": mean.standard_error, "n": mean.n}


def csv_text(runs: Sequence[Scores]) -> str:
    """A row for each metric of each arm; by category too, and what an item cost and took."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADS)
    for name, one in zip(run_names(runs), runs, strict=True):
        for arm in (*one.arms, *one.anchors):
            for row in _csv_rows(name, one, arm):
                writer.writerow([_csv_cell(cell) for cell in row])
    return text.getvalue()


def _csv_rows(run: str, scores: Scores, arm: ArmScores) -> Iterator[list[object]]:
    judge = [scores.judge.model, scores.judge.date] if scores.judge else ["", ""]
    groups: Iterable[tuple[str, Sequence[Metric]]] = (("", arm.metrics), *arm.by_category.items())
    for category, metrics in groups:
        for one in metrics:
            mean = one.mean
            found = [f"{one.name} ({one.unit})", category, mean.value, mean.standard_error, mean.n]
            yield [run, arm.arm, *found, one.asked, *judge]
    own = {
        "cost per item (USD)": arm.cost_per_item,
        "seconds per item, critical path": arm.seconds_path,
        "seconds per item, sum of calls": arm.seconds_sum,
    }
    for metric, mean in own.items():
        if mean.n:
            spread = [mean.value, mean.standard_error, mean.n]
            yield [run, arm.arm, metric, "", *spread, scores.asked, "", ""]


def _csv_cell(cell: object) -> object:
    return one_line(cell) if isinstance(cell, str) else cell
