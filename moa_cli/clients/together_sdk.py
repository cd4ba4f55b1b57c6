"""Calls through Together's SDK that only Together has: the list of its models with prices, and
files for batch jobs.

This is the only file that names the SDK. It imports the SDK inside the call, because the import
takes 0.4 s, and no answer of a model should wait for it.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from moa_cli.clients import transport
from moa_cli.clients.http.certificates import tls_context, why_untrusted
from moa_cli.clients.http.faults import dead_proxy, refused_by
from moa_cli.clients.http.proxies import Proxy, find_proxy
from moa_cli.clients.http.transport import Connections, HttpTransport
from moa_cli.clients.transport import BadSetting, NoConnection, Refused, TransportError
from moa_cli.core.endpoints import NO_KEY

if TYPE_CHECKING:
    import httpx
    from together import AsyncTogether

# What the SDK by itself tells of this machine, and of the agent that runs the command.
_OF_THE_MACHINE = ("OS", "Arch", "Runtime", "Runtime-Version", "Agent")
# Seconds that each step of sending a file may take.
_FILE_SECONDS = 600.0


def custom_headers() -> dict[str, str]:
    """The headers of `TOGETHER_CUSTOM_HEADERS`, one on each line, as the SDK reads them."""
    told = os.environ.get("TOGETHER_CUSTOM_HEADERS", "")
    pairs = (line.split(":", 1) for line in told.split("\n") if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


class TogetherTransport(HttpTransport):
    """Together's endpoint. Lists and files go through the SDK, completions as for other
    endpoints."""

    def __init__(
        self,
        base_url: str,
        key: str,
        headers: Mapping[str, str],
        connections: Connections | None = None,
    ) -> None:
        super().__init__(base_url, key, headers, connections)
        self._sdk_url, self._key, self._sdk_headers = base_url, key, headers

    async def get(self, path: str, seconds: float, headers: Mapping[str, str | None]) -> object:
        """The parsed JSON at a path; see `HttpTransport.get`.

        The request uses the same proxy and the same certificates as all other requests.
        """
        proxy = find_proxy(self._sdk_url)
        if proxy is not None and proxy.is_socks:
            # The SDK does not support SOCKS proxies.
            return await super().get(path, seconds, headers)
        async with self._sdk(proxy, self._sdk_url, seconds) as sdk:
            from together import Omit

            sent = {name: Omit() if value is None else value for name, value in headers.items()}
            # The SDK's own `models.list()` returns the models of a project, without prices.
            listed: object = await sdk.get(path, cast_to=object, options={"headers": sent})
        return listed

    async def send_batch_file(self, path: str, file: Path) -> object:
        """See `HttpTransport`. Together receives a file in three steps, which the SDK carries
        out."""
        proxy = find_proxy(self._sdk_url)
        if proxy is not None and proxy.is_socks:
            raise BadSetting(
                f"{proxy.variable}: Together's SDK, which sends the file, takes no SOCKS proxy",
                hint="use another proxy, or leave out --provider-batch",
            )
        # Without the version, because the SDK adds it to the paths that it knows itself.
        base_url = self._sdk_url.rstrip("/").removesuffix("/v1")
        async with self._sdk(proxy, base_url, _FILE_SECONDS) as sdk:
            sent = await sdk.files.upload(file, purpose="batch-api", check=False)
        return {"id": sent.id}

    @asynccontextmanager
    async def _sdk(
        self, proxy: Proxy | None, base_url: str, seconds: float
    ) -> AsyncIterator[AsyncTogether]:
        """The SDK, with the same proxy and the same certificates as all other requests. Inside the
        block, its errors are raised as ours."""
        await self._connections.check_names(proxy, urlsplit(self._sdk_url).hostname or "")
        # Before the SDK is loaded, so that a wrong setting is reported at once.
        trusted = tls_context() if self._sdk_url.startswith("https") else True
        from together import AsyncTogether, DefaultAsyncHttpxClient, Omit

        async def keep_headers(request: httpx.Request) -> None:
            # Where a redirect leads to another host, httpx takes out the key, but not our headers.
            if request.url.netloc != sdk.base_url.netloc:
                for name in self._sdk_headers:
                    request.headers.pop(name, None)

        # The value Omit makes the SDK leave a header out. It requires a key, also where there is
        # none.
        unsent = [f"X-Stainless-{name}" for name in _OF_THE_MACHINE]
        unsent += [] if self._key else ["Authorization"]
        usual = {**self._sdk_headers, **dict.fromkeys(unsent, Omit())}
        with _explained(proxy):
            async with AsyncTogether(
                api_key=self._key or NO_KEY,
                base_url=base_url,
                max_retries=0,
                timeout=seconds,
                default_headers=cast("Mapping[str, str]", usual),
                http_client=DefaultAsyncHttpxClient(
                    proxy=proxy.url if proxy else None,
                    verify=trusted,
                    trust_env=False,
                    event_hooks={"request": [keep_headers]},
                ),
            ) as sdk:
                yield sdk


@contextmanager
def _explained(proxy: Proxy | None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        known = explain(error, proxy)
        if known is None:
            raise
        raise known from error


# Each of our exceptions with the libraries' exceptions that it replaces, the most specific first.
_Table = Sequence[tuple[type[TransportError], tuple[type[BaseException], ...]]]


def explain(error: Exception, proxy: Proxy | None = None) -> TransportError | None:
    """Our exception for an error of the SDK or of httpx; None for any other error."""
    import httpx
    import together

    if isinstance(error, together.APIStatusError):
        return Refused(error.status_code, error.body or error.message, error.response.headers)
    if isinstance(error, httpx.HTTPStatusError):
        return Refused(error.response.status_code, None, error.response.headers)
    if isinstance(error, together.APIError) and isinstance(error.body, Mapping):
        return transport.ErrorObject(error.body)
    table: _Table = (
        (transport.TimedOut, (httpx.TimeoutException, together.APITimeoutError, TimeoutError)),
        (transport.BadAddress, (httpx.InvalidURL, httpx.UnsupportedProtocol)),
        (transport.RedirectLoop, (httpx.TooManyRedirects,)),
        (NoConnection, (httpx.ConnectError, httpx.ProxyError, ConnectionRefusedError)),
        (transport.Unreadable, (httpx.DecodingError, httpx.CookieConflict, ValueError)),
        (transport.Unreadable, (together.APIResponseValidationError,)),
        (
            transport.Broken,
            (httpx.HTTPError, httpx.StreamError, together.APIConnectionError, OSError),
        ),
    )
    causes = transport.causes_of(error)
    for ours, theirs in table:
        if any(isinstance(cause, theirs) for cause in causes):
            return _no_connection(causes, proxy) if ours is NoConnection else ours()
    return None


def _no_connection(causes: list[BaseException], proxy: Proxy | None) -> TransportError:
    # The error for attempts at several addresses is only a text, without the single exceptions.
    text = " ".join(map(str, causes)).lower()

    def is_about(kind: type[BaseException], *phrases: str) -> bool:
        by_class = any(isinstance(cause, kind) for cause in causes)
        return by_class or any(phrase in text for phrase in phrases)

    untrusted = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if untrusted is not None:
        return NoConnection(*why_untrusted(untrusted))
    reason = ""
    if is_about(ssl.SSLError, "certificate", "ssl"):
        reason = "TLS failed"
    elif is_about(socket.gaierror, "name or service", "nodename", "getaddrinfo"):
        reason = "unknown host"
    elif is_about(ConnectionRefusedError, "refused", "all connection attempts"):
        reason = "refused"
    if proxy is None:
        return NoConnection(reason)
    if "407" in text:
        return refused_by(proxy, 407, "")
    return dead_proxy(proxy, NoConnection(reason))
