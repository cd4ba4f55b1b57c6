"""Bytes to server-sent events: WHATWG HTML, section 9.2 (event stream interpretation)."""

from __future__ import annotations

import re

from moa_cli.core.errors import BadResponse

__all__ = ["EventReader"]

# An event is one JSON object of a few tokens; far beyond that nobody speaks this protocol.
_LONGEST_LINE = 16 * 1024 * 1024
_LINE_END = re.compile(r"\r\n|\n|\r")


class EventReader:
    """Bytes to events (name, data), as they come; an event without data is none."""

    def __init__(self) -> None:
        self._pending = b""
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[tuple[str, str]]:
        """The events that are whole with this chunk. Raises BadResponse for an endless line."""
        pending = self._pending + chunk
        if len(pending) > _LONGEST_LINE:
            raise BadResponse("the endpoint sent a line of over 16 MB")
        carriage = pending.rfind(b"\r")
        # A CR at the very end may be the first half of a CRLF.
        if carriage == len(pending) - 1:
            carriage = pending.rfind(b"\r", 0, carriage)
        cut = max(pending.rfind(b"\n"), carriage) + 1
        self._pending = pending[cut:]
        # Whole lines, so no letter is cut in two.
        text = pending[:cut].decode("utf-8", "replace")
        # At CR, LF and CRLF only: str.splitlines also splits at U+2028, which is allowed inside
        # a JSON string.
        lines = text.split("\n") if carriage < 0 else _LINE_END.split(text)
        return self._events(lines[:-1])

    def end(self) -> list[tuple[str, str]]:
        """The last event, which needs no blank line after it."""
        last = self._pending.rstrip(b"\r").decode("utf-8", "replace")
        self._pending = b""
        return self._events([last, ""])

    def _events(self, lines: list[str]) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for line in lines:
            # Nearly all lines are one of these two.
            if line.startswith("data: "):
                self._data.append(line[6:])
            elif not line:
                if self._data:
                    found.append((self._name, "\n".join(self._data)))
                self._name, self._data = "", []
            else:
                self._field(line)
        return found

    def _field(self, line: str) -> None:
        key, _, value = line.removeprefix("\ufeff").partition(":")
        value = value.removeprefix(" ")
        if key == "data":
            self._data.append(value)
        elif key == "event":
            self._name = value
