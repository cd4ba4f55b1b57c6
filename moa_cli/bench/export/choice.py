"""What is to be exported of a run, and what comes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from moa_cli.bench.data.items import Item
from moa_cli.bench.run.arms import MIXTURE, SINGLE
from moa_cli.bench.run.journal import CallRecord
from moa_cli.bench.run.reader import JudgeReader, RunReader
from moa_cli.bench.run.records import Judgement, Result
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text import nearest


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
class JudgeVerdicts:
    """A judge's verdicts, without those that failed."""

    judge: JudgeReader

    @cached_property
    def by_name(self) -> dict[tuple[str, str, int], Judgement]:
        """By arm, item and turn."""
        return {verdict.name: verdict for verdict in self.judge.judgements if verdict.error is None}

    def call(self, verdict: Judgement) -> CallRecord | None:
        """The judge's call, if it made one."""
        return self.judge.calls.find(verdict.key)


@dataclass(frozen=True)
class ExportChoice:
    """What is to be exported, as it was typed, None where nothing was.

    arm: see `named_arm`. base: the arm to compare with. judge: its model. name: what the arm is
    to be called.
    """

    run: RunReader
    judge: str | None = None
    arm: str | None = None
    base: str | None = None
    name: str | None = None

    def named_arm(self, typed: str | None) -> str:
        """The arm that is meant: the one typed, else the mixture, else the only one.

        Raises UsageError if there is none, or a choice.
        """
        arms = self.run.settings.arms
        if typed is None and (MIXTURE in arms or len(arms) == 1):
            return MIXTURE if MIXTURE in arms else arms[0]
        if typed in arms:
            return str(typed)
        near = nearest(typed, arms) if typed else None
        hint = f"did you mean `{near}`?" if near else f"there are {', '.join(arms)}"
        raise UsageError(
            f"--arm: there is no arm `{typed}`"
            if typed
            else "--arm is needed: the run has several arms",
            hint=hint,
        )

    def name_of(self, arm: str) -> str:
        """What other programs are to call an arm: as the profile or the model is called."""
        if arm.startswith(SINGLE):
            return arm.removeprefix(SINGLE)
        profile = str(self.run.settings.profile["name"])
        return profile if arm == MIXTURE else f"{profile}-{arm}"

    def named(self, arm: str) -> str:
        """What the arm is called in the export."""
        return self.name or self.name_of(arm)

    def answers(self, arm: str) -> list[tuple[Item, Result]]:
        """The arm's answers, in the dataset's order."""
        found = self.run.answers.get(arm, {})
        return [(item, found[item.id]) for item in self.run.items if item.id in found]

    def verdicts(self) -> JudgeVerdicts:
        """Those of the judge that was typed, else of the only one.

        Raises:
            UsageError: There is none of that name, or a choice.
            BenchError: Nobody has judged the run.
        """
        path, judges = self.run.path, self.run.judges
        if not judges:
            raise BenchError(f"{path}: was not judged", hint=f"see `moa bench judge {path}`")
        hint = f"there are {', '.join(judges)}"
        if self.judge is None and len(judges) > 1:
            raise UsageError("--judge is needed: the run has several judges", hint=hint)
        name = next(iter(judges)) if self.judge is None else self.judge
        if name not in judges:
            raise UsageError(f"--judge: there are no judgements by {name}", hint=hint)
        return JudgeVerdicts(judges[name])


@dataclass(frozen=True)
class ExportFormat:
    """A format of `moa bench export`.

    write: what it makes of a choice. judged: whether it holds a judge's verdicts. compares:
    whether it holds a second arm.
    """

    write: Callable[[ExportChoice], Exported]
    judged: bool = False
    compares: bool = False


def check_one_turn(run: RunReader, name: str) -> None:
    """Raise UsageError for the format `name`, if the run asked more than one prompt an item."""
    if any(len(item.turns) > 1 or item.before for item in run.items):
        raise UsageError(
            f"--to {name} holds one prompt for each item, but the run has conversations",
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
