"""Caps on a run."""

from __future__ import annotations

import math
from collections.abc import Iterable

from moa_cli.core.conversation import Usage
from moa_cli.engine import Cap

__all__ = ["firm"]


class _Firm(Cap):
    def left(self, used: Usage, ahead: Usage, later: Usage, turn: str) -> float:
        """As if all were left, where there is room at all."""
        super().left(used, ahead, later, turn)
        return math.inf


def firm(caps: Iterable[Cap]) -> tuple[Cap, ...]:
    """Caps that never shorten an answer: what is asked must not depend on what is left."""
    return tuple(_Firm(**vars(cap)) for cap in caps)
