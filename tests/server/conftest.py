"""A user's machine, and a server on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import Moa
from tests.support.server import Server, serving
from tests.support.upstream import Upstream


@pytest.fixture
def moa(tmp_path: Path, upstream: Upstream) -> Moa:
    """The command, with the upstream as provider `lab`."""
    return Moa(tmp_path, upstream.url)


@pytest.fixture
def server(moa: Moa) -> Iterator[Server]:
    """A server of the profile `lab`."""
    with serving(moa) as running:
        yield running
