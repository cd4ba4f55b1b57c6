"""The composition root: creates the settings, the profile and the clients for a command."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from moa_cli.core.errors import ProfileError, UsageError
from moa_cli.core.text import with_hint

if TYPE_CHECKING:
    from moa_cli.clients.limiter import Limiter
    from moa_cli.clients.pool import ClientPool
    from moa_cli.config.schema import Config
    from moa_cli.core.ledger import Ledger
    from moa_cli.engine import Budget, Limits
    from moa_cli.engine.budget import Scope
    from moa_cli.models.providers import Providers
    from moa_cli.profile import Overrides, Profile

_EMBEDDED = "local:smollm2"
# Variables that stand for no setting, without `MOA_`.
_OTHER_VARIABLES = {
    *("bench_data", "bench_mirror", "log", "serve_api_key"),
    *("config_dir", "data_dir", "state_dir", "cache_dir"),
}


_in_force: list[Config] = []


def config() -> Config:
    """The settings of this process. Raises ProfileError if the file is wrong."""
    if not _in_force:
        from moa_cli.config.schema import load_config

        _in_force.append(load_config())
    return _in_force[0]


def use(settings: Config) -> None:
    """Use these settings in this process from now on."""
    _in_force[:] = [settings]


def providers() -> Providers:
    """The known providers, with the environment variables of this process."""
    from moa_cli.models.providers import Providers

    return Providers(config(), os.environ)


def client_pool(
    *, sdk_lists: bool = False, headers: Callable[[], Mapping[str, str]] | None = None
) -> ClientPool:
    """Clients for one event loop. sdk_lists: whether Together's list comes through its SDK.
    headers: see `ClientPool`."""
    from moa_cli.clients.pool import ClientPool

    return ClientPool(config(), sdk_lists=sdk_lists, headers=headers)


@cache
def limiter(limit: int, per_provider: int | None = None) -> Limiter:
    """The limiter for all calls of this process.

    limit: how many calls may be in flight. per_provider: how many at each provider; None lets the
    limiter find out.
    """
    from moa_cli.clients.limiter import Limiter

    return Limiter(limit, per_provider=per_provider)


def limits(
    concurrency: int | None = None, budgets: tuple[Budget, ...] = (), ledger: Ledger | None = None
) -> Limits:
    """The limits for the engine. concurrency: None takes the configured one."""
    from moa_cli.engine import Limits

    concurrency = concurrency or config().concurrency
    return Limits(
        concurrency=concurrency,
        retries=config().retries,
        budgets=budgets,
        slots=limiter(concurrency).slots(providers().provider_of),
        ledger=ledger,
        assumed_context=assumed_context(),
    )


def assumed_context() -> int | None:
    """The context to assume for models of unknown context; see `Limits`."""
    return config().default_context or None


def session_budget(scope: Scope) -> tuple[Budget, ...]:
    """The budget of all turns of a command together, if the settings set one."""
    from moa_cli.engine import Budget, Cap

    limit = config().budget.session
    return () if limit is None else (Budget(Cap("budget.session", "usd", limit), scope),)


def default_profile() -> str:
    """The profile used when none is named."""
    from moa_cli.models.providers import default_profile as choose

    return choose(config(), os.environ)


def choose_profile(
    name: str | None, flags: Overrides, *, checked: bool = True, settles: bool = True
) -> Profile:
    """The profile with that name (None is the default one), changed by the environment and the
    flags.

    checked: whether a model name with an unknown provider raises ProfileError. settles: whether to
    choose among the profile's candidates now, see `settled`; this needs `checked`.
    """
    from moa_cli.clients import default_mixture

    profile = default_mixture.choose_profile(config(), name, flags, checked=checked)
    return settled(profile) if checked and settles else profile


def settled(profile: Profile) -> Profile:
    """The profile with those of its candidates that their providers offer.

    The providers' lists are cached, so this waits for a list only if there is none.
    """
    from moa_cli.models.candidates import LIST_PATIENCE, has_candidates

    if not has_candidates(profile):
        return profile
    import asyncio

    async def ask() -> Profile:
        async with contextlib.aclosing(client_pool()) as pool:
            return await pool.settled(profile, patience=LIST_PATIENCE)

    return asyncio.run(ask())


def check_model_name(option: str, model: str) -> None:
    """Raise UsageError, naming the option, if `model` is not the name of a model."""
    try:
        providers().parse(model)
    except ProfileError as error:
        raise UsageError(f"{option}: {error.message}", hint=error.hint) from None


def describe(profile: Profile) -> str:
    """One line that names the profile and its models."""
    from moa_cli.profile import closing_text, short_name
    from moa_cli.profile.layering import FOUND, TYPED

    parts = []
    for number in range(1, profile.rounds + 1):
        counts = Counter(short_name(proposer.model) for proposer in profile.layer(number))
        parts.append(", ".join(f"{model} ×{n}" if n > 1 else model for model, n in counts.items()))
    if len(parts) > 1 and len(set(parts)) == 1:
        parts = [f"({parts[0]}) × {len(parts)} rounds"]
    line = " → ".join([*parts, closing_text(profile)])
    if _EMBEDDED in profile.models():
        line += " (a tiny demonstration model, often wrong)"
    if profile.name in (FOUND, TYPED) and () not in profile.origins:
        return f"{profile.description or 'typed models'}: {line}"
    changed = any(origin.kind in ("environment", "flag") for origin in profile.origins.values())
    return f"profile {profile.name}{' (changed)' if changed else ''}: {line}"


def ignored_variables() -> Iterator[tuple[str, str | None]]:
    """The variables of the environment whose names begin with `MOA_`, but which `moa` does not
    have; and for each a hint on what the user may have meant, if that is clear."""
    from dataclasses import fields

    from moa_cli.config.schema import VARIABLES
    from moa_cli.profile import Overrides

    known = {setting.name for setting in fields(Overrides)} | _OTHER_VARIABLES
    known |= {variable.removeprefix("MOA_").lower() for variable in VARIABLES.values()}
    given = {
        name.removeprefix("MOA_").lower(): name
        for name, text in os.environ.items()
        if name.startswith("MOA_") and text.strip()
    }
    if not (unknown := sorted(given.keys() - known)):
        return
    import difflib

    from moa_cli.config.names import dotted, leaves
    from moa_cli.profile.schema import AGGREGATOR_KEYS, PROFILE_KEYS

    settings = {"_".join(path): dotted(path) for path in leaves()}
    # The settings may name a variable that holds a key, or a part of a header.
    named = repr(config())
    for key in unknown:
        # A mistyped name, but not that of another program, is as close as this.
        near = difflib.get_close_matches(key, known, 1, 0.8)
        hint = f"did you mean `MOA_{near[0].upper()}`?" if near else None
        if key in {**PROFILE_KEYS, **AGGREGATOR_KEYS}:
            hint = f"set `{key}` in a profile"
        elif key in settings:
            hint = f"set `{settings[key]}` in config.toml"
        if given[key] not in named:
            yield f"{given[key]} is ignored: there is no such variable", hint


def introduction(profile: Profile, *, switching: bool = False) -> list[str]:
    """The notices before the first turn: which models answer, which prices fit no model, where keys
    come from if the user may not expect it, and which variables are ignored.

    switching: whether other models than the profile's may be asked later.
    """
    known = providers()
    return [
        describe(profile),
        *profile.notes,
        *(with_hint(fault.message, fault.hint) for fault in known.price_faults()),
        *known.key_notices(None if switching else profile.models()),
        # A variable without a hint may belong to another program.
        *(with_hint(told, hint) for told, hint in ignored_variables() if hint),
    ]


def greeting(profile: Profile) -> list[str]:
    """The lines that `moa chat` shows at its start. There are more at the first start if nothing is
    set up."""
    from moa_cli.core import paths
    from moa_cli.models.providers import DEFAULT_PROFILES

    lines = introduction(profile, switching=True)
    marker = paths.state_dir() / "greeted"
    known = providers()
    # A token such as Hugging Face's does not count: it may be set for other programs.
    set_up = paths.config_file().exists() or any(
        known.key_source(provider)
        for provider in known.known.values()
        if not provider.vendor or provider.name in DEFAULT_PROFILES
    )
    if set_up or marker.exists() or profile.name != "local":
        return [*lines, "/help lists the commands, Ctrl-D leaves"]
    with contextlib.suppress(OSError):
        paths.make_private(marker.parent)
        marker.touch(mode=0o600)
    return [
        *lines,
        "for real answers, set TOGETHER_API_KEY, OPENROUTER_API_KEY or OPENAI_API_KEY,",
        "or start Ollama or LM Studio, and run `moa setup`; `moa doctor` tells what is missing",
        "/help lists the commands, Ctrl-C stops a turn, Ctrl-D leaves",
    ]
