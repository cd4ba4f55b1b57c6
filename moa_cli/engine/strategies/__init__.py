"""How proposals become the reply. There is a file for each strategy; `engine.steps` has the steps
that they share.

Each strategy is a coroutine that is given the turn when all proposers have ended, and returns
whether there is a whole reply. With every strategy, the aggregator answers alone if there are no
proposals at all: `rounds = 0`, or all proposers failed and the profile says
`on_all_failed = "solo"`.
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
    """Make the reply by the profile's strategy. Returns whether there is a whole reply.

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
    """Give the first proposal as the reply if all proposals have the same final answer, and the
    profile has `stop_when_agreed`. Returns whether there is a reply now.

    It does nothing if the caller brought the references along, because they are to be merged. Nor
    does it if tools are offered or the reply has to be JSON: then an aggregator has to write it.
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
    """The settings with which a model of a stage will be asked, for a forecast of the turn."""
    if stage.purpose == "choose" and profile.strategy == "select":
        return ranker(settings, conversation)
    return settings


def wording_of(profile: Profile, stage: Stage) -> Profile:
    """The profile with the merge prompt of the calls of a stage, for a forecast of the turn. A
    placeholder in angle brackets takes the place of a review's text."""
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
