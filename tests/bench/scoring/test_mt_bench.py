"""MT-Bench, held to what FastChat's own code made of the same answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.bench.scoring.mt_bench import (
    JudgePrompt,
    Rating,
    judge_call,
    judge_prompts,
    needs_reference,
    parse_rating,
    prompt_name,
    scores,
    temperature,
)
from moa_cli.core.errors import BenchError
from tests.support.bench.tables import jsonl_rows

MODELS = ("moa-alpha", "moa-beta")


def answers(path: Path) -> dict[int, list[str]]:
    return {row["question_id"]: row["choices"][0]["turns"] for row in jsonl_rows(path)}


@pytest.fixture
def folder(data: Path) -> Path:
    return data / "mt_bench"


@pytest.fixture
def prompts(folder: Path) -> dict[str, JudgePrompt]:
    return judge_prompts(jsonl_rows(folder / "judge_prompts.jsonl"))


@pytest.fixture
def questions(folder: Path) -> dict[int, dict[str, Any]]:
    return {row["question_id"]: row for row in jsonl_rows(folder / "question.jsonl")}


def test_what_the_judge_is_asked_is_upstreams_to_the_byte(
    folder: Path, prompts: dict[str, JudgePrompt], questions: dict[int, dict[str, Any]]
) -> None:
    given_by = {model: answers(folder / f"golden/{model}.jsonl") for model in MODELS}
    references = answers(folder / "reference_answer_gpt-4.jsonl")
    golden = jsonl_rows(folder / "golden/gpt-4_single.jsonl")
    for row in golden:
        question = questions[row["question_id"]]
        call = judge_call(
            prompts,
            question["category"],
            question["turns"],
            given_by[row["model"]][row["question_id"]],
            row["turn"],
            references.get(row["question_id"], ()),
        )
        system, user = call.messages
        assert user.content == row["user_prompt"]
        name = prompt_name(question["category"], row["turn"])
        assert name == row["judge"][1]
        assert system.content == prompts[name].system
        assert (call.temperature, call.max_tokens) == (0, 2048)
    assert len(golden) == 320


def test_every_rating_is_read_as_upstream_does(folder: Path) -> None:
    golden = jsonl_rows(folder / "golden/gpt-4_single.jsonl")
    read = [parse_rating(row["judgment"]) for row in golden]
    assert [-1 if item is None else item for item in read] == [row["score"] for row in golden]
    assert read.count(None) == 20


@pytest.mark.parametrize("model", MODELS)
def test_averages_are_upstreams(
    folder: Path, questions: dict[int, dict[str, Any]], model: str
) -> None:
    ratings = [
        Rating(
            question=str(row["question_id"]),
            category=questions[row["question_id"]]["category"],
            turn=row["turn"],
            score=parse_rating(row["judgment"]),
        )
        for row in jsonl_rows(folder / "golden/gpt-4_single.jsonl")
        if row["model"] == model
    ]
    found = scores(ratings)
    expected = json.loads((folder / "golden/expected.json").read_text("utf-8"))[model]
    assert found.turn_1.value == pytest.approx(expected["turn_1"], abs=1e-12)
    assert found.turn_2.value == pytest.approx(expected["turn_2"], abs=1e-12)
    assert found.average.value == pytest.approx(expected["average"], abs=1e-12)
    assert sum(rating.score is None for rating in ratings) == expected["unparsed"] == 10
    assert found.turn_1.n + found.turn_2.n == found.average.n == 150
    by_category = {name: mean.value for name, mean in found.by_category.items()}
    assert by_category == pytest.approx(expected["by_category"], abs=1e-12)
    assert list(found.by_category) == list(expected["by_category"])
    assert all(mean.standard_error for mean in (found.average, *found.by_category.values()))


def test_categories_that_need_a_reference_answer_have_one(
    folder: Path, questions: dict[int, dict[str, Any]]
) -> None:
    needed = {key for key, row in questions.items() if needs_reference(row["category"])}
    assert needed == set(answers(folder / "reference_answer_gpt-4.jsonl"))
    assert {row["category"] for row in questions.values() if temperature(row["category"]) == 0} == {
        "extraction",
        "math",
        "coding",
        "reasoning",
    }


def test_temperatures() -> None:
    assert temperature("writing") == temperature("roleplay") == 0.7
    assert temperature("stem") == temperature("humanities") == 0.1
    assert temperature("something new") == 0.7


def test_two_turns_of_a_question_are_not_two_questions() -> None:
    ratings = [Rating(str(i), "stem", turn, 3.0 + i) for i in range(5) for turn in (1, 2)]
    found = scores(ratings)
    assert found.average.n == 10
    assert found.average.standard_error == pytest.approx(found.turn_1.standard_error)


def test_texts_with_braces_stay_as_they_are(prompts: dict[str, JudgePrompt]) -> None:
    answer = "{question} {ref_answer_1} {0} {{x}}"
    call = judge_call(prompts, "coding", ["Why {answer}?"], [answer], 1, ["{answer}"])
    text = call.messages[1].content
    assert answer in text
    assert "Why {answer}?" in text


def test_what_is_missing_is_named() -> None:
    prompts = {"single-v1": JudgePrompt("single-v1", "", "{question}")}
    with pytest.raises(BenchError, match="turn 2"):
        judge_call(prompts, "stem", ["a"], ["b"], 2)
    with pytest.raises(BenchError, match="reference answer"):
        judge_call(prompts, "math", ["a"], ["b"], 1)
    with pytest.raises(BenchError, match="single-v1-multi-turn"):
        judge_call(prompts, "stem", ["a", "b"], ["c", "d"], 2)
    with pytest.raises(BenchError, match="answer"):
        judge_call(prompts, "stem", ["a"], ["b"], 1)
    with pytest.raises(BenchError, match="system_prompt"):
        judge_prompts([{"name": "single-v1"}])


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("[[08]]", 8),
        ("[[8.]]", 8),
        ("see [3], so [[7.25]]", 7.25),
        ("[[9/10]] or [4]", 4),
        ("[[-2]]", None),
        ("[[ 8 ]]", None),
        (f"[[{'9' * 400}]]", None),
        ("", None),
    ],
)
def test_ratings_of_odd_forms(text: str, rating: float | None) -> None:
    assert parse_rating(text) == rating


@pytest.mark.parametrize(
    "text", ["[[" * 200_000, "[[" + "1" * 300_000, "[1" * 200_000], ids=["1", "2", "3"]
)
def test_long_texts_do_not_take_forever(text: str) -> None:
    """Were the pattern quadratic, the test would run into the suite's time limit."""
    assert not parse_rating(text)


@given(st.text(st.sampled_from("[]0123456789. x٣")) | st.text())
def test_any_text_can_be_read(text: str) -> None:
    rating = parse_rating(text)
    assert rating is None or rating >= 0
