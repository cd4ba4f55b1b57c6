"""Answers rated from 1 to 10, turn by turn, as MT-Bench does it (Zheng et al. 2023,
arXiv:2306.05685)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moa_cli.bench.data.items import Item, rows_of_lines
from moa_cli.bench.data.released import FASTCHAT
from moa_cli.bench.judge.kind import (
    Asked,
    JudgedArm,
    JudgeKind,
    JudgeTask,
    Question,
    prompt_file,
)
from moa_cli.bench.run.journal import CallRecord
from moa_cli.bench.run.reader import RunReader
from moa_cli.bench.run.records import Judgement
from moa_cli.bench.scoring import mt_bench
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.bench.scoring.means import Figures, Metric, mean_of


@dataclass(frozen=True)
class RatingTask(JudgeTask):
    """See `JudgeTask`. references: the reference answers, by item."""

    prompts: Mapping[str, mt_bench.JudgePrompt]
    references: Mapping[str, tuple[str, ...]]

    def turns(self, item: Item) -> int:
        """See `JudgeTask`."""
        return min(2, len(item.turns))

    def call(self, question: Question, asked: Asked) -> JudgeCall:
        """See `JudgeTask`."""
        item = question.item
        return mt_bench.judge_call(
            self.prompts,
            item.category or "",
            item.turns,
            question.replies,
            mt_bench.turn_number(question.turn),
            self.references.get(item.id, ()),
        )

    def read(self, question: Question, record: CallRecord, asked: Asked) -> Judgement:
        """See `JudgeTask`."""
        value = mt_bench.parse_rating(record.text)
        return Judgement(*question.name, value=value, text=record.text, key=record.key)


def _prompts(run: RunReader, reference: Mapping[str, str]) -> RatingTask:
    del reference
    prompts = prompt_file(run, "mt_bench/judge_prompts.jsonl")
    answers = prompt_file(run, "mt_bench/reference_answer_gpt-4.jsonl")
    return RatingTask(
        (prompts, answers),
        mt_bench.judge_prompts(row.fields for row in rows_of_lines(prompts)),
        FASTCHAT.read(answers).replies,
    )


def _figures(judged: JudgedArm) -> Figures:
    category = {result.item: result.category or "" for result in judged.answered}
    told = mt_bench.scores(
        mt_bench.Rating(
            verdict.item,
            category[verdict.item],
            mt_bench.turn_number(verdict.turn),
            verdict.value,
        )
        for verdict in judged.verdicts
        if verdict.item in category
    )
    metrics = (
        Metric("turn 1", told.turn_1, judged.asked, "of 10"),
        Metric("turn 2", told.turn_2, judged.asked, "of 10"),
        Metric("average", told.average, 2 * judged.asked, "of 10"),
    )
    by_category = {
        name: (Metric("average", told.by_category.get(name, mean_of(())), 2 * asked, "of 10"),)
        for name, asked in judged.categories().items()
    }
    return Figures(metrics, by_category)


RATING = JudgeKind(
    name="rating",
    how="ratings from 1 to 10, each turn",
    unit="rating, of 10",
    original="gpt-4",
    answers=FASTCHAT,
    prompts=_prompts,
    worth=lambda verdict: verdict.value,
    figures=_figures,
)
