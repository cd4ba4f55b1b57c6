"""What each arm asks, and that equal calls of several arms are made once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from moa_cli.core.strategy import STRATEGIES
from tests.support.bench.own_runs import item_lines, write_lines, write_prompts
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

NAMES = ", ".join(STRATEGIES)


def sampling(request: Request) -> dict[str, Any]:
    """What a request says of sampling."""
    return {key: request.body.get(key) for key in ("temperature", "max_tokens", "seed")}


def test_each_model_alone_shares_its_call_with_the_mixture(moa: Moa, upstream: Upstream) -> None:
    moa.profile("two", {"model": "lab:a", "temperature": 0.3, "seed": 7}, "b")
    prompts = write_prompts(moa, 3)
    ran = moa.run("bench", "run", prompts, "-p", "two", "-y", "--arms", "single,mixture")
    assert ran.code == 0, ran.err
    assert "12 calls;" in ran.err
    assert [len(upstream.chats(model)) for model in ("a", "b", "agg")] == [3, 3, 6]
    lines = item_lines(moa.folder / "runs" / "mine-two")
    arms = ["mixture", "single:lab:a", "single:lab:b", "single:lab:agg"]
    assert [(line["item"], line["arm"]) for line in lines] == [
        (item, arm) for item in ("1", "2", "3") for arm in arms
    ]
    mixture, alone = lines[0], lines[1]
    proposal = mixture["turns"][0]["proposals"][0][0]
    assert alone["turns"][0]["reply"] == proposal
    assert alone["replies"] == [proposal["text"]]
    # What an arm takes is told as if it were alone.
    assert (mixture["usage"]["calls"], alone["usage"]["calls"]) == (3, 1)


def test_self_moa_samples_one_proposer_in_the_place_of_all(moa: Moa, upstream: Upstream) -> None:
    moa.profile("three", "a", {"model": "lab:b", "temperature": 0.9, "seed": 5}, "c", rounds=2)
    start = ["bench", "run", write_prompts(moa, 1), "-p", "three", "-y", "--arms", "self"]
    ran = moa.run(*start, "--best", "lab:b")
    assert ran.code == 0, ran.err
    assert "self (Self-MoA on lab:b)" in ran.err
    assert upstream.chats("a") == upstream.chats("c") == []
    asked = [sampling(request) for request in upstream.chats("b")]
    assert [body["seed"] for body in asked] == [5, 6, 7, 5, 6, 7]
    assert {body["temperature"] for body in asked} == {0.9}
    assert len(upstream.chats("agg")) == 1
    [line] = item_lines(moa.folder / "runs" / "mine-three")
    assert [len(layer) for layer in line["turns"][0]["proposals"]] == [3, 3]


def test_self_moa_takes_the_first_proposer_and_shares_its_sample(
    moa: Moa, upstream: Upstream
) -> None:
    prompts = write_prompts(moa, 2)
    ran = moa.run("bench", "run", prompts, "-y", "--arms", "mixture,self")
    assert "self (Self-MoA on lab:a)" in ran.err
    assert "14 calls;" in ran.err
    assert [len(upstream.chats(model)) for model in ("a", "b", "c", "agg")] == [6, 2, 2, 4]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (
            ["--arms", "sefl"],
            f"--arms: there is no arm `sefl` (there are mixture, {NAMES}, self, single)",
        ),
        (["--arms", "self", "--best", "d"], "--best: there is no proposer `d`"),
        (["--arms", "self", "--rounds", "0"], "the arm `self` needs proposers"),
        (["--parity"], "--parity: the authors' scripts know alpaca, flask, mt only"),
        (["--reference-paths", "none.json"], "none.json: cannot be read: No such file"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_makes_no_sense_is_one_line(
    moa: Moa, upstream: Upstream, typed: list[str], told: str
) -> None:
    ran = moa.run("bench", "run", write_prompts(moa, 1), "-y", *typed)
    assert ran.code in (1, 2)
    assert ran.err.startswith(f"moa: {told}")
    assert (ran.out, ran.err.count("\n")) == (b"", 1)
    assert upstream.chats() == []
    assert not (moa.folder / "runs").exists()


def test_parity_in_mt_bench_is_by_category(moa: Moa, upstream: Upstream) -> None:
    categories = {"writing": 0.7, "math": 0, "stem": 0.1, "roleplay": 0.7, "coding": 0}
    rows = [
        {"question_id": 81 + place, "category": name, "turns": [f"Ask {name}"]}
        for place, name in enumerate(categories)
    ]
    write_lines(moa.folder / "data" / "mt_bench" / "question.jsonl", rows)
    moa.profile("hot", {"model": "lab:a", "temperature": 1.5, "max_tokens": 9}, temperature=1.2)
    ran = moa.run("bench", "run", "mt", "--data", "data", "-p", "hot", "-y", "--parity")
    assert ran.code == 0, ran.err
    for request in upstream.chats():
        name = request.messages[-1]["content"].removeprefix("Ask ")
        assert sampling(request) == {
            "temperature": categories[name],
            "max_tokens": 1024,
            "seed": None,
        }


def test_parity_in_alpaca_sets_the_final_call_and_what_is_unset(
    moa: Moa, upstream: Upstream
) -> None:
    table = [{"instruction": "Why?", "dataset": "koala"}]
    path = moa.folder / "data" / "alpaca_eval" / "instructions.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(table))
    final = {"model": "lab:agg", "temperature": 0.1, "max_tokens": 5}
    moa.profile("own", {"model": "lab:a", "temperature": 1.5}, aggregator=final)
    ran = moa.run("bench", "run", "alpaca", "--data", "data", "-p", "own", "-y", "--parity")
    assert ran.code == 0, ran.err
    asked = {request.model: sampling(request) for request in upstream.chats()}
    assert asked["agg"] == {"temperature": 0.7, "max_tokens": 2048, "seed": None}
    assert asked["a"] == {"temperature": 1.5, "max_tokens": 2048, "seed": None}


def write_outputs(moa: Moa, name: str, texts: list[str]) -> str:
    """A file of model outputs to the prompts of `write_prompts`; its name."""
    rows = [
        {
            "instruction": f"say in one line what you know of thing {place}",
            "output": text,
            "generator": name,
            "dataset": "x",
        }
        for place, text in enumerate(texts, 1)
    ]
    (moa.folder / f"{name}.json").write_text(json.dumps(rows))
    return f"{name}.json"


def test_given_outputs_take_the_place_of_the_first_layer(moa: Moa, upstream: Upstream) -> None:
    files = [write_outputs(moa, name, [f"{name} 1", f"{name} 2"]) for name in ("old", "new")]
    paths = [part for file in files for part in ("--reference-paths", file)]
    prompts = write_prompts(moa, 2)
    ran = moa.run("bench", "run", prompts, "-y", *paths)
    assert ran.code == 0, ran.err
    assert "the first layer's answers are given: old, new" in ran.err
    assert "2 calls;" in ran.err
    assert {request.model for request in upstream.chats()} == {"agg"}
    system = {
        request.messages[0]["content"].rpartition("models:")[2] for request in upstream.chats()
    }
    assert system == {"\n1. old 1\n2. new 1", "\n1. old 2\n2. new 2"}
    line = item_lines(moa.folder / "runs" / "mine-lab")[0]
    given = line["turns"][0]["proposals"][0]
    assert [(search["model"], search["key"], search["text"]) for search in given] == [
        ("given:old", "", "old 1"),
        ("given:new", "", "new 1"),
    ]
    assert line["usage"]["calls"] == 1


def test_later_layers_are_asked_over_given_outputs(moa: Moa, upstream: Upstream) -> None:
    file = write_outputs(moa, "old", ["old 1"])
    start = ["bench", "run", write_prompts(moa, 1), "-y", "--rounds", "2"]
    ran = moa.run(*start, "--reference-paths", file)
    assert ran.code == 0, ran.err
    assert sorted(request.model for request in upstream.chats()) == ["a", "agg", "b", "c"]
    assert upstream.chats("a")[0].messages[0]["content"].endswith("models:\n1. old 1")


def test_an_item_without_a_given_output_is_named(moa: Moa) -> None:
    file = write_outputs(moa, "old", ["old 1"])
    ran = moa.run("bench", "run", write_prompts(moa, 2), "-y", "--reference-paths", file)
    assert (ran.code, ran.err) == (1, "moa: old.json: has no answer to item 2\n")


def test_answers_that_were_cut_are_counted(moa: Moa, upstream: Upstream) -> None:
    moa.profile("two", "a", "b")
    upstream.always("a", Reply(text="half of", finish_reason="length"))
    ran = moa.run("bench", "run", write_prompts(moa, 2), "-p", "two", "-y", "--arms", "mixture")
    assert ran.code == 0, ran.err
    assert "cut (see `finish_reason`): 2 of 4 proposals" in ran.text
    assert "2 of 4 proposals" in moa.run("bench", "report", "runs/mine-two").text


def test_cut_and_trimmed_answers_are_told_everywhere_by_arm(moa: Moa, upstream: Upstream) -> None:
    long = Reply(text="word " * 3000)
    upstream.always("a", long)
    upstream.always("b", replace(long, finish_reason="length"))
    aggregator = {"model": "lab:agg", "context": 4000, "max_tokens": 500}
    moa.profile("two", "a", "b", aggregator=aggregator)
    start = ["bench", "run", write_prompts(moa, 2), "-p", "two", "-y", "--arms", "mixture,single"]
    ran = moa.run(*start)
    assert ran.code == 0, ran.err
    cut = (
        "cut (see `finish_reason`): 2 of 8 replies, 2 of 4 proposals;"
        " by arm: mixture 2, single:lab:b 2"
    )
    trimmed = "trimmed: in 2 of 8 turns, proposals were shortened to fit a model's context"
    told = [ran.text, moa.run("bench", "report", "runs/mine-two").text]
    for text in told:
        words = " ".join(text.split())
        assert cut in words
        assert f"{trimmed}; by arm: mixture 2" in words
    words = " ".join(moa.run("bench", "analyse", "runs/mine-two").text.split())
    assert "cut (see `finish_reason`): 2 of 4 proposals" in words
    assert "trimmed: in 2 of 2 turns" in words
