"""Right answers of every form: mathematics as math-verify compares it, choices, numbers, words,
rules and scorers of one's own; and what a run does with them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from moa_cli.bench.scoring.answers import grade_gsm8k, grade_math, grader_of
from moa_cli.bench.scoring.math_verifier import VERIFIER
from moa_cli.core.answers.equality import boxed
from moa_cli.core.errors import BenchError, UsageError
from tests.support.bench.own_runs import write_lines
from tests.support.bench.tables import jsonl_rows
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

math_verify = pytest.importorskip("math_verify", reason="math-verify is not installed")

# Key, answer, and whether they are the same value: pairs that comparing texts gets wrong.
_PAIRS = [
    (r"\frac{1}{16}", "16", False),
    ("16", r"\frac{1}{16}", False),
    (r"\frac{14}{3}", r"14/3", True),
    (r"\frac{14}{3}", r"4\frac{2}{3}", True),
    (r"\frac{14}{3}", r"\dfrac{28}{6}", True),
    ("0.5", r"\frac12", True),
    (r"\frac{1}{2}", "50\\%", True),
    (r"2\sqrt{3}", r"\sqrt{12}", True),
    (r"2\sqrt{3}", r"\sqrt{13}", False),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}", True),
    (r"x^2+2x+1", r"(x+1)^2", True),
    (r"x^2+2x+1", r"(x-1)^2", False),
    (r"(3, \frac{\pi}{2})", r"\left(3,\dfrac{\pi}{2}\right)", True),
    (r"(3, \frac{\pi}{2})", r"(\frac{\pi}{2}, 3)", False),
    (r"\{1,2,3\}", r"\{3,2,1\}", True),
    (r"\{1,2,3\}", r"\{1,2\}", False),
    (r"[0,1)", r"\left[0,1\right)", True),
    (r"[0,1)", r"(0,1)", False),
    (r"(-\infty, 2]", r"x \le 2", True),
    ("x=5", "5", True),
    ("5", "x = 5", True),
    ("10^{6}", "1{,}000{,}000", True),
    ("1,000", "1000", True),
    (r"90^\circ", "90", True),
    (r"\$12.50", "12.5", True),
    (r"\text{Evelyn}", "Evelyn", True),
    (r"\text{Evelyn}", "Angela", False),
    (
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        r"\begin{bmatrix}1&2\\3&4\end{bmatrix}",
        True,
    ),
    (
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        r"\begin{bmatrix}1&2\\4&3\end{bmatrix}",
        False,
    ),
    ("2^{10}", "1024", True),
    (r"\binom{5}{2}", "10", True),
    ("3!", "6", True),
    (r"e^{i\pi}", "-1", True),
    (r"\sin(\pi/6)", r"\frac12", True),
    ("-3", "3", False),
    ("3+2i", "2i+3", True),
    ("3+2i", "3-2i", False),
    (r"\pm 2", r"2,-2", True),
    ("7", "7.0000001", True),
    ("7", "7.1", False),
]


@pytest.fixture
def rows(data: Path) -> list[dict[str, str]]:
    return [dict(row) for row in jsonl_rows(data / "math/math500_even.jsonl")]


@pytest.mark.parametrize(
    "shape", ["The answer is ${}$.", r"Thus $\boxed{{{}}}$.", r"So it is \({}\)"]
)
def test_pairs_are_compared_as_math_verify_does(shape: str) -> None:
    for key, answer, _ in _PAIRS:
        reply = shape.format(answer)
        gold = math_verify.parse(f"$\\boxed{{{key}}}$")
        expected = math_verify.verify(gold, math_verify.parse(reply))
        assert bool(grade_math(reply, key)) == expected, (key, reply)


def test_most_pairs_are_what_a_reader_says() -> None:
    """math-verify is right where comparing texts is not; where it is not, we are as it is."""
    found = [bool(grade_math(f"The answer is ${answer}$.", key)) for key, answer, _ in _PAIRS]
    same = sum(right == expected for right, (*_, expected) in zip(found, _PAIRS, strict=True))
    assert same >= 0.9 * len(_PAIRS)
    assert not grade_math(r"The answer is $\frac{1}{16}$.", "16")


@pytest.mark.parametrize(
    "shape",
    [
        "We add up. The answer is ${}$.",
        "We add up. The answer is {}.",
        r"Hence \[\boxed{{{}}}\]",
        "Final Answer: The final answer is ${}$. I hope it is correct.",
        "**Answer:** ${}$",
    ],
)
def test_gold_answers_are_right_in_prose_and_in_boxes(
    rows: list[dict[str, str]], shape: str
) -> None:
    wrong = [
        boxed(row["answer"])
        for row in rows
        if not grade_math(shape.format(boxed(row["answer"])), row["answer"])
    ]
    assert wrong == []


def test_a_gold_solution_is_right_by_itself_and_not_by_another_answer(
    rows: list[dict[str, str]],
) -> None:
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        assert grade_math(row["answer"], row["answer"])
        gold = math_verify.parse(f"$\\boxed{{{boxed(row['answer'])}}}$")
        expected = math_verify.verify(gold, math_verify.parse(other["answer"]))
        assert bool(grade_math(other["answer"], row["answer"])) == expected


@pytest.mark.parametrize("answer", [r"9^{9^{9^{9^9}}}", "10000000!!", "(" * 3000, r"\frac" * 2000])
def test_hostile_mathematics_is_wrong_and_ends(answer: str) -> None:
    began = time.monotonic()
    assert not grade_math(f"The answer is ${answer}$.", "2")
    # It has thirty seconds; the suite's limit would come later.
    assert time.monotonic() - began < 240
    assert grade_math("The answer is $2$.", "2")


def test_a_process_that_is_killed_is_started_anew() -> None:
    assert grade_math("It is $7$.", "7")
    process = VERIFIER._process
    assert process is not None
    process.kill()
    process.wait()
    assert grade_math("It is $8$.", "8")


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("The answer is 18. He has 3 apples left over.", True),
        ("The answer is $18, which leaves 3 days.", True),
        ("**Answer:** 18 (9 + 9)", True),
        ("The answer is 9 + 9 = 18 in all, and 5 more would be 23.", True),
        ("The answer is 3. I mean: the answer is 18.", True),
        ("There are 18.", True),
        ("The answer is in the table.\n\nThere are 18.", True),
        ("The answer is 0. That is less than 18.", False),
        ("The answer is 3. There were 18 before.", False),
    ],
)
def test_the_last_number_gives_way_to_a_stated_answer(reply: str, right: bool) -> None:
    assert bool(grade_gsm8k(reply, "9 + 9 = 18\n#### 18")) is right


@pytest.mark.parametrize(
    ("reply", "answer", "right"),
    [
        ("(B)", "B", True),
        ("The answer is (B).", "B", True),
        ("B) Paris", "B", True),
        (r"\boxed{B}", "(B)", True),
        ("Let me think: A is wrong. So the answer is B.", "B", True),
        ("The correct choice is C.", "B", False),
        ("B) Paris", "Paris", True),
        ("Paris", "B) Paris", False),
        ("B", "B) Paris", True),
        ("The answer is Paris.", "Paris", True),
        ("The answer is 1,000.", "1000", True),
        (r"The answer is $\frac{2}{4}$.", r"$\frac{1}{2}$", True),
        (r"2\pi", r"2\pi", True),
        ("The answer is 3√2.", r"3\sqrt{2}", True),
        ("The answer is (1, ∞).", r"(1, \infty)", True),
        ("We get a set.\n\\{1, 2\\}", r"\{2, 1\}", True),
        ("I cannot say.", "B", False),
    ],
)
def test_the_form_of_an_answer_tells_how_it_is_compared(
    reply: str, answer: str, right: bool
) -> None:
    assert bool(grader_of("auto")(reply, answer, {})) is right


def test_rules_read_an_answer_by_a_pattern_or_a_field() -> None:
    by_pattern = grader_of(r"regex:Result: (\w+)")
    assert by_pattern("Result: no\nResult: Yes", "yes", {})
    assert by_pattern("nothing", "yes", {}).answer is None
    by_field = grader_of("json:answer.value")
    assert by_field('Here: {"answer": {"value": 4}}', "4.0", {})
    assert not by_field('{"answer": 4}', "4", {})


@pytest.mark.parametrize("rule", ["exakt", "regex:", "regex:(", "json:"])
def test_a_wrong_rule_is_refused(rule: str) -> None:
    with pytest.raises(UsageError):
        grader_of(rule)


def test_an_answer_that_is_no_letter_is_refused_by_choice() -> None:
    with pytest.raises(BenchError, match="not the letter"):
        grader_of("choice")("B", "Paris", {})


def _accuracy(moa: Moa, run: str) -> dict[str, float]:
    told = json.loads(moa.run("bench", "report", run, "--format", "json").text)
    [arm] = told["runs"][0]["arms"]
    return {metric["name"]: metric["value"] for metric in arm["metrics"]}


def test_a_run_asks_for_the_answer_and_tells_how_many_gave_none(
    moa: Moa, upstream: Upstream
) -> None:
    def reply(request: Request) -> str:
        asked = str(request.messages[-1]["content"])
        return "The answer is (B)." if asked.startswith("first") else "I cannot tell."

    upstream.always("agg", Reply(text=reply))
    lines = [{"prompt": "first", "answer": "B"}, {"prompt": "second", "answer": "C"}]
    write_lines(moa.folder / "mine.jsonl", lines)
    ran = moa.run("bench", "run", "mine.jsonl", "-y", "--rounds", "0", "-o", "run")
    assert ran.code == 0, ran.err
    assert "added to each question" in ran.err
    settings = json.loads((moa.folder / "run" / "run.json").read_text("utf-8"))
    asked = {str(request.messages[-1]["content"]) for request in upstream.chats("agg")}
    assert asked == {f"{word}\n\n{settings['answer_format']}" for word in ("first", "second")}
    assert _accuracy(moa, "run") == {"accuracy": 50.0, "unanswered": 50.0}


def test_a_run_without_a_format_goes_on_without_it(moa: Moa, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="It is 4."))
    write_lines(moa.folder / "mine.jsonl", [{"prompt": "2 + 2?", "answer": "4"}])
    command = ("bench", "run", "mine.jsonl", "-y", "--rounds", "0", "-o", "run")
    assert moa.run(*command, "--no-format").code == 0
    assert [request.messages[-1]["content"] for request in upstream.chats("agg")] == ["2 + 2?"]
    assert "answer_format" not in (moa.folder / "run" / "run.json").read_text("utf-8")
    # The same command as ever goes on: the run is as it was begun.
    again = moa.run(*command)
    assert (again.code, len(upstream.chats("agg"))) == (0, 1), again.err
    assert _accuracy(moa, "run") == {"accuracy": 100.0}


def test_a_scorer_of_another_package_is_used(moa: Moa, upstream: Upstream, tmp_path: Path) -> None:
    package = tmp_path / "brought"
    (package / "brought-1.dist-info").mkdir(parents=True)
    (package / "brought.py").write_text(
        "def half(reply, item):\n    return 0.5 if item['answer'] in reply else 0\n"
    )
    (package / "brought-1.dist-info" / "entry_points.txt").write_text(
        "[moa.scorers]\nhalf = brought:half\n"
    )
    (package / "brought-1.dist-info" / "METADATA").write_text("Name: brought\nVersion: 1\n")
    upstream.always("agg", Reply(text="It is Paris."))
    write_lines(moa.folder / "mine.jsonl", [{"prompt": "Where?", "answer": "Paris"}])
    environment = {"PYTHONPATH": f"{package}:{moa.environment['PYTHONPATH']}"}
    command = ("bench", "run", "mine.jsonl", "-y", "--rounds", "0", "-o", "run", "--grader", "half")
    ran = moa.run(*command, env=environment, fresh=True)
    assert ran.code == 0, ran.err
    report = moa.run("bench", "report", "run", "--format", "json", env=environment, fresh=True)
    [arm] = json.loads(report.text)["runs"][0]["arms"]
    assert arm["metrics"][0]["value"] == 50.0
    without = moa.run("bench", "report", "run")
    assert "there is no grader `half`" in without.err


@pytest.mark.parametrize(
    ("grader", "told"),
    [("number", "the answer 'Paris' holds no number"), ("choice", "the answer 'Paris' is not the")],
)
def test_answers_that_a_grader_cannot_read_are_told_before_anything_is_paid(
    moa: Moa, upstream: Upstream, grader: str, told: str
) -> None:
    rows = [{"prompt": "q", "answer": "1" if grader == "number" else "B"}]
    rows.append({"id": "capital", "prompt": "Where?", "answer": "Paris"})
    write_lines(moa.folder / "mine.jsonl", rows)
    ran = moa.run("bench", "run", "mine.jsonl", "-y", "-o", "run", "--grader", grader)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert f"moa: item capital: {told}" in ran.err
    assert not upstream.chats()
    assert not (moa.folder / "run").exists()


def test_an_empty_answer_is_none_and_one_that_cannot_be_compared_is_told(
    moa: Moa, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(text="The answer is 4"))
    answers = [4, "", "  ", None, ["4"], True]
    rows = [{"prompt": f"q{n}", "answer": answer} for n, answer in enumerate(answers)]
    write_lines(moa.folder / "mine.jsonl", rows)
    ran = moa.run("bench", "run", "mine.jsonl", "-y", "--rounds", "0", "-o", "run")
    assert ran.code == 0, ran.err
    assert "2 answers, such as that of item 5, cannot be compared" in ran.err
    report = moa.run("bench", "report", "run", "--format", "json")
    [arm] = json.loads(report.text)["runs"][0]["arms"]
    [accuracy] = arm["metrics"]
    assert (accuracy["value"], accuracy["n"]) == (100.0, 1)
