"""What a turn will ask, told before it is asked: stage by stage, with prompts and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moa_cli.core.conversation import Conversation, Message, Proposal, Usage
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.tokens import extra_tokens, prompt_tokens
from moa_cli.engine.advice import view_for
from moa_cli.engine.estimate import ASSUMED_TOKENS, forecast_call
from moa_cli.engine.prompts import Reference, messages_for
from moa_cli.engine.sight import seen_by
from moa_cli.engine.strategies import wording_of
from moa_cli.profile import ModelSettings, Profile, Proposer, Stage


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a turn that is not begun.

    number: that of its layer. wording: the profile as its calls are told the references.
    references: the proposals that it is told, which are not there yet. answers: of how many tokens
    they, and the reviews that its prompts are made of, may be.
    """

    number: int
    stage: Stage
    wording: Profile
    references: Sequence[Reference] = ()
    answers: int = 0

    def messages(self, settings: ModelSettings, conversation: Conversation) -> tuple[Message, ...]:
        """What one of its models will be sent. conversation: as that model sees it."""
        return messages_for(self.wording, settings, conversation, self.references)


@dataclass(frozen=True)
class LayerForecast:
    """What one layer will take. layer: from 1. stage: whose calls they are; None for several.

    usage: each answer counted with its max_tokens, or ASSUMED_TOKENS where `assumed`.
    """

    layer: int
    usage: Usage
    assumed: bool
    stage: Stage | None = None


def planned_stages(profile: Profile, *, shown: bool = False) -> list[PlannedStage]:
    """What a turn will ask, in order.

    shown: whether an answer that is not there yet stands as `<answer of …>`, else as nothing.
    """
    planned = []
    references: list[Reference] = []
    proposed = reviewed = 0
    for number, stage in enumerate(profile.stages(), 1):
        wording = wording_of(profile, stage)
        # A reply is written with what the reviews say; reviews do not see one another.
        answers = proposed + (reviewed if stage.writes else 0)
        planned.append(PlannedStage(number, stage, wording, references, answers))
        length = sum(settings.max_tokens or ASSUMED_TOKENS for settings in stage.models)
        if stage.purpose:
            reviewed += length
        elif not stage.writes:
            proposed = length
            references = [_unsaid(number, settings, shown) for settings in stage.models]
    return planned


def forecast_turn(
    profile: Profile, conversation: Conversation, known: Mapping[str, ModelInfo]
) -> list[LayerForecast]:
    """What the open turn of `conversation` will take, layer by layer; each answer is counted
    again in the prompts that are made of it.

    known: facts by model name.
    """
    forecasts = []
    for planned in planned_stages(profile):
        usage = Usage()
        models = planned.stage.models
        for settings in models:
            info = known.get(settings.model) or ModelInfo(id=settings.model)
            talk = seen_by(view_for(profile, settings, conversation), info.sees)
            prompt = prompt_tokens(planned.messages(settings, talk))
            prompt += extra_tokens(settings.extra)
            usage += forecast_call(settings, prompt + planned.answers, info.price)
        assumed = any(settings.max_tokens is None for settings in models)
        forecasts.append(LayerForecast(planned.number, usage, assumed, planned.stage))
    return forecasts


def _unsaid(layer: int, settings: ModelSettings, shown: bool) -> Reference:
    """An answer that is not there yet, with the name that it will have."""
    name = (settings.name if isinstance(settings, Proposer) else None) or ""
    text = f"<answer of {name} in round {layer}>" if shown else ""
    return Proposal(layer, 0, name, settings.model, text)
