"""Judges that reason have room for it, and what they say behind it counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moa_cli.bench.report.scores import scores_of
from tests.support.bench.own_runs import write_lines
from tests.support.bench.scores import write_questions
from tests.support.bench.tables import jsonl_rows
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

RUN = "runs/mt-one"
START = ("bench", "judge", RUN, "--judge", "lab:judge", "-y", "--concurrency", "1")


def write_judge_prompts(data: Path) -> None:
    """FastChat's prompts for the judge, short."""
    places = {
        "single-v1": "{question} {answer}",
        "single-math-v1": "{question} {ref_answer_1} {answer}",
        "single-v1-multi-turn": "{question_1} {answer_1} {question_2} {answer_2}",
        "single-math-v1-multi-turn": (
            "{question_1} {ref_answer_1} {answer_1} {question_2} {ref_answer_2} {answer_2}"
        ),
    }
    rows = [
        {"name": name, "system_prompt": "You rate.", "prompt_template": template}
        for name, template in places.items()
    ]
    write_lines(data / "mt_bench/judge_prompts.jsonl", rows)


@pytest.fixture
def judged(moa: Moa, upstream: Upstream) -> Moa:
    """A run of MT-Bench's first seven questions, two turns each, by one model."""
    data = moa.folder / "data"
    write_questions(data, "mt", 7)
    write_judge_prompts(data)
    references = [
        {"question_id": number, "choices": [{"turns": ["right", "right"]}]} for number in range(7)
    ]
    write_lines(data / "mt_bench/reference_answer_gpt-4.jsonl", references)
    moa.environment["MOA_BENCH_DATA"] = str(data)
    moa.profile("one", "m", aggregator="m")
    ran = moa.run("bench", "run", "mt", "-p", "one", "--arms", "single", "-y")
    assert ran.code == 0, ran.err
    upstream.requests.clear()
    return moa


def verdicts(moa: Moa) -> list[dict[str, Any]]:
    return jsonl_rows(moa.folder / RUN / "judges/lab-judge/judgements.jsonl")


def limits(upstream: Upstream) -> list[int]:
    return [request.body["max_tokens"] for request in upstream.chats("judge")]


def average(moa: Moa) -> float | None:
    [arm] = scores_of(moa.folder / RUN, "lab:judge").arms
    metric = arm.metric("average")
    return None if metric is None else metric.mean.value


def test_a_judge_that_does_not_reason_is_sent_what_upstream_sends(
    judged: Moa, upstream: Upstream
) -> None:
    upstream.always("judge", Reply(text="Rating: [[7]]"))
    ran = judged.run(*START)
    assert ran.code == 0, ran.err
    assert limits(upstream) == [2048] * 14
    settings = json.loads((judged.folder / RUN / "judges/lab-judge/judge.json").read_bytes())
    assert "reasoning_tokens" not in settings
    assert "unreadable" not in ran.err + ran.text


@pytest.mark.parametrize(
    "reply",
    [
        Reply(text="It is a [[5]], so far. </think> Rating: [[9]]"),
        Reply(text="<reasoning>[[5]]</reasoning>Rating: [[9]]"),
        Reply(text="Rating: [[9]]", reasoning=["It is ", "a [[5]]."]),
    ],
    ids=["an end alone", "a tag of its own", "a field of its own"],
)
def test_the_verdict_is_read_behind_the_reasoning(
    judged: Moa, upstream: Upstream, reply: Reply
) -> None:
    upstream.always("judge", reply)
    ran = judged.run(*START)
    assert ran.code == 0, ran.err
    assert "lab:judge reasons before its verdict: it gets 32,768 more tokens for that" in ran.err
    assert limits(upstream) == [2048, *[2048 + 32_768] * 14]
    assert average(judged) == 9
    # The words are kept as they came.
    assert all(verdict["text"] == reply.text for verdict in verdicts(judged))
    assert judged.run(*START).text == ran.text
    assert len(limits(upstream)) == 15


def test_a_judge_whose_tokens_run_out_is_given_room(judged: Moa, upstream: Upstream) -> None:
    def answer(request: Request) -> str:
        return "Rating: [[8]]" if request.body["max_tokens"] > 4000 else "Let us see"

    upstream.enqueue("judge", Reply(text="", reasoning=["Let us see"], finish_reason="length"))
    upstream.always("judge", Reply(text=answer))
    ran = judged.run(*START)
    assert ran.code == 0, ran.err
    assert average(judged) == 8
    assert set(limits(upstream)[1:]) == {2048 + 32_768}


def test_a_smaller_room_where_the_endpoint_takes_no_more(judged: Moa, upstream: Upstream) -> None:
    too_much = Reply(status=400, error={"error": {"message": "max_tokens: at most 16384"}})
    thoughtful = Reply(text="Hm. </think>\n\n[[6]]")
    upstream.enqueue("judge", thoughtful, too_much)
    upstream.always("judge", thoughtful)
    ran = judged.run(*START)
    assert ran.code == 0, ran.err
    assert "it gets 8,192 more tokens for that" in ran.err
    assert limits(upstream)[2:] == [2048 + 8_192] * 14


def test_the_room_that_was_asked_for(judged: Moa, upstream: Upstream) -> None:
    upstream.always("judge", Reply(text="Rating: [[7]]"))
    assert judged.run(*START, "--reasoning-tokens", "500").code == 0
    assert limits(upstream) == [2548] * 14


def test_unreadable_verdicts_are_shown_and_count_in_no_score(
    judged: Moa, upstream: Upstream
) -> None:
    wordy = Reply(text="<think>[[2]]</think> I cannot \x1b[2Jrate this.")
    upstream.enqueue("judge", *[Reply(text="[[6]]")] * 2, wordy)
    upstream.always("judge", Reply(text="Rating: [[8]]"))
    ran = judged.run(*START)
    assert ran.code == 0, ran.err
    assert "moa: unreadable verdicts: 1 of 14, left out of all scores" in ran.err
    assert "moa: single:lab:m, item 1: “I cannot rate this.”" in ran.err
    assert "\x1b" not in ran.err
    assert average(judged) == pytest.approx((2 * 6 + 11 * 8) / 13)
    report = judged.run("bench", "report", RUN).text
    assert "unreadable verdicts: 1 of 14, which count in no score" in report


def test_judging_stops_where_no_verdict_can_be_read(judged: Moa, upstream: Upstream) -> None:
    upstream.always("judge", Reply(text="It is rather good."))
    ran = judged.run(*START)
    assert ran.code == 1
    assert len(limits(upstream)) == 10
    error = ran.err.splitlines()[-1]
    assert "no verdict can be read in 10 answers in a row: “It is rather good.”" in error
    assert len(verdicts(judged)) == 10
    # A few judgements are too few to stop, and no success either.
    upstream.always("judge", Reply(text="Quite good."))
    assert judged.run(*START).code == 1


def test_a_discrete_judge_that_reasons(moa: Moa, upstream: Upstream) -> None:
    data = moa.folder / "data/alpaca_eval"
    data.mkdir(parents=True)
    template = "<|im_start|>user\n{instruction} {output_1} {output_2}\n<|im_end|>\n"
    (data / "judge_prompt_alpaca_eval_clf.txt").write_text(template, "utf-8")
    moa.environment["MOA_BENCH_DATA"] = str(data.parent)
    moa.profile("two", "a", aggregator="b")
    write_lines(moa.folder / "mine.jsonl", [{"prompt": "say one"}, {"prompt": "say two"}])
    ran = moa.run("bench", "run", "mine.jsonl", "-p", "two", "-y", "--arms", "single")
    assert ran.code == 0, ran.err
    upstream.requests.clear()
    told = {"content": [{"token": "<", "top_logprobs": [{"token": "<", "logprob": -0.1}]}]}
    upstream.enqueue("judge", Reply(text="<", logprobs=told), Reply(text="<", logprobs=told))
    upstream.always("judge", Reply(text="m, it seems. Or not?</think>M"))
    start = ("bench", "judge", "runs/mine-two", "--judge", "lab:judge", "-y", "--concurrency", "1")
    ran = moa.run(*start, "--against", "single:lab:b")
    assert ran.code == 0, ran.err
    assert "returns no log-probabilities: its verdicts are read from its text" in ran.err
    found = jsonl_rows(moa.folder / "runs/mine-two/judges/lab-judge/judgements.jsonl")
    assert {(verdict["value"], verdict["switched"]) for verdict in found} <= {(1, True), (2, False)}
    assert {request.body["max_tokens"] for request in upstream.chats("judge")[-2:]} == {16 + 32_768}


def test_judging_stops_where_the_judge_is_gone(judged: Moa, upstream: Upstream) -> None:
    gone = {"error": {"message": "no such model", "code": "model_not_found"}}
    upstream.enqueue("judge", *[Reply(text="Rating: [[7]]")] * 3)
    upstream.always("judge", Reply(status=404, error=gone))
    ran = judged.run(*START)
    assert ran.code == 1
    assert "lab:judge failed for 3 items in a row" in ran.err
    assert len(upstream.chats("judge")) == 6
    upstream.always("judge", Reply(text="Rating: [[7]]"))
    assert judged.run(*START).code == 0
    assert average(judged) == 7
