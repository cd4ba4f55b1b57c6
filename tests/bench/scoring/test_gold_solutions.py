"""5,000 answers made of gold solutions of MATH and GSM8K, in the forms that models write, are
graded as math-verify itself grades them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from moa_cli.bench.scoring.answers import grade_math
from moa_cli.core.answers.equality import boxed
from tests.support.bench.tables import jsonl_rows

math_verify = pytest.importorskip("math_verify", reason="math-verify is not installed")

PARTS, OF_EACH = 5, 1_000
# Where an answer stands in a reply. In each it is marked as mathematics, as math-verify needs it.
SHAPES = (
    r"Thus $\boxed{{{}}}$.",
    "The answer is ${}$.",
    r"So it is \({}\)",
    r"Hence \[\boxed{{{}}}\]",
    "Final Answer: The final answer is ${}$. I hope it is correct.",
    "**Answer:** ${}$",
    r"First we try $7$. No: it is $\boxed{{{}}}$, and we are done.",
)


def other_ways(answer: str) -> Iterator[str]:
    """The answer as others may write it, whether that is still right or not."""
    yield answer
    yield rf"\text{{{answer}}}"
    yield answer + r"\text{ cm}"
    yield "x = " + answer
    yield answer.replace(r"\frac", r"\dfrac").replace(" ", "")
    yield answer.replace(r"\left", "").replace(r"\right", "")
    yield answer + r"\%"
    yield answer + r"^\circ"
    yield r"\$" + answer
    yield answer + "+1"
    yield "-" + answer
    yield f"{answer}, {answer}"
    yield answer.replace("pmatrix", "bmatrix").replace("(", "[")
    if fraction := re.fullmatch(r"\\frac\{(-?\d+)\}\{(\d+)\}", answer):
        yield f"{fraction[1]}/{fraction[2]}"
        yield str(int(fraction[1]) / int(fraction[2]))
    if re.fullmatch(r"-?\d+", answer):
        number = int(answer)
        yield f"{number:,}"
        yield f"{number:,}".replace(",", "{,}")
        yield f"{number}.0"
        yield rf"\frac{{{2 * number}}}{{2}}"


def wholes(first: str, second: str) -> Iterator[tuple[str, str]]:
    """Right answers of other kinds that are made of two, and how a reply may write them."""
    yield rf"\{{{first}, {second}\}}", rf"\left\{{{second}, {first}\right\}}"
    yield f"[{first}, {second})", rf"\left[{first},{second}\right)"
    yield f"({first}, {second})", rf"\left( {second}, {first} \right)"
    rows = rf"{first} \\ {second}"
    yield rf"\begin{{pmatrix}} {rows} \end{{pmatrix}}", rf"\begin{{bmatrix}}{rows}\end{{bmatrix}}"


def pairs_of(data: Path) -> list[tuple[str, str]]:
    """Right answers, as the data have them, and replies."""
    solutions = [str(row["answer"]) for row in jsonl_rows(data / "math/math500_even.jsonl")]
    made: dict[tuple[str, str], None] = {}
    for number, (gold, other) in enumerate(
        zip(solutions, [*solutions[1:], solutions[0]], strict=True)
    ):
        shapes = SHAPES[number % len(SHAPES) :] + SHAPES
        answer, wrong = boxed(gold) or "", boxed(other) or ""
        made |= dict.fromkeys([(gold, gold), (gold, other), (gold, shapes[0].format(wrong))])
        for place, way in enumerate(dict.fromkeys(other_ways(answer))):
            made[gold, shapes[1 + place % len(SHAPES)].format(way)] = None
        for key, way in wholes(answer, wrong):
            made[rf"It is $\boxed{{{key}}}$.", shapes[2].format(way)] = None
    numbers = [
        str(row["answer"]).rsplit("#### ", 1)[1] for row in jsonl_rows(data / "gsm8k/slice50.jsonl")
    ]
    for gold, other in zip(numbers, [*numbers[1:], numbers[0]], strict=True):
        for shape in SHAPES:
            made[gold, shape.format(gold)] = made[gold, shape.format(other)] = None
    return list(made)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_answers_are_graded_as_math_verify_grades_them(data: Path, part: int) -> None:
    pairs = pairs_of(data)
    assert len(pairs) >= PARTS * OF_EACH
    differing, right = [], 0
    # Each part has some of every solution.
    for solution, reply in pairs[part::PARTS]:
        gold = math_verify.parse(f"$\\boxed{{{boxed(solution) or solution}}}$")
        expected = math_verify.verify(gold, math_verify.parse(reply))
        right += expected
        if bool(grade_math(reply, solution)) != expected:
            differing.append((solution, reply))
    assert differing == []
    assert 0.3 < right / OF_EACH < 0.9
