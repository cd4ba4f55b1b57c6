"""Any OpenAI-compatible endpoint, with the `together` SDK as transport.

The only file that names the SDK. It serves for construction, authentication, headers,
status codes and cancellation; bodies are written and streams read here, because its own
methods know only Together's API and end a broken stream in silence.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from moa_cli.clients import sse
from moa_cli.clients.base import NO_KEY, Delta, ModelInfo, Request
from moa_cli.clients.faults import Faults
from moa_cli.conversation import Message
from moa_cli.errors import BadResponse, ClientError, MoAError, ModelNotFound
from moa_cli.version import __version__

if TYPE_CHECKING:
    import httpx
    from together import AsyncTogether

__all__ = ["OpenAICompatible", "is_loopback", "preload"]

_MODELS_TIMEOUT = 15.0
_DRAIN_SECONDS = 0.2
# Fields that some endpoints or models refuse, and what is sent in their place on a second try.
_REFUSABLE = (
    "stream_options",
    "max_completion_tokens",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
)


def preload() -> None:
    """Import the SDK now (0.3 s), so that the first call does not wait for it."""
    import together  # noqa: F401


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine."""
    host = ""
    try:
        host = urlsplit(url).hostname or ""
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class OpenAICompatible:
    """The client of one endpoint; of one event loop.

    provider: its name in messages. base_url: ends in /v1 as a rule. key: called once, at the
    first request, off the event loop; may raise a ClientError. completion_tokens: whether
    the limit is sent as `max_completion_tokens`.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        key: Callable[[], str],
        *,
        completion_tokens: bool = False,
        start_hint: str | None = None,
    ) -> None:
        self._base_url = base_url
        self._key = key
        self._completion_tokens = completion_tokens
        self._faults = Faults(provider, base_url, start_hint)
        # A connection costs nothing on this machine, and some servers (llama.cpp's) close one
        # right after a streamed answer: the next call would run into that.
        self._again = not is_loopback(base_url)
        self._opening: asyncio.Task[AsyncTogether] | None = None
        self._refused: dict[str, set[str]] = {}
        self._names: list[str] | None = None

    async def _sdk(self) -> AsyncTogether:
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(asyncio.to_thread(self._open))
        return await asyncio.shield(self._opening)

    def _open(self) -> AsyncTogether:
        key = self._key()
        # "none" is no secret but a word, which an answer may hold.
        self._faults.secret = "" if key == NO_KEY else key
        import httpx
        from together import AsyncTogether, DefaultAsyncHttpxClient

        headers = {"User-Agent": f"moa/{__version__}"}
        sdk = AsyncTogether(
            api_key=key,
            base_url=self._base_url,
            max_retries=0,
            timeout=httpx.Timeout(connect=10, read=None, write=30, pool=None),
            default_headers=headers,
            # A proxy from the environment must not see what stays on this machine.
            http_client=DefaultAsyncHttpxClient(trust_env=not is_loopback(self._base_url)),
        )
        if self._faults.provider != "together":
            # The SDK adds TOGETHER_CUSTOM_HEADERS, which may hold secrets, whatever the address.
            sdk._custom_headers = headers
        return sdk

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """The completion as it comes. Raises a ClientError; closing it closes the connection."""
        try:
            response = await self._post(request)
            try:
                async with aclosing(_read(response, again=self._again)) as deltas:
                    async for delta in deltas:
                        yield delta
            finally:
                await response.aclose()
        except sse.EventError as event:
            raise await self._with_near_names(
                self._faults.from_payload(event.payload, request.model), request.model
            ) from None
        except MoAError:
            raise
        except Exception as error:
            raise await self._with_near_names(
                self._faults.from_exception(error, request.model), request.model
            ) from error

    async def _post(self, request: Request) -> httpx.Response:
        sdk = await self._sdk()
        # Not before: the SDK takes its time, and is imported in a thread of its own there.
        import httpx
        from together import APIStatusError

        refused = self._refused.setdefault(request.model, set())
        while True:
            body = self._body(request, refused)
            try:
                response = await sdk.post(
                    "/chat/completions", body=body, cast_to=httpx.Response, stream=True
                )
            except APIStatusError as error:
                field = _refused_field(error, body)
                if field is None or field in refused:
                    raise
                refused.add(field)
                continue
            if not isinstance(response, httpx.Response):
                raise BadResponse("the SDK gave no response")
            return response

    def _body(self, request: Request, refused: set[str]) -> dict[str, Any]:
        limit = "max_completion_tokens" if self._completion_tokens else "max_tokens"
        if limit in refused:
            limit = "max_tokens" if self._completion_tokens else "max_completion_tokens"
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [_message(one) for one in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": request.temperature,
            limit: request.max_tokens,
            "top_p": request.top_p,
            "seed": request.seed,
            **request.extra,
        }
        dropped = refused - {"max_tokens", "max_completion_tokens"}
        return {k: v for k, v in body.items() if v is not None and k not in dropped}

    async def models(self) -> list[ModelInfo]:
        """What the endpoint offers, in its own order. Raises a ClientError."""
        try:
            sdk = await self._sdk()
            listed: object = await sdk.get(
                "/models", cast_to=object, options={"timeout": _MODELS_TIMEOUT}
            )
        except MoAError:
            raise
        except Exception as error:
            raise self._faults.from_exception(error, None) from error
        rows = listed.get("data") if isinstance(listed, Mapping) else listed
        if not isinstance(rows, list):
            raise BadResponse(f"{self._faults.provider}: the list of models is no list")
        return [info for info in map(_model_info, rows) if info is not None]

    async def _with_near_names(self, error: ClientError, model: str) -> ClientError:
        """A ModelNotFound gets the names most like the one asked for, if they can be had."""
        if not isinstance(error, ModelNotFound):
            return error
        if self._names is None:
            try:
                self._names = [info.id for info in await self.models()]
            except ClientError:
                self._names = []
        return self._faults.model_not_found(error.message, model, self._names)

    async def aclose(self) -> None:
        """Close all connections."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        try:
            sdk = await opening
        except Exception:
            return  # It was never opened, and the calls have said why.
        await sdk.close()


async def _read(response: httpx.Response, *, again: bool) -> AsyncGenerator[Delta, None]:
    """The deltas of a response. again: leave its connection fit to be used again."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.endswith("json"):
        # Not a stream: an error under a good status, or an endpoint that cannot stream.
        await response.aread()
        payload = response.json()
        if not isinstance(payload, dict) or payload.get("error") or not payload.get("choices"):
            raise sse.EventError(payload)
        yield sse.whole(payload)
        return
    if kind == "text/html":
        raise BadResponse("the endpoint answered with a web page, not with a completion")
    body = cast("AsyncGenerator[bytes, None]", response.aiter_bytes())
    async with aclosing(body):
        async with aclosing(sse.deltas(body)) as deltas:
            async for delta in deltas:
                yield delta
        if again:
            # What follows the end mark is the end of the body, and as a rule already here.
            with suppress(Exception):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    async for _ in body:
                        pass


def _message(one: Message) -> dict[str, str]:
    # A paste or an argument may hold half a surrogate pair, which UTF-8 cannot say.
    return {"role": one.role, "content": one.content.encode("utf-8", "replace").decode()}


def _refused_field(error: Any, body: Mapping[str, Any]) -> str | None:
    """The field of `body` that a 400 says the endpoint does not take, or None."""
    if error.status_code not in (400, 422):
        return None
    text = str(error.body or error.message).lower()
    complaint = ("unsupported", "not support", "unknown", "unrecognized", "not permitted", "extra")
    if not any(word in text for word in complaint):
        return None
    return next((field for field in _REFUSABLE if field in body and field in text), None)


def _model_info(row: object) -> ModelInfo | None:
    if not isinstance(row, Mapping) or not isinstance(row.get("id"), str):
        return None
    pricing = row.get("pricing")
    pricing = pricing if isinstance(pricing, Mapping) else {}
    context = row.get("context_length") or row.get("max_model_len")
    if context is None and isinstance(row.get("meta"), Mapping):
        context = row["meta"].get("n_ctx")
    return ModelInfo(
        id=row["id"],
        context_length=context if isinstance(context, int) else None,
        prompt_price=_price(pricing, "input", "prompt"),
        completion_price=_price(pricing, "output", "completion"),
    )


def _price(pricing: Mapping[str, object], per_million: str, per_token: str) -> float | None:
    """USD per million tokens: Together tells numbers a million, OpenRouter texts a token."""
    for key, factor in ((per_million, 1.0), (per_token, 1e6)):
        value = pricing.get(key)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                price = float(value) * factor
            except ValueError:
                continue
            # OpenRouter's router models say -1: the price depends on the model they choose.
            return price if price >= 0 else None
    return None
