"""Folders of runs written by hand, in the format that `moa bench run` writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moa_cli.bench.data.json_lines import plain, to_line
from moa_cli.bench.run.folder import JUDGE_FILE, OUTPUTS, judge_folder
from moa_cli.bench.run.journal import CallAnswer, CallRecord, Judgement, Result, TurnResult
from moa_cli.core.conversation import Failure, Usage
from tests.support.bench.own_runs import write_lines

__all__ = ["answer", "failed", "mixed", "single", "write_judge", "write_run"]


def answer(model: str, text: str, key: str = "", **usage: Any) -> CallAnswer:
    """One call's answer; the model is the upstream's. usage: fields of Usage."""
    name = model if ":" in model else f"lab:{model}"
    return CallAnswer(name, text, key, usage=Usage(**usage))


def mixed(
    arm: str, item: str, layers: Sequence[Sequence[CallAnswer]], *replies: CallAnswer
) -> Result:
    """What an arm with proposals made of an item: all turns with the same proposals."""
    proposals = tuple(map(tuple, layers))
    turns = tuple(TurnResult(proposals, reply) for reply in replies)
    usage = sum((each_answer.usage for turn in turns for each_answer in turn.answers()), Usage())
    return Result(arm, item, None, tuple(reply.text for reply in replies), turns, usage)


def single(item: str, *replies: CallAnswer) -> Result:
    """What a model alone said."""
    return mixed(f"single:{replies[0].model}", item, (), *replies)


def failed(arm: str, item: str) -> Result:
    """An item without an answer."""
    return Result(arm, item, error=Failure("ServerFailed", "out of order"))


def write_run(
    folder: Path,
    items: Sequence[Mapping[str, Any]],
    results: Sequence[Result],
    *,
    seconds: Mapping[str, float] | None = None,
    profile: Mapping[str, Any] | None = None,
) -> Path:
    """A run over a user's own items ({id, prompt, answer?}). seconds: of calls, by key."""
    source = write_lines(folder.parent / f"{folder.name}-items.jsonl", items)
    settings = {
        "source": str(source),
        "dataset": {
            "name": "mine",
            "known": False,
            "file": source.name,
            "items": len(items),
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        },
        "limit": None,
        "parity": False,
        "arms": list(dict.fromkeys(result.arm for result in results)),
        "profile": dict(profile or {}),
    }
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(settings), "utf-8")
    (folder / "items.jsonl").write_text(
        "".join(to_line(result) + "\n" for result in results), "utf-8"
    )
    calls = [
        CallRecord(key, "1", 0, "lab:a", text="x", seconds=took)
        for key, took in (seconds or {}).items()
    ]
    write_lines(folder / "calls.jsonl", [plain(call) for call in calls])
    return folder


def write_judge(
    run: Path,
    values: Iterable[tuple[str, str, float | None]],
    kind: str = "rating",
    *,
    outputs: Sequence[Result] = (),
) -> str:
    """The verdicts of a judge, each an arm, an item and a value; the judge's name.

    outputs: released answers that it judged, too.
    """
    name = "lab:judge"
    folder = judge_folder(run, name)
    folder.mkdir(parents=True)
    told = {"model": name, "date": "2026-03-01", "discrete": False, "kind": kind}
    (folder / JUDGE_FILE).write_text(json.dumps(told), "utf-8")
    plain_one = Judgement("", "", key="k")
    (folder / OUTPUTS).write_text("".join(to_line(output) + "\n" for output in outputs), "utf-8")
    lines = [
        to_line(replace(plain_one, arm=arm, item=item, value=value)) for arm, item, value in values
    ]
    (folder / "judgements.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return name
