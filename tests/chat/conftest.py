"""A user's machine for the tests of the chat."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.upstream import Upstream


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    """The command, with the upstream as provider `lab`."""
    return Moa(tmp_path, upstream.url)
