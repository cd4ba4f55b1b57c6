"""`--dry-run`: the calls that a turn would make, and what each would be sent."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moa_cli.core.conversation import Conversation, Proposal
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.text import plural
from moa_cli.engine.advice import view_for
from moa_cli.engine.prompts import Reference, messages_for
from moa_cli.profile import ModelSettings, Profile, Proposer
from moa_cli.terminal import estimate


def plan(profile: Profile, conversation: Conversation, known: Mapping[str, ModelInfo]) -> str:
    """The plan as text. Answers that are not there yet stand as `<answer of …>`.

    known: facts by model name, for the estimates.
    """
    lines = [f"profile {profile.name}: nothing is sent"]
    forecasts = estimate.forecasts(profile, conversation, known)
    references: list[Reference] = []
    calls = 0
    for number in range(1, profile.rounds + 1):
        proposers = profile.layer(number)
        calls += len(proposers)
        lines.append(f"\nround {number}: {plural(len(proposers), 'call')} at once")
        lines.append(f"  ({estimate.layer_text(forecasts[number - 1])})")
        lines += [f"  {proposer.name}: {_settings(proposer)}" for proposer in proposers]
        lines += _prompts(profile, list(proposers), conversation, references)
        references = [_unsaid(number, proposer) for proposer in proposers]
    first, *fallbacks = profile.aggregators()
    lines.append("\naggregator: 1 call")
    lines.append(f"  ({estimate.layer_text(forecasts[-1])})")
    lines.append(f"  {_settings(first)}")
    if fallbacks:
        lines.append(f"  if it fails: {', '.join(fallback.model for fallback in fallbacks)}")
    lines += _prompts(profile, [first], conversation, references)
    in_all = estimate.layer_text(estimate.whole(forecasts))
    lines.append(f"\n{plural(calls + 1, 'call')} in all: {in_all}")
    lines += [f"({note})" for note in estimate.notes(profile, forecasts, known)]
    return "\n".join(lines) + "\n"


def _unsaid(layer: int, proposer: Proposer) -> Reference:
    name = proposer.name or ""
    return Proposal(layer, 0, name, proposer.model, f"<answer of {name} in round {layer}>")


def _settings(settings: ModelSettings) -> str:
    names = ("temperature", "max_tokens", "top_p", "seed")
    told = [
        f"{name} {getattr(settings, name)}" for name in names if getattr(settings, name) is not None
    ]
    told += [f"{key} {value}" for key, value in settings.extra.items()]
    return one_line(", ".join([settings.model, *told]))


def _prompts(
    profile: Profile,
    models: list[ModelSettings],
    conversation: Conversation,
    references: list[Reference],
) -> list[str]:
    """The messages, once for all models that are sent the same."""
    lines: list[str] = []
    shown: list[object] = []
    for model in models:
        talk = view_for(profile, model, conversation)
        messages = messages_for(profile, model, talk, references)
        if messages in shown:
            continue
        shown.append(messages)
        for message in messages:
            body = re.sub(r"^(?=[^\n])", "    ", sanitize(message.content), flags=re.MULTILINE)
            lines.append(f"  [{message.role}]\n{body}")
    return lines
