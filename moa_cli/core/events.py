"""What happens in a turn: the one vocabulary of screen, wire and disk.

Every `…Started` is closed by exactly one `…Finished` or `…Failed`; the deltas of a call
concatenate to its finished text; the last event is TurnFinished or TurnFailed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from moa_cli.core.conversation import Failure, Proposal, Usage
from moa_cli.core.money import Price
from moa_cli.core.values import load_value

__all__ = [
    "AggregatorDelta",
    "AggregatorFailed",
    "AggregatorFinished",
    "AggregatorStarted",
    "Caller",
    "Event",
    "LayerFinished",
    "LayerStarted",
    "ProposerDelta",
    "ProposerFailed",
    "ProposerFinished",
    "ProposerStarted",
    "ReferencesTrimmed",
    "Retrying",
    "TurnFailed",
    "TurnFinished",
    "TurnStarted",
    "from_dict",
    "to_dict",
]


@dataclass(frozen=True, kw_only=True)
class _Event:
    """at: seconds since the turn started."""

    at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A model that is about to be asked: its name on screen, and as the profile names it."""

    name: str
    model: str


@dataclass(frozen=True, kw_only=True)
class TurnStarted(_Event):
    """prompt: the user's message. rounds: layers of proposers to come."""

    kind: Literal["turn_started"] = "turn_started"
    profile: str
    prompt: str
    rounds: int
    aggregator: str


@dataclass(frozen=True, kw_only=True)
class LayerStarted(_Event):
    """layer: counted from 1. proposers: in profile order; a place in it is an `index`."""

    kind: Literal["layer_started"] = "layer_started"
    layer: int
    proposers: tuple[Caller, ...]


@dataclass(frozen=True, kw_only=True)
class ProposerStarted(_Event):
    """The call of one proposer has begun.

    prompt_tokens: about how many it is sent, 0 if it is not asked at all (see the failure that
    follows). price: what its model costs, as far as known then.
    """

    kind: Literal["proposer_started"] = "proposer_started"
    layer: int
    index: int
    prompt_tokens: int = 0
    price: Price | None = None


@dataclass(frozen=True, kw_only=True)
class ProposerDelta(_Event):
    """The next piece of a proposer's answer, or of its reasoning."""

    kind: Literal["proposer_delta"] = "proposer_delta"
    layer: int
    index: int
    text: str = ""
    reasoning: str = ""


@dataclass(frozen=True, kw_only=True)
class ProposerFinished(_Event):
    """A proposer has answered."""

    kind: Literal["proposer_finished"] = "proposer_finished"
    layer: int
    index: int
    proposal: Proposal


@dataclass(frozen=True, kw_only=True)
class ProposerFailed(_Event):
    """A proposer is lost; `proposal.error` says why, the rest of it what had come."""

    kind: Literal["proposer_failed"] = "proposer_failed"
    layer: int
    index: int
    proposal: Proposal


@dataclass(frozen=True, kw_only=True)
class Retrying(_Event):
    """A call failed before its first token and is made again.

    index: the proposer's, or None for the aggregator. layer: rounds + 1 for the aggregator.
    attempt: the number of the attempt to come, from 2. delay: seconds until then.
    """

    kind: Literal["retrying"] = "retrying"
    layer: int
    index: int | None
    model: str
    attempt: int
    delay: float
    error: Failure


@dataclass(frozen=True, kw_only=True)
class ReferencesTrimmed(_Event):
    """The references are cut for a model, whose context they would not fit.

    index: the proposer's, or None for the aggregator. layer: rounds + 1 for the aggregator.
    kept: about how many tokens are left of each that was longer. context: the model's, tokens.
    """

    kind: Literal["references_trimmed"] = "references_trimmed"
    layer: int
    index: int | None
    model: str
    kept: int
    context: int


@dataclass(frozen=True, kw_only=True)
class LayerFinished(_Event):
    """answered: how many proposers of the layer gave a proposal. seconds: wall time."""

    kind: Literal["layer_finished"] = "layer_finished"
    layer: int
    answered: int
    asked: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class AggregatorStarted(_Event):
    """references: how many it is given. fallback: whether the one before it failed.

    prompt_tokens, price: as for ProposerStarted.
    """

    kind: Literal["aggregator_started"] = "aggregator_started"
    name: str
    model: str
    references: int
    fallback: bool = False
    prompt_tokens: int = 0
    price: Price | None = None


@dataclass(frozen=True, kw_only=True)
class AggregatorDelta(_Event):
    """The next piece of the reply, or of the aggregator's reasoning."""

    kind: Literal["aggregator_delta"] = "aggregator_delta"
    text: str = ""
    reasoning: str = ""


@dataclass(frozen=True, kw_only=True)
class AggregatorFinished(_Event):
    """The reply is whole. answered_by: the model id that the endpoint named, or None."""

    kind: Literal["aggregator_finished"] = "aggregator_finished"
    model: str
    text: str
    reasoning: str = ""
    answered_by: str | None = None
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    first_token: float | None = None
    finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class AggregatorFailed(_Event):
    """An aggregator is lost; text is what had come."""

    kind: Literal["aggregator_failed"] = "aggregator_failed"
    model: str
    error: Failure
    text: str = ""
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TurnFinished(_Event):
    """usage: over all calls. lost: a sentence for each model lost on the way."""

    kind: Literal["turn_finished"] = "turn_finished"
    usage: Usage
    seconds: float
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TurnFailed(_Event):
    """There is no whole reply. causes: what went wrong with each model that was asked."""

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
    | ReferencesTrimmed
    | LayerFinished
    | AggregatorStarted
    | AggregatorDelta
    | AggregatorFinished
    | AggregatorFailed
    | TurnFinished
    | TurnFailed
)

_BY_KIND: dict[str, type[Any]] = {cls.kind: cls for cls in get_args(Event)}


def to_dict(event: Event) -> dict[str, Any]:
    """The event as plain JSON values, `kind` first."""
    return {"kind": event.kind, **dataclasses.asdict(event)}


def from_dict(values: Mapping[str, Any], *, strict: bool = False) -> Event:
    """The event that `to_dict` made `values` of. Raises ValueError if it is none.

    strict: as for `load_value`.
    """
    cls = _BY_KIND.get(str(values.get("kind")))
    if cls is None:
        raise ValueError(f"not an event: kind {values.get('kind')!r}")
    return cast("Event", load_value(cls, values, strict=strict))
