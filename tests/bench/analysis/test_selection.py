"""The choice of proposers: quality and diversity, weighed over the pool."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.bench.analysis.pool import Candidate, best
from moa_cli.bench.scoring.means import Mean
from moa_cli.core.errors import BenchError


def candidate(model: str, quality: float, likeness: float, error: float | None = 0.1) -> Candidate:
    return Candidate(model, Mean(quality, error, 50), Mean(likeness, error, 50))


POOL = (
    candidate("good", 8.0, 0.30),
    candidate("alike", 8.0, 0.40),
    candidate("other", 7.0, 0.10),
    candidate("poor", 5.0, 0.20),
)
POOLS = st.lists(
    st.builds(candidate, st.text(), st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=8
)


def test_quality_counts_twice_and_of_two_equals_the_one_less_alike_is_better() -> None:
    found = best(POOL, 2)
    assert [ranked.candidate.model for ranked in found] == ["other", "good", "alike", "poor"]
    assert [ranked.chosen for ranked in found] == [True, True, False, False]
    for ranked in found:
        assert ranked.score == pytest.approx(2 * ranked.quality_z + ranked.diversity_z)


def test_the_parts_are_standard_deviations_from_the_pools_mean() -> None:
    found = {ranked.candidate.model: ranked for ranked in best(POOL, 1)}
    # Qualities 8, 8, 7, 5: mean 7, variance 6/4; likenesses 0.3, 0.4, 0.1, 0.2: 0.25, 0.0125.
    assert found["poor"].quality_z == pytest.approx(-2 / 1.5**0.5)
    assert found["other"].quality_z == pytest.approx(0)
    assert found["other"].diversity_z == pytest.approx(0.15 / 0.0125**0.5)
    error = ((2 * 0.1 / 1.5**0.5) ** 2 + (0.1 / 0.0125**0.5) ** 2) ** 0.5
    assert found["good"].standard_error == pytest.approx(error)


def test_weights_decide() -> None:
    by_quality = best(POOL, 1, a=1, b=0)
    assert [ranked.candidate.model for ranked in by_quality] == ["good", "alike", "other", "poor"]
    by_diversity = best(POOL, 1, a=0, b=1)
    assert [ranked.candidate.model for ranked in by_diversity] == ["other", "poor", "good", "alike"]


def test_where_all_are_equal_nothing_is_decided() -> None:
    equal = [candidate(name, 0.1, likeness) for name, likeness in (("a", 0.5), ("b", 0.2))]
    found = best(equal, 1)
    assert [ranked.quality_z for ranked in found] == [0, 0]
    assert [ranked.candidate.model for ranked in found] == ["b", "a"]
    same = [candidate(name, 1, 0.5) for name in "cab"]
    assert [ranked.candidate.model for ranked in best(same, 2)] == ["c", "a", "b"]


def test_a_pool_of_one_has_nobody_to_be_unlike() -> None:
    alone = Candidate("a", Mean(7.0, None, 1), Mean(None, None, 0))
    (found,) = best([alone], 1)
    assert (found.score, found.chosen) == (0, True)


def test_an_unknown_error_is_not_none_at_all() -> None:
    found = best([candidate("a", 1, 0.5, None), candidate("b", 2, 0.5)], 1)
    assert {ranked.candidate.model: ranked.standard_error for ranked in found} == {
        "a": None,
        "b": pytest.approx(0.4),
    }


def test_what_cannot_be_chosen_is_refused() -> None:
    for k in (0, 5):
        with pytest.raises(BenchError, match="pool of 4"):
            best(POOL, k)
    with pytest.raises(BenchError, match="negative"):
        best(POOL, 1, b=-1)
    with pytest.raises(BenchError, match="quality of a "):
        best([Candidate("a", Mean(None, None, 0), Mean(0.5, 0.1, 2)), POOL[0]], 1)
    with pytest.raises(BenchError, match="diversity of a "):
        best([Candidate("a", Mean(1.0, 0.1, 2), Mean(None, None, 0)), POOL[0]], 1)


@given(POOLS, st.integers(1, 8))
def test_all_are_ranked_and_k_are_chosen(pool: list[Candidate], k: int) -> None:
    found = best(pool, min(k, len(pool)))
    assert sorted(ranked.candidate.model for ranked in found) == sorted(
        ranked.model for ranked in pool
    )
    scores = [ranked.score for ranked in found]
    assert scores == sorted(scores, reverse=True)
    assert sum(ranked.chosen for ranked in found) == min(k, len(pool))
    assert found == best(pool, min(k, len(pool)))
