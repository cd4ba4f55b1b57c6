"""From a turn as the engine told it to a result that can be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from moa_cli.bench.run.replay import Answered
from moa_cli.bench.run.results import Answer, TurnResult
from moa_cli.core.conversation import Failure, Proposal, Turn
from moa_cli.core.errors import BadResponse
from moa_cli.engine.call import request_of
from moa_cli.engine.prompts import strip_reasoning
from moa_cli.profile import ModelSettings, Profile, short_name

__all__ = ["failure_of", "gathered"]


def gathered(
    profile: Profile, turn: Turn, answered: Sequence[Answered], *, trimmed: bool
) -> TurnResult:
    """The result of a turn. answered: its calls that have an answer."""
    left = sorted(answered, key=lambda one: (one.layer, one.occurrence, one.entry.key))

    def of_call(layer: int, settings: ModelSettings, answer: Answer) -> Answer:
        for place, one in enumerate(left):
            if one.layer == layer and _is_of(one, settings, answer):
                entry = left.pop(place).entry
                return replace(
                    answer,
                    key=entry.key,
                    answered_by=entry.answered_by,
                    finish_reason=entry.finish_reason,
                    usage=entry.usage,
                )
        return answer

    def proposal(one: Proposal) -> Answer:
        answer = Answer(one.model, one.text, reasoning=one.reasoning, error=one.error)
        return of_call(one.layer, profile.layer(one.layer)[one.index], answer)

    reply = None
    if turn.model is not None:
        error = _reply_error(turn)
        answer = Answer(turn.model, turn.reply or "", reasoning=turn.reasoning, error=error)
        for settings in profile.aggregators():
            if reply is None or not reply.key:
                reply = of_call(profile.rounds + 1, settings, answer)
    return TurnResult(
        proposals=tuple(tuple(map(proposal, layer)) for layer in turn.proposals),
        reply=reply,
        lost=turn.lost,
        trimmed=trimmed,
    )


def _is_of(one: Answered, settings: ModelSettings, answer: Answer) -> bool:
    """Whether it is the call by those settings that gave that answer."""
    request, entry = one.request, one.entry
    return (entry.model, entry.text, entry.reasoning) == (
        settings.model,
        answer.text,
        answer.reasoning,
    ) and request == request_of(settings, request.messages, request.model)


def _reply_error(turn: Turn) -> Failure | None:
    if turn.status != "finished":
        return turn.causes[0] if turn.causes else turn.error
    if not strip_reasoning(turn.reply or ""):
        return Failure(BadResponse.__name__, "it gave reasoning, but no answer")
    return None


def failure_of(turn: Turn, result: TurnResult, *, partial: bool = False) -> Failure | None:
    """Why the turn is no result, in one sentence that begins with the model's name; or None.

    partial: whether it is one without some of its proposals.
    """
    told = [one for one in (result.reply,) if one is not None] if partial else result.answers()
    for answer in told:
        if answer.error is not None:
            error = answer.error
            name = short_name(answer.model)
            return Failure(error.kind, f"{name}: {error.message}", error.hint)
    return turn.error
