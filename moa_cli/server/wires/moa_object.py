"""The `moa` object of a reply: what the mixture did, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import count
from typing import Any

from moa_cli.core.conversation import Charge, Proposal, Turn, Usage
from moa_cli.core.money import cost_value
from moa_cli.core.outcomes import cut_lines
from moa_cli.profile import short_name


def together(turns: Sequence[Turn]) -> Turn:
    """The turns of several replies that were written from the same proposals, as one."""
    first, *others = turns
    if not others and not first.lost:
        return first
    reviews, charges = [*first.reviews], [*first.ledger]
    for turn in others:
        # Each turn counts its layers from 1, so the layers of later turns are renumbered.
        behind = max([first.depth, *(charge.layer for charge in charges)])
        reviews += [replace(review, layer=behind + review.layer) for review in turn.reviews]
        charges += [replace(charge, layer=behind + charge.layer) for charge in turn.ledger]
    return replace(
        first,
        reviews=tuple(reviews),
        usage=sum((turn.usage for turn in others), first.usage),
        ledger=tuple(charges),
        seconds=max(turn.seconds for turn in turns),
        lost=tuple(dict.fromkeys(line for turn in turns for line in turn.lost)),
    )


def sources(turn: Turn) -> list[dict[str, str]]:
    """The sources of the reply that its endpoint names."""
    return [{"title": cited.title, "url": cited.url} for cited in turn.citations]


def ledger(turn: Turn, ignored: Sequence[str] = ()) -> dict[str, Any]:
    """The calls of the mixture by layer. A layer of reviews has its purpose. The calls that wrote
    the reply follow the layers that it was made from.

    cost: in USD, None if the price of a call is unknown. fan_out: only if no proposer was asked,
    because earlier proposals for the same message were reused. decision, report: only if there is
    one. ignored: fields of the request that had no effect.
    """
    return {
        "profile": turn.profile,
        "aggregator": turn.model,
        "answered_by": turn.answered_by,
        "calls": turn.usage.calls,
        "estimated_calls": turn.usage.estimated_calls,
        "cost": cost_value(turn.usage),
        "seconds": round(turn.seconds, 3),
        "degraded": turn.degraded,
        "lost": list(turn.lost),
        **({"fan_out": "reused"} if turn.reused else {}),
        "finish_reason": turn.finish_reason,
        "cut": cut_lines(turn),
        "usage": {"reply": tokens(turn.reply_usage), "sum": tokens(turn.usage)},
        **({"report": asdict(turn.report)} if turn.report is not None else {}),
        **({"decision": asdict(turn.decision)} if turn.decision is not None else {}),
        **({"ignored": list(ignored)} if ignored else {}),
        "layers": _layers(turn),
    }


def _layers(turn: Turn) -> list[dict[str, Any]]:
    """The calls of each layer, in the order of the layers."""
    layers = [
        {"layer": number, "calls": list(map(_proposal, proposals))}
        for number, proposals in enumerate(turn.proposals, 1)
    ]
    reviewed: dict[int, list[Proposal]] = {}
    for review in turn.reviews:
        reviewed.setdefault(review.layer, []).append(review)
    layers += [
        {"layer": number, "purpose": reviews[0].purpose, "calls": list(map(_proposal, reviews))}
        for number, reviews in reviewed.items()
    ]
    written = [
        _call(short_name(charge.model), charge)
        for charge in turn.ledger
        if charge.layer > len(turn.proposals) and charge.layer not in reviewed
    ]
    numbers = count(len(turn.proposals) + 1)
    replied = next(number for number in numbers if number not in reviewed)
    layers.append({"layer": replied, "calls": written})
    return sorted(layers, key=lambda layer: layer["layer"])


def tokens(usage: Usage) -> dict[str, int]:
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
        "cost": cost_value(usage),
    }
