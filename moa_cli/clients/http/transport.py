"""HTTP requests through aiohttp, over connections that are kept and used again
(docs/decisions/0017-one-transport.md).

This package chooses the proxy and the trusted authorities itself, by one rule for all commands,
because aiohttp knows neither `ALL_PROXY` nor `SSL_CERT_FILE`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from uuid import uuid4
from weakref import ref

from moa_cli.clients.http.certificates import tls_context
from moa_cli.clients.http.direct import DirectAnswer, DirectRoute, check_headers, is_plain, read_any
from moa_cli.clients.http.faults import (
    CONNECT_SECONDS,
    closes,
    dead_proxy,
    explain,
    explain_socks,
    not_http,
    reason_of,
    refused_by,
)
from moa_cli.clients.http.late_authorities import import_aiohttp
from moa_cli.clients.http.proxies import Proxy, find_proxy
from moa_cli.clients.transport import (
    BadAddress,
    BadSetting,
    NoConnection,
    RedirectLoop,
    Refused,
    TimedOut,
    TooLong,
    TransportError,
    Unreadable,
)
from moa_cli.clients.wire_messages import body_json
from moa_cli.core.installation import install_command

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

    from moa_cli.clients.http.resolver import Resolver

_KEPT_SECONDS = 45.0
_LOOKED_UP_SECONDS = 60
# Bytes of a body that aiohttp buffers while the reader is slower than the endpoint.
_MOST_KEPT = 1 << 18
_MOST_HEAD = 1 << 17
_PARSER: Mapping[str, Any] = {
    "read_bufsize": _MOST_KEPT,
    "max_line_size": _MOST_HEAD,
    "max_field_size": _MOST_HEAD,
}
# URLs of one endpoint whose `DirectRoute` is kept.
_MOST_PLACES = 256
# Most bytes of a list of models, which usually has far less than a megabyte, and of a refusal.
_MOST_LIST, _MOST_REFUSAL = 64 << 20, 1 << 20
_REFUSAL_SECONDS = 5.0
_MOST_REDIRECTS = 20
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
# Only these headers are sent along when a redirect leads to another host.
_HARMLESS = ("accept", "accept-encoding", "content-type", "user-agent")
_UNRESERVED = "/%:@!$&'()*+,;=~?-._[]"
_V = TypeVar("_V")


@dataclass(frozen=True)
class ServerOrigin:
    """Where a connection leads."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def load() -> None:
    """Import the modules that a request needs, which takes a tenth of a second."""
    import_aiohttp()
    import moa_cli.clients.http.resolver  # noqa: F401


class Connections:
    """The connections to one endpoint, grouped by SOCKS proxy; used by one event loop at a time.

    keep: whether a connection is used again for later requests.
    """

    def __init__(self, *, keep: bool = True) -> None:
        self._keep = keep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sessions: dict[Proxy | None, aiohttp.ClientSession] = {}
        self._tls: ssl.SSLContext | None = None
        self._names: Resolver | None = None
        # By host name: the time (monotonic clock) until which it need not be looked up again.
        self._looked_up: dict[str, float] = {}
        # By URL and SOCKS proxy.
        self._places: dict[tuple[URL, Proxy | None], DirectRoute] = {}
        # By connection: the answer that it carries now, or carried last.
        self._answers: dict[Any, ref[aiohttp.ClientResponse | DirectAnswer]] = {}

    async def ask(
        self, method: str, url: str, proxy: Proxy | None, headers: Mapping[str, str], body: bytes
    ) -> HttpAnswer:
        """Send a request; return its answer when the head has arrived. Raises a TransportError."""
        import_aiohttp()
        import aiohttp

        address = _address(url)
        origin = address.origin
        session = self._session(proxy)
        if proxy is not None and proxy.is_socks:
            await self.check_names(proxy, origin.host)
        ways: dict[str, Any] = {}
        if origin.scheme == "https":
            # In a thread, because the first call reads files.
            self._tls = self._tls or await asyncio.to_thread(tls_context)
            ways["ssl"] = self._tls
        if proxy is not None and not proxy.is_socks:
            ways["proxy"] = f"{proxy.scheme}://{_host(proxy.host)}:{proxy.port}"
            if proxy.credentials is not None:
                ways["proxy_auth"] = aiohttp.BasicAuth(*proxy.credentials)
        connection = _Connection()
        _CONNECTION.set(connection)
        place = None
        # An HTTP proxy needs requests of another form, which only the session writes.
        if "proxy" not in ways and is_plain(headers):
            through = proxy if proxy is not None and proxy.is_socks else None
            place = self._place(address.quoted, through, session)
            written = place.written(method, headers, body)
        else:
            check_headers(headers)

        def send() -> Any:
            if place is not None:
                return place.ask(written)
            return session.request(
                method,
                address.quoted,
                data=body or None,
                headers=headers,
                allow_redirects=False,
                **ways,
            )

        try:
            try:
                response = await send()
            except aiohttp.ServerDisconnectedError:
                # A server may close a kept connection at any time. That is no error, so the request
                # is sent again over a new one.
                if connection.opened:
                    raise
                response = await send()
        except Exception as error:
            raise _explained(error, proxy, origin, tunnel=origin.scheme == "https") from error
        self._watch(response)
        return HttpAnswer(response)

    def _place(
        self, url: URL, through: Proxy | None, session: aiohttp.ClientSession
    ) -> DirectRoute:
        place = self._places.get((url, through))
        if place is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            assert session.connector is not None
            tls = self._tls if url.scheme == "https" else None
            place = DirectRoute(url, session.connector, session.timeout, tls, _PARSER)
            self._places[url, through] = place
        return place

    def _watch(self, response: aiohttp.ClientResponse | DirectAnswer) -> None:
        """Make a reader of the body of `response` fail when its connection closes.

        aiohttp closes a connection whose framing breaks midway (a chunk without a length), but does
        not tell a waiting reader, who would wait for ever.
        """
        protocol = response.connection and response.connection.protocol
        if protocol is None:
            return
        if protocol not in self._answers and protocol.closed is not None:
            protocol.closed.add_done_callback(partial(self._closed, protocol))
        self._answers[protocol] = ref(response)

    def _closed(self, protocol: Any, closed: asyncio.Future[None]) -> None:
        import aiohttp

        if not closed.cancelled():
            # Reading the exception prevents asyncio's message that it was never retrieved.
            closed.exception()
        known = self._answers.pop(protocol, None)
        answer = None if known is None else known()
        if answer is None or answer.content.is_eof() or answer.content.exception() is not None:
            return
        answer.content.set_exception(aiohttp.ClientPayloadError("the connection was closed"))

    def _session(self, proxy: Proxy | None) -> aiohttp.ClientSession:
        import aiohttp

        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # The known sessions belong to another event loop, maybe one of the parent process
            # before a fork, so they cannot be used or closed here.
            self._loop, self._sessions = loop, {}
            self._places, self._answers = {}, {}
        through = proxy if proxy is not None and proxy.is_socks else None
        if through not in self._sessions:
            self._sessions[through] = aiohttp.ClientSession(
                connector=self._connector(through),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent",),
                **_PARSER,
            )
        return self._sessions[through]

    def _connector(self, through: Proxy | None) -> aiohttp.TCPConnector:
        import aiohttp

        common: dict[str, Any] = {"limit": 0, "force_close": not self._keep}
        if self._keep:
            common["keepalive_timeout"] = _KEPT_SECONDS
        if through is None:
            return aiohttp.TCPConnector(
                resolver=self._resolver(),
                ttl_dns_cache=_LOOKED_UP_SECONDS,
                socket_factory=_open_socket,
                **common,
            )
        try:
            from aiohttp_socks import ProxyConnector, ProxyType
        except ImportError:
            raise BadSetting(
                f"{through.variable}: for a SOCKS proxy, the package aiohttp-socks is missing",
                hint=f"install it with: {install_command('socks')}",
            ) from None
        user, password = through.credentials or (None, None)
        made: aiohttp.TCPConnector = ProxyConnector(
            host=through.host,
            port=through.port,
            proxy_type=ProxyType.SOCKS5,
            username=user,
            password=password,
            rdns=through.resolves,
            **common,
        )
        return made

    def _resolver(self) -> Resolver:
        from moa_cli.clients.http.resolver import Resolver

        self._names = self._names or Resolver()
        return self._names

    async def check_names(self, proxy: Proxy | None, host: str) -> None:
        """Check that the host names on the way to a host can be looked up in time.

        The package for SOCKS and Together's SDK look names up themselves, in threads that the
        process waits for when it ends. This check fails earlier, without such a thread. It passes
        for an unknown name, which they report themselves. Raises a TransportError.
        """
        from moa_cli.clients.http.resolver import LookupTimedOut

        names = [] if proxy is None else [proxy.host]
        if proxy is None or (proxy.is_socks and not proxy.resolves):
            names.append(host)
        for name in names:
            if time.monotonic() < self._looked_up.get(name, 0.0) or _is_address(name):
                continue
            try:
                await self._resolver().resolve(name)
            except LookupTimedOut as error:
                reason = NoConnection(reason_of(error))
                if proxy is not None and name == proxy.host:
                    raise dead_proxy(proxy, reason) from error
                raise reason from error
            except OSError:
                continue
            self._looked_up[name] = time.monotonic() + _LOOKED_UP_SECONDS

    async def warm(self, url: str) -> None:
        """Open a connection for the first request, with an OPTIONS request that holds no key.
        Raises a TransportError."""
        answer = await self.ask("OPTIONS", url, find_proxy(url), {"accept": "*/*"}, b"")
        await answer.read(_MOST_REFUSAL)

    async def aclose(self) -> None:
        """Close all connections."""
        sessions, self._sessions, self._places = list(self._sessions.values()), {}, {}
        for session in sessions:
            await session.close()


class _Connection:
    """Whether a request opened a new connection or used a kept one."""

    opened = False


_CONNECTION: ContextVar[_Connection] = ContextVar("connection")


def _open_socket(address: tuple[Any, ...]) -> socket.socket:
    """Open a socket as the connector would, and note it. Noted here, because aiohttp's own tracing
    takes 6 % of a server's time."""
    _CONNECTION.get(_Connection()).opened = True
    return socket.socket(*address[:3])


def _explained(
    error: Exception, proxy: Proxy | None, origin: ServerOrigin, *, tunnel: bool
) -> Exception:
    """Our exception for an error that a request raised before its answer began; the error itself if
    it is not known."""
    import aiohttp

    if isinstance(error, TransportError):
        return error
    if proxy is not None and proxy.is_socks:
        found = explain_socks(error, proxy, str(origin))
        if found is not None:
            return found
        proxy = None
    if proxy is not None and tunnel:
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return closes(proxy)
        if isinstance(error, aiohttp.ClientResponseError) and error.status in (0, 400):
            return not_http(proxy)
    return explain(error, proxy, str(origin)) or error


class _Body:
    """Iterates over the pieces of a body. Not a generator, because a reader who stops early would
    have to close it.

    most: bytes that it may have.
    """

    def __init__(self, response: aiohttp.ClientResponse | DirectAnswer, most: int | None) -> None:
        self._content = response.content
        self._most = most
        self._size = 0

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await read_any(self._content)
        except Exception as error:
            raise explain(error, None, "") or error from error
        if not piece:
            raise StopAsyncIteration
        self._size += len(piece)
        if self._most is not None and self._size > self._most:
            raise TooLong(self._most)
        return piece


class HttpAnswer:
    """An answer over aiohttp. headers: names in any case. moved: the address of a redirect that has
    lost the key or the body of the request, or ""."""

    moved = ""

    def __init__(self, response: aiohttp.ClientResponse | DirectAnswer) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.content_type = response.headers.get("Content-Type", "")

    @property
    def ended(self) -> bool:
        """Whether the body has been read to its end."""
        return self._response.content.at_eof()

    def chunks(self, most: int | None = None) -> AsyncIterator[bytes]:
        """The pieces of the body as they arrive, after its content encoding is decoded.

        most: the limit in bytes; None for no limit. Raises Broken, Unreadable or TooLong.
        """
        return _Body(self._response, most)

    async def read(self, most: int | None = None) -> bytes:
        """The whole body. Raises as `chunks` does."""
        return b"".join([piece async for piece in self.chunks(most)])

    async def read_start(self, most: int, seconds: float) -> bytes:
        """The part of the body that arrives within this time; errors are ignored."""
        pieces: list[bytes] = []
        with suppress(TransportError, TimeoutError):
            async with asyncio.timeout(seconds):
                async for piece in self.chunks(most):
                    pieces.append(piece)
        return b"".join(pieces)

    async def aclose(self) -> None:
        """End the answer; closes the connection if the body has not been received to its end."""
        self._response.close()


class HttpTransport:
    """One endpoint; belongs to one event loop.

    key: sent as a bearer token, unless it is "" or the URL holds a user name and password. headers:
    sent with every request. connections: the connections to use; by default, new ones.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        headers: Mapping[str, str],
        connections: Connections | None = None,
    ) -> None:
        self._base_url, credentials = _without_credentials(base_url.rstrip("/"))
        told = f"Basic {credentials}" if credentials else f"Bearer {key}" if key else ""
        self._headers = {
            **({"authorization": told} if told else {}),
            "accept": "text/event-stream, application/json",
            "accept-encoding": "gzip, deflate",
            **_lower(headers),
        }
        self._json_headers = {**self._headers, "content-type": "application/json"}
        self._connections = connections or Connections()

    async def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> HttpAnswer:
        """Send a JSON body. Raises Refused for a bad status, else another
        TransportError.

        path: the part after the base URL, beginning with a slash. headers: further headers for this
        request.
        """
        sent = {**self._json_headers, **_lower(headers)} if headers else self._json_headers
        data = body_json(body)
        answer = await send(self._connections, "POST", self._base_url + path, sent, data)
        await _check(answer)
        return answer

    async def send_batch_file(self, path: str, file: Path) -> object:
        """Send a file of requests for a batch job to a path; returns the parsed JSON of the answer.
        Raises as `post` does, and OSError."""
        mark = uuid4().hex
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )

        def form() -> bytes:
            # In a function of its own, so that no second copy of the file stays in memory while it
            # is sent.
            return b"".join([head.encode(), file.read_bytes(), f"\r\n--{mark}--\r\n".encode()])

        body = await asyncio.to_thread(form)
        sent = {**self._headers, "content-type": f"multipart/form-data; boundary={mark}"}
        answer = await send(self._connections, "POST", self._base_url + path, sent, body)
        await _check(answer)
        return json.loads(await answer.read(_MOST_LIST))

    async def open(self, path: str) -> HttpAnswer:
        """The answer to a GET request, whose body the caller reads. Raises as `post` does."""
        answer = await send(self._connections, "GET", self._base_url + path, self._headers)
        await _check(answer)
        return answer

    async def get(self, path: str, seconds: float, headers: Mapping[str, str | None]) -> object:
        """The parsed JSON at a path, received within this number of seconds. Raises as `post` does.

        headers: further headers for this request; None as a value omits a usual header.
        """
        merged = {**self._headers, **_lower(headers)}
        sent = {name: value for name, value in merged.items() if value is not None}
        # Before the time starts: it is for the endpoint, not for loading the client on a busy
        # machine.
        load()
        try:
            async with asyncio.timeout(seconds):
                answer = await send(self._connections, "GET", self._base_url + path, sent)
                try:
                    await _check(answer)
                    return json.loads(await answer.read(_MOST_LIST))
                finally:
                    await answer.aclose()
        except TimeoutError:
            raise TimedOut from None
        except (ValueError, RecursionError) as error:
            raise Unreadable from error

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connections.aclose()


async def send(
    connections: Connections, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
) -> HttpAnswer:
    """Send a request, and follow the endpoint's redirects.

    headers: names in lower case; a redirect to another host gets only the headers that reveal
    nothing of the user. Raises a TransportError.
    """
    moved = ""
    for _ in range(_MOST_REDIRECTS + 1):
        origin = _address(url).origin
        proxy = find_proxy(url)
        answer = await connections.ask(method, url, proxy, headers, body)
        answer.moved = moved
        if 200 <= answer.status < 300:
            return answer
        if answer.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED and proxy is not None:
            await answer.aclose()
            raise refused_by(proxy, 407, str(origin))
        if answer.status == HTTPStatus.SWITCHING_PROTOCOLS:
            await answer.aclose()
            raise Unreadable
        target = answer.headers.get("location", "")
        if answer.status not in _REDIRECTS or not target:
            return answer
        await answer.aclose()
        url = _joined(url, target)
        if _address(url).origin != origin:
            headers = {name: value for name, value in headers.items() if name in _HARMLESS}
            moved = url
        if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
            method, body, moved = "GET", b"", url
    raise RedirectLoop


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, quote(target, safe=_UNRESERVED + "#"))
    except ValueError as error:
        raise BadAddress from error


def _split(url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        address.port  # noqa: B018 (reading the port checks it)
    except ValueError as error:
        raise BadAddress from error
    if address.scheme not in _PORTS or not address.hostname:
        raise BadAddress
    return address


def _origin(address: SplitResult) -> ServerOrigin:
    host = address.hostname or ""
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError as error:
            raise BadAddress from error
    return ServerOrigin(address.scheme, host, address.port or _PORTS[address.scheme])


@dataclass(frozen=True)
class _Address:
    """A parsed web address. quoted: the URL as it is requested; the quoted target of a redirect is
    not quoted again."""

    origin: ServerOrigin
    quoted: URL


@lru_cache(maxsize=256)
def _address(url: str) -> _Address:
    """The parsed address of a URL. Cached, because most calls of a process go to the same few
    addresses. Raises BadAddress."""
    from yarl import URL

    parts = _split(url)
    origin = _origin(parts)
    path = quote(parts.path or "/", safe=_UNRESERVED)
    query = quote(parts.query, safe=_UNRESERVED)
    port = f":{parts.port}" if parts.port else ""
    host = _host(origin.host)
    quoted = f"{origin.scheme}://{host}{port}{path}{f'?{query}' if query else ''}"
    return _Address(origin, URL(quoted, encoded=True))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _lower(headers: Mapping[str, _V]) -> dict[str, _V]:
    return {name.lower(): value for name, value in headers.items()}


def _without_credentials(url: str) -> tuple[str, str]:
    """The URL without user name and password, and these two encoded for HTTP basic authentication.

    They are sent instead of the key.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, ""
    if parts.username is None:
        return url, ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return plain.geturl(), b64encode(pair.encode()).decode()


async def _check(answer: HttpAnswer) -> None:
    """Raise Refused for a status of 300 or more. A redirect gets here only if it has no target."""
    if answer.status < 300:
        return
    try:
        # The status alone is enough to report, so a body that breaks off or does not end is no
        # error.
        raw = await answer.read_start(_MOST_REFUSAL, _REFUSAL_SECONDS)
    finally:
        await answer.aclose()
    # A body with a NUL character is not text: its content encoding was not decoded.
    text = "" if b"\0" in raw else raw.decode("utf-8", "replace")
    try:
        body: object = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    raise Refused(answer.status, body, answer.headers, answer.moved)
