"""The estimate of a turn's usage, as text and as JSON values, and the prompts of its calls."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moa_cli.core.conversation import Conversation, Usage
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.money import cost_text, cost_value, prices_are
from moa_cli.core.sanitize import one_line, sanitize
from moa_cli.core.strategy import layer_name
from moa_cli.core.text import plural
from moa_cli.engine.advice import view_for
from moa_cli.engine.estimate import ASSUMED_TOKENS
from moa_cli.engine.forecast import (
    LayerForecast,
    PlannedStage,
    contexts_of,
    forecast_turn,
    planned_stages,
)
from moa_cli.engine.history import as_sent
from moa_cli.profile import ModelSettings, Profile, Proposer, Stage

Known = Mapping[str, ModelInfo]
_COPIED = "\nreply: the words of a proposal, without a call"


def whole(layers: Sequence[LayerForecast]) -> LayerForecast:
    """The sum of the layers that are asked in any case."""
    return _sum([layer for layer in layers if _is_certain(layer)])


def _sum(layers: Sequence[LayerForecast]) -> LayerForecast:
    total = sum((layer.usage for layer in layers), Usage())
    return LayerForecast(0, total, any(layer.assumed for layer in layers))


def _is_certain(forecast: LayerForecast) -> bool:
    return forecast.stage is None or forecast.stage.certain


def stage_name(forecast: LayerForecast) -> str:
    """The name of a stage, with `(perhaps)` if it may not be needed."""
    stage = forecast.stage
    if stage is None:
        return f"round {forecast.layer}"
    name = "aggregator" if stage.writes else layer_name(forecast.layer, stage.purpose)
    return name if stage.certain else f"{name} (perhaps)"


def more_lines(layers: Sequence[LayerForecast]) -> list[str]:
    """A line on the stages that may not be needed, if there are any."""
    perhaps = [layer for layer in layers if not _is_certain(layer)]
    if not perhaps:
        return []
    more = _sum(perhaps)
    return [f"perhaps {plural(more.usage.calls, 'call')} more: {layer_text(more)}"]


def layer_text(forecast: LayerForecast) -> str:
    """The usage of one layer as a text: prompts are estimated, answers have their longest
    length."""
    usage = forecast.usage
    most = "about" if forecast.assumed else "up to"
    cost = cost_text(usage).lstrip("~")
    if usage.cost:
        cost = f"{most} {cost}"
    return (
        f"about {usage.prompt_tokens:,} tokens in, {most} {usage.completion_tokens:,} out, {cost}"
    )


def notes(profile: Profile, layers: list[LayerForecast], known: Known) -> list[str]:
    """Notes on the assumptions behind the figures."""
    lines = []
    if any(layer.assumed for layer in layers):
        lines.append(f"an answer without max_tokens is counted as {ASSUMED_TOKENS:,} tokens")
    asked = {one_line(model): info for model, info in _asked(profile, known).items()}
    unpriced = [model for model, info in asked.items() if info.price is None]
    if unpriced:
        lines.append(f"{prices_are(unpriced)} unknown")
    tabled = [model for model, info in asked.items() if info.from_table]
    if tabled:
        lines.append(f"{prices_are(tabled)} from the table that comes with moa")
    day = _date(profile, known)
    if day is not None:
        lines.append(f"prices as listed on {day}")
    return lines


def _asked(profile: Profile, known: Known) -> dict[str, ModelInfo]:
    """The models that are asked if nothing fails."""
    return {call.model: known[call.model] for layer in profile.all_layers() for call in layer}


def _date(profile: Profile, known: Known) -> str | None:
    """The date of the oldest list that a price was taken from."""
    dates = [info.as_of for info in _asked(profile, known).values() if info.as_of is not None]
    return time.strftime("%Y-%m-%d", time.localtime(min(dates))) if dates else None


def to_lines(
    profile: Profile, conversation: Conversation, known: Known, assumed_context: int | None
) -> list[str]:
    """The estimate of the open turn, layer by layer. assumed_context: see `Limits`."""
    layers = forecast_turn(profile, conversation, known, assumed_context)
    lines = [
        f"{stage_name(layer)}: {plural(layer.usage.calls, 'call')}, {layer_text(layer)}"
        for layer in layers
    ]
    if len(layers) > 1:
        total = whole(layers)
        lines.append(f"in all: {plural(total.usage.calls, 'call')}, {layer_text(total)}")
        lines += more_lines(layers)
    return [*lines, *(f"({note})" for note in notes(profile, layers, known))]


def to_dict(
    profile: Profile, conversation: Conversation, known: Known, assumed_context: int | None
) -> dict[str, Any]:
    """The estimate of the open turn as JSON values. A cost is None if a price is unknown."""
    layers = forecast_turn(profile, conversation, known, assumed_context)

    def values(forecast: LayerForecast) -> dict[str, Any]:
        usage, stage = forecast.usage, forecast.stage
        told: dict[str, Any] = {}
        if stage is not None and stage.purpose:
            told["purpose"] = stage.purpose
        if not _is_certain(forecast):
            told["perhaps"] = True
        return {
            **told,
            "calls": usage.calls,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "completion_assumed": forecast.assumed,
            "cost": cost_value(usage),
        }

    return {
        "profile": profile.name,
        "layers": [{"layer": layer.layer, **values(layer)} for layer in layers],
        "total": values(whole(layers)),
        "prices_as_of": _date(profile, known),
    }


def plan(
    profile: Profile,
    conversation: Conversation,
    known: Known,
    assumed_context: int | None,
) -> str:
    """The plan of the open turn as text. `<answer of …>` stands for an answer that does not exist
    yet.

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
        lines.append(f"\n{stage_name(forecast)}: {calls}{together}")
        lines.append(f"  ({layer_text(forecast)})")
        lines += [f"  {_model(settings)}" for settings in stage.models]
        fallbacks = _fallbacks(profile, stage)
        if fallbacks:
            lines.append(f"  if it fails: {', '.join(fallback.model for fallback in fallbacks)}")
        lines += _prompts(planned, sent)
    lines += copied
    total = whole(forecasts)
    in_all = f"{plural(total.usage.calls, 'call')} in all: {layer_text(total)}"
    lines += [f"\n{in_all}", *more_lines(forecasts)]
    lines += [f"({note})" for note in notes(profile, forecasts, known)]
    return sanitize("\n".join(lines) + "\n")


def _fallbacks(profile: Profile, stage: Stage) -> Sequence[ModelSettings]:
    """The models that are asked if the only model of a stage fails."""
    if stage.writes:
        return profile.aggregators()[1:]
    judges = profile.mergers() if stage.purpose == "merge" else profile.judges()
    # A report takes at most one call.
    tried = stage.purpose not in ("", "report") and list(stage.models) == [judges[0]]
    return judges[1:] if tried else ()


def _model(settings: ModelSettings) -> str:
    """A line on a call: the name of the proposer, its model and its settings."""
    proposer = f"{settings.name}: " if isinstance(settings, Proposer) else ""
    names = ("temperature", "max_tokens", "top_p", "seed")
    told = [
        f"{name} {getattr(settings, name)}" for name in names if getattr(settings, name) is not None
    ]
    told += [f"{key} {value}" for key, value in settings.extra.items()]
    return one_line(proposer + ", ".join([settings.model, *told]))


def _prompts(planned: PlannedStage, sent: Callable[[ModelSettings], Conversation]) -> list[str]:
    """The lines of the messages. Messages that are the same for several models are shown once."""
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
