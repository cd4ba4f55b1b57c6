"""What a wire format is: a way to read a request, and a way to write the events of its turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moa_cli.core.conversation import Turn
from moa_cli.core.events import Event
from moa_cli.server.errors import ApiError
from moa_cli.server.wires.asked import Asked


class Encoder(Protocol):
    """One reply, as bytes or as a JSON object. Where several replies were asked for, `turns` has a
    turn for each, in order, and `choice` is the number of one."""

    def take(self, event: Event, choice: int = 0) -> bytes:
        """What is sent of the next event of a streamed reply; usually nothing."""

    def end(self, turns: Sequence[Turn]) -> bytes:
        """The end of a streamed reply."""

    def whole(self, turns: Sequence[Turn]) -> dict[str, Any]:
        """The reply that is not streamed, as a JSON object."""

    def fail(self, error: ApiError) -> bytes:
        """The end of a streamed reply that broke off."""

    def comment(self, text: str) -> bytes:
        """A sign of life, sent by itself within a stream. text: how far the turn is."""


class _Reads(Protocol):
    def __call__(self, body: bytes, /, *, strict: bool) -> tuple[Asked, Any]:
        """What the request in a body asks for, and its own form of it, for the encoder.

        strict: refuse fields without an effect. Raises ApiError, usually a 400 that names the wrong
        field.
        """


class _Writes(Protocol):
    def __call__(
        self, asked: Asked, request: Any, /, *, fingerprint: str, show_proposals: bool
    ) -> Encoder:
        """What writes the reply. fingerprint: of the mixture."""


@dataclass(frozen=True)
class Wire:
    """One of the wire formats."""

    read: _Reads
    encoder: _Writes
