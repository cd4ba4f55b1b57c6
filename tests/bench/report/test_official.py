"""`moa bench report --official`: alpaca_eval's own figures, where it is installed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from moa_cli.core.installation import install_command
from tests.support.bench.own_runs import write_lines
from tests.support.bench.scores import JUDGE
from tests.support.bench.tables import csv_rows
from tests.support.command import Moa

RELEASED = ("claude-2", "gpt-3.5-turbo-1106", "vicuna-13b-v1.5")
REFERENCE = "gpt4_1106_preview"


@pytest.fixture
def judged(moa: Moa, data: Path) -> Path:
    """Released answers and judgements of 50 instructions, as a judged run."""
    slice50 = data / "alpaca_eval" / "slice50"
    places = json.loads((slice50 / "indices.json").read_bytes())
    own = moa.folder / "data" / "alpaca_eval"
    own.mkdir(parents=True)
    shutil.copy(data / "alpaca_eval" / "reconstructed" / "df_gamed.csv", own / "df_gamed.csv")
    file = own / "instructions.json"
    annotations = {
        name: json.loads((slice50 / "annotations" / f"{name}.json").read_bytes())
        for name in RELEASED
    }
    rows = annotations[RELEASED[0]]
    items = [
        {"index": place, "instruction": row["instruction"], "dataset": row["dataset"]}
        for place, row in zip(places, rows, strict=True)
    ]
    file.write_text(json.dumps(items), "utf-8")
    run = moa.folder / "runs" / "released"
    _write_run(run, file, annotations, [str(place) for place in places])
    return run


def _write_run(
    run: Path, file: Path, annotations: dict[str, list[dict[str, str]]], ids: list[str]
) -> None:
    dataset = {
        **{"name": "alpaca", "known": True, "file": file.name, "items": len(ids)},
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
    settings = {"dataset": dataset, "limit": None, "arms": list(annotations), "source": str(file)}
    folder = run / "judges" / "lab-judge"
    folder.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps(settings), "utf-8")
    told = {"model": JUDGE.model, "date": JUDGE.date, "discrete": False, "kind": "pairwise"}
    reference = {"reference": {"name": REFERENCE}, "against": None}
    (folder / "judge.json").write_text(json.dumps({**told, **reference}), "utf-8")
    paired = [
        (name, item, row)
        for name, rows in annotations.items()
        for item, row in zip(ids, rows, strict=True)
    ]
    write_lines(
        run / "items.jsonl",
        [{"arm": name, "item": item, "replies": [row["output_2"]]} for name, item, row in paired],
    )
    write_lines(
        folder / "outputs.jsonl",
        [
            {"arm": "reference", "item": item, "replies": [row["output_1"]]}
            for name, item, row in paired
            if name == RELEASED[0]
        ],
    )
    write_lines(
        folder / "judgements.jsonl",
        [
            {"arm": name, "item": item, "value": row["preference"], "key": "k"}
            for name, item, row in paired
        ],
    )


def test_without_alpaca_eval_one_line_names_the_extra(moa: Moa, judged: Path) -> None:
    # A folder of that name is no package.
    (moa.folder / "alpaca_eval").mkdir()
    ran = moa.run("bench", "report", str(judged), "--official")
    assert ran.code == 1
    assert "--official needs alpaca_eval" in ran.err
    assert install_command("alpaca") in ran.err
    assert "Traceback" not in ran.err


def test_the_own_fit_is_called_so(moa: Moa, judged: Path) -> None:
    ran = moa.run("bench", "report", str(judged))
    assert ran.code == 0, ran.err
    assert "LC win rate (own fit) (%)" in ran.text
    assert "LC win rate (alpaca_eval)" not in ran.text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_figures_are_those_of_alpaca_eval(
    moa: Moa, judged: Path, data: Path, alpaca_eval: Path
) -> None:
    command = [str(alpaca_eval / "moa"), "bench", "report", str(judged), "--official"]
    environment = {k: v for k, v in moa.environment.items() if k != "PYTHONPATH"}
    ran = subprocess.run(
        [*command, "--format", "json"],
        cwd=moa.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    (run,) = json.loads(ran.stdout)["runs"]
    expected = {
        row["model"]: float(row["length_controlled_winrate"])
        for row in csv_rows(data / "alpaca_eval" / "slice50" / "expected_metrics.csv")
    }
    for arm in run["arms"]:
        found = {metric["name"]: metric for metric in arm["metrics"]}
        official = found["LC win rate (alpaca_eval)"]
        assert official["value"] == pytest.approx(expected[arm["arm"]], abs=0.01)
        assert official["standard_error"] == found["LC win rate (own fit)"]["standard_error"]
        assert official["n"] == 50
    assert any("alpaca_eval 0.6" in note for note in run["notes"])
