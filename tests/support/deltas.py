"""Deltas put together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any

from moa_cli.clients.sse_decoder import DeltaReader
from moa_cli.core.endpoints import Delta

__all__ = ["deltas_of", "joined"]


async def deltas_of(chunks: AsyncIterator[bytes], **named: Any) -> AsyncGenerator[Delta, None]:
    """The deltas of a stream, one by one; see `DeltaReader`."""
    reader = DeltaReader(chunks, **named)
    while found := await reader.read():
        for delta in found:
            yield delta


def joined(deltas: Iterable[Delta]) -> Delta:
    """All deltas as one, the way the engine puts them together."""
    whole = Delta()
    for delta in deltas:
        before = Delta() if delta.replaces else whole
        whole = Delta(
            text=before.text + delta.text,
            reasoning=before.reasoning + delta.reasoning,
            usage=delta.usage or whole.usage,
            finish_reason=delta.finish_reason or whole.finish_reason,
            model=delta.model or whole.model,
            logprobs=delta.logprobs or whole.logprobs,
            refusal=whole.refusal + delta.refusal,
            tool_calls=whole.tool_calls + delta.tool_calls,
        )
    return whole
