"""What a judge said of a run: RUN/judges/NAME, with judge.json, calls.jsonl, judgements.jsonl.

judge.json says who judged what and how, judgements.jsonl holds the verdicts, outputs.jsonl the
texts that are no results of the run (the reference's, released anchors'), calls.jsonl the calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from moa_cli.bench.data.json_lines import plain, read_lines
from moa_cli.bench.run.results import Result, result_from_line
from moa_cli.core.conversation import Failure
from moa_cli.core.text import dumps
from moa_cli.core.values import load_value

__all__ = [
    "ANCHOR",
    "JUDGEMENTS",
    "JUDGE_FILE",
    "OUTPUTS",
    "REFERENCE",
    "Judgement",
    "judge_folder",
    "judgement_from_line",
    "judgement_line",
    "judges_of",
    "read_judgements",
    "read_texts",
]

JUDGE_FILE: Final = "judge.json"
JUDGEMENTS: Final = "judgements.jsonl"
OUTPUTS: Final = "outputs.jsonl"
# Arms of outputs.jsonl: what pairs are compared with, and released outputs (with a name behind).
REFERENCE: Final = "reference"
ANCHOR: Final = "anchor:"


@dataclass(frozen=True)
class Judgement:
    """A judge's verdict: a line of judgements.jsonl. Nothing in it depends on the clock.

    arm, item: of the result that was judged; an arm `anchor:NAME` is of released outputs.
    turn: from 0; a pairwise judgement has 0. value: pairwise: the preference, 1 to 2, as
    AlpacaEval defines it; rating: 1 to 10; None if there is none that could be read. skills: of
    FLASK, in the judge's words, without those that it found not applicable. switched, discrete:
    pairwise only: whether the output was shown first, and whether the preference was read in a
    text. text: the judge's words as they came. key: of its call in the judge's calls.jsonl, ""
    for a draw without a call. error: why there is no judgement, or None.
    """

    arm: str
    item: str
    turn: int = 0
    value: float | None = None
    skills: Mapping[str, float] = field(default_factory=dict)
    switched: bool = False
    discrete: bool = False
    text: str = ""
    key: str = ""
    error: Failure | None = None

    @property
    def name(self) -> tuple[str, str, int]:
        """What is judged; a run has one verdict of a judge on it."""
        return self.arm, self.item, self.turn


def judge_folder(run: Path, model: str) -> Path:
    """Where the judgements of that model are, by its full name."""
    return run / "judges" / re.sub(r"[^A-Za-z0-9._-]+", "-", model)


def judges_of(run: Path) -> list[Path]:
    """The folders of the judges of a run, by name."""
    return sorted(one.parent for one in (run / "judges").glob(f"*/{JUDGE_FILE}"))


def judgement_line(judgement: Judgement) -> str:
    """The judgement as a line of judgements.jsonl, without its line end."""
    return dumps(plain(judgement))


def judgement_from_line(line: str) -> Judgement:
    """The judgement that `judgement_line` made a line of. Raises ValueError if it is none."""
    return load_value(Judgement, json.loads(line))


def read_judgements(folder: Path) -> list[Judgement]:
    """The verdicts in a judge's folder, the latest on each answer. Raises BenchError."""
    read = read_lines(folder / JUDGEMENTS, judgement_from_line)
    return list({one.name: one for one in read}.values())


def read_texts(folder: Path) -> dict[tuple[str, str], Result]:
    """The texts in a judge's folder that are no results of the run, by arm (`reference`,
    `anchor:NAME`) and item. Raises BenchError."""
    return {(one.arm, one.item): one for one in read_lines(folder / OUTPUTS, result_from_line)}
