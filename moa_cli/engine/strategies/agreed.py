"""A reply without an aggregator: all proposals have the same final answer."""

from __future__ import annotations

from moa_cli.core.strategy import Decision
from moa_cli.engine.state import TurnState
from moa_cli.engine.steps import acts, copy, decide, proposals
from moa_cli.engine.tally import tally


async def agreed_reply(state: TurnState) -> bool:
    """Give the first proposal as the reply if all have the same final answer, and the profile says
    that this is enough; whether it was.

    Proposals that whoever asks has brought along are to be merged, and a reply that calls tools or
    is JSON by a schema has to be written: then it never is.
    """
    if state.profile.stop_when_agreed is None or state.given or acts(state):
        return False
    found = proposals(state)
    counted = tally(found, state.profile.final_answer)
    if not counted.agreed:
        return False
    saved = await state.would_take(state.closing(), state.references)
    state.skip("the aggregator was not asked", counted.summary, saved)
    first = found[0]
    placings = counted.placings(found)
    decide(state, Decision(state.profile.strategy, counted.summary, placings, first.index))
    return await copy(state, first)
