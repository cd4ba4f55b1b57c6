"""What went wrong at an endpoint, as one of our errors with a hint.

Nothing here names the SDK: exceptions are told apart by status code and by httpx's tree,
so that an error class which the SDK grows later still finds its place.
"""

from __future__ import annotations

import difflib
import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from moa_cli.errors import (
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

__all__ = ["Faults"]

_LONGEST = 300
_CONTEXT = re.compile(
    r"exceed_context_size|context_length_exceeded|context (length|window|size)|maximum context"
    r"|prompt is too long|too many (input )?tokens|tokens? \+ max_(new_)?tokens",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"model_not_found|model_not_available|model_not_supported|not a valid model"
    r"|(model|endpoint)\b.{0,120}(does not exist|not found|is not available|no longer|"
    r"decommissioned|deprecated)|unable to access (non-serverless )?model|no such model"
    r"|no endpoints found",
    re.IGNORECASE | re.DOTALL,
)
_NO_CREDIT = re.compile(r"insufficient_quota|credit|billing|payment", re.IGNORECASE)


class Faults:
    """Turns the trouble of one endpoint into errors.

    secret: the key in use; it is struck out of everything that the endpoint says.
    """

    def __init__(self, provider: str, base_url: str, start_hint: str | None = None) -> None:
        self.provider = provider
        self.secret = ""
        # Without user name and password, which a URL may carry.
        parts = urlsplit(base_url)
        self._place = parts.hostname or base_url
        if parts.port:
            self._place += f":{parts.port}"
        self._start_hint = start_hint

    def clean(self, text: str) -> str:
        """`text` on one line, without the key, and not too long."""
        if len(self.secret) >= 4:
            text = text.replace(self.secret, "[key]")
        text = " ".join(text.split())
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

    def from_exception(self, error: BaseException, model: str | None) -> ClientError:
        """Whatever the SDK or httpx raised, as one of our errors."""
        import httpx

        chain = _chain(error)
        status = getattr(error, "status_code", None)
        if isinstance(status, int) and status >= 400:
            response = getattr(error, "response", None)
            headers = response.headers if isinstance(response, httpx.Response) else {}
            said = _said(getattr(error, "body", None)) or str(error) or f"status {status}"
            return self.from_status(status, said, model, headers)
        if any(isinstance(one, httpx.TimeoutException | TimeoutError) for one in chain):
            return ClientTimeout(f"{self.provider}: no answer from {self._place} in time")
        if any(isinstance(one, httpx.InvalidURL | httpx.UnsupportedProtocol) for one in chain):
            return RequestRefused(
                f"{self.provider}: the base URL is not a web address",
                hint="it should look like https://host/v1",
            )
        if any(isinstance(one, httpx.ConnectError | ConnectionRefusedError) for one in chain):
            return self._no_connection(chain)
        if any(isinstance(one, httpx.DecodingError | ValueError) for one in chain):
            return BadResponse(f"{self.provider}: the answer could not be read")
        if any(isinstance(one, httpx.HTTPError | httpx.StreamError | OSError) for one in chain):
            return ConnectionLost(f"{self.provider}: the connection to {self._place} broke")
        said = self.clean(str(error)) or type(error).__name__
        if getattr(error, "request", None) is not None:
            return ConnectionLost(f"{self.provider}: {said}")
        return BadResponse(f"{self.provider}: {said}")

    def _no_connection(self, chain: list[BaseException]) -> ClientError:
        text = " ".join(str(one) for one in chain).lower()
        why = "refused" if "refused" in text or "all connection attempts" in text else ""
        if "name or service" in text or "nodename" in text or "getaddrinfo" in text:
            why = "unknown host"
        if "certificate" in text or "ssl" in text:
            why = "TLS failed"
        found = ConnectionLost(
            f"{self.provider}: no connection to {self._place}" + (f" ({why})" if why else ""),
            hint=self._start_hint or "is the network up, and the base URL right?",
        )
        # A server on this machine that is not there now will not be there in a second.
        found.retryable = not (self._start_hint and why == "refused")
        return found

    def from_payload(self, payload: object, model: str) -> ClientError:
        """An error object that came under a good status."""
        table = payload if isinstance(payload, Mapping) else {}
        inner = table.get("error", table)
        code = inner.get("code") if isinstance(inner, Mapping) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else None
        if status is None and isinstance(code, str) and code.isdigit():
            status = int(code)
        said = _said(payload) or "an error without a message"
        return self.from_status(status or 502, said, model, {})

    def from_status(
        self, status: int, said: str, model: str | None, headers: Mapping[str, str]
    ) -> ClientError:
        """A refusal: its status code, what the endpoint said, and the response's headers."""
        said = self.clean(said)
        text = f"{self.provider}: {said}"
        if status < 500 and status not in (401, 429) and _CONTEXT.search(said):
            return ContextTooLong(
                text, hint="shorten the prompt, start a new conversation, or use fewer references"
            )
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
        return ModelNotFound(message, hint=hint)


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


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


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `Retry-After` (RFC 9110, 10.2.3: seconds or a date) or `retry-after-ms`."""
    milliseconds = headers.get("retry-after-ms", "")
    told = headers.get("retry-after", "")
    try:
        return max(0.0, float(milliseconds) / 1000 if milliseconds else float(told))
    except ValueError:
        pass
    date = email.utils.parsedate_to_datetime(told) if _is_date(told) else None
    return max(0.0, date.timestamp() - time.time()) if date else None


def _is_date(text: str) -> bool:
    return email.utils.parsedate(text) is not None
