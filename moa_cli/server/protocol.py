"""HTTP/1.1 by uvicorn and httptools, with the bounds that they lack."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from moa_cli.server.joined import JoinedWrites

__all__ = ["BoundedProtocol"]

# For the head of a request, from the connection or its first byte on.
_HEAD_SECONDS = 20.0
_LARGEST_HEAD = 65_536


class BoundedProtocol(HttpToolsProtocol):
    """A connection whose client cannot hold it, or fill the memory, by never ending a head."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._late: asyncio.TimerHandle | None = None
        self._head_size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(JoinedWrites(transport))
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """It has sent something."""
        if self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        super().data_received(data)
        if self._late is not None:
            self._head_size += len(data)
            if self._head_size > _LARGEST_HEAD and not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_came()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._head_came()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._head_size = 0
        self._late = self.loop.call_later(_HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _head_came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
