"""Right answers: read in replies of many forms, compared with keys as the data has them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.bench.scoring.answers import grade_gsm8k, grade_math, grade_own
from moa_cli.core.answers.equality import boxed, equal, final_number, normalised, value_of
from moa_cli.core.errors import BenchError
from tests.support.bench.tables import jsonl_rows

TEXTS = st.text() | st.text(st.sampled_from("\\boxedfract{}$#0123456789.,-− \n^/%answeris:text"))


def test_every_key_of_gsm8k_is_right_by_itself_and_in_other_words(data: Path) -> None:
    rows = jsonl_rows(data / "gsm8k/slice50.jsonl")
    for row in rows:
        key = row["answer"]
        number = key.rsplit("####", 1)[1].strip()
        value = int(number.replace(",", ""))
        for reply in (
            key,
            f"Step 1: 3 x 4 = 12.\nThe answer is **{number}**.",
            f"So it is ${value:,}.00.",
            f"Therefore $\\boxed{{{value}}}$ (checked in 2 steps).",
            f"#### {value:,} dollars",
        ):
            assert grade_gsm8k(reply, key), reply
        assert not grade_gsm8k(f"The answer is {value + 1}.", key)
    assert len(rows) == 50


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It is 18.", 18),
        ("He pays $1,234.50.", Fraction(2469, 2)),
        ("a loss of -$5", -5),
        ("a loss of $-5", -5),
        ("a loss of −5 dollars", -5),
        ("between 10-15", 15),
        ("60-35=25", 25),
        ("x = -25", -25),
        ("(-25)", -25),
        ("- 5 apples", 5),
        ("20%", 20),
        ("an area of 25 m^2", 25),
        ("an area of 25 cm^{2}", 25),
        ("12 molecules of H2O", 12),
        ("5km", 5),
        ("\\$40", 40),
        ("12\\,345 or 12{,}345", 12345),
        ("12\u202f345 €", 12345),
        ("1, 2, 3", 3),
        ("about .5 of it", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        ("The probability is 1 / 2.", Fraction(1, 2)),
        ("It falls by -3/4", Fraction(-3, 4)),
        ("It costs $3/4", Fraction(3, 4)),
        ("2 1/2 cups", Fraction(5, 2)),
        ("7 3/2", Fraction(3, 2)),
        (r"It is $\frac{1}{2}$.", Fraction(1, 2)),
        (r"It is $4\dfrac23$.", Fraction(14, 3)),
        ("60/2 = 30", 30),
        ("on 1/2/2023", 2023),
        ("1/0", 0),
        ("He made a profit of $70,000 (200,000 - 130,000).", 70000),
        ("**She has 3 left (5 - 2 = 3).**", 3),
        ("All of it (18)", 18),
        ("It is 5, in all (18).", 18),
        ("Therefore (60 - 42)", 42),
        ("(" + "-" * 100_000, None),
        (" (1+1)" * 20_000, 1),
        ("价格是50元", 50),
        ("The answer is 10^3.", 1000),
        ("So we get 2^10. Good.", 1024),
        ("It is $2^{10}$.", 1024),
        ("\\boxed{10^{-3}}", Fraction(1, 1000)),
        ("1e3", 1000),
        ("about 3E-4 of it", Fraction(3, 10000)),
        (r"It is $1.5 \times 10^{3}$ m.", 1500),
        ("So it is 1.5 × 10³ m/s².", 1500),
        ("in 9^999 ways", 9),
        ("1.234,56 €", Fraction(123456, 100)),
        ("Das sind 42,00 €.", 42),
        ("1.000.000 Einwohner", 1000000),
        ("Version 1.234", Fraction(1234, 1000)),
        ("(3,5)", 5),
        ("(-3,5)", 5),
        ("12,34,567", 1234567),
        ("1'234'567", 1234567),
        ("–42", -42),
        ("pages 10–15", 15),
        ("2½ cups", Fraction(5, 2)),
        ("答案是42，因为 1 + 2 不行", 42),
        ("Die Antwort ist 42 (nicht 41).", 42),
        ("La respuesta es 42, no 41.", 42),
        ("<think>41</think><answer>42</answer>", 42),
        ("**7**", 7),
        ("\\boxed{\\frac{1}{2}} of 10", Fraction(1, 2)),
        ("\\boxed{18 \\text{ eggs}} in 2 days", 18),
        ("\\boxed{x} and 4", 4),
        ("#### 3 apples\nThat was step 9.", 3),
        ("none", None),
        ("", None),
        ("9" * 5000, None),
    ],
)
def test_the_final_number_of_a_reply(text: str, number: Fraction | int | None) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        (r"so $\boxed{\frac{1}{\sqrt{2}}}$.", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\fbox{3}", "3"),
        (r"\boxed {4}", "4"),
        (r"$\boxed 5$", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed{}", None),
        (r"{ \boxed{6}", "6"),
        ("5", None),
    ],
)
def test_the_boxed_answer(text: str, inner: str | None) -> None:
    assert boxed(text) == inner


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (r"\dfrac{1}{2}", r"\frac12"),
        (r"\tfrac{1}{2}", "0.5"),
        ("1/2", ".5"),
        (r"-\frac{3}{4}", "-0.75"),
        (r"\frac{-3}{4}", r"-\frac{3}{4}"),
        (r"\frac1{72}", r"\frac{1}{72}"),
        ("10,080", "10080"),
        ("10{,}080", "10080"),
        (r"1{,}000{,}000", r"1,\!000,\!000"),
        (r"45^\circ", "45"),
        (r"45^{\circ}", "45°"),
        (r"50\%", "50"),
        (r"\$18.90", "18.9"),
        (r"5\text{ cm}", "5"),
        (r"10 \text{ cm}^2", "10"),
        ("3 inches", "3"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"\text{(C)}", "(C)"),
        ("x=5", "5"),
        (r"\sqrt3", r"\sqrt{3}"),
        (r"\left(3, \frac{\pi}{2}\right)", r"(3,\frac{\pi}{2})"),
        ("x^{2}+1", "x^2 + 1"),
        (r"x \leq 3", r"x\le 3"),
        ("$5$", "5."),
        ("10^2", "1e2"),
        (r"6.02 \times 10^{23}", "6.02e23"),
        ("1.234.567,8", "1234567.8"),
    ],
)
def test_spellings_of_one_answer(text: str, other: str) -> None:
    assert equal(text, other)
    assert equal(other, text)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("5x", "5"),
        ("(1,234)", "(1234)"),
        (r"\frac{1}{3}", "0.333"),
        ("5", "-5"),
        (r"\sqrt{2}", "2"),
        ("10^2", "10"),
        ("", "0"),
    ],
)
def test_answers_that_differ(text: str, other: str) -> None:
    assert not equal(text, other)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        (r"We get $\boxed{\dfrac{14}{3}}$.", True),
        ("Final Answer: The final answer is $14/3$. I hope it is correct.", True),
        (r"The answer is \(\frac{14}{3}\) by symmetry.", True),
        (r"**Answer:** $\frac{14}{3}$", True),
        ("The answer is 14.", False),
        ("I do not know.", False),
    ],
)
def test_math_replies(reply: str, right: bool) -> None:
    key = r"Adding gives $x = \boxed{\frac{14}{3}}$."
    assert bool(grade_math(reply, key)) is right
    assert bool(grade_math(reply, r"\frac{14}{3}")) is right


@pytest.mark.parametrize(
    ("reply", "answer", "right"),
    [
        ("Paris", "Paris", True),
        ("**paris.**", "Paris", True),
        ("Let me think.\n\nParis", "paris", True),
        ("I think the answer is: New  York.", "new york", True),
        (r"\boxed{Paris}", "Paris", True),
        ("It is Paris", "Paris", False),
        ("The answer is Paris. It lies on the Seine.", "Paris", True),
        ("<think>Rome?</think>\n<answer>\nParis\n</answer>", "Paris", True),
        ("```sql\nSELECT 1;\n```\nThis selects 1.", "SELECT 1", True),
        ("The answer is (1, 2).", "(1,2)", True),
        ("3 : 4", "3:4", True),
        ("答案是：「東京」。", "東京", True),
        ("Re\u0301sume\u0301", "R\u00e9sum\u00e9", True),
        ("It is 42.", "42", True),
        ("It is 1,000 m.", "1000", True),
        ("It is 41.", "42", False),
        ("", "Paris", False),
        ("", "42", False),
    ],
)
def test_exact_answers(reply: str, answer: str, right: bool) -> None:
    assert bool(grade_own(reply, answer)) is right


def test_a_key_without_a_number_is_refused() -> None:
    for key in ("It is 5.", "#### five"):
        with pytest.raises(BenchError, match="####"):
            grade_gsm8k("5", key)


@pytest.mark.parametrize(
    "text",
    [
        "the answer is x" + " " * 300_000 + "y",
        "the answer is $" + " " * 300_000,
        "answer" + " " * 300_000 + "answer",
        "1" * 300_000,
        "111," * 100_000,
        "\\boxed{" * 50_000,
        "\\boxed" + " " * 300_000,
        "{" * 300_000 + "}" * 300_000,
        "#### " * 50_000,
    ],
    ids=lambda text: text[:20],
)
def test_long_texts_do_not_take_forever(text: str) -> None:
    """Were any pattern quadratic, the test would run into the suite's time limit."""
    grade_math(text, "5")
    grade_own(text, "five")
    final_number(text)


@given(TEXTS, TEXTS)
def test_any_text_can_be_read(reply: str, other: str) -> None:
    final_number(reply)
    grade_math(reply, other)
    grade_own(reply, other)
    assert equal(reply, reply)
    assert equal(reply, other) == equal(other, reply)


@given(st.fractions(max_denominator=10**6))
def test_a_value_is_read_in_every_spelling(number: Fraction) -> None:
    fraction = f"\\frac{{{number.numerator}}}{{{number.denominator}}}"
    assert value_of(fraction) == value_of(f"${number}$") == number


@given(st.integers(-(10**9), 10**9))
def test_an_integer_is_found_at_the_end_of_a_sentence(number: int) -> None:
    assert final_number(f"After 3 steps: {number:,}.") == number
    assert value_of(normalised(f"{number:,}")) == number
