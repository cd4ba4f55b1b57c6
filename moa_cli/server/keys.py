"""The clients' keys: where they are read from, and the limits of keys that have a name.

A key comes from an option, a variable or a file, but never from the settings file. Names come from
`[server.keys.NAME]` in the settings, or from a line `NAME: KEY` of the key file. Several keys may
have the same name, so that a key can be replaced without an interruption.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from moa_cli.config.schema import KEY_NAME, Config, ServerKeySettings
from moa_cli.core import paths
from moa_cli.core.debug_log import add_secret
from moa_cli.core.errors import MoAError, ProfileError, UsageError
from moa_cli.core.files.text import lines_of, read_text
from moa_cli.core.values import TOML
from moa_cli.models.env_files import EnvFiles

# The suffix of a profile's name if its aggregator is to answer alone.
SOLO = ":solo"
VARIABLE = "MOA_SERVE_API_KEY"
_FILE_OPTION = "--api-key-file"
_QUOTES = "\"'`"
# A name before a key in the key file. The space distinguishes it from a key that contains a colon.
_NAMED = re.compile(rf"\s*({KEY_NAME.pattern}):\s+")
# The keys of one place, each with its name, or None.
_Found = tuple[tuple[bytes, str | None], ...]


@dataclass(frozen=True)
class ClientKey:
    """A client, identified by its key. The object does not hold the key itself.

    owner: a unique name of the client. All keys of one name belong to one client; each key without
    a name belongs to a client of its own.
    """

    name: str | None = None
    settings: ServerKeySettings = field(default_factory=ServerKeySettings)
    owner: str = field(default="", repr=False)

    def may_ask(self, model: str) -> bool:
        """Whether a model of that name, or its aggregator alone, may be asked."""
        allowed = self.settings.profiles
        return allowed is None or model in allowed or model.removesuffix(SOLO) in allowed


# The client of a server without keys, or a client whose key has no name.
ANYBODY = ClientKey()


@dataclass(frozen=True)
class ClientKeys:
    """All keys of one reading. by_place: the keys by the name of their place."""

    by_place: Mapping[str, _Found] = field(default_factory=dict, repr=False)
    settings: Mapping[str, ServerKeySettings] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.by_place.values())

    def find(self, token: bytes) -> ClientKey | None:
        """The client with this key; None if the key is not valid."""
        # All keys are compared, even after a match, because the time must not reveal which key
        # fits.
        fits = [name for key, name in self._all() if hmac.compare_digest(token, key)]
        if not fits:
            return None
        # If a key is in two places, the entry with a name decides.
        name = next(filter(None, fits), None)
        owner = hashlib.sha256(token).hexdigest() if name is None else f"{name}:"
        return ClientKey(name, self.settings.get(name or "", ServerKeySettings()), owner)

    def _all(self) -> Iterable[tuple[bytes, str | None]]:
        return chain.from_iterable(self.by_place.values())

    def keep_out_of_logs(self) -> None:
        for key, _ in self._all():
            add_secret(key.decode())

    def names_of_one_key(self) -> list[str]:
        """The names of a key that has more than one, so that its limits are ambiguous; usually
        []."""
        names: dict[bytes, set[str]] = {}
        for key, name in self._all():
            if name is not None:
                names.setdefault(key, set()).add(name)
        return next((sorted(several) for several in names.values() if len(several) > 1), [])


@dataclass(frozen=True)
class KeyPlaces:
    """The places that may hold keys.

    typed: the values of --api-key. file: the value of --api-key-file. environment: holds
    MOA_SERVE_API_KEY, and the variables that the settings name. unused: whether requests need no
    key.
    """

    typed: tuple[str, ...] = ()
    file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    unused: bool = False

    def files(self, config: Config) -> list[Path]:
        if self.unused:
            return []
        named = [key.key_file for key in config.server.keys.values() if key.key_file is not None]
        return [*([self.file] if self.file else []), *map(_at, named)]

    def read(
        self, config: Config, before: ClientKeys | None = None
    ) -> tuple[ClientKeys, list[MoAError]]:
        """All keys, and the errors of their places.

        before: the previous reading. If a place has an error now, its previous keys stay valid.
        """
        if self.unused:
            return ClientKeys(), []
        faults: list[MoAError] = []
        found: dict[str, _Found] = {}
        for place, read in self._readers(config):
            try:
                found[place] = read()
            except MoAError as error:
                faults.append(error)
                if before is not None:
                    found[place] = before.by_place.get(place, ())
        keys = ClientKeys(found, config.server.keys)
        named = {name for _, name in keys._all()}
        for name, settings in config.server.keys.items():
            if name not in named and settings.key_env is None and settings.key_file is None:
                faults.append(
                    _of_setting(
                        config,
                        name,
                        "there is no key of that name",
                        hint="set its key_env or key_file, or add a line `NAME: KEY` to the file of"
                        f" {_FILE_OPTION}",
                    )
                )
        if several := keys.names_of_one_key():
            shown = " and ".join(f"`{name}`" for name in several)
            faults.append(
                ProfileError(f"{shown} have the same key", place=config.place, path=("server",))
            )
            keys = before or ClientKeys()
        if not keys and not faults and (foreign := EnvFiles().find(VARIABLE)):
            faults.append(
                UsageError(
                    f"{foreign.file}: {VARIABLE} does not count in a working directory",
                    hint=f"set {VARIABLE} in the environment, or in the .env file of the config"
                    " folder",
                )
            )
        if before and not keys:
            # Otherwise the server would be open to everybody.
            faults.append(UsageError("no API key would be left"))
            keys = before
        return keys, faults

    def _readers(self, config: Config) -> Iterator[tuple[str, Callable[[], _Found]]]:
        yield "--api-key", partial(_checked, "--api-key", self.typed)
        yield VARIABLE, self._in_variable
        if self.file is not None:
            yield _FILE_OPTION, partial(_in_file, _FILE_OPTION, self.file)
        for name, settings in config.server.keys.items():
            if settings.key_env is not None:
                yield f"{name}.key_env", partial(self._of_variable, config, name)
            if settings.key_file is not None:
                yield f"{name}.key_file", partial(_of_file, config, name)

    def _in_variable(self) -> _Found:
        around = self.environment.get(VARIABLE)
        if around is None:
            files = EnvFiles()
            # It may hold the key without which everybody could use the server.
            files.check_own()
            around = files.own(VARIABLE)
        if around is None:
            return ()
        # If the variable is set but empty, a key was intended, so this is an error: without a key,
        # everybody could use the server.
        return _checked(VARIABLE, [key for key in around.split(",") if key.strip()] or [""])

    def _of_variable(self, config: Config, name: str) -> _Found:
        variable = config.server.keys[name].key_env or ""
        value = self.environment.get(variable, "").strip()
        if not value:
            # A `.env` file of a foreign working directory is not used: its author could define a
            # key.
            value = (EnvFiles().own(variable) or "").strip()
        if not value:
            raise _of_setting(
                config,
                name,
                f"the variable {variable} is not set",
                "key_env",
                hint=f"set {variable} in the environment, or in the .env file of the config folder",
            )
        return _checked(variable, [key for key in value.split(",") if key.strip()], name)


def _of_file(config: Config, name: str) -> _Found:
    file = _at(config.server.keys[name].key_file or Path())
    place = TOML.path(("server", "keys", name, "key_file"))
    return _in_file(place, file, name)


def _of_setting(
    config: Config, name: str, problem: str, key: str = "", *, hint: str
) -> ProfileError:
    path = ("server", "keys", name, *([key] if key else []))
    return ProfileError(f"`{TOML.path(path)}`: {problem}", place=config.place, path=path, hint=hint)


def _at(file: Path) -> Path:
    return paths.config_dir() / paths.expand(str(file))


def _in_file(place: str, file: Path, name: str | None = None) -> _Found:
    """The keys in a file, one on each line. name: the name of all these keys; with None, a line may
    begin with a name."""
    try:
        lines = lines_of(read_text(file))
    except UsageError as error:
        raise UsageError(f"{place}: {error.message}", hint=error.hint) from None
    found: list[tuple[bytes, str | None]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        named = None if name else _NAMED.match(line)
        key = line[named.end() :] if named else line
        # The line is not repeated: it may be a key.
        checked = _check(f"{place}: {file}, line {number}", key)
        found.append((checked, named[1] if named else name))
    if not found:
        raise UsageError(f"{place}: {file} holds no key")
    return tuple(found)


def _checked(place: str, keys: Iterable[str], name: str | None = None) -> _Found:
    return tuple((_check(place, key), name) for key in keys)


def _check(place: str, text: str) -> bytes:
    """A key in the form in which it is compared. Raises UsageError if the text cannot be a key."""
    key = text.strip()
    if not key.strip(" ,"):
        raise UsageError(
            f"{place} is empty", hint="leave it out, or set the variable that it comes from"
        )
    if not key.isascii() or not key.isprintable() or re.search(r"\s", key):
        raise UsageError(f"{place}: a key must be printable ASCII without spaces")
    if key[0] in _QUOTES or key[-1] in _QUOTES:
        # Docker's env files, for example, keep the quotes: `KEY=""` would be a key that anybody
        # can guess.
        raise UsageError(f"{place}: a key must not stand in quotes")
    return key.encode()
