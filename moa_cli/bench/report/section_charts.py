"""The charts of a section of a report."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

from moa_cli.bench.report.charts.bars import bars
from moa_cli.bench.report.charts.drawing import Axis, Estimate, Series, axis
from moa_cli.bench.report.charts.points import lines, scatter
from moa_cli.bench.report.charts.radar import radar
from moa_cli.bench.report.measures import OWN_FIT
from moa_cli.bench.report.official import OFFICIAL
from moa_cli.bench.report.scores import ArmScores, Metric
from moa_cli.bench.report.sections import Row, Section, digits_of
from moa_cli.bench.scoring.means import Mean
from moa_cli.profile import short_name

__all__ = ["charts_of"]

# Of the normal distribution, for 95 %.
_QUANTILE = 1.96
_TOP = {"%": 100.0, "of 10": 10.0, "of 5": 5.0}
_RATES = ("win rate", OWN_FIT, OFFICIAL)
_TURNS = ("turn 1", "turn 2", "average")
# What stands for an arm's quality, the first that there is.
_QUALITY = (OFFICIAL, OWN_FIT, "win rate", "average", "mean", "accuracy")
_LAYER = re.compile(r"accuracy, layer (\d+), mean")
_LEAST_SPOKES = 3


def charts_of(section: Section, name: str) -> Iterator[tuple[str, str]]:
    """Caption and SVG of each chart. name: unique on the page, for the SVGs' ids."""
    rows = [one for one in section.rows if one.arm.metrics]
    labels = _labels(rows)
    judged = f", {section.judged}" if section.judged else ""
    makers = (_rates, _turns, _skills, _accuracy, _layers, _by_category, _costs, _seconds)
    for number, make in enumerate(makers):
        for caption, drawn in make(rows, labels, f"{name}-{number}"):
            yield f"{caption}{judged}", drawn


_Charts = Iterator[tuple[str, str]]


def _labels(rows: Sequence[Row]) -> list[str]:
    """The rows' names with short names of models, where those tell them apart."""
    short = []
    for row in rows:
        kind, colon, model = row.arm.arm.partition(":")
        own = f"{kind}: {short_name(model)}" if colon else kind
        short.append(row.name.removesuffix(row.arm.arm) + own)
    return [
        one if short.count(one) == 1 else row.name for row, one in zip(rows, short, strict=True)
    ]


def _bars_of(
    rows: Sequence[Row],
    labels: Sequence[str],
    name: str,
    metrics: Sequence[str],
    caption: str,
    mark: float | None = None,
) -> _Charts:
    """Bars of those of the metrics that there are, grouped by arm."""
    there = [one for one in metrics if any(_of(_find(row.arm, one)) for row in rows)]
    if not there:
        return
    unit = next(one.unit for row in rows for one in row.arm.metrics if one.name == there[0])
    series = [Series(one, [_of(_find(row.arm, one)) for row in rows]) for one in there]
    scale = _whole_axis(f"{there[0] if len(there) == 1 else caption} ({unit})", unit)
    yield (
        f"{caption}, with 95 % intervals",
        bars(name, caption, labels, series, scale, digits=digits_of(unit), mark=mark),
    )


def _rates(rows: Sequence[Row], labels: Sequence[str], name: str) -> _Charts:
    yield from _bars_of(rows, labels, name, _RATES, "Win rate", mark=50.0)


def _turns(rows: Sequence[Row], labels: Sequence[str], name: str) -> _Charts:
    yield from _bars_of(rows, labels, name, _TURNS, "Rating")


def _accuracy(rows: Sequence[Row], labels: Sequence[str], name: str) -> _Charts:
    yield from _bars_of(rows, labels, name, ("accuracy",), "Accuracy of the replies")


def _skills(rows: Sequence[Row], labels: Sequence[str], name: str) -> _Charts:
    places = list(
        dict.fromkeys(
            one.name
            for row in rows
            for one in row.arm.metrics
            if one.unit == "of 5" and one.name != "mean" and _of(one)
        )
    )
    if len(places) < _LEAST_SPOKES:
        return
    series = [
        Series(label, [_of(_find(row.arm, place)) for place in places])
        for row, label in zip(rows, labels, strict=True)
    ]
    scale = Axis("score, 1 to 5", 1.0, 5.0, (1.0, 2.0, 3.0, 4.0, 5.0))
    title = "Scores by skill"
    yield f"{title}, with 95 % intervals", radar(name, title, places, series, scale)


def _layers(rows: Sequence[Row], labels: Sequence[str], name: str) -> _Charts:
    found = [
        {
            int(match[1]): one
            for one in row.arm.metrics
            if _of(one) and (match := _LAYER.fullmatch(one.name))
        }
        for row in rows
    ]
    numbers = sorted({number for one in found for number in one})
    if not numbers:
        return
    series = [
        Series(label, [*(_of(layers.get(one)) for one in numbers), _of(_find(row.arm, "accuracy"))])
        for row, label, layers in zip(rows, labels, found, strict=True)
    ]
    places = [*(f"layer {one}, mean" for one in numbers), "reply"]
    scale = axis("accuracy (%)", _flat(series), floor=0.0, ceiling=100.0)
    title = "Accuracy by layer"
    yield f"{title}, with 95 % intervals", lines(name, title, places, series, scale)


def _by_category(rows: Sequence[Row], labels: Sequence[str], name: str) -> _Charts:
    first = [_first_by_category(row.arm) for row in rows]
    categories = list(dict.fromkeys(category for one in first for category in one))
    if not categories:
        return
    known = next(one[category] for one in first for category in one)
    series = [
        Series(label, [_of(one.get(category)) for category in categories])
        for label, one in zip(labels, first, strict=True)
    ]
    title = f"By category: {known.name}"
    scale = _whole_axis(f"{known.name} ({known.unit})", known.unit)
    digits = digits_of(known.unit)
    drawn = bars(name, title, categories, series, scale, digits=digits)
    yield f"{title}, with 95 % intervals", drawn


def _first_by_category(arm: ArmScores) -> dict[str, Metric]:
    return {
        category: found[0] for category, found in arm.by_category.items() if found and _of(found[0])
    }


def _costs(rows: Sequence[Row], labels: Sequence[str], name: str) -> _Charts:
    yield from _against(rows, labels, name, "cost", "USD per item", lambda arm: arm.cost_per_item)


def _seconds(rows: Sequence[Row], labels: Sequence[str], name: str) -> _Charts:
    title = "seconds per item, critical path"
    yield from _against(rows, labels, name, "seconds", title, lambda arm: arm.seconds_path)


def _against(
    rows: Sequence[Row],
    labels: Sequence[str],
    name: str,
    what: str,
    title: str,
    taken: Callable[[ArmScores], Mean],
) -> _Charts:
    """Quality against what it takes."""
    quality = next((one for one in _QUALITY if any(_find(row.arm, one) for row in rows)), None)
    points = []
    unit = ""
    for row, label in zip(rows, labels, strict=True):
        metric = _find(row.arm, quality) if quality else None
        across, upright = _estimate(taken(row.arm)), _of(metric)
        if metric is not None and across is not None and upright is not None:
            points.append((label, across, upright))
            unit = metric.unit
    if not any(across.value for _, across, _ in points):
        return
    upper = axis(
        f"{quality} ({unit})",
        [one for _, _, one in points],
        floor=0.0,
        ceiling=_TOP.get(unit, math.inf),
    )
    below = axis(title, [Estimate(0.0), *(one for _, one, _ in points)], floor=0.0)
    largest = max(across.value for _, across, _ in points)
    digits = min(8, max(1, 2 - math.floor(math.log10(largest))))
    caption = f"Quality against {what}"
    drawn = scatter(name, caption, points, below, upper, digits=(digits, digits_of(unit)))
    yield f"{caption}, with 95 % intervals", drawn


def _whole_axis(title: str, unit: str) -> Axis:
    """From nothing to the most that there can be."""
    return axis(title, (), floor=0.0, ceiling=_TOP.get(unit, 1.0), whole=True)


def _find(arm: ArmScores, name: str) -> Metric | None:
    return next((one for one in arm.metrics if one.name == name), None)


def _of(metric: Metric | None) -> Estimate | None:
    return None if metric is None else _estimate(metric.mean)


def _estimate(mean: Mean) -> Estimate | None:
    if mean.value is None or not math.isfinite(mean.value):
        return None
    error = mean.standard_error
    known = error is not None and math.isfinite(error)
    return Estimate(mean.value, _QUANTILE * error if known and error is not None else None)


def _flat(series: Sequence[Series]) -> Iterator[Estimate | None]:
    for one in series:
        yield from one.values
