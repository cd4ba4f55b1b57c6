"""The errors of a request on the way to an endpoint and back.

Transports raise only these errors, so the code that uses them knows no exceptions of a library.
"""

from __future__ import annotations

from collections.abc import Mapping


class TransportError(Exception):
    """Why a request got no complete answer. The `__cause__` is the library's exception."""


class Refused(TransportError):
    """The endpoint answered with a status of 300 or more. body: parsed JSON, or text. moved: the
    address of a redirect that has lost the key or the body of the request, or ""."""

    def __init__(
        self, status: int, body: object, headers: Mapping[str, str], moved: str = ""
    ) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.headers = headers
        self.moved = moved


class ErrorObject(TransportError):
    """An error object in an answer with a good status, or in a stream.

    payload: the object, or a text. begun: whether the endpoint had begun to answer.
    """

    def __init__(self, payload: object, *, begun: bool = False) -> None:
        super().__init__("error object")
        self.payload = payload
        self.begun = begun


class TimedOut(TransportError):
    """No answer in time."""


class BadAddress(TransportError):
    """The base URL is not a web address."""


class RedirectLoop(TransportError):
    """The endpoint redirects endlessly."""


class NoConnection(TransportError):
    """No connection could be made, and nothing was sent.

    reason: in a few words, or "" if unknown. hint: what the user can do.
    """

    def __init__(self, reason: str = "", hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class BadSetting(TransportError):
    """A proxy, or certificates, that the environment names cannot be used.

    problem: begins with the name of the variable. retryable: whether a retry may succeed.
    """

    def __init__(self, problem: str, hint: str | None = None, *, retryable: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.retryable = retryable


class Broken(TransportError):
    """The connection broke."""


class Unreadable(TransportError):
    """The received bytes are not valid HTTP or JSON.

    encoding: the content encoding that cannot be decoded, or "".
    """

    def __init__(self, encoding: str = "") -> None:
        super().__init__(f"content encoding {encoding}" if encoding else "")
        self.encoding = encoding


class TooLong(TransportError):
    """An answer is larger than allowed. most: the limit in bytes."""

    def __init__(self, most: int) -> None:
        super().__init__(f"over {most} bytes")
        self.most = most


def causes_of(error: BaseException | None) -> list[BaseException]:
    """An error, and what led to it."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
