"""One command runs mixtures of several sizes and aggregators, over shared calls, in one chart."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

import pytest

from tests.support.bench.own_runs import call_lines, item_lines, write_lines
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

PRICE = {"prompt": 1000.0, "completion": 2000.0}


@pytest.fixture
def lab(moa: Moa, upstream: Upstream) -> Moa:
    """Four proposers and two aggregators, of which one knows the answers; ten questions."""
    upstream.always("*", Reply(text="I do not know", usage=(100, 10)))
    upstream.always("wise", Reply(text="The answer is 42.", usage=(100, 10)))
    models = ("a", "b", "c", "d", "agg", "wise")
    prices = {f"lab:{name}": PRICE for name in models}
    moa.configure(providers=moa.settings()["providers"], prices=prices)
    moa.profile("lab", "a", "b", {"model": "lab:c", "samples": 2}, max_tokens=50)
    rows = [{"prompt": f"what is the answer to {n}?", "answer": "42"} for n in range(10)]
    write_lines(moa.folder / "asked.jsonl", rows)
    return moa


def test_sizes_and_aggregators_share_their_calls(lab: Moa, upstream: Upstream) -> None:
    start = ["bench", "sweep", "asked.jsonl", "-y", "-n", "4"]
    ran = lab.run(*start, "--proposers", "1,2,4", "--aggregators", "lab:agg,lab:wise")
    assert ran.code == 0, ran.err
    asked = Counter(request.model for request in upstream.chats())
    # Each proposal once; each aggregator over each size.
    assert asked == {"a": 4, "b": 4, "c": 8, "agg": 12, "wise": 12}
    folder = lab.folder / "runs" / "asked-lab-sweep"
    assert {path.name for path in folder.iterdir()} == {
        "cache",
        "sweep.html",
        *(f"{size}-proposers-lab-{name}" for size in (1, 2, 4) for name in ("agg", "wise")),
    }
    [first, *_] = item_lines(folder / "4-proposers-lab-wise")
    models = [answer["model"] for answer in first["turns"][0]["proposals"][0]]
    assert models == ["lab:a", "lab:b", "lab:c", "lab:c"]

    table = ran.text.partition("Runs; mean")[2]
    rows = re.findall(r"^(\d) +lab:(\w+) +([\d.]+)", table, re.MULTILINE)
    assert rows == [
        (size, name, "100.00" if name == "wise" else "0.00")
        for name in ("agg", "wise")
        for size in "124"
    ]
    # Four of four, and none of four: Wilson's intervals.
    assert table.count("51.01 to 100.00") == table.count("0.00 to 48.99") == 3
    page = (folder / "sweep.html").read_text("utf-8")
    [drawn] = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    ElementTree.fromstring(drawn)
    assert "wise, 4: 100.0" in drawn
    assert "agg, 1: 0.0" in drawn
    assert "<script" not in page


@pytest.mark.parametrize("columns", [50, 80])
def test_the_table_of_a_sweep_fits_the_terminal(lab: Moa, columns: int) -> None:
    start = ["bench", "sweep", "asked.jsonl", "-y", "-o", "swept", "-n", "2"]
    varied = ["--proposers", "1,2", "--aggregators", "lab:agg,lab:wise"]
    with lab.terminal(*start, *varied, columns=columns, rows=100) as terminal:
        assert terminal.wait() == 0
        lines = terminal.written()
    table = lines[lines.index("Runs; mean ± standard error") :]
    assert max(map(len, table)) <= columns
    heads = " ".join(line for line in table if line.startswith("proposals  "))
    for head in ("accuracy (%)", "95 %", "answered", "failed", "calls", "cost/item", "s/item"):
        assert heads.count(head) == 1


def test_a_sweep_goes_on_and_grows(lab: Moa, upstream: Upstream) -> None:
    start = ["bench", "sweep", "asked.jsonl", "-y", "-o", "swept"]
    assert lab.run(*start, "-n", "3", "--proposers", "1,2").code == 0
    assert len(upstream.chats()) == 3 * (2 + 2)
    ran = lab.run(*start, "-n", "5", "--proposers", "1,2,3")
    assert ran.code == 0, ran.err
    assert len(upstream.chats()) == 5 * (3 + 3)
    assert lab.run(*start, "-n", "5", "--proposers", "1,2,3").code == 0
    assert len(upstream.chats()) == 5 * (3 + 3)


def test_a_cap_holds_for_the_whole_sweep(lab: Moa, upstream: Upstream) -> None:
    start = ["bench", "sweep", "asked.jsonl", "-y", "-o", "swept", "--proposers", "1,2,3"]
    ran = lab.run(*start, "--max-cost", "4")
    assert ran.code == 3, ran.err
    # A call costs $0.12; one whole sweep takes 60.
    assert 2.0 < 0.12 * len(upstream.chats()) <= 4.0
    ran = lab.run(*start, "--max-cost", "9")
    assert ran.code == 0, ran.err
    assert len(upstream.chats()) == 60
    paid = [
        line
        for path in (lab.folder / "swept").glob("*-proposers")
        for line in call_lines(path)
        if not line.get("from_cache")
    ]
    assert len(paid) == 60


def test_aggregators_alone_are_bars(lab: Moa) -> None:
    start = ["bench", "sweep", "asked.jsonl", "-y", "-o", "swept", "-n", "2"]
    ran = lab.run(*start, "--aggregators", "lab:agg,lab:wise")
    assert ran.code == 0, ran.err
    page = (lab.folder / "swept" / "sweep.html").read_text("utf-8")
    assert "Accuracy by aggregator, with 95 % intervals" in page
    assert page.count('class="bar ') == 2


def test_aggregators_whose_names_differ_in_signs_only_have_runs_of_their_own(
    lab: Moa, upstream: Upstream
) -> None:
    start = ["bench", "sweep", "asked.jsonl", "-y", "-o", "swept", "-n", "2"]
    for _ in range(2):
        ran = lab.run(*start, "--aggregators", "lab:agg/1,lab:agg-1,lab:wise")
        assert ran.code == 0, ran.err
    asked = Counter(request.model for request in upstream.chats())
    assert (asked["agg/1"], asked["agg-1"], asked["wise"]) == (2, 2, 2)
    runs = sorted(path.name for path in (lab.folder / "swept").glob("lab-*"))
    assert len(runs) == 3
    assert runs[-1] == "lab-wise"


def test_without_a_score_the_chart_shows_costs(lab: Moa) -> None:
    write_lines(lab.folder / "open.jsonl", [{"prompt": "say something"}])
    ran = lab.run("bench", "sweep", "open.jsonl", "-y", "-o", "swept", "--proposers", "1,2")
    assert ran.code == 0, ran.err
    assert "there are no scores" in ran.text
    assert "Cost of an item" in (lab.folder / "swept" / "sweep.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing is varied"),
        (["--proposers", "1,5"], "5 are needed, but a layer of the profile has 4"),
        (["--proposers", "one"], "`one` is not a list of numbers"),
        (["--proposers", "0"], "`0` is not a list of numbers"),
        (["--aggregators", ","], "--aggregators: names no model"),
        (["--aggregators", "nowhere:x"], "nowhere"),
    ],
)
def test_what_cannot_be_swept_is_told_before_anything_is_sent(
    lab: Moa, upstream: Upstream, arguments: list[str], told: str
) -> None:
    ran = lab.run("bench", "sweep", "asked.jsonl", "-y", *arguments)
    assert ran.code in (1, 2)
    assert told in ran.err
    assert ran.err.count("\n") == 1
    assert upstream.chats() == []
