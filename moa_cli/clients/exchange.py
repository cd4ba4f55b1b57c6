"""One request and its answer in the debug log."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping

from moa_cli.clients.transport import causes_of
from moa_cli.core import debug_log

_LOG = debug_log.RoomLog("moa.clients")
_NUMBERS = itertools.count(1)


class Exchange:
    """The log entries of one request, which share its number. Nothing is added if the log has no
    handler.

    wanted: whether the log has a handler. watch: to be called with the name and the data of each
    event of a stream; None without a handler, so that tokens cost no time.
    """

    def __init__(self, url: str) -> None:
        self._number = next(_NUMBERS)
        self._url = url
        self._began = time.monotonic()
        self.wanted = _LOG.enabled
        self.watch: Callable[[str, str], None] | None = self._event if self.wanted else None

    def add(self, what: str, *, data: str | None = None, **values: object) -> None:
        """Add an entry with some values; see `RoomLog.write`."""
        if self.wanted:
            seconds = time.monotonic() - self._began
            url = self._url if what == "request" else None
            _LOG.write(what, data=data, number=self._number, url=url, seconds=seconds, **values)

    def answered(
        self, what: str, status: int, headers: Mapping[str, str], body: object = None
    ) -> None:
        """Log the head of an answer. body: the body of a refusal."""
        if self.wanted:
            told = debug_log.masked_headers(headers)
            self.add(what, status=status, headers=told, body=body)

    def _event(self, name: str, data: str) -> None:
        self.add("event", name=name, data=data)

    def failed(self, error: BaseException) -> None:
        """Log that the request failed."""
        if self.wanted:
            why = [f"{type(cause).__name__}: {cause}" for cause in causes_of(error)]
            self.add("failed", why=why)
