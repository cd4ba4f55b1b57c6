"""Chat completions and their chunks as OpenAI writes them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from moa_cli.core import events
from moa_cli.core.conversation import Turn, Usage
from moa_cli.core.events import Event
from moa_cli.core.outcomes import ending_of, refusal_of
from moa_cli.core.unique import unique_name
from moa_cli.server.errors import ApiError
from moa_cli.server.wires import sse
from moa_cli.server.wires.moa_object import ledger
from moa_cli.server.wires.proposals import ProposalStream, proposal_text
from moa_cli.server.wires.sse import compact


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What all chunks of a reply have in common. model: as the client named it."""

    model: str
    fingerprint: str
    id: str = field(default_factory=lambda: f"chatcmpl-{unique_name()}")
    created: int = field(default_factory=lambda: int(time.time()))

    def fields(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def completion(envelope: Envelope, turn: Turn, *, show_proposals: bool) -> dict[str, Any]:
    """The whole reply of a finished turn."""
    refusal = refusal_of(turn)
    content = None if refusal else turn.reply or ""
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": refusal}
    if show_proposals:
        told = (proposal for layer in turn.proposals for proposal in layer)
        message["reasoning_content"] = "".join(map(proposal_text, told))
    return {
        **envelope.fields("chat.completion"),
        "choices": [_choice(turn, message=message)],
        "usage": usage_object(turn.usage),
        **_sources(turn),
        "moa": ledger(turn),
    }


def _sources(turn: Turn) -> dict[str, Any]:
    """The sources of the reply, if its endpoint names any, as Perplexity's clients expect them."""
    if not turn.citations:
        return {}
    found = [{"title": cited.title, "url": cited.url} for cited in turn.citations]
    return {"citations": [cited.url for cited in turn.citations], "search_results": found}


def _choice(turn: Turn, **content: Any) -> dict[str, Any]:
    """The end of a reply, with why it ends in OpenAI's words."""
    finish: str = ending_of(turn.finish_reason)
    if finish == "refusal":
        # Nothing is left to tell of it: its words came as text.
        finish = "content_filter"
    elif finish == "tool_calls":
        # A tool that the client did not ask for is none of its business.
        finish = "stop"
    return {"index": 0, **content, "logprobs": None, "finish_reason": finish}


def usage_object(usage: Usage) -> dict[str, Any]:
    """Usage in OpenAI's shape: the sums over all calls of the mixture."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


class ChatEncoder:
    """A reply on the wire of chat completions; see `wire.Encoder`.

    include_usage: whether the client asked for a chunk with the usage at the end.
    """

    def __init__(self, envelope: Envelope, *, include_usage: bool, show_proposals: bool) -> None:
        self._envelope = envelope
        self._include_usage = include_usage
        self._show_proposals = show_proposals
        self._proposals = ProposalStream() if show_proposals else None
        self._begun = False
        # Written once: a chunk a token is what a server spends its time on.
        start = compact(envelope.fields("chat.completion.chunk"))[:-1]
        self._before = f'data: {start},"choices":[{{"index":0,"delta":{{'
        usage = ',"usage":null' if include_usage else ""
        self._after = f'}},"logprobs":null,"finish_reason":null}}]{usage}}}\n\n'

    def take(self, event: Event, choice: int = 0) -> bytes:
        """The chunks of the next event."""
        if isinstance(event, events.AggregatorDelta) and event.text:
            return self._delta("content", event.text)
        if self._proposals is None:
            return b""
        told = self._proposals.take(event)
        return self._delta("reasoning_content", told) if told else b""

    def _delta(self, kind: str, text: str) -> bytes:
        """A piece of `content`, `reasoning_content` or `refusal`; the first one tells the role."""
        chunk = f'{self._before}"{kind}":{json.dumps(text)}{self._after}'
        if self._begun:
            return chunk.encode()
        self._begun = True
        role = '"role":"assistant","content":"","refusal":null'
        return f"{self._before}{role}{self._after}{chunk}".encode()

    def end(self, turns: Sequence[Turn]) -> bytes:
        """The last chunks. The `moa` object is on the very last."""
        turn = turns[0]
        fields = self._envelope.fields("chat.completion.chunk")
        chunks: list[dict[str, Any]] = [{**fields, "choices": [_choice(turn, delta={})]}]
        if self._include_usage:
            chunks[0]["usage"] = None
            chunks.append({**fields, "choices": [], "usage": usage_object(turn.usage)})
        chunks[-1] |= {**_sources(turn), "moa": ledger(turn)}
        refusal = refusal_of(turn)
        refused = b"" if refusal is None else self._delta("refusal", refusal)
        return b"".join([refused, *map(sse.event, chunks), b"data: [DONE]\n\n"])

    def whole(self, turns: Sequence[Turn]) -> dict[str, Any]:
        """The whole reply of a finished turn."""
        return completion(self._envelope, turns[0], show_proposals=self._show_proposals)

    def fail(self, error: ApiError) -> bytes:
        """The error, without the mark of a good end."""
        return sse.event(error.body())

    def comment(self, text: str) -> bytes:
        """A sign of life."""
        return sse.comment(text)
