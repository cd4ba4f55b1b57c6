"""The results of a sweep: a table of its runs, and a chart of the score by what was varied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from moa_cli.bench.report.charts import bars, lines
from moa_cli.bench.report.differences import scale_of
from moa_cli.bench.report.drawing import Axis, ChartSeries, Interval, axis
from moa_cli.bench.report.scores import ArmScores, Scores
from moa_cli.bench.report.section_charts import mean_interval, metric_interval
from moa_cli.bench.report.sections import TextTable, quality_of
from moa_cli.bench.report.writers import figure_page
from moa_cli.core.money import usd
from moa_cli.profile import short_name

_COST = "cost of an item"


@dataclass(frozen=True)
class SweepRun:
    """A run of a sweep. proposals: how many each layer has; None if that was not varied.
    aggregator: its model; None if that was not varied. scores: the results of the run."""

    proposals: int | None
    aggregator: str | None
    scores: Scores

    @property
    def arm(self) -> ArmScores:
        return next(arm for arm in self.scores.arms if arm.arm == "mixture")


def sweep_table(runs: Sequence[SweepRun]) -> TextTable:
    """A row for each run: what was varied, its score, and its costs."""
    quality = quality_of([run.arm for run in runs])
    unit = next((metric.unit for run in runs if (metric := run.arm.metric(quality))), "")
    rows = [tuple(cell for _, cell in _cells(run, quality, unit)) for run in runs]
    heads = tuple(head for head, _ in _cells(runs[0], quality, unit))
    keys = sum(head in ("proposals", "aggregator") for head in heads)
    return TextTable("Runs; mean ± standard error", heads, rows=tuple(rows), keys=keys)


def _cells(run: SweepRun, quality: str, unit: str) -> Iterator[tuple[str, str]]:
    """The head and the cell of each column."""
    if run.proposals is not None:
        yield "proposals", str(run.proposals)
    if run.aggregator is not None:
        yield "aggregator", run.aggregator
    if quality:
        metric = run.arm.metric(quality)
        yield f"{quality} ({unit})", "–" if metric is None else metric.mean.text(2)
        found = _value(run, quality)
        yield (
            "95 %",
            "–" if found is None or found.half is None else f"{found.low:.2f} to {found.high:.2f}",
        )
    yield "answered", f"{run.arm.answered:,}"
    yield "failed", f"{run.arm.failed:,}"
    yield "calls", f"{run.arm.usage.calls:,}"
    cost, seconds = run.arm.cost_per_item.value, run.arm.seconds_path.value
    yield "cost/item", "–" if cost is None else usd(cost)
    yield "s/item", "–" if seconds is None else f"{seconds:.1f}"


def sweep_page(dataset: str, runs: Sequence[SweepRun], notes: Sequence[str]) -> str:
    """A web page in a single file, with the chart and the table."""
    caption, drawn = _chart(runs)
    title = f"{dataset}: sweep"
    return figure_page(title, caption, drawn, sweep_table(runs), notes)


def _chart(runs: Sequence[SweepRun]) -> tuple[str, str]:
    """A chart of each run's score or, without scores, the cost of an item. It has a line over the
    number of proposals for each aggregator, or a bar for each aggregator."""
    quality = quality_of([run.arm for run in runs])
    title = quality or _COST
    unit = next((metric.unit for run in runs if (metric := run.arm.metric(quality))), "USD")
    by_place = {(run.proposals, run.aggregator): _value(run, quality) for run in runs}
    numbers = list(dict.fromkeys(run.proposals for run in runs))
    models = list(dict.fromkeys(run.aggregator for run in runs))
    scale = _scale(f"{title} ({unit})", unit, list(by_place.values()))
    caption = f"{title[0].upper()}{title[1:]} by "
    if numbers == [None]:
        values = [by_place.get((None, model)) for model in models]
        names = [short_name(model or "") for model in models]
        caption += "aggregator, with 95 % intervals"
        digits = 1 if quality else 4
        series = [ChartSeries(title, values)]
        return caption, bars("sweep", caption, names, series, scale, digits=digits)
    series = [
        ChartSeries(
            short_name(model) if model else "mixture",
            [by_place.get((number, model)) for number in numbers],
        )
        for model in models
    ]
    caption += "proposals of a layer" + (" and aggregator" if models != [None] else "")
    caption += ", with 95 % intervals"
    return caption, lines("sweep", caption, [str(number) for number in numbers], series, scale)


def _scale(title: str, unit: str, values: Sequence[Interval | None]) -> Axis:
    if scale := scale_of(unit):
        return axis(title, values, floor=0.0, ceiling=scale[1])
    return axis(title, values, floor=0.0, whole=True)


def _value(run: SweepRun, quality: str) -> Interval | None:
    """The score of a run or, without scores, the cost of an item."""
    if quality:
        metric = run.arm.metric(quality)
        if metric is None:
            return None
        return metric_interval(replace(metric, mean=metric.mean.of_items(run.scores.epochs)))
    return mean_interval(run.arm.cost_per_item)
