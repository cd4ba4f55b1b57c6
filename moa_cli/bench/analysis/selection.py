"""The best proposers of a pool, by quality and diversity.

After Mixture-of-Agents (arXiv:2406.04692, section 2.2), which names the two criteria; the score
is ours.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from moa_cli.bench.scoring.means import Mean
from moa_cli.core.errors import BenchError

_QUALITY: Final = 2.0
_DIVERSITY: Final = 1.0


@dataclass(frozen=True)
class Candidate:
    """A model of the pool.

    quality: its mean score as a proposer, in any unit that is one for the pool, more is better.
    similarity: its mean pairwise BLEU with the rest of the pool, 0 to 1.
    """

    model: str
    quality: Mean
    similarity: Mean


@dataclass(frozen=True)
class Ranked:
    """A candidate and the parts of its score.

    quality_z, diversity_z: its quality and 1 - similarity, in standard deviations from the pool's
    mean. score = a quality_z + b diversity_z. standard_error: of the score, from those of the
    two means and with the pool's scale taken as given; None if either is not known.
    """

    candidate: Candidate
    quality_z: float
    diversity_z: float
    score: float
    standard_error: float | None
    chosen: bool


def best(
    pool: Sequence[Candidate], k: int, *, a: float = _QUALITY, b: float = _DIVERSITY
) -> tuple[Ranked, ...]:
    """The whole pool, best score first, the first k chosen; equal scores in the pool's order.

    Each model is scored by itself, against the pool: score = a z(quality) + b z(1 - similarity),
    z over the pool with its standard deviation (n in it). Where all are equal z is 0, so that
    part decides nothing; a pool of one is all 0.

    Args:
        pool: The models.
        k: How many are chosen.
        a: The weight of quality, 0 or more.
        b: The weight of diversity, 0 or more.

    Raises:
        BenchError: k is not between 1 and the pool's size, a weight is negative, or a candidate
            was not measured.
    """
    if not 1 <= k <= len(pool):
        raise BenchError(f"{k} models cannot be chosen from a pool of {len(pool)}")
    if min(a, b) < 0:
        raise BenchError("the weights of quality and diversity cannot be negative")
    qualities = [_known(model, model.quality, "quality") for model in pool]
    diversities = [
        1 - _known(model, model.similarity, "diversity") if len(pool) > 1 else 0.0 for model in pool
    ]
    scales = statistics.pstdev(qualities), statistics.pstdev(diversities)
    parts = zip(pool, _z(qualities), _z(diversities), strict=True)
    ranked = sorted(
        (
            (candidate, quality, diversity, a * quality + b * diversity)
            for candidate, quality, diversity in parts
        ),
        key=lambda row: -row[3],
    )
    return tuple(
        Ranked(
            candidate=candidate,
            quality_z=quality,
            diversity_z=diversity,
            score=score,
            standard_error=_error(candidate, (a, b), scales),
            chosen=place < k,
        )
        for place, (candidate, quality, diversity, score) in enumerate(ranked)
    )


def _known(candidate: Candidate, mean: Mean, what: str) -> float:
    if mean.value is None:
        raise BenchError(f"the {what} of {candidate.model} was not measured")
    return mean.value


def _z(values: Sequence[float]) -> list[float]:
    mean, spread = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / spread if spread else 0.0 for value in values]


def _error(
    candidate: Candidate, weights: tuple[float, float], scales: tuple[float, float]
) -> float | None:
    squares = []
    for mean, weight, scale in zip(
        (candidate.quality, candidate.similarity), weights, scales, strict=True
    ):
        if not weight or not scale:
            continue
        if mean.standard_error is None:
            return None
        squares.append((weight * mean.standard_error / scale) ** 2)
    return math.sqrt(math.fsum(squares))
