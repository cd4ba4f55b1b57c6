"""The meaning of a request, independent of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from moa_cli.core.conversation import Conversation, Turn, Usage
from moa_cli.core.frozen import quickly_made
from moa_cli.core.strategy import Strategy
from moa_cli.core.values import Key, ValueFault, keys_of
from moa_cli.engine.structured.format import ResponseFormat
from moa_cli.profile import Overrides
from moa_cli.profile.schema import (
    PROFILE_KEYS,
    PROPOSER_KEYS,
    ChosenBy,
    FanOut,
    Placement,
    ReferenceFormat,
    Tools,
)

UsageKind = Literal["reply", "sum"]
# If a request limits the reply to at most this many tokens, such as for a title, the same limit
# applies to the proposers.
TINY_LIMIT = 256
_LEAST_SECONDS = 1.0


def _seconds(name: str) -> Key:
    """The key of a time limit of the profile, with a lower bound that models can meet."""
    return replace(PROFILE_KEYS[name], low=_LEAST_SECONDS)


def _some(models: tuple[str, ...]) -> None:
    if not models:
        raise ValueFault("must not be empty; to use no proposers, send `moa.rounds` 0")


@dataclass(frozen=True, kw_only=True)
class MixtureFields:
    """The `moa` object: overrides of the mixture for one request."""

    rounds: Annotated[int | None, PROFILE_KEYS["rounds"]] = None
    proposers: Annotated[
        tuple[str, ...] | None, Key("models in place of the profile's proposers", check=_some)
    ] = None
    aggregator: Annotated[str | None, Key("the model that writes the reply")] = None
    samples: Annotated[int | None, PROPOSER_KEYS["samples"]] = None
    reference_placement: Annotated[Placement | None, PROFILE_KEYS["reference_placement"]] = None
    reference_format: Annotated[ReferenceFormat | None, PROFILE_KEYS["reference_format"]] = None
    reference_names: Annotated[bool | None, PROFILE_KEYS["reference_names"]] = None
    strategy: Annotated[Strategy | None, PROFILE_KEYS["strategy"]] = None
    judge: Annotated[str | None, PROFILE_KEYS["judge"]] = None
    final_answer: Annotated[str | None, PROFILE_KEYS["final_answer"]] = None
    chosen_by: Annotated[ChosenBy | None, PROFILE_KEYS["chosen_by"]] = None
    one_call: Annotated[bool | None, PROFILE_KEYS["one_call"]] = None
    stop_when_agreed: Annotated[float | None, PROFILE_KEYS["stop_when_agreed"]] = None
    timeout: Annotated[float | None, _seconds("timeout")] = None
    stall: Annotated[float | None, _seconds("stall")] = None
    first_token: Annotated[float | None, _seconds("first_token")] = None
    hedge_after: Annotated[float | None, PROFILE_KEYS["hedge_after"]] = None
    quorum: Annotated[int | None, PROFILE_KEYS["quorum"]] = None
    patience: Annotated[float | None, PROFILE_KEYS["patience"]] = None
    use_partial: Annotated[bool | None, PROFILE_KEYS["use_partial"]] = None
    overlap: Annotated[bool | None, PROFILE_KEYS["overlap"]] = None
    tools: Annotated[Tools | None, PROFILE_KEYS["tools"]] = None
    fan_out: Annotated[FanOut | None, PROFILE_KEYS["fan_out"]] = None
    report: Annotated[bool | None, PROFILE_KEYS["report"]] = None
    show_proposals: Annotated[bool | None, Key("send the proposals as `reasoning_content`")] = None
    usage: Annotated[
        UsageKind | None, Key("usage to report: of the call that wrote the `reply`, or the `sum`")
    ] = None

    def overrides(self) -> Overrides:
        """The settings that override those of the profile."""
        given = {name: getattr(self, name) for name in _LAID_OVER}
        return Overrides(reference_models=self.proposers, **given)


_LAID_OVER = keys_of(MixtureFields).keys() & {field.name for field in fields(Overrides)}
# The unchanged mixture, for all requests without a `moa` object.
AS_IT_IS = MixtureFields()


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Asked:
    """The meaning of a request, independent of the wire.

    Attributes:
        model: The name of a mixture, as the client gave it.
        conversation: The conversation; its open turn is to be answered.
        stream: Whether the reply is sent as it is written.
        settings: Settings of the model that writes the reply, named as in a profile.
        extra: Further fields of the request body for that model, such as `tools`.
        schema: The format of its reply, if that must be JSON.
        seed: For all models without a seed of their own.
        user: The name of the user, passed on to all models.
        mixture: The settings that override those of the mixture for this request.
        choices: How many replies are written from the same proposals.
        ignored: The names of fields that had no effect.
        usage: Which usage the client gets: that of the call that wrote the reply, or the sum of all
            calls. None means the one that the wire's clients expect. The other one is in `moa`.
    """

    model: str
    conversation: Conversation
    stream: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    schema: ResponseFormat | None = None
    seed: int | None = None
    user: str | None = None
    mixture: MixtureFields = AS_IT_IS
    choices: int = 1
    ignored: tuple[str, ...] = ()
    usage: UsageKind | None = None

    @property
    def tiny_limit(self) -> int | None:
        """The limit of tokens of the reply, if it applies to the proposers, too."""
        limit: int | None = self.settings.get("max_tokens")
        return limit if limit is not None and limit <= TINY_LIMIT else None

    def usage_of(self, turn: Turn, usual: UsageKind) -> Usage:
        """The usage that the client gets. usual: the kind if the request does not name one."""
        return turn.usage if (self.usage or usual) == "sum" else turn.reply_usage

    def ignored_in(self, turn: Turn) -> tuple[str, ...]:
        """The names of fields that had no effect in a turn. A reply in a proposal's own words, say,
        has no log-probabilities."""
        missed = self.extra.get("logprobs") and not turn.token_logprobs
        return (*self.ignored, "logprobs") if missed else self.ignored
