"""The charts of a section of a report."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from moa_cli.bench.judge.pairwise import OWN_FIT
from moa_cli.bench.report.charts import bars, lines, radar, scatter
from moa_cli.bench.report.drawing import Axis, ChartSeries, Interval, axis
from moa_cli.bench.report.official import OFFICIAL
from moa_cli.bench.report.scores import ArmScores
from moa_cli.bench.report.sections import ArmRow, ReportSection, digits_of
from moa_cli.bench.scoring.means import Mean, Metric
from moa_cli.profile import short_name

# Of the normal distribution, for 95 %.
_QUANTILE = 1.96
_TOP = {"%": 100.0, "of 10": 10.0, "of 5": 5.0}
# Metrics that stand side by side as bars, under a caption.
_RATES = (("win rate", OWN_FIT, OFFICIAL), "Win rate")
_TURNS = (("turn 1", "turn 2", "average"), "Rating")
_ACCURACY = (("accuracy",), "Accuracy of the replies")
# What stands for an arm's quality, the first that there is.
_QUALITY = (OFFICIAL, OWN_FIT, "win rate", "average", "mean", "accuracy")
_LAYER = re.compile(r"accuracy, layer (\d+), mean")
_LEAST_SPOKES = 3


def charts_of(section: ReportSection, name: str) -> Iterator[tuple[str, str]]:
    """Caption and SVG of each chart. name: unique on the page, for the SVGs' ids."""
    rows = [row for row in section.rows if row.arm.metrics]
    labels = _labels(rows)
    judged = f", {section.judged}" if section.judged else ""
    makers: tuple[_Maker, ...] = (
        partial(_bars_of, *_RATES, 50.0),
        partial(_bars_of, *_TURNS, None),
        _skills,
        partial(_bars_of, *_ACCURACY, None),
        _layers,
        _by_category,
        partial(_against, "cost", "USD per item", lambda arm: arm.cost_per_item),
        partial(
            _against,
            "seconds",
            "seconds per item, critical path",
            lambda arm: arm.seconds_path,
        ),
    )
    for number, make in enumerate(makers):
        for caption, drawn in make(rows, labels, f"{name}-{number}"):
            yield f"{caption}{judged}", drawn


_Charts = Iterator[tuple[str, str]]
# The charts of these rows, with their labels; the last argument is a name for the SVG's ids.
_Maker = Callable[[Sequence[ArmRow], Sequence[str], str], _Charts]


def _labels(rows: Sequence[ArmRow]) -> list[str]:
    """The rows' names with short names of models, where those tell them apart."""
    short = []
    for row in rows:
        kind, colon, model = row.arm.arm.partition(":")
        own = f"{kind}: {short_name(model)}" if colon else kind
        short.append(row.name.removesuffix(row.arm.arm) + own)
    return [
        name if short.count(name) == 1 else row.name for row, name in zip(rows, short, strict=True)
    ]


def _bars_of(
    metrics: Sequence[str],
    caption: str,
    mark: float | None,
    rows: Sequence[ArmRow],
    labels: Sequence[str],
    name: str,
) -> _Charts:
    """Bars of those of the metrics that there are, grouped by arm."""
    found = {metric: [_interval_of(_find(row.arm, metric)) for row in rows] for metric in metrics}
    there = [metric for metric, values in found.items() if any(values)]
    if not there:
        return
    unit = next(known.unit for row in rows if (known := _find(row.arm, there[0])))
    series = [ChartSeries(metric, found[metric]) for metric in there]
    scale = _whole_axis(f"{there[0] if len(there) == 1 else caption} ({unit})", unit)
    yield (
        f"{caption}, with 95 % intervals",
        bars(name, caption, labels, series, scale, digits=digits_of(unit), mark=mark),
    )


def _skills(rows: Sequence[ArmRow], labels: Sequence[str], name: str) -> _Charts:
    places = list(
        dict.fromkeys(
            metric.name
            for row in rows
            for metric in row.arm.metrics
            if metric.unit == "of 5" and metric.name != "mean" and _interval_of(metric)
        )
    )
    if len(places) < _LEAST_SPOKES:
        return
    series = [
        ChartSeries(label, [_interval_of(_find(row.arm, place)) for place in places])
        for row, label in zip(rows, labels, strict=True)
    ]
    scale = Axis("score, 1 to 5", 1.0, 5.0, (1.0, 2.0, 3.0, 4.0, 5.0))
    title = "Scores by skill"
    yield f"{title}, with 95 % intervals", radar(name, title, places, series, scale)


def _layers(rows: Sequence[ArmRow], labels: Sequence[str], name: str) -> _Charts:
    found = [
        {
            int(match[1]): _interval_of(metric)
            for metric in row.arm.metrics
            if _interval_of(metric) and (match := _LAYER.fullmatch(metric.name))
        }
        for row in rows
    ]
    numbers = sorted({number for layers in found for number in layers})
    if not numbers:
        return
    series = [
        ChartSeries(label, [*map(layers.get, numbers), _interval_of(_find(row.arm, "accuracy"))])
        for row, label, layers in zip(rows, labels, found, strict=True)
    ]
    places = [*(f"layer {number}, mean" for number in numbers), "reply"]
    scale = axis("accuracy (%)", _flat(series), floor=0.0, ceiling=100.0)
    title = "Accuracy by layer"
    yield f"{title}, with 95 % intervals", lines(name, title, places, series, scale)


def _by_category(rows: Sequence[ArmRow], labels: Sequence[str], name: str) -> _Charts:
    first = [_first_by_category(row.arm) for row in rows]
    categories = list(dict.fromkeys(category for found in first for category in found))
    if not categories:
        return
    known = next(metric for found in first for metric in found.values())
    series = [
        ChartSeries(label, [_interval_of(found.get(category)) for category in categories])
        for label, found in zip(labels, first, strict=True)
    ]
    title = f"By category: {known.name}"
    scale = _whole_axis(f"{known.name} ({known.unit})", known.unit)
    digits = digits_of(known.unit)
    drawn = bars(name, title, categories, series, scale, digits=digits)
    yield f"{title}, with 95 % intervals", drawn


def _first_by_category(arm: ArmScores) -> dict[str, Metric]:
    return {
        category: found[0]
        for category, found in arm.by_category.items()
        if found and _interval_of(found[0])
    }


def _against(
    what: str,
    title: str,
    taken: Callable[[ArmScores], Mean],
    rows: Sequence[ArmRow],
    labels: Sequence[str],
    name: str,
) -> _Charts:
    """Quality against what it takes."""
    quality = next((name for name in _QUALITY if any(_find(row.arm, name) for row in rows)), None)
    points = []
    unit = ""
    for row, label in zip(rows, labels, strict=True):
        metric = _find(row.arm, quality) if quality else None
        across, upright = _interval(taken(row.arm)), _interval_of(metric)
        if metric is not None and across is not None and upright is not None:
            points.append((label, across, upright))
            unit = metric.unit
    if not any(across.value for _, across, _ in points):
        return
    upper = axis(
        f"{quality} ({unit})",
        [tall for _, _, tall in points],
        floor=0.0,
        ceiling=_TOP.get(unit, math.inf),
    )
    below = axis(title, [Interval(0.0), *(flat for _, flat, _ in points)], floor=0.0)
    largest = max(across.value for _, across, _ in points)
    digits = min(8, max(1, 2 - math.floor(math.log10(largest))))
    caption = f"Quality against {what}"
    drawn = scatter(name, caption, points, below, upper, digits=(digits, digits_of(unit)))
    yield f"{caption}, with 95 % intervals", drawn


def _whole_axis(title: str, unit: str) -> Axis:
    """From nothing to the most that there can be."""
    return axis(title, (), floor=0.0, ceiling=_TOP.get(unit, 1.0), whole=True)


def _find(arm: ArmScores, name: str) -> Metric | None:
    return next((metric for metric in arm.metrics if metric.name == name), None)


def _interval_of(metric: Metric | None) -> Interval | None:
    return None if metric is None else _interval(metric.mean)


def _interval(mean: Mean) -> Interval | None:
    if mean.value is None or not math.isfinite(mean.value):
        return None
    error = mean.standard_error
    known = error is not None and math.isfinite(error)
    return Interval(mean.value, _QUANTILE * error if known and error is not None else None)


def _flat(series: Sequence[ChartSeries]) -> Iterator[Interval | None]:
    for row in series:
        yield from row.values
