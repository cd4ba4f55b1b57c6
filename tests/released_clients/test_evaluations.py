"""Released evaluation harnesses, used to the end through a mixture by the recipes of the how-to:
their scores are those of `moa bench` on the same items and replies."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.released_clients.conftest import Lab
from tests.support.bench.own_runs import write_lines
from tests.support.bench.tables import jsonl_rows
from tests.support.command import Moa
from tests.support.pages import ROOT, blocks
from tests.support.upstream import Reply, Request

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAGE = ROOT / "docs/how-to/evaluate.md"
LM_EVAL = "lm-eval[api]==0.4.13"
INSPECT = ("inspect-ai==0.3.285", "openai==3.57.0")
# What keeps its data sets and metrics from looking at hosts of others.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1"}

Row = dict[str, Any]


@pytest.fixture
def rows() -> list[Row]:
    """Questions of GSM8K, or else some of the same form."""
    if data := os.environ.get("MOA_TEST_DATA"):
        kept = jsonl_rows(Path(data) / "gsm8k/slice50.jsonl")
        return [{"question": row["question"], "answer": row["answer"]} for row in kept]
    return [
        {
            "question": f"Ann has {n} pears and buys twice as many. How many does she have?",
            "answer": f"She buys 2 * {n} = <<2*{n}={2 * n}>>{2 * n}.\n#### {3 * n:,}",
        }
        for n in (1, 2, 3, 5, 7, 400, 1234, 99999)
    ]


def block(language: str, words: str) -> str:
    """The block of the page that holds these words."""
    [found] = [
        block.text for block in blocks(PAGE) if block.language == language and words in block.text
    ]
    return found


def solver(rows: list[Row]) -> Callable[[Request], Reply]:
    """An aggregator that solves a third of the questions wrongly, and which ones it is changes
    each time that it is asked the same."""
    asked: Counter[int] = Counter()

    def solve(request: Request) -> Reply:
        said = str(request.messages[-1]["content"])
        places = {said.rfind(row["question"]): number for number, row in enumerate(rows)}
        number = places[max(places)]
        assert max(places) >= 0, said
        wrong = (number + asked[number]) % 3 == 0
        asked[number] += 1
        return Reply(text=rows[number]["answer"] + ("1" if wrong else ""))

    return solve


@pytest.fixture
def share(moa: Moa, lab: Lab, rows: list[Row]) -> float:
    """How many are right as `moa bench` finds it, 0 to 1. What is asked later begins anew."""
    write_lines(moa.folder / "data/gsm8k/test.jsonl", rows)
    lab.upstream.always("agg", solver(rows))
    run = ("bench", "run", "gsm8k", "--arms", "mixture", "-y", "--data", "data", "-o", "run")
    ran = moa.run(*run)
    assert ran.code == 0, ran.err
    told = moa.run("bench", "report", "run", "--data", "data", "--format", "json")
    [arm] = json.loads(told.text)["runs"][0]["arms"]
    [accuracy] = [metric for metric in arm["metrics"] if metric["name"] == "accuracy"]
    assert accuracy["n"] == len(rows)
    lab.upstream.requests.clear()
    lab.upstream.always("agg", solver(rows))
    return float(accuracy["value"]) / 100


def shell(lab: Lab, command: str, programs: Path) -> str:
    """Run a command of the page against the lab."""
    here = command.replace("http://127.0.0.1:8000/v1", lab.server.url)
    paths = {"PATH": f"{programs}:{os.environ['PATH']}"}
    return lab.run("bash", "-euo", "pipefail", "-c", here, env=OFFLINE | paths)


def lm_eval_scores(lab: Lab) -> dict[str, float]:
    """The scores of the last run of lm-evaluation-harness, by filter."""
    *_, last = sorted((lab.home / "results").rglob("results_*.json"))
    measured = json.loads(last.read_text("utf-8"))["results"]["my_sums"]
    return {
        name.partition(",")[2]: value
        for name, value in measured.items()
        if name.startswith("exact_match,")
    }


def test_lm_evaluation_harness(lab: Lab, rows: list[Row], share: float) -> None:
    programs = lab.python("lm-eval", LM_EVAL)
    given = write_lines(lab.home / "rows.jsonl", rows)
    [gsm8k] = programs.parent.glob("lib/python*/site-packages/lm_eval/tasks/gsm8k/gsm8k.yaml")
    (lab.home / "tasks").mkdir()
    task = block("text", "include:").replace("GSM8K_YAML", str(gsm8k)).replace("ROWS", str(given))
    (lab.home / "tasks/my_sums.yaml").write_text(task, "utf-8")
    mine = "--tasks my_sums --include_path tasks"
    for words, more in (
        ("local-chat-completions", ""),
        ("local-completions", " --output_path results"),
    ):
        lab.upstream.requests.clear()
        lab.upstream.always("agg", solver(rows))
        command = block("sh", f"--model {words}").replace("--tasks gsm8k", mine).rstrip() + more
        shell(lab, command, programs)
        assert lm_eval_scores(lab) == pytest.approx(
            {"strict-match": share, "flexible-extract": share}
        )
        asked = lab.upstream.chats("agg")
        assert len(asked) == len(lab.upstream.chats("a")) == len(rows)
        for request in asked:
            sent = {
                name: request.body[name] for name in ("temperature", "max_tokens", "seed", "stop")
            }
            assert sent == {
                "temperature": 0,
                "max_tokens": 2048,
                "seed": 1234,
                "stop": ["Question:", "</s>", "<|im_end|>"],
            }
        for request in lab.upstream.chats("a"):
            assert request.body["seed"] == 1234
            assert not {"stop", "max_tokens", "temperature"} & request.body.keys()
        # Five examples stand before each question, as messages or in the prompt.
        told = [len(request.messages) for request in lab.upstream.chats("a")]
        assert set(told) == {11 if "chat" in words else 1}
    # The first command again takes all from its cache.
    lab.upstream.requests.clear()
    shell(lab, block("sh", "--use_cache").replace("--tasks gsm8k", mine), programs)
    assert lm_eval_scores(lab)["strict-match"] == pytest.approx(share)
    assert lab.upstream.chats() == []


def inspect_log(lab: Lab, folder: str) -> dict[str, Any]:
    [file] = (lab.home / folder).glob("*.json")
    told: dict[str, Any] = json.loads(file.read_text("utf-8"))
    assert told["status"] == "success", told
    return told


def inspect_score(log: dict[str, Any]) -> float:
    [score] = log["results"]["scores"]
    return float(score["metrics"]["accuracy"]["value"])


def test_inspect_evaluates(lab: Lab, rows: list[Row], share: float) -> None:
    programs = lab.python("inspect", *INSPECT)
    write_lines(lab.home / "rows.jsonl", rows)
    (lab.home / "sums.py").write_text(block("python", "json_dataset"), "utf-8")
    command = block("sh", "inspect eval").rstrip() + " --display none --log-format json --log-dir "
    # Each third of the answers is wrong in one of the three epochs.
    shell(lab, command + "epochs", programs)
    log = inspect_log(lab, "epochs")
    assert len(log["samples"]) == 3 * len(rows)
    assert inspect_score(log) == pytest.approx(2 / 3)
    assert len(lab.upstream.chats("a")) == len(lab.upstream.chats("agg")) == 3 * len(rows)
    for request in lab.upstream.chats("agg"):
        assert (request.body["temperature"], request.body["max_tokens"]) == (0.7, 4096)
    # One epoch is what `moa bench` has, by the other provider and with all that it may send.
    lab.upstream.requests.clear()
    lab.upstream.always("agg", solver(rows))
    other = (
        command.replace("--epochs 3", "--num-choices 1 --logprobs true --top-logprobs 2 --seed 7")
        .replace("openai-api/moa/moa", "openai/moa --stop-seqs 'Question:,A:'")
        .replace("--max-connections", '--extra-body \'{"moa": {"rounds": 2}}\' --max-connections')
    )
    shell(lab, other + "other", programs)
    assert inspect_score(inspect_log(lab, "other")) == pytest.approx(share)
    assert len(lab.upstream.chats("a")) == 2 * len(rows)
    for request in lab.upstream.chats("agg"):
        assert (request.body["seed"], request.body["stop"]) == (7, ["Question:", "A:"])
        assert (request.body["logprobs"], request.body["top_logprobs"]) == (True, 2)


def test_epochs_of_an_agent_are_independent_where_each_request_asks_anew(lab: Lab) -> None:
    fan_out = json.dumps({"moa": {"fan_out": "request"}})
    assert fan_out in PAGE.read_text("utf-8")
    told = lab.program(lab.python("inspect", *INSPECT), "inspect_epochs", EXTRA=fan_out)
    assert told == {"status": "success", "epochs": 3}
    # Two steps of each.
    assert len(lab.upstream.chats("a")) == 6
