"""Bars with intervals, lying, in groups."""

from __future__ import annotations

from collections.abc import Sequence

from moa_cli.bench.report.charts.drawing import (
    COLOURS,
    SIZE,
    WIDTH,
    Axis,
    Estimate,
    Series,
    cut,
    grid_and_ticks,
    label,
    legend,
    line,
    svg,
    text_width,
    told,
)

__all__ = ["bars"]

_MOST_LABEL = 250.0


def bars(
    name: str,
    title: str,
    groups: Sequence[str],
    series: Sequence[Series],
    scale: Axis,
    *,
    digits: int = 1,
    mark: float | None = None,
) -> str:
    """A group of bars for each of `groups`, with one bar of each series.

    The number and its interval stand beside its bar. digits: behind their points. mark: a value
    to compare with (50 % is a draw).
    """
    parts, top = legend([one.name for one in series], 4.0) if len(series) > 1 else ([], 4.0)
    numbers = [_number(one, digits) for known in series for one in known.values]
    left = min(_MOST_LABEL, max((text_width(one) for one in groups), default=0.0)) + 12.0
    right = WIDTH - max((text_width(one, 12) for one in numbers), default=0.0) - 10.0
    pitch = 20.0 if len(series) < 4 else 15.0
    tall, gap = pitch * len(series), 12.0
    top += gap
    bottom = top + (tall + gap) * len(groups)
    parts += grid_and_ticks(scale, left, right, top - gap / 2, bottom, upright=False)
    if mark is not None:
        at = scale.at(mark, left, right)
        parts.append(line(at, top - gap / 2, at, bottom, "compare"))
    for number, group in enumerate(groups):
        y = top + (tall + gap) * number
        short = cut(group, left - 12.0)
        parts.append(label(left - 10, y + tall / 2, short, anchor="end", full=group))
        for place, one in enumerate(series):
            middle = y + pitch * (place + 0.5)
            parts += _bar(
                one.values[number], place, middle, pitch - 4, scale, (left, right), digits
            )
    parts.append(line(left, top - gap / 2, left, bottom, "base"))
    description = told(title, groups, series, digits)
    return svg(name, title, description, bottom + 34 + SIZE, parts)


def _bar(
    known: Estimate | None,
    place: int,
    middle: float,
    thick: float,
    scale: Axis,
    ends: tuple[float, float],
    digits: int,
) -> list[str]:
    left, right = ends
    if known is None:
        return [label(right + 8, middle, "–", kind="number")]
    end = scale.at(known.value, left, right)
    parts = [
        f'<rect x="{left:.2f}" y="{middle - thick / 2:.2f}" width="{end - left:.2f}"'
        f' height="{thick:.2f}" class="bar s{place % COLOURS}"/>'
    ]
    if known.half is not None:
        low, high = (scale.at(one, left, right) for one in (known.low, known.high))
        parts += [
            line(low, middle, high, middle, "whisker"),
            line(low, middle - 3, low, middle + 3, "whisker"),
            line(high, middle - 3, high, middle + 3, "whisker"),
        ]
    parts.append(label(right + 8, middle, _number(known, digits), kind="number"))
    return parts


def _number(known: Estimate | None, digits: int) -> str:
    if known is None:
        return "–"
    value = f"{known.value:.{digits}f}"
    if known.half is None:
        return value
    return f"{value} [{known.low:.{digits}f}, {known.high:.{digits}f}]"
