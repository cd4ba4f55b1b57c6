"""Folders of runs that an earlier version wrote are read, gone on with, and written the same.

`recorded/` holds what the version at commit f48070e wrote for the commands of `do_all`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench.own_runs import ANSWER, write_lines
from tests.support.command import Moa, Ran
from tests.support.upstream import Reply, Request, Upstream

RECORDED = Path(__file__).parent / "recorded"
# In the place of the user's folder, which is another one in each test.
HOME = "/home/user/evals"
TEMPLATE = "<|im_start|>user\n{instruction} | {output_1} | {output_2}\n<|im_end|>\n"
RUN = (
    "bench",
    "run",
    "mine.jsonl",
    "-y",
    "--arms",
    "mixture,self,single",
    "-o",
    "own",
    "--no-format",
)
MT = ("bench", "run", "mt", "--data", "data", "-p", "two", "--parity", "-y", "-o", "mt")
JUDGE = ("bench", "judge", "own", "--judge", "lab:judge", "--against", "single:lab:agg", "-y")
BATCH = ("batch", "prompts.txt", "out.jsonl", "-p", "two", "-y")
PRICES = {
    "lab:a": {"prompt": 0.5, "completion": 1.5},
    "lab:agg": {"prompt": 3.0, "completion": 9.0},
    "lab:b": {"prompt": 0.25, "completion": 0.75},
}


def likely(request: Request) -> dict[str, Any]:
    """The output shown first is better, at 80 %."""
    del request
    told = [{"token": "m", "logprob": -0.2231435513142097}, {"token": "M", "logprob": -1.6}]
    return {"content": [{"token": "m", "logprob": -0.223, "top_logprobs": told}]}


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    """A user's machine with all that the recorded commands need."""
    machine = Moa(tmp_path, upstream.url)
    prepare(machine, upstream)
    return machine


def prepare(moa: Moa, upstream: Upstream) -> None:
    """Profiles, prices, items and models."""
    upstream.always("*", ANSWER)
    upstream.always("judge", Reply(text="m", logprobs=likely))
    moa.configure(providers=moa.settings()["providers"], prices=PRICES)
    first = {"model": "lab:a", "samples": 2, "temperature": 0.0, "seed": 7}
    second = {"model": "lab:b", "max_tokens": 40, "top_p": 0.9}
    moa.profile("lab", first, second, rounds=2, temperature=0.7, system="Be short.")
    moa.profile("two", "a", "b")
    before = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]
    last = {"role": "user", "content": "What is 2 + 2?"}
    rows: list[dict[str, Any]] = [
        {"id": "x", "prompt": "Name a colour.", "category": "words"},
        {"prompt": "What is 1 + 1?", "answer": 2, "category": "numbers"},
        {"messages": [*before, last], "answer": "4"},
    ]
    write_lines(moa.folder / "mine.jsonl", rows)
    questions = [
        {"question_id": 81, "category": "writing", "turns": ["First?", "Second?"]},
        {"question_id": 101, "category": "math", "turns": ["3 + 4?", "And 5?"]},
    ]
    write_lines(moa.folder / "data" / "mt_bench" / "question.jsonl", questions)
    prompt = moa.folder / "data" / "alpaca_eval" / "judge_prompt_alpaca_eval_clf.txt"
    prompt.parent.mkdir()
    prompt.write_text(TEMPLATE, "utf-8")
    moa.environment["MOA_BENCH_DATA"] = str(prompt.parents[1])
    (moa.folder / "prompts.txt").write_text("Name a tree.\nName a bird.\n", "utf-8")


def do_all(moa: Moa) -> None:
    """The recorded commands."""
    for command in (RUN, MT, JUDGE, BATCH):
        ran = moa.run(*command)
        assert ran.code == 0, ran.err


def written(folder: Path, name: str, moa: Moa) -> str:
    """The text of a file without what differs from machine to machine: versions, folders, and
    the day of a judgement."""
    text = (folder / name).read_text("utf-8").replace(str(moa.folder), HOME)
    if not name.endswith(".json"):
        return text
    table = json.loads(text)
    for name in ("rows", "ids"):
        # By which a batch goes on with more lines; earlier versions had none.
        value = table.get("input", {}).get(name)
        text = text.replace(f',\n    "{name}": "{value}"', "")
    for key, value in table["versions"].items():
        text = text.replace(f'"{key}": "{value}"', f'"{key}": "?"')
    return text.replace(str(table.get("date")), "2026-01-01")


SAME = (
    "own/run.json",
    "own/items.jsonl",
    "mt/run.json",
    "mt/items.jsonl",
    "own/judges/lab-judge/judge.json",
    "own/judges/lab-judge/judgements.jsonl",
    "out.jsonl.state/batch.json",
)


def recorded(moa: Moa) -> None:
    """Put what the earlier version wrote into the user's folder."""
    for path in RECORDED.rglob("*"):
        if path.is_file():
            copy = moa.folder / path.relative_to(RECORDED)
            copy.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text("utf-8").replace(HOME, str(moa.folder))
            copy.write_text(text, "utf-8")


def again(moa: Moa, upstream: Upstream, *command: str) -> Ran:
    """Run a command that must make no call."""
    ran = moa.run(*command)
    assert ran.code == 0, ran.err
    assert upstream.chats() == []
    return ran


def test_a_run_is_written_as_by_the_earlier_version(moa: Moa) -> None:
    do_all(moa)
    for name in SAME:
        assert written(moa.folder, name, moa) == (RECORDED / name).read_text("utf-8"), name


def test_calls_of_an_earlier_version_are_not_made_again(moa: Moa, upstream: Upstream) -> None:
    recorded(moa)
    for name, command in (("own", RUN), ("mt", MT)):
        items = moa.folder / name / "items.jsonl"
        items.unlink()
        again(moa, upstream, *command)
        assert items.read_text("utf-8") == (RECORDED / name / "items.jsonl").read_text("utf-8")
    folder = moa.folder / "own" / "judges" / "lab-judge"
    (folder / "judgements.jsonl").unlink()
    again(moa, upstream, *JUDGE)
    told = RECORDED / "own" / "judges" / "lab-judge" / "judgements.jsonl"
    assert (folder / "judgements.jsonl").read_text("utf-8") == told.read_text("utf-8")
    again(moa, upstream, *BATCH)


def test_what_an_earlier_version_wrote_is_read(moa: Moa, upstream: Upstream) -> None:
    recorded(moa)
    report = json.loads(again(moa, upstream, "bench", "report", "own", "--format", "json").text)
    [run] = report["runs"]
    arms = [arm["arm"] for arm in run["arms"]]
    assert arms == ["mixture", "self", "single:lab:a", "single:lab:b", "single:lab:agg"]
    assert run["judge"]["model"] == "lab:judge"
    analysis = json.loads(again(moa, upstream, "bench", "analyse", "own", "--json").text)
    assert [arm["arm"] for arm in analysis["arms"]] == ["mixture", "self"]
    chosen = json.loads(again(moa, upstream, "bench", "select", "own", "--json").text)
    assert len(chosen["pool"]) == 3
    again(moa, upstream, "bench", "export", "mt", "--to", "mt", "-o", "answers.jsonl")
    assert len((moa.folder / "answers.jsonl").read_text("utf-8").splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("own/run.json", ("bench", "report", "own")),
        ("own/judges/lab-judge/judge.json", ("bench", "report", "own")),
        ("out.jsonl.state/batch.json", BATCH),
    ],
)
def test_unknown_keys_are_refused_with_their_path(
    moa: Moa, name: str, command: tuple[str, ...]
) -> None:
    recorded(moa)
    file = moa.folder / name
    table = json.loads(file.read_text("utf-8"))
    model = next(iter(table["facts"]))
    table["facts"][model]["colour"] = "blue"
    file.write_text(json.dumps(table), "utf-8")
    ran = moa.run(*command)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, b"", 1)
    assert name in ran.err
    assert f"unknown key `facts.{model}.colour`" in ran.err


def test_a_later_format_is_refused(moa: Moa) -> None:
    recorded(moa)
    file = moa.folder / "own" / "run.json"
    table = {"format": 2, **json.loads(file.read_text("utf-8"))}
    file.write_text(json.dumps(table), "utf-8")
    ran = moa.run("bench", "report", "own")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, b"", 1)
    assert "own/run.json: has format 2, written by a later version of moa" in ran.err


def test_an_unknown_kind_of_judge_is_named(moa: Moa) -> None:
    recorded(moa)
    file = moa.folder / "own" / "judges" / "lab-judge" / "judge.json"
    table = {**json.loads(file.read_text("utf-8")), "kind": "oracle"}
    file.write_text(json.dumps(table), "utf-8")
    ran = moa.run("bench", "report", "own")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, b"", 1)
    assert "judge.json: there is no kind of judge `oracle`" in ran.err
