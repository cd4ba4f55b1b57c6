"""A mixture as frozen dataclasses: proposers, layers, aggregator. It is read from tables and
written back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import chain, count
from typing import Annotated, Any, Literal, TypeVar

from moa_cli.config.meanings import MEANINGS
from moa_cli.config.toml import names_key, refused
from moa_cli.core.errors import ProfileError
from moa_cli.core.frozen import quickly_made
from moa_cli.core.strategy import Purpose, Strategy
from moa_cli.core.text import plural
from moa_cli.core.values import TOML, Key, KeyPath, ValueFault, keys_of, read_fields
from moa_cli.profile.final_answer import check as check_final_answer
from moa_cli.profile.merge_prompt import check as check_merge_prompt
from moa_cli.profile.variety import Variety, varied

Placement = Literal["system", "user"]
ReferenceFormat = Literal["paper", "fenced", "solutions"]
OnAllFailed = Literal["fail", "solo"]
Tools = Literal["aggregator", "ignore", "refuse"]
FanOut = Literal["user_message", "request"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
ChosenBy = Literal["judge", "proposers"]
# Settings that apply only to the call that writes the reply.
_OF_A_REPLY = ("extra", "max_tokens", "hedge_with")
_M = TypeVar("_M", "Proposer", "Aggregator")
_V = TypeVar("_V")
_WORD = r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+"
# Only behind a provider may a name hold spaces: ids of some servers do, and paths of files.
_MODEL_NAME = re.compile(rf"{_WORD}|[^\s:]+:{_WORD}(?: +{_WORD})*")


def _check_candidates(model: str | tuple[str, ...]) -> None:
    candidates = (model,) if isinstance(model, str) else model
    if not candidates:
        raise ValueFault("names no model")
    for candidate in candidates:
        _check_model_name(candidate)
    if len(set(candidates)) < len(candidates):
        raise ValueFault("names a model twice")


def _check_model_name(model: str) -> None:
    if not _MODEL_NAME.fullmatch(model):
        raise ValueFault(f"is not a model name: {model!r}")


def _check_extra(extra: Mapping[str, Any]) -> None:
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueFault("holds what a request cannot: a date, inf or nan") from None


@dataclass(frozen=True)
class Origin:
    """Where a setting comes from: the file, variable, option or command; "" for a default."""

    kind: Literal["default", "profile", "environment", "flag"]
    where: str = ""

    def __str__(self) -> str:
        return self.where or self.kind


# The origins by the path of the value; () is the file itself.
Origins = Mapping[KeyPath, Origin]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A model and the settings of its calls. None means: not set.

    Args:
        model: The model name, `provider:model-id`. A list of names, in order of preference, may
            be given; the first is kept here.
        alternatives: The rest of that list: models that are asked if those before them are no
            longer offered.
        temperature: Sampling temperature, 0 to 2. Unset: the profile's, else the endpoint's.
        max_tokens: Most tokens an answer may have. Unset: the profile's, else the endpoint's.
        system: The system prompt. Unset: the profile's.
        instruction: Text that is added to the system prompt, its own or the profile's.
        reasoning_effort: How much a reasoning model thinks. Unset: the profile's, else the model's
            own default. It is not sent to a model that does not know the field.
        timeout: Seconds a call may take, retries included. Unset: the profile's, else no limit.
        stall: Seconds without progress after which a call is given up. Unset: the profile's.
        first_token: Seconds without a first token after which a call is given up. Unset: the
            profile's.
        hedge_after: Seconds without a first token after which the request is sent once more;
            the first answer to begin is used. Unset: the profile's, else never.
        hedge_with: The model that gets the second request. Unset: the same model.
        context: Context length in tokens, instead of the known length of the model.
        top_p: Nucleus sampling, 0 to 1.
        seed: Seed for sampling, for endpoints that accept one.
        extra: Further fields of the request's body, sent unchanged.
    """

    model: Annotated[
        str,
        Key(
            "model name, `provider:model-id`, or several: the first that is offered is asked",
            check=_check_candidates,
            written=str | tuple[str, ...],
        ),
    ]
    alternatives: tuple[str, ...] = ()
    temperature: Annotated[
        float | None, Key("sampling temperature; if unset, the model's own default", 0, 2)
    ] = None
    max_tokens: Annotated[int | None, Key("maximum number of tokens of an answer", 1)] = None
    system: Annotated[str | None, Key("system prompt, instead of the profile's", blank=True)] = None
    instruction: Annotated[str | None, Key("text added to the system prompt", blank=True)] = None
    reasoning_effort: Annotated[
        Effort | None, Key("how much the model thinks; if unset, the profile's")
    ] = None
    timeout: Annotated[
        float | None, Key("seconds a call may take, retries included", 0.001, example=300)
    ] = None
    stall: Annotated[
        float | None,
        Key("seconds without progress after which a call is given up", 0.001, example=60),
    ] = None
    first_token: Annotated[
        float | None,
        Key("seconds without a first token after which a call is given up", 0.001, example=120),
    ] = None
    hedge_after: Annotated[
        float | None,
        Key("seconds without a first token after which the request is sent again", 0, example=8),
    ] = None
    hedge_with: Annotated[
        str | None,
        Key("model that is sent the request then; if unset, the same", check=_check_model_name),
    ] = None
    context: Annotated[int | None, Key("context length of the model, in tokens", 1)] = None
    top_p: Annotated[float | None, Key("nucleus sampling, 0 to 1", 0, 1)] = None
    seed: Annotated[int | None, Key("sampling seed, for endpoints that accept one")] = None
    extra: Annotated[
        Mapping[str, Any],
        Key("additional fields of the request, sent unchanged", check=_check_extra),
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        candidates: object = self.model
        if isinstance(candidates, tuple | list) and candidates:
            # A list of names, as a file has it.
            object.__setattr__(self, "model", candidates[0])
            object.__setattr__(self, "alternatives", tuple(candidates[1:]))

    @property
    def candidates(self) -> tuple[str, ...]:
        """The model and its alternatives, in order of preference."""
        return (self.model, *self.alternatives)


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Proposer(ModelSettings):
    """A model that answers in a proposer layer.

    Args:
        name: The name shown on screen. Unset: the last part of the model's name.
        samples: How many times it answers, each time independently.
        web: Whether it searches the web, if its provider offers that. Unset: the profile's.
    """

    name: Annotated[str | None, Key("name shown on screen; if empty, the model's", blank=True)] = (
        None
    )
    samples: Annotated[int, Key(MEANINGS["samples"], 1, 64)] = 1
    web: Annotated[
        bool | None, Key("whether it searches the web, where its provider offers that")
    ] = None


@quickly_made
@dataclass(frozen=True, kw_only=True)
class Aggregator(ModelSettings):
    """The model that writes the reply.

    Args:
        fallbacks: Model names that are tried in order if this one fails before its first token.
    """

    fallbacks: Annotated[
        tuple[Annotated[str, Key(check=_check_model_name)], ...],
        Key("models tried in order if this one fails before its first token"),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer with proposers of its own.

    Args:
        proposers: The models that answer in it.
        quorum: Number of answers after which the other proposers have only `patience` more. Unset:
            the profile's.
        patience: Seconds that the other proposers have after the quorum. Unset: the profile's.
    """

    proposers: Annotated[tuple[Proposer, ...], Key("the models that answer in this layer")] = ()
    quorum: Annotated[
        int | None,
        Key(
            "number of answers of this layer that are enough; if unset, the profile's", 1, example=2
        ),
    ] = None
    patience: Annotated[
        float | None,
        Key(
            "seconds that the other proposers have after that; if unset, the profile's",
            0,
            example=2.5,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RouteStage:
    """A part of the mixture that is asked first, and is enough if all its conditions hold.

    Args:
        proposers: How many answers of the first layer are requested; each sample is one.
        max_prompt_tokens: The stage is only for prompts with at most about this many tokens. Other
            prompts go to the next stage at once. Unset: for all prompts.
        agreement: How similar the proposals have to be, 0 to 1, if not all have the same final
            answer. Unset: they need not agree.
        verify: Whether the judge must confirm that the answers are right.
    """

    proposers: Annotated[
        int, Key("answers of the first layer that are asked for, each sample counted", 1)
    ]
    max_prompt_tokens: Annotated[
        int | None,
        Key("only for prompts of at most about so many tokens; if unset, for all", 1, example=500),
    ] = None
    agreement: Annotated[
        float | None,
        Key(
            "enough if all have the same final answer, or are as similar as this, 0 to 1",
            0,
            1,
            example=0.8,
        ),
    ] = None
    verify: Annotated[bool, Key("enough if the judge says that the answers are right")] = False


@dataclass(frozen=True)
class Stage:
    """Calls of a turn that are made in parallel.

    Args:
        purpose: The purpose of the reviews; empty for proposals and for the reply.
        models: The models that are called.
        certain: Whether the calls are always made if nothing fails.
    """

    purpose: Purpose
    models: Sequence[ModelSettings]
    certain: bool = True

    @property
    def writes(self) -> bool:
        """Whether the call of this stage writes the reply."""
        return isinstance(self.models[0], Aggregator)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A named mixture: layers of proposers, and the aggregator that writes the reply.

    Args:
        name: The profile's name.
        description: One line about its purpose.
        rounds: Layers of proposers; 0 asks the aggregator alone. The paper counts the
            aggregator too, so its layers are rounds + 1.
        multi_turn: Whether earlier turns are sent along.
        max_history: Maximum number of earlier turns that are sent along; the oldest are left out
            first. Unset: as many as fit into the context of each model.
        system: System prompt for all models.
        temperature: For models without one of their own.
        max_tokens: For models without a limit of their own.
        timeout: Seconds, for models without a timeout of their own.
        stall: Seconds, for models without a value of their own.
        first_token: Seconds, for models without a value of their own.
        hedge_after: Seconds, for models without a value of their own.
        quorum: Number of answers of a layer after which the turn waits only `patience` longer for
            the others. Unset: it waits for all.
        patience: Seconds that the other proposers have after the quorum is reached.
        use_partial: Whether the unfinished answer of a proposer that was too slow is used as a
            reference, marked as unfinished.
        overlap: Whether a proposer of a later layer begins as soon as the quorum of its references
            is reached.
        reference_placement: The message that holds the references.
        reference_format: How the references are separated: numbered, as in the paper; under
            headings, as in recursive self-aggregation (arXiv:2509.26626); or each between two lines
            with a mark that no answer can contain.
        reference_names: Whether the references show the names of their proposers.
        merge_prompt: The text that presents the references to a model. It must contain
            `{references}`, and may contain `{count}` and `{prompt}`. Unset: the paper's.
        strategy: How proposals become the reply.
        judge: The model that compares, chooses, checks and reports. Unset: the aggregator's.
        final_answer: How the final answer of a proposal is read, by the rules of
            `moa_cli.core.answers.final`.
        chosen_by: Who chooses with the strategy `select`.
        one_call: Whether, with the strategy `fusion`, the aggregator compares and writes in one
            call.
        references: How many of the references each proposer of a later layer gets, drawn at random
            for each proposer. Unset: all.
        shuffle: Whether each call gets the references in another order.
        window: How many answers the aggregator reads at once, with the strategy `synthesize`. If
            there are more, it merges the first ones, and continues with the result and the next
            ones. Unset: all.
        reasoning_effort: For models without one of their own.
        proposer_max_tokens: For proposers without a limit of their own, instead of `max_tokens`.
        web: Whether the proposers search the web, if their providers offer that. The aggregator
            gets their sources with their answers.
        variety: A set of further instructions, or of temperatures. Each proposer of a layer gets a
            different one. Unset: none.
        stop_when_agreed: If all proposals have the same final answer, neither further rounds nor
            the aggregator are asked. If the proposals are at least this similar, 0 to 1, on average
            over all pairs, further rounds are not asked. Unset: no call is skipped.
        report: Whether a report on where the proposals disagree is made after the reply.
        on_all_failed: What happens if no proposer answers: the turn fails, or the aggregator
            answers alone.
        tools: How the tools that a program offers are handled: the aggregator may call them
            (proposers never can), or they are ignored, or refused with an error.
        fan_out: How often a server asks the proposers while a program works on a user's message
            with tools: once for the message, or with each request.
        proposers: The models that answer in every layer.
        layers: Layers with proposers of their own, instead of `proposers`. A layer may also be a
            tuple of its proposers.
        aggregator: The model that writes the reply.
        route: Parts of the mixture that are asked first, in order. If one of them is enough, the
            rest is not asked.
        origins: Where the values come from.
        notes: Lines about the choice among its candidates, after the comparison with the models
            that providers offer.
    """

    name: str
    description: Annotated[str, Key("one line on what the profile is for", blank=True)] = ""
    rounds: Annotated[int, Key(MEANINGS["rounds"], 0, 10)] = 1
    multi_turn: Annotated[bool, Key(MEANINGS["multi_turn"])] = True
    max_history: Annotated[int | None, Key(MEANINGS["max_history"], 0, example=20)] = None
    system: Annotated[str | None, Key(MEANINGS["system"], blank=True)] = None
    temperature: Annotated[float | None, Key(MEANINGS["temperature"], 0, 2)] = None
    max_tokens: Annotated[int | None, Key(MEANINGS["max_tokens"], 1)] = None
    timeout: Annotated[float | None, Key(MEANINGS["timeout"], 0.001)] = None
    stall: Annotated[float | None, Key(MEANINGS["stall"], 0.001)] = None
    first_token: Annotated[float | None, Key(MEANINGS["first_token"], 0.001)] = None
    hedge_after: Annotated[float | None, Key(MEANINGS["hedge_after"], 0)] = None
    quorum: Annotated[int | None, Key(MEANINGS["quorum"], 1)] = None
    patience: Annotated[float, Key(MEANINGS["patience"], 0)] = 5.0
    use_partial: Annotated[bool, Key(MEANINGS["use_partial"])] = False
    overlap: Annotated[bool, Key(MEANINGS["overlap"])] = False
    reference_placement: Annotated[Placement, Key(MEANINGS["reference_placement"])] = "system"
    reference_format: Annotated[ReferenceFormat, Key(MEANINGS["reference_format"])] = "paper"
    reference_names: Annotated[bool, Key(MEANINGS["reference_names"])] = False
    merge_prompt: Annotated[
        str | None,
        Key(MEANINGS["merge_prompt"], blank=True, check=check_merge_prompt, example="merge.txt"),
    ] = None
    strategy: Annotated[Strategy, Key(MEANINGS["strategy"])] = "synthesize"
    judge: Annotated[str | None, Key(MEANINGS["judge"], check=_check_model_name)] = None
    final_answer: Annotated[str, Key(MEANINGS["final_answer"], check=check_final_answer)] = "auto"
    chosen_by: Annotated[ChosenBy, Key(MEANINGS["chosen_by"])] = "judge"
    one_call: Annotated[bool, Key(MEANINGS["one_call"])] = False
    references: Annotated[
        int | None,
        Key("references that each proposer of a later layer is given; if unset, all", 1),
    ] = None
    shuffle: Annotated[bool, Key("whether each call is given the references in another order")] = (
        False
    )
    window: Annotated[
        int | None,
        Key("answers that the aggregator reads at once; it merges more step by step", 2),
    ] = None
    reasoning_effort: Annotated[
        Effort | None, Key("how much the models think; if unset, each model's own default")
    ] = None
    proposer_max_tokens: Annotated[
        int | None, Key("maximum number of tokens of a proposer's answer", 1)
    ] = None
    web: Annotated[
        bool, Key("whether the proposers search the web, where their providers offer that")
    ] = False
    variety: Annotated[
        Variety | None,
        Key("different instructions or temperatures for the proposers of a layer"),
    ] = None
    stop_when_agreed: Annotated[
        float | None, Key(MEANINGS["stop_when_agreed"], 0, 1, example=0.9)
    ] = None
    report: Annotated[bool, Key(MEANINGS["report"])] = False
    on_all_failed: Annotated[
        OnAllFailed,
        Key("if no proposer answers: fail, or let the aggregator answer alone (solo)"),
    ] = "fail"
    tools: Annotated[
        Tools, Key("tools that a program offers: for the `aggregator`, or `ignore`, or `refuse`")
    ] = "aggregator"
    fan_out: Annotated[
        FanOut,
        Key("proposers answer once for each `user_message`, or for each `request` with tools"),
    ] = "user_message"
    proposers: Annotated[tuple[Proposer, ...], Key(MEANINGS["proposers"])] = ()
    layers: Annotated[tuple[Layer, ...], Key("layers with proposers of their own")] = ()
    aggregator: Annotated[Aggregator, Key(MEANINGS["aggregator"])]
    route: Annotated[
        tuple[RouteStage, ...], Key("parts of the mixture that are asked first, in order")
    ] = ()
    origins: Origins = field(default_factory=dict, compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        given: tuple[object, ...] = self.layers
        if any(isinstance(layer, tuple) for layer in given):
            layers = (
                Layer(proposers=layer) if isinstance(layer, tuple) else layer for layer in given
            )
            object.__setattr__(self, "layers", tuple(layers))

    def layer(self, number: int) -> tuple[Proposer, ...]:
        """The calls of a layer.

        Args:
            number: The number of the layer, counted from 1.

        Returns:
            A proposer for each call, with a name of its own and the profile's settings filled in.
        """
        return self.kept(number, lambda: self._calls(number))

    def kept(self, name: Hashable, find: Callable[[], _V]) -> _V:
        """Compute a value that does not depend on the aggregator, once.

        Args:
            name: The name under which the value is kept.
            find: Computes the value; called the first time only.

        Returns:
            The value that `find` returned, for this profile or for a copy of it with another
            aggregator.
        """
        if name not in self._kept:
            self._kept[name] = find()
        value: _V = self._kept[name]
        return value

    @cached_property
    def _kept(self) -> dict[Hashable, Any]:
        return {}

    def with_aggregator(self, aggregator: Aggregator) -> Profile:
        """Change the aggregator.

        Args:
            aggregator: The new aggregator.

        Returns:
            A copy of this profile with it. Computed values about the proposers are shared, because
            most requests to a server only change settings of the aggregator.
        """
        made = object.__new__(Profile)
        vars(made).update({**vars(self), "aggregator": aggregator, "_kept": self._kept})
        vars(made).pop("_tried", None)
        return made

    def _calls(self, number: int) -> tuple[Proposer, ...]:
        chosen = self.layers[number - 1].proposers if self.layers else self.proposers
        # With the same seed, all samples would be the same answer.
        calls = [
            replace(
                proposer,
                samples=1,
                seed=None if proposer.seed is None else proposer.seed + sample,
            )
            for proposer in chosen
            for sample in range(proposer.samples)
        ]
        if self.variety is not None:
            calls = [varied(call, self.variety, place) for place, call in enumerate(calls)]
        calls = [self._inherit(self._proposing(call)) for call in calls]
        names = unique_names([call.name or short_name(call.model) for call in calls])
        return tuple(replace(call, name=name) for call, name in zip(calls, names, strict=True))

    def quorum_of(self, number: int) -> int | None:
        """The quorum of a layer.

        Args:
            number: The number of the layer, counted from 1.

        Returns:
            The layer's own, else the profile's; None to wait for all answers.
        """
        own = self.layers[number - 1].quorum if self.layers else None
        return self.quorum if own is None else own

    def patience_of(self, number: int) -> float:
        """The patience of a layer.

        Args:
            number: The number of the layer, counted from 1.

        Returns:
            The layer's own, else the profile's, in seconds.
        """
        own = self.layers[number - 1].patience if self.layers else None
        return self.patience if own is None else own

    def with_proposers(self, change: Callable[[Sequence[Proposer]], Sequence[Proposer]]) -> Profile:
        """Change the proposers.

        Args:
            change: Called with the profile's proposers, and with the proposers of each layer that
                has its own.

        Returns:
            A copy of this profile with the proposers that `change` returned.
        """
        return replace(
            self,
            proposers=tuple(change(self.proposers)),
            layers=tuple(
                replace(layer, proposers=tuple(change(layer.proposers))) for layer in self.layers
            ),
        )

    def aggregators(self) -> tuple[Aggregator, ...]:
        """The aggregator and its fallbacks.

        Returns:
            These models in the order in which they are tried, with the profile's settings filled
            in.
        """
        return self._tried

    @cached_property
    def _tried(self) -> tuple[Aggregator, ...]:
        first = self._inherit(self.aggregator)
        if first.fallbacks:
            first = replace(first, fallbacks=())
        others = (
            replace(first, model=model, alternatives=(), context=None)
            for model in self.aggregator.fallbacks
        )
        return (first, *others)

    def judges(self) -> tuple[Proposer, ...]:
        """The models that review proposals for a strategy.

        Returns:
            The judge, then the aggregator's fallbacks, which are tried in order if it fails. They
            are called like proposers, without tools and without a program's requirements on
            the reply.
        """
        models = dict.fromkeys((self.judge or self.aggregator.model, *self.aggregator.fallbacks))
        return tuple(self._inherit(Proposer(model=model, name="judge")) for model in models)

    def stages(self, rounds: int | None = None, *, references: int = 0) -> list[Stage]:
        """The calls that a turn makes if nothing fails.

        Args:
            rounds: The number of proposer layers; None takes the profile's.
            references: How many proposals there are without asking for any.

        Returns:
            The proposers of each layer, then the reviews and the call for the reply that the
            strategy asks for.
        """
        last = self.rounds if rounds is None else rounds
        stages = [Stage("", self.layer(number)) for number in range(1, last + 1)]
        closing = self._closing(len(stages[-1].models) if stages else references)
        if not stages or not self.route:
            return [*stages, *closing]
        checks = [Stage("verify", self.judges()[:1]) for stage in self.route if stage.verify]
        return [replace(stage, certain=False) for stage in (*stages, *checks, *closing)]

    def mergers(self) -> tuple[Proposer, ...]:
        """The models that merge the answers of one window.

        Returns:
            The aggregator and its fallbacks. They are called like proposers, without tools and
            without a program's requirements on the reply.
        """
        names = [key.name for key in fields(ModelSettings) if key.name not in _OF_A_REPLY]
        return tuple(
            Proposer(**{name: getattr(settings, name) for name in names}, name="merge")
            for settings in self.aggregators()
        )

    def _windows(self, references: int) -> list[Stage]:
        """The merges before the reply, for this number of references."""
        if self.window is None or references <= self.window:
            return []
        merges = -((self.window - references) // (self.window - 1))
        return [Stage("merge", self.mergers()[:1])] * merges

    def _closing(self, references: int) -> Sequence[Stage]:
        """The stages after this number of proposals. Without proposals, the aggregator answers
        alone."""
        write = Stage("", self.aggregators()[:1])
        if not references:
            return (write,)
        stages: list[Stage] = []
        match self.strategy:
            case "synthesize":
                stages = [*self._windows(references), write]
            case "fusion":
                compared = self.compares_apart and references > 1
                stages = [*([Stage("compare", self.judges()[:1])] if compared else []), write]
            case "vote" | "select":
                votes = self.strategy == "vote"
                by_peers = () if votes or self.chosen_by == "judge" else self._peers(references)
                # With votes, the judge is asked only if no final answer can be read.
                certain = not votes or self.final_answer == "text"
                if references > 1:
                    stages = [Stage("choose", by_peers or self.judges()[:1], certain)]
                # Only the aggregator calls tools, and keeps to a schema.
                acts = self.tools == "aggregator" and self.aggregator.extra.get("tools")
                if acts or "response_format" in self.aggregator.extra:
                    stages.append(write)
            case "council":
                members = self._peers(references)
                stages = [*([Stage("rank", members)] if members else []), write]
        # A comparison already contains everything that a report would.
        if self.report and not any(stage.purpose == "compare" for stage in stages):
            stages.append(Stage("report", self.judges()[:1]))
        return stages

    @property
    def compares_apart(self) -> bool:
        """Whether the strategy `fusion` compares in a separate call. With `one_call` it does not,
        except if the reply must be JSON, which has no room for a comparison."""
        return not self.one_call or "response_format" in self.aggregator.extra

    def _peers(self, references: int) -> Sequence[Proposer]:
        """The proposers that judge each other's proposals; none if each of them would see only one
        other proposal."""
        return self.members(self.rounds) if self.rounds and references > 2 else ()

    def members(self, number: int) -> tuple[Proposer, ...]:
        """The proposers of a layer with the settings for reviewing proposals.

        Args:
            number: The number of the layer, counted from 1.

        Returns:
            The proposers without web search, because the proposals that they judge are in their
            prompt.
        """
        return tuple(replace(call, web=False) for call in self.layer(number))

    def all_layers(self, rounds: int | None = None) -> list[Sequence[ModelSettings]]:
        """The models that a turn calls if nothing fails.

        Args:
            rounds: The number of proposer layers; None takes the profile's.

        Returns:
            The models of each stage, see `stages`.
        """
        return [stage.models for stage in self.stages(rounds)]

    def models(self) -> tuple[str, ...]:
        """The models that a turn may call.

        Returns:
            Each model name once, in the order of first use.
        """
        calls = [call for layer in self.all_layers() for call in layer]
        used = [call.model for call in calls]
        hedges = [call.hedge_with for call in calls]
        # The aggregator writes the reply if a strategy that copies a proposal has none to copy.
        others = [self.aggregator.model, *self.aggregator.fallbacks, *filter(None, hedges)]
        return tuple(dict.fromkeys([*used, *others]))

    def _proposing(self, proposer: Proposer) -> Proposer:
        """A proposer with the profile's settings for proposers filled in."""
        limit = proposer.max_tokens
        return replace(
            proposer,
            max_tokens=self.proposer_max_tokens if limit is None else limit,
            web=self.web if proposer.web is None else proposer.web,
        )

    @cached_property
    def searches(self) -> bool:
        """Whether a proposer searches the web."""
        last = self.rounds + 1
        return any(call.web for number in range(1, last) for call in self.layer(number))

    def _inherit(self, model: _M) -> _M:
        shared = (
            "temperature",
            "max_tokens",
            "system",
            "reasoning_effort",
            "timeout",
            "stall",
            "first_token",
            "hedge_after",
        )
        unset = {name: getattr(self, name) for name in shared if getattr(model, name) is None}
        found = {name: value for name, value in unset.items() if value is not None}
        return replace(model, **found) if found else model


def short_name(model: str) -> str:
    """The last part of a model name, for the screen.

    Args:
        model: A model name, such as `together:org/model`.

    Returns:
        The part after the last slash, such as `model`.
    """
    return model.rstrip("/").rsplit("/", 1)[-1] or model


def closing_text(profile: Profile) -> str:
    """The steps from the proposals to the reply, on one line: the strategy if it is not the
    paper's, with the judge's name if the judge is a separate model, and the aggregator."""
    names = []
    stages = profile.stages()[profile.rounds :]
    writes = any(stage.writes for stage in stages)
    if profile.strategy != "synthesize" and profile.rounds:
        judge, strategy = profile.judges()[0], str(profile.strategy)
        judged = any(stage.certain and stage.models[0] == judge for stage in stages)
        own = judge.model != profile.aggregator.model or not writes
        names.append(f"{strategy} by {short_name(judge.model)}" if judged and own else strategy)
    if writes:
        names.append(short_name(profile.aggregator.model))
    return " → ".join(names)


def unique_names(names: list[str]) -> list[str]:
    """The names, with numbers added to names that occur more than once."""
    taken = {name for name in names if names.count(name) == 1}
    result = []
    for name in names:
        if names.count(name) > 1:
            numbered = (f"{name} #{number}" for number in count(1))
            name = next(free for free in numbered if free not in taken)
            taken.add(name)
        result.append(name)
    return result


PROFILE_KEYS = keys_of(Profile)
LAYER_KEYS = keys_of(Layer)
# The settings that a layer may have, other than its proposers.
OF_A_LAYER = tuple(name for name in LAYER_KEYS if name != "proposers")
PROPOSER_KEYS = keys_of(Proposer)
AGGREGATOR_KEYS = keys_of(Aggregator)
ROUTE_KEYS = keys_of(RouteStage)
_NO_AGGREGATOR = Aggregator(model="")


def build(name: str, table: Mapping[str, Any], origins: Origins | None = None) -> Profile:
    """A profile from its tables. Raises ProfileError, with place and path, if a value is wrong."""
    origins = origins or {}
    try:
        # With a placeholder for the aggregator, so that a misspelled key or a wrong value is
        # reported before a missing aggregator.
        settings = read_fields(Profile, {"aggregator": {"model": "-"}, **table}, TOML)
        if "aggregator" not in table:
            raise ProfileError(
                "there is no [aggregator]",
                place=str(origins.get((), name)),
                path=("aggregator",),
                hint="every mixture needs a model that replies",
            )
        proposers = settings.get("proposers", ())
        given: Sequence[Layer] = settings.pop("layers", ())
        for place, layer in enumerate(given):
            if not layer.proposers and not proposers:
                raise ValueFault("is empty", path=("layers", place, "proposers"))
        layers = tuple(replace(layer, proposers=layer.proposers or proposers) for layer in given)
    except ValueFault as fault:
        raise refused(fault, place_of(origins, fault.path)) from None
    rounds = settings.pop("rounds", len(layers) if layers else int(bool(proposers)))
    if layers and rounds > len(layers):
        more = ValueFault(
            f"is {rounds}, but the profile lists {plural(len(layers), 'layer')}",
            path=("rounds",),
            hint=f"use at most {plural(len(layers), 'round')}, or add [[layers]]",
        )
        raise refused(more, place_of(origins, more.path) or name)
    if rounds and not layers and not proposers:
        path = ("proposers",) if ("proposers",) in origins else ("rounds",)
        where = place_of(origins, path) or name
        key = "" if names_key(where, ("rounds",)) else "`rounds` "
        raise ProfileError(
            f"{key}is {rounds}, but there are no proposers",
            place=where,
            path=path,
            hint="add [[proposers]], name models with -m, or use 0 rounds",
        )
    profile = Profile(name=name, layers=layers, rounds=rounds, origins=dict(origins), **settings)
    _check_route(profile)
    return profile


def _check_route(profile: Profile) -> None:
    """Raise ProfileError, with place and path, for a stage that could never have an effect."""
    answers = len(profile.layer(1)) if profile.rounds else None
    asked = 0
    for place, stage in enumerate(profile.route):
        problem, hint = "", ""
        if answers is not None and stage.proposers >= answers:
            all_of = plural(answers, "answer")
            problem = f"asks for {stage.proposers} of {all_of}, which is all of the layer"
            hint = "a stage asks for fewer; the whole mixture follows the last one"
        elif stage.proposers < asked:
            wanted = plural(stage.proposers, "answer")
            problem = f"asks for {wanted}, after a stage that asks for {asked}"
            hint = "list the stages with fewer proposers first"
        elif stage.max_prompt_tokens is None and stage.agreement is None and not stage.verify:
            problem = "has no condition, so no later stage would ever be asked"
            hint = "add max_prompt_tokens, agreement or verify"
        elif stage.agreement is not None and stage.proposers < 2:
            problem, hint = "has nothing to agree with", "agreement takes two proposers or more"
        if problem:
            path = ("route", place)
            raise ProfileError(
                f"`{TOML.path(path)}` {problem}",
                place=place_of(profile.origins, path) or profile.name,
                path=path,
                hint=hint,
            )
        asked = stage.proposers


def origin_of(origins: Origins, path: KeyPath) -> Origin | None:
    """The origin of the value at `path`, or of the nearest table above it; None if unknown."""
    for end in range(len(path), -1, -1):
        if path[:end] in origins:
            return origins[path[:end]]
    return None


def check_profile(profile: Profile) -> None:
    """Raise ProfileError if a profile that was made in code holds what no file of one may hold."""
    layers = [profile.proposers, *(layer.proposers for layer in profile.layers)]
    for layer in layers:
        if not isinstance(layer, tuple | list):
            raise ProfileError(f"proposers must be a tuple of Proposer, not {layer!r}")
    for proposer in chain.from_iterable(layers):
        if not isinstance(proposer, Proposer):
            raise ProfileError(f"a proposer must be a Proposer, not {proposer!r}")
    if not isinstance(profile.aggregator, Aggregator):
        raise ProfileError(f"the aggregator must be an Aggregator, not {profile.aggregator!r}")
    build(profile.name, {**to_table(profile), "rounds": profile.rounds})


def place_of(origins: Origins, path: KeyPath) -> str:
    """The origin of the value at `path` in words, for messages; "" if unknown."""
    return str(origin_of(origins, path) or "")


def to_table(profile: Profile) -> dict[str, Any]:
    """The tables of a profile's file, without values that are the default."""
    default = Profile(name="", rounds=-1, aggregator=_NO_AGGREGATOR)
    table = _unlike(profile, default, PROFILE_KEYS)
    if profile.proposers:
        table["proposers"] = _proposer_tables(profile.proposers)
    if profile.layers:
        table["layers"] = [
            {**_unlike(layer, Layer(), OF_A_LAYER), "proposers": _proposer_tables(layer.proposers)}
            for layer in profile.layers
        ]
    if profile.route:
        bare = RouteStage(proposers=0)
        table["route"] = [_unlike(stage, bare, ROUTE_KEYS) for stage in profile.route]
    table["aggregator"] = _unlike(profile.aggregator, _NO_AGGREGATOR, AGGREGATOR_KEYS)
    if profile.aggregator.fallbacks:
        table["aggregator"]["fallbacks"] = list(profile.aggregator.fallbacks)
    return table


def _proposer_tables(proposers: Sequence[Proposer]) -> list[dict[str, Any]]:
    return [_unlike(proposer, Proposer(model=""), PROPOSER_KEYS) for proposer in proposers]


def _unlike(values: Any, default: Any, keys: Iterable[str]) -> dict[str, Any]:
    """The fields of a dataclass that differ from a default."""
    found = {key: getattr(values, key) for key in keys}
    if isinstance(values, ModelSettings) and values.alternatives:
        found["model"] = list(values.candidates)
    return {key: value for key, value in found.items() if value != getattr(default, key)}


def dump(profile: Profile) -> str:
    """The profile as the text of a TOML file. Reading the text returns an equal profile."""
    import tomli_w

    table = to_table(profile)
    # A multi-line TOML string would turn a carriage return into a line end.
    return tomli_w.dumps(table, multiline_strings="\\r" not in repr(table))
