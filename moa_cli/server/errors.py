"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from moa_cli.core.conversation import Turn
from moa_cli.core.text import with_hint

_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# Status and code of a failed turn whose causes are all of one kind. AuthenticationFailed is not a
# 401, because the upstream refused the server's key and not the client's.
_CAUSES = {
    "AuthenticationFailed": (502, "upstream_authentication"),
    "AnswerRefused": (502, "upstream_refused"),
    "BudgetReached": (402, "budget_reached"),
    "ClientTimeout": (504, "upstream_timeout"),
    "ContentFiltered": (400, "content_filter"),
    "ContextTooLong": (400, "context_length_exceeded"),
    "ImagesNotSeen": (400, "images_not_supported"),
    "LocalModelUnavailable": (503, "model_unavailable"),
    "ModelNotFound": (502, "upstream_model_not_found"),
    "NoCredit": (502, "upstream_no_credit"),
    "RateLimited": (429, "rate_limit_exceeded"),
    "RequestRefused": (502, "upstream_refused"),
    "SchemaMismatch": (502, "invalid_structured_output"),
    "ToolsUnsupported": (400, "tools_unsupported"),
}
_OTHER = (502, "upstream_failed")


class ApiError(Exception):
    """Ends a request with an error.

    The status is 499 if the client has left. `param` is the path of the wrong field; `code` is the
    reason, for programs; `headers` are further headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        plain = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, plain),
                "param": self.param,
                "code": self.code,
            }
        }


def too_many(message: str, code: str, seconds: int) -> ApiError:
    """The error for too many requests. seconds: when the client may try again."""
    return ApiError(429, message, code=code, headers={"retry-after": str(seconds)})


def stopping() -> ApiError:
    return ApiError(
        503,
        "the server is stopping",
        code="server_stopping",
        headers={"retry-after": "5", "connection": "close"},
    )


def from_turn(turn: Turn, wait: float = 0.0) -> ApiError:
    """The error for a turn that gave no reply. wait: seconds until the providers that refused may
    be asked again; 0 if they may be asked now.

    The messages are the engine's: they hold no key, no credentials and no stack trace. Hints are
    left out, because they are for the operator of the server. Only the hint about tools is for the
    client.
    """
    kinds = {cause.kind for cause in turn.causes}
    if turn.error is not None and turn.error.kind == "SchemaMismatch":
        # This error decides, even if proposers failed in another way.
        kinds = {turn.error.kind}
    status, code = _CAUSES.get(kinds.pop(), _OTHER) if len(kinds) == 1 else _OTHER
    reason = turn.error.message if turn.error else "the turn ended without a complete reply"
    param = None
    if code == "tools_unsupported":
        param, reason = "tools", with_hint(turn.causes[0].message, turn.causes[0].hint)
    # One of the sentences about models may give this reason, too, and also names the model.
    said = next((sentence for sentence in turn.lost if sentence.endswith(f": {reason}")), reason)
    message = "; ".join(dict.fromkeys([said, *turn.lost]))
    # The server has already retried the upstream calls, so an automatic retry of the client library
    # would multiply them. After a rate limit of a provider, a retry is fine if no call was billed.
    again = {} if status == 429 and not turn.usage.calls else {"x-should-retry": "false"}
    if status == 429 and wait:
        again["retry-after"] = str(math.ceil(wait))
    return ApiError(status, message, param=param, code=code, headers=again)
