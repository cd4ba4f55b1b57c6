"""How proposals become the reply: a file for each strategy, over the steps that they share.

Each strategy is a coroutine that is given the turn when all proposers have ended, and returns
whether there is a whole reply. Where there are no proposals at all (`rounds = 0`, or all are lost
and the profile says `on_all_failed = "solo"`), the aggregator answers alone, with every strategy.
"""

from __future__ import annotations

from moa_cli.core.conversation import Conversation
from moa_cli.engine.aggregator import run_aggregator
from moa_cli.engine.agreement.comparison import COMPARE
from moa_cli.engine.agreement.tally import tally
from moa_cli.engine.agreement.verdict import VERIFY
from moa_cli.engine.prompts import review_wording
from moa_cli.engine.state import TurnState
from moa_cli.engine.steps import acts, copy, proposals
from moa_cli.engine.strategies.council import RANK, chair_wording, council
from moa_cli.engine.strategies.fusion import fuse_wording, fusion, one_call_wording
from moa_cli.engine.strategies.select import choice_wording, ranker, select
from moa_cli.engine.strategies.synthesize import synthesize
from moa_cli.engine.strategies.vote import consistency_wording, vote
from moa_cli.profile import ModelSettings, Profile, Stage


async def run_strategy(state: TurnState) -> bool:
    """Write the reply as the profile's strategy says; whether there is a whole one.

    Raises BudgetReached at a cap.
    """
    if not state.references:
        return await run_aggregator(state)
    match state.profile.strategy:
        case "synthesize":
            return await _agreed(state) or await synthesize(state)
        case "select":
            return await select(state)
        case "council":
            return await _agreed(state) or await council(state)
        case "fusion":
            return await _agreed(state) or await fusion(state)
        case "vote":
            return await vote(state)


async def _agreed(state: TurnState) -> bool:
    """Give the first proposal as the reply if all have the same final answer, and the profile says
    that this is enough; whether it was.

    It never is enough for references of the caller, which are to be merged, nor for a reply that
    calls tools or is JSON by a schema, which has to be written.
    """
    if state.profile.stop_when_agreed is None or state.given or acts(state):
        return False
    found = proposals(state)
    counted = tally(found, state.profile.final_answer)
    if not counted.agreed:
        return False
    saved = await state.would_take(state.closing(), state.references)
    state.skip("the aggregator was not asked", counted.summary, saved)
    return await copy(state, found[0], counted.summary, counted.placings(found))


def reviewer_of(
    profile: Profile, stage: Stage, settings: ModelSettings, conversation: Conversation
) -> ModelSettings:
    """A model of a stage with the settings that it is asked with, for a forecast of the turn."""
    if stage.purpose == "choose" and profile.strategy == "select":
        return ranker(settings, conversation)
    return settings


def wording_of(profile: Profile, stage: Stage) -> Profile:
    """The profile with the merge prompt that the calls of a stage are sent, for a forecast of the
    turn. What a review will say stands in angle brackets."""
    match stage.purpose:
        case "rank":
            return review_wording(profile, RANK)
        case "choose" if profile.strategy == "vote":
            return consistency_wording(profile)
        case "choose":
            return choice_wording(profile)
        case "compare" | "report":
            return review_wording(profile, COMPARE)
        case "verify":
            return review_wording(profile, VERIFY)
        case "" if stage.writes and profile.strategy == "fusion":
            apart = profile.compares_apart
            return fuse_wording(profile, "<comparison>") if apart else one_call_wording(profile)
        case "" if stage.writes and profile.strategy == "council":
            return chair_wording(profile, "<mean ranks>")
    return profile
