"""The final answers of texts: what each rule reads, and which answers are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.core.answers.final import answer_key, final_answers
from moa_cli.core.values import ValueFault
from moa_cli.profile.final_answer import RULES, check

TEXTS = st.text() | st.text(
    st.sampled_from('\\boxed{}$#0123456789.,-− \n^/%answeris:textABC()"[]*`json')
)


def read(text: str, rule: str = "auto") -> str | None:
    [answer] = final_answers([text], rule)
    return answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 42.", "42"),
        ("**Final answer:** $1,234.50", "$1,234.50"),
        ("The answer is (B).", "B"),
        ("The correct answer is A because it is red.", "A"),
        ("Answer: c) Paris", "c"),
        ("The correct option is (c) Rome", "c"),
        ("The answer is:\n\n42", "42"),
        ("The answer is $18, as 9 x 2 is 18 and 3 are left.", "18"),
        ("The answer is that she has 42 apples.", "42"),
        ("The answer is not 41 but 42.", "42"),
        ("First the answer is 41. No: the answer is 42.\nBye, number 7!", "42"),
        ("The answer is Paris.", "Paris"),
        ("The answer is 6 * 7 = 42.", "42"),
        ("so the answer is x = 6/2 = 3 apples", "3 apples"),
        ("So\n#### 3/4", "0.75"),
        ("الجواب هو ٤٢", "42"),
        ("It is $\\boxed{\\frac{3}{4}}$, not 5.", "\\frac{3}{4}"),
        ("9 x 2 = 18\n#### 18", "18"),
        ("#### 1. Summary\n#### Result\nShe has 18 eggs.", "18"),
        ("She has 16 eggs.\nShe eats 3.\nShe makes 9 * 2 = $18 every day.", "18"),
        ("So 18.\n\nTell me if you need more!", "18"),
        ("It falls to -5 degrees.", "-5"),
        ("Yes.", "Yes"),
        ("(b)", "b"),
        # What is no answer: prose, the numbers of a list, and what stands far before the end.
        ("I cannot tell.", None),
        ("1. Drink.\n2. Eat.\n10. Sleep well.", None),
        ("In 1969, men flew.\n\nThey came back.\n\nAll were well.", None),
        ("The answer is that it depends on many things that nobody knows.", None),
        ("", None),
    ],
)
def test_auto_reads_what_a_text_says_that_the_answer_is(text: str, answer: str | None) -> None:
    assert read(text) == answer


@pytest.mark.parametrize(
    ("rule", "text", "answer"),
    [
        ("number", "Of 3 eggs 42 are left. Or so.", "42"),
        ("number", "about 0.125 of it", "0.125"),
        ("number", "It is \\frac{1}{3}: \\boxed{\\frac{1}{3}}", "1/3"),
        ("number", "none", None),
        ("number", "The answer is 3/4.", "0.75"),
        ("number", "The answer is 3/4 of the cake.", "0.75"),
        ("number", "So the answer is \\frac{3}{4}", "0.75"),
        ("number", "#### 1/2", "0.5"),
        ("number", "Answer: 1 234", "1234"),
        ("number", "答えは４２です", "42"),
        ("choice", "b", "B"),
        ("choice", "B. Paris", "B"),
        ("choice", "I think that (D) is right.", "D"),
        ("choice", "Option C: yes", "C"),
        ("choice", "A dog is D, not C: it is B", "B"),
        ("choice", "\\boxed{E}", "E"),
        ("choice", "A dog and I", None),
        ("choice", "正确答案是A", "A"),
        ("choice", "答案：C，不是B。", "B"),
        ("choice", "정답은 D입니다", "D"),
        ("choice", "Der Bär", None),
        ("boxed", "\\boxed{x^2} + 1", "x^2"),
        ("boxed", "The answer is 42.", None),
        ("text", "42", None),
        ("json:a.b", '{"a": {"b": 42}}', "42"),
        ("json:a.b", 'So:\n```json\n{"a": {"b": "x"}}\n```\nDone.', "x"),
        ("json:a.b", 'From {"a": {"b": 1}} to {"a": {"b": true}}.', "true"),
        ("json:rows.1.n", '{"rows": [{"n": 1}, {"n": 2.5}]}', "2.5"),
        ("json:a", '{"a": {"d": 1, "c": 2}}', '{"c": 2, "d": 1}'),
        ("json:a", '{"a": null}', None),
        ("json:a", '{"b": 1}', None),
        ("json:a.5", '{"a": [1]}', None),
        ("json:a", "[" * 100_000, None),
        ("json:a", "no", None),
        (r"regex:total (\d+)", "total 1, total 2", "2"),
        (r"regex:\d+ eggs", "3 eggs, 4 eggs", "4 eggs"),
        (r"regex:x(\d)?", "x1 x", None),
        (r"regex:\d", "none", None),
    ],
)
def test_each_rule_reads_its_own(rule: str, text: str, answer: str | None) -> None:
    assert read(text, rule) == answer
    check(rule)


@pytest.mark.parametrize("rule", ["auto", "number", "regex:[0-9]+"])
@pytest.mark.parametrize(
    "text", ["It is \x1b[1m42\x1b[0m", "It is 42 \x9b31m", "It is 42\x1b]0;7\x07"]
)
def test_what_controls_a_terminal_is_no_part_of_an_answer(text: str, rule: str) -> None:
    assert read(text, rule) == "42"


@pytest.mark.parametrize("rule", ["auto", "number", "choice", "boxed", "json:a"])
@pytest.mark.parametrize(
    "text",
    [f"```{' ' * 1_000_000}", "answer is " * 50_000, "answer: " * 50_000, "1, " * 100_000],
    ids=lambda text: text[:20].strip(),
)
def test_long_texts_do_not_take_forever(text: str, rule: str) -> None:
    """Were any pattern quadratic, the test would run into the suite's time limit."""
    read(text, rule)


def test_a_pattern_that_would_take_for_ever_reads_nothing() -> None:
    texts = ["aa", *["a" * 60 + "b"] * 20]
    assert final_answers(texts, "regex:^(a|a)+$") == ["a", *[None] * 20]


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("regex:(", "is not a regular expression"),
        ("regex:" + "a" * 2001, "is a pattern of more than 2,000 characters"),
        ("regex:", "names nothing after `regex:`"),
        ("json: ", "names nothing after `json:`"),
        ("numbre", "is not a rule: 'numbre'"),
    ],
)
def test_a_wrong_rule_is_refused(rule: str, problem: str) -> None:
    with pytest.raises(ValueFault) as raised:
        check(rule)
    assert raised.value.problem.startswith(problem)


@pytest.mark.parametrize(
    "same",
    [
        ("42", "42.0", '"42"', "$42", "42 dollars", "**42**", "0042"),
        ("1,000", "1000", "1{,}000"),
        ("1/2", "0.5", ".5", "\\frac12", "\\frac{1}{2}"),
        ("(b)", "B", "b.", "[B]", "*b*", "\\text{B}", "\\textbf{(B)}", "\\mathrm{b}"),
        ("42", "٤٢", "４２", "৪২"),
        ("New York", "new  york.", "“New York”"),
        ("x^{2}", "x^2", "$x^2$"),
    ],
)
def test_the_same_answers_are_told_as_the_same(same: tuple[str, ...]) -> None:
    assert len({answer_key(answer) for answer in same}) == 1


def test_other_answers_are_told_apart() -> None:
    answers = ["42", "-42", "4.2", "B", "C", "yes", "no", "New York", "York", "1/3", "x^2", "x^3"]
    answers += ["3 1/2", "31/2", "2 1", "21"]
    assert len({answer_key(answer) for answer in answers}) == len(answers)


@given(TEXTS, st.sampled_from([*RULES, "json:a.b", r"regex:(\d+)"]))
def test_any_text_may_be_read(text: str, rule: str) -> None:
    answer = read(text, rule)
    if answer is not None:
        assert answer == answer.strip() != ""
        assert answer_key(answer) == answer_key(answer)
