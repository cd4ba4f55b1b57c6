"""The wire of `POST /v1/messages`."""

from __future__ import annotations

from starlette.datastructures import Headers

from moa_cli.server.wires.asked import Asked
from moa_cli.server.wires.messages_reply import MessagesEncoder
from moa_cli.server.wires.messages_request import MessagesRequest, parse


class Messages:
    """See `wire.Wire`."""

    def read(self, body: bytes, headers: Headers) -> tuple[Asked, MessagesRequest]:
        """The request in a body."""
        request = parse(body)
        return request.asked, request

    def encoder(
        self, asked: Asked, body: MessagesRequest, *, fingerprint: str, show_proposals: bool
    ) -> MessagesEncoder:
        """What writes the reply."""
        return MessagesEncoder(body, show_proposals=show_proposals)
