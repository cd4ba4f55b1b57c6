"""`moa bench report` tells how arms differ, how sure that is, and what to take."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from moa_cli.bench.report.differences import ArmWorth, Differences, differences_of, position_note
from tests.support.bench.own_runs import write_lines
from tests.support.bench.scores import write_judgements, write_questions, write_run
from tests.support.command import Moa

SINGLE = "single:lab:a"


def told(moa: Moa, *folders: Path) -> list[dict[str, Any]]:
    """The differences in a report on these runs, as JSON."""
    ran = moa.run("bench", "report", *map(str, folders), "--format", "json")
    assert ran.code == 0, ran.err
    found: list[dict[str, Any]] = json.loads(ran.out)["differences"]
    return found


def priced(run: Path, arm: str, cost: float) -> None:
    """Give each answer of an arm that cost."""
    file = run / "items.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for row in rows:
        if row["arm"] == arm:
            row["usage"]["cost"] = cost
    write_lines(file, rows)


def worths(**values: list[float]) -> Differences:
    """The differences of arms with these right answers (%) and costs of a dollar each."""
    arms = [
        ArmWorth(
            name.replace("_", ":"),
            name.replace("_", ":"),
            {(str(n), 0): v for n, v in enumerate(found)},
            cost=float(place + 1),
        )
        for place, (name, found) in enumerate(values.items())
    ]
    found = differences_of("right answers, %", arms)
    assert found is not None
    return found


def test_a_report_says_in_plain_words_what_the_mixture_is_worth(moa: Moa) -> None:
    file = write_questions(moa.folder / "data", "gsm8k", 60)
    wrong = {"mixture": range(3), SINGLE: range(30), "single:lab:b": range(40)}
    run = write_run(moa.folder / "runs" / "clear", file, wrong)
    priced(run, "mixture", 0.0156)
    ran = moa.run("bench", "report", str(run))
    assert ran.code == 0, ran.err
    lines = ran.text.splitlines()
    assert (
        f"= mixture beats the best single model ({SINGLE}) by 45.0 ± 6.5 points at 5.2 times its"
        " cost"
    ) in lines
    assert "= on these prompts take mixture: it is shown to be better than all others" in lines
    assert "Paired differences ± standard error, right answers, %" in lines
    [row] = [line for line in lines if line.startswith("mixture") and "27/0/33" in line]
    assert row.split()[:2] == ["mixture", SINGLE]
    assert "45.0 ± 6.5" in row
    assert "<0.001" in row
    page = moa.run("bench", "report", str(run), "--format", "html").text
    markdown = moa.run("bench", "report", str(run), "--format", "markdown").text
    assert "at 5.2 times its cost" in page
    assert "at 5.2 times its cost" in markdown


def test_the_figures_are_those_of_scipy(moa: Moa) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    file = write_questions(moa.folder / "data", "mt", 8)
    ratings: dict[str, list[float | None]] = {
        "mixture": [9, 8, 9, 8, 7, 9, 10, None],
        "self": [7, 7, 8, 8, 8, 9, 6, 5],
    }
    run = write_run(moa.folder / "runs" / "rated", file, {"mixture": [], "self": []})
    write_judgements(run, ratings)
    [found] = told(moa, run)
    [pair] = found["pairs"]
    # Seven items have both; two turns of a conversation are one observation.
    first, second = ratings["mixture"][:7], ratings["self"][:7]
    test = stats.ttest_rel(first, second)
    assert (pair["items"], pair["better"], pair["worse"], pair["equal"]) == (7, 4, 1, 2)
    assert pair["z"] == pytest.approx(test.statistic)
    interval = test.confidence_interval(0.95)
    assert (pair["low"], pair["high"]) == pytest.approx((interval.low, interval.high))
    swaps = stats.permutation_test(
        ([a - b for a, b in zip(first, second, strict=True) if a and b],),
        sum,
        permutation_type="samples",
    )
    assert pair["p"] == pytest.approx(swaps.pvalue)


def test_none_right_is_not_zero_to_zero(moa: Moa) -> None:
    file = write_questions(moa.folder / "data", "gsm8k", 10)
    run = write_run(moa.folder / "runs" / "none", file, {"mixture": range(10), SINGLE: range(10)})
    [found] = told(moa, run)
    for arm in found["arms"]:
        assert (arm["value"], arm["low"]) == (0.0, 0.0)
        assert arm["high"] == pytest.approx(27.753, abs=0.001)
    [pair] = found["pairs"]
    assert pair["low"] < -20
    assert pair["high"] > 20
    assert pair["p"] == 1.0
    page = moa.run("bench", "report", str(run), "--format", "html").text
    assert "mixture: 0.0 (95 % interval 0.0 to 27.8)" in page


def test_few_items_show_nothing_and_say_how_many_would(moa: Moa) -> None:
    file = write_questions(moa.folder / "data", "gsm8k", 10)
    run = write_run(moa.folder / "runs" / "few", file, {"mixture": [1], SINGLE: [2, 3]})
    priced(run, "mixture", 0.006)
    [found] = told(moa, run)
    said, choice = found["conclusions"]
    assert f"between mixture and {SINGLE} no difference is shown at 2.0 times its cost" in said
    assert "10 items would show a difference of" in said
    [pair] = found["pairs"]
    needed = math.ceil(10 * (pair["detectable"] / pair["difference"]) ** 2)
    assert f"{needed:,} items one of 10.0" in said
    assert choice == (
        f"on these prompts take {SINGLE}: nothing that costs more is shown to be better"
    )


def test_a_small_part_of_a_cost_is_not_told_as_none(moa: Moa) -> None:
    file = write_questions(moa.folder / "data", "gsm8k", 10)
    run = write_run(moa.folder / "runs" / "cheap", file, {"mixture": [1], SINGLE: [2, 3]})
    priced(run, SINGLE, 0.5)
    priced(run, "mixture", 0.0156)
    lines = moa.run("bench", "report", str(run)).text.splitlines()
    assert f"between mixture and {SINGLE} no difference is shown at 0.031 times" in lines[1]
    [row] = [line for line in lines if re.match(rf"mixture +{SINGLE} ", line)]
    assert row.split()[-1] == "0.031"


def test_runs_over_the_same_items_are_compared_with_each_other(moa: Moa) -> None:
    file = write_questions(moa.folder / "data", "gsm8k", 20)
    one = write_run(moa.folder / "runs" / "one", file, {"mixture": [1]})
    two = write_run(moa.folder / "runs" / "two", file, {"mixture": [1, 2, 3]}, limit=10)
    [found] = told(moa, one, two)
    [pair] = found["pairs"]
    assert (pair["first"], pair["second"]) == ("one: mixture", "two: mixture")
    assert pair["items"] == 10
    assert pair["difference"] == pytest.approx(20.0)
    # Items of another file, or values by another judge, are not.
    other = write_questions(moa.folder / "other", "gsm8k", 30)
    three = write_run(moa.folder / "runs" / "three", other, {"mixture": [1]})
    assert all(not found["pairs"] for found in told(moa, one, three))


def test_a_csv_has_the_differences_too(moa: Moa) -> None:
    file = write_questions(moa.folder / "data", "gsm8k", 20)
    run = write_run(moa.folder / "runs" / "csv", file, {"mixture": [1], SINGLE: [1, 2]})
    text = moa.run("bench", "report", str(run), "--format", "csv").text
    assert f'csv,mixture,"difference to {SINGLE} (right answers, %)",,5.0,' in text


def test_with_many_arms_each_is_compared_with_the_first() -> None:
    names = ["mixture", *(f"single_lab:{place}" for place in range(8))]
    found = worths(**{name: [100.0, 0.0, 100.0, 50.0] for name in names})
    assert found.all_of == 36
    assert [pair.first.name for pair in found.pairs] == ["mixture"] * 8


def test_a_worse_mixture_is_called_so() -> None:
    found = worths(single_a=[100.0] * 30, mixture=[0.0] * 25 + [100.0] * 5)
    assert found.conclusions[0].startswith("mixture falls behind single:a by 83.3 ± ")
    assert found.conclusions[1].startswith("on these prompts take single:a")


def test_the_position_of_an_output_is_told_with_its_error() -> None:
    judged = {
        str(place): [(60.0 + place % 3 if place % 2 else 40.0, place % 2 == 1)]
        for place in range(40)
    }
    note = position_note(judged)
    assert note is not None
    assert note.startswith("position: shown first, an output gets +21.0 ± 0.2 points")
    even = {name: [(50.0 + int(name) % 5, first)] for name, [(_, first)] in judged.items()}
    assert "which output the judge sees first has no clear effect" in (position_note(even) or "")
    assert position_note({"1": [(50.0, True)]}) is None


def test_analyse_tells_the_same_differences(moa: Moa) -> None:
    file = write_questions(moa.folder / "data", "gsm8k", 20)
    run = write_run(moa.folder / "runs" / "both", file, {"mixture": [1], SINGLE: range(12)})
    [reported] = told(moa, run)
    analysed = json.loads(moa.run("bench", "analyse", str(run), "--json").out)["differences"]
    assert {"dataset": "gsm8k", **analysed} == reported
    text = moa.run("bench", "analyse", str(run)).text
    assert f"= mixture beats {SINGLE} by 55.0 ± " in text
    assert "Paired differences ± standard error, right answers, %" in text
