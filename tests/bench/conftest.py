"""A user's machine for the tests of `moa bench`, and the real evaluation data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.bench.own_runs import ANSWER
from tests.support.command import Moa
from tests.support.environments import others_environment
from tests.support.upstream import Upstream


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    """The command; the upstream's models say something of their own to each request."""
    upstream.always("*", ANSWER)
    return Moa(tmp_path, upstream.url)


@pytest.fixture
def data() -> Path:
    """The folder of evaluation data, laid out as upstream's; skips where there is none."""
    folder = os.environ.get("MOA_TEST_DATA")
    if not folder:
        pytest.skip("MOA_TEST_DATA names no folder of evaluation data")
    return Path(folder)


@pytest.fixture(scope="session")
def alpaca_eval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment (800 MB) with this one and its extra `alpaca`, which is the
    released evaluator; skips where that cannot be installed."""
    return others_environment(
        tmp_path_factory, "alpaca_eval", f"{Path(__file__).parents[2]}[alpaca]"
    )
