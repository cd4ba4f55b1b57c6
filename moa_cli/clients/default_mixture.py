"""Which mixture answers: the profile that was named, else one of the models that can be asked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from moa_cli.core import paths
from moa_cli.core.errors import ProfileError
from moa_cli.models.providers import Providers, default_profile

if TYPE_CHECKING:
    from moa_cli.config.schema import Config
    from moa_cli.profile import Overrides, Profile


def choose_profile(
    config: Config, name: str | None, flags: Overrides, *, checked: bool = True
) -> Profile:
    """The profile with that name (None is the default one), changed by the environment and the
    flags.

    If the user types models but has chosen no profile, no shipped profile is used, because its
    settings were not made for these models. Without a profile or a key that has one, models of
    another key are taken, else those of a server on this machine; finding them takes an event loop,
    so none may run in this thread. checked: whether a model name with an unknown provider raises
    ProfileError.
    """
    from moa_cli.profile import Overrides, find, resolve

    environment, known = os.environ, Providers(config, os.environ)
    chosen: str | None = name or default_profile(config, environment)
    models = flags.reference_models or Overrides.from_environment(environment).reference_models
    named = name or environment.get("MOA_PROFILE") or config.profile
    # The embedded model's settings fit no other model, even if it is the user's default.
    embedded = name is None and chosen == "local" and find(chosen).source == "shipped"
    tables = None
    if models and (not named or embedded):
        chosen = None
    elif chosen == "local" and not named:
        tables = _of_a_key(config, known) or _found_on_this_machine(known)
        chosen = chosen if tables is None else None
    if name is None and chosen is not None:
        _check_default(chosen, environment)
    return resolve(
        chosen,
        environment=environment,
        flags=flags,
        check=known.check if checked else None,
        tables=tables,
    )


def _check_default(name: str, environment: Mapping[str, str]) -> None:
    """Raise ProfileError, which says where the name comes from, if there is no such profile."""
    from moa_cli.profile import find

    try:
        find(name)
    except ProfileError as error:
        place, hint = "MOA_PROFILE", error.hint
        if not environment.get("MOA_PROFILE"):
            place = f"{paths.config_file()}: `profile`"
            hint = f"`moa config unset profile` removes it; {hint}"
        raise ProfileError(error.message, place=place, hint=hint) from None


def _of_a_key(config: Config, known: Providers) -> dict[str, Any] | None:
    """The table of a mixture of models of the first provider that has a key and whose list can be
    read; None if there is none."""
    keyed = [
        provider
        for provider in known.known.values()
        if provider.base_url and known.key_source(provider)
    ]
    if not keyed:
        return None
    import asyncio

    from moa_cli.clients.pool import ClientPool
    from moa_cli.models.candidates import LIST_PATIENCE
    from moa_cli.models.choosing import choose

    async def first() -> dict[str, Any] | None:
        async with aclosing(ClientPool(config)) as pool:
            for provider in keyed:
                offered = await pool.catalog.offered_by(provider, patience=LIST_PATIENCE)
                mixture = choose(provider.name, offered)
                if mixture is not None:
                    about = f"models of {provider.name}, as its key is set and no profile"
                    return {"description": about, **mixture.table()}
        return None

    return asyncio.run(first())


def _found_on_this_machine(known: Providers) -> dict[str, Any] | None:
    """The table of a mixture of models of a server on this machine; None if there is no server."""
    from moa_cli.clients.local_servers import find_local_servers
    from moa_cli.models.choosing import choose

    servers = find_local_servers(known)
    if not servers:
        return None
    best = max(servers, key=lambda server: len(server.models))
    mixture = choose(best.provider, best.models, most=3)
    about = f"models of {best.provider} on this machine, as no key or profile is set"
    return None if mixture is None else {"description": about, **mixture.table()}
