"""Whatever the SDK or httpx raises becomes a specific error of ours with a message.

By reflection over their exception classes, so that a class which they grow later fails here
until it has its place.
"""

from __future__ import annotations

import email.utils
import inspect
import json
import math
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
import together
from hypothesis import given
from hypothesis import strategies as st
from together import _exceptions as sdk_exceptions

from moa_cli.clients.error_mapper import ErrorMapper
from moa_cli.clients.together_sdk import explain
from moa_cli.clients.transport import Refused
from moa_cli.core.errors import (
    AuthenticationFailed,
    BadResponse,
    ClientError,
    ClientTimeout,
    ConnectionLost,
    ContextTooLong,
    ModelNotFound,
    NoCredit,
    RateLimited,
    RequestRefused,
    ServerFailed,
)

SAID = "marker-7319"
URL = "https://api.example.com/v1"
BY_STATUS: dict[int, type[ClientError]] = {
    400: RequestRefused,
    401: AuthenticationFailed,
    402: NoCredit,
    403: AuthenticationFailed,
    404: ModelNotFound,
    408: ClientTimeout,
    409: RequestRefused,
    413: ContextTooLong,
    422: RequestRefused,
    429: RateLimited,
    500: ServerFailed,
    503: ServerFailed,
    529: ServerFailed,
}
# What a user can always do something about.
ACTIONABLE = (AuthenticationFailed, RateLimited, ModelNotFound, ContextTooLong)
# Bases that are never raised themselves, and what belongs to parts of the SDK not in use here.
OUT_OF_REACH = {
    "TogetherError",
    "APIError",
    "DownloadError",
    "FileTypeError",
    "StreamAlreadyConsumed",
}


def mapper(**options: Any) -> ErrorMapper:
    return ErrorMapper("acme", URL, **options)


def mapped(error: Exception, **options: Any) -> ClientError:
    """What comes of an exception on its way through transport and error mapper."""
    return mapper(**options).from_exception(explain(error) or error, "m")


def refused(status: int, said: str, model: str | None, headers: Mapping[str, str]) -> ClientError:
    return mapper().from_exception(Refused(status, said, headers), model)


def subclasses(base: type[Exception]) -> Iterator[type[Exception]]:
    yield base
    for kind in base.__subclasses__():
        yield from subclasses(kind)


def sdk_classes() -> list[type[Exception]]:
    found = {*subclasses(together.TogetherError)}
    found |= {
        kind
        for kind in vars(sdk_exceptions).values()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }
    kept = (kind for kind in found if not kind.__module__.startswith("together.lib.realtime"))
    return sorted(kept, key=lambda kind: kind.__name__)


def build(kind: type[Exception], status: int = 200) -> Exception:
    """An instance, by the names of its constructor's parameters."""
    request = httpx.Request("POST", URL)
    known = {
        "message": SAID,
        "request": request,
        "response": httpx.Response(status, request=request),
        "body": {"error": {"message": SAID}} if status >= 400 else None,
    }
    if kind.__init__ is Exception.__init__:
        return kind(SAID)
    positional, named = [], {}
    for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = known[parameter.name]
        elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            positional.append(known[parameter.name])
    return kind(*positional, **named)


def is_sound(error: ClientError) -> bool:
    """Specific, with a message that names the endpoint, with a hint where there must be one."""
    return (
        type(error) is not ClientError
        and error.message.startswith("acme")
        and len(error.message) > len("acme: ")
        and (error.hint is None or bool(error.hint.strip()))
        and bool(error.hint or not isinstance(error, ACTIONABLE))
    )


@pytest.mark.parametrize("kind", sdk_classes(), ids=lambda kind: kind.__name__)
def test_every_exception_of_the_sdk_has_its_place(kind: type[Exception]) -> None:
    status = getattr(kind, "status_code", None)
    if issubclass(kind, together.APIStatusError):
        for told in [status] if isinstance(status, int) else BY_STATUS:
            error = mapped(build(kind, told))
            assert type(error) is BY_STATUS[told]
            assert SAID in error.message
            assert is_sound(error)
        return
    error = mapped(build(kind))
    assert is_sound(error)
    if issubclass(kind, together.APITimeoutError):
        assert type(error) is ClientTimeout
    elif issubclass(kind, together.APIConnectionError):
        assert type(error) is ConnectionLost
    elif issubclass(kind, together.APIResponseValidationError):
        assert type(error) is BadResponse
        assert SAID not in error.message
    else:
        assert kind.__name__ in OUT_OF_REACH, (
            f"the SDK has a new exception, {kind.__name__}: map it in together_sdk.explain"
        )


def test_classes_said_to_be_out_of_reach_exist() -> None:
    assert {kind.__name__ for kind in sdk_classes()} >= OUT_OF_REACH


HTTPX: dict[str, type[ClientError]] = {
    "CloseError": ConnectionLost,
    "ConnectError": ConnectionLost,
    "ConnectTimeout": ClientTimeout,
    "CookieConflict": BadResponse,
    "DecodingError": BadResponse,
    "HTTPError": ConnectionLost,
    "HTTPStatusError": ServerFailed,
    "InvalidURL": RequestRefused,
    "LocalProtocolError": ConnectionLost,
    "NetworkError": ConnectionLost,
    "PoolTimeout": ClientTimeout,
    "ProtocolError": ConnectionLost,
    "ProxyError": ConnectionLost,
    "ReadError": ConnectionLost,
    "ReadTimeout": ClientTimeout,
    "RemoteProtocolError": ConnectionLost,
    "RequestError": ConnectionLost,
    "RequestNotRead": ConnectionLost,
    "ResponseNotRead": ConnectionLost,
    "StreamClosed": ConnectionLost,
    "StreamConsumed": ConnectionLost,
    "StreamError": ConnectionLost,
    "TimeoutException": ClientTimeout,
    "TooManyRedirects": RequestRefused,
    "TransportError": ConnectionLost,
    "UnsupportedProtocol": RequestRefused,
    "WriteError": ConnectionLost,
    "WriteTimeout": ClientTimeout,
}
HTTPX_WITH_HINT = {"ConnectError", "ConnectTimeout", "InvalidURL", "UnsupportedProtocol"}


def httpx_classes() -> dict[str, type[Exception]]:
    roots = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict)
    found = {kind for root in roots for kind in subclasses(root)}
    exported = (getattr(httpx, name) for name in httpx.__all__)
    found |= {kind for kind in exported if inspect.isclass(kind) and issubclass(kind, Exception)}
    return {kind.__name__: kind for kind in found if kind.__module__.startswith("httpx")}


def test_every_exception_of_httpx_is_in_the_table() -> None:
    assert httpx_classes().keys() == HTTPX.keys()


@pytest.mark.parametrize(("name", "expected"), HTTPX.items())
def test_every_exception_of_httpx_has_its_place(name: str, expected: type[ClientError]) -> None:
    plain = build(httpx_classes()[name], 503)
    error = mapped(plain)
    assert type(error) is expected
    assert is_sound(error)
    assert SAID not in error.message or name == "HTTPStatusError"
    assert error.hint or name not in HTTPX_WITH_HINT


@pytest.mark.parametrize("name", sorted(HTTPX.keys() - {"HTTPStatusError"}))
def test_the_sdk_does_not_hide_what_httpx_said(name: str) -> None:
    wrapped = together.APIConnectionError(request=httpx.Request("POST", URL))
    wrapped.__cause__ = build(httpx_classes()[name])
    assert type(mapped(wrapped)) is HTTPX[name]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (TimeoutError(), ClientTimeout),
        (ConnectionRefusedError(111, "refused"), ConnectionLost),
        (ConnectionResetError(104, "reset"), ConnectionLost),
        (BrokenPipeError(), ConnectionLost),
        (socket.gaierror(-2, "Name or service not known"), ConnectionLost),
        (ssl.SSLError(1, "bad record"), ConnectionLost),
        (OSError(), ConnectionLost),
        (json.JSONDecodeError("x", "y", 0), BadResponse),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "no"), BadResponse),
        (ValueError("x"), BadResponse),
        (RuntimeError("odd"), BadResponse),
        (KeyError(), BadResponse),
        (Exception(), BadResponse),
    ],
    ids=lambda raised: type(raised).__name__ if isinstance(raised, Exception) else "",
)
def test_nothing_comes_out_as_it_went_in(raised: Exception, expected: type[ClientError]) -> None:
    error = mapped(raised)
    assert type(error) is expected
    assert is_sound(error)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[Errno 111] Connection refused", "(refused)"),
        ("All connection attempts failed", "(refused)"),
        ("[Errno -2] Name or service not known", "(unknown host)"),
        ("[Errno 8] nodename nor servname provided", "(unknown host)"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "(TLS failed)"),
        ("[Errno 101] Network is unreachable", "api.example.com"),
    ],
)
def test_why_no_connection_could_be_made_is_said(text: str, why: str) -> None:
    error = mapped(httpx.ConnectError(text))
    assert error.message.endswith(why)
    assert error.hint
    # What is wrong with a name, a port or a certificate stays wrong for longer than a turn waits.
    assert error.retryable is (why not in ("(unknown host)", "(refused)", "(TLS failed)"))


def test_a_server_of_this_machine_that_refuses_is_to_be_started_not_tried_again() -> None:
    refused = httpx.ConnectError("Connection refused")
    error = mapped(refused, start_hint="start it")
    assert (error.hint, error.retryable) == ("start it", False)


def test_a_circle_of_causes_is_walked_once() -> None:
    first, second = RuntimeError("one"), RuntimeError("two")
    first.__cause__, second.__cause__ = second, first
    assert type(mapped(first)) is BadResponse


@pytest.mark.parametrize(("status", "expected"), BY_STATUS.items())
def test_every_status_says_what_to_do_where_something_can_be_done(
    status: int, expected: type[ClientError]
) -> None:
    error = refused(status, SAID, "m", {})
    assert type(error) is expected
    assert is_sound(error)
    assert SAID in error.message


def test_a_404_that_concerns_no_model_is_about_the_base_url() -> None:
    error = refused(404, "not found", None, {})
    assert type(error) is RequestRefused
    assert "base URL" in str(error.hint)


@given(st.integers(400, 999), st.text(max_size=50))
def test_any_status_with_any_words_is_a_sound_error(status: int, said: str) -> None:
    error = refused(status, said, "m", {})
    assert type(error) is not ClientError
    assert "\n" not in error.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "detail", "type", "msg"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_in_place_of_a_completion_is_a_sound_error(payload: object) -> None:
    assert is_sound(mapper().from_payload(payload, "m"))


@pytest.mark.parametrize("status", [400, 401, 402, 403, 429])
@pytest.mark.parametrize(
    "said", ["Your credit balance is too low", "insufficient_quota", "Key credit limit exceeded"]
)
def test_no_credit_is_that_under_any_status(status: int, said: str) -> None:
    error = refused(status, said, "m", {})
    assert type(error) is NoCredit
    assert not error.retryable
    assert error.message == f"acme: no credit left: {said}"


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (400, "maximum prompt length is 131072 but the request contains 140000", ContextTooLong),
        (400, "Your request exceeded model token limit: 8192", ContextTooLong),
        (400, "The total tokens of your request exceed the model limit", ContextTooLong),
        (400, "prompt length (5000) should not exceed max_num_tokens (4096)", ContextTooLong),
        (400, "输入内容过长", ContextTooLong),
        (429, "Request too large for m on TPM: Limit 30000, Requested 40000", ContextTooLong),
        (400, "Invalid max_tokens value, the valid range is [1, 8192]", RequestRefused),
        (400, "Invalid token", AuthenticationFailed),
        (403, "API rate limit exceeded", RateLimited),
        (403, "The API requires a quota project", AuthenticationFailed),
    ],
)
def test_the_words_of_providers_tell_what_is_wrong(
    status: int, said: str, kind: type[ClientError]
) -> None:
    error = refused(status, said, "m", {})
    assert (type(error), error.retryable) == (kind, kind is RateLimited)


@given(JSON, st.sampled_from([400, 403, 404, 429, 500]))
def test_any_json_under_a_bad_status_is_a_sound_error(body: object, status: int) -> None:
    response = httpx.Response(status, request=httpx.Request("POST", URL))
    refused = together.APIStatusError("said", response=response, body=body)
    assert is_sound(mapped(refused))


PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)


@given(st.text(PRINTABLE, min_size=4, max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_no_key_of_four_letters_or_more_survives(key: str, before: str, after: str) -> None:
    cleaner = mapper()
    cleaner.secret = key
    struck = f"{before}{key}{after}".replace(key, "[key]")
    assert cleaner.clean(f"{before}{key}{after}") == " ".join(struck.split())


def retry_after(headers: Mapping[str, str]) -> float | None:
    return refused(429, "slow down", "m", httpx.Headers(headers)).retry_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3),
        ({"Retry-After": " 2.5 "}, 2.5),
        # What is no time to come says nothing.
        ({"retry-after": "0"}, None),
        ({"Retry-After": "-4"}, None),
        ({"retry-after": "0", "retry-after-ms": "0", "x-ratelimit-reset": "0"}, None),
        ({"Retry-After": "1m2.5s"}, 62.5),
        ({"Retry-After": "2999-01-01T00:00:20Z", "Date": "Tue, 01 Jan 2999 00:00:00 GMT"}, 20),
        # The endpoint's clock and ours may differ.
        (
            {
                "Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT",
                "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            30,
        ),
        ({"x-ratelimit-reset": "12.5"}, 12.5),
        ({"x-ratelimit-reset": "32503680007"} | {"Date": "Wed, 01 Jan 3000 00:00:00 GMT"}, 7),
        ({"X-RateLimit-Reset": "32503680007000"} | {"Date": "Wed, 01 Jan 3000 00:00:00 GMT"}, 7),
        ({"x-ratelimit-reset": "1741305600000"}, None),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        # The limit that is not reached is not the one that refused.
        (
            {
                "x-ratelimit-reset-requests": "20ms",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "149984",
            },
            0.02,
        ),
        (
            {
                "anthropic-ratelimit-tokens-reset": "2999-01-01T00:01:00Z",
                "Date": "Tue, 01 Jan 2999 00:00:00 GMT",
            },
            60,
        ),
        ({"retry-after": "3", "x-ratelimit-reset-requests": "1h"}, 3),
        # Cerebras.
        (
            {
                "x-ratelimit-reset-tokens-minute": "5.5",
                "x-ratelimit-remaining-tokens-minute": "0",
                "x-ratelimit-reset-requests-day": "33011",
                "x-ratelimit-remaining-requests-day": "14370",
            },
            5.5,
        ),
        # The drafts of the IETF; the first form is Hugging Face's.
        ({"ratelimit": '"api";r=0;t=30'}, 30),
        ({"RateLimit": '"burst";r=5;t=1, "day";r=0;t=600'}, 600),
        ({"ratelimit": "limit=100, remaining=0, reset=50"}, 50),
        ({"ratelimit": '"api";r=489;t=189'}, None),
        ({"ratelimit": f'"api";r={"9" * 5000};t={"9" * 5000}'}, None),
        # A proxy may join two headers into one.
        ({"Retry-After": "7, 7"}, 7),
        ({"Retry-After": "0, 0"}, None),
        ({"x-ratelimit-reset": "soon, 12"}, 12),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "1e999"}, None),
        ({"Retry-After-Ms": "1500"}, 1.5),
        ({"Retry-After-Ms": "1500", "Retry-After": "9"}, 1.5),
        ({"Retry-After-Ms": "soon", "Retry-After": "9"}, 9),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"Retry-After": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
        ({"Retry-After": "Wed, 21 Oct 99999999 07:28:00 GMT"}, None),
    ],
    ids=str,
)
def test_retry_after_is_seconds_or_a_date_or_nothing(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("Please retry in 20.04s.", 20.04),
        ("Please try again in 1m2.5s. Visit us", 62.5),
        ("Please try again in 6m0s.", 360),
        ("try again in 500ms", 0.5),
        ("Please retry after 26 seconds.", 26),
        ("retry after 1 second", 1),
        ("Please wait 20 seconds before you ask again", 20),
        ("try again in 2 minutes and 5 seconds", 125),
        ("Your quota will reset after 3h20m.", 12000),
        ("Retry after 30.", 30),
        ("retry in 0s", None),
        ("retry 3 times", None),
        ("try again in 2026-01-01", None),
        ("try again later", None),
    ],
)
def test_a_message_may_say_how_long_to_wait(said: str, seconds: float | None) -> None:
    assert refused(429, said, "m", {}).retry_after == seconds


@pytest.mark.parametrize(
    "body",
    [
        [{"error": {"message": "quota", "details": [{"reason": "X"}, {"retryDelay": "20.5s"}]}}],
        {"error": {"message": "quota", "details": [{"retryDelay": {"seconds": 20, "nanos": 5e8}}]}},
        {"error": {"message": "slow down", "retry_after": 20.5}},
        {"message": "slow down", "retryAfter": "20.5"},
        {"error": {"message": "no", "metadata": {"raw": '{"error": {"retry_after": 20.5}}'}}},
        {"error": {"message": "no", "metadata": {"headers": {"X-RateLimit-Reset": "20.5"}}}},
    ],
    ids=["Google", "Google's duration", "seconds", "text", "of another", "another's header"],
)
def test_so_may_the_fields_of_a_body(body: object) -> None:
    assert mapper().from_exception(Refused(429, body, {}), "m").retry_after == 20.5
    # The limit on requests is no reason why a server fails.
    failed = mapper().from_exception(Refused(503, "down", {"X-RateLimit-Reset": "20"}), "m")
    assert failed.retry_after is None


def test_a_date_to_come_is_the_seconds_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_445_412_480.0
    monkeypatch.setattr("moa_cli.clients.retry_after.time.time", lambda: now)
    date = email.utils.formatdate(now + 90, usegmt=True)
    assert retry_after({"Retry-After": date}) == 90


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=40))
def test_no_retry_after_breaks_the_error_it_came_with(text: str) -> None:
    told = retry_after({"Retry-After": text})
    assert told is None or (math.isfinite(told) and told >= 0)
