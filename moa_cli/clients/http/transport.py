"""HTTP as transport, through aiohttp: requests to one endpoint over connections that are kept
(docs/decisions/0017-one-transport.md).

Which proxy a request takes and which authorities are trusted is decided here, by one rule for all
commands, and not by aiohttp, which knows neither `ALL_PROXY` nor `SSL_CERT_FILE`.
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
# What is kept of a body that nobody reads as fast as it comes.
_MOST_KEPT = 1 << 18
_MOST_HEAD = 1 << 17
_PARSER: Mapping[str, Any] = {
    "read_bufsize": _MOST_KEPT,
    "max_line_size": _MOST_HEAD,
    "max_field_size": _MOST_HEAD,
}
# Addresses of one endpoint.
_MOST_PLACES = 256
# Bytes of a list of models, which are far below a megabyte as a rule, and of a refusal.
_MOST_LIST, _MOST_REFUSAL = 64 << 20, 1 << 20
_REFUSAL_SECONDS = 5.0
_MOST_REDIRECTS = 20
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
# The headers that go along to another host than the one that was asked.
_HARMLESS = ("accept", "accept-encoding", "content-type", "user-agent")
_UNRESERVED = "/%:@!$&'()*+,;=~?-._[]"
_V = TypeVar("_V")


@dataclass(frozen=True)
class ServerOrigin:
    """What a connection leads to."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def load() -> None:
    """Import what a request needs; it takes a tenth of a second."""
    import_aiohttp()
    import moa_cli.clients.http.resolver  # noqa: F401


class Connections:
    """Connections of one endpoint, by the SOCKS proxy that they take; used by one event loop at a
    time.

    keep: whether one is used again.
    """

    def __init__(self, *, keep: bool = True) -> None:
        self._keep = keep
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sessions: dict[Proxy | None, aiohttp.ClientSession] = {}
        self._tls: ssl.SSLContext | None = None
        self._names: Resolver | None = None
        # Until when (by the monotonic clock) a name need not be looked up again.
        self._looked_up: dict[str, float] = {}
        # By address, and by the SOCKS proxy on the way.
        self._places: dict[tuple[URL, Proxy | None], DirectRoute] = {}
        # What comes over each connection that is open, or came over it last.
        self._answers: dict[Any, ref[aiohttp.ClientResponse | DirectAnswer]] = {}

    async def ask(
        self, method: str, url: str, proxy: Proxy | None, headers: Mapping[str, str], body: bytes
    ) -> HttpAnswer:
        """Send a request; return its answer when the head has come. Raises a TransportError."""
        import_aiohttp()
        import aiohttp

        address = _address(url)
        origin = address.origin
        session = self._session(proxy)
        if proxy is not None and proxy.is_socks:
            await self.check_names(proxy, origin.host)
        ways: dict[str, Any] = {}
        if origin.scheme == "https":
            # It reads files, the first time.
            self._tls = self._tls or await asyncio.to_thread(tls_context)
            ways["ssl"] = self._tls
        if proxy is not None and not proxy.is_socks:
            ways["proxy"] = f"{proxy.scheme}://{_host(proxy.host)}:{proxy.port}"
            if proxy.credentials is not None:
                ways["proxy_auth"] = aiohttp.BasicAuth(*proxy.credentials)
        connection = _Connection()
        _CONNECTION.set(connection)
        place = None
        # A proxy of HTTP is asked in words of its own.
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
                # A server may close a connection that was kept at any time, which says nothing.
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
        """See to it that whoever reads the body of `response` is told when its connection closes.

        aiohttp closes one whose framing breaks midway (a chunk without a length), and tells no
        reader that waits: it would wait for ever.
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
            # Else it would be said that nobody asked for it.
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
            # Those of another loop, maybe of the process that this was forked from, are not ours.
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
        """See to it that the names on the way to a host can be looked up in time.

        For what looks names up itself, in threads that the end of the process waits for: the
        package for SOCKS, and Together's SDK. A name that is unknown is left to them.
        Raises a TransportError.
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
        """Open a connection for the first request, by one that asks nothing and tells nobody's key.
        Raises a TransportError."""
        answer = await self.ask("OPTIONS", url, find_proxy(url), {"accept": "*/*"}, b"")
        await answer.read(_MOST_REFUSAL)

    async def aclose(self) -> None:
        """Close them all."""
        sessions, self._sessions, self._places = list(self._sessions.values()), {}, {}
        for session in sessions:
            await session.close()


class _Connection:
    """Whether a connection was opened for a request, or one was used again."""

    opened = False


_CONNECTION: ContextVar[_Connection] = ContextVar("connection")


def _open_socket(address: tuple[Any, ...]) -> socket.socket:
    """As the connector would, and noted; aiohttp's own tracing takes 6 % of a server's time."""
    _CONNECTION.get(_Connection()).opened = True
    return socket.socket(*address[:3])


def _explained(
    error: Exception, proxy: Proxy | None, origin: ServerOrigin, *, tunnel: bool
) -> Exception:
    """One of our exceptions for what a request raised before its answer began; else the error."""
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
    """The pieces of a body. Not a generator, which whoever stops reading would have to close.

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
    """An answer as aiohttp holds it. headers: by their names in any case."""

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
        """The body as it comes, decoded from what it was sent in.

        most: bytes that it may have. Raises Broken, Unreadable or TooLong.
        """
        return _Body(self._response, most)

    async def read(self, most: int | None = None) -> bytes:
        """The whole body. Raises as `chunks` does."""
        return b"".join([piece async for piece in self.chunks(most)])

    async def read_start(self, most: int, seconds: float) -> bytes:
        """As much of the body as comes in so many seconds, whatever becomes of the rest."""
        pieces: list[bytes] = []
        with suppress(TransportError, TimeoutError):
            async with asyncio.timeout(seconds):
                async for piece in self.chunks(most):
                    pieces.append(piece)
        return b"".join(pieces)

    async def aclose(self) -> None:
        """End it; the connection is closed if the body has not come to its end."""
        self._response.close()


class HttpTransport:
    """One endpoint; belongs to one event loop.

    key: sent as a bearer's token, unless it is "" or the URL holds a user name and password.
    headers: of every request. connections: those to use; else its own.
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

        path: after the base URL, beginning with a slash. headers: of this request, beside the
        usual ones.
        """
        sent = {**self._json_headers, **_lower(headers)} if headers else self._json_headers
        data = body_json(body)
        answer = await send(self._connections, "POST", self._base_url + path, sent, data)
        await _check(answer)
        return answer

    async def send_batch_file(self, file: Path) -> object:
        """Send a file of requests for a batch job; returns the parsed JSON that answers it. Raises
        as `post` does, and OSError."""
        mark = uuid4().hex
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )

        def form() -> bytes:
            # No second copy of the file stays in memory while it is sent.
            return b"".join([head.encode(), file.read_bytes(), f"\r\n--{mark}--\r\n".encode()])

        body = await asyncio.to_thread(form)
        sent = {**self._headers, "content-type": f"multipart/form-data; boundary={mark}"}
        answer = await send(self._connections, "POST", f"{self._base_url}/files", sent, body)
        await _check(answer)
        return json.loads(await answer.read(_MOST_LIST))

    async def open(self, path: str) -> HttpAnswer:
        """What stands there, to be read as it comes. Raises as `post` does."""
        answer = await send(self._connections, "GET", self._base_url + path, self._headers)
        await _check(answer)
        return answer

    async def get(self, path: str, seconds: float, headers: Mapping[str, str | None]) -> object:
        """The parsed JSON there, within so many seconds. Raises as `post` does.

        headers: of this request; None leaves out a usual one.
        """
        merged = {**self._headers, **_lower(headers)}
        sent = {name: value for name, value in merged.items() if value is not None}
        # The time is for the endpoint, not for a busy machine that loads the client.
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
    """Send a request, to where the endpoint redirects if it does.

    headers: by their names in lower case; to another host go only those that say nothing of the
    user. Raises a TransportError.
    """
    for _ in range(_MOST_REDIRECTS + 1):
        origin = _address(url).origin
        proxy = find_proxy(url)
        answer = await connections.ask(method, url, proxy, headers, body)
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
        if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
            method, body = "GET", b""
    raise RedirectLoop


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, quote(target, safe=_UNRESERVED + "#"))
    except ValueError as error:
        raise BadAddress from error


def _split(url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        address.port  # noqa: B018 (it is checked when it is read)
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
    """A web address that was read. quoted: as it is asked for; what an endpoint redirects to is
    not quoted a second time."""

    origin: ServerOrigin
    quoted: URL


@lru_cache(maxsize=256)
def _address(url: str) -> _Address:
    """Raises BadAddress. Most calls of a process go to a few addresses, over and over."""
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
    """The URL without user name and password, and these as HTTP's basic authentication has them.

    They take the key's place.
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
    """Raise Refused for a status that brings no answer: 400 or more, or a redirect to nowhere."""
    if answer.status < 300:
        return
    try:
        # The status tells enough: a body that breaks off, or does not end, takes nothing from it.
        raw = await answer.read_start(_MOST_REFUSAL, _REFUSAL_SECONDS)
    finally:
        await answer.aclose()
    text = raw.decode("utf-8", "replace")
    try:
        body: object = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    raise Refused(answer.status, body, answer.headers)
