"""The parts that all charts share: intervals, axes, text, legends, and the SVG around them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from moa_cli.core.sanitize import one_line

# The width of every chart, in SVG units; a page scales it.
WIDTH = 720.0
SIZE = 13.0
# The upper margin of a chart.
TOP = 4.0
# The page's style sheet has this many colours, as the classes `s0` to `s7`.
COLOURS = 8
# The assumed width of a letter, relative to the font size. It is rather wide for sans-serif fonts,
# so that labels do not overlap.
_ADVANCE = 0.58
_NOTHING = 1e-9
_MOST_DECIMALS = 6
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Interval:
    """A number and half the width of its 95 % interval; None if that is unknown.

    ends: both ends of the interval, if it is not symmetric.
    """

    value: float
    half: float | None = None
    ends: tuple[float, float] | None = None

    @property
    def low(self) -> float:
        return self.ends[0] if self.ends else self.value - (self.half or 0.0)

    @property
    def high(self) -> float:
        return self.ends[1] if self.ends else self.value + (self.half or 0.0)


@dataclass(frozen=True)
class ChartSeries:
    """Values with one colour and name. values: an interval or None for each place of the chart."""

    name: str
    values: Sequence[Interval | None]


@dataclass(frozen=True)
class Axis:
    """A linear scale from `low` to `high` with its ticks. title: what it shows, with its unit."""

    title: str
    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float, start: float, end: float) -> float:
        """The position of a value between `start` and `end`; at an end if the value is beyond the
        scale."""
        share = (value - self.low) / (self.high - self.low)
        return start + min(max(share, 0.0), 1.0) * (end - start)

    def tick(self, value: float) -> str:
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        if not math.isclose(step, round(step, decimals)):
            decimals += 1
        return f"{value:,.{decimals}f}" if decimals < _MOST_DECIMALS else f"{value:.6g}"


def axis(
    title: str,
    intervals: Iterable[Interval | None],
    *,
    floor: float = -math.inf,
    ceiling: float = math.inf,
    whole: bool = False,
) -> Axis:
    """An axis that covers all intervals.

    floor, ceiling: the lowest and the highest possible value. whole: begin at `floor`, and end at
    `ceiling` if it is finite.
    """
    known = [interval for interval in intervals if interval is not None]
    low = max(floor, min((interval.low for interval in known), default=0.0))
    high = min(ceiling, max((interval.high for interval in known), default=1.0))
    if whole:
        low, high = floor, ceiling if math.isfinite(ceiling) else high
    if high - low < max(_NOTHING, 1e-6 * abs(high)):
        # All values are equal, so leave some room around them.
        room = abs(high) / 10 if abs(high) > _NOTHING else 1.0
        low, high = max(floor, low - room), min(ceiling, high + room)
    step = _step((high - low) / 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [number * step for number in range(first, last + 1)]
    inside = tuple(tick for tick in ticks if floor <= tick <= ceiling)
    return Axis(title, max(floor, ticks[0]), min(ceiling, ticks[-1]), inside)


def _step(rough: float) -> float:
    """The next round number, such as 2.5 or 50, that is not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in _STEPS if step * power >= rough * (1 - 1e-9))


def text_width(text: str, size: float = SIZE) -> float:
    """The estimated width of a line of text, rather too large than too small."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return size * (_ADVANCE * (len(text) - wide) + wide)


def cut(text: str, room: float) -> str:
    """Untrusted text on one line. If it is wider than `room`, an ellipsis replaces its middle,
    because models of one family differ at the ends of their names."""
    known = one_line(text)
    if text_width(known) <= room:
        return known
    for keep in range(len(known) - 1, 1, -1):
        short = known[: keep // 2] + "…" + known[len(known) - (keep - keep // 2) :]
        if text_width(short) <= room:
            return short
    return "…"


def label(
    x: float, y: float, text: str, *, anchor: str = "start", kind: str = "", full: str = ""
) -> str:
    """A text. y: its vertical middle. kind: CSS classes. full: the text before it was cut, which is
    shown as a tooltip."""
    shown = escape(one_line(text))
    title = f"<title>{escape(one_line(full))}</title>" if full and full != text else ""
    classes = f' class="{kind}"' if kind else ""
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" dy="0.35em" text-anchor="{anchor}"{classes}>'
        f"{shown}{title}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" class="{kind}"/>'


def marker(x: float, y: float, place: int, size: float = 5.0) -> str:
    """The mark of the series with that number. Its shape differs as well as its colour, for readers
    who do not see colours."""
    shape = (place + place // COLOURS) % 4
    kind = f"mark s{place % COLOURS}" + (" hollow" if place % COLOURS >= 4 else "")
    if shape == 0:
        return f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{size:.2f}" class="{kind}"/>'
    corners = {
        1: ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        2: ((0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
        3: ((0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)),
    }[shape]
    points = " ".join(f"{x + size * dx:.2f},{y + size * dy:.2f}" for dx, dy in corners)
    return f'<polygon points="{points}" class="{kind}"/>'


def legend(names: Sequence[str]) -> tuple[list[str], float]:
    """Rows of names with their marks, for the top of a chart, and the y at which they end."""
    parts = []
    x, y = 8.0, TOP + 10.0
    for place, name in enumerate(names):
        short = cut(name, WIDTH / 2 - 40)
        width = 20.0 + text_width(short) + 16.0
        if x > 8.0 and x + width > WIDTH:
            x, y = 8.0, y + 20.0
        parts += [marker(x + 6, y, place), label(x + 18, y, short, full=name)]
        x += width
    return parts, y + 14.0


def grid_and_ticks(
    known: Axis, start: float, end: float, top: float, bottom: float, *, upright: bool
) -> list[str]:
    """The grid of an axis, its ticks' numbers and its title.

    The axis runs from `start` to `end`, below the plot or, if `upright`, to the left of it. `top`
    and `bottom` are the limits of the plot across the axis; for an upright axis they are its left
    and right limits.
    """
    parts = []
    for tick in known.ticks:
        place = known.at(tick, start, end)
        if upright:
            parts.append(line(top, place, bottom, place, "grid"))
            parts.append(label(top - 8, place, known.tick(tick), anchor="end", kind="tick"))
        else:
            parts.append(line(place, top, place, bottom, "grid"))
            parts.append(label(place, bottom + 13, known.tick(tick), anchor="middle", kind="tick"))
    if upright:
        parts.append(label(8, end - 16, known.title, kind="axis"))
    else:
        parts.append(label(end, bottom + 34, known.title, anchor="end", kind="axis"))
    return parts


def description(
    name: str, places: Sequence[str], series: Sequence[ChartSeries], digits: int
) -> str:
    """The content of a chart in words, for readers who do not see it."""
    said = []
    for row in series:
        for place, known in zip(places, row.values, strict=True):
            if known is None:
                continue
            words = f"{row.name}, {place}: {known.value:.{digits}f}"
            if known.half is not None:
                words += f" (95 % interval {known.low:.{digits}f} to {known.high:.{digits}f})"
            said.append(words)
    return f"{name}. " + "; ".join(said) + "."


def svg(name: str, title: str, words: str, height: float, parts: Iterable[str]) -> str:
    """A complete chart. name: unique on its page; it has only letters, digits and hyphens."""
    inside = "\n".join(parts)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:.0f} {math.ceil(height)}" role="img"'
        f' aria-labelledby="{name}-title {name}-desc" xmlns="http://www.w3.org/2000/svg">\n'
        f'<title id="{name}-title">{escape(one_line(title))}</title>\n'
        f'<desc id="{name}-desc">{escape(one_line(words))}</desc>\n{inside}\n</svg>\n'
    )
