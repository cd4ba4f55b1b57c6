"""The wire of `POST /v1/responses`."""

from __future__ import annotations

from starlette.datastructures import Headers

from moa_cli.server.wires.asked import Asked
from moa_cli.server.wires.responses_reply import ResponsesEncoder
from moa_cli.server.wires.responses_request import ResponsesRequest, parse


class Responses:
    """See `wire.Wire`. It keeps no state: a request brings the whole conversation.

    strict: whether what has no effect is refused.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict

    def read(self, body: bytes, headers: Headers) -> tuple[Asked, ResponsesRequest]:
        """The request in a body."""
        request = parse(body, strict=self._strict)
        return request.asked, request

    def encoder(
        self, asked: Asked, body: ResponsesRequest, *, fingerprint: str, show_proposals: bool
    ) -> ResponsesEncoder:
        """What writes the reply."""
        return ResponsesEncoder(body, asked, show_proposals=show_proposals)
