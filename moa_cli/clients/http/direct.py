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
- `Connection.release` keeps the connection if the answer has come to its end;
- a body (`StreamReader`) holds what has come as pieces in `_buffer`, and `_wait` returns when there
  is more.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moa_cli.clients.transport import BadSetting, Unreadable

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

# What a session would look at; such a request is left to one.
_BREAK = re.compile(r"[\r\n\0]")
_MOST_HEADS = 16
# As numbers: the members of an enumeration take longer to find.
_SWITCHING = 101
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


async def read_any(content: aiohttp.StreamReader) -> bytes:
    """All that has come of a body and was not read yet; waits for some if there is none, and is
    empty at its end.

    The same as its own `readany`, which takes each piece by itself, and looks each time whether the
    connection is to be read again. An endpoint's server sends each token as a piece.
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
        self._heads: dict[tuple[object, ...], bytes] = {}
        self._host = f"host: {url.host_port_subcomponent}\r\n"

    async def ask(self, written: bytes) -> DirectAnswer:
        """Send a request, see `written`; return its answer when the head has come. Raises what
        aiohttp does, or Unreadable."""
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
                raise Unreadable from error
            raise
        return DirectAnswer(message, content, connection)

    def written(self, method: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """A request as it is sent. headers: by their names in lower case. Raises BadSetting."""
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
