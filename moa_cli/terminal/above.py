"""Lines that are printed while a region of the terminal is drawn anew: they go above the region.

A warning may come at any moment and from anywhere: that the history is locked, that a record of
costs cannot be written. Written at the cursor, it would stand in the first row of the region, and
the next frame would overwrite it. Standard library only: standard error needs this at the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Region(Protocol):
    """What is drawn anew at the bottom of the terminal."""

    @property
    def is_shown(self) -> bool:
        """Whether rows of it are on the screen."""
        raise NotImplementedError

    def commit(self, lines: Sequence[str]) -> None:
        """Print lines above it for good."""
        raise NotImplementedError


_regions: list[Region] = []


def attach(region: Region) -> None:
    """From now on, lines go above this region while it is shown."""
    if region not in _regions:
        _regions.append(region)


def detach(region: Region) -> None:
    """It is removed for good, or was never there."""
    if region in _regions:
        _regions.remove(region)


def print_above(text: str) -> bool:
    """Print a text above the region that is shown.

    Args:
        text: Whole lines. Anything else, such as the terminal's title, has no row of its own.

    Returns:
        Whether that was done: not if no region is shown.
    """
    if not text.endswith("\n"):
        return False
    for region in _regions:
        if region.is_shown:
            region.commit(text[:-1].split("\n"))
            return True
    return False
