"""What carries requests to an endpoint: the SDK as a rule, aiohttp where many are in flight."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

__all__ = ["Answer", "OpenTransport", "Refused", "Transport"]


class Refused(Exception):
    """An answer with a status of 400 or more. body: parsed JSON, or text."""

    def __init__(self, status: int, body: object, headers: Mapping[str, str]) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.headers = headers


class Answer(Protocol):
    """An answer whose body is still to come. content_type: as in its header."""

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
    """Requests to one endpoint. Raises Refused, or exceptions of its own (see `Faults`)."""

    async def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        """Send a JSON body. path: after the base URL, beginning with a slash. headers: of this
        request, beside the usual ones."""

    async def get(self, path: str, seconds: float) -> object:
        """The parsed JSON there, within so many seconds."""

    async def aclose(self) -> None:
        """Close all connections."""


# base URL, key, headers beside the usual ones
OpenTransport = Callable[[str, str, Mapping[str, str]], Transport]
