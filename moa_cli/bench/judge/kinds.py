"""The kinds of judges: by pairs (AlpacaEval 2, Dubois et al. 2024, arXiv:2404.04475), by ratings
(MT-Bench, Zheng et al. 2023, arXiv:2306.05685), by skills (FLASK, Ye et al. 2023,
arXiv:2307.10928).

To add a kind: a `JudgeTask`, a `JudgeKind`, and its entry in `registry.KINDS`. Nothing else knows
kinds apart.
"""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from moa_cli.bench.data.items import Item, rows_of_json, rows_of_lines, text_in
from moa_cli.bench.data.released import FASTCHAT, FLASK, MODEL_OUTPUTS, AnswerFormat
from moa_cli.bench.run.folder import JudgeReader, RunReader
from moa_cli.bench.run.journal import REFERENCE, CallRecord, Judgement, Result
from moa_cli.bench.scoring import alpaca, flask, mt_bench
from moa_cli.bench.scoring import length_controlled as lc
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.bench.scoring.means import Figures, Metric, grouped_mean, mean_of
from moa_cli.bench.scoring.rating_logprobs import expected_rating
from moa_cli.core.errors import BenchError, UsageError
from moa_cli.core.text_files import line_feeds

# How preferences are asked for: with OpenAI's fields for log-probabilities, with Together's, or
# as a text.
Asked = Literal["logprobs", "count", "text"]


@dataclass(frozen=True)
class Question:
    """What a judge is asked about. turn: from 0; with several games, see `JudgeKind`. replies: of
    all turns."""

    arm: str
    item: Item
    turn: int
    replies: tuple[str, ...]

    @property
    def name(self) -> tuple[str, str, int]:
        return self.arm, self.item.id, self.turn


@dataclass(frozen=True)
class JudgeTask(ABC):
    """What a judge is sent, and how its answers are read.

    files: those of the judge's prompt, and of what goes with it.
    """

    files: tuple[Path, ...]

    @property
    def wording(self) -> str | None:
        """What the user said that replies are rated by, if they can say so."""
        return None

    @property
    def needed(self) -> str:
        """What an item lacks that is not judged, in words that follow "no"."""
        return "reference"

    def turns(self, item: Item) -> int:
        """How many turns of an answer to that item are judged."""
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
        """The verdict in an answer. record: of its call; its text is without reasoning."""


@dataclass(frozen=True)
class JudgedArm:
    """An arm (or an anchor) of a run and the verdicts on it. answered: its replies."""

    run: RunReader
    judge: JudgeReader
    arm: str
    answered: Sequence[Result]

    @property
    def asked(self) -> int:
        return self.run.settings.asked

    @cached_property
    def verdicts(self) -> list[Judgement]:
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
    answers are compared with a reference. rates: whether a verdict is one rating. logprobs: whether
    preferences are read in log-probabilities, where the judge tells them. references: files of the
    data folder with the reference's answers, the first that is there is taken. games: how often
    each answer is judged; game g of turn t is number games x t + g. even: the value of a draw, None
    without pairs. prompts: reads the prompt's files; the second argument is the reference, by item.
    worth: what a verdict says that its answer is worth, more is better. figures: of an arm.
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


# The reference's answers to AlpacaEval: as released with the dataset, or a part of them.
REFERENCES = (
    "alpaca_eval/model_outputs.json",
    "alpaca_eval/gpt4_1106_preview.json",
    "alpaca_eval/slice50/model_outputs/gpt4_1106_preview.json",
)
OWN_FIT = "LC win rate (own fit)"
DIFFICULTY = ("alpaca_eval/df_gamed.csv", "alpaca_eval/reconstructed/df_gamed.csv")
# What the difficulties of AlpacaEval's instructions were fitted against.
_LC_BASELINE = "gpt4_1106_preview"


@dataclass(frozen=True)
class PairwiseTask(JudgeTask):
    """See `JudgeTask`. reference: what outputs are compared with, by item."""

    template: str
    reference: Mapping[str, str]

    def turns(self, item: Item) -> int:
        """See `JudgeTask`; nothing is compared with what is not there."""
        return int(item.id in self.reference)

    def _comparison(self, question: Question) -> alpaca.OutputPair:
        item = question.item
        return alpaca.OutputPair(item.turns[0], self.reference[item.id], question.replies[0])

    def settled(self, question: Question) -> Judgement | None:
        """See `JudgeTask`; equal outputs are a draw."""
        pair = self._comparison(question)
        if not pair.draw:
            return None
        return Judgement(*question.name, value=alpaca.DRAW, switched=pair.switched)

    def call(self, question: Question, asked: Asked) -> JudgeCall:
        pair = self._comparison(question)
        call = alpaca.judge_call(self.template, pair, logprobs=asked != "text")
        return replace(call, extra={"logprobs": 5}) if asked == "count" else call

    def read(self, question: Question, record: CallRecord, asked: Asked) -> Judgement:
        switched = self._comparison(question).switched
        if asked == "text":
            value = alpaca.preference_from_text(record.text, switched=switched)
        else:
            told = [{"token": token, "logprob": log} for token, log in record.logprobs or ()]
            value = alpaca.preference_from_logprobs(told, switched=switched)
        return Judgement(
            *question.name,
            value=value,
            switched=switched,
            discrete=asked == "text",
            text=record.text,
            key=record.key,
        )


def _pairwise_prompts(run: RunReader, reference: Mapping[str, str]) -> PairwiseTask:
    template = prompt_file(run, "alpaca_eval/judge_prompt_alpaca_eval_clf.txt")
    return PairwiseTask((template,), line_feeds(text_in(template)), reference)


def _pairwise_figures(judged: JudgedArm) -> Figures:
    of_category = {result.item: result.category for result in judged.answered}
    told = alpaca.win_rate(verdict.value for verdict in judged.verdicts)
    controlled, notes = _length_controlled(judged)
    lengths = mean_of(len(result.replies[0]) for result in judged.answered)
    metrics = (
        Metric("win rate", told.win_rate, judged.asked, "%"),
        Metric("discrete win rate", told.discrete_win_rate, judged.asked, "%"),
        *controlled,
        Metric("length", lengths, judged.asked, "characters"),
    )
    values: dict[str | None, list[float | None]] = {name: [] for name in judged.categories()}
    for verdict in judged.verdicts:
        values.setdefault(of_category.get(verdict.item), []).append(verdict.value)
    by_category = {
        name: (Metric("win rate", alpaca.win_rate(values[name]).win_rate, asked, "%"),)
        for name, asked in judged.categories().items()
    }
    return Figures(metrics, by_category, notes)


def _length_controlled(judged: JudgedArm) -> tuple[list[Metric], tuple[str, ...]]:
    """The length-controlled win rate, or why it is withheld."""
    run, reference = judged.run, judged.judge.settings.reference
    if run.dataset is None or run.dataset.name != "alpaca":
        return [], ()
    withheld = "the length-controlled win rate is withheld: "
    if reference is None or reference.name != _LC_BASELINE:
        return [], (f"{withheld}difficulties are known against {_LC_BASELINE} only",)
    file = run.data_file(*DIFFICULTY)
    if file is None:
        return [], (f"{withheld}there is no {DIFFICULTY[0]} (see `moa bench fetch alpaca`)",)
    replies = {result.item: result.replies[0] for result in judged.answered}
    rows = [
        lc.JudgedPair(
            int(verdict.item),
            verdict.value,
            len(judged.reference[verdict.item].replies[0]),
            len(replies[verdict.item]),
        )
        for verdict in judged.verdicts
        if verdict.value is not None
        and verdict.item in replies
        and verdict.item in judged.reference
    ]
    if not rows:
        return [], ()
    try:
        table = csv.DictReader(io.StringIO(text_in(file), newline=""))
        found = lc.length_controlled(rows, lc.baseline(table))
    except (BenchError, UsageError) as error:
        return [], (withheld + error.message,)
    return [Metric(OWN_FIT, found.win_rate, judged.asked, "%")], ()


PAIRWISE = JudgeKind(
    name="pairwise",
    how="pairs, by log-probabilities",
    unit="win rate, %",
    original="gpt-4-1106-preview",
    answers=MODEL_OUTPUTS,
    compares=True,
    logprobs=True,
    references=REFERENCES,
    even=alpaca.DRAW,
    prompts=_pairwise_prompts,
    worth=lambda verdict: alpaca.win_rate([verdict.value]).win_rate.value,
    figures=_pairwise_figures,
)


@dataclass(frozen=True)
class RatingTask(JudgeTask):
    """See `JudgeTask`. references: the reference answers, by item."""

    prompts: Mapping[str, mt_bench.JudgePrompt]
    references: Mapping[str, tuple[str, ...]]

    def turns(self, item: Item) -> int:
        return min(2, len(item.turns))

    def call(self, question: Question, asked: Asked) -> JudgeCall:
        item = question.item
        return mt_bench.judge_call(
            self.prompts,
            item.category or "",
            item.turns,
            question.replies,
            question.turn + 1,
            self.references.get(item.id, ()),
        )

    def read(self, question: Question, record: CallRecord, asked: Asked) -> Judgement:
        said = mt_bench.parse_rating(record.text)
        return rating_in(question, record, said, mt_bench.rating_span(record.text))


def rating_in(
    question: Question, record: CallRecord, said: float | None, span: tuple[int, int] | None
) -> Judgement:
    """The verdict of a judge that rates: the rating that it expects, where it tells the
    probabilities of others.

    said, span: the rating in the text, and where it stands.
    """
    value = said
    if span is not None and said is not None and record.number_logprobs:
        expected = expected_rating(record.text, span, record.number_logprobs, 1, 10)
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
    category = {result.item: result.category or "" for result in judged.answered}
    told = mt_bench.scores(
        mt_bench.Rating(verdict.item, category[verdict.item], verdict.turn + 1, verdict.value)
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
    rates=True,
    prompts=_rating_prompts,
    worth=lambda verdict: verdict.value,
    figures=_rating_figures,
)


@dataclass(frozen=True)
class SkillTask(JudgeTask):
    """See `JudgeTask`."""

    rubric: flask.Rubric

    def call(self, question: Question, asked: Asked) -> JudgeCall:
        item = question.item
        skills = item.fields.get("skill")
        if not isinstance(skills, list) or not all(isinstance(skill, str) for skill in skills):
            raise BenchError(f"item {item.id}: `skill` is not a list of names")
        reply, sample = question.replies[0], item.answer or ""
        return flask.judge_call(self.rubric, item.turns[0], reply, sample, skills)

    def read(self, question: Question, record: CallRecord, asked: Asked) -> Judgement:
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
    """By skill; `mean` is over all scores, those of a review taken as one observation."""
    mean = grouped_mean(
        (score, verdict.item)
        for verdict in judged.verdicts
        for skill, score in verdict.skills.items()
        if flask.short_skill(skill) is not None
    )
    lacking = _without_review(judged)
    metrics = [Metric("mean", mean, mean.n + sum(map(len, lacking)), "of 5")]
    told = flask.skill_scores(verdict.skills for verdict in judged.verdicts)
    for skill, found in told.items():
        missing = sum(skill in skills for skills in lacking)
        metrics.append(Metric(skill, found, found.n + missing, "of 5"))
    return Figures(tuple(metrics))


def _without_review(judged: JudgedArm) -> list[set[str]]:
    """The skills of each item that no review was read of."""
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
