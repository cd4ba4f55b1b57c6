"""Files of JSON lines outlive a full disk."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from moa_cli.bench.data.json_lines import Lines, read_lines


def test_a_line_that_a_full_disk_cuts_is_told_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    lines = Lines(path)
    lines.add("one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            lines.add("two, which is too long")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines.add("three")
    lines.close()
    assert read_lines(path, str) == ["one", "three"]
