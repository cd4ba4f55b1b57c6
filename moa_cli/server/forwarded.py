"""Finds the address of a client, also behind trusted proxies that report it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from moa_cli.core.errors import UsageError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# Most entries of the list that are read; no real chain of proxies is longer.
_LONGEST_CHAIN = 32


def trusted(option: str, given: Iterable[str]) -> tuple[Network, ...]:
    """The networks and single addresses in an option's values. Raises UsageError."""
    found = []
    for text in given:
        try:
            found.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError:
            raise UsageError(
                f"{option}: {text!r} is neither an address nor a network",
                hint="such as 10.0.0.7 or 10.0.0.0/8",
            ) from None
    return tuple(found)


def client_of(peer: str, forwarded: Sequence[str], proxies: Sequence[Network]) -> str:
    """The address of a client.

    Each proxy appends the address of its own client to `X-Forwarded-For`. So the list is read from
    its end, as long as a trusted proxy wrote the entry. Earlier entries may be forged.

    peer: the other end of the connection. forwarded: the values of the header's lines, in order.
    """
    chain = [hop.strip() for line in forwarded for hop in line.split(",")][-_LONGEST_CHAIN:]
    client = peer
    while chain and _is_trusted(client, proxies):
        told = _address(chain.pop())
        if told is None:
            break
        client = str(told)
    return client


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, with or without a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_trusted(host: str, proxies: Sequence[Network]) -> bool:
    address = _address(host)
    return address is not None and any(address in network for network in proxies)
