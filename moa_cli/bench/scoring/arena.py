"""Arena-Hard v0.1: what the pairwise judge is asked, how its verdict is read, and scores.

Source: Li et al. 2024, "From Crowdsourced Data to High-Quality Benchmarks" (arXiv:2406.11939), and
the evaluation that its repository `lmarena/arena-hard-auto` published its leaderboard with.

Two games are judged for each answer: in the first the baseline is assistant A, in the second the
model is. A verdict of "significantly better" counts as three battles, any other as one, and a tie
is half a win. The score is the model's chance to beat the baseline by a Bradley-Terry model.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import quantiles
from typing import Final

from moa_cli.bench.scoring.judging import JudgeCall, fill, require_places
from moa_cli.bench.scoring.logistic import Matrix, Observation, fitted, logistic, times
from moa_cli.bench.scoring.means import Mean, grouped_mean
from moa_cli.core.conversation import Message
from moa_cli.core.errors import BenchError
from moa_cli.core.tokens import estimate_tokens

# What a verdict says of assistant A: 2 is significantly better, 0 a tie, -2 significantly worse.
_LABELS: Final[Mapping[str, int]] = {
    "A>>B": 2,
    "A>B": 1,
    "A=B": 0,
    "B=A": 0,
    "A<B": -1,
    "B>A": -1,
    "A<<B": -2,
    "B>>A": -2,
    "B<A": 1,
    "B<<A": 2,
}
_LABEL: Final = (re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]"))
_STRONG_WEIGHT: Final = 3
GAMES: Final = 2
ROUNDS: Final = 100
# Upstream's ratings are in units in which ten times the odds is one.
_UNIT: Final = math.log(10)
_MOST_KEPT: Final = 20_000

_CODE: Final = re.compile("```([^`]*)```")
_HEADERS: Final = re.compile(r"^#{1,6}\s", re.MULTILINE)
_LISTS: Final = re.compile(r"^\s*(?:\d+\.|[-*+])\s", re.MULTILINE)
_BOLD: Final = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


@dataclass(frozen=True)
class ArenaPrompt:
    """The judge's prompt. template: of the user's message, with the places `{question}`,
    `{answer_a}` and `{answer_b}`."""

    system: str
    template: str


@dataclass(frozen=True)
class Battle:
    """The verdict of one game.

    item: what was answered: its games are told by it. strength: what the judge says of the model,
    from -2 (significantly worse than the baseline) to 2 (significantly better). prompt: the
    prompt's id, if it was answered several times; else `item`. Standard errors take the battles of
    a prompt as one observation.
    """

    item: str
    strength: int
    prompt: str = ""

    @property
    def group(self) -> str:
        return self.prompt or self.item

    @property
    def weight(self) -> int:
        """How many battles it counts as."""
        return _STRONG_WEIGHT if abs(self.strength) > 1 else 1

    @property
    def won(self) -> float:
        """The model's share: 1 is a win, 0.5 a tie, 0 a loss."""
        return (1 + (self.strength > 0) - (self.strength < 0)) / 2


@dataclass(frozen=True)
class ArenaScore:
    """A model's score.

    score: percent, with a standard error that takes the battles of one prompt as one observation;
    n counts games. interval: percent, of 95 % by upstream's bootstrap over battles; None without
    battles. agreement: percent of prompts whose two games agree on the winner.
    """

    score: Mean
    interval: tuple[float, float] | None
    agreement: Mean


@dataclass(frozen=True)
class AnswerStyle:
    """What an answer looks like. tokens: estimated. The counts are of markup outside code."""

    tokens: int
    headers: int
    lists: int
    bold: int


@dataclass(frozen=True)
class StyledBattle:
    model: str
    battle: Battle
    baseline: AnswerStyle
    answer: AnswerStyle


@dataclass(frozen=True)
class StyleControlled:
    """What models would score if all answers had the baseline's style.

    scores: percent, by model. The standard error takes the battles of one prompt as one
    observation. weights: what tokens, headers, lists and bold text of the baseline's answer do for
    it, each feature divided by its standard deviation.
    """

    scores: Mapping[str, Mean]
    weights: tuple[float, ...]


def arena_prompt(text: str) -> ArenaPrompt:
    """The judge's prompt in a JSON object with `system` and `template`. Raises BenchError."""
    try:
        table = json.loads(text)
        prompt = ArenaPrompt(str(table["system"]), str(table["template"]))
    except (ValueError, LookupError, TypeError):
        raise BenchError(
            "the judge's prompt is not a JSON object with `system` and `template`"
        ) from None
    require_places(prompt.template, ("question", "answer_a", "answer_b"))
    return prompt


def judge_call(
    prompt: ArenaPrompt, question: str, baseline: str, answer: str, *, switched: bool
) -> JudgeCall:
    """The request for one game. switched: whether the model is assistant A, as in the second."""
    first, second = (answer, baseline) if switched else (baseline, answer)
    values = {"question": question, "answer_a": first, "answer_b": second}
    messages = (
        Message("system", prompt.system),
        Message("user", fill(prompt.template, values)),
    )
    return JudgeCall(messages, temperature=0.0, max_tokens=4096)


def parse_verdict(text: str, *, switched: bool) -> int | None:
    """What a judge's answer says of the model, -2 to 2; None if it has no label that counts. See
    `judge_call` for `switched`."""
    label = verdict_label(text)
    if label is None:
        return None
    return _LABELS[label] if switched else -_LABELS[label]


def verdict_label(text: str) -> str | None:
    """The label of a judge's answer, such as `A>>B`: the last one in double brackets, else the last
    one in single brackets. None if there is none, or it is none that counts."""
    upper = text.upper()
    for pattern in _LABEL:
        if found := pattern.findall(upper):
            label: str = found[-1]
            return label if label in _LABELS else None
    return None


def score(battles: Sequence[Battle], *, seed: str) -> ArenaScore:
    """A model's score against the baseline.

    If all battles are against one opponent, the most likely Bradley-Terry model wins as often as
    the model did, so the score is a weighted share and needs no fit.

    battles: those games whose verdicts could be read. seed: of the bootstrap, so that the same
    battles always have the same interval.
    """
    rows = [battle for battle in battles for _ in range(battle.weight)]
    known = grouped_mean((100 * row.won, row.group) for row in rows)
    by_item: dict[tuple[str, str], list[float]] = {}
    for battle in battles:
        by_item.setdefault((battle.item, battle.group), []).append(battle.won)
    agreed = [
        (100.0 * (games[0] == games[1]), group)
        for (_, group), games in by_item.items()
        if len(games) == GAMES
    ]
    return ArenaScore(
        score=Mean(known.value, known.standard_error, len(battles)),
        interval=_bootstrap([100 * row.won for row in rows], seed),
        agreement=grouped_mean(agreed),
    )


def _bootstrap(values: Sequence[float], seed: str) -> tuple[float, float] | None:
    """The middle 95 % of the means of ROUNDS samples with replacement, between the two nearest
    values as numpy has it."""
    if not values:
        return None
    draw = random.Random(f"arena {seed}")  # noqa: S311
    count = len(values)
    means = [math.fsum(draw.choices(values, k=count)) / count for _ in range(ROUNDS)]
    low, *_, high = quantiles(means, n=40, method="inclusive")
    return low, high


# A report asks for the same answers, and for the same fit, once for each arm.
@lru_cache(_MOST_KEPT)
def style_of(answer: str) -> AnswerStyle:
    """What an answer looks like, with the markup that upstream counts."""
    text = answer
    for block in _CODE.findall(answer):
        text = text.replace(block, "")
    return AnswerStyle(
        tokens=estimate_tokens(answer),
        headers=len(_HEADERS.findall(text)),
        lists=len(_LISTS.findall(text)),
        bold=len(_BOLD.findall(text)),
    )


_COUNTED: Final = ("tokens", "headers", "lists", "bold")


@lru_cache(1)
def style_controlled(battles: tuple[StyledBattle, ...]) -> StyleControlled:
    """Scores as they would be at equal styles.

    Upstream's model: a logistic regression of who wins on ratings of all models and on four
    features of style, each the difference of both answers over their sum and one, standardised over
    all battles; with an L2 penalty of one half on all weights, where each battle counts twice.

    battles: of all models that are compared with the baseline: what style does is learnt from all.
    """
    models = list(dict.fromkeys(styled.model for styled in battles))
    if not models:
        return StyleControlled({}, (0.0,) * len(_COUNTED))
    first_style = len(models) + 1
    columns = [_standardised(battles, name) for name in _COUNTED]
    places = {model: number for number, model in enumerate(models, 1)}
    rows = []
    for number, styled in enumerate(battles):
        features = [(0, _UNIT), (places[styled.model], -_UNIT)]
        features += [(first_style + k, column[number]) for k, column in enumerate(columns)]
        battle = styled.battle
        rows.append(Observation(tuple(features), 1 - battle.won, 2.0 * battle.weight))
    weights, inverse = fitted(rows, first_style + len(_COUNTED), ridge=1.0)
    spread = _robust(rows, [styled.battle.group for styled in battles], weights, inverse)
    scores = {}
    for model, place in places.items():
        share = logistic(_UNIT * (weights[place] - weights[0]))
        variance = spread[place][place] + spread[0][0] - 2 * spread[place][0]
        error = 100 * share * (1 - share) * _UNIT * math.sqrt(max(variance, 0.0))
        games = sum(styled.model == model for styled in battles)
        scores[model] = Mean(100 * share, error, games)
    return StyleControlled(scores, tuple(weights[first_style:]))


def _standardised(battles: Sequence[StyledBattle], name: str) -> list[float]:
    """A feature of style for each battle; its mean and spread count a battle by its weight."""
    values = []
    for styled in battles:
        ours, theirs = getattr(styled.answer, name), getattr(styled.baseline, name)
        values.append((theirs - ours) / (theirs + ours + 1))
    counts = [styled.battle.weight for styled in battles]
    total = sum(counts)
    mean = math.fsum(n * value for n, value in zip(counts, values, strict=True)) / total
    squares = (n * (value - mean) ** 2 for n, value in zip(counts, values, strict=True))
    deviation = math.sqrt(math.fsum(squares) / total)
    return [(value - mean) / deviation if deviation else 0.0 for value in values]


def _robust(
    rows: Sequence[Observation], groups: Sequence[str], weights: Sequence[float], inverse: Matrix
) -> Matrix:
    """The covariance of the weights, the rows of one prompt taken together: what each prompt
    pulls at the weights, carried through the curvature (the sandwich estimator)."""
    size = len(weights)
    pulls: dict[str, list[float]] = {}
    for row, group in zip(rows, groups, strict=True):
        lack = row.weight * row.residual(weights)
        pull = pulls.setdefault(group, [0.0] * size)
        for place, value in row.features:
            pull[place] += lack * value
    moves = [times(inverse, pull) for pull in pulls.values()]
    count = len(moves)
    scale = count / (count - 1) if count > 1 else 1.0
    return [
        [scale * math.fsum(move[i] * move[j] for move in moves) for j in range(size)]
        for i in range(size)
    ]
