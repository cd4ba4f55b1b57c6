"""The page of benchmarks is made of what they found, and the parts run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import PAGE, PARTS, RESULTS, page
from tests.support.tmux import needs_tmux

_ROOT = Path(__file__).parents[1]


def test_the_page_is_made_of_the_results() -> None:
    assert PAGE.read_text("utf-8") == page()
    assert {result.stem for result in RESULTS.glob("*.md")} == set(PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_says_what_it_measures(part: str) -> None:
    done = _run(part, "--help")
    assert f"benchmarks.{part}" in done


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("turn", "--turns", "1"),
        ("rate_limit", "--seconds", "0.2"),
        pytest.param(("chat_day", "--turns", "6"), marks=needs_tmux),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_short_run_prints_a_table(arguments: tuple[str, ...]) -> None:
    lines = _run(*arguments).splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) >= 4
    assert len({line.count("|") for line in rows}) == 1


def _run(part: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{part}", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MOA_")}
    done = subprocess.run(
        command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
