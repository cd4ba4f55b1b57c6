"""Whether proposals agree, so that the next steps of the turn are not needed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from moa_cli.core.answers.similarity import mean_similarity
from moa_cli.core.conversation import Proposal
from moa_cli.engine.agreement.tally import tally
from moa_cli.engine.prompts import text_of
from moa_cli.engine.state import TurnState


async def agreement(found: Sequence[Proposal], rule: str, least: float) -> str | None:
    """A sentence on how the proposals agree; None if they do not, or there are fewer than two.

    They agree if all give the same final answer, or if they are similar: the mean similarity of all
    pairs, from 0 to 1, is at least `least`. If one is unfinished, they do not agree. rule: how
    final answers are read.
    """
    if len(found) < 2 or any(proposal.unfinished for proposal in found):
        return None
    counted = tally(found, rule)
    if counted.agreed:
        return counted.summary
    # The comparison of many long texts takes a while, so it must not block the event loop.
    texts = [text_of(proposal) for proposal in found]
    similarity = await asyncio.to_thread(mean_similarity, texts)
    if similarity < least:
        return None
    return f"the {len(found)} proposals are similar ({similarity:.2f} of 1)"


async def stop_early(state: TurnState, found: Sequence[Proposal]) -> str | None:
    """A sentence on how the proposals of a layer agree, if the profile stops the turn for that;
    None if the turn goes on."""
    least = state.profile.stop_when_agreed
    if least is None:
        return None
    return await agreement(found, state.profile.final_answer, least)
