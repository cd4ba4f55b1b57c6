"""The wire of `POST /v1/messages`."""

from __future__ import annotations

from starlette.datastructures import Headers

from moa_cli.core.values import ValueFault
from moa_cli.server.wires.asked import Asked
from moa_cli.server.wires.bodies import refusal
from moa_cli.server.wires.messages_reply import MessagesEncoder
from moa_cli.server.wires.messages_request import MessagesRequest, parse


class Messages:
    """See `wire.Wire`. strict: whether fields without an effect are refused."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict

    def read(self, body: bytes, headers: Headers) -> tuple[Asked, MessagesRequest]:
        """The request in a body."""
        request = parse(body)
        if self._strict and request.asked.ignored:
            name = request.asked.ignored[:1]
            raise refusal(ValueFault("is not supported", path=name, code="unsupported"))
        return request.asked, request

    def encoder(
        self, asked: Asked, body: MessagesRequest, *, fingerprint: str, show_proposals: bool
    ) -> MessagesEncoder:
        """What writes the reply."""
        return MessagesEncoder(asked, body, show_proposals=show_proposals)
