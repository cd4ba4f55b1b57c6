"""`moa bench run -n` asks a sample that represents the dataset."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.bench.data.items import Item
from moa_cli.bench.data.loading import load_dataset
from moa_cli.bench.data.sampling import DRAWS, sample_of
from tests.support.bench.own_runs import write_lines
from tests.support.command import Moa

RUN = ("bench", "run", "mine.jsonl", "-y", "--rounds", "0", "-o", "runs/mine")


@pytest.fixture
def prompts(moa: Moa) -> list[dict[str, Any]]:
    """Forty lines of prompts: thirty of one category, then ten of another."""
    rows = [
        {"id": f"q{n}", "prompt": f"what is {n}?", "category": "large" if n < 30 else "small"}
        for n in range(40)
    ]
    write_lines(moa.folder / "mine.jsonl", rows)
    return rows


def asked(moa: Moa) -> list[str]:
    """The items of the run, in its order."""
    lines = (moa.folder / "runs" / "mine" / "items.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["item"] for line in lines]


def settings(moa: Moa) -> dict[str, Any]:
    """What run.json holds."""
    found: dict[str, Any] = json.loads((moa.folder / "runs" / "mine" / "run.json").read_text())
    return found


@pytest.mark.parametrize(("name", "count"), [("alpaca", 100), ("math", 50), ("mt", 16)])
def test_a_sample_has_of_each_category_its_share(data: Path, name: str, count: int) -> None:
    items = load_dataset(name, data).items
    sample = sample_of(items, limit=count)
    assert sample is not None
    chosen = sample.of(items)
    assert len(chosen) == sample.items == count
    whole, part = (Counter(item.category for item in found) for found in (items, chosen))
    for category, size in whole.items():
        assert abs(part[category] - count * size / len(items)) < 1, category
    # In the dataset's order.
    places = {item.id: place for place, item in enumerate(items)}
    assert [places[item.id] for item in chosen] == sorted(places[item.id] for item in chosen)
    assert chosen != items[:count]


@given(
    st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=60),
    st.integers(0, 9),
    st.sampled_from(DRAWS),
)
def test_a_smaller_sample_is_a_part_of_a_larger_one(
    categories: list[str | None], seed: int, draw: Any
) -> None:
    items = [Item(str(n), ("?",), category) for n, category in enumerate(categories)]
    before: set[str] = set()
    for limit in range(1, len(items) + 1):
        sample = sample_of(items, limit=limit, draw=draw, seed=seed)
        chosen = items[:limit] if sample is None else sample.of(items)
        ids = {item.id for item in chosen}
        assert len(ids) == limit
        assert before <= ids
        before = ids


def test_a_run_asks_a_sample_and_says_so(moa: Moa, prompts: list[dict[str, Any]]) -> None:
    ran = moa.run(*RUN, "-n", "8")
    assert ran.code == 0, ran.err
    assert "mine: 8 of 40 items (drawn by category, seed 0), arms" in ran.err
    first = asked(moa)
    assert Counter(int(name[1:]) < 30 for name in first) == {True: 6, False: 2}
    assert settings(moa)["sample"] == {
        **{"items": 8, "limit": 8, "draw": "stratified", "seed": 0, "ids": [], "categories": []},
        "shuffle": False,
    }
    # The same command asks nothing again; a report counts the sample.
    assert moa.run(*RUN, "-n", "8").code == 0
    assert asked(moa) == first
    assert "8 of 40 items" in moa.run("bench", "report", "runs/mine").text


def test_another_seed_draws_another_sample(moa: Moa, prompts: list[dict[str, Any]]) -> None:
    found = []
    for number, seed in enumerate(("0", "7", "7")):
        ran = moa.run(*RUN[:-1], f"runs/{number}", "-n", "8", "--sample-seed", seed)
        assert ran.code == 0, ran.err
        found.append((moa.folder / f"runs/{number}/items.jsonl").read_text("utf-8").count("\n"))
    names = [
        [
            json.loads(line)["item"]
            for line in (moa.folder / f"runs/{number}/items.jsonl").read_text("utf-8").splitlines()
        ]
        for number in range(3)
    ]
    assert found == [8, 8, 8]
    assert names[0] != names[1] == names[2]


def test_a_run_of_the_first_items_goes_on_as_it_is(moa: Moa, prompts: list[dict[str, Any]]) -> None:
    assert moa.run(*RUN, "-n", "3", "--sample", "first").code == 0
    assert asked(moa) == ["q0", "q1", "q2"]
    # It is written down as earlier versions did.
    assert "sample" not in settings(moa)
    ran = moa.run(*RUN, "-n", "3")
    assert ran.code == 0, ran.err
    assert asked(moa) == ["q0", "q1", "q2"]


def test_a_sample_grows_and_is_then_as_if_drawn_at_once(
    moa: Moa, prompts: list[dict[str, Any]]
) -> None:
    assert moa.run(*RUN, "-n", "8").code == 0
    small = set(asked(moa))
    ran = moa.run(*RUN, "-n", "16")
    assert ran.code == 0, ran.err
    assert "grows from 8 to 16 items" in ran.err
    grown = asked(moa)
    assert small < set(grown)
    assert moa.run(*RUN[:-1], "runs/fresh", "-n", "16").code == 0
    fresh = (moa.folder / "runs/fresh/run.json").read_text("utf-8")
    assert json.loads(fresh)["sample"] == settings(moa)["sample"]
    lines = (moa.folder / "runs/fresh/items.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["item"] for line in lines] == grown


def test_items_are_named_by_id_and_by_category(moa: Moa, prompts: list[dict[str, Any]]) -> None:
    ran = moa.run(*RUN, "--ids", "q31, q4")
    assert ran.code == 0, ran.err
    assert "2 of 40 items (by their ids)" in ran.err
    assert asked(moa) == ["q4", "q31"]
    (moa.folder / "ids.txt").write_text("q2\nq39\n", "utf-8")
    other = ("bench", "run", "mine.jsonl", "-y", "--rounds", "0", "-o", "runs/other")
    assert moa.run(*other, "--ids", "@ids.txt", "--category", "small").code == 0
    run = json.loads((moa.folder / "runs/other/run.json").read_text("utf-8"))
    assert (run["sample"]["items"], run["sample"]["categories"]) == (1, ["small"])
    text = (moa.folder / "runs/other/items.jsonl").read_text("utf-8")
    assert json.loads(text)["item"] == "q39"


def test_a_shuffled_run_asks_in_the_order_of_the_draw(
    moa: Moa, prompts: list[dict[str, Any]]
) -> None:
    ran = moa.run(*RUN, "--shuffle")
    assert ran.code == 0, ran.err
    order = asked(moa)
    assert sorted(order) == sorted(row["id"] for row in prompts)
    # Any part of it has of each category its share.
    for count in (8, 16, 24):
        assert Counter(int(name[1:]) < 30 for name in order[:count])[False] == count / 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ids", "q3,q77"], "the dataset has no item `q77`"),
        (["--category", "larg"], "did you mean `large`?"),
        (["--category", "other"], "there are large, small"),
        (["--ids", "q3", "--category", "small"], "no item has one of these ids and one of these"),
        (["--ids", ","], "--ids: names no item"),
        (["--ids", "@missing.txt"], "missing.txt"),
        (["-n", "3", "--sample", "best"], "there is no `best`"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    moa: Moa, prompts: list[dict[str, Any]], options: list[str], said: str
) -> None:
    ran = moa.run(*RUN, *options)
    assert ran.code != 0
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not (moa.folder / "runs").exists()
