"""`moa doctor`: checks whether everything that `moa` needs is in place."""

from __future__ import annotations

import functools
import sys
import textwrap
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer
from typer import Option

from moa_cli.cli import wiring
from moa_cli.cli.options import takes_profile
from moa_cli.core import paths
from moa_cli.core.errors import ClientError, MoAError, ProfileError, UsageError
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import meant, plural
from moa_cli.terminal.tty import columns_of, folded

if TYPE_CHECKING:
    from moa_cli.clients.pool import ClientPool
    from moa_cli.models.providers import Providers
    from moa_cli.models.table import Provider
    from moa_cli.profile import Profile

_INDENT = " " * 7
# A list is at most this many cells wide, also in a pipe.
_LIST_COLUMNS = 80


class Finding(NamedTuple):
    """A finding of the report. what: its line. listed: names that follow the line, and may take
    several lines."""

    level: Literal["OK", "WARN", "ERROR", "SKIP"]
    what: str
    hint: str | None = None
    listed: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """The lines to print. They are folded at the terminal's width, and a list at 80 cells even
        without a terminal."""
        line = f"{self.level:<5}  {one_line(self.what)}"
        if self.listed:
            # Keep each name on the same line as the variable after it.
            names = ", ".join(one_line(name).replace(" ", "\xa0") for name in self.listed)
            columns = min(columns_of(sys.stdout) or _LIST_COLUMNS, _LIST_COLUMNS)
            folds = textwrap.wrap(
                f"{line} {names}", columns, subsequent_indent=_INDENT, break_on_hyphens=False
            )
            yield from (fold.replace("\xa0", " ") for fold in folds)
        else:
            yield folded(line, sys.stdout)
        if self.hint:
            yield folded(f"{_INDENT}→ {one_line(self.hint)}", sys.stdout)


@functools.partial(takes_profile, checked=False)
def doctor(
    profile: Profile,
    offline: Annotated[bool, Option("--offline", help="Send no request to any provider.")] = False,
    call: Annotated[
        bool,
        Option(
            "--call",
            help="Call each model of the profile once, with a few tokens: only a call shows"
            " whether there is credit.",
        ),
    ] = False,
) -> None:
    """Check the installation: versions, folders, keys, providers and models.

    The providers and models are those of a profile.
    """
    import asyncio

    if call and offline:
        raise UsageError("--call and --offline cannot be used together")

    if not offline:
        with suppress(ProfileError):
            wiring.providers().check(profile)
            profile = wiring.settled(profile)
    if not asyncio.run(_report(profile, offline=offline, call=call)):
        raise typer.Exit(1)


async def _report(profile: Profile, *, offline: bool, call: bool) -> bool:
    """Print each finding. Returns whether there was no error."""
    sound = True
    async for finding in _findings(profile, offline=offline, call=call):
        sound = sound and finding.level != "ERROR"
        for line in finding.lines():
            typer.echo(line)
    return sound


async def _findings(
    profile: Profile, *, offline: bool, call: bool
) -> AsyncGenerator[Finding, None]:
    for finding in (*_versions(), *_folders(), *_keys(profile), *_profile(profile)):
        yield finding
    async with aclosing(wiring.client_pool(sdk_lists=True)) as pool:
        async for finding in _providers(profile, pool, offline):
            yield finding
    if call:
        async for finding in _calls(profile):
            yield finding
    elif any(provider.needs_key for provider, _ in _found(profile, wiring.providers())):
        yield Finding(
            "SKIP", "no model was called, so credit is not known", "to call each: moa doctor --call"
        )
    yield await _runtime(profile)


async def _calls(profile: Profile) -> AsyncGenerator[Finding, None]:
    """A finding for each model: whether it answers."""
    import asyncio

    from moa_cli.api import open_clients
    from moa_cli.cli.trial import trouble_of, try_model

    models = list(dict.fromkeys(profile.models()))
    async with aclosing(open_clients()) as pool:
        turns = await asyncio.gather(*(try_model(model, pool) for model in models))
    for model, turn in zip(models, turns, strict=True):
        trouble = trouble_of(turn)
        if trouble is None:
            yield Finding("OK", f"{model} answers")
        else:
            yield Finding("ERROR", f"{model} does not answer: {trouble.message}", trouble.hint)


def _versions() -> Iterator[Finding]:
    import importlib.metadata
    import platform

    from moa_cli.version import __version__

    yield Finding("OK", f"moa {__version__}, Python {platform.python_version()}")
    for package in ("together", "rich", "prompt-toolkit"):
        try:
            yield Finding("OK", f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding("ERROR", f"{package} is not installed", "install moa-chat again")
    for other in _others_with_our_names():
        yield Finding(
            "WARN",
            f"{other} is installed in the same environment, with files or a command of moa's names",
            f"uninstall {other}, then install moa-chat again, or give each its own environment",
        )


def _others_with_our_names() -> list[str]:
    """The installed distributions that also have a package `moa_cli` or a command `moa`.

    The package index has one, `moa-cli`. If both are installed, the later one has overwritten files
    of the other, and uninstalling either of them removes files of both.
    """
    import importlib.metadata

    names = set(importlib.metadata.packages_distributions().get("moa_cli", []))
    commands = importlib.metadata.entry_points(group="console_scripts", name="moa")
    names |= {command.dist.name for command in commands if command.dist is not None}
    with suppress(importlib.metadata.PackageNotFoundError):
        names.add(importlib.metadata.distribution("moa-cli").name)
    return sorted(name for name in names if name and name.lower().replace("_", "-") != "moa-chat")


def _folders() -> Iterator[Finding]:
    import os

    file = paths.config_file()
    if file.exists():
        # The file is readable, or the command would have ended before this line.
        yield Finding("OK", f"config: {file}")
    else:
        yield Finding("SKIP", f"config: no {file}, defaults apply")
    for told, hint in wiring.ignored_variables():
        yield Finding("WARN", told, hint)
    folders = {
        "config": paths.config_dir(),
        "data": paths.data_dir(),
        "state": paths.state_dir(),
        "cache": paths.cache_dir(),
    }
    for name, folder in folders.items():
        places = (folder, *folder.parents)
        nearest = next(p for p in places if paths.is_folder(p) or paths.is_file(p))
        is_folder = paths.is_folder(nearest)
        if is_folder and os.access(nearest, os.W_OK):
            yield Finding("OK", f"{name} folder: {folder}")
        else:
            wrong = f"{nearest} is {'not writable' if is_folder else 'no folder'}"
            yield Finding("ERROR", f"{name} folder: {wrong}", f"set MOA_{name.upper()}_DIR")
    history = paths.database_file()
    if paths.is_file(history) and not os.access(history, os.R_OK | os.W_OK):
        yield Finding("ERROR", f"history: {history} cannot be read and written")


def _found(profile: Profile, known: Providers) -> Iterator[tuple[Provider, str]]:
    """The provider and the id of each model with a valid name."""
    for model in profile.models():
        with suppress(ProfileError):
            yield known.parse(model)


def _keys(profile: Profile) -> Iterator[Finding]:
    from moa_cli.models.env_files import EnvFiles

    known = wiring.providers()
    used = {provider.name for provider, _ in _found(profile, known)}
    without = []
    for provider in known.known.values():
        source = known.key_source(provider)
        name = provider.key_variable or "api_key_cmd"
        if source is not None:
            try:
                known.key(provider)
            except ClientError as error:
                message = error.message.removeprefix(f"{provider.name}: ")
                yield Finding("ERROR", f"{provider.name}: {message}", error.hint)
            else:
                yield Finding("OK", f"{provider.name}: key from {source}")
            notice = known.key_notice(provider)
            if notice is not None:
                own = paths.config_dir() / ".env"
                yield Finding("WARN", notice, f"the key in {own} is used in every folder")
        elif not provider.needs_key:
            continue
        elif provider.name in used:
            message = f"{provider.name}: no API key, which the profile needs"
            yield Finding("ERROR", message, EnvFiles().trouble(name) or f"set {name}")
        elif _is_likely(provider):
            yield Finding("SKIP", f"{provider.name}: no API key ({name} is not set)")
        else:
            without.append(f"{provider.name} ({name})")
    if without:
        yield Finding("SKIP", "no API key for", listed=tuple(without))


def _is_likely(provider: Provider) -> bool:
    """Whether a missing key gets a line of its own. It does if the provider is in the settings, or
    a shipped profile has its name."""
    from moa_cli.profile import find

    if provider.name in wiring.config().providers:
        return True
    with suppress(ProfileError, UsageError):
        return find(provider.name).source == "shipped"
    return False


def _profile(profile: Profile) -> Iterator[Finding]:
    yield Finding("OK", wiring.describe(profile))
    for note in profile.notes:
        yield Finding("WARN" if note.startswith("none of") else "OK", note)
    known = wiring.providers()
    for fault in known.faults(profile):
        yield Finding("ERROR", fault.message, fault.hint)
    for fault in known.price_faults():
        yield Finding("WARN", fault.message, fault.hint)


async def _providers(
    profile: Profile, pool: ClientPool, offline: bool
) -> AsyncGenerator[Finding, None]:
    by_provider: dict[str, list[str]] = {}
    for provider, identity in _found(profile, pool.providers):
        if provider.base_url is not None:
            by_provider.setdefault(provider.name, []).append(identity)
    for name, wanted in by_provider.items():
        if offline:
            yield Finding("SKIP", f"{name}: not asked (--offline)")
            continue
        try:
            listed = [info.id for info in await pool.endpoint(f"{name}:-").client.models()]
        except MoAError as error:
            yield Finding("ERROR", error.message, error.hint)
            continue
        yield Finding("OK", f"{name}: reachable, {plural(len(listed), 'model')}")
        if "unlisted_names" in pool.providers.known[name].quirks:
            yield Finding("SKIP", f"{name}: its list does not show which names you can call")
            continue
        from moa_cli.models.names import find_model

        for model in wanted:
            if find_model(model, dict.fromkeys(listed, True)):
                yield Finding("OK", f"{name}: has {model}")
                continue
            hint = meant(model, listed, f"see `moa models {name}`")
            if name == "ollama":
                hint = f"ollama pull {model}"
            yield Finding("WARN", f"{name}: does not list {model}", hint)


async def _runtime(profile: Profile) -> Finding:
    """Whether the embedded model starts. To find out, it is started and ended again."""
    import importlib.metadata
    import importlib.util

    from moa_cli.clients.local.weights import SMOLLM2, find_weights
    from moa_cli.core.installation import install_command

    used = any(provider.name == "local" for provider, _ in _found(profile, wiring.providers()))
    if importlib.util.find_spec("xllamacpp") is None:
        missing = "embedded runtime: not installed"
        return Finding("ERROR" if used else "SKIP", missing, install_command("local"))
    try:
        weights = find_weights(SMOLLM2, wiring.config())
        async with aclosing(wiring.client_pool(sdk_lists=True)) as pool:
            await pool.endpoint(f"local:{SMOLLM2}").client.models()
    except ClientError as error:
        return Finding("ERROR" if used else "WARN", error.message, error.hint)
    version = importlib.metadata.version("xllamacpp")
    return Finding("OK", f"embedded runtime: xllamacpp {version} starts, weights {weights}")
