"""Arena-Hard v0.1: makes the requests to the pairwise judge, reads its verdicts, computes scores.

Source: Li et al. 2024, "From Crowdsourced Data to High-Quality Benchmarks" (arXiv:2406.11939), and
the code with which its repository `lmarena/arena-hard-auto` (here: upstream) made its leaderboard.

Two games are judged for each answer. In the first the baseline is assistant A, in the second the
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

# The value of each label for assistant A, from 2 (significantly better) to -2 (significantly
# worse); 0 is a tie.
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
# The unit of upstream's ratings: a difference of one multiplies the odds by ten.
_UNIT: Final = math.log(10)
_MOST_KEPT: Final = 20_000

_CODE: Final = re.compile("```([^`]*)```")
_HEADERS: Final = re.compile(r"^#{1,6}\s", re.MULTILINE)
_LISTS: Final = re.compile(r"^\s*(?:\d+\.|[-*+])\s", re.MULTILINE)
_BOLD: Final = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


@dataclass(frozen=True)
class ArenaPrompt:
    """The judge's prompt. template: the template of the user's message, with the places
    `{question}`, `{answer_a}` and `{answer_b}`."""

    system: str
    template: str


@dataclass(frozen=True)
class Battle:
    """The verdict of one game.

    item: the item that was answered; the two games of an item belong together. strength: the
    verdict on the model, from -2 (significantly worse than the baseline) to 2 (significantly
    better). prompt: the id in the dataset of a prompt that was answered several times; "" takes
    `item`. Standard errors take the battles of a prompt as one observation.
    """

    item: str
    strength: int
    prompt: str = ""

    @property
    def group(self) -> str:
        return self.prompt or self.item

    @property
    def weight(self) -> int:
        """How many battles this verdict counts as."""
        return _STRONG_WEIGHT if abs(self.strength) > 1 else 1

    @property
    def won(self) -> float:
        """The model's share: 1 is a win, 0.5 a tie, 0 a loss."""
        return (1 + (self.strength > 0) - (self.strength < 0)) / 2


@dataclass(frozen=True)
class ArenaScore:
    """A model's score.

    score: in percent; its standard error takes the battles of a prompt as one observation, and its
    n counts games. interval: the 95 % interval, in percent, by upstream's bootstrap over battles;
    None without battles. agreement: the percentage of items whose two games have the same winner.
    """

    score: Mean
    interval: tuple[float, float] | None
    agreement: Mean


@dataclass(frozen=True)
class AnswerStyle:
    """The style of an answer. tokens: estimated. headers, lists, bold: how much of this markup is
    outside of code."""

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
    """The scores that models would have if all answers had the same style.

    scores: in percent, by model. The standard errors take the battles of a prompt as one
    observation. weights: how much more tokens, headers, lists and bold text help the baseline's
    answer, for a standard deviation of each feature.
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
    """The request for one game. switched: whether the model is assistant A, as in the second
    game."""
    first, second = (answer, baseline) if switched else (baseline, answer)
    values = {"question": question, "answer_a": first, "answer_b": second}
    messages = (
        Message("system", prompt.system),
        Message("user", fill(prompt.template, values)),
    )
    return JudgeCall(messages, temperature=0.0, max_tokens=4096)


def parse_verdict(text: str, *, switched: bool) -> int | None:
    """The verdict on the model in a judge's answer, -2 to 2; None if it has no valid label. See
    `judge_call` for `switched`."""
    label = verdict_label(text)
    if label is None:
        return None
    return _LABELS[label] if switched else -_LABELS[label]


def verdict_label(text: str) -> str | None:
    """The label in a judge's answer, such as `A>>B`: the last one in double brackets, else the last
    one in single brackets. None if there is none, or it is not valid."""
    upper = text.upper()
    for pattern in _LABEL:
        if found := pattern.findall(upper):
            label: str = found[-1]
            return label if label in _LABELS else None
    return None


def score(battles: Sequence[Battle], *, seed: str) -> ArenaScore:
    """A model's score against the baseline.

    With a single opponent, the most likely Bradley-Terry model gives the share of battles that the
    model won. So the score is a weighted share and needs no fit.

    battles: the games whose verdicts could be read. seed: the seed of the bootstrap, so that the
    same battles always give the same interval.
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
    """The middle 95 % of the means of ROUNDS samples with replacement. Like NumPy, it interpolates
    between the two nearest values."""
    if not values:
        return None
    draw = random.Random(f"arena {seed}")  # noqa: S311
    count = len(values)
    means = [math.fsum(draw.choices(values, k=count)) / count for _ in range(ROUNDS)]
    low, *_, high = quantiles(means, n=40, method="inclusive")
    return low, high


# Cached, because a report asks for the same answers, and for the same fit, once for each arm.
@lru_cache(_MOST_KEPT)
def style_of(answer: str) -> AnswerStyle:
    """The style of an answer, by the markup that upstream counts."""
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
    """The scores that models would have if all answers had the same style.

    Upstream's model is a logistic regression. The target is who wins. The features are the ratings
    of all models and four features of style. Each feature of style is the difference between both
    answers, divided by one plus their sum, and standardised over all battles. All weights have an
    L2 penalty of one half, and each battle counts twice.

    battles: the battles of all models that are compared with the baseline, because the effect of
    style is fitted over all of them.
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
    """A feature of style for each battle, standardised. The mean and the standard deviation count
    each battle by its weight."""
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
    """The covariance of the weights by the cluster-robust sandwich estimator. The rows of a prompt
    are one cluster. inverse: the inverse of the loss's second derivative."""
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
