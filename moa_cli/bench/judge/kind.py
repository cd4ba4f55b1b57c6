"""What a kind of judge is made of; `kinds.KINDS` names them all.

To add a kind: a module like `pairwise`, and its entry in `kinds`. Nothing else knows kinds apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from moa_cli.bench.data.items import Item
from moa_cli.bench.data.released import AnswerFormat
from moa_cli.bench.run.journal import CallRecord
from moa_cli.bench.run.reader import JudgeReader, RunReader
from moa_cli.bench.run.records import REFERENCE, Judgement, Result
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.bench.scoring.means import Figures
from moa_cli.core.errors import BenchError

# How preferences are asked for: with OpenAI's fields for log-probabilities, with Together's, or
# as a text.
Asked = Literal["logprobs", "count", "text"]


@dataclass(frozen=True)
class Question:
    """What a judge is asked about. turn: from 0. replies: of all turns."""

    arm: str
    item: Item
    turn: int
    replies: tuple[str, ...]

    @property
    def name(self) -> tuple[str, str, int]:
        """As judgements are named."""
        return self.arm, self.item.id, self.turn


@dataclass(frozen=True)
class JudgeTask(ABC):
    """What a judge is sent, and how its answers are read.

    files: those of the judge's prompt, and of what goes with it.
    """

    files: tuple[Path, ...]

    def turns(self, item: Item) -> int:
        """How many judgements an answer to that item takes."""
        del item
        return 1

    def settled(self, question: Question) -> Judgement | None:
        """The verdict, where no judge need be asked."""
        del question
        return None

    @abstractmethod
    def call(self, question: Question, asked: Asked) -> JudgeCall:
        """The request. Raises BenchError where something is missing for it."""

    @abstractmethod
    def read(self, question: Question, record: CallRecord, asked: Asked) -> Judgement:
        """The verdict in an answer."""


@dataclass(frozen=True)
class JudgedArm:
    """An arm (or an anchor) of a run and the verdicts on it. answered: its replies."""

    run: RunReader
    judge: JudgeReader
    arm: str
    answered: Sequence[Result]

    @property
    def asked(self) -> int:
        """How many items the run has."""
        return self.run.settings.asked

    @cached_property
    def verdicts(self) -> list[Judgement]:
        """Those on the arm, failed ones included."""
        return [verdict for verdict in self.judge.judgements if verdict.arm == self.arm]

    @cached_property
    def reference(self) -> Mapping[str, Result]:
        """What pairs are compared with, by item."""
        against = self.judge.settings.against
        if against is not None:
            return self.run.answers.get(against, {})
        texts = self.judge.texts
        return {item: result for (arm, item), result in texts.items() if arm == REFERENCE}

    def categories(self) -> dict[str, int]:
        """The categories of the run's items (of the answered ones, where the items cannot be
        had), and how many items each has."""
        items = self.run.known_items
        named = [item.category for item in (self.answered if items is None else items)]
        return {name: named.count(name) for name in dict.fromkeys(named) if name is not None}


@dataclass(frozen=True, kw_only=True)
class JudgeKind:
    """A kind of judge.

    name: in judge.json. how: in words. unit: of what an answer is worth. original: the judge that
    published figures are by. answers: how released answers are written down. compares: whether
    answers are compared with a reference. prompts: reads the prompt's files; the second argument
    is the reference, by item. worth: what a verdict says that its answer is worth, more is
    better. figures: of an arm.
    """

    name: str
    how: str
    unit: str
    original: str
    answers: AnswerFormat
    compares: bool = False
    prompts: Callable[[RunReader, Mapping[str, str]], JudgeTask]
    worth: Callable[[Judgement], float | None]
    figures: Callable[[JudgedArm], Figures]


def prompt_file(run: RunReader, name: str) -> Path:
    """A file of the data folder that the judge of a run needs. Raises BenchError."""
    found = run.data_file(name)
    if found is None:
        dataset = run.dataset.name if run.dataset else "alpaca"
        hint = f"`moa bench fetch {dataset}` gets it; --data names another folder"
        raise BenchError(f"there is no {name}", hint=hint)
    return found
