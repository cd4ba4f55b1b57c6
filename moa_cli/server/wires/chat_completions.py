"""The wire of `POST /v1/chat/completions`."""

from __future__ import annotations

from starlette.datastructures import Headers

from moa_cli.server.wires.asked import Asked
from moa_cli.server.wires.chat_reply import ChatEncoder, Envelope
from moa_cli.server.wires.chat_request import ChatBody, parse


class ChatCompletions:
    """See `wire.Wire`. strict: whether fields without an effect are refused."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict

    def read(self, body: bytes, headers: Headers) -> tuple[Asked, ChatBody]:
        """The request in a body."""
        return parse(body, strict=self._strict)

    def encoder(
        self, asked: Asked, body: ChatBody, *, fingerprint: str, show_proposals: bool
    ) -> ChatEncoder:
        """What writes the reply."""
        return ChatEncoder(
            Envelope(model=asked.model, fingerprint=fingerprint),
            asked,
            include_usage=bool(body.stream_options and body.stream_options.include_usage),
            show_proposals=show_proposals,
            legacy=not body.tools and bool(body.functions),
        )
