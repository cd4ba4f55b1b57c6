"""Decides who may use the server, by the key, the `Host` and the `Origin` of a request."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from moa_cli.core.errors import UsageError
from moa_cli.server.errors import ApiError
from moa_cli.server.keys import ANYBODY, ClientKey, ClientKeys
from moa_cli.server.loops import USUAL_PORTS, is_loopback_host
from moa_cli.server.service import Service

# The paths for load balancers, which need no key: the answers tell only whether the server runs.
OPEN_PATHS = ("/health", "/ready")


def origins(option: str, typed: Iterable[str]) -> tuple[str, ...]:
    """The origins in an option's values, in the form in which browsers send them; `*` stands for
    all. Raises UsageError."""
    return tuple(_origin(option, text.strip()) for text in typed)


def _origin(option: str, text: str) -> str:
    if text in ("*", "null"):
        return text
    try:
        parts = urlsplit(text.lower())
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if not parts.scheme or not parts.hostname or parts.path not in ("", "/") or "*" in text:
        raise UsageError(
            f"{option}: {text!r} is not an origin", hint="such as http://localhost:3000"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = "" if port in (None, USUAL_PORTS.get(parts.scheme)) else f":{port}"
    return f"{parts.scheme}://{host}{shown}"


def key_of(scope: Scope) -> ClientKey:
    """The key of the client that sent a request."""
    key: ClientKey = scope.get("moa.key", ANYBODY)
    return key


def check_metrics(key: ClientKey) -> None:
    """Raise ApiError if a client may not read the metrics, which are about all clients."""
    if key.name is not None and not key.settings.metrics:
        raise ApiError(
            403,
            f"the key `{key.name}` may not read /metrics (server.keys.{key.name}.metrics)",
            code="metrics_not_allowed",
        )


@lru_cache(maxsize=256)
def _is_here(host_header: str) -> bool:
    """Whether a `Host` header names this machine. Cached, because most requests have the same
    header."""
    try:
        return is_loopback_host(urlsplit(f"//{host_header}").hostname or "")
    except ValueError:
        return False


class Guard:
    """Passes on allowed requests, and raises ApiError for all others.

    If there are valid keys, a request must have one of them. Without keys, the origin must be one
    of the options, and on a loopback address the host must be this machine. The scope holds the
    client's key as `moa.key`.
    """

    def __init__(self, app: ASGIApp, service: Service, *, loopback: bool) -> None:
        self._app = app
        self._service = service
        self._origins = service.options.origins
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # These paths reveal nothing and change nothing.
        if scope["path"] not in OPEN_PATHS:
            headers = Headers(scope=scope)
            keys = self._service.setup.reading.keys
            if keys:
                key = self._check_key(headers, keys)
                scope["moa.key"], scope["moa.record"].key = key, key.name
            else:
                self._check_place(headers)
        await self._app(scope, receive, send)

    def _check_key(self, headers: Headers, keys: ClientKeys) -> ClientKey:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Anthropic's clients send the key in `x-api-key`; some clients send both headers.
        sent = [given.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
        tokens = [token.encode("latin-1", "replace") for token in sent]
        found = [key for token in tokens if (key := keys.find(token)) is not None]
        if not found:
            message = "the API key is wrong" if any(tokens) else "an API key is required"
            raise ApiError(
                401,
                f"{message}: send it as `Authorization: Bearer …` or as `x-api-key`",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return found[0]

    def _check_place(self, headers: Headers) -> None:
        """Raise ApiError if the request may come from a web page in a browser on this machine,
        which must not use the server without a key."""
        if self._loopback and not _is_here(headers.get("host", "")):
            raise ApiError(
                403,
                "this server accepts requests to a loopback address only, and the Host header"
                " names another host (to allow other names, start the server with an API key)",
                param="host",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and "*" not in self._origins:
            raise ApiError(
                403,
                "web pages may not use this server (see --cors-origin)",
                param="origin",
                code="origin_not_allowed",
            )
