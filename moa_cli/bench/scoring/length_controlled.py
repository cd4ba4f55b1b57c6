"""Length-controlled win rates of AlpacaEval 2: what the win rate would be at equal lengths.

Source: Dubois et al. 2024, "Length-Controlled AlpacaEval" (arXiv:2404.04475), section 3, and
`length_controlled_v1` of alpaca_eval. A logistic model of the preference,

    logit p = a tanh(d / s) + b difficulty + c

with d the difference of lengths (characters, reference minus model), s its standard deviation
and the difficulty of each instruction as upstream fitted it. Upstream's judgements of two
"gamed" models (the reference, told to be verbose or concise) are fitted along with weight 0.1
each and without c. The length-controlled win rate is the mean of p at d = 0.

This is an approximation of alpaca_eval's: it chooses the strength of an L1 penalty by
cross-validation, this fit is all but unpenalised. Over 20 models of 805 judgements the two are
at most 0.1 points apart; over 50 judgements it was 1.2.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from moa_cli.bench.scoring.alpaca import DRAW
from moa_cli.bench.scoring.means import Mean, mean_of
from moa_cli.core.errors import BenchError

Vector: TypeAlias = tuple[float, float, float]
Matrix: TypeAlias = list[list[float]]

_GAMED_WEIGHT: Final = 0.1
# Keeps the fit finite where a model wins or loses every comparison.
_RIDGE: Final = 1e-3
_STEPS: Final = 100
_TOLERANCE: Final = 1e-9


@dataclass(frozen=True)
class Observation:
    """One row of the fit. features: of the weights a, b, c. target: P(model is better), 0 to 1."""

    features: Vector
    target: float
    weight: float


@dataclass(frozen=True)
class Baseline:
    """What does not depend on the model: upstream's `df_gamed.csv`.

    difficulty: by the instruction's index in the data set.
    """

    difficulty: Mapping[int, float]
    gamed: tuple[Observation, ...]


@dataclass(frozen=True)
class JudgedPair:
    """One comparison. index: the instruction's in the data set, also on a subset.

    preference: 1 to 2, as everywhere; 0 is a draw. Lengths are in characters.
    """

    index: int
    preference: float
    reference_length: int
    length: int


@dataclass(frozen=True)
class LengthControlled:
    """A length-controlled win rate.

    win_rate: percent; its standard error holds the noise of the judgements that the fit is made
    of (delta method). published_standard_error: percent, as alpaca_eval and its leaderboard
    define it: the spread of the predictions over instructions, as if the fit were exact. It is
    about half of what resampling gives. weights: of length, difficulty and the intercept.
    """

    win_rate: Mean
    published_standard_error: float | None
    weights: Vector


def baseline(rows: Iterable[Mapping[str, str]]) -> Baseline:
    """The baseline from the rows of upstream's `df_gamed.csv`. Raises BenchError."""
    difficulty: dict[int, float] = {}
    gamed = []
    try:
        for row in rows:
            hardness = float(row["instruction_difficulty"])
            difficulty.setdefault(int(row["index"]), hardness)
            features = (math.tanh(float(row["std_delta_len"])), hardness, 0.0)
            gamed.append(Observation(features, float(row["preference"]), _GAMED_WEIGHT))
    except (KeyError, TypeError, ValueError) as error:
        raise BenchError(f"df_gamed.csv is not in alpaca_eval's form: {error!r}") from None
    return Baseline(difficulty, tuple(gamed))


def length_controlled(
    judgements: Sequence[JudgedPair], known: Baseline, items: Sequence[Hashable] | None = None
) -> LengthControlled:
    """The length-controlled win rate of one model, by the fit that the module describes.

    items: of each judgement, where there are several of an item: they are one observation.

    Raises BenchError if there are no judgements, or the difficulty of an instruction is unknown.
    """
    if not judgements:
        raise BenchError("no judgements to control for length")
    own = _observations(judgements, known)
    rows = (*known.gamed, *own)
    weights = _fit(rows)
    at_equal_length: list[Vector] = [(0.0, row.features[1], 1.0) for row in own]
    predicted = [_probability(weights, features) for features in at_equal_length]
    win_rate = mean_of(100 * share for share in predicted)
    slopes = [p * (1 - p) / len(own) for p in predicted]
    pull = _solve(_information(rows, weights), _weighted(slopes, at_equal_length))
    mean = statistics.fmean(predicted)
    # How far each judgement moves the mean: by its own prediction, and through the weights.
    moves: dict[Hashable, float] = defaultdict(float)
    for p, row, item in zip(predicted, own, items or range(len(own)), strict=True):
        moves[item] += (p - mean) / len(own) + _residual(weights, row) * _dot(pull, row.features)
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
        rows.append(Observation((length, known.difficulty[pair.index], 1.0), target, 1.0))
    return rows


def _fit(rows: Sequence[Observation]) -> Vector:
    """The weights of least loss, by Newton's method with halved steps."""
    weights: Vector = (0.0, 0.0, 0.0)
    loss = _loss(rows, weights)
    for _ in range(_STEPS):
        residuals = [row.weight * _residual(weights, row) for row in rows]
        downhill = _weighted(residuals, [row.features for row in rows])
        slope = [fall - _RIDGE * weight for fall, weight in zip(downhill, weights, strict=True)]
        step = _solve(_information(rows, weights), slope)
        while max(map(abs, step)) > _TOLERANCE:
            moved = (weights[0] + step[0], weights[1] + step[1], weights[2] + step[2])
            lower = _loss(rows, moved)
            if lower <= loss:
                break
            step = (step[0] / 2, step[1] / 2, step[2] / 2)
        else:
            return weights
        weights, loss = moved, lower
    return weights


def _loss(rows: Sequence[Observation], weights: Vector) -> float:
    """Cross-entropy with the ridge: log(1 + e^z) - target * z, without overflow."""
    total = _RIDGE / 2 * _dot(weights, weights)
    for row in rows:
        z = _dot(weights, row.features)
        total += row.weight * (max(z, 0.0) + math.log1p(math.exp(-abs(z))) - row.target * z)
    return total


def _information(rows: Sequence[Observation], weights: Vector) -> Matrix:
    """The second derivatives of the loss."""
    matrix = [[_RIDGE if i == j else 0.0 for j in range(3)] for i in range(3)]
    for row in rows:
        p = _probability(weights, row.features)
        scale = row.weight * p * (1 - p)
        for i in range(3):
            for j in range(3):
                matrix[i][j] += scale * row.features[i] * row.features[j]
    return matrix


def _solve(matrix: Matrix, right: Sequence[float]) -> Vector:
    """x of `matrix` x = `right`, for a positive definite matrix (so no pivoting is needed)."""
    rows = [[*line, value] for line, value in zip(matrix, right, strict=True)]
    for i in range(3):
        for below in range(i + 1, 3):
            factor = rows[below][i] / rows[i][i]
            rows[below] = [b - factor * a for a, b in zip(rows[i], rows[below], strict=True)]
    z = rows[2][3] / rows[2][2]
    y = (rows[1][3] - rows[1][2] * z) / rows[1][1]
    return ((rows[0][3] - rows[0][1] * y - rows[0][2] * z) / rows[0][0], y, z)


def _weighted(factors: Sequence[float], vectors: Sequence[Vector]) -> Vector:
    """The sum of the vectors, each times its factor."""
    pairs = list(zip(factors, vectors, strict=True))
    first, second, third = (math.fsum(f * vector[i] for f, vector in pairs) for i in range(3))
    return (first, second, third)


def _residual(weights: Vector, row: Observation) -> float:
    return row.target - _probability(weights, row.features)


def _dot(left: Vector, other: Vector) -> float:
    return left[0] * other[0] + left[1] * other[1] + left[2] * other[2]


def _probability(weights: Vector, features: Vector) -> float:
    z = _dot(weights, features)
    # Of the two forms the one that cannot overflow.
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
