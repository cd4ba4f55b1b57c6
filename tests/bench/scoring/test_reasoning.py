"""A verdict is read in what follows a judge's reasoning, however that is spelled."""

from __future__ import annotations

import pytest

from moa_cli.bench.scoring.mt_bench import parse_rating
from moa_cli.bench.scoring.reasoning import verdict_text

SPELLINGS = [
    ("<think>", "</think>"),
    ("<THINK>", "</THINK>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<scratchpad>", "</scratchpad>"),
    ('<think time="3">', "</ think >"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|think|>", "<|/think|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<unused94>", "<unused95>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("analysis", "assistantfinal"),
    ('<details type="reasoning" done="true">', "</details>"),
]


@pytest.mark.parametrize(("opening", "closing"), SPELLINGS)
def test_the_verdict_behind_reasoning_counts(opening: str, closing: str) -> None:
    thought = f"{opening}It could be [[5]], or [[6]].\n{closing}"
    assert parse_rating(verdict_text(f"{thought} Rating: [[9]]")) == 9
    assert parse_rating(verdict_text(f"{thought}\n\n")) is None


@pytest.mark.parametrize(("opening", "closing"), SPELLINGS[:-1])
def test_an_end_alone_is_enough(opening: str, closing: str) -> None:
    del opening
    assert parse_rating(verdict_text(f"[[5]] I think.{closing} Rating: [[9]]")) == 9


@pytest.mark.parametrize("opening", [pair[0] for pair in SPELLINGS if pair[0] != "analysis"])
def test_reasoning_without_end_holds_no_verdict(opening: str) -> None:
    assert verdict_text(f"{opening} I waver between [[5]] and") == ""
    assert verdict_text(f"</think> {opening} I waver between [[5]] and") == ""


@pytest.mark.parametrize(
    "text",
    [
        "Rating: [[4]]",
        "The response leaves `</think>` in its text. Rating: [[4]]",
        "Rating: [[4]]. The tag “</think>” should not be shown.",
        "Rating: [[4]], since it prints\n```\nx</think>\n```\nto the user.",
        "An answer with <think> and no end. Rating: [[4]]",
        "Their analysis is right, and their thinking clear. [[4]]",
    ],
)
def test_tags_that_a_judge_speaks_of_are_none(text: str) -> None:
    assert verdict_text(text) == text
    assert parse_rating(verdict_text(text)) == 4


def test_the_last_end_counts() -> None:
    text = "<think>[[1]]</think> Wait. <think>[[2]]</think> [[3]]"
    assert parse_rating(verdict_text(text)) == 3
