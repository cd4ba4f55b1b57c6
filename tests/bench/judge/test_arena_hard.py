"""Arena-Hard from its prompts to its scores: two games an answer, five labels, one baseline."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench.own_runs import write_lines
from tests.support.bench.tables import jsonl_rows
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

RUN = ("bench", "run", "arena_hard", "-p", "two", "-y", "--arms", "mixture,single")
JUDGE = ("bench", "judge", "runs/arena_hard-two", "--judge", "lab:judge", "-y")
ARMS = ("mixture", "single:lab:a", "single:lab:b")
_ANSWER = "<|The Start of Assistant {}'s Answer|>\n"


def shown(request: Request) -> tuple[str, str]:
    """What the judge was shown as the answers of A and B."""
    text = str(request.messages[-1]["content"])
    first, second = (text.split(_ANSWER.format(name))[1].split("\n<|The End")[0] for name in "AB")
    return first, second


def fair(request: Request) -> str:
    """A judge that finds `a` significantly better than the baseline, and `b` as good."""
    first, second = shown(request)
    if first.startswith("a says"):
        return "My own answer … [[B>>A]] would be wrong: [[A>>B]]"
    if second.startswith("a says"):
        return "My final verdict is: [[B>>A]]."
    return "My final verdict is tie: [[A=B]]"


def prompts(folder: Path, count: int) -> None:
    rows = [
        {
            "uid": f"{number:032x}",
            "category": "arena-hard-v0.1",
            "cluster": f"cluster {number % 2}",
            "prompt": f"hard question {number}",
        }
        for number in range(count)
    ]
    write_lines(folder / "arena_hard/question.jsonl", rows)
    write_lines(folder / "arena_hard/gpt-4-0314.jsonl", map(baseline, rows))


def baseline(row: dict[str, Any]) -> dict[str, Any]:
    """The baseline's answer to a prompt, as upstream writes answers down."""
    said = {"answer": f"## The baseline\n\n1. answers **{row['prompt']}**"}
    return {
        "uid": row["uid"],
        "model": "gpt-4-0314",
        "messages": [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": said},
        ],
    }


@pytest.fixture
def answered(moa: Moa, upstream: Upstream) -> Moa:
    """A run of four prompts by two models and their mixture, and a fair judge."""
    prompts(moa.folder / "data", 4)
    moa.environment["MOA_BENCH_DATA"] = str(moa.folder / "data")
    moa.profile("two", "a", aggregator="b")
    assert moa.run(*RUN).code == 0
    upstream.requests.clear()
    upstream.always("judge", Reply(text=fair))
    return moa


def verdicts(moa: Moa) -> list[dict[str, Any]]:
    return jsonl_rows(moa.folder / "runs/arena_hard-two/judges/lab-judge/judgements.jsonl")


def test_each_answer_is_judged_in_both_orders(answered: Moa, upstream: Upstream) -> None:
    ran = answered.run(*JUDGE)
    assert ran.code == 0, ran.err
    assert "pairs in both orders, by five labels, against gpt-4-0314" in ran.err
    asked = upstream.chats("judge")
    assert len(asked) == 4 * 2 * len(ARMS)
    pairs = [shown(request) for request in asked]
    assert {pair[::-1] for pair in pairs} == set(pairs)
    body = asked[0].body
    assert (body["temperature"], body["max_tokens"]) == (0, 4096)
    assert "logprobs" not in body
    system, user = (str(message["content"]) for message in body["messages"])
    assert "generating your own answer" in system
    assert "[[A>>B]]" in system
    assert user.startswith("<|User Prompt|>\nhard question ")
    assert user.endswith("\n<|The End of Assistant B's Answer|>")
    # The first game has the baseline as A; values are said of the model.
    told = verdicts(answered)
    assert [(row["turn"], row["switched"]) for row in told] == [(0, False), (1, True)] * 12
    assert {row["value"] for row in told if row["arm"] == "single:lab:a"} == {2}
    assert {row["value"] for row in told if row["arm"] == "single:lab:b"} == {0}


def test_scores_say_how_sure_they_are(answered: Moa) -> None:
    ran = answered.run(*JUDGE)
    [line] = [line for line in ran.text.splitlines() if line.startswith("single:lab:b ")]
    assert re.search(r"50\.00 ± 0\.00 \(n 8\)", line)
    words = " ".join(ran.text.split())
    assert "single:lab:a: score 100.0 %, 95 % interval 100.0 to 100.0" in words
    # What the figures are is said once, and differences have a name of their own.
    assert words.count("100 bootstrap samples of battles, as upstream has it") == 1
    told = answered.run("bench", "report", "runs/arena_hard-two").text
    assert "95 % intervals, mean verdict, %" in told
    report = answered.run("bench", "report", "runs/arena_hard-two", "--format", "json")
    [run] = json.loads(report.text)["runs"]
    metrics = {
        arm["arm"]: {metric["name"]: metric for metric in arm["metrics"]} for arm in run["arms"]
    }
    assert metrics["single:lab:a"]["score"]["value"] == 100
    assert metrics["single:lab:a"]["both orders agree"]["value"] == 100
    assert metrics["mixture"]["score"]["asked"] == 8
    assert "score, style control" in metrics["mixture"]
    # Both games together are what an answer is worth.
    found = answered.run("bench", "analyse", "runs/arena_hard-two")
    assert found.code == 0, found.err


def test_the_same_command_asks_nothing_twice(answered: Moa, upstream: Upstream) -> None:
    first = answered.run(*JUDGE)
    folder = answered.folder / "runs/arena_hard-two/judges/lab-judge"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert answered.run(*JUDGE).text == first.text
    assert len(upstream.chats("judge")) == 24
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_verdict_without_a_label_counts_nowhere(answered: Moa, upstream: Upstream) -> None:
    def mute(request: Request) -> str:
        wordless = shown(request)[0].startswith("a says")
        return "I cannot say." if wordless else fair(request)

    upstream.always("judge", Reply(text=mute))
    ran = answered.run(*JUDGE)
    [line] = [line for line in ran.text.splitlines() if line.startswith("single:lab:a ")]
    assert "4 of 8, partial" in line
    assert re.search(r"single:lab:a, item \w+ game [12]: “I cannot say.”", ran.err)
    words = " ".join(ran.text.split())
    assert "partial: score 4 of 8; score, style control 4 of 8; both orders agree 0 of 4" in words


def test_without_the_baseline_an_arm_can_stand_for_it(answered: Moa, upstream: Upstream) -> None:
    (answered.folder / "data/arena_hard/gpt-4-0314.jsonl").unlink()
    ran = answered.run(*JUDGE)
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "`moa bench fetch arena_hard` gets them" in ran.err
    ran = answered.run(*JUDGE, "--against", "single:lab:b")
    assert ran.code == 0, ran.err
    assert len(upstream.chats("judge")) == 4 * 2 * 2


def test_released_answers_are_judged_beside_the_run(answered: Moa) -> None:
    rows = jsonl_rows(answered.folder / "data/arena_hard/question.jsonl")
    # As upstream wrote answers down before its second version.
    old = [
        {
            "question_id": row["uid"],
            "model_id": "older",
            "choices": [{"index": 0, "turns": [{"content": "a says little", "token_len": 3}]}],
        }
        for row in rows
    ]
    path = write_lines(answered.folder / "older.jsonl", old)
    ran = answered.run(*JUDGE, "--anchors", str(path))
    [line] = [line for line in ran.text.splitlines() if line.startswith("anchor:older ")]
    assert "100.00 ± 0.00 (n 8)" in line


def test_upstreams_programs_read_what_is_exported(answered: Moa) -> None:
    assert answered.run(*JUDGE).code == 0
    export = ("bench", "export", "runs/arena_hard-two", "--arm", "single:lab:a", "-o", "-", "--to")
    answers = [json.loads(line) for line in answered.run(*export, "arena").text.splitlines()]
    assert [row["model"] for row in answers] == ["lab:a"] * 4
    for row in answers:
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert row["messages"][1]["content"]["answer"].startswith("a says")
        assert all(isinstance(count, int) for count in row["metadata"].values())
    ran = answered.run(*export, "arena-judgments")
    judgments = [json.loads(line) for line in ran.text.splitlines()]
    assert {(row["judge"], row["baseline"]) for row in judgments} == {("lab:judge", "gpt-4-0314")}
    assert {row["category"] for row in judgments} == {"arena-hard-v0.1"}
    for row in judgments:
        # The baseline is A in the first game.
        assert [game["score"] for game in row["games"]] == ["B>>A", "A>>B"]
        assert [message["role"] for message in row["games"][0]["prompt"]] == ["system", "user"]


def test_who_won_is_told_from_both_games(answered: Moa) -> None:
    assert answered.run(*JUDGE, "--against", "single:lab:b").code == 0
    ran = answered.run(
        *("bench", "export", "runs/arena_hard-two", "--to", "moa", "-o", "made"),
        *("--arm", "single:lab:a", "--base", "single:lab:b"),
    )
    assert ran.code == 0, ran.err
    results = json.loads((answered.folder / "made/results.json").read_bytes())
    assert (results["judged_by"], results["judged"], results["moa_wins"]) == ("comparison", 4, 4)


def test_all_prompts_go_from_end_to_end(moa: Moa, upstream: Upstream, data: Path) -> None:
    folder = moa.folder / "data"
    rows = jsonl_rows(data / "arena_hard/question.jsonl")
    write_lines(folder / "arena_hard/gpt-4-0314.jsonl", map(baseline, rows))
    (folder / "arena_hard/question.jsonl").write_bytes(
        (data / "arena_hard/question.jsonl").read_bytes()
    )
    moa.profile("two", "a", aggregator="b")
    arguments = ("--data", str(folder), "--concurrency", "16")
    upstream.always("judge", Reply(text="[[B>A]]"))
    ran = moa.run("bench", "run", "arena_hard", "-p", "two", "-y", *arguments)
    assert ran.code == 0, ran.err
    assert "arena_hard: 500 items" in ran.err
    ran = moa.run(*JUDGE, *arguments)
    assert ran.code == 0, ran.err
    assert len(upstream.chats("judge")) == 1000
    [line] = [line for line in ran.text.splitlines() if line.startswith("mixture ")]
    # Always the second: neither is better.
    assert "50.00 ± 0.00 (n 1,000)" in line
