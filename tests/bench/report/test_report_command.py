"""`moa bench report` on folders of runs, as a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.bench.own_runs import write_prompts
from tests.support.bench.scores import write_judgements, write_questions, write_run
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream
from tests.support.web_pages import Page, closed

LONG = "single:together:mistralai/Mixtral-8x22B-Instruct-v0.1"
RATINGS: dict[str, list[float | None]] = {
    "mixture": [9.0, 8.0, 9.0, 8.0],
    "self": [7.0, None, 7.0, 7.0],
    "anchor:gpt-4": [9.0, 9.0, 9.0, 8.0],
}


@pytest.fixture
def graded(moa: Moa) -> Path:
    """A run over GSM8K's first ten items of twenty."""
    file = write_questions(moa.folder / "data", "gsm8k", 20)
    arms = {"mixture": [1, 4], LONG: [1, 2, 3, 4]}
    return write_run(moa.folder / "runs" / "graded", file, arms, limit=10, failed=[9])


@pytest.fixture
def judged(moa: Moa) -> Path:
    """A run over four items of MT-Bench, judged."""
    file = write_questions(moa.folder / "data", "mt", 4)
    run = write_run(moa.folder / "runs" / "judged", file, {"mixture": [], "self": []})
    write_judgements(run, RATINGS)
    return run


def test_a_run_with_right_answers_needs_no_judge(moa: Moa, graded: Path) -> None:
    ran = moa.run("bench", "report", str(graded))
    assert ran.code == 0, ran.err
    assert "by right answers" in ran.text
    # Seven of nine, and five of nine.
    assert "77.8 ± 13.9*" in ran.text
    assert "55.6 ± 16.6*" in ran.text
    assert "partial: mixture: 9 of 10" in ran.text
    assert "10 of 20 items: not comparable with published figures" in ran.text
    assert "9, 1 failed" in ran.text
    assert "$0.0030 ± $0 " in ran.text
    # The critical path of two layers, and all three calls.
    assert "3.0 ± 0.0" in ran.text
    assert "4.5 ± 0.0" in ran.text


def test_one_item_has_its_accuracy_in_percent_too(moa: Moa) -> None:
    file = write_questions(moa.folder / "data", "gsm8k", 4)
    run = write_run(moa.folder / "runs" / "one", file, {"mixture": []}, limit=1)
    ran = moa.run("bench", "report", str(run), "--format", "json")
    assert ran.code == 0, ran.err
    [metrics] = [arm["metrics"] for arm in json.loads(ran.out)["runs"][0]["arms"]]
    values = {metric["name"]: metric["value"] for metric in metrics}
    assert values["accuracy, layer 1, mean"] == 50.0
    assert values["accuracy, layer 1, best of"] == 100.0


def test_a_judge_stands_beside_its_numbers(moa: Moa, judged: Path) -> None:
    ran = moa.run("bench", "report", str(judged))
    assert ran.code == 0, ran.err
    lines = ran.text.splitlines()
    assert "Scores ± standard error (of 10), by lab:judge, 2026-03-01" in lines
    own, published = ran.text.split("mt: published figures")
    assert "anchor:gpt-4" in own
    assert "2406.04692" not in own
    assert "by gpt-4" in published
    assert "self: turn 1 3 of 4" in own
    without = moa.run("bench", "report", str(judged), "--no-published")
    assert "2406.04692" not in without.text


def test_a_run_without_judge_tells_what_to_do(moa: Moa) -> None:
    file = write_questions(moa.folder / "data", "mt", 4)
    run = write_run(moa.folder / "runs" / "plain", file, {"mixture": []})
    ran = moa.run("bench", "report", str(run))
    assert ran.code == 0, ran.err
    assert f"no scores yet: `moa bench judge {run} --judge MODEL`" in ran.text
    assert "Scores" not in ran.text
    assert "Cost and time" in ran.text
    page = moa.run("bench", "report", str(run), "--format", "html").text
    assert "right answers" not in page
    assert "<svg" not in page


def test_an_anchor_is_told_from_an_arm_where_names_are_short(moa: Moa, judged: Path) -> None:
    write_judgements(judged, {**RATINGS, "anchor:" + "gpt" * 20: [9.0] * 4}, "lab:other")
    with moa.terminal(
        *("bench", "report", str(judged), "--judge", "lab:other"), columns=60, rows=200
    ) as terminal:
        assert terminal.wait() == 0
        shown = terminal.shown()
    assert any(line.startswith("anchor:gpt-4 ") for line in shown)
    assert any(line.startswith("anchor:gp") and "…" in line for line in shown)


def test_from_run_to_page(moa: Moa, upstream: Upstream) -> None:
    name = write_prompts(moa, 3)
    assert moa.run("bench", "run", name, "-y", "--arms", "mixture,single").code == 0
    data = moa.folder / "data" / "alpaca_eval"
    data.mkdir(parents=True)
    judge = "<|im_start|>user\n{instruction} {output_1} {output_2}\n<|im_end|>"
    (data / "judge_prompt_alpaca_eval_clf.txt").write_text(judge, "utf-8")
    likely = [{"token": "m", "logprob": -0.5}, {"token": "M", "logprob": -1.0}]
    told = {"content": [{"token": "m", "logprob": -0.5, "top_logprobs": likely}]}
    upstream.always("judge", Reply(text="m", logprobs=told))
    run = "runs/mine-lab"
    ran = moa.run(
        *("bench", "judge", run, "--judge", "lab:judge", "-y", "--data", "data"),
        *("--against", "single:lab:a"),
    )
    assert ran.code == 0, ran.err
    ran = moa.run("bench", "report", run, "-o", "report.html")
    assert ran.code == 0, ran.err
    page = (moa.folder / "report.html").read_text("utf-8")
    assert Page(closed(page)).text.count("mixture") >= 3
    assert "win rate (%)" in page
    assert "by lab:judge, 20" in page
    # Items' texts and models' words are not on it.
    assert "what you know of thing" not in page
    assert "and no more than that" not in page


def test_of_several_judges_one_is_named(moa: Moa, judged: Path) -> None:
    write_judgements(judged, {"mixture": [1.0, 1.0, 1.0, 2.0]}, "lab:other")
    ran = moa.run("bench", "report", str(judged))
    assert ran.code == 1
    assert "has several judges: lab:judge, lab:other" in ran.err
    assert "--judge names one" in ran.err
    ran = moa.run("bench", "report", str(judged), "--judge", "lab:other")
    assert ran.code == 0, ran.err
    assert "by lab:other, 2026-03-01" in ran.text
    ran = moa.run("bench", "report", str(judged), "--judge", "lab:nobody")
    assert ran.code == 1
    assert "no judgements by lab:nobody" in ran.err


def test_several_runs_in_one_report(moa: Moa, judged: Path, graded: Path) -> None:
    other = write_run(
        moa.folder / "runs" / "other",
        moa.folder / "data" / "gsm8k" / "test.jsonl",
        {"mixture": []},
    )
    folders = map(str, (graded, judged, other))
    ran = moa.run("bench", "report", *folders, "--format", "json")
    assert ran.code == 0, ran.err
    table = json.loads(ran.out)
    assert [run["run"] for run in table["runs"]] == ["graded", "judged", "other"]
    assert [run["judge"] and run["judge"]["model"] for run in table["runs"]] == [
        *(None, "lab:judge", None)
    ]
    (accuracy,) = (
        metric for metric in table["runs"][0]["arms"][0]["metrics"] if metric["name"] == "accuracy"
    )
    assert accuracy["value"] == pytest.approx(700 / 9)
    assert (accuracy["n"], accuracy["asked"], accuracy["partial"]) == (9, 10, True)


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("r.html", "<!doctype html>"),
        ("r.md", "# Evaluation"),
        ("r.json", "{"),
        ("r.csv", "run,arm,metric,"),
        ("r.txt", "mt\n"),
    ],
)
def test_the_files_ending_tells_the_format(moa: Moa, judged: Path, name: str, begins: str) -> None:
    ran = moa.run("bench", "report", str(judged), "-o", name)
    assert ran.code == 0, ran.err
    assert ran.out == b""
    assert f"wrote {name}" in ran.err
    assert (moa.folder / name).read_text("utf-8").startswith(begins)
    piped = moa.run("bench", "report", str(judged), "--format", "csv", "-o", name)
    assert piped.code == 0
    assert (moa.folder / name).read_text("utf-8").startswith("run,arm,metric,")


def test_what_cannot_be_reported_is_one_line(moa: Moa, judged: Path) -> None:
    ran = moa.run("bench", "report", "nowhere")
    assert ran.code == 1
    assert "nowhere: is not the folder of a run" in ran.err
    ran = moa.run("bench", "report", str(judged), "--format", "pdf")
    assert ran.code == 2
    assert "there is no `pdf`" in ran.err
    ran = moa.run("bench", "report", str(judged), "-o", "r.pdf")
    assert ran.code == 2
    assert "r.pdf: text cannot be written as .pdf" in ran.err
    ran = moa.run("bench", "report", str(judged), "-o", "missing/r.html")
    assert ran.code == 1
    assert "cannot be written" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_a_terminal_of_any_width_shows_every_number(moa: Moa, graded: Path, columns: int) -> None:
    # More rows than are written, so that nothing scrolls out of sight.
    with moa.terminal("bench", "report", str(graded), columns=columns, rows=200) as terminal:
        assert terminal.wait() == 0
        shown = terminal.shown()
    text = " ".join(" ".join(shown).split())
    for number in ("77.8 ± 13.9*", "55.6 ± 16.6*", "50.0 ± 0.0*", "100.0 ± 0.0*", "$0.0030 ± $0"):
        assert number in text
    for head in ("accuracy", "accuracy, layer 1, mean", "s/item, sum", "tokens in"):
        assert head in text
    heads = [line for line in shown if line.startswith("arm ")]
    # Those of scores, of cost and time, and of what a score takes.
    assert (len(heads) == 3) == (columns == 120)
    # Nothing is cut, but for names.
    assert not any(line.endswith("…") for line in shown)
    assert "Mixtral" in text


def test_an_unbound_width_in_a_pipe(moa: Moa, graded: Path) -> None:
    ran = moa.run("bench", "report", str(graded))
    assert LONG in ran.text
    assert sum(line.startswith("arm ") for line in ran.text.splitlines()) == 3
