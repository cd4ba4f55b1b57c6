"""Answers scored from 1 to 5 for each of their skills, as FLASK does it (Ye et al. 2023,
arXiv:2307.10928)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moa_cli.bench.data.items import rows_of_json, rows_of_lines
from moa_cli.bench.data.released import FLASK
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
from moa_cli.bench.scoring import flask
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.bench.scoring.means import Figures, Metric, mean_of
from moa_cli.core.errors import BenchError


@dataclass(frozen=True)
class SkillTask(JudgeTask):
    """See `JudgeTask`."""

    rubric: flask.Rubric

    def call(self, question: Question, asked: Asked) -> JudgeCall:
        """See `JudgeTask`."""
        item = question.item
        skills = item.fields.get("skill")
        if not isinstance(skills, list) or not all(isinstance(skill, str) for skill in skills):
            raise BenchError(f"item {item.id}: `skill` is not a list of names")
        reply, sample = question.replies[0], item.answer or ""
        return flask.judge_call(self.rubric, item.turns[0], reply, sample, skills)

    def read(self, question: Question, record: CallRecord, asked: Asked) -> Judgement:
        """See `JudgeTask`."""
        told = flask.parse_review(record.text).scores
        skills = {name: score for name, score in told.items() if score is not None}
        return Judgement(*question.name, skills=skills, text=record.text, key=record.key)


def _prompts(run: RunReader, reference: Mapping[str, str]) -> SkillTask:
    del reference
    names = ("prompt.jsonl", "reviewer.jsonl", "skillset_description.json")
    files = tuple(prompt_file(run, f"flask/{name}") for name in names)
    prompts, reviewers = ([row.fields for row in rows_of_lines(file)] for file in files[:2])
    skills = [row.fields for row in rows_of_json(files[2])]
    return SkillTask(files, flask.rubric(prompts, reviewers, skills))


def _figures(judged: JudgedArm) -> Figures:
    """By skill; `mean` is over all scores, those of a review taken as one observation."""
    told = flask.skill_scores(flask.Review(verdict.skills) for verdict in judged.verdicts)
    scores = [
        (score, verdict.item)
        for verdict in judged.verdicts
        for skill, score in verdict.skills.items()
        if flask.short_skill(skill) is not None
    ]
    mean = mean_of((score for score, _ in scores), groups=[item for _, item in scores])
    lacking = _without_review(judged)
    metrics = [Metric("mean", mean, mean.n + sum(map(len, lacking)), "of 5")]
    for skill, found in told.by_skill.items():
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
        {short for skill in item.fields.get("skill", ()) if (short := _short(skill))}
        for item in judged.run.known_items or ()
        if item.id not in read
    ]


def _short(skill: object) -> str | None:
    return flask.short_skill(skill) if isinstance(skill, str) else None


SKILLS = JudgeKind(
    name="skills",
    how="skills, each from 1 to 5",
    unit="mean skill, of 5",
    original="gpt-4-0613",
    answers=FLASK,
    prompts=_prompts,
    worth=lambda verdict: mean_of(verdict.skills.values()).value,
    figures=_figures,
)
