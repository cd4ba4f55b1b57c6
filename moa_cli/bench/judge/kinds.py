"""Defines kinds of judges, and two of them: by ratings (MT-Bench, Zheng et al. 2023,
arXiv:2306.05685), and by skills (FLASK, Ye et al. 2023, arXiv:2307.10928).

To add a kind, write a `JudgeTask`, a `JudgeKind`, and its entry in `registry.KINDS`. Nothing else
depends on the kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from moa_cli.bench.data.epochs import first_epoch, for_all_epochs, origin_of, own_id
from moa_cli.bench.data.items import Item, rows_of_json, rows_of_lines
from moa_cli.bench.data.released import FASTCHAT, FLASK, AnswerFormat
from moa_cli.bench.run.folder import JudgeReader, RunReader
from moa_cli.bench.run.journal import ANCHOR, REFERENCE, CallRecord, Judgement, Result
from moa_cli.bench.scoring import flask, mt_bench
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.bench.scoring.means import Figures, Mean, Metric, grouped_mean, mean_of
from moa_cli.bench.scoring.rating_logprobs import expected_rating
from moa_cli.core.errors import BenchError

# How a preference or rating is asked for. logprobs: with OpenAI's fields for log-probabilities.
# count: with Together's field, which is a count. text: as text only.
Asked = Literal["logprobs", "count", "text"]


@dataclass(frozen=True)
class JudgeQuestion:
    """One question to a judge. turn: the turn to judge, from 0; for several games, see `JudgeKind`.
    replies: the replies of all turns."""

    arm: str
    item: Item
    turn: int
    replies: tuple[str, ...]

    @property
    def name(self) -> tuple[str, str, int]:
        return self.arm, self.item.id, self.turn


@dataclass(frozen=True)
class JudgeTask(ABC):
    """Makes the requests to a judge, and reads its answers.

    files: the files of the judge's prompt and of the data in it.
    """

    # What an item lacks if it is not judged, for messages, after the word "no".
    needed: ClassVar = "reference"

    files: tuple[Path, ...]

    @property
    def wording(self) -> str | None:
        """The user's rubric, if this kind of judge takes one."""
        return None

    def turns(self, item: Item) -> int:
        """How many turns of an answer to that item are judged."""
        del item
        return 1

    def settled(self, question: JudgeQuestion) -> Judgement | None:
        """The verdict on a question for which no judge is needed; None if one is."""
        del question
        return None

    @abstractmethod
    def call(self, question: JudgeQuestion, asked: Asked) -> JudgeCall:
        """The request to the judge. Raises BenchError if data for it is missing."""

    @abstractmethod
    def read(self, question: JudgeQuestion, record: CallRecord, asked: Asked) -> Judgement:
        """The verdict in an answer. record: the judge's call; its text has no reasoning."""


@dataclass(frozen=True)
class JudgedArm:
    """An arm or an anchor of a run, with the verdicts on it. answered: its results."""

    run: RunReader
    judge: JudgeReader
    arm: str
    answered: Sequence[Result]

    @property
    def asked(self) -> int:
        """How many answers should be judged. An anchor has one answer for all epochs of an item."""
        settings = self.run.settings
        return settings.asked if self.arm.startswith(ANCHOR) else settings.askings

    @cached_property
    def verdicts(self) -> list[Judgement]:
        return [verdict for verdict in self.judge.judgements if verdict.arm == self.arm]

    @cached_property
    def category(self) -> Mapping[str, str | None]:
        """The category of each item that this arm answered."""
        return {result.item: result.category for result in self.answered}

    @cached_property
    def reference(self) -> Mapping[str, Result]:
        """The results that answers are compared with, by item."""
        against = self.judge.settings.against
        if against is not None:
            return self.run.answers.get(against, {})
        texts = self.judge.texts
        known = {item: result for (arm, item), result in texts.items() if arm == REFERENCE}
        return for_all_epochs(known, self.run.settings.epochs)

    def length(self) -> Mean:
        """The mean length of first replies, in characters."""
        return grouped_mean(
            (len(result.replies[0]), origin_of(result.item)) for result in self.answered
        )

    def categories(self) -> dict[str, int]:
        """The categories of the run's items, and how many items each has. If the dataset is not
        there, only answered items count."""
        items = self.run.known_items
        if items is not None and self.arm.startswith(ANCHOR):
            items = first_epoch(items)
        named = [item.category for item in (self.answered if items is None else items)]
        return {name: named.count(name) for name in dict.fromkeys(named) if name is not None}


@dataclass(frozen=True, kw_only=True)
class JudgeKind:
    """A kind of judge.

    name: as in judge.json. how: how it judges, in words. unit: the unit of what an answer is worth.
    original: the judge model of the published figures. answers: the format of released answers.
    compares: whether answers are compared with a reference. rates: whether a verdict is one rating.
    logprobs: whether preferences are computed from log-probabilities, if the judge gives them.
    references: files in the data folder with the reference's answers; the first that exists is
    used. games: how often each answer is judged; game g of turn t has the number games x t + g.
    even: the value of a draw; None without pairs. prompts: reads the prompt's files; its second
    argument is the reference, by item. worth: what an answer is worth by a verdict; more is better.
    figures: computes the figures of an arm.
    """

    name: str
    how: str
    unit: str
    original: str
    answers: AnswerFormat
    compares: bool = False
    rates: bool = False
    logprobs: bool = False
    references: tuple[str, ...] = ()
    games: int = 1
    even: float | None = None
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


@dataclass(frozen=True)
class RatingTask(JudgeTask):
    """See `JudgeTask`. prompts: the judge's prompts by name. references: the reference answers, by
    item."""

    prompts: Mapping[str, mt_bench.JudgePrompt]
    references: Mapping[str, tuple[str, ...]]

    def turns(self, item: Item) -> int:
        return min(2, len(item.turns))

    def call(self, question: JudgeQuestion, asked: Asked) -> JudgeCall:
        item = question.item
        return mt_bench.judge_call(
            self.prompts,
            item.category or "",
            item.turns,
            question.replies,
            question.turn + 1,
            self.references.get(own_id(item), ()),
        )

    def read(self, question: JudgeQuestion, record: CallRecord, asked: Asked) -> Judgement:
        said = mt_bench.parse_rating(record.text)
        return rating_in(question, record, said, mt_bench.rating_span(record.text))


def rating_in(
    question: JudgeQuestion, record: CallRecord, said: float | None, span: tuple[int, int] | None
) -> Judgement:
    """The verdict of a judge that rates. It is the expected rating, if the answer has the
    probabilities of other ratings, else the rating in the text. said, span: that rating, and its
    place in the text.
    """
    value = said
    if span is not None and said is not None and record.number_logprobs:
        expected = expected_rating(record.text, span, record.number_logprobs)
        value = said if expected is None else expected
    return Judgement(*question.name, value=value, text=record.text, key=record.key)


def _rating_prompts(run: RunReader, reference: Mapping[str, str]) -> RatingTask:
    del reference
    prompts = prompt_file(run, "mt_bench/judge_prompts.jsonl")
    answers = prompt_file(run, "mt_bench/reference_answer_gpt-4.jsonl")
    return RatingTask(
        (prompts, answers),
        mt_bench.judge_prompts(row.fields for row in rows_of_lines(prompts)),
        FASTCHAT.read(answers)[1],
    )


def _rating_figures(judged: JudgedArm) -> Figures:
    told = mt_bench.scores(
        mt_bench.Rating(
            origin_of(verdict.item),
            judged.category[verdict.item] or "",
            verdict.turn + 1,
            verdict.value,
        )
        for verdict in judged.verdicts
        if verdict.item in judged.category
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
    rates=True,
    prompts=_rating_prompts,
    worth=lambda verdict: verdict.value,
    figures=_rating_figures,
)


@dataclass(frozen=True)
class SkillTask(JudgeTask):
    rubric: flask.Rubric

    def call(self, question: JudgeQuestion, asked: Asked) -> JudgeCall:
        item = question.item
        skills = item.fields.get("skill")
        if not isinstance(skills, list) or not all(isinstance(skill, str) for skill in skills):
            raise BenchError(f"item {item.id}: `skill` is not a list of names")
        reply, sample = question.replies[0], item.answer or ""
        return flask.judge_call(self.rubric, item.turns[0], reply, sample, skills)

    def read(self, question: JudgeQuestion, record: CallRecord, asked: Asked) -> Judgement:
        told = flask.parse_review(record.text)
        skills = {name: score for name, score in told.items() if score is not None}
        return Judgement(*question.name, skills=skills, text=record.text, key=record.key)


def _skill_prompts(run: RunReader, reference: Mapping[str, str]) -> SkillTask:
    del reference
    names = ("prompt.jsonl", "reviewer.jsonl", "skillset_description.json")
    files = tuple(prompt_file(run, f"flask/{name}") for name in names)
    prompts, reviewers = ([row.fields for row in rows_of_lines(file)] for file in files[:2])
    skills = [row.fields for row in rows_of_json(files[2])]
    return SkillTask(files, flask.rubric(prompts, reviewers, skills))


def _skill_figures(judged: JudgedArm) -> Figures:
    """The mean score of each skill, and `mean` over all scores. All scores of an item are one
    observation."""
    mean = grouped_mean(
        (score, origin_of(verdict.item))
        for verdict in judged.verdicts
        for skill, score in verdict.skills.items()
        if flask.short_skill(skill) is not None
    )
    lacking = _without_review(judged)
    metrics = [Metric("mean", mean, mean.n + sum(map(len, lacking)), "of 5")]
    told = flask.skill_scores(
        [verdict.skills for verdict in judged.verdicts],
        [origin_of(verdict.item) for verdict in judged.verdicts],
    )
    for skill, found in told.items():
        missing = sum(skill in skills for skills in lacking)
        metrics.append(Metric(skill, found, found.n + missing, "of 5"))
    return Figures(tuple(metrics))


def _without_review(judged: JudgedArm) -> list[set[str]]:
    """For each item without a readable review, its skills."""
    read = {
        verdict.item
        for verdict in judged.verdicts
        if verdict.error is None and verdict.key and verdict.skills
    }
    return [
        {
            short
            for skill in item.fields.get("skill", ())
            if isinstance(skill, str) and (short := flask.short_skill(skill))
        }
        for item in judged.run.known_items or ()
        if item.id not in read
    ]


SKILLS = JudgeKind(
    name="skills",
    how="skills, each from 1 to 5",
    unit="mean skill, of 5",
    original="gpt-4-0613",
    answers=FLASK,
    prompts=_skill_prompts,
    worth=lambda verdict: mean_of(verdict.skills.values()).value,
    figures=_skill_figures,
)
