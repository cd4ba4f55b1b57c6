"""What each answer of a run is worth, item by item: by a judge, or by known answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from moa_cli.bench.data.datasets import dataset_of
from moa_cli.bench.data.items import Item
from moa_cli.bench.data.json_lines import read_table
from moa_cli.bench.judge.judgements import (
    JUDGE_FILE,
    Judgement,
    judge_folder,
    judges_of,
    read_judgements,
    read_texts,
)
from moa_cli.bench.report.measures import grader_of, has_answers
from moa_cli.bench.run.folder import read_results, read_settings
from moa_cli.bench.run.results import Result
from moa_cli.bench.scoring.alpaca import win_rate
from moa_cli.bench.scoring.means import mean_of
from moa_cli.core.errors import BenchError, UsageError

__all__ = ["Grade", "ReadRun", "Unit", "Values", "read_run"]

# An item and the number of a turn in it, from 0.
Unit = tuple[str, int]
# Whether a text answers an item rightly (the item's id, then the text); None where nobody knows.
Grade = Callable[[str, str], bool | None]
_UNITS: Final = {
    "pairwise": "win rate, %",
    "rating": "rating, of 10",
    "skills": "mean skill, of 5",
}
_RIGHT: Final = "right answers, %"


@dataclass(frozen=True)
class Values:
    """What answers are worth, more is better.

    unit: in words; "" if nothing is known. judge: whose, None for known answers. by_arm: of each
    arm's (or `anchor:NAME`'s) reply, by item and turn. by_text: of any text that was judged.
    grade: what they come from, where they come from known answers; they are 0 and 100 then.
    """

    unit: str = ""
    judge: str | None = None
    by_arm: Mapping[str, Mapping[Unit, float]] = field(default_factory=dict)
    by_text: Mapping[tuple[Unit, str], float] = field(default_factory=dict)
    grade: Grade | None = None


@dataclass(frozen=True)
class ReadRun:
    """A run as its folder tells it.

    results: those that did not fail, by arm and item. asked: items of the run. values: None
    of them where there are neither judgements nor known answers. grade: None without known
    answers. notes: what is missing, and why.
    """

    path: Path
    settings: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Result]]
    items: tuple[Item, ...] | None
    asked: int
    values: Values
    grade: Grade | None
    notes: tuple[str, ...]


def read_run(path: Path, judge: str | None, data: Path | None = None) -> ReadRun:
    """The run in that folder.

    judge: whose values; None takes known answers, else the run's judge if it has one only.
    data: where datasets are, if the run's is not found again.
    Raises BenchError if it is no run's folder, or that judge has not judged it.
    """
    settings = read_settings(path)
    whole, limit = settings["dataset"]["items"], settings["limit"]
    asked = whole if limit is None else min(limit, whole)
    notes: list[str] = []
    items: tuple[Item, ...] | None = None
    try:
        items = dataset_of(settings, data).items[:asked]
    except (BenchError, UsageError) as error:
        notes.append(f"known answers are not used: {error.message}")
    results: dict[str, dict[str, Result]] = {arm: {} for arm in settings["arms"]}
    for one in read_results(path):
        if one.error is None:
            results.setdefault(one.arm, {})[one.item] = one
    grade = None
    if items is not None and has_answers(items, settings):
        grade = _grade(items, settings)
    if judge is None and grade is not None:
        values = _graded(grade, results)
    else:
        folder = _judge_folder(path, judge, notes)
        values = Values() if folder is None else _judged(folder, results)
    return ReadRun(path, settings, results, items, asked, values, grade, tuple(notes))


def _judge_folder(path: Path, judge: str | None, notes: list[str]) -> Path | None:
    folders = {read_table(one / JUDGE_FILE)["model"]: one for one in judges_of(path)}
    if judge is not None:
        if judge in folders:
            return judge_folder(path, judge)
        there = ", ".join(folders)
        hint = f"judged by: {there}" if there else f"moa bench judge {path} --judge {judge}"
        raise BenchError(f"{path}: there are no judgements by {judge}", hint=hint)
    if len(folders) > 1:
        notes.append(f"no judgements are used: --judge names one of {', '.join(folders)}")
    elif not folders:
        notes.append(
            f"nobody has judged {path}, and its items have no known answers: what needs the worth"
            " of answers is left out (moa bench judge)"
        )
    return next(iter(folders.values())) if len(folders) == 1 else None


def _judged(folder: Path, results: Mapping[str, Mapping[str, Result]]) -> Values:
    table = read_table(folder / JUDGE_FILE)
    texts = {name: one.replies for name, one in read_texts(folder).items()}
    texts |= {
        (arm, item): one.replies for arm, of_arm in results.items() for item, one in of_arm.items()
    }
    by_arm: dict[str, dict[Unit, float]] = {}
    by_text: dict[tuple[Unit, str], float] = {}
    for one in read_judgements(folder):
        value = _value(one, table["kind"])
        replies = texts.get((one.arm, one.item), ())
        if value is None or one.turn >= len(replies):
            continue
        unit = (one.item, one.turn)
        by_arm.setdefault(one.arm, {})[unit] = value
        # What a later turn's answer is worth depends on the conversation before it.
        if one.turn == 0:
            by_text.setdefault((unit, replies[one.turn]), value)
    return Values(_UNITS[table["kind"]], table["model"], by_arm, by_text)


def _value(one: Judgement, kind: str) -> float | None:
    if one.error is not None:
        return None
    if kind == "pairwise":
        return win_rate([one.value]).win_rate.value
    return mean_of(one.skills.values()).value if kind == "skills" else one.value


def _grade(items: Iterable[Item], settings: Mapping[str, Any]) -> Grade:
    grader = grader_of(settings)
    keyed = {one.id: one for one in items if one.answer is not None}

    def grade(item: str, text: str) -> bool | None:
        if grader is None or item not in keyed:
            return None
        return grader(text, keyed[item]).right

    return grade


def _graded(grade: Grade, results: Mapping[str, Mapping[str, Result]]) -> Values:
    """Known answers are to an item's last turn."""
    by_arm = {
        arm: {
            (one.item, len(one.replies) - 1): 100.0 * right
            for one in of_arm.values()
            if (right := grade(one.item, one.replies[-1])) is not None
        }
        for arm, of_arm in results.items()
    }
    return Values(_RIGHT, None, by_arm, {}, grade)
