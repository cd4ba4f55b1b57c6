"""A server on the user's machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.command import Moa
from tests.support.server import Server, serving


@pytest.fixture
def server(moa: Moa) -> Iterator[Server]:
    """A server of the profile `lab`."""
    with serving(moa) as running:
        yield running
