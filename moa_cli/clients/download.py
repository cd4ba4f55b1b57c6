"""Public files over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus

from moa_cli.core.errors import (
    ClientError,
    ClientTimeout,
    ConnectionLost,
    RateLimited,
    RequestRefused,
    ServerFailed,
)
from moa_cli.models.providers import is_loopback
from moa_cli.version import __version__

_HINT = "the same command fetches what is missing"


async def download(address: str) -> AsyncIterator[bytes]:
    """The bytes of the file at a web address, as they come.

    Raises ClientError, naming the address, if it is not there or does not come whole.
    """
    import httpx

    try:
        async with (
            httpx.AsyncClient(
                follow_redirects=True,
                timeout=httpx.Timeout(30, connect=10),
                headers={"User-Agent": f"moa/{__version__}"},
                # A proxy from the environment has no part in what stays on this machine.
                trust_env=not is_loopback(address),
            ) as client,
            client.stream("GET", address) as response,
        ):
            if response.status_code != HTTPStatus.OK:
                raise _refusal(address, response.status_code)
            async for chunk in response.aiter_bytes():
                yield chunk
    except httpx.TimeoutException:
        raise ClientTimeout(f"{address}: no answer in time", hint=_HINT) from None
    except httpx.InvalidURL:
        raise RequestRefused(f"{address}: is no web address") from None
    except httpx.HTTPError as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ConnectionLost(f"{address}: did not come whole: {said}", hint=_HINT) from None


def _refusal(address: str, status: int) -> ClientError:
    kind: type[ClientError] = RequestRefused
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = RateLimited
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = ServerFailed
    phrases = {known.value: f" {known.phrase}" for known in HTTPStatus}
    return kind(f"{address}: answered {status}{phrases.get(status, '')}", hint=_HINT)
