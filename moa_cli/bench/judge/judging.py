"""The work of a judge, and how its verdicts are recorded. Each judgement is a turn of a mixture
without proposers. So the code that runs an evaluation also does this work, with its journal,
limiter, retries and caps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from moa_cli.bench.data.epochs import first_epoch, for_all_epochs
from moa_cli.bench.data.items import Item, sha256_of
from moa_cli.bench.data.json_lines import Lines, to_line
from moa_cli.bench.data.released import Released, ReleasedDigest, read_released
from moa_cli.bench.judge.kinds import Asked, JudgeKind, JudgeQuestion, JudgeTask
from moa_cli.bench.judge.pairwise import BOTH_ORDERS, PAIRWISE
from moa_cli.bench.run.arms import Arm
from moa_cli.bench.run.folder import (
    JUDGE_FILE,
    JUDGEMENTS,
    OUTPUTS,
    RunReader,
    StateFolder,
    latest,
)
from moa_cli.bench.run.journal import ANCHOR, REFERENCE, CallRecord, Judgement, Result
from moa_cli.bench.run.plan import Work
from moa_cli.bench.run.settings import JudgeSettings
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.bench.scoring.rating_logprobs import ALTERNATIVES
from moa_cli.bench.scoring.reasoning import verdict_text
from moa_cli.core.conversation import Failure
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.outcomes import cut_text
from moa_cli.core.sanitize import one_line
from moa_cli.engine.calls.attempt import WORDLESS
from moa_cli.profile import Aggregator, Profile


class JudgeFolder(StateFolder[JudgeSettings]):
    """An open folder of a judge. See `StateFolder`.

    texts: see `JudgeReader.texts`. judgements: all judgements by name, including failed ones.
    """

    noun = "judge"

    def __init__(self, path: Path) -> None:
        hint = f"use the same, or remove {path} to judge anew"
        super().__init__(path, JUDGE_FILE, JudgeSettings, hint)
        self.texts = latest(path / OUTPUTS, Result)
        self.judgements = latest(path / JUDGEMENTS, Judgement)
        self.lines = Lines(path / JUDGEMENTS)

    def check(self, settings: JudgeSettings) -> None:
        """See `StateFolder`. A judge that judged pairs in one order may go on in both orders: its
        verdicts are the first half of these."""
        kinds = self.settings and self.settings.kind, settings.kind
        if self.settings is not None and kinds == (PAIRWISE.name, BOTH_ORDERS.name):
            self.settings = replace(self.settings, kind=settings.kind)
        super().check(settings)

    def go_on(self, plan: JudgePlan) -> JudgePlan:
        """The plan with the values with which this judge was begun: the date, the way of asking
        and, if the plan names none, the tokens for reasoning. Raises BenchError if it was begun
        with other settings."""
        begun = self.settings
        if begun is not None:
            room = plan.reasoning_tokens
            plan = replace(
                plan,
                date=begun.date or plan.date,
                asked=begun.asked,
                reasoning_tokens=begun.reasoning_tokens if room is None else room,
            )
        self.check(plan.settings())
        return plan

    def close(self) -> None:
        super().close()
        self.lines.close()


@dataclass(frozen=True)
class JudgedTexts:
    """The texts that a judge gets.

    replies: the judged replies, by arm and item, in the order of arms. reference: the answers that
    replies are compared with, by item. texts: the answers of the reference and the anchors, which
    are not results of the run. source, against, anchors: where these come from (see
    `JudgeSettings`).
    """

    replies: Mapping[str, Mapping[str, tuple[str, ...]]]
    reference: Mapping[str, str]
    texts: Sequence[Result]
    source: ReleasedDigest | None
    against: str | None
    anchors: tuple[ReleasedDigest, ...]


def texts_of(
    run: RunReader,
    kind: JudgeKind,
    folder: JudgeFolder,
    *,
    reference: Path | None,
    against: str | None,
    anchors: Sequence[Path],
) -> JudgedTexts:
    """The texts of a run to judge. They include the anchors of earlier starts, which are in the
    judge's folder.

    reference: a file of reference answers; None takes the one in the data folder. against: an arm
    to compare with instead. anchors: files of released outputs. Raises UsageError if there is no
    such arm, BenchError if a file is missing, cannot be read, or differs from what was judged
    before.
    """
    replies = {
        arm: {item: result.replies for item, result in answers.items()}
        for arm, answers in run.answers.items()
    }
    texts: list[Result] = []
    source = None
    compared: Mapping[str, tuple[str, ...]] = {}
    items, epochs = first_epoch(run.items), run.settings.epochs
    if against is not None:
        if against not in replies:
            hint = f"there are {', '.join(replies)}"
            raise UsageError(f"--against: there is no arm `{against}`", hint=hint)
        compared = replies.pop(against)
    elif kind.compares:
        file = reference or run.data_file(*kind.references)
        if file is None:
            dataset = run.dataset.name if run.dataset else "alpaca"
            raise BenchError(
                f"there are no reference outputs ({kind.references[0]})",
                hint=f"`moa bench fetch {dataset}` gets them; --reference names another file",
            )
        released = read_released(file, kind.answers, items)
        source, compared = released.digest, for_all_epochs(released.replies, epochs)
        texts += _results(released, REFERENCE, items)
    known = {anchor.name: anchor for anchor in folder.settings.anchors} if folder.settings else {}
    texts += [result for result in folder.texts.values() if result.arm.startswith(ANCHOR)]
    for path in anchors:
        released = read_released(path, kind.answers, items)
        name = released.digest.name
        if known.setdefault(name, released.digest).sha256 != released.digest.sha256:
            raise BenchError(f"{path}: other answers of {name} were judged before")
        if not any(result.arm == ANCHOR + name for result in texts):
            texts += _results(released, ANCHOR + name, items)
    for result in texts:
        if result.arm.startswith(ANCHOR):
            replies.setdefault(result.arm, {})[result.item] = result.replies
    first = {item: said[0] for item, said in compared.items()}
    return JudgedTexts(replies, first, texts, source, against, tuple(known.values()))


def _results(released: Released, arm: str, items: Sequence[Item]) -> list[Result]:
    """The answers as results of that arm, in the order of the items."""
    return [
        Result(arm, item.id, item.category, released.replies[item.id])
        for item in items
        if item.id in released.replies
    ]


# For each way of asking, the request fields that ask for the log-probabilities of all tokens.
_ALL_LOGPROBS: Mapping[Asked, Mapping[str, Any]] = {
    "logprobs": {"logprobs": True, "top_logprobs": ALTERNATIVES},
    "count": {"logprobs": ALTERNATIVES},
    "text": {},
}


@dataclass(frozen=True)
class JudgePlan:
    """The judgements to make.

    model: the judge's name. items: the items of the run. date: when the first judgement was made,
    YYYY-MM-DD; today for a new judge. asked: how log-probabilities are asked for. reasoning_tokens:
    see `JudgeSettings`. expected: whether ratings are computed from log-probabilities.
    """

    model: str
    kind: JudgeKind
    prompts: JudgeTask
    items: tuple[Item, ...]
    judged: JudgedTexts
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    asked: Asked = "logprobs"
    reasoning_tokens: int | None = None
    expected: bool = False

    def questions(self) -> Iterator[JudgeQuestion]:
        """Everything to judge, item by item."""
        for item in self.items:
            for arm, replies in self.judged.replies.items():
                found = replies.get(item.id, ())
                turns = min(self.prompts.turns(item), len(found))
                for number in range(self.kind.games * turns):
                    yield JudgeQuestion(arm, item, number, found)

    @cached_property
    def _work(self) -> dict[tuple[str, str], tuple[Work, JudgeQuestion]]:
        places = {item.id: order for order, item in enumerate(self.items)}
        found = {}
        for question in self.questions():
            if self.prompts.settled(question) is None:
                work = self._asked(question, places[question.item.id])
                found[work.name] = work, question
        return found

    def _asked(self, question: JudgeQuestion, order: int) -> Work:
        call = self.prompts.call(question, self.asked)
        judge = Aggregator(
            model=self.model,
            temperature=call.temperature,
            max_tokens=self._room(call),
            top_p=call.top_p,
            extra={**call.extra, **(_ALL_LOGPROBS[self.asked] if self.expected else {})},
        )
        profile = Profile(name="judge", aggregator=judge, rounds=0)
        *before, last = call.messages
        part = "turn" if self.kind.games == 1 else "game"
        name = question.item.id + (f" {part} {question.turn + 1}" if question.turn else "")
        item = Item(id=name, turns=(last.content,), before=tuple(before))
        return Work(Arm(question.arm, profile), item, order)

    def _room(self, call: JudgeCall) -> int | None:
        """The most tokens of the answer. If the answer is a single token, which is the verdict, no
        room for reasoning is added."""
        if call.max_tokens is None or call.max_tokens == 1:
            return call.max_tokens
        return call.max_tokens + (self.reasoning_tokens or 0)

    def work(self) -> Iterator[Work]:
        return (work for work, _ in self._work.values())

    def question(self, name: tuple[str, str]) -> JudgeQuestion:
        return self._work[name][1]

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def settings(self) -> JudgeSettings:
        return JudgeSettings(
            model=self.model,
            date=self.date,
            kind=self.kind.name,
            asked=self.asked,
            discrete=self.kind.compares and self.asked == "text",
            files={file.name: sha256_of(file) for file in self.prompts.files},
            reference=self.judged.source,
            against=self.judged.against,
            anchors=self.judged.anchors,
            reasoning_tokens=self.reasoning_tokens,
            rubric=self.prompts.wording,
            ratings="logprobs" if self.expected else None,
        )


# After this many unreadable verdicts in a row the judging stops: the judge does not keep to the
# form, and further answers would cost money for nothing.
MOST_UNREADABLE = 10
_SHOWN = 100


@dataclass
class JudgeResults:
    """Records judgements as the results of the plan's work; see `runner.Results`."""

    folder: JudgeFolder
    plan: JudgePlan
    _unreadable: int = 0

    def error(self, name: tuple[str, str]) -> Failure | None:
        """Why the judge gave no verdict, None if it did. Raises KeyError if it was not asked
        yet."""
        return self.folder.judgements[self.plan.question(name).name].error

    def add(self, result: Result) -> None:
        """Record a judge's answer, or that it has failed for good. Raises OSError, and BenchError
        after MOST_UNREADABLE verdicts in a row that cannot be read."""
        question = self.plan.question((result.arm, result.item))
        if result.error is not None:
            self._keep(Judgement(*question.name, error=result.error))
            return
        verdict = self._verdict(result)
        assert verdict
        self._keep(verdict)
        self._unreadable = self._unreadable + 1 if verdict.unreadable else 0
        if self._unreadable == MOST_UNREADABLE:
            raise BenchError(
                f"{self.plan.model}: no verdict can be read in {MOST_UNREADABLE} answers in a row:"
                f" {shown(verdict)}",
                hint="another judge may keep to the form; what was judged so far is kept",
            )

    def _verdict(self, result: Result) -> Judgement | None:
        record = self._record(result)
        if record is None:
            return None
        question = self.plan.question((result.arm, result.item))
        said = replace(record, text=verdict_text(record.text))
        verdict = self.plan.prompts.read(question, said, self.plan.asked)
        return replace(verdict, text=record.text)

    def _record(self, result: Result) -> CallRecord | None:
        reply = result.turns[0].reply if result.turns else None
        return self.folder.journal.find(reply.key) if reply else None

    def settle(self) -> None:
        """Write the texts of the plan, and the verdicts that need no judge. Raises OSError."""
        Lines(self.folder.path / OUTPUTS).replace(map(to_line, self.plan.judged.texts))
        for question in self.plan.questions():
            verdict = self.plan.prompts.settled(question)
            if verdict is not None and question.name not in self.folder.judgements:
                self._keep(verdict)

    def _keep(self, judgement: Judgement) -> None:
        self.folder.lines.add(to_line(judgement))
        self.folder.judgements[judgement.name] = judgement

    def finish(self, order: Sequence[tuple[str, str]]) -> None:
        """Write all judgements again, in the order of items and arms. Raises OSError."""
        del order
        self.folder.lines.replace(map(to_line, list(self.all())))

    def all(self) -> Iterator[Judgement]:
        """The judgements of the plan that exist so far."""
        found = self.folder.judgements
        names = (question.name for question in self.plan.questions())
        return (found[name] for name in names if name in found)

    def told_logprobs(self, result: Result) -> bool:
        record = self._record(result)
        return record is not None and record.logprobs is not None

    def tells_numbers(self, result: Result) -> bool:
        """Whether that answer has the probabilities of other numbers than the one in its text."""
        record = self._record(result)
        return record is not None and any(
            len(alternatives) > 1 for _, alternatives in record.number_logprobs
        )

    def is_readable(self, result: Result) -> bool:
        verdict = self._verdict(result)
        return verdict is not None and not verdict.unreadable

    def reasoned(self, result: Result) -> bool:
        """Whether the judge reasoned before that answer, or reached the token limit before a
        verdict."""
        if result.error is not None:
            return any(words in result.error.message for words in WORDLESS)
        record, verdict = self._record(result), self._verdict(result)
        if record is None or verdict is None:
            return False
        was_cut = verdict.unreadable and cut_text(record.finish_reason) is not None
        in_text = len(verdict_text(record.text)) < len(record.text)
        return was_cut or in_text or bool(record.reasoning or record.usage.reasoning_tokens)

    def ask(
        self, work: Sequence[Work], *, asked: Asked, reasoning_tokens: int | None = None
    ) -> list[Work]:
        """Change the way of asking from now on. Returns the same work with new requests."""
        self.plan = replace(self.plan, asked=asked, reasoning_tokens=reasoning_tokens)
        self.folder.note(self.plan.settings())
        renewed = {task.name: task for task in self.plan.work()}
        return [renewed[task.name] for task in work]


def shown(verdict: Judgement) -> str:
    """The end of a judge's answer, where the verdict should be, in one line."""
    words = one_line(verdict_text(verdict.text).strip() or verdict.text.strip(), 100_000)
    return f"“…{words[-_SHOWN:]}”" if len(words) > _SHOWN else f"“{words}”"
