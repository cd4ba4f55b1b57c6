"""Reads the settings, profiles and keys of a server, again whenever their files change.

A separate thread does this, so no request waits for a file. Errors are logged, and the last good
version of the wrong file stays in effect. All other files take effect at once, so that a mistake in
one file does not keep a revoked key in another file valid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config
from moa_cli.config.toml import line_of
from moa_cli.core import paths
from moa_cli.core.errors import MoAError, ProfileError
from moa_cli.core.text import with_hint
from moa_cli.engine import Limits
from moa_cli.models.candidates import candidates
from moa_cli.models.env_files import env_paths
from moa_cli.models.providers import Providers
from moa_cli.profile import Profile, dump, list_profiles, resolve
from moa_cli.server.keys import ClientKeys, KeyPlaces
from moa_cli.server.loops import Address, upstream_headers
from moa_cli.server.marks import Marks, marks_of
from moa_cli.store.accounts import budget_of_a_day

# The name of the server's default profile.
DEFAULT = "moa"


@dataclass(frozen=True)
class Mixture:
    """A profile as a request uses it. fingerprint: a hash of the profile."""

    profile: Profile
    fingerprint: str

    @classmethod
    def of(cls, profile: Profile) -> Mixture:
        text = dump(profile).encode("utf-8", "replace")
        return cls(profile, "fp_" + hashlib.sha256(text).hexdigest()[:10])


@dataclass(kw_only=True)
class Snapshot:
    """The settings, profiles and keys of one reading. It never changes after it was made.

    address: where the server listens. mixtures: by the names that clients use, the default one
    first. unusable: profiles that cannot be asked, because they have an error or lead back to this
    server. stale: mixtures whose profile has an error now. clients: replaced if the settings of
    endpoints change, or a file with their keys. limits: the engine's limits. marks: the states of
    all the files, taken right before reading. faults: the errors, in sentences. files: the files of
    each profile.
    """

    address: Address
    config: Config
    mixtures: dict[str, Mixture]
    keys: ClientKeys
    clients: ClientPool
    limits: Limits
    marks: Marks
    unusable: dict[str, Literal["error", "loop"]] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    files: dict[str, tuple[Path, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SettingsReader:
    """Reads the settings, profiles and keys of a server.

    config: returns the current settings. default: returns the profile behind the name `moa` for
    given settings, with all its candidates. Both raise MoAError. limits: returns the engine's
    limits for given settings. environment: its MOA_* variables override the settings of each
    profile. address: where the server listens; a mixture must not lead back to it. keeps_costs:
    whether costs are recorded.
    """

    config: Callable[[], Config]
    default: Callable[[Config], Profile]
    limits: Callable[[Config], Limits]
    keys: KeyPlaces
    environment: Mapping[str, str]
    address: Address
    keeps_costs: bool

    def first(self, config: Config, default: Profile, keys: ClientKeys) -> Snapshot:
        """The first reading, at the start. Raises ProfileError if the default profile leads back to
        this server."""
        pool = self._pool(config)
        if leads_back(default, pool.providers, self.address):
            raise ProfileError(
                f"the profile `{default.name}` leads back to this server ({self.address.url})",
                hint="use another --port, or another base_url",
            )
        reading = Snapshot(
            address=self.address,
            config=config,
            mixtures={DEFAULT: Mixture.of(default)},
            keys=keys,
            clients=pool,
            limits=self.limits(config),
            marks={},
        )
        reading.marks = marks_of(self.files(reading), {})
        self._read_profiles(reading, reading)
        return reading

    def files(self, reading: Snapshot) -> list[Path]:
        """All files that may change what is read."""
        found = [paths.config_file(), *env_paths(), *self.keys.files(reading.config)]
        found += [file.path for file in list_profiles()]
        found += _files_of(reading.mixtures[DEFAULT].profile)
        found += [path for files in reading.files.values() for path in files]
        return list(dict.fromkeys(found))

    def read(self, before: Snapshot, marks: Marks, *, everything: bool = False) -> Snapshot:
        """Read the files again. before: the previous reading. marks: the states of the files, taken
        before this call. everything: also read files that seem unchanged.
        """
        if everything:
            before = replace(before, marks={})
        now = replace(
            before, marks=marks, mixtures={}, unusable={}, stale=set(), faults=[], files={}
        )
        now.mixtures[DEFAULT] = self._read_config_and_default(now, before)
        env_changed = _changed(env_paths(), before.marks, marks)
        if env_changed or _endpoints(now.config) != _endpoints(before.config):
            now.clients = self._pool(now.config)
        now.keys, wrong = self.keys.read(now.config, before.keys)
        now.faults += [_told(error, "the former keys stay valid") for error in wrong]
        if now.config is not before.config:
            now.limits = self.limits(now.config)
        self._read_profiles(now, before)
        return now

    def _read_config_and_default(self, now: Snapshot, before: Snapshot) -> Mixture:
        """Read the settings and the default profile together, because settings that leave `moa`
        without models are rejected."""
        config_file, marks = paths.config_file(), now.marks
        if _changed((config_file,), before.marks, marks) or before.faults:
            try:
                found = self._settings()
                now.config = before.config if found == before.config else found
            except MoAError as error:
                now.faults.append(_told(error, "the former settings stay in effect"))
        known = before.mixtures[DEFAULT]
        files = _files_of(known.profile)
        # If the default profile comes from no file, it depends only on the settings.
        profiles = [path for path in before.marks.keys() | marks.keys() if path.suffix == ".toml"]
        inputs = (config_file, *env_paths(), *files, *(profiles if files else ()))
        if DEFAULT not in before.stale and not _changed(inputs, before.marks, marks):
            return known
        try:
            profile = self.default(now.config)
            if leads_back(profile, Providers(now.config, self.environment), self.address):
                raise ProfileError(f"the profile `{profile.name}` leads back to this server")
        except MoAError as error:
            stays = f"the former `{DEFAULT}` stays in effect"
            now.stale.add(DEFAULT)
            if not _is_sound(known.profile, Providers(now.config, self.environment)):
                now.config = before.config
                stays = f"the former settings and the former `{DEFAULT}` stay in effect"
            now.faults.append(_told(error, stays))
            return known
        mixture = Mixture.of(profile)
        return known if mixture.fingerprint == known.fingerprint else mixture

    def _settings(self) -> Config:
        """The current settings, checked. Raises MoAError."""
        config = self.config()
        Providers(config, self.environment)
        config.zone()
        unkept = budget_of_a_day(config)
        if unkept is not None and not self.keeps_costs:
            raise ProfileError(
                f"`{unkept}` needs the costs of turns, which are not recorded",
                place=config.place,
                path=tuple(unkept.split(".")),
                hint="restart the server",
            )
        return config

    def _read_profiles(self, now: Snapshot, before: Snapshot) -> None:
        """Read all profiles that have files, except unchanged ones."""
        providers = now.clients.providers
        for file in list_profiles():
            name = file.name
            if name == DEFAULT:
                continue
            known, own = before.mixtures.get(name), before.files.get(name, ())
            if own[:1] != (file.path,):
                own = (file.path,)
            elif (
                known is not None
                and name not in before.stale
                and now.clients is before.clients
                and not _changed(own, before.marks, now.marks)
            ):
                now.mixtures[name], now.files[name] = known, own
                continue
            try:
                profile = resolve(name, environment=self.environment, check=providers.check)
            except MoAError as error:
                now.files[name] = own
                if known is not None and _is_sound(known.profile, providers):
                    now.mixtures[name] = known
                    now.stale.add(name)
                    now.faults.append(_told(error, "its former version stays in effect"))
                else:
                    now.unusable[name] = "error"
                    now.faults.append(_told(error, "it cannot be asked"))
                continue
            now.files[name] = (file.path, *_files_of(profile)[1:])
            mixture = Mixture.of(profile)
            if leads_back(profile, providers, self.address):
                now.unusable[name] = "loop"
            elif known is not None and known.fingerprint == mixture.fingerprint:
                now.mixtures[name] = known
            else:
                now.mixtures[name] = mixture

    def _pool(self, config: Config) -> ClientPool:
        return ClientPool(config, self.environment, headers=upstream_headers, many_calls=True)


def news(before: Snapshot, now: Snapshot) -> str:
    """The differences between two readings, in words; "" if there are none."""
    parts = ["the settings"] if before.config is not now.config else []
    if before.keys != now.keys:
        parts.append("the keys of clients")
    if before.clients is not now.clients and before.config is now.config:
        parts.append("the keys of providers")
    known = before.mixtures
    names = [name for name, mixture in now.mixtures.items() if known.get(name) is not mixture]
    names += [name for name in known if name not in now.mixtures]
    if names:
        shown = ", ".join(f"`{name}`" for name in names[:5])
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        parts.append(f"{shown}{more}")
    return ", ".join(parts)


def is_profile(name: str) -> bool:
    """Whether a profile of that name has a file."""
    return any(file.name == name for file in list_profiles())


def leads_back(profile: Profile, providers: Providers, address: Address) -> bool:
    """Whether a turn of `profile` would call the server at `address`."""
    urls = {providers.parse(model)[0].base_url for model in models_of(profile)}
    return any(url is not None and address.is_at(url) for url in urls)


def models_of(profile: Profile) -> list[str]:
    """All models that a profile may ask, including candidates that are not the first choice."""
    return [*profile.models(), *candidates(profile)]


def _is_sound(profile: Profile, providers: Providers) -> bool:
    try:
        providers.check(profile)
    except ProfileError:
        return False
    return True


def _endpoints(config: Config) -> tuple[object, ...]:
    """The settings that the clients of endpoints are made from."""
    return config.providers, config.prices, config.local


def _files_of(profile: Profile) -> tuple[Path, ...]:
    """The files of a profile: its own, and the file of its merge prompt."""
    origins = [profile.origins.get(path) for path in ((), ("merge_prompt",))]
    found = [Path(origin.where) for origin in origins if origin and origin.kind == "profile"]
    return tuple(dict.fromkeys(found))


def _changed(files: Iterable[Path], before: Marks, now: Marks) -> bool:
    return any(before.get(file) != now.get(file) for file in files)


def _told(error: MoAError, stays: str) -> str:
    """The sentence for an error, with the line of the file, and with what is in effect now."""
    message = error.message
    if isinstance(error, ProfileError) and error.path:
        try:
            text = paths.read_bytes(Path(error.place)).decode("utf-8-sig")
            line = line_of(text, error.path)
        except (OSError, ValueError):
            line = None
        if line is not None:
            message = f"{error.place}, line {line}: {error.problem}"
    return f"{with_hint(message, error.hint)}; {stays}"
