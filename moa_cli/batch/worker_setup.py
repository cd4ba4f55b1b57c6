"""What a worker on another machine needs to answer rows, so that no file has to lie there.

Keys are part of it. They travel as an argument of calls: never in a command line, nor in the
environment that a cluster starts processes with and shows in its dashboard.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from moa_cli.config.schema import Config, ProviderSettings
from moa_cli.core.endpoints import NO_KEY, ModelInfo
from moa_cli.core.errors import AuthenticationFailed, UsageError
from moa_cli.models.providers import Providers

# Headers that Together's SDK, and so `moa`, takes from the environment.
_SDK_HEADERS = "TOGETHER_CUSTOM_HEADERS"


@dataclass(frozen=True)
class Share:
    """One process of several that keep limits together. number: from 0. of: how many there are."""

    number: int = 0
    of: int = 1

    def part(self, limit: int) -> int:
        """What this process has of a limit: the parts of all of them make up the whole."""
        return limit // self.of + (self.number < limit % self.of)

    def divided(self, config: Config) -> Config:
        """The settings with this process's part of each provider's limits.

        A part is at least 1. Where there are fewer calls than processes, keep the number of
        processes down; see `most_workers`.
        """
        if self.of == 1:
            return config
        providers = {
            name: replace(
                settings,
                concurrency=settings.concurrency and max(1, self.part(settings.concurrency)),
                rpm=settings.rpm and max(1, self.part(settings.rpm)),
            )
            for name, settings in config.providers.items()
        }
        return replace(config, providers=providers)


def most_workers(
    config: Config, providers: Iterable[str], concurrency: int, per_provider: int | None
) -> tuple[int, str]:
    """How many processes can share the limits of calls, and which limit it is that ends there.

    Each process needs a call at once of each provider, or it could not answer a row.
    """
    limits = [(concurrency, "--concurrency")]
    for name in providers:
        settings = config.providers.get(name, ProviderSettings())
        for key in ("concurrency", "rpm"):
            if limit := getattr(settings, key):
                limits.append((limit, f"`providers.{name}.{key}`"))
        if per_provider is not None and not settings.concurrency:
            limits.append((per_provider, "--provider-concurrency"))
    return min(limits)


def check_processes(config: Config, providers: Iterable[str], concurrency: int, of: int) -> None:
    """Raise UsageError if there are more processes than can share the limits of calls."""
    most, limit = most_workers(config, providers, concurrency, None)
    if of > most:
        raise UsageError(
            f"{of:,} processes cannot share {limit}, which is {most:,}",
            hint="take fewer processes, or raise the limit",
        )


@dataclass(frozen=True)
class WorkerSetup:
    """What the process that has the user's settings gives to those that answer rows.

    config: of the user. environment: variables that addresses, keys and headers come from. facts:
    on the models. partial_answers: see `answer_item`. concurrency, per_provider: most calls in
    flight at once, and the same at each provider, of all processes together.
    """

    config: Config
    environment: Mapping[str, str] = field(repr=False)
    facts: Mapping[str, ModelInfo]
    partial_answers: bool
    concurrency: int
    per_provider: int | None

    def here(self) -> WorkerSetup:
        """The same in this process, a worker.

        Keys that the user has not are those of this machine. Addresses never are: a prompt must
        go where the user's settings say.
        """
        if _SDK_HEADERS in self.environment:
            os.environ[_SDK_HEADERS] = self.environment[_SDK_HEADERS]
        else:
            os.environ.pop(_SDK_HEADERS, None)
        known = Providers(self.config, {}).known.values()
        keys = {variable for provider in known for variable in provider.key_variables}
        own = {name: os.environ[name] for name in keys if name in os.environ}
        return replace(self, environment={**own, **self.environment})


def travelling_settings(
    config: Config, models: Iterable[str], environment: Mapping[str, str]
) -> tuple[Config, dict[str, str]]:
    """The settings and the variables that lead to models from any machine.

    Keys of `.env` files and of commands (`api_key_cmd`) are looked up here, and stand in variables.
    Keys of providers that none of the models needs stay here.
    """
    used = _Recorded(environment)
    providers = Providers(config, used)
    changed = dict(config.providers)
    found: dict[str, str] = {}
    for provider in dict.fromkeys(providers.provider_of(model) for model in models):
        settings = changed.get(provider.name, ProviderSettings())
        try:
            key = providers.key(provider)
            headers = providers.resolved(provider, "headers")
            query = providers.resolved(provider, "query")
        except AuthenticationFailed:
            # The machines of the workers may have it.
            continue
        if headers or query:
            settings = replace(settings, headers=headers or None, query=query or None)
        if key != NO_KEY:
            variables = provider.key_variables or (f"{provider.name.upper()}_WORKER_KEY",)
            found[variables[0]] = key
            if provider.key_command:
                settings = replace(settings, api_key_env=variables[0], api_key_cmd=None)
        if settings != ProviderSettings():
            changed[provider.name] = settings
    if _SDK_HEADERS in environment:
        found[_SDK_HEADERS] = environment[_SDK_HEADERS]
    return replace(config, providers=changed), {**used.found, **found}


class _Recorded(Mapping[str, str]):
    """An environment that keeps in mind what was found in it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.found: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        self.found[name] = self._environment[name]
        return self.found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._environment)

    def __len__(self) -> int:
        return len(self._environment)
