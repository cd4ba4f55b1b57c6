"""What a judge has to do, and its verdicts as they are written down.

Each judgement is a turn of a mixture without proposers, so that the work is done by what does a
run: its journal, its gate, its retries, its caps.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from moa_cli.bench.data.items import Item
from moa_cli.bench.data.json_lines import Lines
from moa_cli.bench.judge.judgements import (
    JUDGE_FILE,
    JUDGEMENTS,
    OUTPUTS,
    Judgement,
    judgement_line,
    read_judgements,
    read_texts,
)
from moa_cli.bench.judge.kinds import Asked, Kind, Question, files_told
from moa_cli.bench.run.arms import Arm
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.results import Result, result_line
from moa_cli.bench.run.state import StateFolder, opened
from moa_cli.core.conversation import Failure
from moa_cli.profile import Aggregator, Profile
from moa_cli.version import __version__

__all__ = ["JudgeFolder", "JudgePlan", "Verdicts", "open_judge"]


class JudgeFolder(StateFolder):
    """An open folder of a judge; nobody else has it open.

    texts: see `read_texts`. judgements: by name, failed ones included. See `StateFolder`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, JUDGE_FILE, f"use the same, or remove {path} to judge anew")
        self.texts = read_texts(path)
        self.judgements = {one.name: one for one in read_judgements(path)}
        self.lines = Lines(path / JUDGEMENTS)

    def close(self) -> None:
        """Nothing more is written."""
        super().close()
        self.lines.close()


def open_judge(path: Path) -> AbstractContextManager[JudgeFolder]:
    """The judge's folder at that path; see `opened`."""
    return opened(path, JudgeFolder)


@dataclass(frozen=True)
class JudgePlan:
    """The judgements that are asked for.

    model: the judge's name. items: of the run. replies: by arm and item, in the order of arms.
    told: further settings for judge.json. asked: how preferences are asked for. date: of the
    first judgement, YYYY-MM-DD.
    """

    model: str
    kind: Kind
    items: tuple[Item, ...]
    replies: Mapping[str, Mapping[str, tuple[str, ...]]]
    told: Mapping[str, Any]
    date: str
    asked: Asked = "logprobs"
    given: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def questions(self) -> Iterator[Question]:
        """Everything that is to be judged, item by item."""
        for item in self.items:
            for arm, replies in self.replies.items():
                found = replies.get(item.id, ())
                for turn in range(min(self.kind.turns(item), len(found))):
                    yield Question(arm, item, turn, found)

    @cached_property
    def _work(self) -> dict[tuple[str, str], tuple[Work, Question]]:
        places = {item.id: order for order, item in enumerate(self.items)}
        found = {}
        for one in self.questions():
            if self.kind.settled(one) is None:
                work = self._asked(one, places[one.item.id])
                found[work.name] = work, one
        return found

    def _asked(self, question: Question, order: int) -> Work:
        call = self.kind.call(question, self.asked)
        judge = Aggregator(
            model=self.model,
            temperature=call.temperature,
            max_tokens=call.max_tokens,
            top_p=call.top_p,
            extra=call.extra,
        )
        profile = Profile(name="judge", aggregator=judge, rounds=0)
        *before, last = call.messages
        name = question.item.id + (f" turn {question.turn + 1}" if question.turn else "")
        item = Item(id=name, turns=(last.content,), before=tuple(before))
        return Work(Arm(question.arm, profile), item, order)

    def work(self) -> Iterator[Work]:
        """The judgements for which the judge is asked."""
        return (work for work, _ in self._work.values())

    def question(self, name: tuple[str, str]) -> Question:
        """What the work of that name is about."""
        return self._work[name][1]

    def models(self) -> tuple[str, ...]:
        """The judge."""
        return (self.model,)

    def settings(self) -> dict[str, Any]:
        """All that the judgements depend on, as JSON values for judge.json."""
        return {
            "versions": {"moa": __version__, "python": platform.python_version()},
            "model": self.model,
            "date": self.date,
            "kind": self.kind.name,
            "asked": self.asked,
            "discrete": self.kind.name == "pairwise" and self.asked == "text",
            "files": files_told(self.kind.files),
            **self.told,
        }


class Verdicts:
    """Judgements as the results of the work of `plan`; see `runner.Results`."""

    def __init__(self, folder: JudgeFolder, plan: JudgePlan) -> None:
        self.folder = folder
        self.plan = plan

    def error(self, name: tuple[str, str]) -> Failure | None:
        """Why the judge gave no verdict. Raises KeyError if it was not asked yet."""
        return self.folder.judgements[self.plan.question(name).name].error

    def add(self, result: Result) -> None:
        """The judge has answered, or failed for good. Raises OSError."""
        question = self.plan.question((result.arm, result.item))
        if result.error is not None:
            self._keep(Judgement(*question.name, error=result.error))
            return
        reply = result.turns[0].reply
        entry = reply and self.folder.journal.find(reply.key)
        assert entry
        self._keep(self.plan.kind.read(question, entry, self.plan.asked))

    def settle(self, texts: Sequence[Result]) -> None:
        """Write down `Shown.texts`, and the verdicts for which no judge is asked.

        Raises OSError.
        """
        Lines(self.folder.path / OUTPUTS).replace(map(result_line, texts))
        for question in self.plan.questions():
            verdict = self.plan.kind.settled(question)
            if verdict is not None and question.name not in self.folder.judgements:
                self._keep(verdict)

    def _keep(self, judgement: Judgement) -> None:
        self.folder.lines.add(judgement_line(judgement))
        self.folder.judgements[judgement.name] = judgement

    def finish(self, order: Sequence[tuple[str, str]]) -> None:
        """All have ended: write them in the order of items and arms. Raises OSError."""
        del order
        self.folder.lines.replace(map(judgement_line, list(self.all())))

    def all(self) -> Iterator[Judgement]:
        """The verdicts on what is to be judged, as far as they came."""
        found = self.folder.judgements
        return (found[one.name] for one in self.plan.questions() if one.name in found)

    def told_logprobs(self, result: Result) -> bool:
        """Whether the judge told log-probabilities with that answer."""
        reply = result.turns[0].reply if result.turns else None
        entry = self.folder.journal.find(reply.key) if reply else None
        return entry is not None and entry.logprobs is not None

    def ask(self, asked: Asked, work: Sequence[Work]) -> list[Work]:
        """Ask for preferences that way from now on: the same work, by new requests."""
        self.plan = replace(self.plan, asked=asked)
        self.folder.note(self.plan.settings())
        renewed = {one.name: one for one in self.plan.work()}
        return [renewed[one.name] for one in work]
