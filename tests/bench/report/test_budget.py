"""What scores take: sizes of models from their names, and the Pareto front."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.bench.report.budget import active_parameters, pareto_front, path_tflops
from moa_cli.bench.report.sections import sections_of
from moa_cli.bench.report.writers import page
from moa_cli.bench.run.journal import CallAnswer, Result, TurnResult
from moa_cli.bench.scoring.means import Mean
from moa_cli.core.conversation import Usage
from tests.support.bench.scores import arm, metric, scores

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12)


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("together:Qwen/Qwen1.5-110B-Chat", 110),
        ("together:meta-llama/Llama-3-70b-chat-hf", 70),
        ("together:mistralai/Mixtral-8x22B-Instruct-v0.1", 39),
        ("together:microsoft/WizardLM-2-8x22B", 39),
        ("together:databricks/dbrx-instruct", 36),
        ("together:Qwen/Qwen3-235B-A22B-Instruct-2507-tput", 22),
        ("ollama:qwen2.5:0.5b", 0.5),
        ("local:smollm2-135m", 0.135),
        ("openai:gpt-4o", None),
        ("lab:a1b2c3", None),
    ],
)
def test_a_size_is_read_from_the_name(model: str, billions: float | None) -> None:
    assert active_parameters(model) == billions


def test_computation_is_the_largest_call_of_each_layer() -> None:
    def said(model: str, tokens: int) -> CallAnswer:
        return CallAnswer(model=model, text="x", usage=Usage(prompt_tokens=tokens, calls=1))

    turn = TurnResult(
        proposals=((said("lab:x-7b", 1000), said("lab:x-70b", 500)),), reply=said("lab:x-7b", 2000)
    )
    result = Result("mixture", "1", replies=("x",), turns=(turn,))
    # 2 x 70 x 500 and 2 x 7 x 2000 billions.
    assert path_tflops(result) == pytest.approx(70 + 28)
    unknown = replace(turn, reply=said("lab:unknown", 2000))
    assert path_tflops(replace(result, turns=(unknown,))) is None


@given(POINTS)
def test_nothing_beats_what_is_on_the_front(points: list[tuple[int, int]]) -> None:
    front = pareto_front(points)

    def beats(other: tuple[int, int], point: tuple[int, int]) -> bool:
        return other != point and other[0] <= point[0] and other[1] >= point[1]

    on_front = {points[place] for place in front}
    assert on_front == {
        point for point in points if not any(beats(other, point) for other in points)
    }
    assert [points[place][1] for place in front] == sorted(points[place][1] for place in front)


def test_a_report_marks_the_front() -> None:
    made = {
        "mixture": (0.03, 60.0, 9000.0),
        "self": (0.04, 55.0, 9500.0),
        "single:lab:a": (0.01, 50.0, 900.0),
    }
    arms = tuple(
        replace(
            arm(name, [metric("accuracy", "%", score)], cost=cost),
            tokens_per_item=Mean(tokens, 1.0, 80),
        )
        for name, (cost, score, tokens) in made.items()
    )
    run = replace(scores("math", arms), judge=None)
    [section] = sections_of([run])
    [table] = [table for table in section.tables if table.title == "What a score takes"]
    assert table.heads == ("arm", "accuracy (%)", "cost/item", "tokens/item")
    assert table.rows == (
        ("mixture", "60.0", "$0.030*", "9,000*"),
        ("self", "55.0", "$0.040", "9,500"),
        ("single:lab:a", "50.0", "$0.010*", "900*"),
    )
    html = "".join(page([section], published=False))
    assert "Quality against tokens" in html
    assert "The line is the Pareto front: single: lab:a, mixture" in html
