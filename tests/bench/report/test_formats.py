"""Reports of made-up scores, in all formats: what is said, and under whose name."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moa_cli.bench.report.scores import Scores
from moa_cli.bench.report.sections import ReportSection, TextTable, published_table, sections_of
from moa_cli.bench.report.writers import csv_text, json_text, markdown, page
from moa_cli.bench.run.settings import JudgeSettings
from moa_cli.bench.scoring.flask import SKILLS
from tests.support.bench.scores import ARMS, JUDGE, arm, made, metric, scores
from tests.support.browser import opened
from tests.support.web_pages import Page, closed

DATASETS = ("alpaca", "mt", "flask", "math")
HOSTILE = "single:lab:</td><script>alert(1)</script>|`*\x1b]0;x\x07"


def html(*runs: Scores, published: bool = True) -> str:
    """The page of these runs."""
    return "".join(page(sections_of(runs), published=published))


def only(*runs: Scores) -> ReportSection:
    """Their one section."""
    (section,) = sections_of(runs)
    return section


def cells(table: TextTable, column: str) -> list[str]:
    """A column of a table."""
    place = table.heads.index(column)
    return [row[place] for row in table.rows]


def test_every_number_has_its_standard_error_and_its_judge() -> None:
    table = only(made("alpaca", ARMS[:2])).tables[0]
    assert cells(table, "win rate (%)") == ["59.8 ± 1.6", "54.5 ± 1.6"]
    assert cells(table, "LC win rate (own fit) (%)") == ["65.1 ± 1.2", "61.0 ± 1.2"]
    assert table.title == "Scores ± standard error, by lab:judge, 2026-03-01"
    run = scores("alpaca", [arm("mixture", [metric("win rate", "%", 50.0, None, 1)])])
    assert cells(only(run).tables[0], "win rate (%)") == ["50.0 ± ?"]


def test_what_is_made_of_fewer_items_than_asked_says_so() -> None:
    partial = arm("mixture", [metric("win rate", "%", 59.8, 1.6, 41, asked=50)])
    whole = arm("self", [metric("win rate", "%", 50.0, 1.6, 50, asked=50)])
    table = only(scores("alpaca", [partial, whole])).tables[0]
    assert cells(table, "win rate (%)") == ["59.8 ± 1.6*", "50.0 ± 1.6"]
    assert cells(table, "n") == ["41", "50"]
    assert table.notes == ("* partial: mixture: 41 of 50",)


def test_partial_numbers_of_different_counts_are_named() -> None:
    found = [
        metric("robustness", "of 5", 4.0, 0.1, 9, asked=10),
        metric("correctness", "of 5", 4.0, 0.1, 19, asked=25),
        metric("mean", "of 5", 4.0, 0.1, 40),
    ]
    table = only(scores("flask", [arm("mixture", found)])).tables[0]
    assert table.notes == ("* partial: mixture: robustness 9 of 10, correctness 19 of 25",)
    assert cells(table, "n") == ["9 to 40"]


def test_a_category_that_lacks_items_is_named() -> None:
    categories = {
        "writing": (metric("average", "of 10", None, None, 0, asked=2),),
        "math": (metric("average", "of 10", 9.0, 0.1, 2),),
    }
    mixture = arm("mixture", [metric("average", "of 10", 9.0, 0.1, 4)], categories)
    table = only(scores("mt", [mixture])).tables[1]
    assert table.rows == (("mixture", "–*", "9.00 ± 0.10"),)
    assert table.notes == ("* partial: mixture: writing 0 of 2",)


def test_a_subset_is_not_comparable_with_published_figures() -> None:
    some = replace(made("alpaca"), asked=50, whole=805)
    assert only(some).notes == ("50 of 805 items: not comparable with published figures",)
    assert only(replace(some, asked=805)).notes == ()
    # What the scores say already is not said twice.
    said = replace(some, notes=("50 of 805 items: not comparable with published figures", "more"))
    assert only(said).notes == said.notes


def test_runs_over_one_dataset_stand_side_by_side() -> None:
    other = replace(made("mt", ["mixture"]), path=Path("runs/mt-other"))
    section = only(made("mt", ["mixture", "self"]), other)
    table = section.tables[0]
    assert table.heads[:2] == ("run", "arm")
    assert [row[:2] for row in table.rows] == [
        ("mt-lab", "mixture"),
        ("mt-lab", "self"),
        ("mt-other", "mixture"),
    ]
    assert [row.name for row in section.rows][2] == "mt-other: mixture"
    assert [section.dataset for section in sections_of([made("mt"), made("math"), other])] == [
        "mt",
        "math",
    ]


def test_different_judges_are_named_in_each_row() -> None:
    other = replace(
        made("mt", ["mixture"]),
        path=Path("runs/mt-other"),
        judge=JudgeSettings(model="lab:strict", date="2026-04-01", kind="rating", discrete=True),
    )
    section = only(made("mt", ["mixture"]), other)
    assert cells(section.tables[0], "judged") == [
        "by lab:judge, 2026-03-01",
        "by lab:strict, 2026-04-01, discrete",
    ]
    assert "numbers of different judges, or of different days" in section.notes[-1]


def test_anchors_stand_with_the_arms_but_took_nothing() -> None:
    anchor = replace(made("mt", ["mixture"]).arms[0], arm="anchor:gpt-4")
    section = only(replace(made("mt", ["mixture"]), anchors=(anchor,)))
    assert cells(section.tables[0], "arm") == ["mixture", "anchor:gpt-4"]
    assert section.tables[-1].title == "Cost and time ± standard error"
    assert cells(section.tables[-1], "arm") == ["mixture"]


def test_a_cost_that_is_unknown_is_not_nothing() -> None:
    run = scores("mt", [arm("mixture", [metric("average", "of 10", 9.0)], cost=None)])
    assert cells(only(run).tables[-1], "cost/item") == ["unknown"]


def test_published_figures_are_in_tables_of_their_own_with_judge_and_source() -> None:
    for dataset in DATASETS:
        section = only(made(dataset))
        own = " ".join(str(table) for table in section.tables)
        for item in section.published:
            table = published_table(item)
            assert "arXiv:2406.04692" in table.notes[0]
            assert ", by " in table.title
            assert "arXiv" not in own
        assert section.published
    assert only(made("math")).published[0].judged == "by right answers"
    assert "good to ± 0.05" in only(made("flask")).published[0].note
    assert len(only(made("flask")).published[0].columns) == len(SKILLS)


def test_published_figures_are_those_of_the_paper(data: Path) -> None:
    paper = json.loads((data / "paper" / "published_results.json").read_text("utf-8"))
    names = {
        "alpaca": "alpaca_eval_2_paper",
        "mt": "mt_bench_paper",
        "flask": "flask_paper",
        "math": "math_paper_table_8",
    }
    for dataset, name in names.items():
        (known,) = only(made(dataset)).published
        assert [row for row, _ in known.rows] == list(paper[name]["rows"])
        for row, figures in known.rows:
            told = [str(each_row).partition("±") for each_row in paper[name]["rows"][row]]
            factor = 100 if dataset == "math" else 1
            assert [value for value, _ in figures] == pytest.approx(
                [factor * float(value) for value, _, _ in told]
            )
            spreads = [float(spread) if spread else None for _, _, spread in told]
            assert [spread for _, spread in figures] == spreads


def test_a_page_has_no_script_fetches_nothing_and_holds_every_number() -> None:
    runs = [made(dataset) for dataset in DATASETS]
    text = html(*runs)
    parsed = Page(closed(text))
    assert "script" not in {tag for tag, _ in parsed.tags}
    for _, attributes in parsed.tags:
        assert not {"src", "href", "onload", "style"} & set(attributes)
    assert "url(" not in text
    assert "@import" not in text
    policies = [
        attributes["content"]
        for tag, attributes in parsed.tags
        if attributes.get("http-equiv") and tag == "meta"
    ]
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'")
    for section in sections_of(runs):
        for table in (*section.tables, *map(published_table, section.published)):
            for row in (table.heads, *table.rows):
                assert all(cell in parsed.text for cell in row)
            assert all(note in parsed.text for note in table.notes)


@pytest.mark.parametrize(
    ("dataset", "captions"),
    [
        ("alpaca", ["Win rate", "Quality against cost", "Quality against seconds"]),
        (
            "mt",
            ["Rating", "By category: average", "Quality against cost", "Quality against seconds"],
        ),
        ("flask", ["Scores by skill", "Quality against cost", "Quality against seconds"]),
        (
            "math",
            [
                *("Accuracy of the replies", "Accuracy by layer"),
                *("Quality against cost", "Quality against seconds"),
            ],
        ),
    ],
)
def test_charts_of_a_dataset(dataset: str, captions: list[str]) -> None:
    judged = "" if dataset == "math" else ", by lab:judge, 2026-03-01"
    text = html(made(dataset))
    found = re.findall("<figcaption>(.*?)</figcaption>", text)
    by = judged or ", by right answers"
    assert found == [f"{caption}, with 95 % intervals{by}" for caption in captions]
    names = re.findall(r'aria-labelledby="(\S+) (\S+)"', text)
    assert len(names) == len(captions)
    for title, description in names:
        assert text.count(f'<title id="{title}">') == 1
        assert text.count(f'<desc id="{description}">') == 1


def test_a_chart_shows_wilsons_interval() -> None:
    text = html(made("alpaca", ["mixture"]))
    assert "mixture: 59.8 (95 % interval 56.6 to 62.9)" in text


@pytest.mark.parametrize("count", [1, 8])
def test_charts_of_a_run_that_answered_nothing_are_left_out(count: int) -> None:
    nothing = [
        arm(name, [metric("win rate", "%", None, None, 0)], cost=None, seconds=0.0)
        for name in ARMS[:count]
    ]
    text = html(scores("alpaca", nothing))
    assert "nan" not in text.lower().replace("nano", "")
    assert "<svg" not in text


def test_untrusted_names_stay_text_everywhere() -> None:
    section = scores("alpaca", [arm(HOSTILE, [metric("win rate", "%", 50.0)])])
    text = html(section)
    assert "<script" not in text
    assert "\x1b" not in text
    written = markdown([only(section)], published=False)
    assert "<script" not in written.replace(r"\<script", "")
    assert "\x1b" not in written
    assert r"\|" in written
    assert "\x1b" not in csv_text([section])
    assert "\x1b" not in json_text([section], [], published=False)


def test_without_published_figures_there_are_none() -> None:
    assert "2406.04692" in html(made("alpaca"))
    assert "2406.04692" not in html(made("alpaca"), published=False)
    section = [only(made("alpaca"))]
    assert "2406.04692" not in markdown(section, published=False)
    assert "published" not in json.loads(json_text([made("alpaca")], section, published=False))


def test_json_holds_all_numbers_in_full() -> None:
    run = scores("alpaca", [arm("mixture", [metric("win rate", "%", 200 / 3, 1 / 7, 3, asked=5)])])
    table = json.loads(json_text([run], [only(run)], published=True))
    (run,) = table["runs"]
    assert list(run) == [
        *("run", "path", "dataset", "asked", "whole", "judge", "arms", "anchors", "notes")
    ]
    assert run["judge"] == {"model": JUDGE.model, "date": JUDGE.date, "discrete": False}
    (found,) = run["arms"]
    assert found["metrics"] == [
        {
            **{"name": "win rate", "unit": "%", "value": 200 / 3, "standard_error": 1 / 7},
            **{"n": 3, "asked": 5, "partial": True},
        }
    ]
    assert found["cost_per_item"]["value"] == 0.0123
    assert table["published"][0]["rows"][1] == {
        "name": "MoA",
        "figures": [{"value": 65.1, "spread": 0.6}, {"value": 59.8, "spread": 0.3}],
    }


def test_csv_has_a_row_a_metric() -> None:
    run = made("mt", ["mixture"])
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(csv_text([run]))))
    assert list(rows[0]) == [
        *("run", "arm", "metric", "category", "value", "standard error", "n", "asked"),
        *("judge", "date"),
    ]
    assert rows[2] == {
        **{"run": "mt-lab", "arm": "mixture", "metric": "average (of 10)", "category": ""},
        **{"value": "9.44", "standard error": "0.21", "n": "80", "asked": "80"},
        **{"judge": "lab:judge", "date": "2026-03-01"},
    }
    assert [row["category"] for row in rows[3:5]] == ["writing", "roleplay"]
    # What no judge said carries no judge's name.
    assert [(row["metric"], row["judge"]) for row in rows[-3:]] == [
        ("cost per item (USD)", ""),
        ("seconds per item, critical path", ""),
        ("seconds per item, sum of calls", ""),
    ]


def test_markdown_has_a_table_for_each() -> None:
    section = only(made("mt", ARMS[:2]))
    text = markdown([section], published=True)
    heads = [line for line in text.splitlines() if line.startswith("| arm")]
    assert len(heads) == len(section.tables)
    for table in (*section.tables, *map(published_table, section.published)):
        assert text.count(f"**{table.title.replace('_', chr(92) + '_')}**") == 1
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) >= 3 for line in rows)


def test_a_browser_opens_the_page_and_finds_nothing_that_acts(tmp_path: Path) -> None:
    hostile = ("<script>document.title='acted'</script>", "</svg><img src=x onerror=alert(1)>")
    runs = [made(name, hostile) for name in ("alpaca", "mt", "flask", "gsm8k")]
    shown, complaints = opened(html(*runs), tmp_path)
    assert complaints == []
    assert "<title>acted" not in shown
    assert "<script>" not in shown
    assert "<img" not in shown
    assert shown.count("<svg") >= 4
