"""What happens in a turn: the one vocabulary of screen, wire and disk.

Every `…Started` is closed by exactly one `…Finished` or `…Failed`; the deltas of a call
(those behind the last `Retrying` that withdraws what came before) concatenate to its finished
text; the last event is TurnFinished or TurnFailed. One thing goes
before the deltas: where a model ends reasoning that nothing opened (`…</think>`), the text of
`…Finished` is what follows, and its reasoning what came before.
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
    """What every event has.

    Attributes:
        at: Seconds since the turn began.
    """

    at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A model that is about to be asked.

    Attributes:
        name: Its name on screen, unlike that of any other model of the layer.
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
        parts: All parts of the user's message in order, if there are others than text. In JSON
            this field is left out where there are none.
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

    With the profile's `overlap`, the layer before may have stragglers that still run. Then their
    events come among those of this layer; each tells its layer.

    With the profile's `route`, the first layer may end and begin again, with more proposers behind
    the first ones. Those are not asked again: no event tells of them any more.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1.
        proposers: Who is asked, in the order of the profile. Other events name a proposer by its
            `index` in this list, counted from 0.
        purpose: What they are asked for: empty for proposals; a layer of reviews says which they
            are, such as `rank`. In JSON this field is left out where it is empty.
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
        prompt_tokens: About how many tokens it is sent. 0 if it is not asked at all; then the
            failure that follows says why.
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
        proposal: What it answered.
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
        proposal: What had come until then. Its `error` says why the proposer is lost.
    """

    kind: Literal["proposer_failed"] = "proposer_failed"
    layer: int
    index: int
    proposal: Proposal


@dataclass(frozen=True, kw_only=True)
class Retrying(_Event):
    """A call failed and is made again: before its first token, or as long as nobody was shown what
    had come.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1; rounds + 1 for the aggregator.
        index: The proposer's place in its layer, or None for the aggregator.
        model: The model name in the profile.
        attempt: The number of the attempt to come, 2 or more.
        delay: Seconds until that attempt.
        error: Why the attempt before it failed.
        withdrawn: Whether what the deltas of this call told so far is taken back. In JSON this
            field is left out where it is not.
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
    """A call waits, and is not sent yet: too many calls are in flight. Short waits are not told.

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
    """The request of a call is sent a second time, since no word came. The first answer to begin
    is the one that is told; the other request is cancelled, and counts in the call's usage.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1; rounds + 1 for the aggregator.
        index: The proposer's place in its layer, or None for the aggregator.
        model: The model name in the profile that is sent it now: the same, or a stand-in.
        seconds: For how long no word had come.
    """

    kind: Literal["hedged"] = "hedged"
    layer: int
    index: int | None
    model: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ReferencesTrimmed(_Event):
    """A model is sent less, because all of it does not fit its context: cut references, or fewer
    of the earlier turns.

    Attributes:
        kind: The name of the event.
        layer: The number of the layer, counted from 1; rounds + 1 for the aggregator.
        index: The proposer's place in its layer, or None for the aggregator.
        model: The model name in the profile.
        kept: About how many tokens are left of each reference that was longer; 0 if none was cut.
        context: The context length of the model, in tokens. Where its endpoint refused a prompt as
            too long, about as many as it seems to take.
        left_out: How many of the earlier messages are not sent. In JSON this field is left out
            where all are.
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
        assumed: Whether that is assumed, since it is not known.
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
        models: What each of these models is not sent.
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
        prompt_tokens: About how many tokens it is sent; 0 if it is not asked at all.
        price: The price of its model, or None if it is not known.
        reused: Whether the references were made for an earlier request on the same user's message.
            In JSON this field is left out where it is false.
        copied: Whether the reply is a proposal's own words: no call is made. In JSON this field is
            left out where it is false.
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
        tool_calls: The next pieces of the calls of tools that the reply makes. In JSON this field
            is left out where there are none.
        token_logprobs: The log-probabilities of the next tokens, where asked for: for each
            the JSON object that the endpoint tells, as text. In JSON this field is left out where
            there are none.
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
        usage: What the call took, its failed attempts included.
        seconds: From the start of the call to its end.
        first_token: Seconds from the start of the call to its first token, or None if none came.
        finish_reason: Why the reply ends, in the endpoint's words, such as `stop` or `length`.
        citations: The sources that the endpoint names for the reply. In JSON this field is left
            out where there are none.
        tool_calls: The calls of tools that the reply makes, for whoever asked to make. In JSON
            this field is left out where there are none.
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
        text: What had come of the reply.
        usage: What the call took, its failed attempts included.
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
    """The strategy knows how the reply comes about: before its first word, or, of what was skipped,
    behind it. Of several, the last one tells all.

    Attributes:
        kind: The name of the event.
        decision: How.
    """

    kind: Literal["decided"] = "decided"
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class Reported(_Event):
    """It is known where the proposals agree, and where not.

    Attributes:
        kind: The name of the event.
        report: Where.
    """

    kind: Literal["reported"] = "reported"
    report: Report


@quickly_made
@dataclass(frozen=True, kw_only=True)
class TurnFinished(_Event):
    """The turn has ended with a whole reply.

    Attributes:
        kind: The name of the event.
        usage: What all calls of the turn took.
        seconds: Wall time of the turn.
        lost: A sentence for each model that was lost on the way.
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
        causes: What went wrong with each model that was asked.
        usage: What all calls of the turn took.
        seconds: Wall time of the turn.
        lost: A sentence for each model that was lost on the way.
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
    """The event that `to_dict` made `values` of.

    Args:
        values: What `to_dict` returned.
        strict: Whether a text must be one of its `Literal`, and a number fit a float: for files
            that another program may have changed.

    Returns:
        An event equal to the one that was given to `to_dict`.

    Raises:
        ValueError: `values` is not an event.
    """
    cls = _BY_KIND.get(str(values.get("kind")))
    if cls is None:
        raise ValueError(f"not an event: kind {values.get('kind')!r}")
    return cast("Event", load_value(cls, values, strict=strict))
