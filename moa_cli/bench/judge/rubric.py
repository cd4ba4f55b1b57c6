"""The judge of a user's own prompts by a rubric, a reference answer, or both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from moa_cli.bench.data.epochs import origin_of
from moa_cli.bench.data.items import Item
from moa_cli.bench.data.released import MODEL_OUTPUTS
from moa_cli.bench.judge.kinds import (
    Asked,
    JudgedArm,
    JudgeKind,
    JudgeQuestion,
    JudgeTask,
    rating_in,
)
from moa_cli.bench.run.folder import RunReader
from moa_cli.bench.run.journal import CallRecord, Judgement
from moa_cli.bench.scoring import rubric
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.bench.scoring.means import Figures, Metric, grouped_mean
from moa_cli.core.conversation import Message


@dataclass(frozen=True)
class RubricTask(JudgeTask):
    """See `JudgeTask`. rubric: the rubric for items that have none of their own."""

    needed: ClassVar = "rubric and no answer"

    rubric: str | None

    @property
    def wording(self) -> str | None:
        return self.rubric

    def turns(self, item: Item) -> int:
        """See `JudgeTask`. An item with neither a rubric nor an answer is not rated."""
        return len(item.turns) if self._rubric(item) is not None else 0

    def _rubric(self, item: Item) -> str | None:
        own = own_rubric(item) or self.rubric
        return rubric.BY_REFERENCE if own is None and _reference(item) is not None else own

    def call(self, question: JudgeQuestion, asked: Asked) -> JudgeCall:
        item, turn = question.item, question.turn
        conversation = list(item.before)
        for prompt, reply in zip(item.turns[:turn], question.replies, strict=False):
            conversation += [Message("user", prompt), Message("assistant", reply)]
        conversation.append(Message("user", item.turns[turn]))
        # The reference answers the last message, so it does not apply to earlier turns.
        reference = _reference(item) if turn == len(item.turns) - 1 else None
        wanted = self._rubric(item) or ""
        return rubric.judge_call(wanted, conversation, question.replies[turn], reference)

    def read(self, question: JudgeQuestion, record: CallRecord, asked: Asked) -> Judgement:
        said = rubric.parse_rating(record.text)
        return rating_in(question, record, said, rubric.rating_span(record.text))


def own_rubric(item: Item) -> str | None:
    """The item's own rubric, in the field `rubric`."""
    found = item.fields.get("rubric")
    return found if isinstance(found, str) and found.strip() else None


def _reference(item: Item) -> str | None:
    """The answer to compare with: the field `reference` of the item, else its right answer."""
    found = item.fields.get("reference")
    return found if isinstance(found, str) and found.strip() else item.answer


def is_rated(run: RunReader) -> bool:
    """Whether items of a run have a rubric or an answer to rate by."""
    return any(own_rubric(item) or _reference(item) for item in run.items)


def _figures(judged: JudgedArm) -> Figures:
    turns = max((len(result.replies) for result in judged.answered), default=1)

    def average(wanted: str | None, asked: int) -> Metric:
        mean = grouped_mean(
            (verdict.value, origin_of(verdict.item))
            for verdict in judged.verdicts
            if verdict.value is not None and wanted in (None, judged.category.get(verdict.item))
        )
        return Metric("average", mean, turns * asked, "of 10")

    by_category = {name: (average(name, asked),) for name, asked in judged.categories().items()}
    return Figures((average(None, judged.asked),), by_category)


RUBRIC = JudgeKind(
    name="rubric",
    how="ratings from 1 to 10, by a rubric",
    unit="rating, of 10",
    original="",
    answers=MODEL_OUTPUTS,
    rates=True,
    prompts=lambda run, reference: RubricTask((), None),
    worth=lambda verdict: verdict.value,
    figures=_figures,
)


def rubric_kind(text: str | None) -> JudgeKind:
    """The kind that rates by that rubric. None uses only the items' own rubrics and answers."""
    return replace(RUBRIC, prompts=lambda run, reference: RubricTask((), text))
