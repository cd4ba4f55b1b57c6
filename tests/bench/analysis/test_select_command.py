"""`moa bench select`: proposers by quality and diversity, aggregators apart, the profile."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from moa_cli.bench.analysis.similarity import bleu
from moa_cli.bench.run.journal import Result
from moa_cli.core.answers.similarity import levenshtein
from tests.support.bench.folders import answer, failed, mixed, single, write_judge, write_run
from tests.support.bench.own_runs import write_lines
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

# Four words each, so that BLEU has all its n-grams.
SAID = {
    "a": "the sum is surely 4",
    "b": "the sum is surely 4",
    "c": "adding both of them gives 4",
    "d": "who could ever know such 5",
}
ITEMS = [{"id": n, "prompt": f"what is 2 + 2, for the {n}. time?", "answer": "4"} for n in "123"]
PROFILE = {
    "name": "lab",
    "rounds": 2,
    "temperature": 0.4,
    "proposers": [{"model": f"lab:{name}", "max_tokens": 50, "samples": 2} for name in "abcde"],
    "aggregator": {"model": "lab:agg", "fallbacks": ["lab:a"], "max_tokens": 99},
}


def pool_run(moa: Moa, *more: Result) -> Path:
    """Each model's answers alone, the same to all items."""
    results = [single(n, answer(model, text)) for n in "123" for model, text in SAID.items()]
    return write_run(moa.folder / "pool", ITEMS, [*results, *more], profile=PROFILE)


def mixture_run(moa: Moa, aggregator: str, right: int, **settings: Any) -> Path:
    """The mixture under an aggregator that answers so many of the items rightly."""
    results = [
        mixed(
            "mixture",
            n,
            [[answer("a", "4"), answer("b", "5")]],
            answer(aggregator, "4" if int(n) <= right else "5"),
        )
        for n in "123"
    ]
    own = {"model": f"lab:{aggregator}", "max_tokens": 77}
    profile = {**PROFILE, "name": aggregator, "aggregator": own, **settings}
    return write_run(moa.folder / f"under-{aggregator}", ITEMS, results, profile=profile)


def selected(moa: Moa, *arguments: str | Path, **options: Any) -> dict[str, Any]:
    """What `--json` says."""
    ran = moa.run("bench", "select", *map(str, arguments), "--json", **options)
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def similarity_of(measure: Any) -> dict[str, float]:
    """Each model's mean similarity to the others, both ways."""
    found = {}
    for each_name, text in SAID.items():
        others = [other for name, other in SAID.items() if name != each_name]
        found[each_name] = sum(measure(text, o) + measure(o, text) for o in others) / (
            2 * len(others)
        )
    return found


def test_quality_and_diversity_make_the_score(moa: Moa) -> None:
    found = selected(moa, pool_run(moa), "-k", "2")
    assert (found["measure"], found["unit"], found["items"]) == ("BLEU", "right answers, %", 3)
    pool = {ranked["candidate"]["model"].removeprefix("lab:"): ranked for ranked in found["pool"]}
    assert {name: ranked["candidate"]["quality"]["value"] for name, ranked in pool.items()} == {
        "a": 100,
        "b": 100,
        "c": 100,
        "d": 0,
    }
    for name, likeness in similarity_of(bleu).items():
        assert pool[name]["candidate"]["likeness"]["value"] == pytest.approx(likeness)
        # Both ways with three others, over three items.
        assert pool[name]["candidate"]["likeness"]["n"] == 18
        parts = 2 * pool[name]["quality_z"] + pool[name]["diversity_z"]
        assert pool[name]["score"] == pytest.approx(parts)
    # 100, 100, 100 and 0: mean 75, deviation 43.3.
    assert pool["d"]["quality_z"] == pytest.approx(-75 / 1875**0.5)
    # c is as right as a and b, and alike to nobody.
    order = [ranked["candidate"]["model"] for ranked in found["pool"]]
    assert order == ["lab:c", "lab:a", "lab:b", "lab:d"]
    assert [ranked["chosen"] for ranked in found["pool"]] == [True, True, False, False]


def test_weights_decide(moa: Moa) -> None:
    run = pool_run(moa)
    found = selected(moa, run, "-k", "2", "--weights", "0:1")
    assert {ranked["candidate"]["model"] for ranked in found["pool"] if ranked["chosen"]} == {
        "lab:c",
        "lab:d",
    }
    for typed in ("2", "a:b", "-1:2", "0:0", "1:2:3", "inf:1"):
        ran = moa.run("bench", "select", str(run), f"--weights={typed}")
        assert ran.code == 2
        told = f"moa: --weights: `{typed}` must be two weights (quality:diversity, as in 2:1)\n"
        assert ran.err == told


def test_a_judge_decides_where_there_is_one(moa: Moa) -> None:
    items = [{"id": n, "prompt": n} for n in "123"]
    results = [single(n, answer(model, text)) for n in "123" for model, text in SAID.items()]
    run = write_run(moa.folder / "run", items, results, profile=PROFILE)
    ran = moa.run("bench", "select", str(run))
    assert ran.code == 1
    assert ran.err.startswith(f"moa: {run} has no judgements")
    values = {"a": 1.2, "b": 1.9, "c": 1.5, "d": 1.4}
    verdicts = [(f"single:lab:{name}", n, value) for name, value in values.items() for n in "123"]
    judge = write_judge(run, verdicts, "pairwise")
    found = selected(moa, run, "--judge", judge, "-k", "1", "--weights", "1:0")
    assert (found["unit"], found["judge"]) == ("win rate, %", judge)
    best = found["pool"][0]["candidate"]
    assert (best["model"], best["quality"]["value"]) == ("lab:b", pytest.approx(90))


def test_aggregators_are_ranked_by_runs_that_differ_in_nothing_else(moa: Moa) -> None:
    runs = [mixture_run(moa, "x", 1), mixture_run(moa, "y", 3), mixture_run(moa, "z", 2, rounds=1)]
    found = selected(moa, pool_run(moa), *runs)
    told = [
        (aggregator["model"], aggregator["worth"]["value"], aggregator["worth"]["n"])
        for aggregator in found["aggregators"]
    ]
    assert told == [("lab:y", 100, 3), ("lab:x", pytest.approx(100 / 3), 3)]
    assert found["aggregator"] == {"model": "lab:y", "why": "the best aggregator measured"}
    assert found["profile"]["aggregator"] == {"model": "lab:y", "max_tokens": 77}
    shown = moa.run("bench", "select", str(moa.folder / "pool"), *map(str, runs)).text
    assert "As aggregators: the same mixture under each" in shown
    assert "→ lab:y (the best aggregator measured)" in shown


def test_without_such_runs_it_says_how_to_make_them(moa: Moa) -> None:
    run = pool_run(moa)
    ran = moa.run("bench", "select", str(run))
    assert ran.code == 0, ran.err
    assert "As aggregators: not measured." in ran.text
    # A user's own file is no dataset that has a name.
    assert (
        f"moa bench run {moa.folder}/pool-items.jsonl -p PROFILE -a MODEL -o runs/MODEL" in ran.text
    )
    assert "the best single model, because no aggregator was measured" in ran.text
    assert "* " in ran.text
    with moa.terminal("bench", "select", str(run)) as terminal:
        assert terminal.wait() == 0
        assert max(map(len, terminal.lines())) <= 80


def test_the_profile_can_be_used_at_once(moa: Moa, upstream: Upstream) -> None:
    run = pool_run(moa)
    ran = moa.run("bench", "select", str(run), "-k", "2", "--write", "best")
    assert ran.code == 0, ran.err
    path = moa.config / "profiles" / "best.toml"
    assert ran.err == f"moa: wrote {path}; use it: moa ask -p best\n"
    assert tomllib.loads(path.read_text("utf-8")) == {
        "description": f"chosen by moa bench select from {run}",
        "rounds": 2,
        "temperature": 0.4,
        "proposers": [{"model": f"lab:{name}", "max_tokens": 50} for name in "ca"],
        "aggregator": {"model": "lab:a", "max_tokens": 50},
    }
    asked = moa.run("ask", "-p", "best", "hello")
    assert asked.code == 0, asked.err
    assert [len(upstream.chats(model)) for model in "abcd"] == [3, 0, 2, 0]
    again = moa.run("bench", "select", str(run), "--write", "best")
    assert again.code == 2
    assert "there is already a profile `best`" in again.err
    assert moa.run("bench", "select", str(run), "--write", "best", "--force").code == 0
    assert moa.run("bench", "select", str(run), "--write", "./own.toml").code == 0
    assert moa.run("ask", "-p", "./own.toml", "hello").code == 0
    again = moa.run("bench", "select", str(run), "--write", "./own.toml")
    assert "own.toml: already exists" in again.err


def test_the_profile_keeps_how_the_mixture_makes_its_reply(moa: Moa) -> None:
    kept = {"strategy": "vote", "final_answer": "number", "references": 2}
    route = [{"proposers": 1, "verify": True}]
    results = [single(n, answer(model, text)) for n in "123" for model, text in SAID.items()]
    profile = {**PROFILE, **kept, "route": route}
    run = write_run(moa.folder / "voted", ITEMS, results, profile=profile)
    ran = moa.run("bench", "select", str(run), "-k", "2", "--write", "best")
    assert ran.code == 0, ran.err
    written = tomllib.loads((moa.config / "profiles" / "best.toml").read_text("utf-8"))
    assert {key: written[key] for key in kept} == kept
    # It counted proposers, which are others now.
    assert "route" not in written


def test_only_items_that_all_have_count(moa: Moa) -> None:
    results = [single(n, answer("e", "4")) for n in "12"] + [failed("single:lab:e", "3")]
    found = selected(moa, pool_run(moa, *results))
    assert (found["items"], found["asked"]) == (2, 3)
    assert found["notes"] == ["partial: all have a judged answer to 2 of 3 items only"]
    assert {ranked["candidate"]["quality"]["n"] for ranked in found["pool"]} == {2}


def test_what_cannot_be_chosen_from_is_told(moa: Moa) -> None:
    run = pool_run(moa)
    ran = moa.run("bench", "select", str(run), "-k", "5")
    assert (ran.code, ran.err) == (1, "moa: 5 models cannot be chosen from a pool of 4\n")
    ran = moa.run("bench", "select", str(mixture_run(moa, "x", 1)))
    assert ran.err == "moa: no model answered alone in these runs (moa bench run --arms single)\n"
    other = write_run(
        moa.folder / "other",
        [{"id": "1", "prompt": "another", "answer": "1"}],
        [single("1", answer("a", "1"))],
    )
    ran = moa.run("bench", "select", str(run), str(other))
    assert "have different items or judges" in ran.err
    assert (ran.code, ran.err.count("\n")) == (1, 1)


def test_without_sacrebleu_it_is_levenshtein_and_says_so(moa: Moa, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sacrebleu.py").write_text("raise ImportError('not here')")
    path = f"{tmp_path / 'without'}:{moa.environment['PYTHONPATH']}"
    found = selected(moa, pool_run(moa), env={"PYTHONPATH": path})
    assert found["measure"] == "Levenshtein"
    assert found["notes"][0].startswith("similarity by Levenshtein: BLEU needs sacrebleu")
    told = {
        ranked["candidate"]["model"]: ranked["candidate"]["likeness"]["value"]
        for ranked in found["pool"]
    }
    for name, likeness in similarity_of(levenshtein).items():
        assert told[f"lab:{name}"] == pytest.approx(likeness)


def test_runs_made_by_the_command_itself(moa: Moa, upstream: Upstream) -> None:
    """From `moa bench run` over known answers to a profile."""

    def says(request: Request) -> str:
        return "4" if request.model in ("a", "c", "agg") else "5"

    for model in ("a", "b", "c", "agg", "agg2"):
        upstream.always(model, Reply(text=says))
    write_lines(moa.folder / "mine.jsonl", ITEMS)
    start = ["bench", "run", "mine.jsonl", "-y"]
    assert moa.run(*start, "--arms", "mixture,single", "-o", "one").code == 0
    assert moa.run(*start, "-a", "lab:agg2", "-o", "two").code == 0
    found = selected(moa, "one", "two", "-k", "2")
    assert [aggregator["model"] for aggregator in found["aggregators"]] == ["lab:agg", "lab:agg2"]
    assert {ranked["candidate"]["model"] for ranked in found["pool"] if ranked["chosen"]} <= {
        "lab:a",
        "lab:c",
        "lab:agg",
    }
    ran = moa.run("bench", "analyse", "one", "--json")
    assert ran.code == 0, ran.err
    [arm] = json.loads(ran.out)["arms"]
    # a and c are right, b is wrong, and the reply is as a's and c's.
    assert [measured["nearest"]["value"] for measured in arm["near"]] == [0.5, 0, 0.5]
    assert arm["preference"]["control"] == "single:lab:agg"
    assert arm["seconds_path"]["median"] <= arm["seconds_sum"]["median"]


def test_a_choice_with_an_unknown_provider_is_not_written(moa: Moa) -> None:
    # As a run may hold it that was made under other settings.
    run = pool_run(moa)
    moa.configure(providers={"other": moa.settings()["providers"]["lab"]})
    ran = moa.run("bench", "select", str(run), "--write", "best")
    assert ran.code == 2
    [line] = [line for line in ran.err.splitlines() if line.startswith("moa: `")]
    assert "`proposers[1].model`: there is no provider `lab` (model `lab:" in line
    assert not (moa.config / "profiles" / "best.toml").exists()
