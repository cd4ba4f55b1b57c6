"""A user's own lines are rated by a rubric, by a reference answer, or by both."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moa_cli.bench.report.scores import scores_of
from tests.support.bench.own_runs import write_lines
from tests.support.bench.tables import jsonl_rows
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

RUN = "runs/mine-one"
START = ("bench", "judge", RUN, "--judge", "lab:judge", "-y")


def run_of(moa: Moa, upstream: Upstream, rows: list[dict[str, Any]]) -> None:
    """A run of these lines by one model, which says what it is asked."""
    moa.profile("one", "m", aggregator="m")
    upstream.always("m", Reply(text=lambda request: f"on {request.messages[-1]['content']}"))
    write_lines(moa.folder / "mine.jsonl", rows)
    start = ("bench", "run", "mine.jsonl", "-p", "one", "--arms", "single", "-y")
    ran = moa.run(*start, "--no-format")
    assert ran.code == 0, ran.err
    upstream.requests.clear()


def asked(upstream: Upstream) -> dict[str, str]:
    """What the judge was asked, by the reply that it was shown."""
    texts = [str(request.messages[-1]["content"]) for request in upstream.chats("judge")]
    return {text.partition("the response\n")[2].partition("\n")[0]: text for text in texts}


def test_lines_are_rated_by_their_answers_and_rubrics(moa: Moa, upstream: Upstream) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "capital?", "answer": "Paris"},
        {"prompt": "poem?", "rubric": "It has four lines."},
        {"prompt": "essay?", "reference": "A long essay.", "rubric": "It is kind."},
        {"prompt": "whatever?"},
    ]
    run_of(moa, upstream, rows)

    def rating(request: Request) -> str:
        return f"Rating: [[{9 if 'capital' in str(request.messages) else 4}]]"

    upstream.always("judge", Reply(text=rating))
    ran = moa.run(*START)
    assert ran.code == 0, ran.err
    assert "1 of 4 items have no rubric and no answer, and are not judged" in ran.err
    texts = asked(upstream)
    assert set(texts) == {"on capital?", "on poem?", "on essay?"}
    assert "the reference answer\nParis\n" in texts["on capital?"]
    assert "The response says the same as the reference answer" in texts["on capital?"]
    assert "It has four lines." in texts["on poem?"]
    assert "reference" not in texts["on poem?"]
    assert "It is kind." in texts["on essay?"]
    assert "the reference answer\nA long essay.\n" in texts["on essay?"]
    [arm] = scores_of(moa.folder / RUN, "lab:judge").arms
    average = arm.metric("average")
    assert average is not None
    assert average.mean.value == pytest.approx(17 / 3)
    assert (average.mean.n, average.asked) == (3, 4)
    # The known answer is graded as ever, beside it.
    accuracy = arm.metric("accuracy")
    assert accuracy is not None
    assert (accuracy.mean.value, accuracy.mean.n) == (0, 1)
    assert "average (of 10)" in ran.text
    assert "average 3 of 4" in moa.run("bench", "report", RUN).text


def test_a_rubric_of_the_command(moa: Moa, upstream: Upstream) -> None:
    run_of(moa, upstream, [{"prompt": "a?", "answer": "x"}, {"prompt": "b?", "rubric": "Own."}])
    upstream.always("judge", Reply(text="<think>[[1]]</think>Rating: [[6]]"))
    (moa.folder / "rubric.txt").write_text("It is polite.\n", "utf-8")
    ran = moa.run(*START, "--rubric", "@rubric.txt")
    assert ran.code == 0, ran.err
    texts = asked(upstream)
    assert "It is polite." in texts["on a?"]
    assert "the reference answer\nx\n" in texts["on a?"]
    assert "polite" not in texts["on b?"]
    folder = moa.folder / RUN / "judges/lab-judge"
    assert json.loads((folder / "judge.json").read_bytes())["rubric"] == "It is polite."
    assert [row["value"] for row in jsonl_rows(folder / "judgements.jsonl")] == [6, 6]
    calls = len(upstream.chats())
    again = moa.run(*START, "--rubric", "It is polite.")
    assert (again.text, len(upstream.chats())) == (ran.text, calls)
    other = moa.run(*START, "--rubric", "It is short.")
    assert (other.code, len(upstream.chats())) == (1, calls)
    told = 'is a judge with other settings: `rubric` was "It is polite.", is "It is short."'
    assert told in other.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "there is nothing to compare with"),
        (("--rubric", "@blank.txt"), "--rubric: the rubric is empty"),
        (("--rubric", "@gone.txt"), "gone.txt: cannot be read"),
        (
            ("--rubric", "x", "--against", "single:lab:m"),
            "--rubric cannot be used with --reference",
        ),
    ],
)
def test_what_is_refused(
    moa: Moa, upstream: Upstream, arguments: tuple[str, ...], told: str
) -> None:
    run_of(moa, upstream, [{"prompt": "a?"}])
    (moa.folder / "blank.txt").write_text(" \n", "utf-8")
    ran = moa.run(*START, *arguments)
    assert ran.code in (1, 2)
    assert (ran.out, ran.err.count("\n")) == (b"", 1)
    assert told in ran.err
    assert upstream.chats() == []


def likely(request: Request) -> dict[str, Any]:
    """Log-probabilities of `Rating: [[8]]`, where 8 and 9 are as likely."""
    del request
    told = [{"token": rating, "logprob": -0.6931471805599453} for rating in ("8", "9")]
    return {
        "content": [
            {"token": "Rating: [[", "top_logprobs": []},
            {"token": "8", "top_logprobs": told},
            {"token": "]]", "top_logprobs": []},
        ]
    }


def test_the_rating_that_a_judge_expects(moa: Moa, upstream: Upstream) -> None:
    run_of(moa, upstream, [{"prompt": "a?", "answer": "x"}, {"prompt": "b?", "answer": "y"}])
    thoughtful = Reply(text="<think>[[1]]</think>Rating: [[8]]", logprobs=likely)
    upstream.always("judge", thoughtful)
    ran = moa.run(*START, "--expected")
    assert ran.code == 0, ran.err
    assert "as expected by log-probabilities" in ran.err
    found = jsonl_rows(moa.folder / RUN / "judges/lab-judge/judgements.jsonl")
    assert [row["value"] for row in found] == [pytest.approx(8.5)] * 2
    bodies = [request.body for request in upstream.chats("judge")]
    assert {(body["logprobs"], body["top_logprobs"]) for body in bodies} == {(True, 5)}
    calls = len(bodies)
    assert moa.run(*START, "--expected").text == ran.text
    assert len(upstream.chats("judge")) == calls
    other = moa.run(*START)
    assert (other.code, len(upstream.chats("judge"))) == (1, calls)
    assert "`ratings` was" in other.err


def side_by_side(request: Request) -> object:
    """The same as Together tells it, where it is asked for by number; else the said tokens alone,
    and always the mark of the end."""
    many = request.body["logprobs"] == 5
    half = -0.6931471805599453
    return {
        "tokens": ["Rating: [[", "8", "]]", "<|eot_id|>"],
        "token_logprobs": [0, half, 0, 0],
        "top_logprobs": [{}, {"8": half, **({"9": half} if many else {})}, {"]]": 0}, {}],
    }


def test_the_rating_that_a_judge_at_together_expects(moa: Moa, upstream: Upstream) -> None:
    run_of(moa, upstream, [{"prompt": "a?", "answer": "x"}, {"prompt": "b?", "answer": "y"}])
    upstream.always("judge", Reply(text="Rating: [[8]]", logprobs=side_by_side))
    ran = moa.run(*START, "--expected", "--concurrency", "1")
    assert ran.code == 0, ran.err
    found = jsonl_rows(moa.folder / RUN / "judges/lab-judge/judgements.jsonl")
    assert [row["value"] for row in found] == [pytest.approx(8.5)] * 2
    assert [request.body["logprobs"] for request in upstream.chats("judge")] == [True, 5, 5]
    again = moa.run(*START, "--expected")
    assert (again.code, len(upstream.chats("judge"))) == (0, 3), again.err


def test_a_judge_that_refuses_log_probabilities_is_read_in_its_text(
    moa: Moa, upstream: Upstream
) -> None:
    run_of(moa, upstream, [{"prompt": "a?", "answer": "x"}, {"prompt": "b?", "answer": "y"}])

    def rate(request: Request) -> Reply:
        if "logprobs" in request.body:
            return Reply(status=400, error={"error": {"message": "logprobs is not supported"}})
        return Reply(text="Rating: [[8]]")

    upstream.always("judge", rate)
    ran = moa.run(*START, "--expected")
    assert ran.code == 0, ran.err
    assert "returns no log-probabilities of ratings: they are read from its text" in ran.err
    found = jsonl_rows(moa.folder / RUN / "judges/lab-judge/judgements.jsonl")
    assert [row["value"] for row in found] == [8, 8]


def test_a_judge_that_tells_none_is_read_in_its_text(moa: Moa, upstream: Upstream) -> None:
    run_of(moa, upstream, [{"prompt": "a?", "answer": "x"}])
    upstream.always("judge", Reply(text="Rating: [[8]]"))
    ran = moa.run(*START, "--expected")
    assert ran.code == 0, ran.err
    assert "returns no log-probabilities of ratings: they are read from its text" in ran.err
    # As OpenAI takes it, as Together does, and without.
    asked = [request.body for request in upstream.chats("judge")]
    assert [body.get("logprobs") for body in asked] == [True, 5, None]
    assert [body.get("top_logprobs") for body in asked] == [5, None, None]
    again = moa.run(*START, "--expected")
    assert (again.code, len(upstream.chats("judge"))) == (0, 3)
    assert "as expected" not in again.err
    found = jsonl_rows(moa.folder / RUN / "judges/lab-judge/judgements.jsonl")
    assert [row["value"] for row in found] == [8]
    refused = moa.run(*START, "--expected", "--against", "single:lab:m")
    assert (refused.code, refused.out) == (2, b"")
    assert "--expected: mine is not judged with ratings" in refused.err


def test_a_judge_without_a_verdict_hides_no_differences(moa: Moa, upstream: Upstream) -> None:
    """What arms are worth is then told by known answers, as without the judge."""
    moa.profile("two", "m", "n", aggregator="m")
    for model, answer in (("m", "1"), ("n", "2")):
        upstream.always(model, Reply(text=answer))
    write_lines(moa.folder / "mine.jsonl", [{"prompt": f"q{n}", "answer": "1"} for n in (1, 2, 3)])
    ran = moa.run("bench", "run", "mine.jsonl", "-p", "two", "--arms", "single", "-y", "-o", RUN)
    assert ran.code == 0, ran.err
    report = ("bench", "report", RUN, "--format", "json")
    before = json.loads(moa.run(*report).text)["differences"]
    upstream.always("judge", Reply(text="Who knows?"))
    moa.run(*START)
    after = json.loads(moa.run(*report).text)
    assert after["runs"][0]["judge"]["model"] == "lab:judge"
    assert after["differences"] == before != []
