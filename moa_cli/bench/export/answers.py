"""A run's answers and judgements, ready to be written in other programs' formats."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from moa_cli.bench.data.datasets import dataset_of
from moa_cli.bench.data.items import Item
from moa_cli.bench.data.json_lines import read_table
from moa_cli.bench.judge.judgements import JUDGE_FILE, Judgement, judges_of, read_judgements
from moa_cli.bench.run.folder import read_results, read_settings
from moa_cli.bench.run.journal import Entry, Journal
from moa_cli.bench.run.results import Result
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text import nearest

__all__ = [
    "Choice",
    "Exported",
    "Judge",
    "Run",
    "check_one_turn",
    "has_judge",
    "json_bytes",
    "json_lines",
    "read_judge",
    "read_run",
    "slug",
]

_MIXTURE = "mixture"


@dataclass(frozen=True)
class Exported:
    """What is to be written. files: bytes by name, in a folder of their own if `folder`.

    asked: answers, judgements or the like that there should be; there is `missing` less.
    """

    files: Mapping[str, bytes]
    asked: int
    missing: int
    folder: bool = False


@dataclass(frozen=True)
class Run:
    """A run as it was left.

    items: those that were asked. results: without failed ones, by arm and item.
    """

    path: Path
    data: Path | None
    settings: Mapping[str, Any]
    items: tuple[Item, ...]
    results: Mapping[tuple[str, str], Result]

    @property
    def dataset(self) -> str:
        """The dataset's name if it is a known one, else ""."""
        told = self.settings["dataset"]
        return str(told["name"]) if told["known"] else ""

    @property
    def arms(self) -> list[str]:
        """The names of the arms."""
        return list(self.settings["arms"])

    def arm(self, typed: str | None) -> str:
        """The arm that is meant: the one typed, else the mixture, else the only one.

        Raises UsageError if there is none, or a choice.
        """
        arms = self.arms
        if typed is None and (_MIXTURE in arms or len(arms) == 1):
            return _MIXTURE if _MIXTURE in arms else arms[0]
        if typed in arms:
            return str(typed)
        near = nearest(typed, arms) if typed else None
        hint = f"did you mean `{near}`?" if near else f"there are {', '.join(arms)}"
        raise UsageError(
            f"--arm: there is no arm `{typed}`" if typed else "which --arm?", hint=hint
        )

    def name(self, arm: str) -> str:
        """What other programs are to call an arm: as the profile or the model is called."""
        if arm.startswith("single:"):
            return arm.removeprefix("single:")
        profile = str(self.settings["profile"]["name"])
        return profile if arm == _MIXTURE else f"{profile}-{arm}"

    def answers(self, arm: str) -> list[tuple[Item, Result]]:
        """The arm's answers, in the dataset's order."""
        found = ((item, self.results.get((arm, item.id))) for item in self.items)
        return [(item, result) for item, result in found if result is not None]

    @cached_property
    def _journal(self) -> Journal:
        return Journal(self.path / "calls.jsonl")

    def when(self, result: Result) -> float:
        """When the last call of an answer ended, seconds since 1970; 0 if that is not told."""
        reply = result.turns[-1].reply if result.turns else None
        entry = self._journal.find(reply.key) if reply else None
        return entry.when if entry else 0.0


@dataclass(frozen=True)
class Judge:
    """A judge's verdicts. told: its judge.json. verdicts: by arm, item and turn, without those
    that failed. find: its call of a key, if it made one."""

    model: str
    told: Mapping[str, Any]
    verdicts: Mapping[tuple[str, str, int], Judgement]
    find: Callable[[str], Entry | None]


def read_run(path: Path, data: Path | None) -> Run:
    """The run in that folder. data: where its dataset is, if that has been moved since.

    Raises BenchError if it is no run's folder, is damaged, or lacks its dataset.
    """
    settings = read_settings(path)
    items = dataset_of(settings, data).items[: settings["limit"]]
    answered = (one for one in read_results(path) if one.error is None)
    return Run(path, data, settings, items, {(one.arm, one.item): one for one in answered})


def has_judge(run: Run) -> bool:
    """Whether anybody judged it."""
    return bool(judges_of(run.path))


def read_judge(run: Run, model: str | None) -> Judge:
    """The judge of that name, else the only one.

    Raises UsageError if there is none of that name, or a choice; BenchError if there is none.
    """
    folders = {str(read_table(one / JUDGE_FILE)["model"]): one for one in judges_of(run.path)}
    if not folders:
        raise BenchError(f"{run.path}: was not judged", hint=f"see `moa bench judge {run.path}`")
    if model is None and len(folders) > 1:
        raise UsageError("which --judge?", hint=f"there are {', '.join(folders)}")
    name = next(iter(folders)) if model is None else model
    if name not in folders:
        hint = f"there are {', '.join(folders)}"
        raise UsageError(f"--judge: there are no judgements by {name}", hint=hint)
    folder = folders[name]
    verdicts = {one.name: one for one in read_judgements(folder) if one.error is None}
    return Judge(
        name, read_table(folder / JUDGE_FILE), verdicts, Journal(folder / "calls.jsonl").find
    )


class Choice(NamedTuple):
    """What is to be exported, as it was typed, None where nothing was.

    base: the arm to compare with. judge: its model. name: what the arm is to be called.
    """

    run: Run
    judge: str | None = None
    arm: str | None = None
    base: str | None = None
    name: str | None = None

    def named(self, arm: str) -> str:
        """What the arm is called in the export."""
        return self.name or self.run.name(arm)


def check_one_turn(run: Run, name: str) -> None:
    """Raise UsageError for the format `name`, if the run asked more than one prompt an item."""
    if any(len(item.turns) > 1 or item.before for item in run.items):
        raise UsageError(
            f"--to {name}: holds one prompt an item, the run has conversations",
            hint="--to jsonl holds them",
        )


def slug(name: str) -> str:
    """The name as a file may be called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "export"


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A line of JSON for each row."""
    return b"".join(json_bytes(json.dumps(row)) for row in rows)


def json_bytes(made: str) -> bytes:
    """What `json.dumps` made, and a line end."""
    # Upstream reads in the encoding of the place: ASCII is right in all. DEL acts on terminals.
    return made.replace("\x7f", "\\u007f").encode("ascii") + b"\n"
