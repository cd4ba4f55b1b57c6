"""The charts of a section of a report."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from moa_cli.bench.judge.arena import SCORE, STYLE_SCORE
from moa_cli.bench.judge.pairwise import OWN_FIT
from moa_cli.bench.report.budget import pareto_front
from moa_cli.bench.report.charts import bars, lines, radar, scatter
from moa_cli.bench.report.differences import scale_of
from moa_cli.bench.report.drawing import Axis, ChartSeries, Interval, axis
from moa_cli.bench.report.official import OFFICIAL
from moa_cli.bench.report.scores import ArmScores
from moa_cli.bench.report.sections import ArmRow, ReportSection, digits_of, quality_of
from moa_cli.bench.scoring.means import Mean, Metric
from moa_cli.bench.scoring.statistics import QUANTILE, interval_of
from moa_cli.profile import short_name

_LAYER = re.compile(r"accuracy, layer (\d+), mean")


def charts_of(section: ReportSection, name: str) -> Iterator[tuple[str, str]]:
    """The caption and the SVG of each chart. name: unique on the page, for the SVGs' ids."""
    rows = [row for row in section.rows if row.arm.metrics]
    arms = list(zip(_labels(rows), map(_by_item, rows), strict=True))
    judged = f", {section.judged}" if section.judged else ""
    makers: tuple[_Maker, ...] = (
        partial(_bars_of, ("win rate", OWN_FIT, OFFICIAL), "Win rate", 50.0),
        partial(_bars_of, (SCORE, STYLE_SCORE), "Score against the baseline", 50.0),
        partial(_bars_of, ("turn 1", "turn 2", "average"), "Rating", None),
        _skills,
        partial(_bars_of, ("accuracy",), "Accuracy of the replies", None),
        _layers,
        _by_category,
        partial(_against, "cost", "USD per item", "cost_per_item"),
        partial(_against, "tokens", "tokens per item", "tokens_per_item"),
        partial(_against, "computation", "TFLOPs per item, critical path", "tflops_per_item"),
        partial(_against, "seconds", "seconds per item, critical path", "seconds_path"),
    )
    for number, make in enumerate(makers):
        for caption, drawn in make(arms, f"{name}-{number}"):
            yield f"{caption}, with 95 % intervals{judged}", drawn


def _by_item(row: ArmRow) -> ArmScores:
    """The row's scores, with intervals that take all epochs of an item as one observation."""
    epochs = 1 if row.arm in row.scores.anchors else row.scores.epochs
    metrics = tuple(replace(told, mean=told.mean.of_items(epochs)) for told in row.arm.metrics)
    by_category = {
        name: tuple(replace(told, mean=told.mean.of_items(epochs)) for told in found)
        for name, found in row.arm.by_category.items()
    }
    return replace(row.arm, metrics=metrics, by_category=by_category)


_Charts = Iterator[tuple[str, str]]
# Arms with their labels.
_Arms = Sequence[tuple[str, ArmScores]]
# A function that draws charts of arms. Its second argument is a name for the SVGs' ids.
_Maker = Callable[[_Arms, str], _Charts]


def _labels(rows: Sequence[ArmRow]) -> list[str]:
    """The rows' names. They have short names of models where these are unique."""
    short = []
    for row in rows:
        kind, colon, model = row.arm.arm.partition(":")
        own = f"{kind}: {short_name(model)}" if colon else kind
        short.append(row.name.removesuffix(row.arm.arm) + own)
    return [
        name if short.count(name) == 1 else row.name for row, name in zip(rows, short, strict=True)
    ]


def _bars_of(
    metrics: Sequence[str], caption: str, mark: float | None, arms: _Arms, name: str
) -> _Charts:
    """Bars of the given metrics, as far as arms have them, grouped by arm."""
    found = {metric: [metric_interval(arm.metric(metric)) for _, arm in arms] for metric in metrics}
    there = [metric for metric, values in found.items() if any(values)]
    if not there:
        return
    unit = next(known.unit for _, arm in arms if (known := arm.metric(there[0])))
    series = [ChartSeries(metric, found[metric]) for metric in there]
    scale = _whole_axis(f"{there[0] if len(there) == 1 else caption} ({unit})", unit)
    labels, digits = [label for label, _ in arms], digits_of(unit)
    yield caption, bars(name, caption, labels, series, scale, digits=digits, mark=mark)


def _skills(arms: _Arms, name: str) -> _Charts:
    found = (metric for _, arm in arms for metric in arm.metrics if metric.name != "mean")
    places = [metric.name for metric in found if metric.unit == "of 5" and metric_interval(metric)]
    places = list(dict.fromkeys(places))
    if len(places) < 3:
        return
    series = [
        ChartSeries(label, [metric_interval(arm.metric(place)) for place in places])
        for label, arm in arms
    ]
    scale = Axis("score, 1 to 5", 1.0, 5.0, (1.0, 2.0, 3.0, 4.0, 5.0))
    title = "Scores by skill"
    yield title, radar(name, title, places, series, scale)


def _layers(arms: _Arms, name: str) -> _Charts:
    found = [
        {
            int(match[1]): metric_interval(metric)
            for metric in arm.metrics
            if metric_interval(metric) and (match := _LAYER.fullmatch(metric.name))
        }
        for _, arm in arms
    ]
    numbers = sorted({number for layers in found for number in layers})
    if not numbers:
        return
    series = [
        ChartSeries(label, [*map(layers.get, numbers), metric_interval(arm.metric("accuracy"))])
        for (label, arm), layers in zip(arms, found, strict=True)
    ]
    places = [*(f"layer {number}, mean" for number in numbers), "reply"]
    values = (value for row in series for value in row.values)
    scale = axis("accuracy (%)", values, floor=0.0, ceiling=100.0)
    title = "Accuracy by layer"
    yield title, lines(name, title, places, series, scale)


def _by_category(arms: _Arms, name: str) -> _Charts:
    first = [
        {
            category: found[0]
            for category, found in arm.by_category.items()
            if found and metric_interval(found[0])
        }
        for _, arm in arms
    ]
    categories = list(dict.fromkeys(category for found in first for category in found))
    if not categories:
        return
    known = next(metric for found in first for metric in found.values())
    series = [
        ChartSeries(label, [metric_interval(found.get(category)) for category in categories])
        for (label, _), found in zip(arms, first, strict=True)
    ]
    title = f"By category: {known.name}"
    scale = _whole_axis(f"{known.name} ({known.unit})", known.unit)
    digits = digits_of(known.unit)
    yield title, bars(name, title, categories, series, scale, digits=digits)


def _against(what: str, title: str, field: str, arms: _Arms, name: str) -> _Charts:
    """A chart of the quality against a cost. what: the cost's name. field: the field of `ArmScores`
    that holds it."""
    quality = quality_of([arm for _, arm in arms])
    points = []
    unit = ""
    for label, arm in arms:
        metric = arm.metric(quality)
        across, upright = mean_interval(getattr(arm, field)), metric_interval(metric)
        if metric is not None and across is not None and upright is not None:
            points.append((label, across, upright))
            unit = metric.unit
    if not any(across.value for _, across, _ in points):
        return
    upper = axis(
        f"{quality} ({unit})",
        [tall for _, _, tall in points],
        floor=0.0,
        ceiling=(scale_of(unit) or (0.0, math.inf))[1],
    )
    below = axis(title, [Interval(0.0), *(flat for _, flat, _ in points)], floor=0.0)
    largest = max(across.value for _, across, _ in points)
    digits = min(8, max(1, 2 - math.floor(math.log10(largest))))
    caption = f"Quality against {what}"
    both = (digits, digits_of(unit))
    front = pareto_front([(across.value, tall.value) for _, across, tall in points])
    yield caption, scatter(name, caption, points, below, upper, digits=both, front=front)


def _whole_axis(title: str, unit: str) -> Axis:
    """An axis from 0 to the highest possible value of the unit."""
    _, most = scale_of(unit) or (0.0, 1.0)
    return axis(title, (), floor=0.0, ceiling=most, whole=True)


def metric_interval(metric: Metric | None) -> Interval | None:
    """The value of a metric with its 95 % interval, which is also valid if all answers are right or
    all are wrong; None if there is no value."""
    found = None if metric is None else mean_interval(metric.mean)
    scale = None if metric is None else scale_of(metric.unit)
    if metric is None or found is None or found.half is None or scale is None:
        return found
    ends = interval_of(metric.mean, *scale)
    return found if ends is None else replace(found, ends=(ends.low, ends.high))


def mean_interval(mean: Mean) -> Interval | None:
    """A mean with its 95 % interval; None if there is no value."""
    if mean.value is None or not math.isfinite(mean.value):
        return None
    error = mean.standard_error
    half = None if error is None or not math.isfinite(error) else QUANTILE * error
    return Interval(mean.value, half)
