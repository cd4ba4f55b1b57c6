"""Finds the mixture for the model name in a request."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import ProfileError
from moa_cli.core.money import Price
from moa_cli.core.text import with_hint
from moa_cli.core.values import JSON, TOML
from moa_cli.engine import check_tools
from moa_cli.models.candidates import LIST_PATIENCE, has_candidates
from moa_cli.profile import Aggregator, Overrides, Profile, Proposer
from moa_cli.profile.layering import override
from moa_cli.server.errors import ApiError
from moa_cli.server.keys import ANYBODY, SOLO, ClientKey
from moa_cli.server.reading import DEFAULT, Mixture, Snapshot, leads_back, models_of
from moa_cli.server.wires.asked import AS_IT_IS, TINY_LIMIT, Asked

# Seconds after which the candidates are compared with the providers' lists again.
_FRESH_SECONDS = 1.0
_AS_IT_IS = Overrides()
# Most proposals in a round that a request may ask for, including samples.
_MOST_PROPOSALS = 64


class Mixtures:
    """All mixtures of a server, from one reading of the files.

    reading: the settings and profiles. note: called with a line about the choice among candidates.
    before: the mixtures of the previous reading. expose_models: whether each model of a profile can
    be asked alone, by its name.
    """

    def __init__(
        self,
        reading: Snapshot,
        note: Callable[[str], None],
        before: Mixtures | None = None,
        *,
        expose_models: bool = False,
    ) -> None:
        self._found = reading.mixtures
        self._unusable = reading.unusable
        self._clients = reading.clients
        self._providers = reading.clients.providers
        self._address = reading.address
        self._note = note
        profiles = [mixture.profile for mixture in self._found.values()]
        self._models = frozenset(name for profile in profiles for name in models_of(profile))
        self._exposes_models = expose_models
        self._listed = self._names()
        # By name: when the candidates of a mixture were settled, the mixture with its candidates,
        # and the settled mixture.
        self._settled: dict[str, tuple[float, Mixture, Mixture]] = {}
        if before is not None and before._clients is self._clients:
            self._settled = before._settled
        self._solos: dict[str, Mixture] = {}

    def names(self, key: ClientKey = ANYBODY) -> list[str]:
        """The names of the mixtures for clients with this key: the default mixture first, then the
        others, then the aggregators alone, then single models. Mixtures that have an error, lead
        back to this server, or lack a provider's key are left out."""
        return [name for name in self._listed if key.may_ask(name)]

    def _names(self) -> list[str]:
        found = {
            name: mixture.profile
            for name, mixture in self._found.items()
            if name == DEFAULT or self._has_keys(name)
        }
        solos = [f"{name}{SOLO}" for name, profile in found.items() if profile.rounds]
        models: list[str] = []
        if self._exposes_models:
            used = [model for profile in found.values() for model in profile.models()]
            models = sorted(filter(self._has_key, set(used)))
        return [*found, *solos, *models]

    def _has_keys(self, name: str) -> bool:
        return all(map(self._has_key, self._found[name].profile.models()))

    def _has_key(self, model: str) -> bool:
        provider, _ = self._providers.parse(model)
        return not provider.needs_key or bool(self._providers.key_source(provider))

    @property
    def ready(self) -> bool:
        """Whether the default mixture can be asked: no provider of its models lacks a key."""
        return self._has_keys(DEFAULT)

    def lacking(self) -> list[str]:
        """A line for each provider of the default mixture that has no key."""
        models = self._found[DEFAULT].profile.models()
        without = dict.fromkeys(
            self._providers.parse(model)[0] for model in models if not self._has_key(model)
        )
        errors = map(self._providers.no_key, without)
        return [with_hint(error.message, error.hint) for error in errors]

    def knows(self, name: str) -> bool:
        """Whether there is a profile of that name, valid or not."""
        return name in self._found or name in self._unusable

    def find(self, name: str, key: ClientKey = ANYBODY) -> Mixture:
        """The mixture of that name. The name cannot be the path of a profile. Raises ApiError if
        the mixture cannot be asked."""
        allowed = key.may_ask(name)
        if allowed and name in self._found:
            return self._found[name]
        if allowed and name.endswith(SOLO) and name != SOLO:
            return self._solo(name, self.find(name.removesuffix(SOLO), key))
        if allowed and self._exposes_models and self.serves(name):
            return self._single(name)
        why = self._unusable.get(name) if allowed else None
        if why == "loop":
            raise _loop(name)
        if why == "error":
            # Without the error itself, which would name files of the server.
            raise _not_found(f"the profile `{name}` has an error")
        shown = name if len(name) <= 64 else name[:63] + "…"
        raise _not_found(f"the model `{shown}` does not exist; {_advice(name)}")

    def _solo(self, name: str, mixture: Mixture) -> Mixture:
        """The mixture whose aggregator answers alone."""
        if name not in self._solos:
            profile = replace(mixture.profile, name=name, rounds=0, layers=())
            self._solos[name] = Mixture.of(profile)
        return self._solos[name]

    def _single(self, model: str) -> Mixture:
        """A mixture of one model alone, without the settings of a profile."""
        profile = Profile(name=model, rounds=0, aggregator=Aggregator(model=model))
        if leads_back(profile, self._providers, self._address):
            raise _loop(model)
        return Mixture.of(profile)

    def facts(self, name: str) -> ModelInfo:
        """What clients may know of a mixture: the smallest context of its models, the price of a
        token of the prompt and of the answer, summed over all its calls, whether one of its models
        sees images, and whether its aggregator calls tools. None stands for an unknown value.
        Raises ApiError.
        """
        profile = self.find(name).profile
        calls = [call for layer in profile.all_layers() for call in layer]
        infos = [self._clients.known(call.model) for call in calls]
        contexts = [
            call.context or info.context_length for call, info in zip(calls, infos, strict=True)
        ]
        prices = [info.price for info in infos]
        replies = self._clients.known(profile.aggregator.model)
        return ModelInfo(
            id=name,
            context_length=min((context for context in contexts if context), default=None),
            price=None
            if None in prices
            else Price(
                sum(price.prompt for price in prices if price),
                sum(price.completion for price in prices if price),
            ),
            sees=any(info.sees for info in infos) or (None if replies.sees is None else False),
            tools=replies.tools,
        )

    def serves(self, model: str) -> bool:
        """Whether a mixture may call that model."""
        return model in self._models or any(
            model in mixture.profile.models() for _, _, mixture in self._settled.values()
        )

    async def offered(self, name: str, key: ClientKey = ANYBODY) -> Mixture:
        """The mixture of that name without candidates that their providers do not offer. Raises
        ApiError.

        It waits for lists of models only the first time, and only if no list is on disk.
        """
        mixture = self.find(name, key)
        if not has_candidates(mixture.profile):
            return mixture
        at, source, before = self._settled.get(name, (0.0, None, None))
        before = before if source is mixture else None
        if before is not None and time.monotonic() - at <= _FRESH_SECONDS:
            return before
        patience = LIST_PATIENCE if before is None else 0.0
        try:
            profile = await self._clients.settled(mixture.profile, patience=patience)
        except ProfileError:
            raise _not_found(f"the profile `{name}` has an error") from None
        if leads_back(profile, self._providers, self._address):
            raise _loop(name)
        # The choice for the default profile was logged at the start.
        told = before.profile.notes if before else profile.notes if name == DEFAULT else ()
        for line in profile.notes:
            if line not in told:
                self._note(f"`{name}`: {line}")
        made = Mixture.of(profile)
        self._settled[name] = (time.monotonic(), mixture, made)
        return made

    async def for_request(self, asked: Asked, key: ClientKey = ANYBODY) -> Mixture:
        """The mixture with the request's own settings applied to it. Raises ApiError."""
        mixture = await self.offered(asked.model, key)
        overrides = _AS_IT_IS if asked.mixture is AS_IT_IS else asked.mixture.overrides()
        if overrides != _AS_IT_IS:
            mixture = self._overridden(mixture, asked.model, overrides, key)
        profile, settings, extra = mixture.profile, dict(asked.settings), dict(asked.extra)
        if asked.tiny_limit is not None:
            profile = _with_limit(profile, asked.tiny_limit)
        if asked.seed is not None:
            profile = profile.with_proposers(partial(_seeded, asked.seed))
            if profile.aggregator.seed is None:
                settings["seed"] = asked.seed
        if asked.user is not None:
            profile = profile.with_proposers(partial(_with_user, asked.user))
            extra["user"] = asked.user
        if settings or extra:
            extra = {**profile.aggregator.extra, **extra}
            aggregator = replace(profile.aggregator, **settings, extra=extra)
            profile = profile.with_aggregator(aggregator)
        try:
            check_tools(profile)
        except ProfileError:
            why = f'the mixture `{asked.model}` takes no tools (its `tools` is "refuse")'
            raise ApiError(400, why, param="tools", code="tools_refused") from None
        return mixture if profile is mixture.profile else replace(mixture, profile=profile)

    def _overridden(self, mixture: Mixture, name: str, asked: Overrides, key: ClientKey) -> Mixture:
        try:
            profile = override(mixture.profile, asked, "moa")
        except ProfileError as error:
            # A request cannot give layers, but its `rounds` may not fit those of the profile.
            blamed = error.path[:1] if error.path[:1] in _BLAMED else ()
            problem = error.problem.removeprefix(f"`{TOML.path(blamed)}` ")
            raise _invalid(JSON.path(("moa", *blamed)), problem) from None
        self._check_models(asked, key)
        rounds = range(1, profile.rounds + 1)
        if any(len(profile.layer(number)) > _MOST_PROPOSALS for number in rounds):
            param = "moa.proposers" if asked.reference_models else "moa.samples"
            raise _invalid(param, f"more than {_MOST_PROPOSALS} proposals in a round")
        if leads_back(profile, self._providers, self._address):
            raise _loop(name)
        return Mixture.of(profile)

    def _check_models(self, asked: Overrides, key: ClientKey) -> None:
        """Raise ApiError if a request names a model that it must not: a client must not make the
        server load files or start processes of the client's choice, or ask models that its key does
        not allow."""
        allowed = None
        if key.settings.profiles is not None:
            mixtures = (mixture for name, mixture in self._found.items() if key.may_ask(name))
            allowed = {model for mixture in mixtures for model in models_of(mixture.profile)}
        models = enumerate(asked.reference_models or ())
        named = [(f"moa.proposers[{place}]", model) for place, model in models]
        if asked.aggregator is not None:
            named.append(("moa.aggregator", asked.aggregator))
        if asked.judge is not None:
            named.append(("moa.judge", asked.judge))
        for param, model in named:
            try:
                provider, _ = self._providers.parse(model)
            except ProfileError as error:
                raise _invalid(param, with_hint(error.message, error.hint)) from None
            if provider.base_url is None and not self.serves(model):
                raise _invalid(
                    param,
                    "a request may name an embedded model only if a profile of the server uses it",
                )
            if allowed is not None and model not in allowed:
                raise ApiError(
                    403,
                    f"`{param}`: the key `{key.name}` may use only models of its profiles",
                    param=param,
                    code="model_not_allowed",
                )
            if not self._has_key(model):
                raise _invalid(param, f"this server has no API key for {provider.name}")


# The fields of a request's `moa` object that can cause an error in the profile.
_BLAMED = (("proposers",), ("aggregator",), ("rounds",), ("strategy",), ("judge",))


def _invalid(param: str, problem: str) -> ApiError:
    return ApiError(400, f"`{param}`: {problem}", param=param, code="invalid_value")


def _not_found(message: str) -> ApiError:
    return ApiError(404, message, param="model", code="model_not_found")


def _advice(name: str) -> str:
    """How a client names a model that exists."""
    if name.startswith("claude-"):
        # Claude Code asks for such a name if no model is set.
        return (
            "for Claude Code, set ANTHROPIC_MODEL and ANTHROPIC_DEFAULT_HAIKU_MODEL to `moa`;"
            " GET /v1/models lists all models"
        )
    return "GET /v1/models lists all models"


def _loop(name: str) -> ApiError:
    return ApiError(
        400, f"the model `{name}` leads back to this server", param="model", code="loop_detected"
    )


def _seeded(seed: int, proposers: Iterable[Proposer]) -> tuple[Proposer, ...]:
    """Give all proposers without a seed one that is derived from `seed`. Each proposal gets a
    different seed, because a model gives the same answer to the same prompt and seed."""
    found, place = [], 0
    for proposer in proposers:
        own = proposer.seed
        found.append(replace(proposer, seed=seed + place) if own is None else proposer)
        place += proposer.samples
    return tuple(found)


def _with_user(user: str, proposers: Iterable[Proposer]) -> tuple[Proposer, ...]:
    return tuple(replace(model, extra={**model.extra, "user": user}) for model in proposers)


def _with_limit(profile: Profile, most: int) -> Profile:
    """The profile with this limit of tokens for all proposers, except those whose own limit is
    small already."""

    def limited(proposers: Iterable[Proposer]) -> tuple[Proposer, ...]:
        limits = [model.max_tokens or profile.max_tokens or math.inf for model in proposers]
        return tuple(
            model if limit <= TINY_LIMIT else replace(model, max_tokens=most)
            for model, limit in zip(proposers, limits, strict=True)
        )

    return profile.with_proposers(limited)
