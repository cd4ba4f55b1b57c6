"""Length-controlled win rates of AlpacaEval 2: what the win rate would be at equal lengths.

Source: Dubois et al. 2024, "Length-Controlled AlpacaEval" (arXiv:2404.04475), section 3, and
`length_controlled_v1` of alpaca_eval. A logistic model of the preference,

    logit p = a tanh(d / s) + b difficulty + c

with d the difference of lengths (characters, reference minus model), s its standard deviation
and the difficulty of each instruction as alpaca_eval fitted it. The fit includes alpaca_eval's
judgements of two "gamed" models (the reference, told to be verbose or concise), with weight 0.1
each and without c. The length-controlled win rate is the mean of p at d = 0.

This approximates alpaca_eval's fit, which chooses the strength of an L1 penalty by
cross-validation; this fit has almost no penalty. Over 20 models with 805 judgements each, the two
differ by at most 0.1 points; over 50 judgements they differed by 1.2 points.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from moa_cli.bench.scoring.alpaca import DRAW
from moa_cli.bench.scoring.logistic import Observation, dot, fitted, logistic, times
from moa_cli.bench.scoring.means import Mean, mean_of
from moa_cli.core.errors import BenchError

_GAMED_WEIGHT: Final = 0.1
# A small penalty, which keeps the fit finite if a model wins or loses every comparison.
_RIDGE: Final = 1e-3


@dataclass(frozen=True)
class Baseline:
    """The data of alpaca_eval's `df_gamed.csv`, which does not depend on the model.

    difficulty: by the instruction's index in the dataset. gamed: the judgements of gamed models.
    """

    difficulty: Mapping[int, float]
    gamed: tuple[Observation, ...]


@dataclass(frozen=True)
class JudgedPair:
    """One comparison. index: the index of the instruction in the whole dataset, also for a subset.
    preference: from 1 to 2; 0 is a draw. Lengths are in characters.
    """

    index: int
    preference: float
    reference_length: int
    length: int


@dataclass(frozen=True)
class LengthControlled:
    """A length-controlled win rate.

    win_rate: in percent; its standard error includes the noise of the judgements that are fitted
    (delta method). published_standard_error: in percent, as alpaca_eval and its leaderboard define
    it: the spread of the predictions over instructions, as if the fit were exact. It is about half
    of the standard error that resampling gives. weights: the weights of length, difficulty and the
    intercept.
    """

    win_rate: Mean
    published_standard_error: float | None
    weights: Sequence[float]


def baseline(rows: Iterable[Mapping[str, str]]) -> Baseline:
    """The baseline from the rows of alpaca_eval's `df_gamed.csv`. Raises BenchError."""
    difficulty: dict[int, float] = {}
    gamed = []
    try:
        for row in rows:
            hardness = float(row["instruction_difficulty"])
            difficulty.setdefault(int(row["index"]), hardness)
            features = ((0, math.tanh(float(row["std_delta_len"]))), (1, hardness))
            gamed.append(Observation(features, float(row["preference"]), _GAMED_WEIGHT))
    except (KeyError, TypeError, ValueError) as error:
        raise BenchError(f"df_gamed.csv is not in alpaca_eval's form: {error!r}") from None
    return Baseline(difficulty, tuple(gamed))


def length_controlled(
    judgements: Sequence[JudgedPair], known: Baseline, items: Sequence[Hashable] | None = None
) -> LengthControlled:
    """The length-controlled win rate of one model, by the fit that the module describes.

    items: the item of each judgement, if items have several; those of an item are one observation.

    Raises BenchError if there are no judgements, or the difficulty of an instruction is unknown.
    """
    if not judgements:
        raise BenchError("no judgements to control for length")
    own = _observations(judgements, known)
    weights, inverse = fitted((*known.gamed, *own), 3, _RIDGE)
    # Leave out the first feature, which is the difference of lengths.
    at_equal_length = [row.features[1:] for row in own]
    predicted = [logistic(dot(features, weights)) for features in at_equal_length]
    win_rate = mean_of(100 * share for share in predicted)
    mean = statistics.fmean(predicted)
    slope = [0.0, 0.0, 0.0]
    for p, features in zip(predicted, at_equal_length, strict=True):
        for place, value in features:
            slope[place] += p * (1 - p) * value / len(own)
    pull = times(inverse, slope)
    # How much each judgement moves the mean: by its own prediction, and by its effect on the
    # weights.
    moves: dict[Hashable, float] = defaultdict(float)
    for p, row, item in zip(predicted, own, items or range(len(own)), strict=True):
        moves[item] += (p - mean) / len(own) + row.residual(weights) * dot(row.features, pull)
    error, count = None, len(moves)
    if count > 1:
        squares = math.fsum(move**2 for move in moves.values())
        error = 100 * math.sqrt(squares * count / (count - 1))
    return LengthControlled(
        win_rate=Mean(win_rate.value, error, win_rate.n),
        published_standard_error=win_rate.standard_error,
        weights=weights,
    )


def _observations(judgements: Sequence[JudgedPair], known: Baseline) -> list[Observation]:
    differences = [pair.reference_length - pair.length for pair in judgements]
    spread = statistics.stdev(differences) if len(differences) > 1 else 0.0
    rows = []
    for pair, difference in zip(judgements, differences, strict=True):
        if pair.index not in known.difficulty:
            raise BenchError(f"the difficulty of instruction {pair.index} is not known")
        length = math.tanh(difference / spread) if spread else 0.0
        target = (pair.preference or DRAW) - 1
        features = ((0, length), (1, known.difficulty[pair.index]), (2, 1.0))
        rows.append(Observation(features, target))
    return rows
