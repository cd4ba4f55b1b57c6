"""Who may ask: the key, the `Host` and the `Origin` of a request."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from moa_cli.server.errors import ApiError
from moa_cli.server.loops import is_loopback_host
from moa_cli.server.service import ServerOptions


class Guard:
    """Passes on what is allowed, and raises ApiError for the rest.

    The keys of the options say what is allowed, or without keys their origins, and whether the
    server listens on loopback only.
    """

    def __init__(self, app: ASGIApp, options: ServerOptions, *, loopback: bool) -> None:
        self._app = app
        self._keys = [key.encode() for key in options.keys]
        self._origins = options.origins
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Nothing can be learned or done there.
        if scope["path"] != "/health":
            headers = Headers(scope=scope)
            if self._keys:
                self._check_key(headers)
            else:
                self._check_place(headers)
        await self._app(scope, receive, send)

    def _check_key(self, headers: Headers) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # The second one is how Anthropic's clients send a key; some send both.
        sent = [given.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
        tokens = [token.encode("latin-1", "replace") for token in sent]
        # All of them, whichever fits: time must not tell.
        fits = [hmac.compare_digest(token, key) for token in tokens for key in self._keys]
        if not any(fits):
            message = "the API key is wrong" if any(tokens) else "an API key is needed"
            raise ApiError(
                401,
                f"{message}: send it as `Authorization: Bearer …` or as `x-api-key`",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    def _check_place(self, headers: Headers) -> None:
        """Without a key, a web page in a browser on this machine must not be able to ask."""
        try:
            host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        except ValueError:
            host = ""
        if self._loopback and not is_loopback_host(host):
            raise ApiError(
                403,
                "this server is for its own machine: the Host header must be a loopback address"
                " (start it with an API key to reach it by another name)",
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
