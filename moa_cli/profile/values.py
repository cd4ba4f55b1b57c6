"""Which proposers, layers and aggregator, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

__all__ = [
    "Aggregator",
    "ModelSettings",
    "OnAllFailed",
    "Origin",
    "Placement",
    "Profile",
    "Proposer",
    "short_name",
]

Placement = Literal["system", "user"]
_M = TypeVar("_M", "Proposer", "Aggregator")
OnAllFailed = Literal["fail", "solo"]


@dataclass(frozen=True)
class Origin:
    """Where a setting came from: kind, and the file, variable or flag."""

    kind: Literal["default", "profile", "environment", "flag"]
    where: str = ""

    def __str__(self) -> str:
        return self.where or self.kind


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A model and how it is asked. None means: not set, so inherited or left to the endpoint.

    timeout: seconds. extra: further fields of the request body.
    """

    model: str
    temperature: float | None = None
    max_tokens: int | None = None
    system: str | None = None
    timeout: float | None = None
    top_p: float | None = None
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Proposer(ModelSettings):
    """A model that answers in a proposer layer, `samples` times."""

    name: str | None = None
    samples: int = 1


@dataclass(frozen=True, kw_only=True)
class Aggregator(ModelSettings):
    """The model that writes the reply; fallbacks are model names."""

    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A named mixture. rounds = layers of proposers (the paper's l is rounds + 1)."""

    name: str
    aggregator: Aggregator
    proposers: tuple[Proposer, ...] = ()
    layers: tuple[tuple[Proposer, ...], ...] = ()
    description: str = ""
    rounds: int = 1
    multi_turn: bool = True
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    reference_placement: Placement = "system"
    on_all_failed: OnAllFailed = "fail"
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False, repr=False)

    def layer(self, number: int) -> tuple[Proposer, ...]:
        """The proposers of layer `number` (from 1): one entry a call, each with a name of its
        own and the profile's settings filled in."""
        if number not in self._known:
            self._known[number] = self._calls(number)
        return self._known[number]

    @cached_property
    def _known(self) -> dict[int, tuple[Proposer, ...]]:
        return {}

    def _calls(self, number: int) -> tuple[Proposer, ...]:
        chosen = self.layers[number - 1] if self.layers else self.proposers
        calls = [
            replace(self._inherit(proposer), samples=1, seed=_seed_of(proposer, sample))
            for proposer in chosen
            for sample in range(proposer.samples)
        ]
        names = _unique([call.name or short_name(call.model) for call in calls])
        return tuple(replace(call, name=name) for call, name in zip(calls, names, strict=True))

    def aggregators(self) -> tuple[Aggregator, ...]:
        """The aggregator and its fallbacks, in the order in which they are tried."""
        return self._tried

    @cached_property
    def _tried(self) -> tuple[Aggregator, ...]:
        first = replace(self._inherit(self.aggregator), fallbacks=())
        return (first, *(replace(first, model=model) for model in self.aggregator.fallbacks))

    def all_layers(self, rounds: int | None = None) -> list[Sequence[ModelSettings]]:
        """What a turn asks if nothing fails: the proposers of each round, then the aggregator.

        rounds: how many there are, where not as many as the profile says.
        """
        last = self.rounds if rounds is None else rounds
        return [*map(self.layer, range(1, last + 1)), self.aggregators()[:1]]

    def models(self) -> tuple[str, ...]:
        """Each model name that a turn may call, once, in the order of first use."""
        used = [call.model for layer in self.all_layers() for call in layer]
        return tuple(dict.fromkeys([*used, *self.aggregator.fallbacks]))

    def _inherit(self, one: _M) -> _M:
        return replace(
            one,
            temperature=self.temperature if one.temperature is None else one.temperature,
            max_tokens=self.max_tokens if one.max_tokens is None else one.max_tokens,
            system=self.system if one.system is None else one.system,
            timeout=self.timeout if one.timeout is None else one.timeout,
        )


def short_name(model: str) -> str:
    """The last part of a model name, for the screen."""
    return model.rstrip("/").rsplit("/", 1)[-1] or model


def _seed_of(proposer: Proposer, sample: int) -> int | None:
    # Samples that share a seed would be one answer, n times.
    return None if proposer.seed is None else proposer.seed + sample


def _unique(names: list[str]) -> list[str]:
    taken = {name for name in names if names.count(name) == 1}
    result = []
    for name in names:
        if names.count(name) == 1:
            result.append(name)
            continue
        number = 1
        while f"{name} #{number}" in taken:
            number += 1
        result.append(f"{name} #{number}")
        taken.add(result[-1])
    return result
