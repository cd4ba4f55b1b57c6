"""The error mapper: what went wrong at an endpoint, as one of our errors with a hint.

Nothing here names a library: transports map their exceptions to ours (`clients.transport`), and
what an endpoint says is told apart by status code and words.
"""

from __future__ import annotations

import contextlib
import difflib
import email.utils
import math
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from moa_cli.clients.transport import (
    BadAddress,
    Broken,
    ErrorObject,
    NoConnection,
    RedirectLoop,
    Refused,
    TimedOut,
    Unreadable,
)
from moa_cli.core.errors import (
    AuthenticationFailed,
    BadResponse,
    ClientError,
    ClientTimeout,
    ConnectionLost,
    ContextTooLong,
    ModelNotFound,
    RateLimited,
    RequestRefused,
    ServerFailed,
)

_LONGEST = 300
_CONTEXT = re.compile(
    r"exceed_context_size|context_length_exceeded|context (length|window|size)|maximum context"
    r"|prompt is too long|too many (input )?tokens|tokens?`? \+ `?max_(new_)?tokens",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"model_not_found|model_not_available|model_not_supported|not a valid model"
    r"|(model|endpoint)\b.{0,120}(does not exist|not found|is not available|no longer|"
    r"decommissioned|deprecated)|unable to access (non-serverless )?model|no such model"
    r"|no endpoints found",
    re.IGNORECASE | re.DOTALL,
)
_NO_CREDIT = re.compile(
    r"insufficient.(quota|credit|balance|fund)|credit (limit|balance)"
    r"|(out of|no|not enough) credit",
    re.IGNORECASE,
)
_TOO_MANY = re.compile(r"rate.?limit|too many requests|quota", re.IGNORECASE)
_BAD_KEY = re.compile(r"(invalid|incorrect|missing).{0,10}api.?key|unauthori[sz]ed", re.IGNORECASE)
_BASE_URL_HINT = "is the base URL right? As a rule it looks like https://host/v1"


class ErrorMapper:
    """Maps the failures of one endpoint to our errors.

    secret: the key in use; it is removed from everything that the endpoint says.
    """

    def __init__(self, provider: str, base_url: str, start_hint: str | None = None) -> None:
        self.provider = provider
        self.secret = ""
        self._place = _place(base_url)
        self._start_hint = start_hint

    def clean(self, text: str) -> str:
        """`text` on one line, without the key, and not too long."""
        if len(self.secret) >= 4:
            text = text.replace(self.secret, "[key]")
        text = " ".join(text.split())
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

    def from_exception(self, error: Exception, model: str | None) -> ClientError:
        """What a transport raised, as one of our errors. model: the one that was asked."""
        match error:
            case Refused():
                said = _said_under(error.status, error.body)
                return self.from_status(error.status, said, model, error.headers)
            case ErrorObject():
                return self.from_payload(error.payload, model)
            case TimedOut():
                return ClientTimeout(
                    f"{self.provider}: no answer from {self._place} in time",
                    hint="is the network up, and the base URL right?",
                )
            case BadAddress():
                return RequestRefused(
                    f"{self.provider}: the base URL is not a web address", hint=_BASE_URL_HINT
                )
            case RedirectLoop():
                return RequestRefused(
                    f"{self.provider}: {self._place} redirects without end", hint=_BASE_URL_HINT
                )
            case NoConnection():
                return self._no_connection(error.reason)
            case Broken():
                return ConnectionLost(f"{self.provider}: the connection to {self._place} broke")
            case Unreadable():
                return BadResponse(f"{self.provider}: the answer could not be read")
        said = self.clean(str(error)) or type(error).__name__
        return BadResponse(f"{self.provider}: {said}")

    def _no_connection(self, reason: str) -> ClientError:
        found = ConnectionLost(
            f"{self.provider}: no connection to {self._place}" + (f" ({reason})" if reason else ""),
            hint=self._start_hint or "is the network up, and the base URL right?",
        )
        # A server on this machine that is not there now will not be there in a second.
        found.retryable = not (self._start_hint and reason == "refused")
        return found

    def from_payload(self, payload: object, model: str | None) -> ClientError:
        """What came under a good status in place of a completion: an error object, or anything."""
        table = payload if isinstance(payload, Mapping) else {}
        inner = table.get("error", table)
        code = inner.get("code") if isinstance(inner, Mapping) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else None
        if status is None and isinstance(code, str) and code.isdigit():
            status = int(code)
        said = _said(payload)
        if not said and "error" not in table:
            return BadResponse(f"{self.provider}: the answer is no completion")
        said = said or "an error without a message"
        status = status or _implied_status(said)
        if status is None:
            return ServerFailed(f"{self.provider} failed: {self.clean(said)}")
        return self.from_status(status, said, model, {})

    def from_status(
        self, status: int, said: str, model: str | None, headers: Mapping[str, str]
    ) -> ClientError:
        """A refusal: its status code, what the endpoint said, and the response's headers."""
        said = self.clean(said)
        text = f"{self.provider}: {said}"
        if status < 500 and status not in (401, 429) and _CONTEXT.search(said):
            return ContextTooLong(
                text,
                hint="shorten the prompt, start a new conversation, or use fewer references",
            )
        if status == 404 and model is None:
            return RequestRefused(text, hint=_BASE_URL_HINT)
        if status == 404 or (status < 500 and status not in (401, 429) and _NO_MODEL.search(said)):
            return self.model_not_found(text, model or "", [])
        if status in (401, 403):
            return AuthenticationFailed(
                f"{self.provider} refused the API key: {said}",
                hint=f"check the key; `moa doctor` shows which one is used for {self.provider}",
            )
        if status in (402, 429):
            return self._limited(status, said, headers)
        if status == 408:
            late = ClientTimeout(text)
            late.retryable = True
            return late
        if status == 413:
            return ContextTooLong(text, hint="shorten the prompt")
        if status >= 500:
            return ServerFailed(
                f"{self.provider} failed ({status}): {said}", retry_after=_retry_after(headers)
            )
        return RequestRefused(f"{self.provider} refused the request ({status}): {said}")

    def _limited(self, status: int, said: str, headers: Mapping[str, str]) -> ClientError:
        # Not by the mere word: "add a payment method to raise your rate limit" is no bankruptcy.
        if status == 402 or _NO_CREDIT.search(said):
            broke = RateLimited(
                f"{self.provider}: no credit left: {said}", hint="add credit to the account"
            )
            broke.retryable = False
            return broke
        return RateLimited(
            f"{self.provider}: too many requests: {said}",
            hint="wait a little, or use fewer proposers or a smaller --concurrency",
            retry_after=_retry_after(headers),
        )

    def model_not_found(self, message: str, model: str, names: list[str]) -> ModelNotFound:
        """That error with a hint that names the models most like `model`."""
        close = difflib.get_close_matches(model, names, n=3, cutoff=0.5)
        tail = model.rsplit("/", 1)[-1].lower()
        close += [name for name in names if tail and tail in name.lower() and name not in close]
        if close:
            prefix = "" if self.provider == "together" else f"{self.provider}:"
            hint = "did you mean " + ", ".join(f"`{prefix}{name}`" for name in close[:3]) + "?"
        else:
            hint = f"`moa models {self.provider}` lists what there is"
            hint += "" if names else ", unless the base URL is wrong"
        return ModelNotFound(message, hint=hint)


def _place(base_url: str) -> str:
    """Host and port, without the user name and password that a URL may carry."""
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    host = host or base_url.rpartition("@")[2]
    return f"{host}:{port}" if port else host


def _said(body: object) -> str:
    """The message in an error body, as the providers shape it."""
    if isinstance(body, str):
        # A proxy's error page says nothing that a person wants to read.
        page = body.lstrip()[:1] == "<"
        title = re.search(r"<title>(.*?)</title>", body, re.IGNORECASE | re.DOTALL)
        return (title.group(1) if title else "") if page else body
    if isinstance(body, list):
        return "; ".join(filter(None, map(_said, body)))
    if not isinstance(body, Mapping):
        return ""
    table: Mapping[str, Any] = body
    for key in ("error", "message", "detail", "msg"):
        inner = _said(table.get(key))
        if inner:
            code = table.get("code") or table.get("type")
            return f"{inner} ({code})" if isinstance(code, str) and code not in inner else inner
    return ""


def _said_under(status: int, body: object) -> str:
    """What the body of a refusal says, or else what its status means."""
    said = _said(body)
    if not said and isinstance(body, Mapping | list) and body:
        said = str(body)
    try:
        return said or HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"


def _implied_status(said: str) -> int | None:
    """The status that an error object without one stands for, told by its words."""
    if _CONTEXT.search(said) or _NO_MODEL.search(said):
        return 400
    if _NO_CREDIT.search(said) or _TOO_MANY.search(said):
        return 429
    return 401 if _BAD_KEY.search(said) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `Retry-After` (RFC 9110, 10.2.3: seconds or a date) or `retry-after-ms`."""
    told = headers.get("retry-after", "")
    for text, factor in ((headers.get("retry-after-ms", ""), 0.001), (told, 1.0)):
        with contextlib.suppress(ValueError):
            seconds = float(text) * factor
            if math.isfinite(seconds):
                return max(0.0, seconds)
    # Such a date may be well formed and still be none ("Mon, 99 Jan …").
    with contextlib.suppress(ValueError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    return None
