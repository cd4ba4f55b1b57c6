"""The three judges: by pairs (AlpacaEval 2), by ratings (MT-Bench), by skills (FLASK)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from moa_cli.bench.data.datasets import data_file
from moa_cli.bench.data.items import Item, rows_of_json, rows_of_lines, text_in
from moa_cli.bench.judge.judgements import Judgement
from moa_cli.bench.judge.released import fastchat_answers
from moa_cli.bench.run.journal import Entry
from moa_cli.bench.scoring import alpaca, flask, mt_bench
from moa_cli.bench.scoring.judging import JudgeCall
from moa_cli.core.errors import BenchError
from moa_cli.core.text_files import line_feeds

__all__ = ["KIND_OF", "Asked", "Kind", "Pairwise", "Question", "files_told", "read_kind"]

# How preferences are asked for: with OpenAI's fields for log-probabilities, with Together's, or
# as a text.
Asked = Literal["logprobs", "count", "text"]

# The kind of judge by dataset; a user's own prompts are judged by pairs.
KIND_OF: Mapping[str, str] = {"alpaca": "pairwise", "mt": "rating", "flask": "skills"}


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


class Kind(Protocol):
    """A way to judge."""

    @property
    def name(self) -> str:
        """`pairwise`, `rating` or `skills`."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Those of the judge's prompt, and of what goes with it."""

    def turns(self, item: Item) -> int:
        """How many judgements an answer to that item takes."""

    def settled(self, question: Question) -> Judgement | None:
        """The verdict, where no judge need be asked."""

    def call(self, question: Question, asked: Asked) -> JudgeCall:
        """The request. Raises BenchError where something is missing for it."""

    def read(self, question: Question, entry: Entry, asked: Asked) -> Judgement:
        """The verdict in an answer."""


@dataclass(frozen=True)
class Pairwise:
    """reference: what outputs are compared with, by item."""

    template: str
    reference: Mapping[str, str]
    files: tuple[Path, ...] = ()
    name: str = "pairwise"

    def turns(self, item: Item) -> int:
        """See `Kind`; nothing is compared with what is not there."""
        return int(item.id in self.reference)

    def _comparison(self, question: Question) -> alpaca.Comparison:
        item = question.item
        return alpaca.Comparison(item.turns[0], self.reference[item.id], question.replies[0])

    def settled(self, question: Question) -> Judgement | None:
        """See `Kind`; equal outputs are a draw."""
        one = self._comparison(question)
        if not one.draw:
            return None
        return Judgement(*question.name, value=alpaca.DRAW, switched=one.switched)

    def call(self, question: Question, asked: Asked) -> JudgeCall:
        """See `Kind`."""
        comparison = self._comparison(question)
        call = alpaca.judge_call(self.template, comparison, logprobs=asked != "text")
        return replace(call, extra={"logprobs": 5}) if asked == "count" else call

    def read(self, question: Question, entry: Entry, asked: Asked) -> Judgement:
        """See `Kind`."""
        switched = self._comparison(question).switched
        if asked == "text":
            value = alpaca.preference_from_text(entry.text, switched=switched)
        else:
            told = [{"token": token, "logprob": one} for token, one in entry.logprobs or ()]
            value = alpaca.preference_from_logprobs(told, switched=switched)
        return Judgement(
            *question.name,
            value=value,
            switched=switched,
            discrete=asked == "text",
            text=entry.text,
            key=entry.key,
        )


@dataclass(frozen=True)
class Ratings:
    """references: the reference answers, by item."""

    prompts: Mapping[str, mt_bench.JudgePrompt]
    references: Mapping[str, tuple[str, ...]]
    files: tuple[Path, ...]
    name: str = "rating"

    def turns(self, item: Item) -> int:
        """See `Kind`."""
        return min(2, len(item.turns))

    def settled(self, question: Question) -> Judgement | None:
        """See `Kind`."""

    def call(self, question: Question, asked: Asked) -> JudgeCall:
        """See `Kind`."""
        item = question.item
        return mt_bench.judge_call(
            self.prompts,
            item.category or "",
            item.turns,
            question.replies,
            1 if question.turn == 0 else 2,
            self.references.get(item.id, ()),
        )

    def read(self, question: Question, entry: Entry, asked: Asked) -> Judgement:
        """See `Kind`."""
        value = mt_bench.parse_rating(entry.text)
        return Judgement(*question.name, value=value, text=entry.text, key=entry.key)


@dataclass(frozen=True)
class Skills:
    """See `Kind`."""

    rubric: flask.Rubric
    files: tuple[Path, ...]
    name: str = "skills"

    def turns(self, item: Item) -> int:
        """See `Kind`."""
        return 1

    def settled(self, question: Question) -> Judgement | None:
        """See `Kind`."""

    def call(self, question: Question, asked: Asked) -> JudgeCall:
        """See `Kind`."""
        item = question.item
        skills = item.fields.get("skill")
        if not isinstance(skills, list) or not all(isinstance(one, str) for one in skills):
            raise BenchError(f"item {item.id}: `skill` is no list of names")
        reply, sample = question.replies[0], item.answer or ""
        return flask.judge_call(self.rubric, item.turns[0], reply, sample, skills)

    def read(self, question: Question, entry: Entry, asked: Asked) -> Judgement:
        """See `Kind`."""
        told = flask.parse_review(entry.text).scores
        skills = {name: score for name, score in told.items() if score is not None}
        return Judgement(*question.name, skills=skills, text=entry.text, key=entry.key)


_PROMPT = "alpaca_eval/judge_prompt_alpaca_eval_clf.txt"


def read_kind(settings: Mapping[str, Any], data: Path | None, reference: Mapping[str, str]) -> Kind:
    """The judge of a run.

    settings: what its run.json says. data: see `data_file`. reference: for pairs.
    Raises BenchError if a file is missing or wrong.
    """
    name = settings["dataset"]["name"] if settings["dataset"]["known"] else "alpaca"

    def find(one: str) -> Path:
        found = data_file(settings, data, one)
        if found is None:
            hint = f"`moa bench fetch {name}` gets it; --data names another folder"
            raise BenchError(f"there is no {one}", hint=hint)
        return found

    if name == "mt":
        prompts = find("mt_bench/judge_prompts.jsonl")
        answers = find("mt_bench/reference_answer_gpt-4.jsonl")
        return Ratings(
            mt_bench.judge_prompts(one.fields for one in rows_of_lines(prompts)),
            fastchat_answers(answers)[1],
            (prompts, answers),
        )
    if name == "flask":
        files = tuple(
            find(f"flask/{one}")
            for one in ("prompt.jsonl", "reviewer.jsonl", "skillset_description.json")
        )
        prompt, reviewer = ([one.fields for one in rows_of_lines(file)] for file in files[:2])
        skills = [one.fields for one in rows_of_json(files[2])]
        return Skills(flask.rubric(prompt, reviewer, skills), files)
    template = find(_PROMPT)
    return Pairwise(line_feeds(text_in(template)), reference, (template,))


def files_told(files: Sequence[Path]) -> dict[str, str]:
    """The SHA-256 of each file, by its name."""
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in files}
