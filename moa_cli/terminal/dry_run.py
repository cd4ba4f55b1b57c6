"""`--dry-run`: the calls that a turn would make, and what each would be sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from moa_cli.core.conversation import Conversation
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.text import plural
from moa_cli.engine.advice import view_for
from moa_cli.engine.forecast import PlannedStage, contexts_of, forecast_turn, planned_stages
from moa_cli.engine.history import as_sent
from moa_cli.profile import ModelSettings, Profile, Proposer, Stage
from moa_cli.terminal import estimate

_COPIED = "\nreply: the words of a proposal, without a call"


def plan(
    profile: Profile,
    conversation: Conversation,
    known: Mapping[str, ModelInfo],
    assumed_context: int | None,
) -> str:
    """The plan as text. Answers that are not there yet stand as `<answer of …>`.

    known: facts by model name, for the estimates. assumed_context: see `Limits`.
    """
    lines = [f"profile {profile.name}: nothing is sent"]
    forecasts = forecast_turn(profile, conversation, known, assumed_context)
    sent = as_sent(profile, conversation, contexts_of(known), assumed_context)
    stages = planned_stages(profile, conversation, shown=True)
    copied = [] if any(planned.stage.writes for planned in stages) else [_COPIED]
    for planned, forecast in zip(stages, forecasts, strict=True):
        stage = planned.stage
        if stage.purpose == "report":
            lines += copied
            copied = []
        calls = plural(len(stage.models), "call")
        together = (
            " at once" if not (stage.purpose or stage.writes) or len(stage.models) > 1 else ""
        )
        lines.append(f"\n{estimate.stage_name(forecast)}: {calls}{together}")
        lines.append(f"  ({estimate.layer_text(forecast)})")
        lines += [f"  {_model(settings)}" for settings in stage.models]
        fallbacks = _fallbacks(profile, stage)
        if fallbacks:
            lines.append(f"  if it fails: {', '.join(fallback.model for fallback in fallbacks)}")
        lines += _prompts(planned, sent)
    lines += copied
    total = estimate.whole(forecasts)
    in_all = f"{plural(total.usage.calls, 'call')} in all: {estimate.layer_text(total)}"
    lines += [f"\n{in_all}", *estimate.more_lines(forecasts)]
    lines += [f"({note})" for note in estimate.notes(profile, forecasts, known)]
    return "\n".join(lines) + "\n"


def _fallbacks(profile: Profile, stage: Stage) -> Sequence[ModelSettings]:
    """Who is asked if the only model of a stage fails."""
    if stage.writes:
        return profile.aggregators()[1:]
    judges = profile.mergers() if stage.purpose == "merge" else profile.judges()
    # A report is one call at most.
    tried = stage.purpose not in ("", "report") and list(stage.models) == [judges[0]]
    return judges[1:] if tried else ()


def _model(settings: ModelSettings) -> str:
    """A call: the name of a proposer, its model and its settings."""
    proposer = f"{settings.name}: " if isinstance(settings, Proposer) else ""
    names = ("temperature", "max_tokens", "top_p", "seed")
    told = [
        f"{name} {getattr(settings, name)}" for name in names if getattr(settings, name) is not None
    ]
    told += [f"{key} {value}" for key, value in settings.extra.items()]
    return proposer + one_line(", ".join([settings.model, *told]))


def _prompts(planned: PlannedStage, sent: Callable[[ModelSettings], Conversation]) -> list[str]:
    """The messages, once for all models that are sent the same."""
    lines: list[str] = []
    shown: list[object] = []
    for index, model in enumerate(planned.stage.models):
        messages = planned.messages(index, view_for(planned.wording, model, sent(model)))
        if messages in shown:
            continue
        shown.append(messages)
        for message in messages:
            body = re.sub(r"^(?=[^\n])", "    ", sanitize(message.content), flags=re.MULTILINE)
            lines.append(f"  [{message.role}]\n{body}")
    return lines
