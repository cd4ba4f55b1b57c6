"""A table of the paper by its name: its runs, their price, its figures beside one's own."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench.own_runs import ANSWER, write_lines
from tests.support.bench.tables import jsonl_rows
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

NAMES = ("table2", "table3", "table4", "table8", "ranker")
GAMED = "reconstructed/df_gamed.csv"
JUDGING = "moa bench judge FOLDER --judge MODEL --data data"


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


def few_items(shared: Path, folder: Path) -> None:
    """Some items of each dataset of the paper's tables, with what their judges need."""
    for name, count in (
        ("mt_bench/judge_prompts.jsonl", 100),
        ("mt_bench/reference_answer_gpt-4.jsonl", 100),
        ("mt_bench/question.jsonl", 3),
        ("math/math500_even.jsonl", 3),
    ):
        write_lines(folder / name, jsonl_rows(shared / name)[:count])
    alpaca, made = shared / "alpaca_eval", folder / "alpaca_eval"
    made.mkdir()
    for name in ("judge_prompt_alpaca_eval_clf.txt", GAMED):
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_bytes((alpaca / name).read_bytes())
    outputs = "slice50/model_outputs/gpt4_1106_preview.json"
    kept = json.loads((alpaca / outputs).read_bytes())[:6]
    (made / outputs).parent.mkdir(parents=True)
    (made / outputs).write_text(json.dumps(kept), "utf-8")
    wanted = {row["instruction"] for row in kept}
    asked = json.loads((alpaca / "instructions.json").read_bytes())
    rows = [row for row in asked if row["instruction"] in wanted]
    (made / "instructions.json").write_text(json.dumps(rows), "utf-8")


def judgement(request: Request) -> Reply:
    """What a judge says: a rating, or by its first token who is better."""
    if "[[rating]]" in str(request.messages):
        return Reply(text="Rating: [[7]]")
    # No two prompts alike, so that there is something to fit.
    first = 0.2 + len(str(request.messages)) % 7 / 10
    likely = [
        {"token": token, "logprob": math.log(share)}
        for token, share in (("m", first), ("M", 1 - first))
    ]
    return Reply(text="m", logprobs={"content": [{"token": "m", "top_logprobs": likely}]})


@pytest.mark.parametrize("name", NAMES)
def test_each_table_goes_to_its_end(moa: Moa, upstream: Upstream, data: Path, name: str) -> None:
    few_items(data, moa.folder / "data")
    moa.profile("two", "a", "b", aggregator="b")
    upstream.always("*", ANSWER)
    upstream.always("judge", judgement)
    options = ("-p", "two", "--data", "data", "-o", "reproduced")
    plan = told(moa, name, *options)
    judged = name != "table8"
    for run in plan["runs"]:
        assert run["missing"] is None
        # As it is printed, it runs: it names the data folder, too.
        ran = moa.run(*run["command"][1:], "-y")
        assert ran.code == 0, ran.err
    if judged:
        unjudged = moa.run("bench", "reproduce", name, *options).text
        assert f"and each of them: {JUDGING}" in unjudged
        assert f"{len(plan['runs'])} runs are begun, and 0 of them judged" in unjudged
        assert "yours: ± standard error" not in unjudged
        for run in plan["runs"]:
            words = shlex.split(JUDGING.replace("MODEL", "lab:judge"))[1:]
            words[words.index("FOLDER")] = f"reproduced/{run['folder']}"
            ran = moa.run(*words, "-y")
            assert ran.code == 0, ran.err
    cells = told(moa, name, *options)["figures"]
    own = {(cell["row"], cell["column"]): cell["ours"] for cell in cells if cell["ours"]}
    columns = {cell["column"] for cell in cells}
    assert {column for _, column in own} == columns
    text = moa.run("bench", "reproduce", name, *options).text
    assert "yours: ± standard error over items" in text
    if judged:
        assert f"{len(plan['runs'])} runs are begun, and {len(plan['runs'])} of them judged" in text
        assert "yours are judged by lab:judge" in text
    if name == "ranker":
        (moa.folder / "data/alpaca_eval" / GAMED).unlink()
        lacking = moa.run("bench", "reproduce", name, *options).text
        assert "the length-controlled win rate is withheld: there is no " in lacking
        # The paper prints no figures: the heads say what ours are.
        assert "MoA (%): yours" in text
        assert "LLM-ranker (%): yours" in text
