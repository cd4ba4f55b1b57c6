"""Lets `huggingface_hub` use our connections, with the same proxies (also SOCKS), the same trusted
authorities and the same error messages as all our requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, TypeVar

from moa_cli.clients.http.faults import refused_by
from moa_cli.clients.http.proxies import find_proxy
from moa_cli.clients.http.transport import Connections, HttpAnswer
from moa_cli.clients.transport import Broken, NoConnection, TimedOut, Unreadable

_T = TypeVar("_T")


@contextmanager
def hub_connections(http: Any) -> Iterator[None]:
    """Inside the block, the library sends its requests over our connections. A process may be
    inside only once at a time.

    A connection that cannot be made or that breaks raises an error of the library's HTTP client,
    with ours as `__cause__`, so that the library can resume a transfer. A wrong setting raises
    BadSetting or BadAddress, which the library does not catch.

    http: the HTTP client's module, whose name differs between releases of the library.
    """
    from huggingface_hub import close_session, set_client_factory

    with asyncio.Runner() as runner:
        loop, connections = runner.get_loop(), Connections()

        def wait_for(step: Awaitable[_T], request: Any) -> _T:
            seconds = request.extensions.get("timeout", {}).get("read")
            try:
                return loop.run_until_complete(_within(seconds, step))
            except (TimeoutError, TimedOut) as error:
                raise http.ReadTimeout("no answer in time", request=request) from error
            except (Broken, Unreadable) as error:
                raise http.RemoteProtocolError("the answer ended early", request=request) from error
            except NoConnection as error:
                raise http.ConnectError(error.reason, request=request) from error

        class Body(http.SyncByteStream):  # type: ignore[misc]
            def __init__(self, answer: HttpAnswer, request: Any) -> None:
                self._answer, self._request = answer, request

            def __iter__(self) -> Iterator[bytes]:
                pieces = self._answer.chunks()
                while (piece := wait_for(_next(pieces), self._request)) is not None:
                    yield piece

            def close(self) -> None:
                loop.run_until_complete(self._answer.aclose())

        class Transport(http.BaseTransport):  # type: ignore[misc]
            def handle_request(self, request: Any) -> Any:
                address = str(request.url)
                proxy = find_proxy(address)
                # Our connections set the host and the length themselves.
                headers = {
                    name: value
                    for name, value in request.headers.items()
                    if name not in ("host", "content-length", "connection")
                }
                asked = connections.ask(request.method, address, proxy, headers, request.read())
                answer = wait_for(asked, request)
                if answer.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED and proxy is not None:
                    raise refused_by(proxy, answer.status, request.url.host)
                told = [
                    (name, value)
                    for name, value in answer.headers.items()
                    # Our connections have already decoded the body.
                    if name.lower() != "content-encoding"
                ]
                return http.Response(answer.status, headers=told, stream=Body(answer, request))

        set_client_factory(
            lambda: http.Client(transport=Transport(), follow_redirects=True, timeout=None)
        )
        try:
            yield
        finally:
            close_session()
            loop.run_until_complete(connections.aclose())


async def _within(seconds: float | None, step: Awaitable[_T]) -> _T:
    async with asyncio.timeout(seconds):
        return await step


async def _next(pieces: Any) -> bytes | None:
    piece: bytes | None = await anext(pieces, None)
    return piece
