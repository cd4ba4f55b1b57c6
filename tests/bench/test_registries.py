"""A dataset, a kind of judge and a format of export are each declared in one place."""

from __future__ import annotations

import pytest

from moa_cli.bench.data.datasets import DATASETS
from moa_cli.bench.export.formats import FORMATS
from moa_cli.bench.judge.registry import KINDS
from tests.support.command import Moa


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_says_all_that_depends_on_it(name: str) -> None:
    dataset = DATASETS[name]
    # Either a judge tells what a reply is worth, or the right answers do.
    assert (dataset.judge in KINDS) != (dataset.grade is not None)
    assert bool(dataset.fetched) != bool(dataset.why_unfetched)
    assert not dataset.fetched or {file.file for file in dataset.fetched} & set(dataset.files)


def test_helps_name_what_there_is(moa: Moa) -> None:
    wide = {"COLUMNS": "400"}
    fetch = moa.run("bench", "fetch", "--help", env=wide).text
    assert all(f"{name}," in fetch for name, dataset in DATASETS.items() if dataset.fetched)
    export = " ".join(moa.run("bench", "export", "--help", env=wide).text.split())
    start = export.index("What to write: ")
    told = export[start : export.index(".", start)]
    assert all(name in told for name in FORMATS)
