"""A judge is asked once for each verdict, tells how exact it is, and goes on where it stopped."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from moa_cli.bench.report.scores import scores_of
from tests.support.bench.judge import JUDGE, TEMPLATE, first_better
from tests.support.bench.own_runs import answered_twice, call_lines, write_lines, write_prompts
from tests.support.bench.tables import jsonl_rows
from tests.support.command import PATIENCE, Moa, Ran
from tests.support.upstream import Reply, Request, Upstream

SILENT = Reply(stall_after=0)


@pytest.fixture
def judged(moa: Moa, upstream: Upstream) -> Moa:
    """Data with a judge's prompt, a run of three prompts by two models, and their references."""
    folder = moa.folder / "data" / "alpaca_eval"
    folder.mkdir(parents=True)
    (folder / "judge_prompt_alpaca_eval_clf.txt").write_text(TEMPLATE, "utf-8")
    moa.environment["MOA_BENCH_DATA"] = str(folder.parent)
    moa.profile("two", "a", aggregator="b")
    name = write_prompts(moa, 3)
    outputs(moa, "reference.json", "what the reference says of {}")
    assert moa.run("bench", "run", name, "-p", "two", "-y", "--arms", "mixture,single").code == 0
    upstream.requests.clear()
    upstream.always("judge", JUDGE)
    return moa


def outputs(moa: Moa, name: str, says: str) -> Path:
    """A file of model outputs to the run's prompts."""
    prompts = [row["prompt"] for row in jsonl_rows(moa.folder / "mine.jsonl")]
    rows = [
        {
            "instruction": prompt,
            "output": says.format(prompt),
            "generator": f"by {name}",
            "dataset": "x",
        }
        for prompt in prompts
    ]
    path = moa.folder / name
    path.write_text(json.dumps(rows), "utf-8")
    return path


START = ("bench", "judge", "runs/mine-two", "--judge", "lab:judge", "-y")
BY_REFERENCE = (*START, "--reference", "reference.json")


def folder_of(moa: Moa) -> Path:
    return moa.folder / "runs/mine-two/judges/lab-judge"


def verdicts(moa: Moa) -> list[dict[str, Any]]:
    return jsonl_rows(folder_of(moa) / "judgements.jsonl")


def settings(moa: Moa) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder_of(moa) / "judge.json").read_bytes())
    return found


def row_of(ran: Ran, arm: str) -> str:
    [line] = [line for line in ran.text.splitlines() if line.startswith(f"{arm} ")]
    return line


def test_pairs_by_log_probabilities(judged: Moa, upstream: Upstream) -> None:
    ran = judged.run(*BY_REFERENCE)
    assert ran.code == 0, ran.err
    assert "lab:judge judges mixture, single:lab:a, single:lab:b: pairs, by log-prob" in ran.err
    assert "9 calls;" in ran.err
    assert (
        ran.err.splitlines()[-1] == "moa: `moa bench report runs/mine-two` prints the full report"
    )
    assert len(upstream.chats("judge")) == 9
    told = verdicts(judged)
    arms = ("mixture", "single:lab:a", "single:lab:b")
    names = [(event["item"], event["arm"]) for event in told]
    assert names == [(item, arm) for item in "123" for arm in arms]
    values = {(event["switched"], round(event["value"], 6)) for event in told}
    assert values <= {(True, 1.8), (False, 1.2)}
    # Who was asked, and when, stands beside the figures.
    assert re.search(r"^judged by lab:judge, \d{4}-\d\d-\d\d$", ran.text, re.MULTILINE)
    assert re.search(r"mixture +\d\d\.00 ± \d+\.\d\d \(n 3\)", row_of(ran, "mixture"))
    [body, *_] = [request.body for request in upstream.chats("judge")]
    assert (body["temperature"], body["max_tokens"], body["top_p"]) == (1, 1, 1)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    mode = {path.name for path in folder_of(judged).iterdir()}
    assert mode == {"judge.json", "calls.jsonl", "judgements.jsonl", "outputs.jsonl"}


def test_the_same_command_asks_nothing_twice(judged: Moa, upstream: Upstream) -> None:
    first = judged.run(*BY_REFERENCE)
    before = {path.name: path.read_bytes() for path in folder_of(judged).iterdir()}
    again = judged.run(*BY_REFERENCE)
    assert (again.code, again.text) == (0, first.text)
    assert len(upstream.chats()) == 9
    assert {path.name: path.read_bytes() for path in folder_of(judged).iterdir()} == before
    # The calls suffice, without the verdicts.
    (folder_of(judged) / "judgements.jsonl").unlink()
    assert judged.run(*BY_REFERENCE).text == first.text
    assert len(upstream.chats()) == 9
    assert {path.name: path.read_bytes() for path in folder_of(judged).iterdir()} == before


def test_judges_whose_names_differ_in_signs_only_have_folders_of_their_own(
    judged: Moa, upstream: Upstream
) -> None:
    judges = ["lab:x/y", "lab:x:y", "lab:x-y", "lab:模型", "lab:もの", f"lab:{'x' * 300}"]
    start = [word for word in BY_REFERENCE if word not in ("--judge", "lab:judge")]
    for judge in judges:
        upstream.always(judge.removeprefix("lab:"), JUDGE)
    for _ in range(2):
        for judge in judges:
            ran = judged.run(*start, "--judge", judge)
            assert ran.code == 0, ran.err
    folders = list((judged.folder / "runs/mine-two/judges").iterdir())
    known = [json.loads((folder / "judge.json").read_bytes())["model"] for folder in folders]
    assert sorted(known) == sorted(judges)
    # The second time there was nothing left to ask.
    assert len(upstream.chats()) == 9 * len(judges)
    for judge in judges:
        assert judged.run("bench", "report", "runs/mine-two", "--judge", judge).code == 0


def test_a_killed_judge_goes_on(judged: Moa, upstream: Upstream) -> None:
    upstream.enqueue("judge", *[JUDGE] * 4)
    upstream.always("judge", SILENT)
    with judged.start(*BY_REFERENCE, "--concurrency", "2") as process:
        upstream.wait_for(lambda: len(call_lines(folder_of(judged))) == 4)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
    upstream.always("judge", JUDGE)
    assert judged.run(*BY_REFERENCE).code == 0
    assert answered_twice(upstream) == []
    interrupted = (folder_of(judged) / "judgements.jsonl").read_bytes()
    shutil.rmtree(folder_of(judged))
    assert judged.run(*BY_REFERENCE).code == 0
    assert (folder_of(judged) / "judgements.jsonl").read_bytes() == interrupted


@pytest.mark.parametrize(
    "refusal",
    [
        Reply(text="m"),
        Reply(status=400, error={"error": {"message": "logprobs: unknown argument"}}),
    ],
    ids=["none come", "refused"],
)
def test_a_judge_without_log_probabilities_is_discrete(
    judged: Moa, upstream: Upstream, refusal: Reply
) -> None:
    upstream.enqueue("judge", refusal, refusal)
    upstream.always("judge", Reply(text="I take **M**."))
    ran = judged.run(*BY_REFERENCE)
    assert ran.code == 0, ran.err
    assert (
        "moa: lab:judge returns no log-probabilities: its verdicts are read from its text"
        in ran.err
    )
    assert "discrete: lab:judge told no log-probabilities" in ran.text
    assert settings(judged)["discrete"] is True
    assert {(verdict["value"], verdict["switched"]) for verdict in verdicts(judged)} <= {
        (1, True),
        (2, False),
    }
    assert all(verdict["discrete"] for verdict in verdicts(judged))
    first, second, *rest = [request.body for request in upstream.chats("judge")]
    assert (first["logprobs"], first["top_logprobs"]) == (True, 5)
    assert (second["logprobs"], "top_logprobs" in second) == (5, False)
    assert len(rest) == 9
    assert {(body.get("logprobs"), body["temperature"]) for body in rest} == {(None, 0)}
    again = judged.run(*BY_REFERENCE)
    assert (again.code, again.text) == (0, ran.text)
    assert "by its text (discrete)" in again.err
    assert len(upstream.chats()) == 11


def test_log_probabilities_as_together_tells_them(judged: Moa, upstream: Upstream) -> None:
    told = {"tokens": ["m"], "token_logprobs": [-0.5], "top_logprobs": [{"m": -0.5, "M": -0.5}]}
    upstream.enqueue("judge", Reply(text="m"))
    upstream.always("judge", Reply(text="m", logprobs=told))
    ran = judged.run(*BY_REFERENCE)
    assert ran.code == 0, ran.err
    assert {verdict["value"] for verdict in verdicts(judged)} == {1.5}
    assert settings(judged)["discrete"] is False
    assert [request.body["logprobs"] for request in upstream.chats("judge")] == [True, *[5] * 9]


def test_a_judge_that_cannot_be_asked(judged: Moa, upstream: Upstream) -> None:
    missing = {"message": "no such model", "code": "model_not_found"}
    upstream.always("judge", Reply(status=404, error={"error": missing}))
    ran = judged.run(*BY_REFERENCE)
    assert ran.code != 0
    assert len(upstream.chats()) == 1
    assert "Traceback" not in ran.err


def test_failed_judgements_are_tried_again_then_recorded(judged: Moa, upstream: Upstream) -> None:
    busy = Reply(status=500, error={"error": {"message": "out of order"}})
    # The first shows that log-probabilities come; the fourth fails, at the end once more.
    upstream.enqueue("judge", *[JUDGE] * 3, busy, *[JUDGE] * 5, busy)
    ran = judged.run(*BY_REFERENCE, "--concurrency", "1")
    assert ran.code == 1
    assert "moa: failed judgements: 1; the same command tries them again" in ran.err
    assert "(2 of 3, partial)" in row_of(ran, "mixture")
    assert "partial: win rate 2 of 3" in ran.text
    [failed] = [verdict for verdict in verdicts(judged) if verdict["error"]]
    assert (failed["error"]["kind"], failed["value"]) == ("ServerFailed", None)
    assert len(upstream.chats()) == 10
    assert judged.run(*BY_REFERENCE).code == 0
    assert len(upstream.chats()) == 11
    assert not [verdict for verdict in verdicts(judged) if verdict["error"]]


def test_equal_outputs_are_a_draw_without_a_call(judged: Moa, upstream: Upstream) -> None:
    replies = jsonl_rows(judged.folder / "runs/mine-two/items.jsonl")
    same = {
        reply["item"]: reply["replies"][0] for reply in replies if reply["arm"] == "single:lab:a"
    }
    prompts = jsonl_rows(judged.folder / "mine.jsonl")
    rows = [
        {"instruction": prompt["prompt"], "output": same[str(number)], "generator": "same"}
        for number, prompt in enumerate(prompts, 1)
    ]
    (judged.folder / "same.json").write_text(json.dumps(rows), "utf-8")
    ran = judged.run(*START, "--reference", "same.json")
    assert ran.code == 0, ran.err
    assert len(upstream.chats("judge")) == 6
    draws = [verdict for verdict in verdicts(judged) if verdict["arm"] == "single:lab:a"]
    assert [(search["value"], search["key"]) for search in draws] == [(1.5, "")] * 3
    assert "50.00 ± 0.00 (n 3)" in row_of(ran, "single:lab:a")
    assert [verdict["item"] for verdict in verdicts(judged)] == ["1"] * 3 + ["2"] * 3 + ["3"] * 3


def test_one_arm_against_another(judged: Moa, upstream: Upstream) -> None:
    ran = judged.run(*START, "--against", "single:lab:b")
    assert ran.code == 0, ran.err
    assert "against single:lab:b" in ran.err
    assert {verdict["arm"] for verdict in verdicts(judged)} == {"mixture", "single:lab:a"}
    assert len(upstream.chats("judge")) == 6
    assert "–" in row_of(ran, "single:lab:b")
    # Judgements against something else are not mixed with these.
    refused = judged.run(*BY_REFERENCE)
    assert (refused.code, refused.out) == (1, b"")
    assert "`against` was " in refused.err or "`reference" in refused.err
    assert "to judge anew" in refused.err
    assert len(upstream.chats("judge")) == 6
    unknown = judged.run(*START, "--against", "self")
    assert unknown.code == 2
    assert "there is no arm `self`" in unknown.err


def test_anchors_are_judged_too_and_stay(judged: Moa, upstream: Upstream) -> None:
    assert judged.run(*BY_REFERENCE).code == 0
    outputs(judged, "old.json", "an old model on {}")
    ran = judged.run(*BY_REFERENCE, "--anchors", "old.json")
    assert ran.code == 0, ran.err
    assert "3 calls;" in ran.err
    assert len(upstream.chats("judge")) == 12
    assert "(n 3)" in row_of(ran, "anchor:byold.json")
    # Without the option they are still there, and asked for no more.
    again = judged.run(*BY_REFERENCE)
    assert (again.text, len(upstream.chats("judge"))) == (ran.text, 12)
    scores = scores_of(judged.folder / "runs/mine-two", "lab:judge")
    assert [anchor.arm for anchor in scores.anchors] == ["anchor:byold.json"]
    assert scores.anchors[0].answered == 3
    outputs(judged, "old.json", "another one on {}")
    ran = judged.run(*BY_REFERENCE, "--anchors", "old.json")
    assert ran.code == 1
    assert "other answers of byold.json were judged before" in ran.err


def test_a_cap_ends_it_and_a_higher_one_goes_on(judged: Moa, upstream: Upstream) -> None:
    # A call of 30 tokens in and 1 out costs $0.032; its prompt is taken for more before.
    price = {"prompt": 1000.0, "completion": 2000.0}
    judged.configure(providers=judged.settings()["providers"], prices={"lab:judge": price})
    upstream.always("judge", Reply(text="m", logprobs=first_better, usage=(30, 1)))
    ran = judged.run(*BY_REFERENCE, "--max-cost", "0.2", "--concurrency", "1")
    assert ran.code == 3
    assert "--max-cost $0.20 would be exceeded" in ran.err.splitlines()[-1]
    assert "partial" in ran.text
    made = len(upstream.chats())
    assert 0 < made < 9
    assert sum(row["usage"]["cost"] for row in call_lines(folder_of(judged))) <= 0.2
    assert judged.run(*BY_REFERENCE, "--max-cost", "5").code == 0
    assert len(upstream.chats()) == 9


def test_it_asks_first(judged: Moa, upstream: Upstream) -> None:
    ran = judged.run(*BY_REFERENCE[:5], "--reference", "reference.json")
    assert ran.code == 2
    assert "cannot confirm: standard input is not a terminal; pass --yes" in ran.err
    assert upstream.chats() == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (START, "there is nothing to compare with"),
        ((*START, "--reference", "gone.json"), "gone.json: cannot be read: "),
        ((*START[:2], "mine.jsonl", *START[3:]), "mine.jsonl: is not the folder of a run"),
        ((*BY_REFERENCE, "--data", "nowhere"), "alpaca_eval_clf.txt"),
    ],
    ids=["nothing", "no file", "no run", "no prompt"],
)
def test_what_is_refused(
    judged: Moa, upstream: Upstream, arguments: tuple[str, ...], told: str
) -> None:
    ran = judged.run(*arguments)
    assert ran.code in (1, 2)
    assert (ran.out, ran.err.count("\n")) == (b"", 1)
    assert told in ran.err
    assert upstream.chats() == []


def test_known_answers_need_no_judge(moa: Moa, upstream: Upstream) -> None:
    rows = [
        {"index": n, "question": f"what is {n} and 1?", "answer": f"so\n#### {n + 1}"}
        for n in range(4)
    ]
    write_lines(moa.folder / "data/gsm8k/test.jsonl", rows)
    moa.environment["MOA_BENCH_DATA"] = str(moa.folder / "data")

    def right(request: Request) -> str:
        number = re.findall(r"what is (\d)", str(request.messages[-1]["content"]))
        return f"#### {int(number[0]) + 1}"

    # One proposer knows all, one nothing, one half; the aggregator goes wrong once.
    upstream.always("a", Reply(text=right))
    upstream.always("b", Reply(text="#### 99"))
    upstream.always(
        "c", Reply(text=lambda request: right(request).replace("3", "7").replace("4", "7"))
    )
    upstream.always("agg", Reply(text=lambda request: right(request).replace("1", "7")))
    assert moa.run("bench", "run", "gsm8k", "-y").code == 0
    asked = len(upstream.chats())
    ran = moa.run("bench", "judge", "runs/gsm8k-lab", "--judge", "lab:judge", "-y")
    assert ran.code == 2
    assert "gsm8k needs no judge: its correct answers are known" in ran.err
    assert "`moa bench report runs/gsm8k-lab` computes accuracy" in ran.err
    assert len(upstream.chats()) == asked

    scores = scores_of(moa.folder / "runs/gsm8k-lab", None)
    [arm] = scores.arms
    told = {metric.name: (metric.mean.value, metric.mean.n, metric.asked) for metric in arm.metrics}
    assert told == {
        "accuracy": (75, 4, 4),
        "accuracy, layer 1, mean": (50, 4, 4),
        "accuracy, layer 1, best of": (100, 4, 4),
    }
    assert scores.judge is None
    assert (scores.asked, scores.whole, arm.answered) == (4, 4, 4)
    assert arm.seconds_path.value is not None
    assert arm.seconds_sum.value is not None
    assert arm.seconds_path.value <= arm.seconds_sum.value


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_embedded_model_runs_and_judges(judged: Moa) -> None:
    def moa(*arguments: str, codes: tuple[int, ...] = (0,)) -> Ran:
        with judged.start("bench", *arguments) as process:
            out, err = process.communicate(timeout=300)
        ran = Ran(process.returncode, out, err.decode())
        assert ran.code in codes, ran.err
        return ran

    moa("run", "mine.jsonl", "-p", "local", "-n", "2", "--max-tokens", "16", "-y")
    judge = ("--judge", "local:smollm2", "--reference", "reference.json", "-y")
    # So small a model may give an empty judgement, which has failed.
    ran = moa("judge", "runs/mine-local", *judge, codes=(0, 1))
    assert row_of(ran, "mixture")
    assert "judged by local:smollm2" in ran.text
    assert "tiny demonstration model" in ran.text
    moa("report", "runs/mine-local", "-o", "report.html")
    page = (judged.folder / "report.html").read_text("utf-8")
    # Its tokens may tell no preference at all, so there may be no chart.
    assert "local:smollm2" in page
    assert "tiny demonstration model" in page
