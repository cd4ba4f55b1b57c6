"""Routes: a small part of the mixture is asked first, and more of it only if needed."""

from __future__ import annotations

from moa_cli.core.outcomes import cut_of
from moa_cli.core.strategy import Placing
from moa_cli.engine.agreement.agreed import agreement
from moa_cli.engine.agreement.verdict import VERIFY, read_verdict
from moa_cli.engine.layer import LayerRun, run_first, run_layers
from moa_cli.engine.prompts import review_wording
from moa_cli.engine.state import TurnState
from moa_cli.engine.steps import acts, copy, judged, proposals
from moa_cli.engine.strategies import run_strategy
from moa_cli.profile import RouteStage


async def ask_proposers(state: TurnState) -> str | None:
    """Have the proposals made, stage by stage along the profile's route. They become the state's
    references.

    Returns the reason why a stage was enough. If an earlier request made the proposals, the reason
    is that of the earlier request. None: there is no route, or no stage was enough, so that all
    layers have run. Raises BudgetReached as `run_layers` does.
    """
    if state.reused:
        return state.accepted
    begun: LayerRun | None = None
    if state.rounds:
        models = state.profile.layer(1)
        for number, stage in enumerate(state.profile.route, 1):
            if stage.max_prompt_tokens is not None:
                prompt = (await state.would_take(models[:1], ())).prompt_tokens
                if prompt > stage.max_prompt_tokens:
                    told = f"the prompt has about {prompt:,} tokens"
                    state.refused.append(f"stage {number} of the route is not for it: {told}")
                    continue
            if begun is None or len(begun.planned) < stage.proposers:
                begun = await run_first(state, models[: stage.proposers], begun)
            state.references = begun.references
            if state.control.said_enough and state.references:
                state.lost.append("the rest of the route was skipped")
                return None
            accepted, why = await _judged(state, stage)
            if accepted:
                await _skip_the_rest(state, number, why)
                return why
            state.refused.append(f"stage {number} of the route was not enough: {why}")
            state.references = ()
    await run_layers(state, begun)
    return None


async def _judged(state: TurnState, stage: RouteStage) -> tuple[bool, str]:
    """Whether the answers of a stage are enough, and the reason. They are the state's
    references."""
    found = proposals(state)
    if not any(cut_of(proposal) is None for proposal in found):
        return False, "it gave no complete answer"
    reasons = []
    if stage.max_prompt_tokens is not None:
        reasons.append(f"the prompt has at most {stage.max_prompt_tokens:,} tokens")
    if stage.agreement is not None:
        agreed = await agreement(found, state.profile.final_answer, stage.agreement)
        if agreed is None:
            return False, "its answers do not agree"
        reasons.append(agreed)
    if stage.verify:
        answers = "the answer" if len(found) == 1 else "the answers"
        wording = review_wording(state.profile, VERIFY)
        verdict = await judged(state, "verify", wording, read_verdict)
        if verdict is None:
            return False, f"no judge has checked {answers}"
        review, right = verdict
        if not right:
            return False, f"{review.model} does not find {answers} right"
        reasons.append(f"{review.model} finds {answers} right")
    return True, ", ".join(reasons)


async def _skip_the_rest(state: TurnState, number: int, why: str) -> None:
    """Note which calls are saved, because stage `number` of the route was enough."""
    profile, found = state.profile, state.references
    asked = profile.route[number - 1].proposers
    later = [model for layer in range(2, state.rounds + 1) for model in profile.layer(layer)]
    saved = await state.would_take(profile.layer(1)[asked:], ())
    saved += await state.would_take(later, found)
    if len(found) == 1 and not acts(state):
        saved += await state.would_take(state.closing(), found)
    state.skip(f"stage {number} of the route was enough", why, saved)


async def reply(state: TurnState, accepted: str | None) -> bool:
    """Give the reply. If the route has accepted a single proposal, it is the reply. Otherwise the
    strategy makes the reply.

    accepted: why a stage of the route was enough, or None. Returns whether there is a whole reply.
    Raises BudgetReached at a cap.
    """
    if accepted is None or len(state.references) > 1:
        return await run_strategy(state)
    [only] = proposals(state)
    summary = f"{only.proposer} alone was asked: {accepted}"
    return await copy(state, only, summary, [Placing(only.proposer, only.index)])
