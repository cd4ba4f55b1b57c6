"""Paired differences, intervals and power, as an independent library computes them."""

from __future__ import annotations

import csv
import json
import math
import random
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moa_cli.bench.scoring.means import Mean, mean_of, proportion_of
from moa_cli.bench.scoring.statistics import (
    bradley_terry,
    epoch_figures,
    holm,
    interval_of,
    paired_difference,
    swap_test,
    t_quantile,
    unpaired_difference,
)

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
minimize = pytest.importorskip("scipy.optimize").minimize
SHARES = st.floats(0, 1).map(lambda value: round(value, 3))


@pytest.fixture
def preferences(data: Path) -> dict[str, dict[str, float]]:
    """By model and item, AlpacaEval's released preferences of 20 models, in percent."""
    found: dict[str, dict[str, float]] = {}
    with (data / "alpaca_eval" / "preferences_full.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            preference = float(row["preference"] or "nan")
            if not math.isnan(preference):
                value = 100 * ((preference or 1.5) - 1)
                found.setdefault(row["model"], {})[row["index"]] = value
    return found


def test_paired_differences_of_released_models_are_those_of_scipy(
    preferences: dict[str, dict[str, float]],
) -> None:
    models = list(preferences)
    for name, other in pairwise(models):
        first, second = preferences[name], preferences[other]
        found = paired_difference(first, second, low=0, high=100)
        common = [item for item in first if item in second]
        test = stats.ttest_rel([first[i] for i in common], [second[i] for i in common])
        interval = test.confidence_interval(0.95)
        assert found is not None
        assert found.items == len(common) >= 800
        assert found.z == pytest.approx(test.statistic, rel=1e-9)
        assert found.interval.low == pytest.approx(interval.low, rel=1e-9)
        assert found.interval.high == pytest.approx(interval.high, rel=1e-9)
        assert found.difference.value == pytest.approx(
            test.statistic * (found.difference.standard_error or 0), rel=1e-9
        )


def test_swaps_of_released_models_are_those_of_scipy(
    preferences: dict[str, dict[str, float]],
) -> None:
    models = list(preferences)[:6]
    for name, other in pairwise(models):
        items = [item for item in preferences[name] if item in preferences[other]][:200]
        differences = [preferences[name][item] - preferences[other][item] for item in items]
        expected = stats.permutation_test(
            (differences,), sum, permutation_type="samples", n_resamples=10_000, rng=1
        ).pvalue
        # Both draw 10,000 swaps, so that each has an error of its own.
        error = math.sqrt(2 * max(expected, 1e-3) * (1 - expected) / 10_000)
        assert swap_test(differences) == pytest.approx(expected, abs=4 * error)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=10))
def test_few_pairs_are_swapped_in_all_ways(differences: list[int]) -> None:
    values = [value / 10 for value in differences]
    expected = stats.permutation_test(
        (values,), sum, permutation_type="samples", n_resamples=2_000
    ).pvalue
    assert swap_test(values) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 400), st.integers(0, 400))
def test_right_and_wrong_are_compared_by_the_exact_test_of_mcnemar(won: int, lost: int) -> None:
    found = swap_test([100.0] * won + [-100.0] * lost + [0.0] * 7)
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert found == pytest.approx(expected, rel=1e-7)


def test_many_swaps_are_the_same_at_each_call() -> None:
    drawn = random.Random(5)
    values = [drawn.gauss(0.1, 1) for _ in range(300)]
    assert swap_test(values) == swap_test(values)


@given(st.integers(0, 60), st.integers(1, 60))
def test_intervals_of_shares_are_wilsons(right: int, of: int) -> None:
    right = min(right, of)
    mean = proportion_of(place < right for place in range(of)).in_percent()
    found = interval_of(mean, 0, 100)
    expected = stats.binomtest(right, of).proportion_ci(method="wilson")
    assert found is not None
    assert found.low == pytest.approx(100 * expected.low, abs=1e-9)
    assert found.high == pytest.approx(100 * expected.high, abs=1e-9)


def test_none_of_ten_is_not_zero_to_zero() -> None:
    found = interval_of(proportion_of([False] * 10), 0, 1)
    assert found is not None
    assert (found.low, round(found.high, 3)) == (0.0, 0.278)
    ratings = interval_of(mean_of([10.0] * 10), 1, 10)
    assert ratings is not None
    assert ratings.low < 8 < ratings.high == 10.0
    alone = interval_of(mean_of([100.0]), 0, 100)
    assert alone is not None
    assert alone.low == pytest.approx(20.65, abs=0.01)
    assert interval_of(Mean(None, None, 0), 0, 1) is None


@given(st.lists(SHARES, min_size=30, max_size=60))
def test_an_interval_lies_around_its_mean_within_the_bounds(values: list[float]) -> None:
    mean = mean_of(values)
    found = interval_of(mean, 0, 1)
    assert found is not None
    assert mean.value is not None
    assert 0 <= found.low <= mean.value + 1e-12
    assert mean.value - 1e-12 <= found.high <= 1


def test_equal_answers_to_few_items_prove_little() -> None:
    same = {str(place): 100.0 for place in range(10)}
    found = paired_difference(same, same, low=0, high=100)
    assert found is not None
    assert (found.better, found.worse, found.equal) == (0, 0, 10)
    assert (found.z, found.p, found.detectable, found.items_for(3)) == (None, 1.0, None, None)
    assert found.interval.low == pytest.approx(-found.interval.high)
    assert 20 < found.interval.high < 30
    ratings = paired_difference({"a": 9.0}, {"a": 2.0}, low=1, high=10)
    assert ratings is not None
    assert ratings.interval.low < 0 < ratings.interval.high <= 9
    assert paired_difference({"a": 1.0}, {"b": 1.0}, low=0, high=1) is None


def test_intervals_of_paired_shares_hold_what_they_promise() -> None:
    """Over all outcomes of 20 pairs, weighed by how likely they are, the true difference lies in
    at least 93 % of the intervals, also where both models are nearly always right."""
    items = 20
    held: dict[tuple[int, int], tuple[float, float]] = {}
    for won, lost in product(range(items + 1), repeat=2):
        if won + lost <= items:
            first = {str(place): float(place < won) for place in range(items)}
            second = {str(place): float(won <= place < won + lost) for place in range(items)}
            found = paired_difference(first, second, low=0, high=1)
            assert found is not None
            held[won, lost] = found.interval.low, found.interval.high
    for wins, losses in [(0.0, 0.02), (0.02, 0.02), (0.1, 0.1), (0.3, 0.1), (0.5, 0.0), (0.9, 0.0)]:
        odds = stats.multinomial(items, [wins, losses, 1 - wins - losses])
        covered = sum(
            odds.pmf([won, lost, items - won - lost])
            for (won, lost), (low, high) in held.items()
            if low <= wins - losses <= high
        )
        assert covered >= 0.93, (wins, losses)


def test_two_turns_of_a_conversation_are_one_observation() -> None:
    first = {(item, turn): float(item % 3) for item in range(12) for turn in range(2)}
    second = dict.fromkeys(first, 1.0)
    found = paired_difference(first, second, lambda name: name[0], low=0, high=10)
    alone = paired_difference(
        {item: float(item % 3) for item in range(12)},
        dict.fromkeys(range(12), 1.0),
        low=0,
        high=10,
    )
    assert found is not None
    assert alone is not None
    assert (found.difference.n, found.items) == (24, 12)
    assert found.difference.standard_error == pytest.approx(alone.difference.standard_error)
    assert found.z == pytest.approx(alone.z)
    assert found.p == alone.p


def test_the_position_of_an_output_has_a_measured_effect(data: Path) -> None:
    file = data / "alpaca_eval" / "judge_raw_completions.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    shown_first = [row["preference"] for row in rows if row["outputs_switched"]]
    shown_second = [row["preference"] for row in rows if not row["outputs_switched"]]
    found = unpaired_difference(shown_first, shown_second)
    expected = stats.ttest_ind(shown_first, shown_second, equal_var=False)
    assert found.n == 805
    assert found.value is not None
    assert found.standard_error is not None
    assert found.value / found.standard_error == pytest.approx(expected.statistic, rel=1e-9)
    assert unpaired_difference([], [1.0, 2.0]) == Mean(None, None, 2)
    assert unpaired_difference([3.0], [1.0, 2.0]) == Mean(1.5, None, 3)


def test_the_difference_that_would_be_found_has_the_power_that_is_told() -> None:
    drawn = random.Random(3)
    first = {str(place): drawn.gauss(5, 1) for place in range(300)}
    second = {name: drawn.gauss(5, 1) for name in first}
    found = paired_difference(first, second, low=0, high=10)
    assert found is not None
    assert found.detectable is not None
    # The power of a two-sided z test at that true difference.
    shift = found.detectable / (found.difference.standard_error or 1)
    quantile = stats.norm.ppf(0.975)
    power = stats.norm.sf(quantile - shift) + stats.norm.cdf(-quantile - shift)
    assert power == pytest.approx(0.8, abs=1e-4)
    assert found.items_for(found.detectable) == 300
    assert found.items_for(found.detectable / 2) == pytest.approx(1200, abs=1)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 10, 99, 804])
def test_quantiles_of_students_t(degrees: int) -> None:
    for share in (0.6, 0.9, 0.975, 0.999):
        assert t_quantile(share, degrees) == pytest.approx(stats.t.ppf(share, degrees), rel=1e-9)


def test_several_comparisons_are_corrected() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_epochs_have_a_pooled_error_and_one_of_their_own() -> None:
    drawn = random.Random(1)
    hard = {item: drawn.random() for item in range(50)}
    values = [
        (item, epoch, float(drawn.random() < chance))
        for item, chance in hard.items()
        for epoch in range(4)
    ]
    found = epoch_figures(values)
    assert [epoch.n for epoch in found.by_epoch] == [50] * 4
    means = [sum(v for _, e, v in values if e == epoch) / 50 for epoch in range(4)]
    assert [epoch.value for epoch in found.by_epoch] == pytest.approx(means)
    assert found.between == pytest.approx(stats.sem(means))
    by_item = [sum(v for i, _, v in values if i == item) / 4 for item in hard]
    assert found.pooled.value == pytest.approx(sum(by_item) / 50)
    assert found.pooled.standard_error == pytest.approx(stats.sem(by_item))
    assert epoch_figures([("a", 0, 1.0), ("b", 0, 0.0)]).between is None


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from([*product("abcd", repeat=2)]), st.integers(1, 30)))
def test_strengths_are_the_likeliest_ones(games: dict[tuple[str, str], int]) -> None:
    wins = {pair: float(times) for pair, times in games.items() if pair[0] != pair[1]}
    found = bradley_terry(wins)
    players = sorted({player for pair in wins for player in pair})
    assert sorted(found) == players
    if not players:
        return

    def unlikely(logs: list[float]) -> float:
        at = dict(zip(players, logs, strict=True))
        total = sum(times * math.log1p(math.exp(at[b] - at[a])) for (a, b), times in wins.items())
        # Half a win and half a loss against the average.
        return total + sum(
            0.5 * (math.log1p(math.exp(-log)) + math.log1p(math.exp(log))) for log in logs
        )

    best = minimize(unlikely, [0.0] * len(players), method="BFGS", tol=1e-9).x
    for player, log in zip(players, best, strict=True):
        assert found[player] == pytest.approx(1 / (1 + math.exp(-log)), abs=1e-4)
