"""A reply that is written later, from the proposals that a turn has left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moa_cli.core.conversation import Proposal, Turn
from moa_cli.core.text import holds_sentence, plural
from moa_cli.engine.prompts import strip_reasoning

# Kinds of error after which the text that has come is the beginning of an answer: the model had
# more to say. A refusal, or a text that a content filter stopped, is not the beginning of one.
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

    They are the proposals of the last layer with at least one whole proposal, because later layers
    were written from all answers of the layers before. If no layer has a whole proposal, they are
    the unfinished proposals of the last layer that has any. An unfinished proposal counts only if
    at least one sentence of it has come.
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
    """`before` and `turn` as one turn; `turn` wrote a reply from the proposals of `before`. If
    `before` has a reply of its own, it stays a turn beside this one, and keeps its usage and time.
    """
    turn = behind(before, turn)
    both = replace(turn, **_sums(before, turn))
    return replace(
        turn if before.reply else both,
        reviews=both.reviews,
        proposals=before.proposals,
        lost=(*before.lost, *turn.lost),
    )


def _sums(before: Turn, turn: Turn) -> dict[str, Any]:
    """The fields that add up over both turns, with their sums."""
    return {
        "reviews": (*before.reviews, *turn.reviews),
        "usage": before.usage + turn.usage,
        "ledger": (*before.ledger, *turn.ledger),
        "seconds": before.seconds + turn.seconds,
    }


def behind(before: Turn, turn: Turn) -> Turn:
    """`turn` with its layers renumbered to follow the layers of `before`, whose proposals it
    merges. In `turn`, layers count from 1."""
    depth = before.depth
    return replace(
        turn,
        # Both turns have the same proposals, so the report of `before` holds for `turn` too.
        report=turn.report or before.report,
        reviews=tuple(replace(review, layer=depth + review.layer) for review in turn.reviews),
        ledger=tuple(replace(charge, layer=depth + charge.layer) for charge in turn.ledger),
    )


def reported(before: Turn, turn: Turn) -> Turn:
    """`before` with the report that `turn` made on its proposals, and with the usage and the time
    of `turn`."""
    turn = behind(before, turn)
    return replace(before, **_sums(before, turn), report=turn.report)


def last_turn(turns: Sequence[Turn]) -> Turn | None:
    """The last turn of a conversation that can be asked or merged again; None if there is none.

    A turn that still runs does not count. Nor does a turn that left no reply and no proposal, and
    was a failed attempt to answer the message of the turn before again.
    """
    ended = [turn for turn in turns if turn.status != "open" or turn.reply is not None]
    while len(ended) > 1:
        before, last = ended[-2:]
        # The same prompt after an answered message is another message.
        answered = before.reply or before.asks_again
        is_attempt = last.asks_again or (not answered and last.user == before.user)
        if last.reply or mergeable(last.proposals) or not is_attempt:
            break
        ended.pop()
    return ended[-1] if ended else None


def answered_before(turns: Sequence[Turn], attempt: Turn | None) -> Turn | None:
    """The turn of `turns` whose reply `attempt` was to replace; None if `attempt` is no such
    attempt."""
    if attempt is None or attempt.reply or not attempt.asks_again:
        return None
    earlier = [turn for turn in turns[: turns.index(attempt)] if turn.reply]
    # A file may have been added to the end of the message.
    return earlier[-1] if earlier and attempt.user.startswith(earlier[-1].user) else None


def kept_text(turn: Turn, command: str) -> str:
    """A hint on how to get a reply from a turn that has no whole one; "" if it has no proposal that
    can be merged.

    command: the command that writes a reply from its proposals.
    """
    count = len(mergeable(turn.proposals))
    if turn.status == "finished" or not count:
        return ""
    proposals, them = plural(count, "proposal"), "it" if count == 1 else "them"
    return f"{proposals} {'is' if count == 1 else 'are'} kept: {command} writes a reply from {them}"
