"""Writes a report as Markdown, JSON, CSV, or a web page in a single file without scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple
from html import escape
from typing import Any

from moa_cli.bench.report.published import PublishedTable
from moa_cli.bench.report.scores import ArmScores, Scores
from moa_cli.bench.report.section_charts import charts_of
from moa_cli.bench.report.sections import (
    ArmRow,
    ReportSection,
    TextTable,
    published_table,
    run_names,
)
from moa_cli.bench.run.settings import JudgeSettings
from moa_cli.bench.scoring.means import Metric
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import dumps
from moa_cli.documents.markdown import escaped
from moa_cli.documents.web_page import CLOSING, opening

# Fields of `Scores` that are not copied to JSON as they are.
_UNTOLD = ("values", "origin", "epochs")
_HEADS = "run,arm,metric,category,value,standard error,n,asked,judge,date"


def markdown(sections: Sequence[ReportSection], *, published: bool) -> str:
    parts = ["# Evaluation"]
    for section in sections:
        parts.append(f"## {escaped(section.dataset)}")
        if section.conclusions:
            parts.append("\n".join(f"- {escaped(told)}" for told in section.conclusions))
        parts += map(_markdown_table, section.tables)
        if section.notes:
            parts.append("\n".join(f"- {escaped(note)}" for note in section.notes))
        if published and section.published:
            parts.append(f"## {escaped(section.dataset)}: published figures")
            parts += [_markdown_table(published_table(figures)) for figures in section.published]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: TextTable) -> str:
    rule = ["---" if place < table.keys else "---:" for place in range(len(table.heads))]
    cells = [[escaped(cell) for cell in row] for row in (table.heads, *table.rows)]
    rows = [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]
    parts = [f"**{escaped(table.title)}**", "\n".join(rows), *map(escaped, table.notes)]
    return "\n\n".join(parts)


def json_text(runs: Sequence[Scores], sections: Sequence[ReportSection], *, published: bool) -> str:
    """All numbers as JSON, without rounding."""
    table: dict[str, Any] = {
        "runs": [
            {
                "run": name,
                **{name: value for name, value in vars(run).items() if name not in _UNTOLD},
                "path": str(run.path),
                "judge": _judge(run.judge) if run.judge else None,
                "arms": list(map(_arm, run.arms)),
                "anchors": list(map(_arm, run.anchors)),
                **_epochs(run),
            }
            for name, run in zip(run_names(runs), runs, strict=True)
        ]
    }
    table["differences"] = [
        {"dataset": section.dataset, **found.to_dict()}
        for section in sections
        for found in section.differences
    ]
    if published:
        figures = [known for section in sections for known in section.published]
        table["published"] = list(map(_published, figures))
    return dumps(table, indent=2) + "\n"


def _epochs(run: Scores) -> dict[str, Any]:
    """The values by epoch of a run that asked its items several times; else empty."""
    if run.epochs == 1:
        return {}
    by_arm = {arm: asdict(figures) for arm, figures in run.by_epoch().items()}
    return {"epochs": {"asked": run.epochs, "unit": run.values.unit, "arms": by_arm}}


def _judge(judge: JudgeSettings) -> dict[str, Any]:
    return {"model": judge.model, "date": judge.date, "discrete": judge.discrete}


def _arm(arm: ArmScores) -> dict[str, Any]:
    by_category = {name: list(map(_metric, found)) for name, found in arm.by_category.items()}
    return {
        **asdict(arm),
        "metrics": list(map(_metric, arm.metrics)),
        "by_category": by_category,
        "cost_per_point": list(map(vars, arm.point_costs)),
    }


def _metric(metric: Metric) -> dict[str, Any]:
    named = {"name": metric.name, "unit": metric.unit}
    return {**named, **asdict(metric.mean), "asked": metric.asked, "partial": metric.partial}


def _published(known: PublishedTable) -> dict[str, Any]:
    values = {name: value for name, value in vars(known).items() if name != "digits"}
    rows = [
        {"name": name, "figures": [{"value": value, "spread": spread} for value, spread in figures]}
        for name, figures in known.rows
    ]
    return {**values, "rows": rows}


def csv_text(runs: Sequence[Scores], sections: Sequence[ReportSection] = ()) -> str:
    """A row for each metric of each arm, in all and by category, and for costs and seconds. Then a
    row for each difference between two arms."""
    text = io.StringIO()
    text.write(f"{_HEADS}\n")
    writer = csv.writer(text, lineterminator="\n")
    for name, run in zip(run_names(runs), runs, strict=True):
        for arm in (*run.arms, *run.anchors):
            for row in _csv_rows(run, arm):
                writer.writerow(_csv_cells((name, arm.arm, *row)))
    for section in sections:
        for arm_row in section.rows:
            for differing in _csv_differences(section, arm_row):
                writer.writerow(_csv_cells(differing))
    return text.getvalue()


def _csv_cells(cells: Iterable[object]) -> list[object]:
    return [one_line(cell) if isinstance(cell, str) else cell for cell in cells]


def _csv_differences(section: ReportSection, row: ArmRow) -> Iterator[tuple[object, ...]]:
    """A row for each arm that this arm is compared with."""
    scores = row.scores
    run = row.keys[0] if len(row.keys) > 1 else run_names([scores])[0]
    judge = (scores.judge.model, scores.judge.date) if scores.judge else ("", "")
    for found in section.differences:
        for pair in found.pairs:
            if pair.first.name == row.name:
                title = f"difference to {pair.second.name} ({found.unit})"
                mean = astuple(pair.found.difference)
                yield run, row.arm.arm, title, "", *mean, scores.askings, *judge


def _csv_rows(scores: Scores, arm: ArmScores) -> Iterator[tuple[object, ...]]:
    judge = (scores.judge.model, scores.judge.date) if scores.judge else ("", "")
    groups: Iterable[tuple[str, Sequence[Metric]]] = (("", arm.metrics), *arm.by_category.items())
    for category, metrics in groups:
        for metric in metrics:
            title = f"{metric.name} ({metric.unit})"
            yield title, category, *astuple(metric.mean), metric.asked, *judge
    for cost in arm.point_costs:
        if cost.value is not None:
            title = f"cost per {cost.point} (USD)"
            yield title, "", cost.value, "", arm.cost_per_item.n, scores.askings, *judge
    own = {
        "cost per item (USD)": arm.cost_per_item,
        "seconds per item, critical path": arm.seconds_path,
        "seconds per item, sum of calls": arm.seconds_sum,
    }
    for title, mean in own.items():
        if mean.n:
            yield title, "", *astuple(mean), scores.askings, "", ""


def page(sections: Sequence[ReportSection], *, published: bool) -> Iterator[str]:
    """The page, piece by piece. Every chart shows numbers that are also in a table."""
    yield opening("Evaluation", ("moa_cli.bench.report", "report.css"))
    yield "<header>\n<h1>Evaluation</h1>\n</header>\n"
    for number, section in enumerate(sections):
        yield f'<section class="dataset">\n<h2>{_plain(section.dataset)}</h2>\n'
        if section.judged:
            yield f'<p class="facts">{_plain(f"judged {section.judged}")}</p>\n'
        yield _html_notes(section.notes)
        yield _html_notes(section.conclusions)
        yield from map(_html_table, section.tables[:1])
        for caption, drawn in charts_of(section, f"chart-{number}"):
            title = _plain(caption)
            chart = _scrolled(title, drawn)
            yield f"<figure>\n<figcaption>{title}</figcaption>\n{chart}</figure>\n"
        yield from map(_html_table, section.tables[1:])
        yield "</section>\n"
        if published and section.published:
            yield '<section class="published">\n'
            yield f"<h2>{_plain(section.dataset)}: published figures</h2>\n"
            yield from map(_html_table, map(published_table, section.published))
            yield "</section>\n"
    yield CLOSING


def figure_page(
    title: str, caption: str, drawn: str, table: TextTable, notes: Iterable[str]
) -> str:
    """A page with one chart, the table of its numbers, and notes."""
    return "".join(
        (
            opening(one_line(title), ("moa_cli.bench.report", "report.css")),
            f"<header>\n<h1>{_plain(title)}</h1>\n</header>\n",
            f"<figure>\n<figcaption>{_plain(caption)}</figcaption>\n",
            f"{_scrolled(_plain(caption), drawn)}</figure>\n",
            _html_table(table),
            _html_notes(notes),
            CLOSING,
        )
    )


def _html_table(table: TextTable) -> str:
    title = _plain(table.title)
    parts = [
        f"<table>\n<caption>{title}</caption>",
        f"<thead>\n{_html_row(table.heads, table.keys, head=True)}</thead>\n<tbody>",
        *(_html_row(row, table.keys, head=False) for row in table.rows),
        "</tbody>\n</table>\n",
    ]
    return _scrolled(title, "\n".join(parts)) + _html_notes(table.notes)


def _scrolled(title: str, inside: str) -> str:
    """A box with a scroll bar for content that may be wider than the page. It has a tab stop, so
    that it can be scrolled with the keyboard."""
    return f'<div class="wide" role="group" tabindex="0" aria-label="{title}">\n{inside}</div>\n'


def _html_row(cells: Sequence[str], keys: int, *, head: bool) -> str:
    made = []
    for place, cell in enumerate(cells):
        scope = ' scope="col"' if head else ' scope="row"' if place < keys else ""
        kind = "" if place < keys else ' class="number"'
        tag = "th" if scope else "td"
        made.append(f"<{tag}{scope}{kind}>{_plain(cell)}</{tag}>")
    return f"<tr>{''.join(made)}</tr>\n"


def _html_notes(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{_plain(note)}</li>\n" for note in notes)
    return f'<ul class="notes">\n{items}</ul>\n' if items else ""


def _plain(text: str) -> str:
    return escape(one_line(text))
