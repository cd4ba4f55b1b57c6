"""A conversation for the tests of the slash commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.talk import Talk
from tests.support.upstream import Upstream


@pytest.fixture
def talk(upstream: Upstream, capsys: pytest.CaptureFixture[str]) -> Iterator[Talk]:
    """A new conversation with the proposers a and b and the aggregator agg."""
    made = Talk(upstream, capsys)
    yield made
    made.close()
