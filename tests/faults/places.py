"""Endpoints that cannot be reached, or not in the usual way: addresses, TLS, proxies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.faults.endpoint import Endpoint
from tests.faults.fault import Fault
from tests.faults.script import page
from tests.support.network import AUTHORITY, HttpProxy, Relay, SocksProxy, nobody, tls

# A host that does not exist: only a proxy leads there.
HOST = "api.example.test"


@dataclass(frozen=True)
class Place:
    """Where an endpoint is, and what the environment says."""

    url: str
    environment: Mapping[str, str] = field(default_factory=dict)


def _fault(name: str, does: str, error: str, reads: str, *, again: bool = False) -> Fault:
    return Fault(name=name, does=does, at=name, error=error, reads=reads, again=again, requests=0)


UNREACHABLE: list[Fault] = [
    _fault(
        "refused",
        "its port refuses connections",
        "ConnectionLost",
        "lab: no connection to HOST (refused)",
    ),
    _fault(
        "unknown host",
        "its host is not known",
        "ConnectionLost",
        "lab: no connection to no-such-host.invalid (unknown host)",
    ),
    _fault(
        "no address",
        "its address is none",
        "RequestRefused",
        "lab: the base URL is not a web address",
    ),
    _fault(
        "call in address",
        "its address ends in the path of a call",
        "RequestRefused",
        "lab: the base URL ends in /chat/completions, which moa adds itself",
    ),
]
TLS: list[Fault] = [
    _fault(
        "plain HTTP",
        "speaks plain HTTP where TLS is meant",
        "ConnectionLost",
        "lab: no connection to HOST (TLS failed: the server does not use TLS)",
    ),
    _fault(
        "TLS",
        "speaks TLS where plain HTTP is meant",
        "ConnectionLost",
        "lab: the connection to HOST broke",
        again=True,
    ),
    _fault(
        "self-signed",
        "a certificate of an unknown authority",
        "ConnectionLost",
        "lab: no connection to HOST (TLS failed: its certificate is signed by"
        " an authority that is not in SSL_CERT_FILE)",
    ),
    _fault(
        "expired",
        "a certificate that has expired",
        "ConnectionLost",
        "lab: no connection to HOST (TLS failed: its certificate has expired)",
    ),
    _fault(
        "other host",
        "a certificate for another host",
        "ConnectionLost",
        "lab: no connection to HOST (TLS failed: its certificate is for another host)",
    ),
]
PROXIES: list[Fault] = [
    _fault(
        "dead proxy",
        "a proxy that refuses connections",
        "ConnectionLost",
        "lab: HTTP_PROXY: the proxy http://HOST refuses connections",
    ),
    _fault(
        "unknown proxy",
        "a proxy whose host is not known",
        "ConnectionLost",
        "lab: HTTP_PROXY: the proxy http://no-such-host.invalid:3128 is an unknown host",
    ),
    _fault(
        "no proxy",
        "a proxy whose address is none",
        "ConnectionLost",
        "lab: HTTP_PROXY: is not the address of a proxy",
    ),
    _fault(
        "proxy 407",
        "a proxy that wants a login",
        "ConnectionLost",
        "lab: HTTP_PROXY: the proxy http://HOST requires a user name and password (407)",
    ),
    _fault(
        "proxy 403",
        "a proxy that gives no tunnel",
        "ConnectionLost",
        "lab: HTTPS_PROXY: the proxy http://HOST did not connect to"
        " api.example.test:443 (403 Forbidden)",
    ),
    _fault(
        "proxy 503",
        "a proxy that gives no tunnel now",
        "ConnectionLost",
        "lab: HTTPS_PROXY: the proxy http://HOST did not connect to"
        " api.example.test:443 (503 Service Unavailable)",
        again=True,
    ),
    _fault(
        "proxy page",
        "a proxy that answers with a web page",
        "BadResponse",
        "the endpoint answered with a web page, not with a completion",
    ),
    _fault(
        "proxy closes",
        "a proxy that closes the connection",
        "ConnectionLost",
        "lab: HTTPS_PROXY: the proxy http://HOST closes the connection",
    ),
    _fault(
        "proxy no HTTP",
        "a proxy that does not support HTTP",
        "ConnectionLost",
        "lab: HTTPS_PROXY: the proxy http://HOST does not support HTTP",
    ),
    _fault(
        "SOCKS refuses",
        "a SOCKS proxy whose rules forbid it",
        "ConnectionLost",
        "lab: HTTP_PROXY: the proxy socks5h://HOST did not connect to"
        " api.example.test:80 (its rules do not allow it)",
    ),
    _fault(
        "SOCKS HTTP",
        "a SOCKS proxy that speaks HTTP",
        "ConnectionLost",
        "lab: HTTP_PROXY: the proxy socks5h://HOST does not support SOCKS5",
    ),
]


class _Page(Relay):
    """A proxy that answers with a web page, whatever it is asked for."""

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"".join(step for step in page("Sign in", 200) if isinstance(step, bytes)))
        await writer.drain()


class _Closes(Relay):
    """One that closes each connection."""

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")


class _Refuses(Relay):
    """One of HTTP, to a client that does not speak that."""

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()


class _Mumbles(Relay):
    """One that answers with what is no HTTP."""

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello\r\n\r\n")
        await writer.drain()


@contextmanager
def place_of(name: str, endpoint: Endpoint, folder: Path) -> Iterator[Place]:
    """The place of that name, in front of the endpoint. folder: for files."""
    if name == "":
        yield Place(endpoint.url)
        return
    file = folder / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(file))
    trusted = {"SSL_CERT_FILE": str(file)}
    with ExitStack() as stack:

        def behind(context: ssl.SSLContext) -> int:
            return stack.enter_context(Relay(endpoint.url, tls=context)).port

        def through(proxy: str, scheme: str = "http") -> Place:
            return Place(f"{scheme}://{HOST}/v1", {f"{scheme.upper()}_PROXY": proxy})

        def proxy(**more: object) -> str:
            made = stack.enter_context(HttpProxy(endpoint.url, **more))  # type: ignore[arg-type]
            return f"http://127.0.0.1:{made.port}"

        def odd(kind: type[Relay], scheme: str) -> str:
            return f"{scheme}://127.0.0.1:{stack.enter_context(kind(endpoint.url)).port}"

        match name:
            case "refused":
                yield Place(f"http://127.0.0.1:{nobody()}/v1")
            case "unknown host":
                yield Place("https://no-such-host.invalid/v1")
            case "no address":
                yield Place("lab.example/v1")
            case "call in address":
                yield Place(f"{endpoint.url}/chat/completions")
            case "plain HTTP":
                yield Place(f"https://127.0.0.1:{endpoint.port}/v1")
            case "TLS":
                yield Place(f"http://127.0.0.1:{behind(tls('127.0.0.1'))}/v1")
            case "self-signed":
                port = behind(tls("127.0.0.1", authority=trustme.CA()))
                yield Place(f"https://127.0.0.1:{port}/v1", trusted)
            case "expired":
                yield Place(
                    f"https://127.0.0.1:{behind(tls('127.0.0.1', expired=True))}/v1", trusted
                )
            case "other host":
                yield Place(f"https://127.0.0.1:{behind(tls('other.example'))}/v1", trusted)
            case "dead proxy":
                yield through(f"http://127.0.0.1:{nobody()}")
            case "unknown proxy":
                yield through("http://no-such-host.invalid:3128")
            case "no proxy":
                yield through("http://:x")
            case "proxy 407":
                yield through(proxy(refuses=407))
            case "proxy 403":
                yield through(proxy(refuses=403), "https")
            case "proxy 503":
                yield through(proxy(refuses=503), "https")
            case "proxy page":
                yield through(odd(_Page, "http"))
            case "proxy closes":
                yield through(odd(_Closes, "http"), "https")
            case "proxy no HTTP":
                yield through(odd(_Mumbles, "http"), "https")
            case "SOCKS refuses":
                socks = stack.enter_context(SocksProxy(endpoint.url, refuses=2))
                yield through(f"socks5h://127.0.0.1:{socks.port}")
            case "SOCKS HTTP":
                yield through(odd(_Refuses, "socks5h"))
            case _:
                raise AssertionError(name)
