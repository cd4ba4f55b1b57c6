"""Maps errors of aiohttp and aiohttp-socks to the exceptions of `clients.transport`."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from contextlib import suppress
from http import HTTPStatus

from moa_cli.clients.http.certificates import why_untrusted
from moa_cli.clients.http.proxies import Proxy
from moa_cli.clients.transport import (
    BadAddress,
    BadSetting,
    Broken,
    NoConnection,
    TransportError,
    Unreadable,
)

# Seconds for opening a connection: the name lookup, an attempt at each address, and the TLS
# handshake.
CONNECT_SECONDS = 10.0
# The error codes of a SOCKS proxy (RFC 1928).
_SOCKS_REFUSALS = {
    1: "it failed",
    2: "its rules do not allow it",
    3: "the network cannot be reached",
    4: "the host cannot be reached",
    5: "the host refuses connections",
    6: "it took too long",
}


def explain(error: Exception, proxy: Proxy | None, place: str) -> TransportError | None:
    """Our exception for an error of aiohttp; None for any other error.

    proxy: the proxy of the request. place: the host and port that the request was for.
    """
    import aiohttp

    if isinstance(error, aiohttp.ClientHttpProxyError) and proxy is not None:
        return refused_by(proxy, error.status, place)
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return BadAddress()
    if isinstance(error, TimeoutError):
        # Only opening a connection has a time limit in aiohttp; the time for the answer is limited
        # elsewhere.
        late = NoConnection(f"none within {CONNECT_SECONDS:g} s")
        return late if proxy is None else _late(proxy, place)
    untrusted = _tls_error(error)
    if untrusted is not None:
        return NoConnection(*why_untrusted(untrusted))
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = NoConnection(reason_of(error.os_error))
        # If the name of the proxy cannot be looked up, only the host shows that the error is about
        # the proxy.
        at_proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
        if proxy is not None and (at_proxy or error.host == proxy.host):
            return dead_proxy(proxy, reason)
        return reason
    if isinstance(error, aiohttp.ClientPayloadError):
        # A body that cannot be decoded was received; any other error here means that the body was
        # cut off.
        return unreadable(error) if "content-encoding" in str(error).lower() else Broken()
    if isinstance(error, aiohttp.ClientResponseError | ValueError):
        return unreadable(error)
    if isinstance(error, aiohttp.ClientError | OSError):
        return Broken()
    return None


def unreadable(error: Exception) -> Unreadable:
    """Our exception for an answer that aiohttp cannot read, with the content encoding that it
    names: `brotli (br)`, `gzip`."""
    found = re.search(r"content-encoding: (?:\w+ \()?([\w-]+)", str(error), re.IGNORECASE)
    return Unreadable(found.group(1) if found else "")


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    found: BaseException | None = error
    while found is not None:
        for inner in (found, getattr(found, "os_error", None), *found.args):
            certificate = getattr(inner, "certificate_error", None)
            if isinstance(certificate, ssl.SSLError):
                return certificate
            if isinstance(inner, ssl.SSLError):
                return inner
        found = found.__cause__
    return None


def explain_socks(error: Exception, proxy: Proxy, place: str) -> TransportError | None:
    """Our exception for an error of aiohttp-socks; None for any other error."""
    import aiohttp_socks

    if isinstance(error.__cause__, aiohttp_socks.ProxyConnectionError):
        # Before python-socks 3 this error is an OSError, so aiohttp wraps it in an error of its
        # own.
        error = error.__cause__
    if isinstance(error, aiohttp_socks.ProxyTimeoutError | TimeoutError):
        return _late(proxy, place)
    if isinstance(error, aiohttp_socks.ProxyConnectionError):
        return dead_proxy(proxy, NoConnection(reason_of(error.__cause__ or error)))
    if not isinstance(error, aiohttp_socks.ProxyError):
        return None
    said = str(error).lower()
    refusal = _SOCKS_REFUSALS.get(error.error_code or 0)
    if refusal is not None:
        return BadSetting(
            f"{proxy.variable}: the proxy {proxy} did not connect to {place} ({refusal})",
            hint=f"correct {proxy.variable}, or put the host into NO_PROXY",
            retryable=error.error_code in (1, 3, 4, 6),
        )
    if "auth" in said:
        return wants_login(proxy)
    if "closed" in said:
        return closes(proxy)
    return BadSetting(
        f"{proxy.variable}: the proxy {proxy} does not support SOCKS5",
        hint=f"correct {proxy.variable}: is it an HTTP proxy?",
    )


def _late(proxy: Proxy, place: str) -> BadSetting:
    return BadSetting(
        f"{proxy.variable}: the proxy {proxy} did not connect to {place} in time",
        hint=f"correct {proxy.variable}, or unset it",
    )


def closes(proxy: Proxy) -> BadSetting:
    """The proxy has closed the connection to it."""
    return BadSetting(
        f"{proxy.variable}: the proxy {proxy} closes the connection",
        hint=f"does it support {proxy.scheme}? Correct {proxy.variable}, or unset it",
    )


def not_http(proxy: Proxy) -> BadSetting:
    """The answer of the proxy is not HTTP."""
    return BadSetting(
        f"{proxy.variable}: the proxy {proxy} does not support HTTP",
        hint=f"correct {proxy.variable}: is it a SOCKS proxy?",
    )


def reason_of(error: BaseException) -> str:
    """Why a connection could not be made, in a few words; "" if that is not known."""
    from moa_cli.clients.http.resolver import LOOKUP_SECONDS, LookupTimedOut

    if isinstance(error, LookupTimedOut):
        return f"no name server returned its address within {LOOKUP_SECONDS:g} s"
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return "unknown host: no name server could be reached"
    # The error for attempts at several addresses is only a text, without the single errors.
    text = str(error).lower()
    if isinstance(error, socket.gaierror | UnicodeError):
        return "unknown host"
    if isinstance(error, ConnectionRefusedError) or "refused" in text or "connect call" in text:
        return "refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "it was closed at once"
    if getattr(error, "errno", None) in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return "it cannot be reached from this network"
    return ""


def dead_proxy(proxy: Proxy, error: NoConnection) -> BadSetting:
    """No connection to the proxy itself could be made."""
    reason = {
        "refused": "refuses connections",
        "unknown host": "is an unknown host",
        "": "cannot be reached",
    }.get(error.reason, f"cannot be reached ({error.reason})")
    hint = error.hint or f"start it, correct {proxy.variable}, or unset it"
    return BadSetting(f"{proxy.variable}: the proxy {proxy} {reason}", hint=hint)


def refused_by(proxy: Proxy, status: int, place: str) -> BadSetting:
    """An HTTP proxy has answered with this status, instead of the server at `place`."""
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return wants_login(proxy)
    with suppress(ValueError):
        status_text = f"{status} {HTTPStatus(status).phrase}"
        return BadSetting(
            f"{proxy.variable}: the proxy {proxy} did not connect to {place} ({status_text})",
            hint=f"correct {proxy.variable}, or put the host into NO_PROXY",
            retryable=status >= 500,
        )
    return BadSetting(f"{proxy.variable}: the proxy {proxy} answered with status {status}")


def wants_login(proxy: Proxy) -> BadSetting:
    """The proxy requires a login that is missing, or refuses the given one."""
    if proxy.credentials:
        problem = "refuses the user name and password (407)"
    else:
        problem = "requires a user name and password (407)"
    if proxy.is_socks:
        problem = problem.removesuffix(" (407)")
    return BadSetting(
        f"{proxy.variable}: the proxy {proxy} {problem}",
        hint=f"set {proxy.variable} to {proxy.scheme}://USER:PASSWORD@{proxy.host}:{proxy.port}",
    )
