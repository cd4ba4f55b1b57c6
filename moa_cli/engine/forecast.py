"""A forecast of a turn before it is run: its calls stage by stage, with prompts and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from moa_cli.core.conversation import Conversation, Message, Proposal, Usage
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.strategy import answer_name
from moa_cli.core.tokens import extra_tokens, prompt_tokens
from moa_cli.engine.advice import view_for
from moa_cli.engine.estimate import ASSUMED_TOKENS, forecast_call
from moa_cli.engine.history import as_sent
from moa_cli.engine.prompts import messages_for
from moa_cli.engine.sight import seen_by
from moa_cli.engine.strategies import reviewer_of, wording_of
from moa_cli.engine.subsets import references_of_calls, shuffled
from moa_cli.profile import ModelSettings, Profile, Proposer, Stage

_A = TypeVar("_A")


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a turn that has not begun.

    number: of its layer. wording: the profile with the merge prompt of its calls. references: the
    references of each call, as placeholders for answers that do not exist yet. reviewed: the most
    tokens that the reviews in its prompts may have.
    """

    number: int
    stage: Stage
    wording: Profile
    references: Sequence[Sequence[Proposal]]
    reviewed: int = 0

    def messages(self, index: int, conversation: Conversation) -> tuple[Message, ...]:
        """The messages of one call. index: the place of the call. conversation: as the model of the
        call is sent it."""
        settings = reviewer_of(self.wording, self.stage, self.stage.models[index], conversation)
        return messages_for(self.wording, settings, conversation, self.references[index])

    def answers(self, index: int) -> int:
        """The most tokens that the answers in the prompt of one call may have."""
        told = sum(reference.usage.completion_tokens for reference in self.references[index])
        return told + self.reviewed


@dataclass(frozen=True)
class LayerForecast:
    """The foreseen usage of one layer.

    layer: its number, from 1. usage: each answer is counted with its max_tokens, or else with
    ASSUMED_TOKENS. assumed: whether an answer has no max_tokens. stage: the stage of the calls;
    None for several stages.
    """

    layer: int
    usage: Usage
    assumed: bool
    stage: Stage | None = None


def foretold_stages(profile: Profile) -> list[tuple[int, Stage]]:
    """The stages of a turn in order, each with the number of its layer.

    A route splits the first layer: its parts are separate stages, with the checks between them. A
    stage is certain only if it is asked in any case, so not if a route or an agreement may save it.
    """
    stages = list(enumerate(profile.stages(), 1))
    rounds = profile.rounds
    if profile.stop_when_agreed is not None:
        stages = [
            (number, replace(stage, certain=False))
            if 1 < number <= rounds or stage.writes or stage.purpose in ("compare", "rank", "merge")
            else (number, stage)
            for number, stage in stages
        ]
    if not (profile.route and rounds):
        return stages
    models, asked = stages[0][1].models, 0
    parts: list[tuple[int, Stage]] = []
    for part in profile.route:
        if part.proposers > asked:
            parts.append((1, Stage("", models[asked : part.proposers], certain=not asked)))
            asked = part.proposers
        if part.verify:
            # A check is certain only in the first stage of the route, and without other conditions
            # there.
            others = (part.max_prompt_tokens, part.agreement)
            certain = part is profile.route[0] and others == (None, None)
            parts.append((rounds + 1, Stage("verify", profile.judges()[:1], certain)))
    if asked < len(models):
        parts.append((1, Stage("", models[asked:], certain=False)))
    later = [(number, stage) for number, stage in stages[1:] if stage.purpose != "verify"]
    return [*parts, *later]


def planned_stages(
    profile: Profile, conversation: Conversation, *, shown: bool = False
) -> list[PlannedStage]:
    """The stages of the open turn of `conversation`, in order.

    shown: whether prompts show `<answer of …>` in place of an answer that does not exist yet;
    otherwise its text is empty.
    """
    prompt = conversation.turns[-1].user
    planned = []
    # The proposals of the last layer of proposers, and the references that merges have left.
    proposals: list[Proposal] = []
    references: list[Proposal] = []
    # The number of that layer, and the references of its calls.
    layer, earlier = 0, references
    reviewed = 0
    for number, stage in foretold_stages(profile):
        answers = [_unsaid(stage, number, settings, shown) for settings in stage.models]
        about = references if stage.purpose in ("", "merge") else proposals
        given = answers_of_calls(profile, stage, number, prompt, about)
        # The prompt for the reply contains the reviews; the prompt of a review does not.
        told = reviewed if stage.writes else 0
        if stage.purpose == "merge":
            references = [*answers, *references[profile.window :]]
        elif stage.purpose:
            reviewed += sum(answer.usage.completion_tokens for answer in answers)
        elif number == layer:
            # Another part of the same layer: its calls get the same references as the first part.
            given = [earlier] * len(answers)
            proposals = references = [*references, *answers]
        elif not stage.writes:
            layer, earlier = number, references
            proposals = references = answers
        planned.append(PlannedStage(number, stage, wording_of(profile, stage), given, told))
    return planned


def answers_of_calls(
    profile: Profile, stage: Stage, number: int, prompt: str, answers: Sequence[_A]
) -> list[Sequence[_A]]:
    """The answers that each call of a stage is given.

    number: of the stage's layer. prompt: the user's. answers: all answers of the layer before.
    """
    count = len(stage.models)
    match stage.purpose:
        case "" if stage.writes:
            # The prompt of a strategy may name the references by their numbers, so it keeps their
            # order.
            if profile.shuffle and wording_of(profile, stage) is profile:
                return [shuffled(answers, prompt, number)]
        case "":
            drawn = references_of_calls(profile, answers, prompt, number, count)
            if drawn is not None:
                return drawn
        case "merge":
            return [answers[: profile.window]]
        case "rank" | "choose" if count > 1:
            # Proposers that judge each other are not given their own proposal.
            return [[*answers[:own], *answers[own + 1 :]] for own in range(count)]
    return [answers] * count


def forecast_turn(
    profile: Profile,
    conversation: Conversation,
    known: Mapping[str, ModelInfo],
    assumed_context: int | None = None,
) -> list[LayerForecast]:
    """The foreseen usage of the open turn of `conversation`, stage by stage. An answer counts
    again in each prompt that contains it.

    known: facts about models, by model name. assumed_context: see `Limits`.
    """
    forecasts = []
    sent = as_sent(profile, conversation, contexts_of(known), assumed_context)
    for planned in planned_stages(profile, conversation):
        usage = Usage()
        models = planned.stage.models
        for index, settings in enumerate(models):
            info = known.get(settings.model) or ModelInfo(id=settings.model)
            talk = seen_by(view_for(profile, settings, sent(settings)), info.sees)
            prompt = prompt_tokens(planned.messages(index, talk))
            prompt += extra_tokens(settings.extra)
            usage += forecast_call(settings, prompt + planned.answers(index), info.price)
        assumed = any(settings.max_tokens is None for settings in models)
        forecasts.append(LayerForecast(planned.number, usage, assumed, planned.stage))
    return forecasts


def contexts_of(known: Mapping[str, ModelInfo]) -> dict[str, int | None]:
    """The known contexts of models, in tokens."""
    return {model: info.context_length for model, info in known.items()}


def _unsaid(stage: Stage, layer: int, settings: ModelSettings, shown: bool) -> Proposal:
    """A placeholder for an answer that does not exist yet, with its name and its longest
    length."""
    name = (settings.name if isinstance(settings, Proposer) else None) or ""
    text = f"<answer of {name} in round {layer}>"
    if stage.purpose:
        text = f"<{answer_name(stage.purpose)} of layer {layer}>"
    length = Usage(completion_tokens=settings.max_tokens or ASSUMED_TOKENS)
    return Proposal(layer, 0, name, settings.model, text if shown else "", usage=length)
