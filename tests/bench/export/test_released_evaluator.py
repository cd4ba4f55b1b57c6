"""The released `alpaca_eval` reads what was exported, and judges it as we would."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from moa_cli.bench.scoring.alpaca import OutputPair, judge_call, preference_from_logprobs, win_rate
from tests.support.command import Moa
from tests.support.upstream import Reply, Upstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Some that a careless reader or template would trip over.
OUTPUTS = {
    "What is 6 by 7?": "42",
    "Is the sky blue?": "null",
    "Which date is it?": "2024-05-01",
    "Write a template.": "Dear {name},\n\n\tyours {output_1} \\n \"quoted\" 'too'",
    "Say it in Greek.": "Γειά σου — 🌍 é\u2028end",
    "Write some markup.": "<b>bold</b> <|im_end|> &amp;",
    "Which is better, m or M?": "M",
    "Repeat the reference.": "the reference's answer",
}
PROBABILITIES = {"m": 0.8, "M": 0.1}


def answer_of_judge() -> dict[str, Any]:
    """What a judge with log-probabilities answers."""
    tokens = [
        {"token": token, "logprob": math.log(share), "bytes": list(token.encode())}
        for token, share in PROBABILITIES.items()
    ]
    first = {**tokens[0], "top_logprobs": tokens}
    choice = {
        "index": 0,
        "finish_reason": "length",
        "message": {"role": "assistant", "content": "m"},
        "logprobs": {"content": [first]},
    }
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    return {
        "id": "judgement",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4-1106-preview",
        "choices": [choice],
        "usage": usage,
    }


def run_of(moa: Moa, upstream: Upstream) -> Path:
    """The outputs as a run's replies, exported."""
    folder = moa.folder / "data" / "alpaca_eval"
    folder.mkdir(parents=True)
    items = [{"dataset": "ours", "instruction": output} for output in OUTPUTS]
    (folder / "instructions.json").write_text(json.dumps(items))
    upstream.always(
        "agg", Reply(text=lambda request: OUTPUTS[str(request.messages[-1]["content"])])
    )
    ran = moa.run("bench", "run", "alpaca", "--data", "data", "--rounds", "0", "-y")
    assert ran.code == 0, ran.err
    ran = moa.run("bench", "export", "runs/alpaca-lab", "--to", "alpaca", "--name", "our-mixture")
    assert ran.code == 0, ran.err
    return moa.folder / "model_outputs.json"


def evaluate(alpaca_eval: Path, folder: Path, url: str, outputs: Path, reference: Path) -> str:
    """Run the evaluator with its default judge, served at `url`; what it prints."""
    clients = folder / "clients.yaml"
    clients.write_text(json.dumps({"default": [{"api_key": "any", "base_url": url}]}))
    arguments = {
        "model_outputs": outputs,
        "reference_outputs": reference,
        "caching_path": folder / "cache.json",
        "output_path": folder / "out",
        # Without these it would fetch figures of other models, or write into its own folder.
        "precomputed_leaderboard": None,
        "fn_metric": "get_winrate",
        "sort_by": "win_rate",
    }
    ran = subprocess.run(
        [
            str(alpaca_eval / "alpaca_eval"),
            *(f"--{name}={value}" for name, value in arguments.items()),
        ],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "HF_HUB_OFFLINE": "1",
            "OPENAI_CLIENT_CONFIG_PATH": str(clients),
        },
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


def test_alpaca_eval_takes_the_export_and_asks_what_we_would(
    alpaca_eval: Path, moa: Moa, upstream: Upstream
) -> None:
    outputs = run_of(moa, upstream)
    reference = moa.folder / "reference.json"
    rows = [
        {"instruction": output, "output": "the reference's answer", "generator": "ref"}
        for output in OUTPUTS
    ]
    reference.write_text(json.dumps(rows))
    upstream.always("gpt-4-1106-preview", Reply(error=answer_of_judge()))
    told = evaluate(alpaca_eval, moa.folder, upstream.url, outputs, reference)

    template = next(alpaca_eval.parent.rglob("alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt"))
    comparisons = [
        OutputPair(output, "the reference's answer", OUTPUTS[output]) for output in OUTPUTS
    ]
    asked = [comparison for comparison in comparisons if not comparison.draw]
    sent = [request.messages for request in upstream.chats("gpt-4-1106-preview")]
    assert len(sent) == len(asked)
    for pair in asked:
        # There upstream lets the output end the message, on purpose we do not.
        if "<|im_end|>" not in pair.output:
            messages = judge_call(template.read_text("utf-8"), pair).messages
            assert [{"role": m.role, "content": m.content} for m in messages] in sent

    (annotations,) = moa.folder.glob("out/**/annotations.json")
    made = {row["instruction"]: row for row in json.loads(annotations.read_bytes())}
    logprobs = answer_of_judge()["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    preferences = [
        1.5 if comparison.draw else preference_from_logprobs(logprobs, switched=comparison.switched)
        for comparison in comparisons
    ]
    assert [made[output]["output_2"] for output in OUTPUTS] == list(OUTPUTS.values())
    assert {row["generator_2"] for row in made.values()} == {"our-mixture"}
    assert [made[output]["preference"] for output in OUTPUTS] == pytest.approx(preferences)
    rate = win_rate(preferences).win_rate.value
    assert rate is not None
    (line,) = (line.split() for line in told.splitlines() if line.startswith("our-mixture"))
    assert line[1] == f"{rate:.2f}"
