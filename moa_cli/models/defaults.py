"""Which profile answers when none is named."""

from __future__ import annotations

from collections.abc import Mapping

from moa_cli.config.schema import Config
from moa_cli.models.providers import Providers

__all__ = ["default_profile"]

# Tried in this order: the first with a key is used.
_BY_KEY = ("together", "openrouter", "openai")


def default_profile(config: Config, environment: Mapping[str, str]) -> str:
    """The profile of MOA_PROFILE, else the config's, else the one of the first provider that
    there is a key for, else the embedded model's."""
    named = environment.get("MOA_PROFILE") or config.profile
    if named:
        return named
    known = Providers(config, environment)
    with_key = (name for name in _BY_KEY if known.key_source(known.known[name]))
    return next(with_key, "local")
