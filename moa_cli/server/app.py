"""The application: its routes, and the middleware around them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moa_cli.core.debug_log import RoomLog
from moa_cli.core.sanitize import one_line
from moa_cli.core.unique import unique_name
from moa_cli.server.absent import meant_path, why_absent
from moa_cli.server.accesslog import Record, place_of
from moa_cli.server.auth import Guard, check_metrics, key_of
from moa_cli.server.counting import TokenCount
from moa_cli.server.errors import ApiError
from moa_cli.server.forwarded import client_of
from moa_cli.server.keys import ClientKey
from moa_cli.server.metrics import CONTENT_TYPE
from moa_cli.server.openapi import description
from moa_cli.server.service import Service
from moa_cli.server.turns import TurnEndpoint
from moa_cli.server.wires import chat_request, completions, messages_request, responses_request
from moa_cli.server.wires.chat_reply import ChatEncoder
from moa_cli.server.wires.chat_request import supported_fields
from moa_cli.server.wires.completions import TextEncoder
from moa_cli.server.wires.messages_reply import MessagesEncoder, error_body, model_info, model_list
from moa_cli.server.wires.responses_reply import ResponsesEncoder
from moa_cli.server.wires.sse import compact
from moa_cli.server.wires.wire import Wire

_LOG = RoomLog("moa.server")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The codes of errors that the router raises.
_ROUTER_CODES = {404: "unknown_url", 405: "method_not_allowed"}


def make_app(service: Service, router: Router | None = None) -> ASGIApp:
    """The ASGI application of a server. router: its paths, by default those of `moa serve`."""
    loopback = ipaddress.ip_address(service.address.host).is_loopback
    router = router or _router(service)
    paths = [route.path for route in router.routes if isinstance(route, Route)]
    app: ASGIApp = _Errors(Guard(router, service, loopback=loopback), service, paths)
    if service.options.origins:
        app = CORSMiddleware(
            app,
            allow_origins=service.options.origins,
            allow_methods=("GET", "POST"),
            # Client libraries in a browser send about a dozen headers of their own.
            allow_headers=("*",),
            # Browsers ask for this if a page of the Internet calls a server on this machine.
            allow_private_network=True,
            expose_headers=("x-request-id", "request-id", "retry-after", "x-should-retry"),
        )
    return _Logged(app, service)


def _router(service: Service) -> Router:
    def get(path: str, make: Callable[[Request], Any]) -> Route:
        async def answer(request: Request) -> Response:
            return _json(200, make(request))

        return Route(path, answer)

    def answer(path: str, wire: Wire) -> Route:
        return Route(path, TurnEndpoint(service, wire), methods=["POST"])

    def models(request: Request) -> dict[str, Any]:
        key = key_of(request.scope)
        names = service.setup.mixtures.names(key)
        if _is_anthropic(request.scope):
            return model_list([_model_info(service, name, key) for name in names])
        return {"object": "list", "data": [_model(service, name, key) for name in names]}

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        await service.look_for(name)
        make = _model_info if _is_anthropic(request.scope) else _model
        return _json(200, make(service, name, key_of(request.scope)))

    def described(request: Request) -> dict[str, Any]:
        return description(
            service.setup.mixtures.names(key_of(request.scope)),
            keyed=bool(service.setup.reading.keys),
            strict=service.options.strict,
        )

    async def ready(request: Request) -> Response:
        if service.ready:
            return _json(200, {"status": "ready"})
        status = "stopping" if service.limiter.closed else "no key for the default profile"
        return _json(503, {"status": status})

    async def metrics(request: Request) -> Response:
        check_metrics(key_of(request.scope))
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    return Router(
        [
            # The most frequent path is first, because routes are tried in this order.
            answer("/v1/chat/completions", Wire(chat_request.parse, ChatEncoder)),
            get("/health", lambda _: {"status": "ok"}),
            Route("/ready", ready),
            Route("/metrics", metrics),
            get("/openapi.json", described),
            get("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            answer("/v1/completions", Wire(completions.parse, TextEncoder)),
            answer("/v1/messages", Wire(messages_request.parse, MessagesEncoder)),
            Route("/v1/messages/count_tokens", TokenCount(service), methods=["POST"]),
            answer("/v1/responses", Wire(responses_request.parse, ResponsesEncoder)),
        ],
        redirect_slashes=False,
    )


def _model(service: Service, name: str, key: ClientKey) -> dict[str, Any]:
    mixtures = service.setup.mixtures
    profile, facts = mixtures.find(name, key).profile, mixtures.facts(name)
    told = {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "moa",
        "description": profile.description,
        "input_modalities": ["text", *(["image"] if facts.sees else [])],
        "output_modalities": ["text"],
        "supported_parameters": list(supported_fields(tools=facts.tools is not False)),
    }
    if facts.context_length is not None:
        told["context_length"] = facts.context_length
    if facts.price is not None:
        # USD per token as text, which OpenRouter's clients expect.
        prices = {"prompt": facts.price.prompt, "completion": facts.price.completion}
        told["pricing"] = {kind: f"{price / 1e6:.10f}" for kind, price in prices.items()}
    return told


def _model_info(service: Service, name: str, key: ClientKey) -> dict[str, Any]:
    """A model in the form of Anthropic's API."""
    mixtures = service.setup.mixtures
    mixtures.find(name, key)
    return model_info(name, service.started, mixtures.facts(name).context_length)


def _json(status: int, values: object, headers: dict[str, str] | None = None) -> Response:
    return Response(compact(values), status, headers, media_type="application/json")


def _is_anthropic(scope: Scope) -> bool:
    """Whether a request is for Anthropic's API, whose clients understand only its answers."""
    path: str = scope["path"]
    if path.startswith("/v1/models"):
        return "anthropic-version" in Headers(scope=scope)
    return path == "/v1/messages" or path.startswith("/v1/messages/")


class _Errors:
    """Turns exceptions into error responses. paths: those that the server has."""

    def __init__(self, app: ASGIApp, service: Service, paths: Sequence[str]) -> None:
        self._app = app
        self._service = service
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = scope["moa.record"]
        # With `app` in the scope, the router raises an exception instead of answering by itself.
        scope["app"] = self
        try:
            await self._app(scope, receive, send)
            return
        except ApiError as raised:
            error = raised
        except HTTPException as raised:
            message = f"{raised.detail}: {scope['method']} {one_line(scope['path'], 100)}"
            if raised.status_code == 404 and (why := self._why_not_found(scope["path"])):
                message += f" ({why})"
            code = _ROUTER_CODES.get(raised.status_code)
            error = ApiError(raised.status_code, message, code=code, headers=raised.headers)
        except Exception as bug:
            self._service.log.note(f"internal error: {place_of(bug)}", record.id)
            error = ApiError(500, "internal error", code="internal_error")
        if record.usage is not None and record.usage.calls:
            # An automatic retry of the client library would pay for the proposals twice.
            error.headers["x-should-retry"] = "false"
        record.code = error.code
        if error.status == 499:
            record.status = 499
        elif not record.status:
            # No response has begun yet.
            body = error_body(error, record.id) if _is_anthropic(scope) else error.body()
            await _json(error.status, body, error.headers)(scope, receive, send)

    def _why_not_found(self, path: str) -> str | None:
        if why := why_absent(path):
            return why
        meant = meant_path(path, self._paths)
        return meant and f"did you mean {meant}? Check the base URL of the client"


def _route_of(scope: Scope) -> str:
    """The path of the route of a request; `other` if no route fits."""
    route = scope.get("route")
    return route.path_format if isinstance(route, Route) else "other"


class _Logged:
    """Gives each request an id, and logs a line at its end."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._log = service.log
        self._metrics = service.metrics
        self._proxies = service.options.trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        identity = given if _ID.fullmatch(given) else f"req_{unique_name()}"
        client = scope["client"][0] if scope["client"] else "-"
        if self._proxies:
            client = client_of(client, headers.getlist("x-forwarded-for"), self._proxies)
        record = Record(identity, scope["method"], scope["path"], client)
        scope["moa.record"] = record
        told = [(b"x-request-id", identity.encode())]
        if _is_anthropic(scope):
            told.append((b"request-id", identity.encode()))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *told]}
            await send(message)

        _LOG.write("request", id=identity, method=record.method, path=record.path)
        try:
            await self._app(scope, receive, sending)
        finally:
            _LOG.write("ended", id=identity, status=record.status, code=record.code)
            self._log.request(record)
            self._metrics.responded(_route_of(scope), record.status)
