"""FLASK: makes the requests to the judge of twelve skills, reads its reviews, averages by skill.

Source: FLASK (Ye et al. 2023, arXiv:2307.10928), `gpt_review/gpt4_eval.py` and
`aggregate_skill.py`, in the version that the Mixture-of-Agents authors ran (here: upstream). Scores
are from 1 to 5.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, TypeAlias

from moa_cli.bench.scoring.judging import JudgeCall, fill, require_places, text_field
from moa_cli.bench.scoring.means import Mean, grouped_mean
from moa_cli.core.conversation import Message
from moa_cli.core.errors import BenchError

# The short names of the skills, in the order of upstream's table.
SKILLS: Final = (
    "robustness",
    "correctness",
    "efficiency",
    "factuality",
    "commonsense",
    "comprehension",
    "insightfulness",
    "completeness",
    "metacognition",
    "readability",
    "conciseness",
    "harmlessness",
)
_DEFAULTS: Final = ("prompt1", "prompt2")
_PLACES: Final = (*_DEFAULTS, "skills", "question", "sample_answer", "response")
_NOT_APPLICABLE: Final = frozenset({"na", "n/a", "not applicable"})
# The most characters of a dictionary of scores. Twelve scores take far fewer, and a longer text
# could exhaust the parser's stack.
_LONGEST_LITERAL: Final = 4000
# Scores by skill, with the judge's names of skills in lower case; None is "not applicable".
Scores: TypeAlias = dict[str, float | None]


@dataclass(frozen=True)
class Rubric:
    """The judge's prompt and the skills that it may be asked about.

    skills: the description of each skill, by its full name.
    """

    system: str
    template: str
    skills: Mapping[str, str]


def rubric(
    prompts: Sequence[Mapping[str, Any]],
    reviewers: Sequence[Mapping[str, Any]],
    skills: Iterable[Mapping[str, Any]],
) -> Rubric:
    """The rubric of the second reviewer, which upstream uses. Its prompt has a sample answer.

    The arguments are the rows of `prompt.jsonl`, `reviewer.jsonl` and `skillset_description.json`.
    Raises BenchError if they have another format.
    """
    try:
        chosen = reviewers[1]["prompt_id"]
        prompt = next(row for row in prompts if row["prompt_id"] == chosen)
        template = text_field(prompt, "prompt_template", "a row of prompt.jsonl")
        require_places(template, _PLACES)
        return Rubric(
            system=text_field(prompt, "system_prompt", "a row of prompt.jsonl"),
            template=fill(template, {name: prompt["defaults"][name] for name in _DEFAULTS}),
            skills={str(row["Skill"]): _skill_text(row) for row in skills},
        )
    except (IndexError, KeyError, StopIteration, TypeError):
        raise BenchError(
            "FLASK's files for the judge are not in upstream's form",
            hint="fetch the dataset again",
        ) from None


def _skill_text(row: Mapping[str, Any]) -> str:
    scoring = "".join(f"\nScore {i}: {row['Scoring'][str(i)]}" for i in range(1, 6))
    return f"\n{row['Skill']}: {row['Criteria']}{scoring}\n\n"


def judge_call(
    known: Rubric, instruction: str, response: str, sample_answer: str, skills: Sequence[str]
) -> JudgeCall:
    """The request for the review of one response.

    Upstream sets temperature 0 and 1024 tokens, but its client drops both. skills: the skills of
    the item, in its order. As in upstream, each means the first skill whose name contains it; if
    there is none, it is left out.
    """
    texts = [
        next((text for name, text in known.skills.items() if skill in name), "") for skill in skills
    ]
    values = {
        "skills": "".join(texts),
        "question": instruction,
        "sample_answer": sample_answer,
        "response": response,
    }
    messages = (Message("system", known.system), Message("user", fill(known.template, values)))
    return JudgeCall(messages, temperature=0.0, max_tokens=1024)


def parse_review(review: str) -> Scores:
    """The scores of a review: its last `{…}`, read as a Python dictionary with spaces for `_`.

    Values that are neither a number nor "not applicable" are left out. Empty if the review cannot
    be read.
    """
    literal = _last_braces(review).replace("\n", "").replace("_", " ").lower()
    scores: Scores = {}
    for name, value in _dictionary(literal).items():
        number = _number(value)
        declined = isinstance(value, str) and value in _NOT_APPLICABLE
        if isinstance(name, str) and (declined or number is not None):
            scores[name] = number
    return scores


def _last_braces(text: str) -> str:
    """The last match of `{[^}]+}`; "" without one. Unlike the pattern, this takes linear time."""
    last = ""
    for chunk in text.split("}")[:-1]:
        start = chunk.find("{")
        if 0 <= start < len(chunk) - 1:
            last = chunk[start:] + "}"
    return last


def _dictionary(literal: str) -> Mapping[Any, Any]:
    if len(literal) > _LONGEST_LITERAL:
        return {}
    try:
        with warnings.catch_warnings():
            # A warning about a backslash in the judge's text would not help the user.
            warnings.simplefilter("ignore")
            value = ast.literal_eval(literal)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    if not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def short_skill(name: str) -> str | None:
    """The name of a skill in `SKILLS`, such as `robustness`; None if it is none of them."""
    words = name.lower().split(" ")
    if "logical" in name.lower():
        words = words[1:]
    return words[0] if words and words[0] in SKILLS else None


def skill_scores(
    reviews: Iterable[Mapping[str, float | None]], items: Iterable[Hashable] | None = None
) -> dict[str, Mean]:
    """Averages over all reviews for each skill that has scores, in the order of `SKILLS`.

    items: the item of each review, if items have several; those of an item are one observation.
    """
    by_skill: dict[str | None, list[tuple[float, Hashable]]] = defaultdict(list)
    for review, item in zip(reviews, count() if items is None else items, strict=False):
        for name, score in review.items():
            if score is not None:
                by_skill[short_skill(name)].append((score, item))
    return {skill: grouped_mean(by_skill[skill]) for skill in SKILLS if skill in by_skill}
