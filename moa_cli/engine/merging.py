"""A reply that is written later, from the proposals that a turn has left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moa_cli.core.conversation import Proposal, Turn
from moa_cli.core.text import holds_sentence, plural
from moa_cli.engine.prompts import strip_reasoning

# Why a proposal may have ended although its model had more to say. What a model refused, or a
# filter stopped, is no answer.
_CUT_OFF = (
    "Abandoned",
    "BudgetReached",
    "ClientTimeout",
    "ConnectionLost",
    "Interrupted",
    "ServerFailed",
    "Straggler",
)


def mergeable(layers: Sequence[Sequence[Proposal]]) -> tuple[Proposal, ...]:
    """The proposals of a turn that a reply can be written from; empty if there are none.

    They are those of the last layer in which a proposal is whole: each of them was written from all
    answers of the layer before. If none is whole, they are unfinished ones of the last layer that
    has any. Unfinished proposals of the layer count if at least a sentence of them has come.
    """
    usable = [[answer for answer in map(_usable, layer) if answer] for layer in layers]
    whole = [layer for layer in usable if not all(answer.unfinished for answer in layer)]
    return tuple((whole or list(filter(None, usable)) or [[]])[-1])


def _usable(proposal: Proposal) -> Proposal | None:
    """A proposal as a reference, marked if it is unfinished; None if it is not usable."""
    if proposal.error is None:
        return proposal
    cut_off = proposal.error.kind in _CUT_OFF
    if not cut_off or not holds_sentence(strip_reasoning(proposal.text)):
        return None
    return replace(proposal, error=None, unfinished=True)


def merged(before: Turn, turn: Turn) -> Turn:
    """`turn`, which has written a reply from the proposals of `before`, as one turn with it."""
    turn = behind(before, turn)
    return replace(
        turn,
        **_sums(before, turn),
        proposals=before.proposals,
        lost=(*before.lost, *turn.lost),
    )


def _sums(before: Turn, turn: Turn) -> dict[str, Any]:
    """What both turns have of those fields that a turn adds to."""
    return {
        "reviews": (*before.reviews, *turn.reviews),
        "usage": before.usage + turn.usage,
        "ledger": (*before.ledger, *turn.ledger),
        "seconds": before.seconds + turn.seconds,
    }


def behind(before: Turn, turn: Turn) -> Turn:
    """`turn`, whose layers are counted from 1, with its layers behind those of `before`, whose
    proposals it merges."""
    depth = before.depth
    return replace(
        turn,
        # It is about the proposals, which are the same.
        report=turn.report or before.report,
        reviews=tuple(replace(review, layer=depth + review.layer) for review in turn.reviews),
        ledger=tuple(replace(charge, layer=depth + charge.layer) for charge in turn.ledger),
    )


def reported(before: Turn, turn: Turn) -> Turn:
    """`before` with the report of `turn`, which has made one on its proposals, and what that
    took."""
    turn = behind(before, turn)
    return replace(before, **_sums(before, turn), report=turn.report)


def last_turn(turns: Sequence[Turn]) -> Turn | None:
    """The last turn of a conversation that can be asked or merged again; None if there is none.

    A turn that still runs does not count. Nor does a turn that left nothing and asked the same as
    the turn before: it was an attempt to answer that turn again.
    """
    ended = [turn for turn in turns if turn.status != "open" or turn.reply is not None]
    while len(ended) > 1:
        before, last = ended[-2:]
        if last.reply or mergeable(last.proposals) or last.user != before.user:
            break
        ended.pop()
    return ended[-1] if ended else None


def kept_text(turn: Turn, command: str) -> str:
    """How to go on with a turn that has no whole reply; "" if nothing of it can be merged.

    command: what writes a reply from its proposals.
    """
    count = len(mergeable(turn.proposals))
    if turn.status == "finished" or not count:
        return ""
    proposals, them = plural(count, "proposal"), "it" if count == 1 else "them"
    return f"{proposals} {'is' if count == 1 else 'are'} kept: {command} writes a reply from {them}"
