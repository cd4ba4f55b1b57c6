"""What a worker on another machine needs to answer rows without any file on that machine.

This includes keys. They are passed as an argument of a call. They are never put in a command line,
nor in the environment of a cluster's processes, because its dashboard shows these.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from moa_cli.config.schema import Config, ProviderSettings
from moa_cli.core.endpoints import NO_KEY, ModelInfo
from moa_cli.core.errors import AuthenticationFailed, UsageError
from moa_cli.models.providers import Providers

# The environment variable from which Together's SDK takes additional headers.
_SDK_HEADERS = "TOGETHER_CUSTOM_HEADERS"


@dataclass(frozen=True)
class Share:
    """One process of several that share limits. number: which one, from 0. of: how many there
    are."""

    number: int = 0
    of: int = 1

    def part(self, limit: int) -> int:
        """This process's part of a limit. The parts of all processes add up to the limit."""
        return limit // self.of + (self.number < limit % self.of)

    def divided(self, config: Config) -> Config:
        """The settings with this process's part of each provider's limits.

        A part is at least 1. So there must not be more processes than the smallest limit; see
        `most_workers`.
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
    """How many processes can share the limits of calls, and the name of the smallest limit.

    Each process needs at least one call at a time to each provider, or it cannot answer a row.
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
    """What the process with the user's settings passes to the processes that answer rows.

    config: the user's settings. environment: the variables that addresses, keys and headers come
    from. facts: the facts on each model. partial_answers: see `answer_item`. concurrency,
    per_provider: most calls in flight at once in all processes together, in all and to each
    provider.
    """

    config: Config
    environment: Mapping[str, str] = field(repr=False)
    facts: Mapping[str, ModelInfo]
    partial_answers: bool
    concurrency: int
    per_provider: int | None

    def here(self) -> WorkerSetup:
        """This setup for use in the current process, which is a worker.

        Keys that the user does not have are taken from this machine. Addresses are not: a prompt
        must only go where the user's settings say.
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
    """The settings and the environment variables with which any machine can call these models.

    Keys from `.env` files and commands (`api_key_cmd`) are looked up here and put in variables.
    Keys of providers that no model needs are not included.
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
            # There is no key here, but the workers' machines may have one.
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
    """An environment that records which variables were read."""

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
