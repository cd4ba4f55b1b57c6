"""Deltas put together."""

from __future__ import annotations

from collections.abc import Iterable

from moa_cli.core.endpoints import Delta

__all__ = ["joined"]


def joined(deltas: Iterable[Delta]) -> Delta:
    """All deltas as one, the way the engine puts them together."""
    whole = Delta()
    for delta in deltas:
        whole = Delta(
            text=whole.text + delta.text,
            reasoning=whole.reasoning + delta.reasoning,
            usage=delta.usage or whole.usage,
            finish_reason=delta.finish_reason or whole.finish_reason,
            model=delta.model or whole.model,
            logprobs=delta.logprobs or whole.logprobs,
        )
    return whole
