"""Providers by name, and their keys.

A model name is `provider:model-id`, or an id without a colon, which belongs to the default
provider. The part before the first colon must be a known provider: because of a mistyped name, a
prompt must not go to a provider that the user did not mean.
"""

from __future__ import annotations

import ipaddress
import re
import subprocess
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from moa_cli.config.schema import Config, ProviderSettings
from moa_cli.core.debug_log import RoomLog, add_secret
from moa_cli.core.endpoints import NO_KEY
from moa_cli.core.errors import AuthenticationFailed, ProfileError
from moa_cli.core.files.new_file import why_unfit
from moa_cli.core.text import nearest, without_password
from moa_cli.core.values import TOML, KeyPath
from moa_cli.models.env_files import EnvFiles, FoundKey
from moa_cli.models.table import BUILT_IN, DEFAULT_PROVIDER, OF_ANOTHER, Pairs, Provider
from moa_cli.profile import Profile, model_faults

_LOG = RoomLog("moa.models")
_KEY_COMMAND_SECONDS = 60
_MOST_PARSED = 256
# Characters that an id without a provider cannot contain or begin with. Among them are those that
# look like a colon, or are next to it on the keyboard: they show a mistyped provider.
_ODD = re.compile(r"^[^A-Za-z0-9]|[^A-Za-z0-9._/@+-]")
# If no profile is chosen, the first of these providers that has a key decides; its profile has the
# same name.
DEFAULT_PROFILES = (DEFAULT_PROVIDER, "openrouter", "openai", "groq")
# For these providers, a changed address has always received the key of the provider.
_LONG_KNOWN = (DEFAULT_PROVIDER, "openai", "openrouter", "groq")
# A reference to an environment variable in a header or parameter that the user has set.
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
# Azure's older interface requires the date of its version in each request.
_AZURE_VERSIONS = ("AZURE_OPENAI_API_VERSION", "OPENAI_API_VERSION")


@lru_cache(maxsize=256)
def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine."""
    host = ""
    try:
        host = urlsplit(url).hostname or ""
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Providers:
    """The known providers: the built-in ones, which the settings may change, and the user's own.

    environment: where keys and the `…_BASE_URL` variables are looked up. Raises ProfileError if a
    provider in the settings is wrong.
    """

    def __init__(self, config: Config, environment: Mapping[str, str]) -> None:
        self._config = config
        self._environment = environment
        self._env_files = EnvFiles()
        self.known = dict(BUILT_IN)
        # A cache, because each call parses its model name several times. It is bounded, because
        # clients of a server may send any number of names.
        self._parsed = lru_cache(_MOST_PARSED)(self._parse)
        for name, settings in config.providers.items():
            self.known[name] = self._from_settings(name, settings, config.place)
        # The environment comes last, so that it takes precedence over the file.
        for name in BUILT_IN:
            url = self._url_from_environment(name)
            if url is not None:
                self.known[name] = self._at(self.known[name], url)

    def _url_from_environment(self, name: str) -> str | None:
        variables = (f"{name.upper()}_BASE_URL", BUILT_IN[name].address_variable)
        for variable in variables if name != "local" else ():
            url = self._environment.get(variable or "", "").strip()
            if url:
                return url
        host = self._environment.get("OLLAMA_HOST", "").strip()
        return _ollama_url(host) if host and name == "ollama" else None

    def _at(self, provider: Provider, url: str) -> Provider:
        """The provider at another address. url: as the user wrote it."""
        built_in = BUILT_IN.get(provider.name)
        own = urlsplit(built_in.base_url) if built_in and built_in.base_url else None
        host, path = _host_and_path(url)
        is_same = own is not None and own.hostname == host
        default_path = own.path if own is not None and is_same else provider.default_path
        if provider.address_variable and path in ("", "/", "/openai"):
            provider = self._dated(provider, url)
            if "deployment_path" in provider.quirks:
                default_path = "/openai"
        address, query = _base_url(url, default_path)
        # The setting `query` overrides parameters in the address.
        names = [name for name, _ in provider.query]
        return replace(
            provider,
            base_url=address,
            query=(*(pair for pair in query if pair[0] not in names), *provider.query),
            models_path=provider.models_path if is_same else "/models",
        )

    def _dated(self, provider: Provider, url: str) -> Provider:
        """The provider with Azure's older interface if the date of a version is set, else
        unchanged."""
        version = dict(parse_qsl(urlsplit(url).query)) | dict(provider.query)
        found = (self._environment.get(variable, "").strip() for variable in _AZURE_VERSIONS)
        dated = version.get("api-version") or next(filter(None, found), "")
        if not re.match(r"\d{4}-\d\d-\d\d", dated):
            return provider
        others = (pair for pair in provider.query if pair[0] != "api-version")
        return replace(
            provider,
            query=(*others, ("api-version", dated)),
            quirks=provider.quirks | {"deployment_path"},
        )

    def _from_settings(self, name: str, settings: ProviderSettings, place: str) -> Provider:
        base = self.known.get(name) or Provider(name=name, base_url=None)
        path: KeyPath = ("providers", name)
        is_odd = name == "local" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)
        # The name becomes a file name in the cache folder.
        unfit = None if is_odd else why_unfit(name)
        if is_odd or unfit:
            what = "invalid name of a provider"
            raise ProfileError(
                f"`{TOML.path(path)}`: {what}: {unfit}"
                if unfit
                else f"`{TOML.path(path)}`: {what}",
                place=place,
                path=path,
                hint="choose another name"
                if unfit
                else "use letters, digits, dashes and underscores; `local` is the embedded model",
            )
        if settings.base_url is None and base.base_url is None:
            path = (*path, "base_url")
            raise ProfileError(f"`{TOML.path(path)}` is missing", place=place, path=path)
        variable = settings.api_key_env
        changed = replace(
            base,
            key_variable=variable or base.key_variable,
            other_key_variables=() if variable else base.other_key_variables,
            key_command=settings.api_key_cmd or base.key_command,
            headers=tuple((settings.headers or {}).items()),
            query=tuple((settings.query or {}).items()),
            quirks=base.quirks if settings.quirks is None else frozenset(settings.quirks),
            concurrency=settings.concurrency,
            rpm=settings.rpm,
            web=base.web if settings.web is None else settings.web,
            batch_price=base.batch_price if settings.batch_price is None else settings.batch_price,
        )
        if settings.base_url is None:
            return changed
        if not variable and not changed.key_command and _is_elsewhere(base, settings.base_url):
            # It may be the user's own server without a key, named before `moa` had a built-in
            # provider of that name.
            changed = replace(changed, key_optional=True)
        return self._at(changed, settings.base_url)

    def provider_of(self, model_name: str) -> Provider:
        """The provider of `model_name`. Raises ProfileError as `parse` does."""
        return self.parse(model_name)[0]

    def model_id(self, model_name: str) -> str:
        """The model's id at its provider. Raises ProfileError as `parse` does."""
        return self.parse(model_name)[1]

    def parse(self, model_name: str) -> tuple[Provider, str]:
        """The provider of `model_name`, and the model's id there.

        Raises ProfileError if it names no known provider, or no model.
        """
        return self._parsed(model_name)

    def _parse(self, model_name: str) -> tuple[Provider, str]:
        name, colon, model = model_name.partition(":")
        if not colon and name not in self.known:
            return self.known[DEFAULT_PROVIDER], self._bare(model_name)
        if name not in self.known:
            raise self._unknown(model_name)
        if not model.strip():
            raise ProfileError(
                f"`{model_name}` names only a provider, not a model",
                hint=f"write `{name}:model-id`; `moa models {name}` lists its models",
            )
        if any(word.partition(":")[0] in self.known and ":" in word for word in model.split()[1:]):
            raise ProfileError(
                f"`{model_name}` names several models",
                hint="name one; in a list, put a comma between models",
            )
        return self.known[name], model

    def _bare(self, model: str) -> str:
        """Check a model's id that is named without a provider. Raises ProfileError if it cannot be
        an id, or another provider may be meant."""
        if not model.strip():
            raise ProfileError(f"`{model}` does not name a model", hint="write `provider:model-id`")
        plain = unicodedata.normalize("NFKC", model)
        if ":" in plain:
            # Some keyboards type this character instead of a colon. The whole name would go to the
            # default provider as an id.
            raise ProfileError(
                f"`{model}` holds a full-width colon", hint=f"did you mean `{plain}`?"
            )
        by_case = {name.lower(): name for name in self.known}
        if model.lower() in by_case:
            raise ProfileError(
                f"`{model}` does not name a model",
                hint=f"did you mean `{by_case[model.lower()]}:model-id`?",
            )
        first, slash, rest = model.partition("/")
        if slash and first in self.known and not self.known[first].vendor:
            raise ProfileError(
                f"`{model}` begins with the name of a provider, but without a colon",
                hint=f"did you mean `{first}:{rest}`? Otherwise: `{DEFAULT_PROVIDER}:{model}`",
            )
        odd = _ODD.search(model)
        if odd is not None:
            raise self._misspelt(model, odd, by_case)
        return model

    def _misspelt(self, model: str, odd: re.Match[str], by_case: Mapping[str, str]) -> ProfileError:
        """The error for a name without a provider that has a character which no id has. by_case:
        the known providers by their names in lower case."""
        letter = odd[0]
        shown = f"`{letter}`" if "!" <= letter <= "~" else f"U+{ord(letter):04X}"
        meant = by_case.get(model[: odd.start()].lower())
        question = f"did you mean `{meant}:{model[odd.end() :]}`? " if meant else ""
        return ProfileError(
            f"`{model}` is not the name of a model: it holds {shown}",
            hint=f"{question}If the model id is spelled that way, write it with its provider:"
            f" `{DEFAULT_PROVIDER}:{model}`",
        )

    def _unknown(self, model_name: str) -> ProfileError:
        name, _, model = model_name.partition(":")
        if model.startswith("//"):
            # The message does not repeat the address, because it may hold a password.
            return ProfileError(
                "an address is not a model name",
                hint="name the endpoint in config.toml (`[providers.NAME]`, base_url), and write"
                " `NAME:model-id`",
            )
        shown = without_password(model_name)
        if not name.strip():
            return ProfileError(
                f"`{shown}` has no known provider before its colon",
                hint=f"known providers: {', '.join(self.known)}",
            )
        meant = self._meant(name, model_name)
        question = f"; did you mean `{meant}`?" if meant else ""
        known = "" if meant or "/" in name else f"known providers: {', '.join(self.known)}; "
        return ProfileError(
            f"there is no provider `{without_password(name)}` (model `{shown}`){question}",
            hint=f"{known}if the colon is part of the model id, put the provider before it:"
            f" `{DEFAULT_PROVIDER}:{shown}`",
        )

    def _meant(self, name: str, model_name: str) -> str | None:
        """What the user may mean by an unknown provider: a known provider, or the model name with
        its colon in the right place."""
        first, slash, _ = name.partition("/")
        if slash:
            known = first in self.known
            return f"{first}:{without_password(model_name[len(first) + 1 :])}" if known else None
        by_case = {known.lower(): known for known in self.known}
        near = nearest(name.strip().lower(), by_case)
        return by_case[near] if near else None

    def faults(self, profile: Profile) -> Iterator[ProfileError]:
        """The errors in the model names of `profile`. Each error has the place."""
        return model_faults(profile, self.parse)

    def check(self, profile: Profile) -> None:
        """Raise ProfileError if a model name of `profile` is wrong, even if it is not used."""
        for fault in self.faults(profile):
            raise fault

    def price_faults(self) -> Iterator[ProfileError]:
        """The errors in the model names of the prices in the settings."""
        for model_name in self._config.prices:
            path = ("prices", model_name)
            try:
                self.parse(model_name)
            except ProfileError as error:
                yield ProfileError(
                    f"`{TOML.path(path)}`: {error.problem}",
                    place=self._config.place,
                    path=path,
                    hint=error.hint,
                )

    def key_source(self, provider: Provider) -> str | None:
        """The source of the provider's key, in words without the key; None if there is no key."""
        found = self._value_of(provider.key_variables)
        if found is None:
            return "api_key_cmd" if provider.key_command else None
        variable, _, kept = found
        return f"{variable} in {kept.file}" if kept else f"environment variable {variable}"

    def _value_of(self, variables: Sequence[str]) -> tuple[str, str, FoundKey | None] | None:
        """The first of these variables that is set, its value, and its .env file unless it is from
        the environment; None if none is set. The environment takes precedence over the files."""
        for variable in variables:
            if value := self._environment.get(variable, "").strip():
                return variable, value, None
        for variable in variables:
            if (kept := self._env_files.find(variable)) is not None:
                return variable, kept.value, kept
        return None

    def key_notice(self, provider: Provider) -> str | None:
        """A notice if the provider's key comes from the file in the working directory, or that file
        has another key; else None."""
        variable, _, kept = self._value_of(provider.key_variables) or ("", "", None)
        if kept is not None and kept.foreign:
            return f"the key of {provider.name} comes from the working directory: {kept.file}"
        if kept is not None and kept.differs:
            return (
                f"the key of {provider.name} comes from {kept.file};"
                f" the working directory's .env has another {variable}, which is ignored"
            )
        return None

    def key_notices(self, models: Iterable[str] | None = None) -> list[str]:
        """The notices on where keys come from; see `key_notice`.

        models: the models whose providers count; None for all known providers.
        """
        asked = (
            self.known.values()
            if models is None
            else dict.fromkeys(self.parse(model)[0] for model in models)
        )
        return [notice for provider in asked if (notice := self.key_notice(provider))]

    def key(self, provider: Provider) -> str:
        """The provider's key, or NO_KEY if it needs none.

        Raises AuthenticationFailed if there is no key, or the value cannot be a key.
        """
        if not provider.takes_key:
            return NO_KEY
        there = self._value_of(provider.key_variables)
        if there is not None:
            source, found, kept = there
            source += f" in {kept.file}" if kept else ""
        else:
            found = _run_key_command(provider).strip() if provider.key_command else ""
            source = "api_key_cmd"
        add_secret(found)
        _LOG.write("key", provider=provider.name, why=f"it is in {source}" if found else "none")
        if not found and provider.key_optional:
            return NO_KEY
        if not found and provider.key_command:
            raise AuthenticationFailed(
                f"there is no API key for {provider.name}: api_key_cmd printed nothing",
                hint="run that command in a shell, and see what it prints",
            )
        if not found:
            raise self.no_key(provider)
        if not found.isascii() or not found.isprintable() or set(found) & set(" \"'`"):
            raise AuthenticationFailed(
                f"{source}: what it holds cannot be an API key (spaces, quotes, line ends or"
                " letters outside ASCII)",
                hint="copy the key again, without quotes and line breaks",
            )
        return found

    def no_key(self, provider: Provider) -> AuthenticationFailed:
        """The error which says that no variable of the provider holds a key."""
        variable = provider.key_variables[0]
        trouble = self._env_files.trouble(variable)
        more = OF_ANOTHER if provider.name == DEFAULT_PROVIDER else ""
        return AuthenticationFailed(
            f"there is no API key for {provider.name}",
            hint=trouble
            or f"set {variable} in the environment or in a .env file,"
            f" or use a profile without it: `-p local`{more}",
        )

    def resolved(self, provider: Provider, part: Literal["headers", "query"]) -> dict[str, str]:
        """The headers or query parameters that the user has set, with the values of variables.

        From now on, the debug log hides headers, and parameters with a variable's value. Raises
        AuthenticationFailed if a variable is not set, or its value cannot be sent.
        """
        pairs: Pairs = getattr(provider, part)
        found = {}
        for name, text in pairs:
            place = TOML.path(("providers", provider.name, part, name))
            value = _REFERENCE.sub(partial(self._referred, place), text)
            if part == "headers" and not (value.isascii() and value.isprintable()):
                raise AuthenticationFailed(
                    f"`{place}`: the value of a variable holds line ends, or letters outside ASCII"
                )
            if part == "headers" or value != text:
                add_secret(value)
            found[name] = value
        return found

    def _referred(self, place: str, reference: re.Match[str]) -> str:
        found = self._value_of((reference[1],))
        if found is None:
            raise AuthenticationFailed(
                f"`{place}` needs the variable {reference[1]}, which is not set",
                hint=f"set {reference[1]} in the environment or in a .env file",
            )
        add_secret(found[1])
        return found[1]


def default_profile(config: Config, environment: Mapping[str, str]) -> str:
    """The name of the default profile: MOA_PROFILE, else that of the settings, else that of the
    first provider with a key, else that of the embedded model."""
    named = environment.get("MOA_PROFILE") or config.profile
    if named:
        return named
    known = Providers(config, environment)
    with_key = (name for name in DEFAULT_PROFILES if known.key_source(known.known[name]))
    return next(with_key, "local")


def _run_key_command(provider: Provider) -> str:
    failed = f"{provider.name}: api_key_cmd"
    try:
        # A shell command is intended here: the user wrote it in their own settings file.
        done = subprocess.run(  # noqa: S602
            provider.key_command or "",
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            # Bytes that are not text cannot be a key; the check of the key reports them.
            errors="replace",
            timeout=_KEY_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AuthenticationFailed(
            f"{failed} did not end in {_KEY_COMMAND_SECONDS} seconds"
        ) from None
    if done.returncode != 0:
        raise AuthenticationFailed(f"{failed} ended with status {done.returncode}")
    return done.stdout


def _is_elsewhere(provider: Provider, url: str) -> bool:
    """Whether the URL has another domain than the built-in provider. Always False for the providers
    in `_LONG_KNOWN`."""
    host = (_host_and_path(url)[0] or "").split(".")
    own = (_host_and_path(provider.base_url or "")[0] or "").split(".")
    return provider.name not in _LONG_KNOWN and own != [""] and host[-2:] != own[-2:]


def _host_and_path(url: str) -> tuple[str | None, str]:
    try:
        parts = urlsplit(url.strip())
        return parts.hostname, parts.path
    except ValueError:
        return None, "/"


def _base_url(url: str, default_path: str) -> tuple[str, Pairs]:
    """The URL without its last slash, and the parameters of its query.

    default_path: this path is added if the URL has none.
    """
    url, mark, query = url.strip().partition("?")
    if mark and ("#" in query or not query.isprintable()):
        return f"{url}?{query}", ()  # not a valid address, which the call will report
    url = url.rstrip("/")
    address = f"{url}{default_path}" if re.fullmatch(r"https?://[^/?#]+", url) else url
    return address, tuple(parse_qsl(query, keep_blank_values=True))


def _ollama_url(host: str) -> str:
    """The base URL for OLLAMA_HOST, which is read as Ollama does: scheme, port and path may be
    missing."""
    scheme, mark, rest = host.rpartition("://")
    address, slash, path = rest.strip("/").partition("/")
    port = "443" if scheme == "https" else "80" if mark else "11434"
    if address.count(":") > 1 and not address.startswith("["):
        name = f"[{address}]"  # IPv6 without brackets, so without a port
    else:
        found = re.fullmatch(r"(\[.*\]|[^:]*)(?::(\d*))?", address)
        name, port = (found[1], found[2] or port) if found else (address, port)
    if name in ("", "0.0.0.0", "[::]"):  # noqa: S104
        name = "127.0.0.1"  # a wildcard address to listen on, which no client can call
    return f"{scheme or 'http'}://{name}:{port}{slash}{path}/v1"
