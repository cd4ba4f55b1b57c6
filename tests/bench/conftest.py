"""A user's machine for the tests of `moa bench`, and the real evaluation data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bench import ANSWER
from tests.support.command import Moa
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
def alpaca_eval(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The `bin` of an environment (800 MB) with this program and its extra `alpaca`, which is the
    released evaluator; skips where that cannot be installed."""
    folder = tmp_path_factory.mktemp("alpaca") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    project = f"{Path(__file__).parents[2]}[alpaca]"
    installer = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", project]
    ran = subprocess.run(installer, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        shutil.rmtree(folder)
        pytest.skip(f"the extra `alpaca` cannot be installed: {ran.stderr.strip()[-300:]}")
    yield folder / "bin"
    shutil.rmtree(folder)
