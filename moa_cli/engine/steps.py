"""The steps that strategies share: review proposals, copy one as the reply, tell the decision."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from moa_cli.core import events
from moa_cli.core.conversation import Proposal
from moa_cli.core.strategy import REVIEW_NAMES, SKIPPABLE, Decision, Placing, Purpose
from moa_cli.core.tokens import estimate_tokens
from moa_cli.engine.advice import offers_tools
from moa_cli.engine.aggregator import run_aggregator
from moa_cli.engine.layer import run_reviews
from moa_cli.engine.prompts import EarlierProposal, Reference, text_of
from moa_cli.engine.state import TurnState
from moa_cli.profile import ModelSettings, Profile, short_name

_R = TypeVar("_R")
# The length of a mark in hexadecimal digits: 96 bits.
_MARK = 24


async def review(
    state: TurnState,
    purpose: Purpose,
    models: Sequence[ModelSettings],
    wording: Profile,
    references: Sequence[Sequence[Reference]] | None = None,
    *,
    reads: Sequence[Callable[[str], object]] = (),
) -> list[Proposal]:
    """Have the proposals reviewed by the models in parallel. Returns the reviews that came.

    A readable review that is kept from an earlier turn over the same proposals is used again. In a
    tool loop, not even a lost or unreadable review is asked for again. Turns over the same
    proposals that run in parallel wait for each other's reviews. If the user said "enough", a
    review that the reply does not need is skipped.

    wording: a profile whose merge prompt asks for the review. references: the references of each
    model; None gives each model all of them. reads: for each model, a function that reads the text
    of its review, and returns None if it cannot; without any, every text counts as readable. Raises
    BudgetReached at a cap.
    """
    if references is None:
        references = [state.references] * len(models)
    about = [_mark_of(wording, given) for given in references]

    def usable(index: int, kept: Proposal) -> bool:
        return not reads or reads[index](text_of(kept)) is not None

    find, used = state.reviews.find, state.used_reviews
    async with state.reviews.lock:
        kept = {
            index: replace(review, index=index)
            for index, settings in enumerate(models)
            if (review := find(settings, about[index], partial(usable, index), used))
        }
        reviews = {index: review for index, review in kept.items() if review.error is None}
        asked = () if state.reviews.complete else range(len(models))
        missing = [index for index in asked if index not in kept]
        if missing and purpose in SKIPPABLE and state.control.said_enough:
            state.lost.append(f"the {REVIEW_NAMES[purpose]} was skipped")
        elif missing:
            state.depth += 1
            planned = await state.plan(
                state.depth,
                [models[index] for index in missing],
                wording=wording,
                references=[[*map(_undated, references[index])] for index in missing],
            )
            marked = [
                replace(call, about=about[index])
                for call, index in zip(planned, missing, strict=True)
            ]
            for made in await run_reviews(state, marked, purpose):
                index = missing[made.index]
                reviews[index] = replace(made, index=index)
    return [reviews[index] for index in sorted(reviews)]


def _undated(reference: Reference) -> Reference:
    """The reference without the mark that it is older than tool results. A reviewer is not sent
    these results."""
    return Proposal(**vars(reference)) if isinstance(reference, EarlierProposal) else reference


def _mark_of(wording: Profile, references: Sequence[Reference]) -> str:
    """A key that identifies the question and the texts of the references."""
    asked = (wording.merge_prompt or "", wording.reference_format, *map(text_of, references))
    # JSON, because it is different for every two different lists of texts.
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:_MARK]


async def judged(
    state: TurnState,
    purpose: Purpose,
    wording: Profile,
    read: Callable[[str], _R | None],
    *,
    judges: Sequence[ModelSettings] | None = None,
) -> tuple[Proposal, _R] | None:
    """One review by the judge, or by the first of its fallbacks that gives one, and the value that
    `read` finds in its text. None if there is no review.

    judges: the models to try in order; None takes the profile's. A review that `read` cannot read
    counts as lost. Raises BudgetReached at a cap.
    """
    for settings in state.profile.judges() if judges is None else judges:
        for answer in await review(state, purpose, [settings], wording, reads=[read]):
            value = read_of(state, answer, read)
            if value is not None:
                return answer, value
        if purpose in SKIPPABLE and state.control.said_enough:
            break
    return None


def read_of(state: TurnState, review: Proposal, read: Callable[[str], _R | None]) -> _R | None:
    """The value that `read` finds in the text of a review. None if the text cannot be read; then
    the review counts as lost."""
    value = read(text_of(review))
    if value is None:
        about = REVIEW_NAMES[review.purpose]
        state.lost.append(f"{review.proposer} ({about}): its answer cannot be read")
    return value


def proposals(state: TurnState) -> list[Proposal]:
    """The state's references as proposals. A plain text, whose proposer is not known, is named by
    its number."""
    return [
        Proposal(0, index, f"response {index + 1}", "", reference)
        if isinstance(reference, str)
        else reference
        for index, reference in enumerate(state.references)
    ]


def acts(state: TurnState) -> bool:
    """Whether the reply may call tools or has to be JSON. Then an aggregator has to write it."""
    return offers_tools(state.aggregators[0]) or state.response_format is not None


async def copy(state: TurnState, proposal: Proposal, why: str, placings: Sequence[Placing]) -> bool:
    """Give a proposal word for word as the reply, after an event that says why.

    If tools are offered, or the reply has to be JSON, the aggregator writes the reply from this
    proposal alone, because proposers are asked for neither. The reply ends where the aggregator's
    own `stop` and `max_tokens` would have ended it. why: the reason for this proposal.
    placings: of all proposals. Returns whether there is a whole reply. Raises BudgetReached at a
    cap.
    """
    decide(state, Decision(state.profile.strategy, why, tuple(placings), proposal.index))
    if acts(state):
        state.references = [proposal]
        return await run_aggregator(state)
    state.depth += 1
    whole, model = text_of(proposal), proposal.model
    text = _up_to_stop(whole, state.aggregators[0].extra.get("stop"))
    finish = proposal.finish_reason if text == whole else "stop"
    # Only the limit of the reply itself counts: proposers may write more than the profile's.
    most = state.profile.aggregator.max_tokens
    if most is not None and (end := _end_of_tokens(proposal, whole, most)) < len(text):
        text, finish = text[:end], "length"
    await state.emit_and_wait(
        events.AggregatorStarted(
            at=state.now(),
            name=proposal.proposer or short_name(model),
            model=model,
            references=len(state.references),
            reused=state.reused,
            copied=True,
        )
    )
    state.emit(events.AggregatorDelta(at=state.now(), text=text))
    state.emit(
        events.AggregatorFinished(
            at=state.now(),
            model=model,
            text=text,
            answered_by=proposal.answered_by,
            finish_reason=finish,
            citations=proposal.citations,
        )
    )
    return True


def _up_to_stop(text: str, stop: object) -> str:
    """A text up to the place where a model with these stop texts would have ended it. If nothing
    would be left, the whole text. stop: a text, or a list of texts."""
    ends = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    found = [place for place in map(text.find, filter(None, ends)) if place >= 0]
    cut = text[: min(found, default=len(text))]
    return cut if cut.strip() else text


def _end_of_tokens(proposal: Proposal, text: str, most: int) -> int:
    """About where the text of a proposal has had this many tokens; its length if it has no more."""
    usage, tokens = proposal.usage, estimate_tokens(text)
    if usage.calls:
        told = usage.completion_tokens - usage.reasoning_tokens
        # The count may hold reasoning that is not told apart, or a request that was given up.
        more = usage.calls > 1 or proposal.reasoning or text != proposal.text.strip()
        tokens = min(told, tokens) if more else told
    return len(text) if tokens <= most else max(1, len(text) * most // tokens)


async def copy_winner(
    state: TurnState, found: Sequence[Proposal], votes: Sequence[int], why: str
) -> bool:
    """Give the proposal with the most votes as the reply, or the first of several such proposals.
    Without any vote, have the reply written from all proposals.

    votes: the votes of each proposal. why: a summary of how they were given. Returns whether there
    is a whole reply. Raises BudgetReached at a cap.
    """
    if not any(votes):
        state.lost.append("the choice cannot be read: the reply is written from all proposals")
        decide(state, Decision(state.profile.strategy, why))
        return await run_aggregator(state)
    placings = [
        Placing(proposal.proposer, proposal.index, votes=count)
        for proposal, count in zip(found, votes, strict=True)
    ]
    # The sort is stable: proposals with the same number of votes keep their order.
    placings.sort(key=lambda placing: -placing.votes)
    return await copy(state, found[votes.index(max(votes))], why, placings)


def decide(state: TurnState, decision: Decision) -> None:
    """Emit how the reply comes about, why earlier stages of the route were not enough, and which
    steps were skipped."""
    decision = replace(
        decision,
        summary="; ".join([*state.refused, decision.summary]),
        skipped=(*state.skipped, *decision.skipped),
        saved_calls=state.saved.calls + decision.saved_calls,
        saved_cost=state.saved.cost + decision.saved_cost,
    )
    state.emit(events.Decided(at=state.now(), decision=decision))
