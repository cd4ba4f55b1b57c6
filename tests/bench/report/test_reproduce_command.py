"""A table of the paper by its name: its runs, their price, its figures beside one's own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.bench.own_runs import write_lines
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

NAMES = ("table2", "table3", "table4", "table8", "ranker")


@pytest.fixture
def prepared(moa: Moa) -> Moa:
    """Data of four problems with known answers, and a mixture of two models."""
    rows = [
        {"problem": f"What is {n} + {n}?", "solution": f"\\boxed{{{2 * n}}}", "type": "Sums"}
        for n in range(1, 5)
    ]
    write_lines(moa.folder / "data/math/test.jsonl", rows)
    moa.environment["MOA_BENCH_DATA"] = str(moa.folder / "data")
    moa.profile("two", "a", "b", aggregator="b")
    return moa


def told(moa: Moa, *arguments: str) -> dict[str, Any]:
    ran = moa.run("bench", "reproduce", *arguments, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.text)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_papers_plan_is_shown_without_data(moa: Moa, upstream: Upstream, name: str) -> None:
    ran = moa.run("bench", "reproduce", name)
    assert ran.code == 0, ran.err
    assert "arXiv:2406.04692" in ran.text
    assert "moa bench run " in ran.text
    assert "no such file" in ran.text
    assert upstream.chats() == []


def test_the_papers_figures_are_there() -> None:
    from moa_cli.bench.report.reproduction import REPRODUCTIONS, Mixed, beside

    cells = {
        (name, cell.row, cell.column): cell.paper and cell.paper[0]
        for name, known in REPRODUCTIONS.items()
        for cell in beside(known, [])
    }
    assert cells["table2", "MoA", "LC win rate (%)"] == 65.1
    assert cells["table3", "n = 6", "single-proposer (%)"] == 56.7
    assert cells["table4", "WizardLM 8x22B", "as proposer (%)"] == 63.8
    assert cells["table8", "dbrx-instruct", "layer 3 (%)"] == 52.2
    # Each figure of a run of the paper's own models has its row there.
    six = (
        "together:Qwen/Qwen1.5-110B-Chat",
        "together:Qwen/Qwen1.5-72B-Chat",
        "together:microsoft/WizardLM-2-8x22B",
        "together:meta-llama/Llama-3-70b-chat-hf",
        "together:mistralai/Mixtral-8x22B-Instruct-v0.1",
        "together:databricks/dbrx-instruct",
    )
    mixed = Mixed(six, six[0], 2, is_papers=True)
    for name in ("table3", "table4", "table8"):
        for run in REPRODUCTIONS[name].runs(mixed):
            assert all((name, figure.row, figure.column) in cells for figure in run.figures)
    folders = [run.folder for known in REPRODUCTIONS.values() for run in known.runs(mixed)]
    assert len(folders) == len(set(folders))


def test_smaller_mixtures_are_made_of_the_first_models() -> None:
    from moa_cli.bench.report.reproduction import REPRODUCTIONS, Mixed

    def proposers(*models: str, aggregator: str) -> list[tuple[str, ...] | None]:
        mixed = Mixed(models, aggregator, 1, is_papers=False)
        return [run.proposers for run in REPRODUCTIONS["table3"].runs(mixed)]

    assert proposers("a", "b", "c", aggregator="b") == [("b", "a", "c"), ("b", "a"), ("b",)]
    assert proposers("a", "b", aggregator="other") == [("a", "b"), ("a",)]


def test_the_commands_of_the_plan_make_the_figures(prepared: Moa, upstream: Upstream) -> None:
    plan = told(prepared, "table8", "-p", "two")
    assert [run["items"] for run in plan["runs"]] == [4, 4]
    # Two layers of two proposers, and the reply.
    assert [run["price"]["high"]["calls"] for run in plan["runs"]] == [20, 20]
    assert upstream.chats() == []
    upstream.always("a", Reply(text="It is \\boxed{2}."))
    upstream.always("b", Reply(text="It is \\boxed{5}."))
    for run in plan["runs"]:
        program, *words = run["command"]
        assert program == "moa"
        before = len(upstream.chats())
        assert prepared.run(*words, "-y").code == 0
        # What is said here makes some of the calls the same.
        assert 0 < len(upstream.chats()) - before <= run["price"]["high"]["calls"]
    cells = {
        (cell["row"], cell["column"]): cell["ours"] and cell["ours"]["value"]
        for cell in told(prepared, "table8", "-p", "two")["figures"]
    }
    for layer in (1, 2, 3):
        assert cells["lab:a", f"layer {layer} (%)"] == 25
        assert cells["lab:b", f"layer {layer} (%)"] == 0
    assert cells["dbrx-instruct", "layer 1 (%)"] is None
    ran = prepared.run("bench", "reproduce", "table8", "-p", "two")
    assert "2 of 2 runs are begun" in ran.text
    [line] = [line for line in ran.text.splitlines() if line.startswith("lab:a ")]
    assert "25.0 ± 21.7" in line
    assert "a part of a dataset" not in ran.text
    limited = told(prepared, "table8", "-p", "two", "-n", "2", "-o", "some")
    assert prepared.run(*limited["runs"][0]["command"][1:], "-y").code == 0
    ran = prepared.run("bench", "reproduce", "table8", "-p", "two", "-n", "2", "-o", "some")
    assert "yours are of a part of a dataset" in ran.text


def test_what_cannot_be_reproduced_is_one_line(prepared: Moa) -> None:
    ran = prepared.run("bench", "reproduce", "table9")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "`table9`" in ran.err
    prepared.profile("alone", aggregator="b")
    ran = prepared.run("bench", "reproduce", "table3", "-p", "alone")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "has no proposers" in ran.err
