"""The real evaluation data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def data() -> Path:
    """The folder of evaluation data, laid out as upstream's; skips where there is none."""
    folder = os.environ.get("MOA_TEST_DATA")
    if not folder:
        pytest.skip("MOA_TEST_DATA names no folder of evaluation data")
    return Path(folder)
