"""Strategies as arms: one fan-out for all of them, and what each made of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from moa_cli.core.strategy import STRATEGIES
from tests.support.bench.own_runs import (
    answered_twice,
    call_lines,
    item_lines,
    write_lines,
    write_prompts,
)
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

# A call of 100 tokens in and 10 out costs $0.12.
PRICE = {"prompt": 1000.0, "completion": 2000.0}
COMPARISON = {
    "points": [{"kind": "consensus", "text": "it is a thing", "responses": [1, 2, 3]}],
    "groups": [[1, 2], [3]],
}


def kind_of(request: Request) -> str:
    """What a request asks for, by what it says."""
    said = json.dumps(request.messages)
    for kind, words in {
        "rank": "Rank the responses",
        "compare": "JSON",
        "choose": "most consistent response",
        "verify": "Verdict: yes",
        "reply": "Responses from models",
        "chair": "how they were ranked",
        "fuse": "A comparison of the responses",
    }.items():
        if words in said:
            return kind
    # All others have a proposal, or a choice among several, in their answer.
    return "select" if request.model == "agg" else "propose"


def answering(answers: Mapping[str, str]) -> Reply:
    """Models that review as they are asked to; and answer as they are told to, by name."""

    def text(request: Request) -> str:
        kind = kind_of(request)
        reviews = {
            "rank": "Ranking: 2 > 1",
            "compare": json.dumps(COMPARISON),
            "choose": "The most consistent response is Response 1",
            "verify": "Verdict: yes",
            "select": "2",
        }
        return reviews.get(kind) or answers.get(request.model, f"{request.model} as {kind}")

    return Reply(text=text, usage=(100, 10))


@pytest.fixture
def priced(moa: Moa, upstream: Upstream) -> Moa:
    """Models of known price; two of the three proposers have the same final answer."""
    models = ("a", "b", "c", "agg")
    moa.configure(
        providers=moa.settings()["providers"], prices={f"lab:{name}": PRICE for name in models}
    )
    moa.profile("lab", "a", "b", "c", max_tokens=50)
    upstream.always("*", answering({"a": "It is 41.", "b": "It is 42.", "c": "So it is 42."}))
    return moa


def by_arm(moa: Moa, run: str = "mine-lab") -> dict[str, dict[str, Any]]:
    """The last result of each arm."""
    return {line["arm"]: line for line in item_lines(moa.folder / "runs" / run)}


def test_all_strategies_cost_one_fan_out(priced: Moa, upstream: Upstream) -> None:
    start = ["bench", "run", write_prompts(priced, 2), "-y", "--arms"]
    ran = priced.run(*start, ",".join(["mixture", *STRATEGIES]))
    assert ran.code == 0, ran.err
    assert "calls that several arms make are made once" in ran.err
    counts = Counter(map(kind_of, upstream.chats()))
    assert counts == {
        "propose": 6,
        "reply": 2,
        "compare": 2,
        "fuse": 2,
        "select": 2,
        "rank": 6,
        "chair": 2,
    }
    assert answered_twice(upstream) == []
    for form in ("table", "markdown", "html"):
        shown = priced.run("bench", "report", "runs/mine-lab", "--format", form)
        assert shown.code == 0, shown.err
        assert all(strategy in shown.text for strategy in STRATEGIES)
    # The same command has nothing left to do.
    assert priced.run(*start, ",".join(["mixture", *STRATEGIES])).code == 0
    assert len(upstream.chats()) == counts.total()


def test_a_result_holds_reviews_and_decision(priced: Moa, upstream: Upstream) -> None:
    arms = ",".join(STRATEGIES)
    ran = priced.run("bench", "run", write_prompts(priced, 1), "-y", "--arms", arms)
    assert ran.code == 0, ran.err
    results = by_arm(priced)
    assert list(results) == list(STRATEGIES)
    assert {arm: line["usage"]["calls"] for arm, line in results.items()} == {
        "synthesize": 4,
        "fusion": 5,
        "vote": 3,
        "select": 4,
        "council": 7,
    }
    [council] = results["council"]["turns"]
    [rankings] = council["reviews"]
    assert [(review["model"], review["purpose"]) for review in rankings] == [
        ("lab:a", "rank"),
        ("lab:b", "rank"),
        ("lab:c", "rank"),
    ]
    keys = {line["key"] for line in call_lines(priced.folder / "runs" / "mine-lab")}
    assert {review["key"] for review in rankings} < keys
    assert council["reply"]["text"] == "agg as chair"
    assert council["reply"]["key"] in keys - {review["key"] for review in rankings}
    assert council["decision"]["summary"].startswith("ranked by 3 of 3")
    # What has nothing to tell of them is written as ever.
    [plain] = results["synthesize"]["turns"]
    assert not plain.keys() & {"reviews", "decision", "copied"}


def test_a_copied_reply_is_no_call(priced: Moa, upstream: Upstream) -> None:
    ran = priced.run("bench", "run", write_prompts(priced, 1), "-y", "--arms", "vote,select")
    assert ran.code == 0, ran.err
    for arm, text, proposer in (("vote", "It is 42.", "lab:b"), ("select", "It is 42.", "lab:b")):
        line = by_arm(priced)[arm]
        [turn] = line["turns"]
        assert line["replies"] == [text]
        assert turn["copied"] is True
        assert (turn["reply"]["model"], turn["reply"]["key"]) == (proposer, "")
        assert turn["reply"]["usage"]["calls"] == 0
        assert turn["decision"]["chosen"] == 1
    assert by_arm(priced)["vote"]["usage"]["cost"] == pytest.approx(0.36)
    assert by_arm(priced)["select"]["usage"]["cost"] == pytest.approx(0.48)


def test_a_lost_ranking_is_asked_for_again(priced: Moa, upstream: Upstream) -> None:
    refused = Reply(status=400, error={"error": {"message": "no rankings today"}})
    upstream.enqueue("c", answering({"c": "It is 1."}), refused, refused)
    start = ["bench", "run", write_prompts(priced, 1), "-y", "--arms", "council"]
    ran = priced.run(*start)
    assert ran.code == 1
    assert "failed: council, item 1: lab:c: " in ran.text
    assert "no rankings today" in ran.text
    before = len(upstream.chats())
    ran = priced.run(*start)
    assert ran.code == 0, ran.err
    # One ranking and the reply: what was there is not asked for again, or estimated.
    assert "moa: 2 calls; tokens in" in ran.err
    assert [kind_of(request) for request in upstream.chats()[before:]] == ["rank", "chair"]


def test_answers_that_are_given_cannot_judge_each_other(priced: Moa, upstream: Upstream) -> None:
    rows = [
        {
            "instruction": "say in one line what you know of thing 1",
            "output": f"It is {name}.",
            "generator": name,
            "dataset": "x",
        }
        for name in ("41", "42", "43")
    ]
    paths = []
    for row in rows:
        (priced.folder / f"{row['generator']}.json").write_text(json.dumps([row]))
        paths += ["--reference-paths", f"{row['generator']}.json"]
    start = ["bench", "run", write_prompts(priced, 1), "-y", *paths, "--arms"]
    ran = priced.run(*start, "vote,council")
    assert ran.code == 2
    assert ran.err.startswith("moa: --reference-paths: the arm `council` has the proposers judge")
    assert upstream.chats() == []
    ran = priced.run(*start, "vote,select")
    assert ran.code == 0, ran.err
    assert [kind_of(request) for request in upstream.chats()] == ["select"]
    assert by_arm(priced)["vote"]["turns"][0]["reply"]["model"] == "given:41"


def test_the_estimate_counts_shared_calls_once(priced: Moa, upstream: Upstream) -> None:
    arms = ",".join(["mixture", *STRATEGIES])
    start = ["bench", "run", write_prompts(priced, 6), "--rounds", "2", "-y", "--arms", arms]
    ran = priced.run(*start)
    assert ran.code == 0, ran.err
    told = re.search(r"moa: between ([\d,]+) and ([\d,]+) calls; tokens in: between", ran.err)
    assert told
    # Only the judge of a vote without final answers may be asked, or may not.
    assert (int(told[1]), int(told[2])) == (len(upstream.chats()), len(upstream.chats()) + 6)


def test_what_a_profile_saves_is_reported(priced: Moa, upstream: Upstream) -> None:
    """Easy questions are answered by the first model alone, hard ones by all."""

    def text(request: Request) -> str:
        said = request.messages[-1]["content"]
        if kind_of(request) == "verify":
            return f"Verdict: {'no' if 'hard' in said else 'yes'}"
        return f"It is {'42' if request.model == 'agg' or 'easy' in said else '41'}."

    upstream.always("*", Reply(text=text, usage=(100, 10)))
    route = [{"proposers": 1, "verify": True}]
    priced.profile("routed", "a", "b", "c", max_tokens=50, route=route)
    rows = [
        {"prompt": f"a {kind} question, {place}", "answer": "42"}
        for place, kind in enumerate(("easy", "easy", "easy", "hard"))
    ]
    write_lines(priced.folder / "mixed.jsonl", rows)
    start = ["bench", "run", "mixed.jsonl", "-p", "routed", "-y", "--arms", "mixture,synthesize"]
    ran = priced.run(*start)
    assert ran.code == 0, ran.err
    run = "runs/mixed-routed"
    lines = {(line["arm"], line["item"]): line for line in item_lines(priced.folder / run)}
    routed = [lines["mixture", str(item)]["turns"][0] for item in range(1, 5)]
    assert [turn.get("copied", False) for turn in routed] == [True, True, True, False]
    assert [turn["decision"]["saved_calls"] for turn in routed] == [3, 3, 3, 0]
    report = priced.run("bench", "report", run, "--format", "json")
    assert report.code == 0, report.err
    arms = {arm["arm"]: arm for arm in json.loads(report.out)["runs"][0]["arms"]}
    assert arms["mixture"]["saved"]["calls"] == 9
    assert arms["mixture"]["saved"]["turns"] == 3
    # By what its rule says: of 20 calls without a route, 3 times 3 are not made, and 4 checks are.
    assert arms["mixture"]["usage"]["calls"] == 3 * 2 + 5
    assert arms["synthesize"]["usage"]["calls"] == 16
    assert arms["synthesize"]["saved"] is None
    # A right answer: all of the mixture's are; the calls cost $0.12 each.
    told = {"metric": "accuracy", "point": "right", "value": pytest.approx(0.12 * 11 / 4)}
    assert arms["mixture"]["cost_per_point"] == [told]
    shown = priced.run("bench", "report", run).text
    assert "cost/right" in shown
    assert (
        "mixture: in 3 of 4 turns less was enough: stage 1 of the route was enough (3);"
        " 9 calls and about $"
    ) in " ".join(shown.split())
    table = priced.run("bench", "report", run, "--format", "csv").text
    [cost] = re.findall(r"mixture,cost per right \(USD\),,([\d.]+),,4,4,,", table)
    assert float(cost) == pytest.approx(0.33)


def test_agreement_ends_a_turn_of_the_mixture_alone(priced: Moa, upstream: Upstream) -> None:
    upstream.always("*", answering(dict.fromkeys("abc", "It is 42.")))
    priced.profile("agreed", "a", "b", "c", max_tokens=50, stop_when_agreed=1.0)
    start = ["bench", "run", write_prompts(priced, 1), "-p", "agreed", "-y", "--arms"]
    ran = priced.run(*start, "mixture,synthesize")
    assert ran.code == 0, ran.err
    results = by_arm(priced, "mine-agreed")
    # The mixture may ask the aggregator; the strategy, which runs to its end, will.
    assert "moa: 4 calls; tokens in" in ran.err
    assert results["mixture"]["replies"] == ["It is 42."]
    assert results["synthesize"]["replies"] == ["agg as reply"]
    assert (results["mixture"]["usage"]["calls"], results["synthesize"]["usage"]["calls"]) == (3, 4)


def test_what_reviews_took_is_told_apart(priced: Moa, upstream: Upstream) -> None:
    ran = priced.run("bench", "run", write_prompts(priced, 1), "-y", "--arms", "council")
    assert ran.code == 0, ran.err
    analysed = priced.run("bench", "analyse", "runs/mine-lab", "--json")
    assert analysed.code == 0, analysed.err
    assert '"ranking"' in analysed.text


@pytest.mark.parametrize(
    "settings", [{"references": 2, "rounds": 2}, {"shuffle": True, "rounds": 2}, {"window": 2}]
)
def test_subsets_and_windows_are_foretold_as_they_are_asked(
    priced: Moa, upstream: Upstream, settings: dict[str, Any]
) -> None:
    priced.profile("drawn", "a", "b", "c", max_tokens=50, **settings)
    start = ["bench", "run", write_prompts(priced, 3), "-p", "drawn", "-y", "--arms"]
    ran = priced.run(*start, "mixture,council,synthesize")
    assert ran.code == 0, ran.err
    assert f"moa: {len(upstream.chats())} calls; tokens in" in ran.err
    assert answered_twice(upstream) == []
    # The last reply is lost: all before it is found in the journal.
    run = priced.folder / "runs" / "mine-drawn"
    lines = (run / "calls.jsonl").read_text().splitlines()
    keys = {line["turns"][0]["reply"]["key"] for line in item_lines(run)}
    kept = [line for line in lines if json.loads(line)["key"] not in keys]
    (run / "calls.jsonl").write_text("".join(f"{line}\n" for line in kept))
    (run / "items.jsonl").unlink()
    ran = priced.run(*start, "mixture,council,synthesize")
    assert ran.code == 0, ran.err
    assert f"moa: {len(lines) - len(kept)} calls; tokens in" in ran.err
