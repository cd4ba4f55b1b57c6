"""Logistic regression of a few weights, by Newton's method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

_STEPS: Final = 100
_TOLERANCE: Final = 1e-10

# The index of the weight for each feature, and the feature's value. Features that are not listed
# are 0.
Features: TypeAlias = tuple[tuple[int, float], ...]
Matrix: TypeAlias = list[list[float]]


@dataclass(frozen=True)
class Observation:
    """One row of a fit. target: the probability to be fitted, 0 to 1. weight: how many rows it
    counts as."""

    features: Features
    target: float
    weight: float = 1.0

    def residual(self, weights: Sequence[float]) -> float:
        """The target minus the probability that the weights give."""
        return self.target - logistic(dot(self.features, weights))


def logistic(value: float) -> float:
    # Of the two equal forms, use the one that cannot overflow.
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def dot(features: Features, weights: Sequence[float]) -> float:
    total = 0.0
    for place, value in features:
        total += weights[place] * value
    return total


def times(matrix: Matrix, vector: Sequence[float]) -> list[float]:
    return [math.fsum(a * b for a, b in zip(line, vector, strict=True)) for line in matrix]


def fitted(
    rows: Sequence[Observation], size: int, ridge: float = 0.0
) -> tuple[list[float], Matrix]:
    """The weights of least loss, and the inverse of the loss's second derivative there.

    The loss is the cross-entropy plus half of `ridge` times the squares of the weights. It is
    convex. As long as no logit moves by more than one, the second derivative changes by a factor of
    e at most. So each step is cut to that length, and then always lowers the loss.
    """
    weights = [0.0] * size
    inverse: Matrix = []
    for _ in range(_STEPS):
        slope = [-ridge * weight for weight in weights]
        curve = [[ridge * (i == j) for j in range(size)] for i in range(size)]
        for row in rows:
            chance = logistic(dot(row.features, weights))
            pull = row.weight * (row.target - chance)
            bend = row.weight * chance * (1 - chance)
            for i, value in row.features:
                slope[i] += pull * value
                for j, other in row.features:
                    curve[i][j] += bend * value * other
        inverse = _inverse(curve)
        step = times(inverse, slope)
        longest = max((abs(dot(row.features, step)) for row in rows), default=0.0)
        scale = 1 / max(1.0, longest)
        weights = [weight + scale * part for weight, part in zip(weights, step, strict=True)]
        if max(map(abs, step), default=0.0) < _TOLERANCE:
            break
    return weights, inverse


def _inverse(matrix: Matrix) -> Matrix:
    """The inverse of a positive definite matrix by Gauss-Jordan elimination, which needs no
    pivoting for such a matrix."""
    size = len(matrix)
    rows = [[*line, *(float(i == j) for j in range(size))] for i, line in enumerate(matrix)]
    for i in range(size):
        lead = rows[i][i]
        pivot = rows[i] = [value / lead for value in rows[i]]
        for other in range(size):
            factor = rows[other][i]
            if other != i and factor:
                rows[other] = [b - factor * a for a, b in zip(pivot, rows[other], strict=True)]
    return [line[size:] for line in rows]
