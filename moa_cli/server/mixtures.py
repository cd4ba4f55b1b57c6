"""From the model that a request names to the mixture that answers it."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from moa_cli.clients.pool import ClientPool
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import ProfileError
from moa_cli.core.money import Price
from moa_cli.core.text import with_hint
from moa_cli.core.values import JSON
from moa_cli.engine import check_tools
from moa_cli.models.candidates import LIST_PATIENCE, candidates, has_candidates
from moa_cli.models.providers import Providers
from moa_cli.profile import (
    Aggregator,
    Overrides,
    Profile,
    Proposer,
    check_profile_name,
    dump,
    list_profiles,
    resolve,
)
from moa_cli.profile.layering import override
from moa_cli.server.errors import ApiError
from moa_cli.server.loops import Address
from moa_cli.server.wires.asked import Asked

# The name of the server's default profile.
DEFAULT = "moa"
# What follows the name of a profile whose aggregator is to answer alone.
SOLO = ":solo"
# A limit of the reply that is as low as this, as of a title, holds for proposers, too.
_TINY_LIMIT = 256
# Profiles may be edited while the server runs: they are looked at again after so long.
_FRESH_SECONDS = 1.0
# A request may ask for that many proposals a round, samples counted.
_MOST_PROPOSALS = 64


@dataclass(frozen=True)
class Mixture:
    """A profile as a request uses it. fingerprint: changes whenever the mixture does."""

    profile: Profile
    fingerprint: str

    @classmethod
    def of(cls, profile: Profile) -> Mixture:
        text = dump(profile).encode("utf-8", "replace")
        return cls(profile, "fp_" + hashlib.sha256(text).hexdigest()[:10])


class Mixtures:
    """All mixtures of a server.

    default: the profile that the model name `moa` stands for, with all its candidates; which of
    them was chosen is said at the start. pool: tells which candidates are offered. environment:
    its MOA_* variables are laid over each profile, as for any command. address: where the server
    listens; a mixture must not lead back to it. note: told what is chosen later. expose_models:
    whether each model of a profile can be asked alone, by its name. Raises ProfileError if the
    default one leads back.
    """

    def __init__(
        self,
        default: Profile,
        pool: ClientPool,
        environment: Mapping[str, str],
        address: Address,
        note: Callable[[str], None],
        *,
        expose_models: bool = False,
    ) -> None:
        providers = pool.providers
        if _leads_back(default, providers, address):
            raise ProfileError(
                f"the profile `{default.name}` leads back to this server ({address.url})",
                hint="use another --port, or another base_url",
            )
        self._default = Mixture.of(default)
        self._pool = pool
        self._providers = providers
        self._note = note
        self._environment = environment
        self._address = address
        self._known: dict[str, tuple[float, Mixture]] = {}
        self._settled: dict[str, tuple[float, Mixture]] = {}
        self._served: frozenset[str] = frozenset()
        self._served_at = -_FRESH_SECONDS
        self._exposes_models = expose_models
        # The mixture that each was made of, and what was made.
        self._solos: dict[str, tuple[Mixture, Mixture]] = {}

    def names(self) -> list[str]:
        """The names of those that are offered, the default one first, then those that answer
        without proposers: not those that have an error, that lead back here, or that lack a
        key."""
        found = {
            name: mixture.profile
            for name, mixture in self._all().items()
            if name == DEFAULT or all(map(self._has_key, mixture.profile.models()))
        }
        solos = [f"{name}{SOLO}" for name, profile in found.items() if profile.rounds]
        models: list[str] = []
        if self._exposes_models:
            used = [model for profile in found.values() for model in profile.models()]
            models = sorted(filter(self._has_key, set(used)))
        return [*found, *solos, *models]

    def _has_key(self, model: str) -> bool:
        provider, _ = self._providers.parse(model)
        return not provider.needs_key or bool(self._providers.key_source(provider))

    def _all(self) -> dict[str, Mixture]:
        """All that can be asked, by name, the default one first."""
        found = {DEFAULT: self._default}
        for file in list_profiles():
            with contextlib.suppress(ApiError):
                found[file.name] = self.find(file.name)
        return found

    def find(self, name: str) -> Mixture:
        """The mixture of that name, never of a path. Raises ApiError if it cannot be asked."""
        if name == DEFAULT:
            return self._default
        if name.endswith(SOLO) and name != SOLO:
            return self._solo(name, self.find(name.removesuffix(SOLO)))
        if self._exposes_models and ":" in name and self.serves(name):
            return self._single(name)
        at, known = self._known.get(name, (0.0, None))
        if known is None or time.monotonic() - at > _FRESH_SECONDS:
            # What is no profile is not remembered: clients may make up any number of names.
            known = self._load(name)
            self._known[name] = (time.monotonic(), known)
        return known

    def _solo(self, name: str, mixture: Mixture) -> Mixture:
        """The mixture whose aggregator answers alone."""
        before, made = self._solos.get(name, (None, None))
        if made is None or before is not mixture:
            profile = replace(mixture.profile, name=name, rounds=0, layers=())
            made = Mixture.of(profile)
            self._solos[name] = (mixture, made)
        return made

    def _single(self, model: str) -> Mixture:
        """A model of a profile, alone and with its own settings."""
        profile = Profile(name=model, rounds=0, aggregator=Aggregator(model=model))
        if _leads_back(profile, self._providers, self._address):
            raise _loop(model)
        return Mixture.of(profile)

    def facts(self, name: str) -> ModelInfo:
        """What clients may know of a mixture: the least context of its models, what a token of the
        prompt and one of each answer cost with all its calls, whether one of its models sees, and
        whether its aggregator calls tools. What is not known of a model is None. Raises ApiError.
        """
        profile = self.find(name).profile
        layers = profile.all_layers()
        infos = [self._pool.known(call.model) for layer in layers for call in layer]
        contexts = [
            call.context or info.context_length
            for call, info in zip((call for layer in layers for call in layer), infos, strict=True)
        ]
        prices = [info.price for info in infos]
        return ModelInfo(
            id=name,
            context_length=min((context for context in contexts if context), default=None),
            price=None
            if None in prices
            else Price(
                sum(price.prompt for price in prices if price),
                sum(price.completion for price in prices if price),
            ),
            sees=any(info.sees for info in infos) or (None if infos[-1].sees is None else False),
            tools=infos[-1].tools,
        )

    def _load(self, name: str) -> Mixture:
        try:
            is_known = check_profile_name(name) in [file.name for file in list_profiles()]
        except ProfileError:
            is_known = False
        if not is_known:
            shown = name if len(name) <= 64 else name[:63] + "…"
            raise _not_found(f"the model `{shown}` does not exist; {_advice(name)}")
        try:
            profile = resolve(name, environment=self._environment, check=self._providers.check)
        except ProfileError:
            # The message names files of the server's.
            raise _not_found(f"the profile `{name}` has an error") from None
        if _leads_back(profile, self._providers, self._address):
            raise _loop(name)
        return Mixture.of(profile)

    def serves(self, model: str) -> bool:
        """Whether a mixture may call that model."""
        now = time.monotonic()
        if now - self._served_at > _FRESH_SECONDS:
            profiles = [mixture.profile for mixture in self._all().values()]
            profiles += [mixture.profile for _, mixture in self._settled.values()]
            self._served = frozenset(name for profile in profiles for name in _models(profile))
            self._served_at = now
        return model in self._served

    async def offered(self, name: str) -> Mixture:
        """The mixture of that name with those of its candidates that are offered. Raises ApiError.

        It is waited for lists of models only the first time, and only where none is kept.
        """
        mixture = self.find(name)
        if not has_candidates(mixture.profile):
            return mixture
        at, before = self._settled.get(name, (0.0, None))
        if before is not None and time.monotonic() - at <= _FRESH_SECONDS:
            return before
        patience = LIST_PATIENCE if before is None else 0.0
        try:
            profile = await self._pool.settled(mixture.profile, patience=patience)
        except ProfileError:
            raise _not_found(f"the profile `{name}` has an error") from None
        if _leads_back(profile, self._providers, self._address):
            raise _loop(name)
        # That of the default profile was said at the start.
        told = before.profile.notes if before else profile.notes if name == DEFAULT else ()
        for line in profile.notes:
            if line not in told:
                self._note(f"`{name}`: {line}")
        made = Mixture.of(profile)
        self._settled[name] = (time.monotonic(), made)
        return made

    async def for_request(self, asked: Asked) -> Mixture:
        """The mixture with the request's own settings laid over it. Raises ApiError."""
        mixture = await self.offered(asked.model)
        if (overrides := asked.mixture.overrides()) != Overrides():
            mixture = self._overridden(mixture, asked.model, overrides)
        profile = mixture.profile
        if asked.settings or asked.extra:
            extra = {**profile.aggregator.extra, **asked.extra}
            aggregator = replace(profile.aggregator, **asked.settings, extra=extra)
            profile = replace(profile, aggregator=aggregator)
        limit = asked.settings.get("max_tokens")
        if limit is not None and limit <= _TINY_LIMIT:
            profile = _with_limit(profile, limit)
        if asked.seed is not None:
            profile = _seeded(profile, asked.seed)
        if asked.user is not None:
            profile = _with_user(profile, asked.user)
        try:
            check_tools(profile)
        except ProfileError:
            why = f'the mixture `{asked.model}` takes no tools (its `tools` is "refuse")'
            raise ApiError(400, why, param="tools", code="tools_refused") from None
        return mixture if profile is mixture.profile else replace(mixture, profile=profile)

    def _overridden(self, mixture: Mixture, name: str, asked: Overrides) -> Mixture:
        try:
            profile = override(mixture.profile, asked, "moa")
        except ProfileError as error:
            # A layer cannot be given; `rounds` is what may not fit those of the profile.
            blamed = error.path[:1] if error.path[:1] in _BLAMED else ()
            raise _invalid(JSON.path(("moa", *blamed)), error.problem) from None
        self._check_models(asked)
        rounds = range(1, profile.rounds + 1)
        if any(len(profile.layer(number)) > _MOST_PROPOSALS for number in rounds):
            param = "moa.proposers" if asked.reference_models else "moa.samples"
            raise _invalid(param, f"more than {_MOST_PROPOSALS} proposals in a round")
        if _leads_back(profile, self._providers, self._address):
            raise _loop(name)
        return Mixture.of(profile)

    def _check_models(self, asked: Overrides) -> None:
        """A client must not have the server load files or start processes of its choice, nor ask
        whom it cannot ask."""
        models = enumerate(asked.reference_models or ())
        named = [(f"moa.proposers[{place}]", model) for place, model in models]
        if asked.aggregator is not None:
            named.append(("moa.aggregator", asked.aggregator))
        for param, model in named:
            try:
                provider, _ = self._providers.parse(model)
            except ProfileError as error:
                raise _invalid(param, with_hint(error.message, error.hint)) from None
            if provider.base_url is None and not self.serves(model):
                raise _invalid(
                    param,
                    "a request may name only those embedded models that a profile of the server"
                    " uses",
                )
            if not self._has_key(model):
                raise _invalid(param, f"this server has no API key for {provider.name}")


# The fields of a request's `moa` object that an error of the profile may be about.
_BLAMED = (("proposers",), ("aggregator",), ("rounds",))


def _invalid(param: str, problem: str) -> ApiError:
    return ApiError(400, f"`{param}`: {problem}", param=param, code="invalid_value")


def _not_found(message: str) -> ApiError:
    return ApiError(404, message, param="model", code="model_not_found")


def _advice(name: str) -> str:
    """How a client names a model that exists."""
    if name.startswith("claude-"):
        # What Claude Code asks for where it is not told of a model.
        return (
            "Claude Code asks for `moa` if ANTHROPIC_MODEL and ANTHROPIC_DEFAULT_HAIKU_MODEL say so"
            " (or --model); GET /v1/models lists all"
        )
    return "GET /v1/models lists them"


def _loop(name: str) -> ApiError:
    return ApiError(
        400, f"the model `{name}` leads back to this server", param="model", code="loop_detected"
    )


def _models(profile: Profile) -> list[str]:
    """All models that may be asked, among them candidates that others come before."""
    return [*profile.models(), *candidates(profile)]


def _leads_back(profile: Profile, providers: Providers, address: Address) -> bool:
    """Whether a turn of `profile` would call the server at `address`."""
    urls = {providers.parse(model)[0].base_url for model in _models(profile)}
    return any(url is not None and address.is_at(url) for url in urls)


def _seeded(profile: Profile, seed: int) -> Profile:
    """`seed` for all models without their own; each proposal gets one of its own from it, since
    two answers of one model to one prompt by one seed would be the same answer."""

    def sown(proposers: Iterable[Proposer]) -> tuple[Proposer, ...]:
        found, place = [], 0
        for proposer in proposers:
            own = proposer.seed
            found.append(replace(proposer, seed=seed + place) if own is None else proposer)
            place += proposer.samples
        return tuple(found)

    own = profile.aggregator.seed
    return _changed(profile, sown, seed=seed if own is None else own)


def _with_limit(profile: Profile, most: int) -> Profile:
    """All proposers with that limit of tokens, but those whose own is as tiny already."""

    def limited(proposers: Iterable[Proposer]) -> tuple[Proposer, ...]:
        limits = [model.max_tokens or profile.max_tokens or math.inf for model in proposers]
        return tuple(
            model if limit <= _TINY_LIMIT else replace(model, max_tokens=most)
            for model, limit in zip(proposers, limits, strict=True)
        )

    return profile.with_proposers(limited)


def _with_user(profile: Profile, user: str) -> Profile:
    def told(proposers: Iterable[Proposer]) -> tuple[Proposer, ...]:
        return tuple(replace(model, extra={**model.extra, "user": user}) for model in proposers)

    return _changed(profile, told, extra={**profile.aggregator.extra, "user": user})


def _changed(
    profile: Profile,
    change: Callable[[Iterable[Proposer]], tuple[Proposer, ...]],
    **aggregator: Any,
) -> Profile:
    """The profile with `change` made to all proposers, and these settings of the aggregator."""
    changed = profile.with_proposers(change)
    return replace(changed, aggregator=replace(profile.aggregator, **aggregator))
