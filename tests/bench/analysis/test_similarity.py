"""Similarity, held to sacrebleu, rapidfuzz and scikit-learn over real answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moa_cli.bench.analysis.similarity import (
    TfIdf,
    bleu,
    pairwise,
    rank_correlation,
)
from moa_cli.core.answers.similarity import levenshtein
from tests.support.bench.tables import csv_rows

NUMBERS = st.lists(st.integers(-3, 3) | st.floats(-1e6, 1e6), max_size=30)


def outputs(data: Path, model: str) -> list[str]:
    path = data / f"alpaca_eval/slice50/model_outputs/{model}.json"
    return [row["output"] for row in json.loads(path.read_text("utf-8"))]


def test_real_answers_are_as_alike_as_the_published_tools_say(data: Path) -> None:
    folder = data / "alpaca_eval/slice50"
    indices = json.loads((folder / "indices.json").read_text("utf-8"))
    expected = csv_rows(folder / "expected_similarity.csv")
    models = {row[side] for row in expected for side in ("output", "reference")}
    texts = {model: dict(zip(indices, outputs(data, model), strict=True)) for model in models}
    vectors = TfIdf(text for by_index in texts.values() for text in by_index.values())
    for row in expected:
        one, other = (texts[row[side]][int(row["index"])] for side in ("output", "reference"))
        assert bleu(one, other) == pytest.approx(float(row["bleu"]), abs=1e-6)
        assert levenshtein(one, other) == pytest.approx(float(row["levenshtein"]), abs=1e-6)
        cosine = vectors.cosine(one, other)
        assert cosine == pytest.approx(float(row["tfidf_cosine"]), abs=1e-6)
    assert (len(expected), len(models)) == (1500, 9)


def test_bleu_among_a_pool() -> None:
    same, other = "The cat sat on the mat today.", "Dogs bark at night, mostly outside."
    found = pairwise({"a": [same, same], "b": [same, same], "c": [other, same]}, bleu)
    assert found["a"] == found["b"]
    assert found["a"].n == 8
    assert found["c"].value is not None
    assert found["a"].value is not None
    assert found["c"].value < found["a"].value < 1
    assert found["c"].standard_error
    assert pairwise({"a": [same]}, bleu)["a"].n == 0
    with pytest.raises(ValueError):
        pairwise({"a": [same], "b": []}, bleu)


def test_bleu_says_what_it_needs_only_when_it_is_asked_for() -> None:
    script = (
        "import sys; sys.modules['sacrebleu'] = None\n"
        "from moa_cli.bench.analysis.similarity import bleu\n"
        "from moa_cli.core.errors import BenchError\n"
        "try: bleu('a', 'a')\n"
        "except BenchError as error: print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "moa-chat[bench]" in done.stdout


@given(st.text(max_size=200), st.text(max_size=200))
def test_similarity_is_between_0_and_1_and_1_with_itself(one: str, other: str) -> None:
    vectors = TfIdf([one, other])
    for measure in (bleu, levenshtein, vectors.cosine):
        assert 0 <= measure(one, other) <= 1 + 1e-9
    assert levenshtein(one, one) == 1
    assert vectors.cosine(one, one) in (0, pytest.approx(1))
    assert vectors.cosine(one, other) == pytest.approx(vectors.cosine(other, one))


def test_an_unknown_term_is_left_out() -> None:
    vectors = TfIdf(["the cat", "the dog"])
    assert vectors.vector("a bird") == {}
    assert vectors.cosine("a bird", "the cat") == 0
    assert list(vectors.vector("The dog, a bird")) == ["the", "dog"]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3, 4, 5], [5, 6, 7, 8, 7], 0.8207826816681233),  # scipy.stats.spearmanr's example
        ([1, 2, 3], [10, 20, 300], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 1, 2, 2], [1, 2, 1, 2], 0.0),
        ([1, 1, 1], [1, 2, 3], None),
        ([1], [1], None),
        ([], [], None),
    ],
)
def test_rank_correlation(one: list[float], other: list[float], expected: float | None) -> None:
    assert rank_correlation(one, other) == pytest.approx(expected)


@given(NUMBERS)
def test_ranks_are_all_that_counts(values: list[float]) -> None:
    others = values[::2] + values[1::2]
    found = rank_correlation(values, others)
    assert found == rank_correlation(others, values)
    assert found is None or -1 <= found <= 1
    doubled = rank_correlation([2 * value for value in values], others)
    assert doubled == found
    turned = rank_correlation([-value for value in values], others)
    if found is not None:
        assert turned == pytest.approx(-found)
        assert rank_correlation(values, values) == pytest.approx(1)
