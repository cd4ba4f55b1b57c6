"""MT-Bench, single-answer grading: makes the requests to the judge, reads its ratings, averages.

Source: FastChat's `llm_judge` (Zheng et al. 2023, arXiv:2306.05685), `common.py` and
`show_result.py` (here: upstream). Ratings are from 1 to 10.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from moa_cli.bench.scoring.judging import JudgeCall, fill, require_places, text_field
from moa_cli.bench.scoring.means import Mean, grouped_mean
from moa_cli.core.conversation import Message
from moa_cli.core.errors import BenchError

# The temperature of the answering models by category (FastChat's `temperature_config`). Other
# categories have FastChat's default.
_TEMPERATURES: Final = {
    **dict.fromkeys(("writing", "roleplay"), 0.7),
    **dict.fromkeys(("extraction", "math", "coding", "reasoning", "arena-hard"), 0.0),
    **dict.fromkeys(("stem", "humanities"), 0.1),
}
_DEFAULT_TEMPERATURE: Final = 0.7
_WITH_REFERENCE: Final = frozenset({"math", "reasoning", "coding"})
_RATING = re.compile(r"\[\[(\d+(?:\.\d*)?)\]\]")
_LOOSE_RATING = re.compile(r"\[(\d+(?:\.\d*)?)\]")


@dataclass(frozen=True)
class JudgePrompt:
    """A row of `judge_prompts.jsonl`. template: the template of the user's message."""

    name: str
    system: str
    template: str


@dataclass(frozen=True)
class Rating:
    """One judgement. turn: 1 or 2. score: 1 to 10; None if none can be read."""

    question: str
    category: str
    turn: int
    score: float | None


@dataclass(frozen=True)
class MTBenchScores:
    """Averages over the ratings that could be read.

    average: over all ratings of both turns, as in upstream. Its standard error and those of
    `by_category` take the two turns of a question as one observation.
    """

    turn_1: Mean
    turn_2: Mean
    average: Mean
    by_category: Mapping[str, Mean]


def temperature(category: str) -> float:
    """The temperature at which questions of that category are answered."""
    return _TEMPERATURES.get(category, _DEFAULT_TEMPERATURE)


def needs_reference(category: str) -> bool:
    """Whether the judge is shown a reference answer."""
    return category in _WITH_REFERENCE


def prompt_name(category: str, turn: int) -> str:
    """The name of the judge's prompt for that category and turn (1 or 2)."""
    kind = "single-math-v1" if needs_reference(category) else "single-v1"
    return kind if turn == 1 else f"{kind}-multi-turn"


def judge_prompts(rows: Iterable[Mapping[str, Any]]) -> dict[str, JudgePrompt]:
    """The judge's prompts by name, from the rows of `judge_prompts.jsonl`. Raises BenchError."""
    prompts = {}
    for row in rows:
        name, system, template = (
            text_field(row, field, "a row of judge_prompts.jsonl")
            for field in ("name", "system_prompt", "prompt_template")
        )
        prompts[name] = JudgePrompt(name, system, template)
    return prompts


def judge_call(
    prompts: Mapping[str, JudgePrompt],
    category: str,
    questions: Sequence[str],
    answers: Sequence[str],
    turn: int,
    reference: Sequence[str] = (),
) -> JudgeCall:
    """The request for the rating of one turn, 1 or 2. Raises BenchError if a text is missing.

    questions, answers: the texts of both turns; for turn 1 the first is enough. reference: the
    reference answers, which are needed and used only if `needs_reference`.
    """
    shown = reference if needs_reference(category) else ()
    if len(questions) < turn or len(answers) < turn:
        raise BenchError(f"turn {turn} cannot be judged: it has no question or no answer")
    if needs_reference(category) and len(reference) < turn:
        raise BenchError(f"a question of category {category!r} has no reference answer")
    name = prompt_name(category, turn)
    if name not in prompts:
        raise BenchError(f"judge_prompts.jsonl has no prompt {name!r}")
    values: dict[str, str] = {}
    if turn == 1:
        values = {"question": questions[0], "answer": answers[0]}
    else:
        for i, (question, answer) in enumerate(zip(questions, answers, strict=False), 1):
            values |= {f"question_{i}": question, f"answer_{i}": answer}
    values |= {f"ref_answer_{i}": text for i, text in enumerate(shown[:turn], 1)}
    prompt = prompts[name]
    require_places(prompt.template, values)
    messages = (Message("system", prompt.system), Message("user", fill(prompt.template, values)))
    return JudgeCall(messages, temperature=0.0, max_tokens=2048)


def parse_rating(judgement: str) -> float | None:
    """The first `[[x]]` of a judgement, else the first `[x]`; None (-1 in upstream) without one.

    As in upstream, ratings outside of 1 to 10 are kept.
    """
    span = rating_span(judgement)
    rating = float(judgement[slice(*span)]) if span else math.inf
    return rating if math.isfinite(rating) else None


def rating_span(judgement: str) -> tuple[int, int] | None:
    """The place of the rating's number in a judgement; None without one."""
    found = _RATING.search(judgement) or _LOOSE_RATING.search(judgement)
    return found.span(1) if found else None


def scores(ratings: Iterable[Rating]) -> MTBenchScores:
    told = list(ratings)
    return MTBenchScores(
        turn_1=_mean(rating for rating in told if rating.turn == 1),
        turn_2=_mean(rating for rating in told if rating.turn == 2),
        average=_mean(told),
        by_category={
            category: _mean(rating for rating in told if rating.category == category)
            for category in sorted({rating.category for rating in told})
        },
    )


def _mean(ratings: Iterable[Rating]) -> Mean:
    return grouped_mean(
        (rating.score, rating.question) for rating in ratings if rating.score is not None
    )
