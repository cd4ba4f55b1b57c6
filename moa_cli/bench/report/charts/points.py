"""Points with intervals: one quantity against another, and along an order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
    marker,
    svg,
    text_width,
    told,
)

__all__ = ["lines", "scatter"]

_TALL = 300.0
_EDGE = 20.0


def scatter(
    name: str,
    title: str,
    points: Sequence[tuple[str, Estimate, Estimate]],
    across: Axis,
    upright: Axis,
    *,
    digits: tuple[int, int] = (1, 1),
) -> str:
    """A point for each name, with what it has across and upright. digits: of both, in words."""
    parts, top = legend([one for one, _, _ in points], 4.0)
    left, right, top, bottom = _plot(upright, top, across.tick(across.ticks[-1]))
    parts += grid_and_ticks(upright, bottom, top, left, right, upright=True)
    parts += grid_and_ticks(across, left, right, top, bottom, upright=False)
    for place, (_, one, other) in enumerate(points):
        x, y = across.at(one.value, left, right), upright.at(other.value, bottom, top)
        colour = f"whisker s{place % COLOURS}"
        if one.half is not None:
            ends = [across.at(end, left, right) for end in (one.low, one.high)]
            parts.append(line(ends[0], y, ends[1], y, colour))
        parts += _upright_interval(other, x, upright, (bottom, top), colour)
        parts.append(marker(x, y, place, 6.0))
    kinds = [f"{across.title} {one.value:.{digits[0]}f}" for _, one, _ in points]
    said = "; ".join(
        f"{who}: {kind}, {upright.title} {other.value:.{digits[1]}f}"
        for (who, _, other), kind in zip(points, kinds, strict=True)
    )
    return svg(name, title, f"{title}. {said}.", bottom + 34 + SIZE, parts)


def lines(
    name: str,
    title: str,
    places: Sequence[str],
    series: Sequence[Series],
    upright: Axis,
    *,
    digits: int = 1,
) -> str:
    """A line for each series through its values at `places`, which are in order."""
    parts, top = legend([one.name for one in series], 4.0)
    left, right, top, bottom = _plot(upright, top)
    parts += grid_and_ticks(upright, bottom, top, left, right, upright=True)
    room = (right - left) / len(places)
    middles = [left + room * (number + 0.5) for number in range(len(places))]
    for x, place in zip(middles, places, strict=True):
        parts.append(label(x, bottom + 13, cut(place, room), anchor="middle", kind="tick"))
    for number, one in enumerate(series):
        # Beside each other, so that intervals can be told apart.
        shift = (number - (len(series) - 1) / 2) * min(9.0, room / (2 * len(series)))
        colour = f"s{number % COLOURS}"
        known = [
            (x + shift, upright.at(value.value, bottom, top), value)
            for x, value in zip(middles, one.values, strict=True)
            if value is not None
        ]
        if len(known) > 1:
            way = " ".join(f"{x:.2f},{y:.2f}" for x, y, _ in known)
            parts.append(f'<polyline points="{way}" class="way {colour}"/>')
        for x, y, value in known:
            parts += _upright_interval(value, x, upright, (bottom, top), f"whisker {colour}")
            parts.append(marker(x, y, number))
    parts.append(line(left, bottom, right, bottom, "base"))
    return svg(name, title, told(title, places, series, digits), bottom + 24 + SIZE, parts)


def _plot(upright: Axis, top: float, last: str = "") -> tuple[float, float, float, float]:
    """Left, right, top and bottom of where points may be. last: below its right end."""
    left = max(text_width(upright.tick(one), 12) for one in upright.ticks) + 16.0
    top += 30.0
    return left, WIDTH - max(_EDGE, text_width(last, 12) / 2), top, top + _TALL


def _upright_interval(
    known: Estimate, x: float, scale: Axis, ends: tuple[float, float], kind: str
) -> Iterator[str]:
    if known.half is None:
        return
    low, high = (scale.at(one, *ends) for one in (known.low, known.high))
    yield line(x, low, x, high, kind)
    yield line(x - 3, low, x + 3, low, kind)
    yield line(x - 3, high, x + 3, high, kind)
