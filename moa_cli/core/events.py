"""The events of a turn. Screen, wire and disk all use them.

Every `…Started` is followed by exactly one `…Finished` or `…Failed`. The last event is TurnFinished
or TurnFailed. The deltas of a call (those after the last `Retrying` that withdraws the earlier
ones) concatenate to its finished text, with one exception: a model may end its reasoning with
`</think>` without having opened it. Then the text of `…Finished` is only the part after this tag,
and its reasoning is the part before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from moa_cli.core.conversation import Citation, Failure, Part, Proposal, Usage, without_empty
from moa_cli.core.frozen import quickly_made
from moa_cli.core.money import Price
from moa_cli.core.strategy import Decision, Purpose, Report
from moa_cli.core.tools import ToolCall, ToolPiece
from moa_cli.core.values import load_value, plain_values

__all__ = [
    "AggregatorDelta",
    "AggregatorFailed",
    "AggregatorFinished",
    "AggregatorStarted",
    "Caller",
    "Decided",
    "Event",
    "Hedged",
    "HistoryTrimmed",
    "LayerFinished",
    "LayerStarted",
    "LeftOutTurns",
    "ProposerDelta",
    "ProposerFailed",
    "ProposerFinished",
    "ProposerStarted",
    "Queued",
    "ReferencesTrimmed",
    "Reported",
    "Retrying",
    "TurnFailed",
    "TurnFinished",
    "TurnStarted",
    "from_dict",
    "to_dict",
]


@dataclass(frozen=True, kw_only=True)
class _Event:
    """The base of all events.

    Attributes:
        at: Seconds since the turn began.
    """

    at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A model that is about to be asked.

    Attributes:
        name: Its name on screen, which no other model of the layer has.
        model: Its model name in the profile.
    """

    name: str
    model: str


@quickly_made
@dataclass(frozen=True, kw_only=True)
class TurnStarted(_Event):
    """The turn has begun.

    Attributes:
        kind: The name of the event.
        profile: The name of the profile.
        prompt: The user's message.
        rounds: The number of proposer layers to come.
        aggregator: The model name of the aggregator.
        parts: All parts of the user's message in order, if not all of them are text; otherwise
            empty. In JSON this field is left out if it is empty.
    """

    kind: Literal["turn_started"] = "turn_started"
    profile: str
    prompt: str
    rounds: int
    aggregator: str
    parts: tuple[Part, ...] = ()


@quickly_made
@dataclass(frozen=True, kw_only=True)
class LayerStarted(_Event):
    """A layer of proposers has begun.

    With the profile's `overlap`, stragglers of the layer before may still run. Then their events
    come among those of this layer. Each event has the number of its layer.

    With the profile's `route`, the first layer may end and begin again with more proposers after
    the first ones. The first ones are not asked again, and have no more events.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1.
        proposers: The models that are asked, in the order of the profile. Other events name a
            proposer by its `index` in this list, counted from 0.
        purpose: What they are asked for. Empty for proposals; the kind of the reviews, such as
            `rank`, for a layer of reviews. In JSON this field is left out if it is empty.
    """

    kind: Literal["layer_started"] = "layer_started"
    layer: int
    proposers: tuple[Caller, ...]
    purpose: Purpose = ""


@quickly_made
@dataclass(frozen=True, kw_only=True)
class ProposerStarted(_Event):
    """The call of one proposer has begun.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1.
        index: The proposer's place in its layer, counted from 0.
        prompt_tokens: About how many tokens its prompt has. 0 if it is not asked at all; then the
            following ProposerFailed says why.
        price: The price of its model, or None if it is not known.
    """

    kind: Literal["proposer_started"] = "proposer_started"
    layer: int
    index: int
    prompt_tokens: int = 0
    price: Price | None = None


@dataclass(frozen=True, kw_only=True)
class ProposerDelta(_Event):
    """The next piece of a proposer's answer, or of its reasoning.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1.
        index: The proposer's place in its layer, counted from 0.
        text: The next piece of the answer.
        reasoning: The next piece of the reasoning.
    """

    kind: Literal["proposer_delta"] = "proposer_delta"
    layer: int
    index: int
    text: str = ""
    reasoning: str = ""


@quickly_made
@dataclass(frozen=True, kw_only=True)
class ProposerFinished(_Event):
    """A proposer has answered.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1.
        index: The proposer's place in its layer, counted from 0.
        proposal: Its answer.
    """

    kind: Literal["proposer_finished"] = "proposer_finished"
    layer: int
    index: int
    proposal: Proposal


@dataclass(frozen=True, kw_only=True)
class ProposerFailed(_Event):
    """A proposer is lost: it gives no usable answer.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1.
        index: The proposer's place in its layer, counted from 0.
        proposal: The part of its answer that has come. Its `error` says why the proposer is lost.
    """

    kind: Literal["proposer_failed"] = "proposer_failed"
    layer: int
    index: int
    proposal: Proposal


@dataclass(frozen=True, kw_only=True)
class Retrying(_Event):
    """A call failed and is made again. A reply is retried only before its first word, or if it is
    shown only as a whole.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1; rounds + 1 for the aggregator.
        index: The proposer's place in its layer, or None for the aggregator.
        model: The model name in the profile.
        attempt: The number of the next attempt.
        delay: Seconds until that attempt.
        error: Why the attempt before it failed.
        withdrawn: Whether the text of this call's deltas so far no longer counts. In JSON this
            field is left out if it is false.
    """

    kind: Literal["retrying"] = "retrying"
    layer: int
    index: int | None
    model: str
    attempt: int
    delay: float
    error: Failure
    withdrawn: bool = False


@dataclass(frozen=True, kw_only=True)
class Queued(_Event):
    """A call waits before it is sent, because too many calls are in flight, or its provider takes
    no call for now. There is no event for a short wait.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1; rounds + 1 for the aggregator.
        index: The proposer's place in its layer, or None for the aggregator.
        model: The model name in the profile.
        reason: What it waits for, such as `waiting for the limit of lab`; empty once it is sent.
    """

    kind: Literal["queued"] = "queued"
    layer: int
    index: int | None
    model: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Hedged(_Event):
    """The request of a call is sent a second time, because no word of its answer has come. The
    answer that begins first is used. The other request is cancelled, and counts in the call's
    usage.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1; rounds + 1 for the aggregator.
        index: The proposer's place in its layer, or None for the aggregator.
        model: The model of the second request, by its name in the profile: the same model, or a
            stand-in.
        seconds: How long the first request had been silent.
    """

    kind: Literal["hedged"] = "hedged"
    layer: int
    index: int | None
    model: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ReferencesTrimmed(_Event):
    """The prompt of a model is shortened, because it does not fit the model's context: references
    are cut, or earlier messages are left out.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1; rounds + 1 for the aggregator.
        index: The proposer's place in its layer, or None for the aggregator.
        model: The model name in the profile.
        kept: About how many tokens each cut reference still has; 0 if none was cut.
        context: The context length of the model, in tokens. If its endpoint refused a prompt as too
            long, an estimate of what it takes.
        left_out: How many of the earlier messages are not sent. In JSON this field is left out if
            it is 0.
    """

    kind: Literal["references_trimmed"] = "references_trimmed"
    layer: int
    index: int | None
    model: str
    kept: int
    context: int
    left_out: int = 0


@dataclass(frozen=True)
class LeftOutTurns:
    """The turns of a conversation that a model is not sent.

    Attributes:
        model: The model name in the profile.
        count: How many of the oldest turns are left out.
        context: The context length of the model, in tokens.
        assumed: Whether `context` is assumed, because it is not known.
    """

    model: str
    count: int
    context: int
    assumed: bool = False


@dataclass(frozen=True, kw_only=True)
class HistoryTrimmed(_Event):
    """Some models are not sent the oldest turns, because all of them do not fit their contexts.

    Attributes:
        kind: The name of the event.
        turns: How many earlier turns there are.
        models: These models, each with the turns that it is not sent.
    """

    kind: Literal["history_trimmed"] = "history_trimmed"
    turns: int
    models: tuple[LeftOutTurns, ...]


@quickly_made
@dataclass(frozen=True, kw_only=True)
class LayerFinished(_Event):
    """A layer of proposers has ended.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1.
        answered: How many proposers of the layer gave a proposal.
        asked: How many proposers the layer has.
        seconds: Wall time of the layer.
    """

    kind: Literal["layer_finished"] = "layer_finished"
    layer: int
    answered: int
    asked: int
    seconds: float


@quickly_made
@dataclass(frozen=True, kw_only=True)
class AggregatorStarted(_Event):
    """The call of an aggregator has begun.

    Attributes:
        kind: The name of the event.
        name: The aggregator's name on screen.
        model: Its model name in the profile.
        references: How many references it is given.
        fallback: Whether it is a fallback, because the aggregator before it failed.
        prompt_tokens: About how many tokens its prompt has; 0 if it is not asked at all.
        price: The price of its model, or None if it is not known.
        reused: Whether the references were made for an earlier request on the same user's message.
            In JSON this field is left out if it is false.
        copied: Whether the reply is a proposal, word for word, so that no call is made. In JSON
            this field is left out if it is false.
    """

    kind: Literal["aggregator_started"] = "aggregator_started"
    name: str
    model: str
    references: int
    fallback: bool = False
    prompt_tokens: int = 0
    price: Price | None = None
    reused: bool = False
    copied: bool = False


@dataclass(frozen=True, kw_only=True)
class AggregatorDelta(_Event):
    """The next piece of the reply, or of the aggregator's reasoning.

    Attributes:
        kind: The name of the event.
        text: The next piece of the reply.
        reasoning: The next piece of the reasoning.
        tool_calls: The next pieces of the tool calls that the reply makes. In JSON this field is
            left out if it is empty.
        token_logprobs: The log-probabilities of the next tokens, if the request asks for them.
            Each is the JSON object of the endpoint, as text. In JSON this field is left out if it
            is empty.
    """

    kind: Literal["aggregator_delta"] = "aggregator_delta"
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolPiece, ...] = ()
    token_logprobs: tuple[str, ...] = ()


@quickly_made
@dataclass(frozen=True, kw_only=True)
class AggregatorFinished(_Event):
    """The reply is whole.

    Attributes:
        kind: The name of the event.
        model: The model name in the profile.
        text: The whole reply, without reasoning.
        reasoning: The whole reasoning.
        answered_by: The model id that the endpoint said it used, or None if it said none.
        usage: The usage of the call, with its failed attempts.
        seconds: From the start of the call to its end.
        first_token: Seconds from the start of the call to its first token, or None if none came.
        finish_reason: Why the reply ends, in the endpoint's words, such as `stop` or `length`.
        citations: The sources that the endpoint names for the reply. In JSON this field is left
            out if it is empty.
        tool_calls: The tool calls of the reply. The client has to make them. In JSON this field is
            left out if it is empty.
    """

    kind: Literal["aggregator_finished"] = "aggregator_finished"
    model: str
    text: str
    reasoning: str = ""
    answered_by: str | None = None
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    first_token: float | None = None
    finish_reason: str | None = None
    citations: tuple[Citation, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AggregatorFailed(_Event):
    """An aggregator is lost: it gives no whole reply.

    Attributes:
        kind: The name of the event.
        model: The model name in the profile.
        error: Why it is lost.
        text: The part of the reply that has come.
        usage: The usage of the call, with its failed attempts.
        seconds: From the start of the call to its end.
    """

    kind: Literal["aggregator_failed"] = "aggregator_failed"
    model: str
    error: Failure
    text: str = ""
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Decided(_Event):
    """The strategy has decided how the reply comes about.

    The event comes before the reply. An event about skipped steps may also follow the reply. If
    there are several events, the last one is complete.

    Attributes:
        kind: The name of the event.
        decision: The decision.
    """

    kind: Literal["decided"] = "decided"
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class Reported(_Event):
    """There is a report on where the proposals agree, and where not.

    Attributes:
        kind: The name of the event.
        report: The report.
    """

    kind: Literal["reported"] = "reported"
    report: Report


@quickly_made
@dataclass(frozen=True, kw_only=True)
class TurnFinished(_Event):
    """The turn has ended with a whole reply.

    Attributes:
        kind: The name of the event.
        usage: The usage of all calls of the turn.
        seconds: Wall time of the turn.
        lost: A sentence for each loss in the turn, such as a model that gave no answer.
    """

    kind: Literal["turn_finished"] = "turn_finished"
    usage: Usage
    seconds: float
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TurnFailed(_Event):
    """The turn has ended without a whole reply.

    Attributes:
        kind: The name of the event.
        error: Why the turn failed.
        causes: The error of each model that was asked and failed.
        usage: The usage of all calls of the turn.
        seconds: Wall time of the turn.
        lost: A sentence for each loss in the turn, such as a model that gave no answer.
    """

    kind: Literal["turn_failed"] = "turn_failed"
    error: Failure
    causes: tuple[Failure, ...]
    usage: Usage
    seconds: float
    lost: tuple[str, ...] = ()


Event = (
    TurnStarted
    | LayerStarted
    | ProposerStarted
    | ProposerDelta
    | ProposerFinished
    | ProposerFailed
    | Retrying
    | Queued
    | Hedged
    | ReferencesTrimmed
    | HistoryTrimmed
    | LayerFinished
    | AggregatorStarted
    | AggregatorDelta
    | AggregatorFinished
    | AggregatorFailed
    | Decided
    | Reported
    | TurnFinished
    | TurnFailed
)

_BY_KIND: dict[str, type[Any]] = {cls.kind: cls for cls in get_args(Event)}


def to_dict(event: Event) -> dict[str, Any]:
    """The event as plain JSON values.

    Args:
        event: Any event.

    Returns:
        A dictionary with `kind` first, then the event's fields.
    """
    return {"kind": event.kind, **plain_values(event, without_empty)}


def from_dict(values: Mapping[str, Any], *, strict: bool = False) -> Event:
    """The event that `to_dict` turned into `values`, or that `moa ask --output jsonl` printed.

    Args:
        values: The result of `to_dict`, or a printed line as parsed JSON.
        strict: Whether to check that a text is one of its `Literal`, and that a number fits a
            float. For files that another program may have changed.

    Returns:
        An event equal to the one that was given to `to_dict`.

    Raises:
        ValueError: `values` is not an event.
    """
    cls = _BY_KIND.get(str(values.get("kind")))
    if cls is None:
        raise ValueError(f"not an event: kind {values.get('kind')!r}")
    held = _without_sums(values)
    if isinstance(held.get("proposal"), Mapping):
        held = {**held, "proposal": _without_sums(held["proposal"])}
    return cast("Event", load_value(cls, held, strict=strict))


def _without_sums(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values with their usage as `to_dict` has it: a printed one also has sums."""
    usage = values.get("usage")
    if not isinstance(usage, Mapping) or "known_cost" not in usage:
        return values
    own = {name: usage[name] for name in usage if name not in ("total_tokens", "known_cost")}
    return {**values, "usage": {**own, "cost": usage["known_cost"]}}
