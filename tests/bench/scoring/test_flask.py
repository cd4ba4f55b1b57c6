"""FLASK, held to what the reference's own code made of the same reviews."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.bench.scoring.flask import (
    SKILLS,
    Rubric,
    judge_call,
    parse_review,
    rubric,
    short_skill,
    skill_scores,
)
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.core.errors import BenchError
from tests.support.bench.tables import csv_rows, jsonl_rows


@pytest.fixture
def known(data: Path) -> Rubric:
    folder = data / "flask"
    return rubric(
        jsonl_rows(folder / "prompt.jsonl"),
        jsonl_rows(folder / "reviewer.jsonl"),
        json.loads((folder / "skillset_description.json").read_text("utf-8")),
    )


@pytest.fixture
def golden(data: Path) -> list[dict[str, Any]]:
    return jsonl_rows(data / "flask/golden/review.jsonl")


def asked(known: Rubric, row: dict[str, Any]) -> JudgeCall:
    return judge_call(known, row["instruction"], row["target_txt"], row["answer"], row["skill"])


def test_the_judges_prompt_is_upstreams(
    data: Path, known: Rubric, golden: list[dict[str, Any]]
) -> None:
    """By the reference's own code: `str.format` over texts put together skill by skill."""
    prompt = jsonl_rows(data / "flask/prompt.jsonl")[1]
    skills = json.loads((data / "flask/skillset_description.json").read_text("utf-8"))
    for row in golden:
        text = ""
        for label in row["skill"]:
            skill = next(skill for skill in skills if label in skill["Skill"])
            text += f"\n{skill['Skill']}: {skill['Criteria']}"
            for i in "12345":
                text += f"\nScore {i}: {skill['Scoring'][i]}"
            text += "\n\n"
        expected = prompt["prompt_template"].format(
            question=row["instruction"],
            response=row["target_txt"],
            skills=text,
            num=3,
            sample_answer=row["answer"],
            **prompt["defaults"],
        )
        system, user = asked(known, row).messages
        assert (system.content, user.content) == (prompt["system_prompt"], expected)


def test_the_judges_prompts_have_the_length_that_the_golden_run_counted(
    known: Rubric, golden: list[dict[str, Any]]
) -> None:
    # That run's judge counted a token per four characters of the messages' JSON and of its own.
    for row in golden:
        messages = [
            {"role": message.role, "content": message.content}
            for message in asked(known, row).messages
        ]
        counted = len(json.dumps(messages)) // 4 + len(row["review"]) // 4
        assert counted == row["total_tokens_step4"]
    assert len(golden) == 60


def test_every_review_is_read_as_upstream_does(golden: list[dict[str, Any]]) -> None:
    read = [parse_review(row["review"]) for row in golden]
    for row, review in zip(golden, read, strict=True):
        expected = {name: None if s == "N/A" else s for name, s in row["score"].items()}
        assert review == expected
    assert sum(not review for review in read) == 6


def test_averages_by_skill_are_upstreams(data: Path, golden: list[dict[str, Any]]) -> None:
    found = skill_scores(parse_review(row["review"]) for row in golden)
    expected = csv_rows(data / "flask/golden/expected_skill.csv")
    assert list(found) == [row["skill"] for row in expected]
    for row in expected:
        mean = found[row["skill"]]
        assert mean.n == int(row["count"])
        assert mean.value == pytest.approx(float(row["avg"]), abs=1e-12)
        assert mean.standard_error


def test_every_skill_of_the_rubric_has_a_short_name(known: Rubric) -> None:
    assert {short_skill(name) for name in known.skills} == set(SKILLS)
    assert short_skill("Politeness") is None
    assert short_skill("logical") is None
    assert short_skill("") is None


def test_the_request(known: Rubric) -> None:
    call = judge_call(known, "{response}", "{question}", "{skills}", ["Factuality", "Unheard of"])
    assert (call.temperature, call.max_tokens) == (0, 1024)
    text = call.messages[1].content
    assert "[Instruction]\n{response}\n" in text
    assert "[Assistant's Response]\n{question}\n" in text
    assert "\nFactuality: " in text
    assert "Unheard of" not in text


def test_files_of_another_form_are_refused() -> None:
    with pytest.raises(BenchError):
        rubric([], [], [])
    with pytest.raises(BenchError, match="sample_answer"):
        rubric(
            [
                {
                    "prompt_id": 1,
                    "system_prompt": "",
                    "prompt_template": "{prompt1}{skills}{question}{response}{prompt2}",
                }
            ],
            [{}, {"prompt_id": 1}],
            [],
        )


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ('Draft {"a": 1}. Final {"B_c": "4", "d": 2.5}', {"b c": 4, "d": 2.5}),
        ("{'a': True, 'b': 1}", {}),
        ("{'a': 'N/A', 'b': 'not applicable', 'c': 'na'}", {"a": None, "b": None, "c": None}),
        ("{'a': '4/5', 'b': [1], 3: 4, 'd': 1j, 'e': 5}", {"e": 5}),
        (r"{'a\d': 3}", {r"a\d": 3}),
        ("{'a': 1e999}", {}),
        ("{'a': 'nan'}", {}),
        ("{1, 2}", {}),
        ("{[]: 1}", {}),
        ("{'a': 1} {}", {"a": 1}),
        ("{" + "[" * 3000 + "}", {}),
        ("{'a':" + "-" * 3000 + "1}", {}),
        ("{'a': " + "9" * 5000 + "}", {}),
        ("", {}),
    ],
)
def test_reviews_of_odd_forms(text: str, scores: dict[str, float | None]) -> None:
    assert parse_review(text) == scores


@given(st.text(st.sampled_from("{}'\":,1 a\\\n")))
def test_the_last_braces_are_those_of_upstreams_pattern(text: str) -> None:
    found = re.findall(r"{[^}]+}", text)
    assert parse_review(text) == (parse_review(found[-1]) if found else {})


@pytest.mark.parametrize(
    "text", ["{" * 300_000, "{'a':" + "1," * 200_000 + "}", "{a" * 100_000], ids=["1", "2", "3"]
)
def test_long_texts_do_not_take_forever(text: str) -> None:
    """Were the pattern quadratic, the test would run into the suite's time limit."""
    assert not parse_review(text)


@given(st.text(st.sampled_from("{}[]()'\":,.0123456789 abj_\\\n-+")) | st.text())
def test_any_text_can_be_read(text: str) -> None:
    scores = skill_scores([parse_review(text), parse_review("{" + text + "}")])
    assert set(scores) <= set(SKILLS)
