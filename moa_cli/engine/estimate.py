"""What calls will take, told before they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moa_cli.core.conversation import Conversation, Proposal, Usage
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.money import Price, priced
from moa_cli.core.tokens import estimated_usage, extra_tokens, prompt_tokens
from moa_cli.engine.advice import view_for
from moa_cli.engine.prompts import Reference, messages_for
from moa_cli.engine.sight import seen_by
from moa_cli.profile import ModelSettings, Profile, Proposer

# Of an answer whose model has no max_tokens. Measured replies of current models to the 805
# instructions of AlpacaEval 2 are 300 to 600 tokens long.
ASSUMED_TOKENS = 1000


@dataclass(frozen=True)
class LayerForecast:
    """What one layer will take. layer: from 1; rounds + 1 is the aggregator's.

    usage: each answer counted with its max_tokens, or ASSUMED_TOKENS where `assumed`.
    """

    layer: int
    usage: Usage
    assumed: bool


def forecast_call(settings: ModelSettings, prompt: int, price: Price | None) -> Usage:
    """What one call will take, with as long an answer as it may give. prompt: its tokens."""
    return priced(estimated_usage(prompt, settings.max_tokens or ASSUMED_TOKENS), price)


def forecast_turn(
    profile: Profile, conversation: Conversation, known: Mapping[str, ModelInfo]
) -> list[LayerForecast]:
    """What the open turn of `conversation` will take, layer by layer; each answer is counted
    again as a reference of the layer after.

    known: facts by model name.
    """
    forecasts = []
    references: list[Reference] = []
    answers = 0
    for number, group in enumerate(profile.all_layers(), 1):
        usage = Usage()
        for settings in group:
            info = known.get(settings.model) or ModelInfo(id=settings.model)
            talk = seen_by(view_for(profile, settings, conversation), info.sees)
            prompt = prompt_tokens(messages_for(profile, settings, talk, references))
            prompt += extra_tokens(settings.extra)
            usage += forecast_call(settings, prompt + answers, info.price)
        assumed = any(settings.max_tokens is None for settings in group)
        forecasts.append(LayerForecast(number, usage, assumed))
        # The words of the references are not there yet: their numbers are, and their lengths.
        references = [_unsaid(number, settings) for settings in group]
        answers = sum(settings.max_tokens or ASSUMED_TOKENS for settings in group)
    return forecasts


def _unsaid(layer: int, settings: ModelSettings) -> Reference:
    """An answer that is not there yet, with the name that it will have."""
    name = settings.name if isinstance(settings, Proposer) else None
    return Proposal(layer, 0, name or "", settings.model, "")
