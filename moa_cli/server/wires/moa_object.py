"""The `moa` object of a reply: what the mixture did, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from moa_cli.core.conversation import Charge, Proposal, Turn, Usage
from moa_cli.core.outcomes import cut_lines
from moa_cli.profile import short_name


def reply_usage(turn: Turn) -> Usage:
    """What the calls took that wrote the reply."""
    written = (charge.usage for charge in turn.ledger if charge.layer > len(turn.proposals))
    return sum(written, Usage())


def together(turns: Sequence[Turn]) -> Turn:
    """The turns of several replies that were written from the same proposals, as one."""
    first, *others = turns
    if not others and not first.lost:
        return first
    last = len(first.proposals) + 1
    charges = [replace(charge, layer=last) for turn in others for charge in turn.ledger]
    return replace(
        first,
        usage=sum((turn.usage for turn in others), first.usage),
        ledger=(*first.ledger, *charges),
        seconds=max(turn.seconds for turn in turns),
        lost=tuple(dict.fromkeys(line for turn in turns for line in turn.lost)),
    )


def ledger(turn: Turn, ignored: Sequence[str] = ()) -> dict[str, Any]:
    """What the mixture did, layer by layer; the last layer is the aggregator's.

    cost: USD, None where the price of a call is unknown. fan_out: only where no proposer was asked,
    since they had answered the same message before. report: only where there is one. ignored:
    fields of the request that had no effect.
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
        **({"fan_out": "reused"} if turn.reused else {}),
        "finish_reason": turn.finish_reason,
        "cut": cut_lines(turn),
        "usage": {"reply": _tokens(reply_usage(turn)), "sum": _tokens(turn.usage)},
        **({"report": asdict(turn.report)} if turn.report is not None else {}),
        **({"ignored": list(ignored)} if ignored else {}),
        "layers": layers,
    }


def _tokens(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
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
