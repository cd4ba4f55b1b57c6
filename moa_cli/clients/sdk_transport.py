"""The `together` SDK as transport; the only file that names it.

It serves for construction, authentication, headers, status codes and cancellation. Bodies are
written and streams read elsewhere, because its own methods know only Together's API and end a
broken stream in silence.

Relied on, though the SDK documents none of it (held by `tests/test_others_internals.py`):
`_custom_headers` holds the headers of every request; `post` with `cast_to=httpx.Response` and
`stream=True` returns the response of httpx with its body unread; all exceptions derive from
`TogetherError`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from moa_cli.clients import transport
from moa_cli.clients.transport import Refused, TransportError, classify
from moa_cli.core.endpoints import NO_KEY
from moa_cli.models.providers import is_loopback

if TYPE_CHECKING:
    import httpx
    from together import AsyncTogether


def preload() -> None:
    """Import the SDK now (0.3 s), so that the first call does not wait for it."""
    import together  # noqa: F401


class SdkTransport:
    """One endpoint through the SDK. Making one imports the SDK, which takes its time.

    keep_custom_headers: leave in the headers of TOGETHER_CUSTOM_HEADERS, which the SDK adds
    whatever the address; they may hold secrets.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        headers: Mapping[str, str],
        *,
        keep_custom_headers: bool = False,
    ) -> None:
        import httpx
        from together import AsyncTogether, DefaultAsyncHttpxClient, Omit

        # The SDK cannot do without a key; it leaves out headers of this value.
        sent = headers if key else {**headers, "Authorization": Omit()}
        with _explained():
            self._sdk: AsyncTogether = AsyncTogether(
                api_key=key or NO_KEY,
                base_url=base_url,
                max_retries=0,
                timeout=httpx.Timeout(connect=10, read=None, write=30, pool=None),
                default_headers=cast("Mapping[str, str]", sent),
                # A proxy from the environment must not see what stays on this machine.
                http_client=DefaultAsyncHttpxClient(trust_env=not is_loopback(base_url)),
            )
        if not keep_custom_headers:
            self._sdk._custom_headers = cast("dict[str, str]", dict(sent))

    async def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> HttpxAnswer:
        import httpx

        with _explained():
            response: object = await self._sdk.post(
                path,
                body=body,
                options={"headers": headers} if headers else {},
                cast_to=httpx.Response,
                stream=True,
            )
        if not isinstance(response, httpx.Response):
            raise transport.Unreadable
        return HttpxAnswer(response)

    async def get(self, path: str, seconds: float, headers: Mapping[str, str | None]) -> object:
        from together import Omit

        sent = {name: Omit() if value is None else value for name, value in headers.items()}
        with _explained():
            value: object = await self._sdk.get(
                path, cast_to=object, options={"timeout": seconds, "headers": sent}
            )
        return value

    def explain(self, error: Exception) -> TransportError | None:
        return explain(error)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._sdk.close()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        raise known from error


def explain(error: Exception) -> TransportError | None:
    """What the SDK or httpx raised, as one of our exceptions; None if it is neither's."""
    import httpx
    import together

    if isinstance(error, together.APIStatusError):
        return Refused(error.status_code, error.body or error.message, error.response.headers)
    if isinstance(error, httpx.HTTPStatusError):
        return Refused(error.response.status_code, None, error.response.headers)
    if isinstance(error, together.APIError) and isinstance(error.body, Mapping):
        return transport.ErrorObject(error.body)
    table: transport.ErrorTable = (
        (transport.TimedOut, (httpx.TimeoutException, together.APITimeoutError, TimeoutError)),
        (transport.BadAddress, (httpx.InvalidURL, httpx.UnsupportedProtocol)),
        (transport.RedirectLoop, (httpx.TooManyRedirects,)),
        (transport.NoConnection, (httpx.ConnectError, ConnectionRefusedError)),
        (transport.Unreadable, (httpx.DecodingError, httpx.CookieConflict, ValueError)),
        (transport.Unreadable, (together.APIResponseValidationError,)),
        (
            transport.Broken,
            (httpx.HTTPError, httpx.StreamError, together.APIConnectionError, OSError),
        ),
    )
    return classify(error, table)


class HttpxAnswer:
    """An answer as httpx holds it."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._body: AsyncGenerator[bytes, None] | None = None
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.content_type = response.headers.get("content-type", "")

    @property
    def ended(self) -> bool:
        return self._response.is_stream_consumed and self._response.is_closed

    def chunks(self) -> AsyncIterator[bytes]:
        self._body = cast("AsyncGenerator[bytes, None]", self._response.aiter_bytes())
        return self._body

    async def read(self) -> bytes:
        return await self._response.aread()

    async def aclose(self) -> None:
        if self._body is not None:
            await self._body.aclose()
        await self._response.aclose()
