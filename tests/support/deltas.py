"""Deltas put together."""

from __future__ import annotations

from collections.abc import Iterable

from moa_cli.core.endpoints import Delta

__all__ = ["joined"]


def joined(deltas: Iterable[Delta]) -> Delta:
    """All deltas as one, the way the engine puts them together."""
    whole = Delta()
    for one in deltas:
        whole = Delta(
            text=whole.text + one.text,
            reasoning=whole.reasoning + one.reasoning,
            usage=one.usage or whole.usage,
            finish_reason=one.finish_reason or whole.finish_reason,
            model=one.model or whole.model,
            logprobs=one.logprobs or whole.logprobs,
        )
    return whole
