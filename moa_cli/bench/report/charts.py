"""Draws charts as inline SVG: bars, points, lines and radar. The page's style sheet sets colours
and fonts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from moa_cli.bench.report.drawing import (
    COLOURS,
    SIZE,
    TOP,
    WIDTH,
    Axis,
    ChartSeries,
    Interval,
    cut,
    description,
    grid_and_ticks,
    label,
    legend,
    line,
    marker,
    svg,
    text_width,
)

_MOST_LABEL = 250.0
_TALL = 300.0
_EDGE = 20.0
_RADIUS = 190.0


def bars(
    name: str,
    title: str,
    groups: Sequence[str],
    series: Sequence[ChartSeries],
    scale: Axis,
    *,
    digits: int = 1,
    mark: float | None = None,
) -> str:
    """A group of bars for each of `groups`, with one bar of each series.

    The number and its interval are beside its bar. digits: how many decimal places they have. mark:
    a value to compare with, such as 50 % for a draw.
    """
    parts, top = legend([row.name for row in series]) if len(series) > 1 else ([], TOP)
    numbers = [_number(value, digits) for row in series for value in row.values]
    left = min(_MOST_LABEL, max((text_width(group) for group in groups), default=0.0)) + 12.0
    right = WIDTH - max((text_width(number, 12) for number in numbers), default=0.0) - 10.0
    pitch = 20.0 if len(series) < 4 else 15.0
    tall, gap = pitch * len(series), 12.0
    top += gap
    bottom = top + (tall + gap) * len(groups)
    parts += grid_and_ticks(scale, left, right, top - gap / 2, bottom, upright=False)
    at = partial(scale.at, start=left, end=right)
    if mark is not None:
        parts.append(line(at(mark), top - gap / 2, at(mark), bottom, "compare"))
    for number, group in enumerate(groups):
        y = top + (tall + gap) * number
        short = cut(group, left - 12.0)
        parts.append(label(left - 10, y + tall / 2, short, anchor="end", full=group))
        for place, row in enumerate(series):
            known, middle = row.values[number], y + pitch * (place + 0.5)
            if known is not None:
                end, thick = at(known.value), pitch - 4
                parts.append(
                    f'<rect x="{left:.2f}" y="{middle - thick / 2:.2f}" width="{end - left:.2f}"'
                    f' height="{thick:.2f}" class="bar s{place % COLOURS}"/>'
                )
                parts += _interval(known, middle, at, "whisker", upright=False)
            parts.append(label(right + 8, middle, _number(known, digits), kind="number"))
    parts.append(line(left, top - gap / 2, left, bottom, "base"))
    words = description(title, groups, series, digits)
    return svg(name, title, words, bottom + 34 + SIZE, parts)


def _number(known: Interval | None, digits: int) -> str:
    if known is None:
        return "–"
    value = f"{known.value:.{digits}f}"
    if known.half is None:
        return value
    return f"{value} [{known.low:.{digits}f}, {known.high:.{digits}f}]"


def scatter(
    name: str,
    title: str,
    points: Sequence[tuple[str, Interval, Interval]],
    across: Axis,
    upright: Axis,
    *,
    digits: tuple[int, int] = (1, 1),
    front: Sequence[int] = (),
) -> str:
    """A point for each name, at its values on both axes. digits: decimal places of both values in
    the description. front: the indexes of the points on the Pareto front, in order; a line joins
    them."""
    parts, top = legend([point for point, _, _ in points])
    left, right, top, bottom = _plot(upright, top, across.tick(across.ticks[-1]))
    parts += grid_and_ticks(upright, bottom, top, left, right, upright=True)
    parts += grid_and_ticks(across, left, right, top, bottom, upright=False)
    at_x = partial(across.at, start=left, end=right)
    at_y = partial(upright.at, start=bottom, end=top)
    ends = [(at_x(points[place][1].value), at_y(points[place][2].value)) for place in front]
    parts += [line(*start, *end, "compare") for start, end in pairwise(ends)]
    for place, (_, flat, tall) in enumerate(points):
        x, y = at_x(flat.value), at_y(tall.value)
        colour = f"whisker s{place % COLOURS}"
        parts += _interval(flat, y, at_x, colour, upright=False)[:1]
        parts += _interval(tall, x, at_y, colour, upright=True)
        parts.append(marker(x, y, place, 6.0))
    said = "; ".join(
        f"{point}: {across.title} {flat.value:.{digits[0]}f},"
        f" {upright.title} {tall.value:.{digits[1]}f}"
        for point, flat, tall in points
    )
    if len(front) > 1:
        said += f". The line is the Pareto front: {', '.join(points[place][0] for place in front)}"
    return svg(name, title, f"{title}. {said}.", bottom + 34 + SIZE, parts)


def lines(
    name: str, title: str, places: Sequence[str], series: Sequence[ChartSeries], upright: Axis
) -> str:
    """A line for each series through its values at `places`, which are in order from left to
    right."""
    parts, top = legend([row.name for row in series])
    left, right, top, bottom = _plot(upright, top)
    parts += grid_and_ticks(upright, bottom, top, left, right, upright=True)
    at = partial(upright.at, start=bottom, end=top)
    room = (right - left) / len(places)
    middles = [left + room * (number + 0.5) for number in range(len(places))]
    for x, place in zip(middles, places, strict=True):
        parts.append(label(x, bottom + 13, cut(place, room), anchor="middle", kind="tick"))
    for number, row in enumerate(series):
        # Shifted sideways, so that the intervals of series do not overlap.
        shift = (number - (len(series) - 1) / 2) * min(9.0, room / (2 * len(series)))
        colour = f"s{number % COLOURS}"
        known = [
            (x + shift, at(value.value), value)
            for x, value in zip(middles, row.values, strict=True)
            if value is not None
        ]
        if len(known) > 1:
            way = " ".join(f"{x:.2f},{y:.2f}" for x, y, _ in known)
            parts.append(f'<polyline points="{way}" class="way {colour}"/>')
        for x, y, value in known:
            parts += _interval(value, x, at, f"whisker {colour}", upright=True)
            parts.append(marker(x, y, number))
    parts.append(line(left, bottom, right, bottom, "base"))
    return svg(name, title, description(title, places, series, 1), bottom + 24 + SIZE, parts)


def _plot(upright: Axis, top: float, last: str = "") -> tuple[float, float, float, float]:
    """Left, right, top and bottom of the area for points. last: the label at the right end of the
    horizontal axis."""
    left = max(text_width(upright.tick(tick), 12) for tick in upright.ticks) + 16.0
    top += 30.0
    return left, WIDTH - max(_EDGE, text_width(last, 12) / 2), top, top + _TALL


def _interval(
    known: Interval, middle: float, at: Callable[[float], float], kind: str, *, upright: bool
) -> list[str]:
    """Three lines: the interval and its two end caps. middle: their position across the axis. at:
    gives the position of a value on the axis."""
    if known.half is None:
        return []
    low, high = at(known.low), at(known.high)
    ends_of = [(low, middle, high, middle)]
    ends_of += [(end, middle - 3, end, middle + 3) for end in (low, high)]
    if upright:
        ends_of = [(y1, x1, y2, x2) for x1, y1, x2, y2 in ends_of]
    return [line(*points, kind) for points in ends_of]


def radar(
    name: str, title: str, places: Sequence[str], series: Sequence[ChartSeries], scale: Axis
) -> str:
    """A spoke for each of `places` (at least three), and a polygon for each series. A series with a
    missing value is an open line."""
    parts, top = legend([row.name for row in series])
    centre = (WIDTH / 2, top + _RADIUS + 36.0)
    angles = [2 * math.pi * number / len(places) for number in range(len(places))]
    away = partial(scale.at, start=0, end=_RADIUS)
    for tick in scale.ticks:
        corners = (_point(centre, away(tick), angle) for angle in angles)
        ring = " ".join(f"{x:.2f},{y:.2f}" for x, y in corners)
        parts.append(f'<polygon points="{ring}" class="ring"/>')
    for place, angle in zip(places, angles, strict=True):
        x, y = _point(centre, _RADIUS, angle)
        parts.append(line(*centre, x, y, "grid"))
        parts.append(_name(place, _point(centre, _RADIUS + 16, angle)))
    for number, row in enumerate(series):
        colour = f"s{number % COLOURS}"
        marks, tips = [], []
        for value, angle in zip(row.values, angles, strict=True):
            if value is None:
                continue
            x, y = _point(centre, away(value.value), angle)
            tips.append(f"{x:.2f},{y:.2f}")
            marks.append(marker(x, y, number, 3.5))
            if value.half is not None:
                low, high = (_point(centre, away(edge), angle) for edge in (value.low, value.high))
                parts.append(line(*low, *high, f"whisker thin {colour}"))
        if len(tips) > 1:
            shape = "polygon" if len(tips) == len(angles) else "polyline"
            parts.append(f'<{shape} points="{" ".join(tips)}" class="way {colour}"/>')
        parts += marks
    for tick in scale.ticks[1:]:
        x, y = _point(centre, away(tick), 0.0)
        parts.append(label(x - 6, y, scale.tick(tick), anchor="end", kind="tick"))
    parts.append(label(8, centre[1] + _RADIUS + 40, scale.title, kind="axis"))
    height = centre[1] + _RADIUS + 56
    return svg(name, title, description(title, places, series, 2), height, parts)


def _name(place: str, at: tuple[float, float]) -> str:
    """The label of a spoke at its outer end, on the side of the chart where the spoke is."""
    x, y = at
    if abs(x - WIDTH / 2) < 1:
        return label(x, y, cut(place, WIDTH / 2), anchor="middle", kind="tick", full=place)
    right = x > WIDTH / 2
    short = cut(place, (WIDTH - x if right else x) - 4)
    return label(x, y, short, anchor="start" if right else "end", kind="tick", full=place)


def _point(centre: tuple[float, float], away: float, angle: float) -> tuple[float, float]:
    return centre[0] + away * math.sin(angle), centre[1] - away * math.cos(angle)
