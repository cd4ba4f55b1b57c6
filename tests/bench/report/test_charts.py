"""Charts: whatever the numbers, all that is drawn can be seen and read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.bench.report.charts import bars, lines, radar, scatter
from moa_cli.bench.report.drawing import Axis, ChartSeries, Interval, axis, text_width

_SVG = "{http://www.w3.org/2000/svg}"
_PLACES = ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "r")
_SHARE = st.floats(0, 100)
_ESTIMATES = st.builds(Interval, _SHARE, st.none() | st.floats(0, 30))
_NAMES = st.lists(st.text(max_size=60), min_size=1, max_size=8)
_SCORES = Axis("score", 1.0, 5.0, (1.0, 2.0, 3.0, 4.0, 5.0))


def parsed(text: str) -> ElementTree.Element:
    """The chart; its numbers are checked."""
    chart = ElementTree.fromstring(text)
    _, _, wide, high = map(float, chart.attrib["viewBox"].split())
    for shape in chart.iter():
        assert "nan" not in str(shape.attrib)
        points = [pair.split(",") for pair in shape.attrib.get("points", "").split()]
        xs = [float(shape.attrib[name]) for name in ("x", "x1", "x2", "cx") if name in shape.attrib]
        ys = [float(shape.attrib[name]) for name in ("y", "y1", "y2", "cy") if name in shape.attrib]
        xs += [float(x) for x, _ in points]
        ys += [float(y) for _, y in points]
        assert all(0 <= x <= wide for x in xs), shape.attrib
        assert all(0 <= y <= high for y in ys), shape.attrib
        assert all(float(shape.attrib.get(name, 0)) >= 0 for name in ("width", "height"))
    assert chart.find(f"{_SVG}title") is not None
    assert chart.findtext(f"{_SVG}desc")
    return chart


def boxes(chart: ElementTree.Element) -> Iterator[tuple[str, float, float, float, float]]:
    """Every label with the left, right, top and bottom that it takes at most."""
    for shape in chart.iter(f"{_SVG}text"):
        text = shape.text or ""
        x, y, wide = float(shape.attrib["x"]), float(shape.attrib["y"]), text_width(text, 12)
        left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[shape.attrib["text-anchor"]] * wide
        yield text, left, left + wide, y - 6, y + 6


def readable(text: str) -> ElementTree.Element:
    """The chart; no label leaves it or lies on another."""
    chart = parsed(text)
    found = [box for box in boxes(chart) if box[0].strip()]
    for name, left, right, top, bottom in found:
        assert left >= -0.5, name
        assert right <= 720.5, name
        assert top >= 0, name
        assert bottom <= float(chart.attrib["viewBox"].split()[3]), name
    for combination, other in combinations(found, 2):
        apart = (
            combination[2] <= other[1]
            or other[2] <= combination[1]
            or combination[4] <= other[3]
            or other[4] <= combination[3]
        )
        assert apart, (combination, other)
    return chart


def series(names: Sequence[str], places: int, draw: st.DataObject) -> list[ChartSeries]:
    """Values, or none, for each name and place."""
    values = st.lists(st.none() | _ESTIMATES, min_size=places, max_size=places)
    return [ChartSeries(name, draw.draw(values)) for name in names]


@given(_NAMES, _NAMES, st.data())
def test_bars_stay_within_their_chart(
    names: list[str], groups: list[str], draw: st.DataObject
) -> None:
    known = series(names, len(groups), draw)
    scale = axis("win rate (%)", (), floor=0.0, ceiling=100.0, whole=True)
    readable(bars("a", "Bars", groups, known, scale, mark=50.0))


@given(_NAMES, st.integers(1, 4), st.data())
def test_lines_stay_within_their_chart(names: list[str], places: int, draw: st.DataObject) -> None:
    known = series(names, places, draw)
    values = [value for point in known for value in point.values]
    scale = axis("accuracy (%)", values, floor=0.0, ceiling=100.0)
    readable(lines("a", "Lines", [f"layer {number}" for number in range(places)], known, scale))


@given(_NAMES, st.integers(3, 12), st.data())
def test_a_radar_stays_within_its_chart(names: list[str], places: int, draw: st.DataObject) -> None:
    known = series(names, places, draw)
    parsed(radar("a", "Radar", [f"skill {number}" for number in range(places)], known, _SCORES))


@given(st.lists(st.tuples(st.text(max_size=60), _ESTIMATES, _ESTIMATES), min_size=1, max_size=8))
def test_a_scatter_stays_within_its_chart(points: list[tuple[str, Interval, Interval]]) -> None:
    below = axis("USD", [Interval(0.0), *(point for _, point, _ in points)], floor=0.0)
    upper = axis("quality", [point for _, _, point in points], floor=0.0, ceiling=100.0)
    readable(scatter("a", "Scatter", points, below, upper))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1e3))
def test_an_axis_holds_all_values_on_round_ticks(values: list[float], half: float) -> None:
    known = [Interval(value, half) for value in values]
    scale = axis("x", known)
    slack = 1e-6 * (scale.high - scale.low)
    assert scale.low < scale.high
    assert all(scale.low - slack <= point.low for point in known)
    assert all(point.high <= scale.high + slack for point in known)
    assert 2 <= len(scale.ticks) <= 8
    assert len({scale.tick(tick) for tick in scale.ticks}) == len(scale.ticks)


@pytest.mark.parametrize("value", [0.0, 50.0, 100.0])
def test_equal_values_have_room_around_them(value: float) -> None:
    scale = axis("%", [Interval(value, 0.0)] * 3, floor=0.0, ceiling=100.0)
    assert scale.low < scale.high
    assert scale.low <= value <= scale.high


def test_a_bar_is_as_long_as_its_value_and_its_interval_lies_around_its_end() -> None:
    scale = axis("%", (), floor=0.0, ceiling=100.0, whole=True)
    known = [ChartSeries("win rate", [Interval(25.0, 5.0), Interval(50.0, 10.0)])]
    chart = readable(bars("a", "Bars", ["one", "other"], known, scale))
    rects = [shape.attrib for shape in chart.iter(f"{_SVG}rect")]
    first, second = (float(rect["width"]) for rect in rects)
    assert second == pytest.approx(2 * first, abs=0.02)
    left = float(rects[0]["x"])
    whiskers = [
        (float(shape.attrib["x1"]), float(shape.attrib["x2"]))
        for shape in chart.iter(f"{_SVG}line")
        if shape.attrib["class"] == "whisker" and shape.attrib["y1"] == shape.attrib["y2"]
    ]
    assert whiskers[0] == pytest.approx((left + first * 0.8, left + first * 1.2), abs=0.05)
    assert "25.0 [20.0, 30.0]" in [item.text for item in chart.iter(f"{_SVG}text")]
    assert "one: 25.0 (95 % interval 20.0 to 30.0)" in (chart.findtext(f"{_SVG}desc") or "")


def test_a_radar_puts_the_best_at_the_rim_and_the_worst_in_the_middle() -> None:
    known = [ChartSeries("best", [Interval(5.0)] * 12), ChartSeries("worst", [Interval(1.0)] * 12)]
    chart = parsed(radar("a", "Radar", [f"skill {number}" for number in range(12)], known, _SCORES))
    best, worst = (
        [tuple(map(float, pair.split(","))) for pair in shape.attrib["points"].split()]
        for shape in chart.iter(f"{_SVG}polygon")
        if shape.attrib["class"].startswith("way")
    )
    assert len(best) == 12
    assert len(set(worst)) == 1
    distances = [math.dist(item, worst[0]) for item in best]
    assert max(distances) - min(distances) < 0.05


def test_eight_series_differ_in_colour_and_in_shape_or_filling() -> None:
    points = [(f"arm {number}", Interval(number), Interval(number)) for number in range(8)]
    scale = axis("x", [point for _, point, _ in points])
    chart = parsed(scatter("a", "Scatter", points, scale, scale))
    marks = [
        (shape.tag, len(shape.attrib.get("points", "").split()), shape.attrib["class"])
        for shape in chart.iter()
        if "mark" in shape.attrib.get("class", "")
    ]
    # In the legend and in the plot.
    assert len(marks) == 16
    assert len({re.findall(r"s\d", kind)[0] for _, _, kind in marks}) == 8
    assert len({(tag, corners, "hollow" in kind) for tag, corners, kind in marks}) >= 6


def test_names_cannot_become_elements() -> None:
    name = '</text><script>alert(1)</script>"&\x1b[31m'
    scale = axis("%", (), floor=0.0, ceiling=100.0, whole=True)
    text = bars(
        "a", name, [name], [ChartSeries(name, [Interval(1.0)]), ChartSeries("b", [None])], scale
    )
    assert "<script" not in text
    assert "\x1b" not in text
    assert parsed(text).findtext(f"{_SVG}title") == '</text><script>alert(1)</script>"&'


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it, of `#rrggbb`."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("scheme", "paper"), [(0, "#ffffff"), (1, "#14171c")])
def test_colours_stand_out_from_the_paper_and_differ(scheme: int, paper: str) -> None:
    style = files("moa_cli.bench.report").joinpath("report.css").read_text("utf-8")
    roots = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = re.findall(r"--s\d: (#\w{6});", roots[scheme])
    assert len(set(colours)) == 8
    for colour in colours:
        low, high = sorted((luminance(colour), luminance(paper)))
        # What graphics need by WCAG 2.1, 1.4.11.
        assert (high + 0.05) / (low + 0.05) >= 3


def test_everything_drawn_has_a_style() -> None:
    style = files("moa_cli.bench.report").joinpath("report.css").read_text("utf-8")
    known = [ChartSeries(f"arm {number}", [Interval(number + 1.0, 0.5)] * 3) for number in range(8)]
    scale = axis("x", [Interval(0.0), Interval(9.0)])
    places = ["one", "two", "three"]
    points = [(point.name, Interval(1.0, 0.1), Interval(2.0, 0.1)) for point in known]
    drawn = (
        bars("a", "Bars", places, known, scale, mark=5.0)
        + lines("b", "Lines", places, known, scale)
        + radar("c", "Radar", places, known, scale)
        + scatter("d", "Scatter", points, scale, scale)
    )
    kinds = {kind for names in re.findall(r'class="([^"]*)"', drawn) for kind in names.split()}
    assert all(re.search(rf"\.{kind}\b", style) for kind in kinds), kinds
