"""The endpoint that counts tokens. It calls no model, so it costs nothing and is not a turn."""

from __future__ import annotations

from dataclasses import replace

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from moa_cli.server.auth import key_of
from moa_cli.server.service import Service
from moa_cli.server.turns import check_kind, check_number, read_all
from moa_cli.server.wires.messages_request import CountBody, parse_as, tokens_of
from moa_cli.server.wires.sse import compact


class TokenCount:
    """`POST /v1/messages/count_tokens`, an ASGI application. Raises ApiError.

    The count is the same estimate that the engine uses to fit prompts into a model's context. It
    cannot be exact, because each model of a mixture has another tokenizer.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        check_kind(headers)
        body = await read_all(headers, receive, self._service.options.max_body)
        check_number(body, self._service.options.max_messages)
        asked = parse_as(CountBody, body).asked
        self._service.setup.mixtures.find(asked.model, key_of(scope))
        scope["moa.record"].model = asked.model
        conversation = await self._service.files.read(asked.conversation)
        told = compact({"input_tokens": tokens_of(replace(asked, conversation=conversation))})
        await Response(told, media_type="application/json")(scope, receive, send)
