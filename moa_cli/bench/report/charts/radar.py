"""Several scores of each arm around a centre."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moa_cli.bench.report.charts.drawing import (
    COLOURS,
    WIDTH,
    Axis,
    Series,
    cut,
    label,
    legend,
    line,
    marker,
    svg,
    told,
)

__all__ = ["radar"]

_RADIUS = 190.0


def radar(
    name: str,
    title: str,
    places: Sequence[str],
    series: Sequence[Series],
    scale: Axis,
    *,
    digits: int = 2,
) -> str:
    """A spoke for each of `places` (three at least), a polygon for each series; it is open
    where a value lacks."""
    parts, top = legend([one.name for one in series], 4.0)
    centre = (WIDTH / 2, top + _RADIUS + 36.0)
    angles = [2 * math.pi * number / len(places) for number in range(len(places))]
    for tick in scale.ticks:
        ring = " ".join(_at(centre, scale.at(tick, 0, _RADIUS), one) for one in angles)
        parts.append(f'<polygon points="{ring}" class="ring"/>')
    for place, angle in zip(places, angles, strict=True):
        x, y = _point(centre, _RADIUS, angle)
        parts.append(line(*centre, x, y, "grid"))
        parts.append(_name(place, _point(centre, _RADIUS + 16, angle)))
    for number, one in enumerate(series):
        parts += _polygon(one, number, centre, angles, scale)
    for tick in scale.ticks[1:]:
        x, y = _point(centre, scale.at(tick, 0, _RADIUS), 0.0)
        parts.append(label(x - 6, y, scale.tick(tick), anchor="end", kind="tick"))
    parts.append(label(8, centre[1] + _RADIUS + 40, scale.title, kind="axis"))
    height = centre[1] + _RADIUS + 56
    return svg(name, title, told(title, places, series, digits), height, parts)


def _polygon(
    known: Series,
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
            ends = (scale.at(one, 0, _RADIUS) for one in (value.low, value.high))
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
