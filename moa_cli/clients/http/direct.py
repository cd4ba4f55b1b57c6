"""Writes requests directly to a connection.

Connections come from aiohttp's connector, and aiohttp's parser reads the answers. The work of
aiohttp's session between these two (redirects, cookies, tracing, a task that writes) is not needed
here, and takes as much time as all the rest of a small call.

This is the only file that relies on the following internals of aiohttp.
`tests/test_others_internals.py` tests them, and `pyproject.toml` pins the minor release:

- `BaseConnector.connect` reads only the destination from a `ClientRequest`, so one `ClientRequest`
  serves all requests to the same place;
- a `Connection` has a `protocol`: its `set_response_params` begins an answer, and its `read`
  returns the head (with `code` and `headers`) and the body;
- `Connection.release` keeps the connection if the answer was received to its end;
- a body (`StreamReader`) holds the received pieces in `_buffer`, and `_wait` returns when there is
  more.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moa_cli.clients.http.faults import unreadable
from moa_cli.clients.transport import BadSetting

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

# Characters that could end a header early.
_BREAK = re.compile(r"[\r\n\0]")
_MOST_HEADS = 16
# A plain number, because the lookup of an enumeration's member takes longer.
_SWITCHING = 101
# A request with one of these headers is sent by aiohttp's session, which acts on them.
_SPECIAL = frozenset(("connection", "content-length", "expect", "transfer-encoding", "upgrade"))


class DirectAnswer:
    """An answer whose head has arrived.

    Attributes:
        status: The HTTP status.
        headers: Names in any case.
        content: The body.
        connection: The connection; None after the answer's end, or after `close`.
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
        """End the answer; closes the connection unless the body was received to its end."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self.content.exception() is None:
            import aiohttp

            self.content.set_exception(aiohttp.ClientConnectionError("Connection closed"))
        connection.close()


async def read_any(content: aiohttp.StreamReader) -> bytes:
    """The received bytes of a body that were not read yet. Waits if there are none; returns b"" at
    the end of the body.

    Returns the same as aiohttp's `readany`, but faster: `readany` takes the pieces one by one and
    checks each time whether to resume reading the connection, and an endpoint sends each token as a
    piece.
    """
    import aiohttp

    if content is aiohttp.EMPTY_PAYLOAD:
        return b""
    pieces = content._buffer
    while not pieces and not content.is_eof() and content.exception() is None:
        await content._wait("read_any")
    if len(pieces) > 1:
        joined = b"".join(pieces)
        pieces.clear()
        pieces.append(joined)
    return await content.readany()


class DirectRoute:
    """The common part of all requests to one URL over one connector.

    timeout: for opening a connection. options: for the parser of answers.
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
        self._heads: dict[tuple[object, ...], bytes] = {}
        self._host = f"host: {url.host_port_subcomponent}\r\n"

    async def ask(self, written: bytes) -> DirectAnswer:
        """Send a request that `written` returned; returns its answer when the head has arrived.
        Raises the errors of aiohttp, or Unreadable."""
        connection = await self._connector.connect(self._way, [], self._timeout)
        try:
            protocol, transport = connection.protocol, connection.transport
            assert protocol is not None
            assert transport is not None
            protocol.set_response_params(read_until_eof=True, **self._options)
            transport.write(written)
            message, content = await protocol.read()
            while message.code < 200 and message.code != _SWITCHING:
                message, content = await protocol.read()
        except BaseException as error:
            connection.close()
            if isinstance(error, Exception) and _is_no_http(error):
                raise unreadable(error) from error
            raise
        return DirectAnswer(message, content, connection)

    def written(self, method: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """The bytes of a request. headers: names in lower case. Raises BadSetting."""
        # Most requests of a process to one address have the same headers.
        known = (method, *headers.items())
        head = self._heads.get(known)
        if head is None:
            check_headers(headers)
            lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
            host = "" if "host" in headers else self._host
            head = f"{method} {self._target} HTTP/1.1\r\n{host}{lines}".encode()
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[known] = head
        if not body and method != "POST":
            return head + b"\r\n"
        return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


def _is_no_http(error: Exception) -> bool:
    from aiohttp.http_exceptions import HttpProcessingError

    return isinstance(error, HttpProcessingError)


def is_plain(headers: Mapping[str, str]) -> bool:
    """Whether a request with these headers, in lower case, may be sent by `DirectRoute`."""
    return _SPECIAL.isdisjoint(headers)


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise BadSetting for a header that could end early and begin another one."""
    if _BREAK.search("".join([*headers, *headers.values()])) is None:
        return
    name = next(name for name, value in headers.items() if _BREAK.search(f"{name}{value}"))
    raise BadSetting(f"the header {name!r} holds a line break")
