"""The interface of a wire format: it reads a request, and writes the events of its turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moa_cli.core.conversation import Turn
from moa_cli.core.events import Event
from moa_cli.server.errors import ApiError
from moa_cli.server.wires.asked import Asked


class Encoder(Protocol):
    """Writes a reply as bytes or as a JSON object. If several replies were requested, `turns` has a
    turn for each of them, in order, and `choice` is the number of a reply."""

    def take(self, event: Event, choice: int = 0) -> bytes:
        """The bytes to send for the next event of a streamed reply; usually none."""

    def end(self, turns: Sequence[Turn]) -> bytes:
        """The end of a streamed reply."""

    def whole(self, turns: Sequence[Turn]) -> dict[str, Any]:
        """A reply that is not streamed, as a JSON object."""

    def fail(self, error: ApiError) -> bytes:
        """The end of a streamed reply that broke off."""

    def comment(self, text: str) -> bytes:
        """A comment that is sent without other data, to keep the client waiting. text: the progress
        of the turn."""


class _Reads(Protocol):
    def __call__(self, body: bytes, /, *, strict: bool) -> tuple[Asked, Any]:
        """The meaning of the request in a body, and the wire's own form of the request, for its
        encoder.

        strict: refuse fields without an effect. Raises ApiError, usually a 400 that names the wrong
        field.
        """


class _Writes(Protocol):
    def __call__(
        self, asked: Asked, request: Any, /, *, fingerprint: str, show_proposals: bool
    ) -> Encoder:
        """The encoder of the reply. fingerprint: the fingerprint of the mixture."""


@dataclass(frozen=True)
class Wire:
    """One of the wire formats."""

    read: _Reads
    encoder: _Writes
