"""The wire of `POST /v1/chat/completions`."""

from __future__ import annotations

from starlette.datastructures import Headers

from moa_cli.server.wires.asked import Asked
from moa_cli.server.wires.chat_reply import ChatEncoder, Envelope
from moa_cli.server.wires.chat_request import ChatBody, parse


class ChatCompletions:
    """See `wire.Wire`."""

    def read(self, body: bytes, headers: Headers) -> tuple[Asked, ChatBody]:
        """The request in a body."""
        request = parse(body)
        return request.asked(), request

    def encoder(
        self, asked: Asked, body: ChatBody, *, fingerprint: str, show_proposals: bool
    ) -> ChatEncoder:
        """What writes the reply."""
        usage = bool(body.stream_options and body.stream_options.include_usage)
        envelope = Envelope(model=asked.model, fingerprint=fingerprint)
        return ChatEncoder(envelope, include_usage=usage, show_proposals=show_proposals)
