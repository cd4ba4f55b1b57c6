"""What carries requests to an endpoint: the SDK as a rule, aiohttp where many are in flight.

A transport maps what its library raises to the few exceptions of this file, by class
(`Transport.explain`). So nothing above it knows the exceptions of httpx, the SDK or aiohttp.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol


class TransportError(Exception):
    """Why a request has no whole answer. Its `__cause__` is what the library raised."""


class Refused(TransportError):
    """An answer with a status of 400 or more. body: parsed JSON, or text."""

    def __init__(self, status: int, body: object, headers: Mapping[str, str]) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.headers = headers


class ErrorObject(TransportError):
    """An error object under a good status, or in a stream.

    payload: the object, or a text. begun: whether the endpoint had begun to answer.
    """

    def __init__(self, payload: object, *, begun: bool = False) -> None:
        super().__init__("error object")
        self.payload = payload
        self.begun = begun


class TimedOut(TransportError):
    """No connection, or no answer, in time."""


class BadAddress(TransportError):
    """The base URL is not a web address."""


class RedirectLoop(TransportError):
    """The endpoint redirects without end."""


class NoConnection(TransportError):
    """No connection could be made. reason: in a few words, or "" if unknown."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Broken(TransportError):
    """The connection broke."""


class Unreadable(TransportError):
    """What was received is not what HTTP or JSON allow."""


# Our exception for each of a library's, the most specific first.
ErrorTable = Sequence[tuple[type[TransportError], tuple[type[BaseException], ...]]]


def classify(error: Exception, table: ErrorTable) -> TransportError | None:
    """The first exception of `table` that the error, or one of its causes, is an instance of."""
    causes = _causes(error)
    for ours, theirs in table:
        if any(isinstance(cause, theirs) for cause in causes):
            return NoConnection(_reason(causes)) if ours is NoConnection else ours()
    return None


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _reason(causes: list[BaseException]) -> str:
    # Attempts at several addresses are reported in one text, without the exceptions themselves.
    # aiohttp mentions its TLS settings also where nothing is wrong with them.
    text = " ".join(map(str, causes)).lower().replace("ssl:default", "")

    def is_about(kind: type[BaseException], *phrases: str) -> bool:
        by_class = any(isinstance(cause, kind) for cause in causes)
        return by_class or any(phrase in text for phrase in phrases)

    if is_about(ssl.SSLError, "certificate", "ssl"):
        return "TLS failed"
    if is_about(socket.gaierror, "name or service", "nodename", "getaddrinfo"):
        return "unknown host"
    if is_about(ConnectionRefusedError, "refused", "all connection attempts"):
        return "refused"
    return ""


class Answer(Protocol):
    """An answer whose body is still to come. content_type: as in its header."""

    status: int
    headers: Mapping[str, str]
    content_type: str

    @property
    def ended(self) -> bool:
        """Whether the body is known to have been read to its end."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, decoded from what it was sent in."""

    async def read(self) -> bytes:
        """The whole body."""

    async def aclose(self) -> None:
        """End it; the connection is closed if the body has not been read to its end."""


class Transport(Protocol):
    """Requests to one endpoint, and what went wrong with them."""

    async def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        """Send a JSON body. Raises Refused for a bad status, else a TransportError or what the
        library raises.

        path: after the base URL, beginning with a slash. headers: of this request, beside the
        usual ones.
        """

    async def get(self, path: str, seconds: float, headers: Mapping[str, str | None]) -> object:
        """The parsed JSON there, within so many seconds. Raises as `post` does.

        headers: of this request; None leaves out a usual one.
        """

    def explain(self, error: Exception) -> TransportError | None:
        """One of the exceptions above for what `post`, `get` or an answer raised; None if it is
        none of the library's."""

    async def aclose(self) -> None:
        """Close all connections."""


# base URL, key ("": none is sent as `Authorization`), headers beside the usual ones
OpenTransport = Callable[[str, str, Mapping[str, str]], Transport]
