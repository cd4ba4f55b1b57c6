"""The datasets as upstream has them, and one's own files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench.own_runs import item_lines, write_lines, write_prompts
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream


@pytest.fixture
def data() -> str:
    """The folder of the real data."""
    folder = os.environ.get("MOA_TEST_DATA")
    if not folder:
        pytest.skip("MOA_TEST_DATA names no folder of data")
    return folder


def listed(moa: Moa, *arguments: str, **env: str) -> dict[str, dict[str, Any]]:
    """The rows of `moa bench list --json`, by name."""
    ran = moa.run("bench", "list", "--json", *arguments, env=env)
    assert ran.code == 0, ran.err
    return {row["name"]: row for row in json.loads(ran.text)}


def test_the_real_data_is_read(moa: Moa, data: str) -> None:
    rows = listed(moa, "--data", data)
    assert {name: row["items"] for name, row in rows.items() if row["file"]} == {
        "alpaca": 805,
        "mt": 80,
        "flask": 60,
        "arena_hard": 500,
        "gsm8k": 50,
        "math": 250,
    }
    assert listed(moa, MOA_BENCH_DATA=data) == rows
    assert all(row["measures"] for row in rows.values())


def test_what_is_missing_says_how_to_get_it(moa: Moa, upstream: Upstream) -> None:
    ran = moa.run("bench", "list")
    assert ran.text.count("missing: moa bench fetch ") == 5
    assert "Traceback" not in ran.err
    ran = moa.run("bench", "run", "gsm8k", "-y")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "gsm8k/test.jsonl: no such file (`moa bench fetch gsm8k` gets it" in ran.err
    assert upstream.chats() == []


@pytest.mark.parametrize("name", ["alpaca", "mt", "flask", "gsm8k", "math"])
def test_the_first_items_of_the_real_data_are_asked(
    moa: Moa, upstream: Upstream, data: str, name: str
) -> None:
    ran = moa.run(
        "bench", "run", name, "--data", data, "-n", "2", "--sample", "first", "-y", "--rounds", "0"
    )
    assert ran.code == 0, ran.err
    lines = item_lines(moa.folder / "runs" / f"{name}-lab")
    ids = {"alpaca": ["0", "1"], "mt": ["81", "82"], "flask": ["20", "29"], "gsm8k": ["9", "28"]}
    ids["math"] = ["0", "1"]
    assert [line["item"] for line in lines] == ids[name]
    first = {
        "alpaca": "What are the names of some famous actors",
        "mt": "Compose an engaging travel blog post",
        "flask": "I bought two shirts from the store",
        "gsm8k": "Eliza's rate per hour",
        "math": "Convert the point $(0,3)$",
    }
    assert any(
        str(request.messages[0]["content"]).startswith(first[name])
        for request in upstream.chats("agg")
    )


def test_right_answers_are_kept_with_the_items(moa: Moa, data: str) -> None:
    from moa_cli.bench.data.loading import load_dataset

    del moa
    items = {name: load_dataset(name, Path(data)).items for name in ("gsm8k", "flask", "mt")}
    assert items["gsm8k"][0].answer == "460"
    assert str(items["flask"][0].answer).startswith("Item | Number | Price")
    assert len(items["mt"][0].turns) == 2
    assert {sample.category for sample in items["mt"]} >= {"writing", "math", "stem"}


def test_math_is_read_as_upstream_has_it(moa: Moa) -> None:
    row = {"problem": "1+1?", "solution": "\\boxed{2}", "level": "Level 1", "type": "Algebra"}
    write_lines(moa.folder / "data" / "math" / "test.jsonl", [row])
    ran = moa.run("bench", "run", "math", "--data", "data", "-y")
    assert ran.code == 0, ran.err
    assert item_lines(moa.folder / "runs" / "math-lab")[0]["category"] == "Algebra"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"prompt": "a"}\nno json\n', "mine.jsonl:2: is not JSON: "),
        ('{"prompt": "a"}\n[1]\n', "mine.jsonl:2: is not a JSON object"),
        ('{"prompt": "a"}\n\n{"promt": "b"}\n', "mine.jsonl:3: `prompt` is missing or is not text"),
        ('{"prompt": " "}\n', "mine.jsonl:1: `prompt` is missing or is not text"),
        ('{"messages": []}\n', "mine.jsonl:1: the last of `messages` is not from the user"),
        ('{"messages": [{"role": "tool"}]}\n', "mine.jsonl:1: `messages` is not a list of {role"),
        ('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": 1}', "mine.jsonl: two items have the id"),
        ("\n", "mine.jsonl: holds no items"),
        ("[" * 100_000, "mine.jsonl:1: is not JSON: "),
    ],
    ids=range(9),
)
def test_a_wrong_line_is_named(moa: Moa, upstream: Upstream, text: str, told: str) -> None:
    (moa.folder / "mine.jsonl").write_text(text)
    ran = moa.run("bench", "run", "mine.jsonl", "-y")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, b"", 1)
    assert ran.err.startswith(f"moa: {told}")
    assert upstream.chats() == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine.csv", '\ufeffid,prompt,answer\r\nü 日本,"one, ""two""\r\nthree",42\r\n\r\n,four,'),
        ("mine.csv", 'prompt;answer;id;\n"one, ""two""\r\nthree";42;ü 日本;\n;;;\nfour;;;'),
        ("mine.tsv", 'id\tprompt\tanswer\nü 日本\t"one, ""two""\r\nthree"\t42\n\n\tfour\t\n'),
    ],
    ids=["byte order mark", "semicolons", "tabs"],
)
def test_a_table_of_one_s_own_is_asked_and_grows(
    moa: Moa, upstream: Upstream, name: str, text: str
) -> None:
    upstream.always("*", Reply(text="The answer is 42."))
    path = moa.folder / name
    path.write_text(text, "utf-8", newline="")
    start = ("bench", "run", name, "-y", "--rounds", "0", "--no-format")
    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    asked = [request.messages[-1]["content"] for request in upstream.chats()]
    assert asked == ['one, "two"\r\nthree', "four"]
    lines = item_lines(moa.folder / "runs" / "mine-lab")
    assert lines[0]["item"] == "ü 日本"
    assert lines[1]["item"].isdigit()
    assert "100.0" in moa.run("bench", "report", "runs/mine-lab").text
    with path.open("a", encoding="utf-8") as file:
        file.write(text.splitlines()[0].lstrip("\ufeff").replace("prompt", "five").join("\n\n"))
    assert moa.run(*start).code == 0
    assert [request.messages[-1]["content"] for request in upstream.chats()] == [*asked, "five"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("question\na\n", "mine.csv:2: `prompt` is missing or is not text"),
        ("prompt,answer\na\n", "mine.csv:2: has 1 cell, and the head 2"),
        ("prompt,prompt\na,b\n", "mine.csv: two columns are called `prompt`"),
        ('prompt\n"a\n', "mine.csv:2: is no row: "),
        ("prompt\n", "mine.csv: holds no items"),
        ("", "mine.csv: holds no items"),
    ],
    ids=range(6),
)
def test_a_wrong_table_is_named(moa: Moa, upstream: Upstream, text: str, told: str) -> None:
    (moa.folder / "mine.csv").write_text(text)
    ran = moa.run("bench", "run", "mine.csv", "-y")
    assert ran.code in (1, 2)
    assert ran.err.startswith(f"moa: {told}")
    assert upstream.chats() == []


def test_an_unknown_name_gets_the_nearest(moa: Moa) -> None:
    ran = moa.run("bench", "run", "alpacca", "-y")
    assert (ran.code, ran.err) == (
        2,
        "moa: there is no dataset `alpacca` (did you mean `alpaca`?)\n",
    )
    assert "mine.jsonl: no such file" in moa.run("bench", "run", "mine.jsonl", "-y").err


def test_what_a_model_or_a_file_says_cannot_act_on_the_terminal(
    moa: Moa, upstream: Upstream
) -> None:
    evil = "\x1b]0;owned\x07\x9b31m"
    upstream.always("b", Reply(status=400, error={"error": {"message": evil}}))
    write_lines(moa.folder / "mine.jsonl", [{"prompt": evil, "id": evil, "category": evil}])
    ran = moa.run("bench", "run", "mine.jsonl", "-y")
    assert ran.code == 1
    assert not set("\x1b\x07\x9b") & set(ran.text + ran.err)
    items = (moa.folder / "runs" / "mine-lab" / "items.jsonl").read_text("utf-8")
    assert not set("\x1b\x07\x9b") & set(items)


def test_a_folder_that_is_no_run_is_left_alone(moa: Moa, upstream: Upstream) -> None:
    run = moa.folder / "mine"
    run.mkdir()
    (run / "items.jsonl").write_text("{}\n")
    ran = moa.run("bench", "run", write_prompts(moa, 1), "-y", "-o", "mine")
    assert ran.code == 1
    assert ran.err.startswith("moa: mine/items.jsonl:1: is damaged: ")
    assert upstream.chats() == []
