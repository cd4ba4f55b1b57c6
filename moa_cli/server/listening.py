"""The socket that a server listens on."""

from __future__ import annotations

import ipaddress
import socket
import sys

from moa_cli.core.errors import MoAError, UsageError
from moa_cli.server.service import ServerOptions

_STALL_MILLISECONDS = 90_000


def listen(options: ServerOptions) -> socket.socket:
    """A socket that is bound to the options' host and port.

    Raises UsageError where others could reach it without a key, MoAError if it cannot be had.
    """
    family, address = _resolve(options.host, options.port)
    loopback = ipaddress.ip_address(address[0]).is_loopback
    if not loopback and not options.keys and not options.insecure:
        raise UsageError(
            f"without a key, anybody who reaches {options.host} could spend your money",
            hint="set MOA_SERVE_API_KEY or --api-key-file, or pass --insecure",
        )
    if "*" in options.origins and not options.keys and not options.insecure:
        raise UsageError(
            "without a key, any web page could spend your money",
            hint="set MOA_SERVE_API_KEY or --api-key-file, or name the pages that may call",
        )
    # With the protocol told, the event loop turns off Nagle's algorithm on its connections: it
    # would hold single tokens back.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            # A connection whose client takes nothing is given up, also after its last byte.
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALL_MILLISECONDS)
        found.bind(address)
    except OSError as error:
        found.close()
        raise MoAError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror}",
            hint="choose another --port; 0 takes any that is free",
        ) from None
    return found


def _resolve(host: str, port: int) -> tuple[int, tuple[str, int]]:
    """The numeric address of a host, IPv4 if it has one."""
    try:
        known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError(f"--host: there is no address for {host!r}") from None
    known.sort(key=lambda address: address[0] != socket.AF_INET)
    family, _, _, _, address = known[0]
    return family, (str(address[0]), port)
