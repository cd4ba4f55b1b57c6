"""The `together` SDK as transport; the only file that names it.

It serves for construction, authentication, headers, status codes and cancellation; bodies are
written and streams read elsewhere, because its own methods know only Together's API and end a
broken stream in silence.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from moa_cli.clients.transport import Refused
from moa_cli.core.errors import BadResponse
from moa_cli.models.providers import is_loopback

if TYPE_CHECKING:
    import httpx
    from together import AsyncTogether

__all__ = ["SdkTransport", "preload"]


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
        from together import AsyncTogether, DefaultAsyncHttpxClient

        self._sdk: AsyncTogether = AsyncTogether(
            api_key=key,
            base_url=base_url,
            max_retries=0,
            timeout=httpx.Timeout(connect=10, read=None, write=30, pool=None),
            default_headers=headers,
            # A proxy from the environment must not see what stays on this machine.
            http_client=DefaultAsyncHttpxClient(trust_env=not is_loopback(base_url)),
        )
        if not keep_custom_headers:
            self._sdk._custom_headers = dict(headers)

    async def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> HttpxAnswer:
        """See `Transport.post`."""
        import httpx
        from together import APIStatusError

        try:
            response: object = await self._sdk.post(
                path,
                body=body,
                options={"headers": headers} if headers else {},
                cast_to=httpx.Response,
                stream=True,
            )
        except APIStatusError as error:
            raise _refused(error) from error
        if not isinstance(response, httpx.Response):
            raise BadResponse("the SDK gave no response")
        return HttpxAnswer(response)

    async def get(self, path: str, seconds: float) -> object:
        """See `Transport.get`."""
        from together import APIStatusError

        try:
            told: object = await self._sdk.get(path, cast_to=object, options={"timeout": seconds})
        except APIStatusError as error:
            raise _refused(error) from error
        return told

    async def aclose(self) -> None:
        """Close all connections."""
        await self._sdk.close()


def _refused(error: Any) -> Refused:
    return Refused(error.status_code, error.body or error.message, error.response.headers)


class HttpxAnswer:
    """An answer as httpx holds it."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._body: AsyncGenerator[bytes, None] | None = None
        self.content_type = response.headers.get("content-type", "")

    @property
    def ended(self) -> bool:
        """See `Answer.ended`."""
        return self._response.is_stream_consumed and self._response.is_closed

    def chunks(self) -> AsyncIterator[bytes]:
        """See `Answer.chunks`."""
        self._body = cast("AsyncGenerator[bytes, None]", self._response.aiter_bytes())
        return self._body

    async def read(self) -> bytes:
        """See `Answer.read`."""
        return await self._response.aread()

    async def aclose(self) -> None:
        """See `Answer.aclose`."""
        if self._body is not None:
            await self._body.aclose()
        await self._response.aclose()
