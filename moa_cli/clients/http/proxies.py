"""Which proxy a request uses, by the variables of the environment: one rule for every command.

The variables are those of curl and httpx: `HTTPS_PROXY` or `HTTP_PROXY` by the scheme of the
address, else `ALL_PROXY`; the name in lower case comes first; `NO_PROXY` excludes hosts. A request
to this machine never uses a proxy.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote, urlsplit

from moa_cli.clients.transport import BadSetting
from moa_cli.models.providers import is_loopback

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_EXPECTED = "set it to a URL such as http://host:3128 or socks5h://host:1080, or unset it"


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable that names it.

    credentials: user name and password, if the variable has them.
    """

    scheme: str
    host: str
    port: int
    variable: str
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Its address, for messages, without the credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{'***@' if self.credentials else ''}{host}:{self.port}"

    @property
    def url(self) -> str:
        """Its address with the credentials, for other HTTP clients."""
        login = ":".join(quote(part, safe="") for part in self.credentials or ())
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{login}{'@' if login else ''}{host}:{self.port}"

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS5, not HTTP."""
        return self.scheme.startswith("socks")

    @property
    def resolves(self) -> bool:
        """Whether the proxy resolves host names itself."""
        return self.scheme != "socks5"


def find_proxy(url: str, environment: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy for a web address; None for a direct connection.

    Raises BadSetting, naming the variable, if its value is not the address of a usable proxy. There
    is no direct connection in that case: a request that was meant for the proxy must not bypass it.
    """
    environment = os.environ if environment is None else environment
    if is_loopback(url):
        return None
    address = urlsplit(url)
    for name in (f"{address.scheme}_proxy", "all_proxy"):
        variable, value = _setting(name, environment)
        if value:
            excepted = _setting("no_proxy", environment)[1]
            return None if _is_excepted(address, excepted) else _parsed(variable, value)
    return _of_the_system(address)


def _setting(name: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """The variable that is set, with its name in lower or upper case, and its value."""
    # In a CGI script, HTTP_PROXY is ignored: it holds the header `Proxy` of a request, which
    # anybody can send.
    names = (
        [name]
        if name == "http_proxy" and "REQUEST_METHOD" in environment
        else [
            name,
            name.upper(),
        ]
    )
    for variable in names:
        # An empty variable in lower case disables the one in upper case.
        if variable in environment:
            return variable, environment[variable].strip()
    return name, ""


def _parsed(variable: str, value: str) -> Proxy:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, SplitResult("http", "", "", "", "")
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise BadSetting(
            f"{variable}: proxies with {scheme}:// are not supported",
            hint="use http://, https://, socks5:// or socks5h://, or unset it",
        )
    if not host or re.search(r"\s", host):
        # The value may hold a password, so the message does not repeat it.
        raise BadSetting(f"{variable}: is not the address of a proxy", hint=_EXPECTED)
    credentials = None
    if parts.username is not None:
        credentials = (unquote(parts.username), unquote(parts.password or ""))
    return Proxy(scheme, host, port or _PORTS[scheme], variable, credentials)


def _of_the_system(address: SplitResult) -> Proxy | None:
    """The proxy in the settings of the operating system, on macOS and Windows."""
    if sys.platform in ("darwin", "win32"):
        from urllib.request import getproxies, proxy_bypass

        value = getproxies().get(address.scheme)
        if value and not proxy_bypass(address.hostname or ""):
            return _parsed("the system's proxy settings", value)
    return None


def _is_excepted(address: SplitResult, entries: str) -> bool:
    """Whether the entries of NO_PROXY hold the address.

    An entry is `*` for everything, a network (10.0.0.0/8), or a host or an IP address, these two
    with or without a port. A host includes its subdomains; it may begin with a dot or `*.`.
    """
    host = (address.hostname or "").rstrip(".").lower()
    port = address.port or _PORTS.get(address.scheme)
    return any(_is_match(entry, host, port) for entry in re.split(r"[,\s]+", entries) if entry)


def _is_match(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    entry = entry.lower().partition("://")[2] or entry.lower()
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        ip = None
    if ip is not None:
        try:
            return ip in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass
    name, colon, told = entry.rpartition(":")
    if colon and told.isdigit():
        if int(told) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*").strip(".")
    if ip is not None:
        try:
            return ipaddress.ip_address(entry) == ip
        except ValueError:
            return False
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))
