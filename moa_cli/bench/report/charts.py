"""The kinds of charts, as inline SVG that a page's style draws: bars, points, lines, radar."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from moa_cli.bench.report.drawing import (
    COLOURS,
    SIZE,
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

    The number and its interval stand beside its bar. digits: behind their points. mark: a value
    to compare with (50 % is a draw).
    """
    parts, top = legend([row.name for row in series], 4.0) if len(series) > 1 else ([], 4.0)
    numbers = [_number(value, digits) for row in series for value in row.values]
    left = min(_MOST_LABEL, max((text_width(group) for group in groups), default=0.0)) + 12.0
    right = WIDTH - max((text_width(number, 12) for number in numbers), default=0.0) - 10.0
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
        for place, row in enumerate(series):
            middle = y + pitch * (place + 0.5)
            parts += _bar(
                row.values[number], place, middle, pitch - 4, scale, (left, right), digits
            )
    parts.append(line(left, top - gap / 2, left, bottom, "base"))
    words = description(title, groups, series, digits)
    return svg(name, title, words, bottom + 34 + SIZE, parts)


def _bar(
    known: Interval | None,
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
        low, high = (scale.at(edge, left, right) for edge in (known.low, known.high))
        parts += [
            line(low, middle, high, middle, "whisker"),
            line(low, middle - 3, low, middle + 3, "whisker"),
            line(high, middle - 3, high, middle + 3, "whisker"),
        ]
    parts.append(label(right + 8, middle, _number(known, digits), kind="number"))
    return parts


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
) -> str:
    """A point for each name, with what it has across and upright. digits: of both, in words."""
    parts, top = legend([point for point, _, _ in points], 4.0)
    left, right, top, bottom = _plot(upright, top, across.tick(across.ticks[-1]))
    parts += grid_and_ticks(upright, bottom, top, left, right, upright=True)
    parts += grid_and_ticks(across, left, right, top, bottom, upright=False)
    for place, (_, flat, tall) in enumerate(points):
        x, y = across.at(flat.value, left, right), upright.at(tall.value, bottom, top)
        colour = f"whisker s{place % COLOURS}"
        if flat.half is not None:
            ends = [across.at(end, left, right) for end in (flat.low, flat.high)]
            parts.append(line(ends[0], y, ends[1], y, colour))
        parts += _upright_interval(tall, x, upright, (bottom, top), colour)
        parts.append(marker(x, y, place, 6.0))
    said = "; ".join(
        f"{point}: {across.title} {flat.value:.{digits[0]}f},"
        f" {upright.title} {tall.value:.{digits[1]}f}"
        for point, flat, tall in points
    )
    return svg(name, title, f"{title}. {said}.", bottom + 34 + SIZE, parts)


def lines(
    name: str,
    title: str,
    places: Sequence[str],
    series: Sequence[ChartSeries],
    upright: Axis,
    *,
    digits: int = 1,
) -> str:
    """A line for each series through its values at `places`, which are in order."""
    parts, top = legend([row.name for row in series], 4.0)
    left, right, top, bottom = _plot(upright, top)
    parts += grid_and_ticks(upright, bottom, top, left, right, upright=True)
    room = (right - left) / len(places)
    middles = [left + room * (number + 0.5) for number in range(len(places))]
    for x, place in zip(middles, places, strict=True):
        parts.append(label(x, bottom + 13, cut(place, room), anchor="middle", kind="tick"))
    for number, row in enumerate(series):
        # Beside each other, so that intervals can be told apart.
        shift = (number - (len(series) - 1) / 2) * min(9.0, room / (2 * len(series)))
        colour = f"s{number % COLOURS}"
        known = [
            (x + shift, upright.at(value.value, bottom, top), value)
            for x, value in zip(middles, row.values, strict=True)
            if value is not None
        ]
        if len(known) > 1:
            way = " ".join(f"{x:.2f},{y:.2f}" for x, y, _ in known)
            parts.append(f'<polyline points="{way}" class="way {colour}"/>')
        for x, y, value in known:
            parts += _upright_interval(value, x, upright, (bottom, top), f"whisker {colour}")
            parts.append(marker(x, y, number))
    parts.append(line(left, bottom, right, bottom, "base"))
    return svg(name, title, description(title, places, series, digits), bottom + 24 + SIZE, parts)


def _plot(upright: Axis, top: float, last: str = "") -> tuple[float, float, float, float]:
    """Left, right, top and bottom of where points may be. last: below its right end."""
    left = max(text_width(upright.tick(tick), 12) for tick in upright.ticks) + 16.0
    top += 30.0
    return left, WIDTH - max(_EDGE, text_width(last, 12) / 2), top, top + _TALL


def _upright_interval(
    known: Interval, x: float, scale: Axis, ends: tuple[float, float], kind: str
) -> Iterator[str]:
    if known.half is None:
        return
    low, high = (scale.at(edge, *ends) for edge in (known.low, known.high))
    yield line(x, low, x, high, kind)
    yield line(x - 3, low, x + 3, low, kind)
    yield line(x - 3, high, x + 3, high, kind)


def radar(
    name: str,
    title: str,
    places: Sequence[str],
    series: Sequence[ChartSeries],
    scale: Axis,
    *,
    digits: int = 2,
) -> str:
    """A spoke for each of `places` (three at least), a polygon for each series; it is open
    where a value lacks."""
    parts, top = legend([row.name for row in series], 4.0)
    centre = (WIDTH / 2, top + _RADIUS + 36.0)
    angles = [2 * math.pi * number / len(places) for number in range(len(places))]
    for tick in scale.ticks:
        ring = " ".join(_at(centre, scale.at(tick, 0, _RADIUS), angle) for angle in angles)
        parts.append(f'<polygon points="{ring}" class="ring"/>')
    for place, angle in zip(places, angles, strict=True):
        x, y = _point(centre, _RADIUS, angle)
        parts.append(line(*centre, x, y, "grid"))
        parts.append(_name(place, _point(centre, _RADIUS + 16, angle)))
    for number, row in enumerate(series):
        parts += _polygon(row, number, centre, angles, scale)
    for tick in scale.ticks[1:]:
        x, y = _point(centre, scale.at(tick, 0, _RADIUS), 0.0)
        parts.append(label(x - 6, y, scale.tick(tick), anchor="end", kind="tick"))
    parts.append(label(8, centre[1] + _RADIUS + 40, scale.title, kind="axis"))
    height = centre[1] + _RADIUS + 56
    return svg(name, title, description(title, places, series, digits), height, parts)


def _polygon(
    known: ChartSeries,
    number: int,
    centre: tuple[float, float],
    angles: Sequence[float],
    scale: Axis,
) -> list[str]:
    colour = f"s{number % COLOURS}"
    marks, corners, parts = [], [], []
    for value, angle in zip(known.values, angles, strict=True):
        if value is None:
            continue
        away = scale.at(value.value, 0, _RADIUS)
        corners.append(_at(centre, away, angle))
        marks.append(marker(*_point(centre, away, angle), number, 3.5))
        if value.half is not None:
            ends = (scale.at(edge, 0, _RADIUS) for edge in (value.low, value.high))
            (x1, y1), (x2, y2) = (_point(centre, end, angle) for end in ends)
            parts.append(line(x1, y1, x2, y2, f"whisker thin {colour}"))
    if len(corners) > 1:
        shape = "polygon" if len(corners) == len(angles) else "polyline"
        parts.append(f'<{shape} points="{" ".join(corners)}" class="way {colour}"/>')
    return parts + marks


def _name(place: str, at: tuple[float, float]) -> str:
    """The name of a spoke at its end, to the side that it is on."""
    x, y = at
    if abs(x - WIDTH / 2) < 1:
        return label(x, y, cut(place, WIDTH / 2), anchor="middle", kind="tick", full=place)
    right = x > WIDTH / 2
    short = cut(place, (WIDTH - x if right else x) - 4)
    return label(x, y, short, anchor="start" if right else "end", kind="tick", full=place)


def _point(centre: tuple[float, float], away: float, angle: float) -> tuple[float, float]:
    return centre[0] + away * math.sin(angle), centre[1] - away * math.cos(angle)


def _at(centre: tuple[float, float], away: float, angle: float) -> str:
    x, y = _point(centre, away, angle)
    return f"{x:.2f},{y:.2f}"
