"""Facts on models, such as price and context length, from the settings and the providers' lists.

A list is read at most once a day, and cached on disk with its date. It is read in the background,
so calls do not wait for it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from moa_cli.config.schema import Config
from moa_cli.core import paths
from moa_cli.core.endpoints import Client, ModelInfo, check_info
from moa_cli.core.errors import MoAError
from moa_cli.core.money import FREE, Price
from moa_cli.core.values import load_value
from moa_cli.models.candidates import candidates, settled
from moa_cli.models.names import find_model, find_similar, without_route
from moa_cli.models.price_table import from_table
from moa_cli.models.providers import Providers, is_loopback
from moa_cli.models.sight import known_sight
from moa_cli.models.table import DEFAULT_PROVIDER, Provider, name_at
from moa_cli.profile import Profile

_FRESH_SECONDS = 24 * 3600
# Seconds before a list that could not be read is requested again.
_REST_SECONDS = 30
# Seconds for which a list is not checked again, after a check found nothing to do.
_QUIET_SECONDS = 1.0
# A bound, because the clients of a server may ask for any number of names.
_MOST_REMEMBERED = 256


@dataclass
class _Listing:
    """The models of one provider, by id. as_of: when they were read, in seconds since 1970. whole:
    whether models of unknown price are included; versions up to 0.1 did not keep these."""

    models: Mapping[str, ModelInfo]
    as_of: float
    whole: bool = True

    def __post_init__(self) -> None:
        # Each call looks up its model several times, and a list may have thousands of models.
        remembered = lru_cache(_MOST_REMEMBERED)
        self.find = remembered(partial(find_model, known=self.models))
        self.find_similar = remembered(partial(find_similar, known=self.models))

    @property
    def fresh(self) -> bool:
        return 0 <= time.time() - self.as_of < _FRESH_SECONDS


class Catalog:
    """Facts on models by name. A catalog belongs to one event loop.

    config: its prices take precedence over those of the lists. client: makes the client of a
    provider, which reads the provider's list.
    """

    def __init__(
        self, config: Config, providers: Providers, client: Callable[[Provider], Client]
    ) -> None:
        self._config = config
        self._providers = providers
        self._client = client
        self._listings: dict[str, _Listing] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._began: dict[str, float] = {}
        self._trouble: dict[str, str] = {}
        # When a list was last looked for in the cache folder and not found.
        self._looked: dict[str, float] = {}
        # By provider: until when (`time.monotonic`) its list need not be checked; see
        # _QUIET_SECONDS.
        self._quiet: dict[str, float] = {}
        # By provider and id: what a model has refused, as fields of its facts that are False.
        self._unable: dict[tuple[str, str], dict[str, Any]] = {}
        # Each call asks several times. The cache is cleared when more is learned.
        self._known = lru_cache(_MOST_REMEMBERED)(self._info)

    def learn_unable(self, provider: Provider, model: str, what: Literal["sees", "tools"]) -> None:
        """Note that a model has refused images or tools. This takes precedence over its provider's
        list."""
        self._unable.setdefault((provider.name, model), {})[what] = False
        self._known.cache_clear()

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        """The facts on a model.

        patience: seconds to wait for its provider's list, if there is none from today. They count
        from when the list was requested.
        """
        provider, model = self._providers.parse(model_name)
        if provider.base_url is not None and (
            # This check is cheap, because a server gets here about ten times in each request.
            time.monotonic() >= self._quiet.get(provider.name, 0.0)
        ):
            if patience and self._own_price(model_name, provider, model) is not None:
                # If the user has set a price, the list need not be waited for.
                patience = 0.0
            await self._refresh(provider, patience)
        return self._known(model_name)

    def known(self, model_name: str) -> ModelInfo:
        """The facts on a model that are known without any request."""
        return self._known(model_name)

    def _info(self, model_name: str) -> ModelInfo:
        provider, model = self._providers.parse(model_name)
        own = self._own_price(model_name, provider, model)
        if provider.base_url is None:
            return ModelInfo(
                id=model, context_length=self._config.local.context, price=own, sees=False
            )
        listing = self._listing(provider)
        found = listing.find(model) if listing else None
        info = ModelInfo(id=model) if found is None or listing is None else replace(found, id=model)
        if found is not None and listing is not None and info.price is not None:
            info = replace(info, as_of=listing.as_of)
        # Without a price in the settings, only the price table can add something.
        completed = self._with_table if own is None else self.completed
        info = completed(provider, info)
        unable = self._unable.get((provider.name, model))
        if unable:
            info = replace(info, **unable)
        if info.price is None and listing is not None:
            similar = listing.find_similar(model)
            if similar is not None and similar.price is not None:
                info = replace(info, price=similar.price, as_of=listing.as_of)
        if own is not None:
            return replace(info, price=own, as_of=None, from_table=False)
        trouble = None if found else self._trouble.get(provider.name)
        return info if trouble == info.trouble else replace(info, trouble=trouble)

    async def settled(self, profile: Profile, *, patience: float) -> Profile:
        """The profile with those of its candidates that are offered; see `candidates.settled`.

        A cached list is used however old it is, because the turn's own calls refresh it. If there
        is none, it is read now.

        patience: seconds to wait for lists that are not cached.
        """
        named = [self._providers.parse(name)[0] for name in candidates(profile)]
        missing = {
            provider.name: provider
            for provider in named
            if provider.base_url and not self._is_whole(provider) and self._can_ask(provider)
        }
        for provider in missing.values():
            self._read_beside(provider)
        running = {self._reading[name] for name in missing if name in self._reading}
        if running:
            await asyncio.wait(running, timeout=patience)
        return settled(profile, self._offered)

    async def offered_by(self, provider: Provider, *, patience: float) -> tuple[ModelInfo, ...]:
        """The models in a provider's list, which is at most a day old. Empty if no list is stored
        and none can be read within `patience` seconds."""
        await self._refresh(provider, patience)
        listing = self._listing(provider)
        return tuple(listing.models.values()) if listing else ()

    def listed(self) -> dict[str, ModelInfo]:
        """The chat models in the lists on disk, by model name.

        It includes only providers that need no key or have one. No request is sent.
        """
        found: dict[str, ModelInfo] = {}
        for provider in self._askable():
            listing = self._listing(provider)
            for info in listing.models.values() if listing else ():
                if info.kind == "chat":
                    found[name_at(provider.name, info.id)] = info
        return found

    def read_stale(self) -> list[asyncio.Task[None]]:
        """Start reading the lists that are older than a day, of providers that need no key or have
        one. Each task ends when its list is read, or could not be read."""
        for provider in self._askable():
            listing = self._listing(provider)
            if listing is None or not listing.fresh:
                self._read_beside(provider)
        return [task for task in self._reading.values() if not task.done()]

    def unread(self) -> dict[str, str]:
        """Why lists could not be read, by provider. Servers on this machine are left out, because
        they need not run."""
        return {
            provider.name: self._trouble[provider.name]
            for provider in self._askable()
            if provider.name in self._trouble and provider.start_hint is None
        }

    def _askable(self) -> list[Provider]:
        known = self._providers.known.values()
        return [provider for provider in known if provider.base_url and self._can_ask(provider)]

    def _is_whole(self, provider: Provider) -> bool:
        listing = self._listing(provider)
        return listing is not None and listing.whole

    def _can_ask(self, provider: Provider) -> bool:
        return not provider.needs_key or self._providers.key_source(provider) is not None

    def _offered(self, model_name: str) -> str | None:
        """The name under which the provider offers a model; see `candidates.Offered`."""
        provider, model = self._providers.parse(model_name)
        listing = self._listing(provider) if provider.base_url else None
        unlisted = "unlisted_names" in provider.quirks
        if listing is None or not listing.whole or not listing.models or unlisted:
            return None
        found = find_model(model, {name: name for name in listing.models})
        if found is None:
            return ""
        if without_route(model) != model:
            return model_name
        prefix, colon, _ = model_name.partition(":")
        return f"{prefix}:{found}" if colon and prefix in self._providers.known else found

    def completed(self, provider: Provider, info: ModelInfo) -> ModelInfo:
        """The facts on a model from its provider's list, with a price in the settings. Missing
        facts are taken from the table of prices that comes with `moa`."""
        own = self._own_price(f"{provider.name}:{info.id}", provider, info.id)
        if own is not None:
            info = replace(info, price=own)
        return self._with_table(provider, info)

    def _with_table(self, provider: Provider, info: ModelInfo) -> ModelInfo:
        if info.sees is None:
            info = replace(info, sees=known_sight(info.id))
        if (info.price and info.context_length) or not self._has_table(provider):
            return info
        known = from_table(provider.price_table or "", info.id)
        if known is None:
            return info
        return replace(
            info,
            context_length=info.context_length or known.context_length,
            price=info.price or known.price,
            from_table=info.price is None,
        )

    def _has_table(self, provider: Provider) -> bool:
        """Whether the table has prices for the provider. They do not apply to a server on this
        machine that only has the provider's name."""
        if provider.price_table is None:
            return False
        is_here = is_loopback(provider.base_url or "")
        return not is_here or self._providers.key_source(provider) is not None

    def _own_price(self, model_name: str, provider: Provider, model: str) -> Price | None:
        """The price in the settings. Without one, the price of a model on this machine is 0."""
        found, prices = None, self._config.prices
        if prices:
            names = [model_name, f"{provider.name}:{model}"]
            if provider.name == DEFAULT_PROVIDER:
                names.append(model)
            found = next((prices[name] for name in names if name in prices), None)
        return FREE if found is None and _is_free(provider, model) else found

    def _listing(self, provider: Provider) -> _Listing | None:
        name = provider.name
        if name not in self._listings and _rested(self._looked, name):
            self._looked[name] = time.monotonic()
            kept = _load(_file(provider))
            if kept is not None:
                self._listings[name] = kept
                self._known.cache_clear()
        return self._listings.get(name)

    async def _refresh(self, provider: Provider, patience: float) -> None:
        listing = self._listing(provider)
        if listing is None or not listing.fresh:
            self._read_beside(provider)
        if (listing is None or not listing.fresh) and provider.name in self._reading:
            left = self._began[provider.name] + patience - time.monotonic()
            if left > 0:
                await asyncio.wait({self._reading[provider.name]}, timeout=left)
        running = self._reading.get(provider.name)
        if running is None or running.done():
            self._quiet[provider.name] = time.monotonic() + _QUIET_SECONDS

    def _read_beside(self, provider: Provider) -> None:
        name = provider.name
        running = self._reading.get(name)
        if (running is not None and not running.done()) or not _rested(self._began, name):
            return
        self._began[name] = time.monotonic()
        self._quiet.pop(name, None)
        self._reading[name] = asyncio.create_task(self._read(provider))

    async def read(self, provider: Provider) -> list[ModelInfo]:
        """Request a provider's list now, and cache it. Raises ClientError."""
        found = await self._client(provider).models()
        self._trouble.pop(provider.name, None)
        listing = _Listing({model.id: model for model in found}, time.time())
        self._listings[provider.name] = listing
        self._known.cache_clear()
        _keep(_file(provider), listing)
        return found

    async def _read(self, provider: Provider) -> None:
        try:
            await self.read(provider)
        except MoAError as error:
            # Only code that depends on the list reports this; otherwise the calls themselves will
            # fail and say why.
            self._trouble[provider.name] = error.message
            self._known.cache_clear()

    async def aclose(self) -> None:
        """Cancel the reading of lists."""
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _rested(began: Mapping[str, float], name: str) -> bool:
    """Whether the last attempt for that provider is long enough ago, or there was none."""
    return name not in began or time.monotonic() - began[name] >= _REST_SECONDS


def _is_free(provider: Provider, model: str) -> bool:
    """Whether the model runs on the user's own machine. Ollama also forwards to models elsewhere,
    whose names end in `cloud`."""
    if provider.base_url is None:
        return True
    if provider.start_hint is None or not is_loopback(provider.base_url):
        return False
    return not model.endswith(("-cloud", ":cloud"))


def _file(provider: Provider) -> Path:
    return paths.cache_dir() / "prices" / provider.file_name


def _load(file: Path) -> _Listing | None:
    """The list in that cache file; None if it is missing or cannot be read."""
    try:
        table = json.loads(file.read_bytes())
        models = [check_info(load_value(ModelInfo, model)) for model in table["models"]]
        as_of = float(table["as_of"])
        known = {model.id: model for model in models}
        whole = table.get("whole") is True
        return _Listing(known, as_of, whole) if 0 < as_of <= time.time() else None
    except (OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        # The file was not written by this program, or only in part.
        return None


def _keep(file: Path, listing: _Listing) -> None:
    # `asdict` on whole models takes ten times as long, which is noticeable for tens of thousands.
    models = [
        {**vars(model), "price": None if model.price is None else asdict(model.price)}
        for model in listing.models.values()
    ]
    table = {"as_of": listing.as_of, "whole": True, "models": models}
    with suppress(OSError):
        paths.make_private(file.parent)
        with paths.replacing(file) as out:
            out.write(json.dumps(table).encode())
