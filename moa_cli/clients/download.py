"""Public files over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from http import HTTPStatus

from moa_cli.clients.http.transport import Connections, send
from moa_cli.clients.transport import (
    BadAddress,
    BadSetting,
    NoConnection,
    TimedOut,
    TransportError,
)
from moa_cli.core.errors import (
    ClientError,
    ClientTimeout,
    ConnectionLost,
    RateLimited,
    RequestRefused,
    ServerFailed,
)
from moa_cli.core.sanitize import one_line
from moa_cli.core.text import without_login
from moa_cli.version import __version__

_HINT = "the same command fetches what is missing"
_HEADERS = {"user-agent": f"moa/{__version__}", "accept": "*/*", "accept-encoding": "gzip, deflate"}
# Seconds to wait for the head of the answer, and for each piece of the file.
_PATIENCE_SECONDS = 30.0


async def download(address: str) -> AsyncIterator[bytes]:
    """The bytes of the file at a web address, as they come.

    Raises ClientError, naming the address, if it is not there or does not come whole.
    """
    import asyncio

    shown = without_login(address)
    try:
        async with aclosing(Connections()) as connections:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                answer = await send(connections, "GET", address, _HEADERS)
            if answer.status != HTTPStatus.OK:
                raise _refusal(shown, answer.status)
            pieces = aiter(answer.chunks())
            while True:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    piece = await anext(pieces, None)
                if piece is None:
                    return
                yield piece
    except (TimedOut, TimeoutError):
        raise ClientTimeout(f"{shown}: no answer in time", hint=_HINT) from None
    except BadAddress:
        raise RequestRefused(f"{shown}: is not a web address") from None
    except BadSetting as error:
        raise ConnectionLost(f"{shown}: {error.problem}", hint=error.hint) from None
    except NoConnection as error:
        said = f" ({error.reason})" if error.reason else ""
        raise ConnectionLost(f"{shown}: no connection{said}", hint=error.hint or _HINT) from None
    except TransportError as error:
        said = one_line(without_login(str(error.__cause__ or "")), 200) or type(error).__name__
        raise ConnectionLost(f"{shown}: was not received completely: {said}", hint=_HINT) from None


def _refusal(address: str, status: int) -> ClientError:
    kind: type[ClientError] = RequestRefused
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = RateLimited
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = ServerFailed
    phrases = {known.value: f" {known.phrase}" for known in HTTPStatus}
    return kind(f"{address}: answered {status}{phrases.get(status, '')}", hint=_HINT)
