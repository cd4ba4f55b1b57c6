"""The pool of clients, which finds the endpoint of a model name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from moa_cli.config.schema import Config
from moa_cli.core.endpoints import Client, Endpoint, ModelInfo
from moa_cli.core.errors import ClientError, MoAError, ProfileError
from moa_cli.models.catalog import Catalog
from moa_cli.models.providers import Providers
from moa_cli.models.table import Provider, name_at
from moa_cli.profile import Profile

if TYPE_CHECKING:
    from moa_cli.clients.local.memory import LocalMemory
    from moa_cli.clients.openai_compatible import OpenAICompatible


class ClientPool:
    """The clients of one run: one for each endpoint, made when first needed.

    Belongs to one event loop; close it there. headers: called before each completion, in the
    context of the caller; returns further headers to send. many_calls, sdk_lists: see
    `OpenAICompatible`.
    """

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str] | None = None,
        *,
        headers: Callable[[], Mapping[str, str]] | None = None,
        many_calls: bool = False,
        sdk_lists: bool = False,
    ) -> None:
        self._config = config
        self._headers = headers
        self._many_calls = many_calls
        self._sdk_lists = sdk_lists
        self.providers = Providers(config, os.environ if environment is None else environment)
        self._clients: dict[str, Client] = {}
        # By model: the slot in `_clients`, for local models whose file was found.
        self._weights: dict[str, str] = {}
        self._memory: LocalMemory | None = None
        self._news: list[str] = []
        self._local_models: dict[str, ModelInfo] | None = None
        self.catalog = Catalog(config, self.providers, self.client)

    def endpoint(self, model_name: str) -> Endpoint:
        """The endpoint of `model_name`. Raises ProfileError if the name leads nowhere."""
        provider, model = self.providers.parse(model_name)
        slot = self._local_slot(model) if provider.name == "local" else provider.name
        if slot not in self._clients:
            self._clients[slot] = self._make(provider, model)
        return Endpoint(client=self._clients[slot], model=model, provider=provider.name)

    def _local_slot(self, model: str) -> str:
        """The slot of a local model. All names of one file share a slot, so the file is loaded
        once."""
        if model in self._weights:
            return self._weights[model]
        from moa_cli.clients.local.weights import find_weights

        try:
            # Kept, so that the file is searched once and not for each call.
            self._weights[model] = f"local:{find_weights(model, self._config)}"
        except ClientError:
            # Not kept: the file may be fetched while this process runs.
            return f"local:{model}"
        return self._weights[model]

    def check_name(self, model_name: str) -> None:
        self.providers.parse(model_name)

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        """What is known of a model; see `Catalog.facts`."""
        return await self.catalog.facts(model_name, patience=patience)

    def known(self, model_name: str) -> ModelInfo:
        """What is known of a model without sending a request; see `Catalog.known`."""
        return self.catalog.known(model_name)

    async def settled(self, profile: Profile, *, patience: float) -> Profile:
        """The profile without the candidates that their providers do not offer; see
        `Catalog.settled`.

        Raises ProfileError, before anything is sent, if a model name leads nowhere.
        """
        self.providers.check(profile)
        return await self.catalog.settled(profile, patience=patience)

    def listed(self) -> dict[str, ModelInfo]:
        """The models that can be asked, by name: those in the lists on disk and those that run
        inside `moa`. Nothing is sent."""
        if self._local_models is None:
            from moa_cli.clients.local.weights import local_models

            self._local_models = {}
            with suppress(ClientError):
                # An error means that there is no local model. The result is kept, because each file
                # is opened to read its context.
                infos = local_models(self._config)
                self._local_models = {name_at("local", info.id): info for info in infos}
        return self.catalog.listed() | self._local_models

    def client(self, provider: Provider) -> Client:
        """The client of a provider with an address of its own."""
        return self.endpoint(f"{provider.name}:-").client

    def _make(self, provider: Provider, model: str) -> Client:
        if provider.base_url is None:
            from moa_cli.clients.local.client import LocalClient
            from moa_cli.clients.local.memory import LocalMemory

            self._memory = self._memory or LocalMemory(self._config.local)
            return LocalClient(model, self._config, self._memory)
        from moa_cli.clients.openai_compatible import Extras

        if not provider.base_url:
            raise ProfileError(
                f"the address of {provider.name} is not known",
                hint=f"set {provider.address_variable} in the environment, or"
                f" providers.{provider.name}.base_url in the settings",
            )

        def extras() -> Extras:
            return Extras(
                headers=self.providers.resolved(provider, "headers"),
                query=self.providers.resolved(provider, "query"),
            )

        key: Callable[[], str] = lambda: self.providers.key(provider)  # noqa: E731
        return _client_class()(
            provider,
            key,
            extras=extras,
            headers=self._headers,
            many_calls=self._many_calls,
            sdk_lists=self._sdk_lists,
            on_unable=lambda model, what: self.catalog.learn_unable(provider, model, what),
            on_left_out=lambda model, field: self._news.append(
                f"{name_at(provider.name, model)} does not accept `{field}`, so it is not sent"
            ),
        )

    def news(self) -> list[str]:
        """Lines for the user about settings that an endpoint did not accept; each line is returned
        once."""
        told, self._news[:] = list(self._news), []
        return told

    async def warm(self, model_names: Iterable[str]) -> None:
        """Load the client, and open a connection to the endpoint of each model.

        Nothing is sent, and nothing is loaded for the embedded model. Errors are ignored: the first
        call reports them.
        """
        # In another thread, because the keys are read at the same time.
        kind = await asyncio.to_thread(_client_class)
        clients = set()
        for name in model_names:
            with suppress(MoAError):
                if self.providers.parse(name)[0].base_url is not None:
                    clients.add(self.endpoint(name).client)
        await asyncio.gather(*(client.warm() for client in clients if isinstance(client, kind)))

    async def aclose(self) -> None:
        await self.catalog.aclose()
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()


def _client_class() -> type[OpenAICompatible]:
    """The class of clients, imported when it is needed: many commands ask no model."""
    from moa_cli.clients.openai_compatible import OpenAICompatible

    return OpenAICompatible
