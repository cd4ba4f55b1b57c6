"""Exports, held to the files that the upstream evaluators themselves have written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from moa_cli.bench.data.json_lines import to_line
from moa_cli.bench.run.folder import JUDGE_FILE, JUDGEMENTS, judge_folder
from moa_cli.bench.run.journal import Judgement
from tests.support.bench.own_runs import write_lines, write_prompts
from tests.support.bench.tables import jsonl_rows
from tests.support.command import Moa
from tests.support.upstream import Reply, Request, Upstream

BUSY = Reply(status=500, error={"error": {"message": "out of order"}})


def said(request: Request) -> str:
    """All that the user said."""
    return "\n".join(str(m["content"]) for m in request.messages if m["role"] == "user")


def answering(upstream: Upstream, replies: dict[str, str]) -> None:
    """Let the aggregator answer with the reply to all that the user said."""
    upstream.always("agg", Reply(text=lambda request: replies[said(request)]))


def run_alone(moa: Moa, dataset: str, *arguments: str) -> Path:
    """A run in which the aggregator alone answers; its folder."""
    ran = moa.run("bench", "run", dataset, "--rounds", "0", "-y", *arguments)
    assert ran.code == 0, ran.err
    return moa.folder / "runs" / f"{dataset.removesuffix('.jsonl')}-lab"


def judged(run: Path, kind: str, verdicts: Iterable[Judgement], **told: Any) -> None:
    """Have a judge say so."""
    folder = judge_folder(run, "gpt-4")
    folder.mkdir(parents=True)
    table = {"model": "gpt-4", "date": "2024-06-01", "discrete": False, "kind": kind, **told}
    (folder / JUDGE_FILE).write_text(json.dumps(table))
    lines = "".join(to_line(verdict) + "\n" for verdict in verdicts)
    (folder / JUDGEMENTS).write_text(lines, "utf-8")


def judge(moa: Moa, run: Path, data: Path) -> None:
    """Let the upstream's model `judge` judge it."""
    command = ("bench", "judge", str(run), "--judge", "lab:judge", "--data", str(data), "-y")
    ran = moa.run(*command)
    assert ran.code == 0, ran.err


def exported(moa: Moa, run: Path, *arguments: str) -> bytes:
    """What an export writes to standard output, the same each time."""
    command = ("bench", "export", str(run), "-o", "-", *arguments)
    ran = moa.run(*command)
    assert ran.code == 0, ran.err
    assert moa.run(*command).out == ran.out
    return ran.out


def rows_of(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def without(rows: Iterable[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in names} for row in rows]


def test_mt_bench_is_as_fastchat_writes_it(moa: Moa, upstream: Upstream, data: Path) -> None:
    golden = jsonl_rows(data / "mt_bench/golden/moa-alpha.jsonl")
    questions = {
        row["question_id"]: row["turns"] for row in jsonl_rows(data / "mt_bench/question.jsonl")
    }
    replies = {}
    for row in golden:
        first, second = questions[row["question_id"]]
        replies[first], replies[f"{first}\n{second}"] = row["choices"][0]["turns"]
    answering(upstream, replies)
    run = run_alone(moa, "mt", "--data", str(data))
    name = golden[0]["model_id"]
    answers = rows_of(exported(moa, run, "--to", "mt", "--name", name))
    assert without(answers, "answer_id", "tstamp") == without(golden, "answer_id", "tstamp")
    assert [list(row) for row in answers] == [list(row) for row in golden]
    assert len({row["answer_id"] for row in answers}) == 80
    assert {len(row["answer_id"]) for row in answers} == {22}
    assert all(row["tstamp"] > 1_700_000_000 for row in answers)

    judgments = [
        row
        for row in jsonl_rows(data / "mt_bench/golden/gpt-4_single.jsonl")
        if row["model"] == "moa-alpha"
    ]
    words = {row["user_prompt"]: row["judgment"] for row in judgments}
    upstream.always(
        "judge", Reply(text=lambda request: words[str(request.messages[-1]["content"])])
    )
    judge(moa, run, data)
    made = rows_of(exported(moa, run, "--to", "mt-judgments", "--name", "moa-alpha"))
    for row in judgments:
        row["judge"][0] = "lab:judge"
    assert without(made, "tstamp") == without(judgments, "tstamp")
    assert [list(row) for row in made] == [list(row) for row in judgments]
    assert all(row["tstamp"] > 1_700_000_000 for row in made)
    ran = moa.run("bench", "export", str(run), "--to", "mt-judgments")
    assert ran.code == 0
    assert (moa.folder / "lab-judge_single.jsonl").is_file()


def test_flask_is_as_its_own_scripts_write_it(moa: Moa, upstream: Upstream, data: Path) -> None:
    golden = jsonl_rows(data / "flask/golden/answers.jsonl")
    items = {row["idx"]: row["instruction"] for row in jsonl_rows(data / "flask/slice60.jsonl")}
    answering(upstream, {items[row["question_id"]]: row["text"] for row in golden})
    run = run_alone(moa, "flask", "--data", str(data))
    assert rows_of(exported(moa, run, "--to", "flask")) == golden
    reviews = jsonl_rows(data / "flask/golden/review.jsonl")

    def review(request: Request) -> str:
        prompt = str(request.messages[-1]["content"])
        shown = "[Instruction]\n{instruction}\n\n[Ground truth Answer]\n{answer}\n"
        return next(str(row["review"]) for row in reviews if shown.format(**row) in prompt)

    upstream.always("judge", Reply(text=review))
    judge(moa, run, data)
    made = rows_of(exported(moa, run, "--to", "flask-reviews"))
    assert without(made, "total_tokens_step4") == without(reviews, "total_tokens_step4")
    assert [list(row) for row in made] == [list(row) for row in reviews]
    assert all(row["total_tokens_step4"] > 100 for row in made)


def test_alpaca_is_a_list_in_the_dataset_s_order(moa: Moa, upstream: Upstream, data: Path) -> None:
    upstream.always("agg", Reply(text=lambda request: f"é: {said(request)}"))
    run = run_alone(
        moa, "alpaca", "--data", str(data), "-n", "6", "--sample", "first", "--concurrency", "6"
    )
    made = exported(moa, run, "--to", "alpaca")
    asked = json.loads((data / "alpaca_eval/instructions.json").read_bytes())[:6]
    rows = [
        {
            "instruction": annotation["instruction"],
            "dataset": annotation["dataset"],
            "output": f"é: {annotation['instruction']}".strip(),
            "generator": "lab",
        }
        for annotation in asked
    ]
    assert json.loads(made) == rows
    assert made == json.dumps(rows, indent=2).encode() + b"\n"


@pytest.fixture
def broken(moa: Moa, upstream: Upstream) -> Path:
    """A run of three prompts, in which the aggregator failed the second, both times."""
    name = write_prompts(moa, 3)
    upstream.enqueue("agg", Reply(text="one"), BUSY, Reply(text="three"), BUSY)
    ran = moa.run("bench", "run", name, "-y", "--concurrency", "1")
    assert ran.code == 1, ran.text
    return moa.folder / "runs" / "mine-lab"


def test_what_failed_is_left_out_and_said(moa: Moa, broken: Path) -> None:
    ran = moa.run("bench", "export", str(broken), "--to", "alpaca")
    assert ran.code == 0
    assert (ran.out, ran.err.splitlines()) == (
        b"",
        [
            "moa: 1 of 3 are missing (failed, or not done) and left out",
            "moa: wrote model_outputs.json",
        ],
    )
    rows = json.loads((moa.folder / "model_outputs.json").read_bytes())
    assert [row["output"] for row in rows] == ["one", "three"]
    assert {row["dataset"] for row in rows} == {"mine"}


def test_strict_writes_nothing_that_is_not_whole(moa: Moa, broken: Path) -> None:
    ran = moa.run("bench", "export", str(broken), "--to", "alpaca", "--strict")
    assert ran.code == 1
    assert ran.err.startswith("moa: 1 of 3 are missing (failed, or not done); nothing was written")
    assert not (moa.folder / "model_outputs.json").exists()


def test_nothing_is_overwritten_unasked(moa: Moa, broken: Path) -> None:
    path = moa.folder / "out.json"
    path.write_text("mine")
    command = ["bench", "export", str(broken), "--to", "alpaca", "-o", "out.json"]
    ran = moa.run(*command)
    assert (ran.code, path.read_text()) == (2, "mine")
    assert "already exists (--force overwrites it)" in ran.err
    assert moa.run(*command, "--force").code == 0
    assert len(json.loads(path.read_bytes())) == 2
    assert [path.name for path in moa.folder.glob(".*")] == []


def arms_run(moa: Moa, upstream: Upstream) -> Path:
    """Three prompts by the mixture and each model alone."""
    upstream.always(
        "*",
        Reply(
            text=lambda request: f"{request.model} \x7f on {len(request.messages)}: {said(request)}"
        ),
    )
    moa.profile("lab", "a", aggregator="agg")
    ran = moa.run("bench", "run", write_prompts(moa, 3), "-y", "--arms", "mixture,single")
    assert ran.code == 0, ran.err
    return moa.folder / "runs" / "mine-lab"


def test_the_folder_of_predictions_and_who_won(moa: Moa, upstream: Upstream) -> None:
    run = arms_run(moa, upstream)
    command = ["bench", "export", str(run), "--to", "moa"]
    assert moa.run(*command).code == 0
    folder = moa.folder / "mine-lab-moa"

    def read(name: str) -> list[dict[str, Any]]:
        return rows_of((folder / name).read_bytes())

    prompts = read("prompts.jsonl")
    assert [prompt["id"] for prompt in prompts] == ["1", "2", "3"]
    assert read("moa_preds.jsonl")[0] == {
        "id": "1",
        "model": "lab",
        "prediction": f"agg \x7f on 2: {prompts[0]['prompt']}",
    }
    assert read("base_preds.jsonl")[2] == {
        "id": "3",
        "model": "lab:agg",
        "prediction": f"agg \x7f on 1: {prompts[2]['prompt']}",
    }
    assert json.loads((folder / "results.json").read_bytes()) == {
        "dataset": "mine",
        "prompts": 3,
        "moa": {"arm": "mixture", "model": "lab", "predictions": 3},
        "base": {"arm": "single:lab:agg", "model": "lab:agg", "predictions": 3},
        "judge": None,
    }
    arm, base = "mixture", "single:lab:agg"
    verdicts = [
        *(Judgement(arm, f"{n}", value=value) for n, value in ((1, 1.9), (2, 1.2), (3, 1.6))),
        *(Judgement(base, f"{n}", value=value) for n, value in ((1, 1.4), (2, 1.2))),
    ]
    judged(run, "pairwise", verdicts)
    assert moa.run(*command).code == 2
    assert moa.run(*command, "--force").code == 0
    results = json.loads((folder / "results.json").read_bytes())
    assert {name: results[name] for name in list(results)[4:]} == {
        "judge": "gpt-4",
        "judged_by": "scores",
        "judged": 2,
        "moa_wins": 1,
        "base_wins": 0,
        "ties": 1,
    }
    (judge_folder(run, "gpt-4") / JUDGE_FILE).write_text(
        json.dumps({"model": "gpt-4", "kind": "pairwise", "against": base})
    )
    assert moa.run(*command, "--force").code == 0
    results = json.loads((folder / "results.json").read_bytes())
    assert [results[name] for name in ("judged_by", "judged", "moa_wins", "base_wins")] == [
        "comparison",
        3,
        2,
        1,
    ]


def test_our_own_lines_hold_every_arm_and_turn(moa: Moa, upstream: Upstream) -> None:
    run = arms_run(moa, upstream)
    data = exported(moa, run, "--to", "jsonl")
    assert b"\x7f" not in data
    rows = rows_of(data)
    assert [(row["arm"], row["id"]) for row in rows] == [
        (arm, item)
        for arm in ("mixture", "single:lab:a", "single:lab:agg")
        for item in ("1", "2", "3")
    ]
    assert rows[3] == {
        "id": "1",
        "arm": "single:lab:a",
        "turn": 1,
        "prompt": "say in one line what you know of thing 1",
        "reply": "a \x7f on 1: say in one line what you know of thing 1",
    }
    file = exported(moa, run, "--to", "jsonl", "--arm", "single:lab:a")
    assert rows_of(file) == rows[3:6]


def test_two_turns_are_two_lines(moa: Moa) -> None:
    row = {"question_id": 7, "category": "math", "turns": ["1+1?", "and doubled?"]}
    write_lines(moa.folder / "data" / "mt_bench" / "question.jsonl", [row])
    run = run_alone(moa, "mt", "--data", "data")
    rows = rows_of(exported(moa, run, "--to", "jsonl"))
    assert [(row["turn"], row["prompt"]) for row in rows] == [(1, "1+1?"), (2, "and doubled?")]
    ran = moa.run("bench", "export", str(run), "--to", "mt-judgments")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert ": was not judged (see `moa bench judge " in ran.err
    assert moa.run("bench", "export", str(run), "--to", "mt").code == 0
    assert (moa.folder / "lab.jsonl").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--to", "alpacca"], "--to: there is no format `alpacca` (did you mean `alpaca`?)"),
        (
            ["--to", "mt"],
            "runs/mine-lab: is not a run of `moa bench run mt` (--to jsonl holds any run)",
        ),
        (
            ["--to", "alpaca", "--arm", "single:lab:c"],
            "--arm: there is no arm `single:lab:c` (did you mean `single:lab:a`?)",
        ),
        (
            ["--to", "alpaca", "--judge", "x"],
            "--judge goes only with --to mt-judgments, flask-reviews, arena-judgments, moa",
        ),
        (["--to", "moa", "-o", "-"], "--to moa writes a folder (-o names it)"),
    ],
    ids=range(5),
)
def test_what_makes_no_sense_is_one_line(
    moa: Moa, upstream: Upstream, arguments: list[str], told: str
) -> None:
    arms_run(moa, upstream)
    ran = moa.run("bench", "export", "runs/mine-lab", *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, b"", 1)
    assert ran.err.startswith(f"moa: {told}")


def test_a_folder_that_is_no_run_is_named(moa: Moa) -> None:
    ran = moa.run("bench", "export", "nowhere", "--to", "jsonl")
    assert ran.code == 1
    assert ran.err.startswith("moa: nowhere: is not the folder of a run")
