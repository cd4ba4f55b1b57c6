"""Requests that are written straight to a connection.

Connections come from aiohttp's connector, and its parser reads the answers. What its session does
in between (redirects, cookies, tracing, a task that writes) is not needed here, and takes as much
time as all the rest of a small call.

The only file that relies on these internals of aiohttp; `tests/test_others_internals.py` holds
what it relies on, and `pyproject.toml` pins the minor release:

- `BaseConnector.connect` takes from a `ClientRequest` nothing but where it leads, so that one
  serves all requests to the same place;
- a `Connection` has a `protocol`: its `set_response_params` begins an answer, and its `read`
  returns the head (with `code` and `headers`) and the body;
- `Connection.release` keeps the connection if the answer has come to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from moa_cli.clients.transport import Unreadable

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

# What a session would look at; such a request is left to one.
_SPECIAL = frozenset(("connection", "content-length", "expect", "transfer-encoding", "upgrade"))


class DirectAnswer:
    """An answer whose head has come.

    Attributes:
        status: Its status.
        headers: By their names in any case.
        content: The body.
        connection: What it comes over; None once it has come to its end, or was closed.
    """

    def __init__(self, message: Any, content: Any, connection: Any) -> None:
        self.status: int = message.code
        self.headers: Mapping[str, str] = message.headers
        self.content = content
        self.connection = connection
        content.on_eof(self._ended)

    def _ended(self) -> None:
        connection = self.connection
        if connection is not None and not connection.protocol.upgraded:
            self.connection = None
            connection.release()

    def close(self) -> None:
        """End it; the connection is closed unless the body has come to its end."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self.content.exception() is None:
            import aiohttp

            self.content.set_exception(aiohttp.ClientConnectionError("Connection closed"))
        connection.close()


class Place:
    """What requests to one address over one connector have in common.

    timeout: of a connection that is opened. options: of the parser of answers.
    """

    def __init__(
        self,
        url: URL,
        connector: aiohttp.BaseConnector,
        timeout: aiohttp.ClientTimeout,
        ssl: Any,
        options: Mapping[str, Any],
    ) -> None:
        import aiohttp

        self._connector = connector
        self._timeout = timeout
        self._options = options
        loop = asyncio.get_running_loop()
        self._way = aiohttp.ClientRequest("GET", url, loop=loop, ssl=ssl or True)
        self._target = url.raw_path_qs
        self._host = f"host: {url.host_port_subcomponent}\r\n"

    async def ask(self, method: str, headers: Mapping[str, str], body: bytes) -> DirectAnswer:
        """Send a request; return its answer when the head has come. Raises what aiohttp does, or
        Unreadable."""
        connection = await self._connector.connect(self._way, [], self._timeout)
        try:
            protocol, transport = connection.protocol, connection.transport
            assert protocol is not None
            assert transport is not None
            protocol.set_response_params(read_until_eof=True, **self._options)
            transport.write(self._head(method, headers, body) + body)
            message, content = await protocol.read()
            while message.code < HTTPStatus.OK and message.code != HTTPStatus.SWITCHING_PROTOCOLS:
                message, content = await protocol.read()
        except BaseException as error:
            connection.close()
            if isinstance(error, Exception) and _is_no_http(error):
                raise Unreadable from error
            raise
        return DirectAnswer(message, content, connection)

    def _head(self, method: str, headers: Mapping[str, str], body: bytes) -> bytes:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        host = "" if "host" in headers else self._host
        length = f"content-length: {len(body)}\r\n" if body or method == "POST" else ""
        return f"{method} {self._target} HTTP/1.1\r\n{host}{lines}{length}\r\n".encode()


def _is_no_http(error: Exception) -> bool:
    from aiohttp.http_exceptions import HttpProcessingError

    return isinstance(error, HttpProcessingError)


def is_plain(headers: Mapping[str, str]) -> bool:
    """Whether a request with these headers, in lower case, may be sent by `Place`."""
    return _SPECIAL.isdisjoint(headers)
