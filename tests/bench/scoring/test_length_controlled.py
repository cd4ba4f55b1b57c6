"""The thin length-controlled fit, held to alpaca_eval's numbers over the same judgements."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.bench.scoring.length_controlled import (
    Baseline,
    JudgedPair,
    baseline,
    length_controlled,
)
from moa_cli.core.errors import BenchError
from tests.support.bench.tables import csv_rows

JUDGEMENTS = st.lists(
    st.builds(
        JudgedPair,
        index=st.integers(0, 9),
        preference=st.sampled_from([0.0, 1.0, 1.2, 1.5, 1.999999, 2.0]),
        reference_length=st.integers(0, 100_000),
        length=st.integers(0, 100_000),
    ),
    min_size=1,
    max_size=30,
)


def made_up() -> Baseline:
    """A baseline of ten instructions, two gamed models of opposite lengths."""
    return baseline(
        {
            "index": str(index),
            "instruction_difficulty": str(index / 5 - 1),
            "std_delta_len": str(length),
            "preference": str(0.5 - length / 10),
        }
        for length in (-1.0, 1.0)
        for index in range(10)
    )


def real(data: Path) -> Baseline:
    return baseline(csv_rows(data / "alpaca_eval/reconstructed/df_gamed.csv"))


def released(data: Path) -> dict[str, list[JudgedPair]]:
    judgements = defaultdict(list)
    for row in csv_rows(data / "alpaca_eval/preferences_full.csv"):
        lengths = int(row["len_output_1"]), int(row["len_output_2"])
        one = JudgedPair(int(row["index"]), float(row["preference"]), *lengths)
        judgements[row["model"]].append(one)
    return judgements


def test_the_difficulty_is_upstreams_own(data: Path) -> None:
    rows = csv_rows(data / "alpaca_eval/reconstructed/instruction_difficulty.csv")
    expected = {int(row["index"]): float(row["instruction_difficulty"]) for row in rows}
    assert real(data).difficulty == expected


def test_all_judgements_of_twenty_models(data: Path) -> None:
    judgements, known = released(data), real(data)
    expected = csv_rows(data / "alpaca_eval/expected_winrates_full.csv")
    for row in expected:
        found = length_controlled(judgements[row["model"]], known)
        recomputed = float(row["lc_recomputed_with_reconstructed_difficulty"])
        assert found.win_rate.value == pytest.approx(recomputed, abs=0.1)
        published = float(row["length_controlled_winrate_published"])
        assert found.win_rate.value == pytest.approx(published, abs=1.21)
        assert found.win_rate.n == 805
    assert len(expected) == 20


def test_fifty_judgements_keep_their_own_difficulty(data: Path) -> None:
    folder = data / "alpaca_eval/slice50"
    indices = json.loads((folder / "indices.json").read_text("utf-8"))
    known = real(data)
    for row in csv_rows(folder / "expected_metrics.csv"):
        path = folder / f"annotations/{row['model']}.json"
        annotated = json.loads(path.read_text("utf-8"))
        found = length_controlled(
            [
                JudgedPair(
                    index,
                    annotation["preference"],
                    len(annotation["output_1"]),
                    len(annotation["output_2"]),
                )
                for index, annotation in zip(indices, annotated, strict=True)
            ],
            known,
        )
        expected = float(row["length_controlled_winrate"])
        assert found.win_rate.value == pytest.approx(expected, abs=1.2)
        assert found.published_standard_error == pytest.approx(
            float(row["lc_standard_error"]), abs=0.02
        )


def test_the_standard_error_is_the_spread_over_samples(data: Path) -> None:
    known, pool = real(data), released(data)["claude-2"]
    choice = random.Random(1)
    found = [length_controlled(choice.choices(pool, k=100), known) for _ in range(40)]
    spread = statistics.stdev(result.win_rate.value or 0 for result in found)
    told = statistics.fmean(result.win_rate.standard_error or 0 for result in found)
    published = statistics.fmean(result.published_standard_error or 0 for result in found)
    assert told == pytest.approx(spread, rel=0.25)
    assert published < 0.7 * spread


@given(JUDGEMENTS)
def test_the_fit_always_ends_in_a_percentage(judgements: list[JudgedPair]) -> None:
    found = length_controlled(judgements, made_up())
    assert found.win_rate.value is not None
    assert 0 <= found.win_rate.value <= 100
    assert all(map(math.isfinite, found.weights))
    assert (found.win_rate.standard_error is None) == (len(judgements) == 1)


@pytest.mark.parametrize(("preference", "end"), [(1.0, 0), (2.0, 100)])
def test_a_model_that_always_loses_or_wins(preference: float, end: int) -> None:
    rows = [JudgedPair(i % 10, preference, 500, 400 + 40 * i) for i in range(200)]
    assert length_controlled(rows, made_up()).win_rate.value == pytest.approx(end, abs=0.1)


def test_length_that_decides_is_taken_out() -> None:
    longer = [JudgedPair(i, 1.9 if i % 4 else 1.1, 500, 700 if i % 4 else 300) for i in range(10)]
    found = length_controlled(longer * 20, made_up())
    raw = 100 * statistics.fmean(annotation.preference - 1 for annotation in longer)
    assert found.weights[0] < 0
    assert found.win_rate.value is not None
    assert abs(found.win_rate.value - 50) < abs(raw - 50)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(BenchError, match="no judgements"):
        length_controlled([], made_up())
    with pytest.raises(BenchError, match="instruction 99"):
        length_controlled([JudgedPair(99, 1.5, 1, 1)], made_up())
    with pytest.raises(BenchError, match=r"df_gamed\.csv"):
        baseline([{"index": "0", "preference": "high"}])
