"""Prevents loops: a server must not call itself, neither directly nor through other servers.

Each server has an id. The header `X-Moa-Via` of its calls holds the ids of all servers that the
request has passed through. A request that holds the server's own id is refused.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from moa_cli.observability.tracing import trace_headers
from moa_cli.server.errors import ApiError

HEADER = "x-moa-via"
_LONGEST_CHAIN = 4
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_via: ContextVar[str] = ContextVar("via", default="")
USUAL_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """Where this server listens. host: a numeric address. id: the id of this server."""

    host: str
    port: int
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def url(self) -> str:
        """The base URL for a client on this machine."""
        address = ipaddress.ip_address(self.host)
        loopback = "127.0.0.1" if address.version == 4 else "::1"
        host = loopback if address.is_unspecified else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    def is_at(self, url: str) -> bool:
        """Whether `url` leads to this server, as far as that is known without a name lookup."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or USUAL_PORTS.get(parts.scheme)
        except ValueError:
            return False
        if port != self.port:
            return False
        own = ipaddress.ip_address(self.host)
        if is_loopback_host(host) or host in ("0.0.0.0", "::"):  # noqa: S104
            return own.is_loopback or own.is_unspecified
        if own.is_loopback:
            return False
        name = socket.gethostname().lower()
        if host.lower().rstrip(".") in (name, name.partition(".")[0]):
            return True
        return host == self.host or (own.is_unspecified and _is_own(host))


def _is_own(host: str) -> bool:
    """Whether a numeric address belongs to this machine: only such an address can be bound."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except (ValueError, OSError):
        return False
    return True


def is_loopback_host(host: str) -> bool:
    """Whether a host name or numeric address certainly is this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def travelled(header: str, own: str) -> None:
    """Store, for the calls of the running task, which servers its request has passed through.

    header: the request's `X-Moa-Via`. own: this server's id. Raises ApiError for a loop. Its status
    is not 5xx, because the calling server would retry that.
    """
    chain = [server.strip() for server in header.split(",") if server.strip()]
    if own in chain or len(chain) >= _LONGEST_CHAIN:
        raise ApiError(
            400,
            "this request has already passed through this server: a profile leads back to it",
            code="loop_detected",
        )
    _via.set(", ".join([*(server for server in chain if _ID.fullmatch(server)), own]))


def upstream_headers() -> Mapping[str, str]:
    """The headers of an upstream call of the running task."""
    via = _via.get()
    return {HEADER: via, **trace_headers()} if via else trace_headers()
