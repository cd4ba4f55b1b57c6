"""`moa ask` by a strategy: votes over questions with answers, and all of them with a real model."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moa_cli.core.strategy import STRATEGIES
from tests.support.bench.tables import jsonl_rows
from tests.support.command import KEY, PATIENCE, Moa
from tests.support.upstream import Reply, Request, Upstream

MODELS = "abcde"
# How a model may say a number, all of them by every rule that reads numbers.
FORMS = (
    "Step 1: 3 x 4 = 12.\nThe answer is **{number}**.",
    "12 and 30 are too few.\n#### {number}",
    "Therefore $\\boxed{{{number}}}$ (checked in 2 steps).",
    "First 7, then 8.\nIn the end there are {number} dollars.",
    "So it is ${number:,}.00.",
)
UNSURE = "Who could tell?"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(api_key=KEY) as upstream:
        yield upstream


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    made = Moa(tmp_path, upstream.url)
    made.profile("vote", *MODELS, strategy="vote")
    made.profile("five", *MODELS)
    return made


def asked(moa: Moa, *arguments: str, patience: float = PATIENCE) -> dict[str, Any]:
    ran = moa.run("ask", "--json", *arguments, patience=patience)
    assert ran.code == 0, ran.err
    turn: dict[str, Any] = json.loads(ran.text)
    return turn


def _question(request: Request) -> str:
    return str(request.messages[-1]["content"])


def _script(upstream: Upstream, rows: list[dict[str, Any]]) -> dict[str, list[int | None]]:
    """Have each model answer each question, right or not; the numbers that they give."""
    dice = random.Random(15)
    numbers: dict[str, list[int | None]] = {}
    texts: dict[tuple[str, str], str] = {}
    for row in rows:
        right = int(row["answer"].rsplit("####", 1)[1].strip().replace(",", ""))
        given = [dice.choice((right, right, right + 1, right + 2, None)) for _ in MODELS]
        if not any(given):
            given[0] = right
        numbers[row["question"]] = given
        for model, number in zip(MODELS, given, strict=True):
            form = UNSURE if number is None else dice.choice(FORMS)
            texts[model, row["question"]] = form.format(number=number)
    for model in MODELS:
        upstream.always(model, Reply(text=lambda request: texts[request.model, _question(request)]))
    return numbers


def test_votes_on_gsm8k_are_the_majorities_of_what_was_answered(
    moa: Moa, upstream: Upstream
) -> None:
    folder = os.environ.get("MOA_TEST_DATA")
    if not folder:
        pytest.skip("MOA_TEST_DATA names no folder of evaluation data")
    rows = jsonl_rows(Path(folder) / "gsm8k/slice50.jsonl")
    numbers = _script(upstream, rows)
    ties = unsure = 0
    for question, given in numbers.items():
        counts = Counter(number for number in given if number is not None)
        most = max(counts.values())
        # Of several, the one that stands first in the profile.
        winner = next(number for number in given if number and counts[number] == most)
        turn = asked(moa, "-p", "five", "--strategy", "vote", "--", question)
        decision = turn["decision"]
        assert decision["chosen"] == given.index(winner)
        assert turn["reply"] == turn["proposals"][0][given.index(winner)]["text"]
        assert [placing["votes"] for placing in decision["placings"]] == sorted(
            (0 if number is None else counts[number] for number in given), reverse=True
        )
        tie = list(counts.values()).count(most) > 1
        assert ("a tie, decided for the first in the profile" in decision["summary"]) == tie
        unreadable = given.count(None)
        assert ("unreadable" in decision["summary"]) == bool(unreadable)
        ties, unsure = ties + tie, unsure + bool(unreadable)
    assert ties > 3
    assert unsure > 3
    assert len(upstream.chats()) == len(rows) * len(MODELS)


def test_a_judge_chooses_where_there_are_only_texts(moa: Moa, upstream: Upstream) -> None:
    for model in MODELS:
        upstream.always(model, Reply(text=f"I am {model}."))
    upstream.always("agg", Reply(text="The most consistent response is Response 3."))
    ran = moa.run("ask", "-p", "vote", "Who are you?")
    assert (ran.code, ran.text) == (0, "I am d.\n")
    assert len(upstream.chats("agg")) == 1


def test_a_wrong_rule_is_refused_in_one_line(moa: Moa) -> None:
    moa.profile("vote", *MODELS, strategy="vote", final_answer="regex:(")
    ran = moa.run("ask", "-p", "vote", "Who are you?")
    assert ran.code == 2
    [line] = ran.err.strip().splitlines()
    assert "`final_answer` is not a regular expression" in line


def test_a_route_saves_what_it_says_on_easy_and_hard_questions(
    moa: Moa, upstream: Upstream
) -> None:
    route = [{"proposers": 1, "verify": True}, {"proposers": 2, "agreement": 0.9}]
    moa.profile("routed", "a", "b", "c", judge="lab:judge", route=route, rounds=2)

    def answer(request: Request) -> str:
        easy = "hard" not in str(request.messages)
        if request.model == "judge":
            return "Verdict: yes" if easy else "Verdict: no"
        return "It is 42." if "medium" in str(request.messages) else f"from {request.model}"

    upstream.always("*", Reply(text=answer))
    saved = {}
    for prompt in ("an easy one", "a hard one of medium size", "a hard one"):
        upstream.requests.clear()
        turn = asked(moa, "-p", "routed", prompt)
        checks = len(upstream.chats("judge"))
        # Without its route, it would be three, three again, and the aggregator.
        assert turn["decision"]["saved_calls"] == 7 - (len(upstream.chats()) - checks)
        saved[prompt] = turn["decision"]["saved_calls"]
    assert list(saved.values()) == [6, 4, 0]


def test_a_layer_that_begins_again_is_told_without_repeating_itself(
    moa: Moa, upstream: Upstream
) -> None:
    route = [{"proposers": 1, "verify": True}, {"proposers": 2, "agreement": 0.9}]
    moa.profile("routed", "a", "b", "c", judge="lab:judge", route=route)
    upstream.always("*", Reply(text=lambda request: f"I am {request.model}, {request.model * 9}."))
    upstream.always("judge", Reply(text="Verdict: no"))
    ran = moa.run("ask", "-p", "routed", "--show-proposals", "-v", "Who are you?")
    assert ran.code == 0, ran.err
    for model in "abc":
        assert ran.err.count(f"I am {model}, ") == 1
    assert ran.text == f"I am agg, {'agg' * 9}.\n"


def test_other_models_than_the_profile_s_go_without_its_route(moa: Moa, upstream: Upstream) -> None:
    moa.profile("routed", "a", "b", "c", route=[{"proposers": 2, "agreement": 0.9}])
    ran = moa.run("ask", "-p", "routed", "-m", "lab:x", "-m", "lab:y", "Who are you?")
    assert ran.code == 0, ran.err
    assert sorted(request.model for request in upstream.chats()) == ["agg", "x", "y"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "options",
    [
        *(("--strategy", strategy) for strategy in STRATEGIES),
        ("--strategy", "fusion", "--one-call"),
        ("--strategy", "select", "--chosen-by", "proposers"),
        ("--strategy", "vote", "--final-answer", "text"),
        ("--report",),
    ],
    ids=" ".join,
)
def test_with_the_embedded_model_each_strategy_runs_to_the_end(
    moa: Moa, options: tuple[str, ...]
) -> None:
    pytest.importorskip("xllamacpp", reason="the extra `local` is not installed")
    model = {"model": "local:smollm2"}
    moa.profile("small", {**model, "samples": 3}, aggregator=model, max_tokens=60)
    question = "What is 17 + 25? Answer with a number."
    # The model takes all of the machine, which may be busy.
    turn = asked(moa, "-p", "small", *options, question, patience=6 * PATIENCE)
    assert turn["status"] == "finished"
    assert turn["reply"].strip()
