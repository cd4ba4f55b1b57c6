"""Completions and chunks as OpenAI writes them, and the `moa` object with the ledger."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from moa_cli.core.conversation import Charge, Proposal, Turn, Usage
from moa_cli.core.outcomes import cut_lines, ending_of, refusal_of
from moa_cli.core.unique import unique_name
from moa_cli.profile import short_name
from moa_cli.server.wires.proposals import proposal_text

_ENCODER = json.JSONEncoder(separators=(",", ":"))


def compact(values: object) -> str:
    """JSON without spaces. ASCII only: half of a surrogate pair, which a model may send, cannot
    be written as it is."""
    return _ENCODER.encode(values)


def event(values: object) -> bytes:
    """A server-sent event of a JSON object."""
    return f"data: {compact(values)}\n\n".encode()


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


def ledger(turn: Turn) -> dict[str, Any]:
    """What the mixture did, layer by layer; the last layer is the aggregator's.

    cost: USD, None where the price of a call is unknown.
    """
    layers = [
        {"layer": number, "calls": list(map(_proposal, proposals))}
        for number, proposals in enumerate(turn.proposals, 1)
    ]
    written = [
        _call(short_name(charge.model), charge)
        for charge in turn.ledger
        if charge.layer > len(turn.proposals)
    ]
    layers.append({"layer": len(layers) + 1, "calls": written})
    return {
        "profile": turn.profile,
        "aggregator": turn.model,
        "answered_by": turn.answered_by,
        "calls": turn.usage.calls,
        "estimated_calls": turn.usage.estimated_calls,
        "cost": _cost(turn.usage),
        "seconds": round(turn.seconds, 3),
        "degraded": turn.degraded,
        "lost": list(turn.lost),
        "finish_reason": turn.finish_reason,
        "cut": cut_lines(turn),
        "layers": layers,
    }


def _proposal(proposal: Proposal) -> dict[str, Any]:
    lost = proposal.error and {"kind": proposal.error.kind, "message": proposal.error.message}
    return _call(
        proposal.proposer,
        proposal,
        seconds=round(proposal.seconds, 3),
        finish_reason=proposal.finish_reason,
        error=lost,
        **({"unfinished": True} if proposal.unfinished else {}),
    )


def _call(name: str, call: Proposal | Charge, **more: Any) -> dict[str, Any]:
    usage = call.usage
    return {
        "name": name,
        "model": call.model,
        "answered_by": call.answered_by,
        **more,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost": _cost(usage),
    }


def _cost(usage: Usage) -> float | None:
    return None if usage.unpriced_calls else usage.cost


class Chunks:
    """The events of a streamed reply, as bytes.

    include_usage: whether the client asked for a chunk with the usage at the end.
    """

    def __init__(self, envelope: Envelope, *, include_usage: bool) -> None:
        self._envelope = envelope
        self._include_usage = include_usage
        self._begun = False
        # Written once: a chunk a token is what a server spends its time on.
        start = compact(envelope.fields("chat.completion.chunk"))[:-1]
        self._before = f'data: {start},"choices":[{{"index":0,"delta":{{'
        usage = ',"usage":null' if include_usage else ""
        self._after = f'}},"logprobs":null,"finish_reason":null}}]{usage}}}\n\n'

    def delta(self, kind: str, text: str) -> bytes:
        """A piece of `content`, `reasoning_content` or `refusal`; the first one tells the role."""
        chunk = f'{self._before}"{kind}":{json.dumps(text)}{self._after}'
        if self._begun:
            return chunk.encode()
        self._begun = True
        role = '"role":"assistant","content":"","refusal":null'
        return f"{self._before}{role}{self._after}{chunk}".encode()

    def end(self, turn: Turn) -> bytes:
        """The last chunks. The `moa` object is on the very last."""
        fields = self._envelope.fields("chat.completion.chunk")
        chunks: list[dict[str, Any]] = [{**fields, "choices": [_choice(turn, delta={})]}]
        if self._include_usage:
            chunks[0]["usage"] = None
            chunks.append({**fields, "choices": [], "usage": usage_object(turn.usage)})
        chunks[-1] |= {**_sources(turn), "moa": ledger(turn)}
        refusal = refusal_of(turn)
        refused = b"" if refusal is None else self.delta("refusal", refusal)
        return b"".join([refused, *map(event, chunks), b"data: [DONE]\n\n"])


def comment(text: str) -> bytes:
    return f": {text}\n\n".encode()
