"""The client against a real HTTP endpoint: what it sends, what it makes of every answer, and
that it leaves nothing behind. Whatever goes wrong comes out as one of our errors, without
the key."""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from moa_cli.clients.openai_compatible import OpenAICompatible
from moa_cli.core.conversation import Message, Usage
from moa_cli.core.endpoints import NO_KEY, Delta, ModelInfo, Request
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
from moa_cli.core.money import Price
from moa_cli.models.providers import is_loopback
from moa_cli.models.table import Provider
from moa_cli.version import __version__
from tests.support.deltas import joined
from tests.support.network import nobody
from tests.support.upstream import Reply, Upstream

KEY = "sk-a-secret-key-0123456789"
# With a delta for each token, and with one for all that came at once: the same of every endpoint.
MERGED = {"single": False, "merged": True}
carried: dict[str, Any] = {}
# All other options are those of a provider.
OF_CLIENTS = ("extras", "headers", "sdk_lists", "on_blind", "on_left_out")


@pytest.fixture(autouse=True, params=MERGED)
def merged(request: pytest.FixtureRequest) -> None:
    """Every test runs with single deltas and with merged ones."""
    carried["many_calls"] = MERGED[request.param]


HELLO = Request(model="m", messages=(Message("user", "hello"),))


@asynccontextmanager
async def client_of(
    url: str, *, key: str = KEY, provider: str = "acme", **options: Any
) -> AsyncIterator[OpenAICompatible]:
    own = {name: options.pop(name) for name in OF_CLIENTS if name in options}
    client = OpenAICompatible(
        Provider(name=provider, base_url=url, **options), lambda: key, **carried, **own
    )
    try:
        yield client
    finally:
        await client.aclose()


async def answer(client: OpenAICompatible, request: Request) -> Delta:
    """The whole answer as one delta."""
    async with aclosing(client.stream(request)) as deltas:
        return joined([delta async for delta in deltas])


def ask(url: str, *requests: Request, **options: Any) -> list[Delta]:
    """What one client answers to these requests, one after the other."""

    async def run() -> list[Delta]:
        async with client_of(url, **options) as client:
            return [await answer(client, request) for request in requests or (HELLO,)]

    return asyncio.run(run())


def refusal(url: str, request: Request = HELLO, **options: Any) -> ClientError:
    """The error that one call ends in."""
    with pytest.raises(ClientError) as raised:
        ask(url, request, **options)
    return raised.value


def error_body(message: str, code: object = None, **more: object) -> dict[str, object]:
    return {"error": {"message": message, "code": code, **more}}


# --- what is sent


def test_a_plain_request_holds_only_what_was_set(upstream: Upstream) -> None:
    ask(upstream.url)
    assert upstream.chats()[0].body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_every_setting_reaches_the_request_and_extra_fields_come_last(upstream: Upstream) -> None:
    full = Request(
        model="m",
        messages=(
            Message("system", "be brief"),
            Message("user", "a"),
            Message("assistant", "b"),
            Message("user", "c"),
        ),
        temperature=0,
        max_tokens=7,
        top_p=0.5,
        seed=0,
        extra={"repeat_penalty": 1.1, "top_p": 0.9, "stop": ["x"], "nothing": None},
    )
    ask(upstream.url, full)
    assert upstream.chats()[0].body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": 7,
        "top_p": 0.9,
        "seed": 0,
        "repeat_penalty": 1.1,
        "stop": ["x"],
    }


def test_the_limit_goes_by_its_newer_name_where_the_provider_wants_that(
    upstream: Upstream,
) -> None:
    limited = Request(model="m", messages=HELLO.messages, max_tokens=7)
    ask(upstream.url, limited, quirks=("max_completion_tokens",))
    body = upstream.chats()[0].body
    assert body["max_completion_tokens"] == 7
    assert "max_tokens" not in body


def test_key_and_user_agent_are_ours(upstream: Upstream) -> None:
    ask(upstream.url)
    sent = upstream.chats()[0]
    assert sent.path == "/v1/chat/completions"
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["user-agent"] == f"moa/{__version__}"


def test_half_a_surrogate_pair_in_a_prompt_is_sent_as_a_question_mark(upstream: Upstream) -> None:
    torn = Request(model="m", messages=(Message("user", "a\ud83db\udc00 🙂"),))
    assert ask(upstream.url, torn)[0].text == "ok"
    assert upstream.chats()[0].messages == [{"role": "user", "content": "a?b? 🙂"}]


def test_settings_of_the_sdk_in_the_environment_do_not_reach_another_provider(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOGETHER_API_KEY", "together-key")
    monkeypatch.setenv("TOGETHER_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv(
        "TOGETHER_CUSTOM_HEADERS", "X-Team: together-team\nAuthorization: together-token"
    )
    monkeypatch.setenv("TOGETHER_PROJECT_ID", "together-project")

    async def run() -> None:
        async with client_of(upstream.url, key=NO_KEY) as client:
            await answer(client, HELLO)
            await client.models()

    asyncio.run(run())
    assert len(upstream.requests) == 2
    for request in upstream.requests:
        assert request.headers["authorization"] == "Bearer none"
        assert "together" not in str(request.headers).lower()
        assert "x-team" not in request.headers


def test_custom_headers_for_together_reach_together(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOGETHER_CUSTOM_HEADERS", "X-Team: blue")
    ask(upstream.url, provider="together")
    assert upstream.chats()[0].headers["x-team"] == "blue"
    assert upstream.chats()[0].headers["user-agent"] == f"moa/{__version__}"


def test_a_proxy_does_not_see_what_stays_on_this_machine(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(upstream.url)[0].text == "ok"


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://127.8.9.1/v1", True),
        ("http://[::1]:1/v1", True),
        ("http://localhost/v1", True),
        ("http://localhost.example.com/v1", False),
        ("http://10.0.0.1/v1", False),
        ("https://api.example.com/127.0.0.1", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_loopback_is_told_by_the_host_alone(url: str, here: bool) -> None:
    assert is_loopback(url) is here


def test_the_key_is_asked_for_once_and_not_before_the_first_call(upstream: Upstream) -> None:
    asked: list[str] = []

    def key() -> str:
        asked.append("key")
        return KEY

    async def run() -> None:
        client = OpenAICompatible(Provider(name="acme", base_url=upstream.url), key, **carried)
        assert asked == []
        await asyncio.gather(*(answer(client, HELLO) for _ in range(3)))
        await client.aclose()

    asyncio.run(run())
    assert asked == ["key"]
    assert len(upstream.chats()) == 3


def test_a_key_that_could_not_be_had_is_asked_for_again(upstream: Upstream) -> None:
    keys: list[str | Exception] = [AuthenticationFailed("there is no API key"), KEY]

    def key() -> str:
        found = keys.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def run() -> str:
        client = OpenAICompatible(Provider(name="acme", base_url=upstream.url), key, **carried)
        with pytest.raises(AuthenticationFailed, match="there is no API key"):
            await answer(client, HELLO)
        text = (await answer(client, HELLO)).text
        await client.aclose()
        return text

    assert asyncio.run(run()) == "ok"


# --- what is read


@pytest.mark.parametrize("style", ["own_chunk", "with_choices", "x_groq"])
@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_an_answer_comes_with_reasoning_usage_and_the_model_that_gave_it(
    upstream: Upstream, style: Any, field: str
) -> None:
    script = Reply(
        chunks=["Grüße, ", "\u2028", "🙂"],
        reasoning=["hm ", "hm"],
        reasoning_field=field,
        usage=(5, 9),
        usage_style=style,
        model="m-0613",
        finish_reason="length",
        byte_by_byte=True,
        crlf=True,
        comments=True,
    )
    upstream.enqueue("m", script)
    assert ask(upstream.url) == [
        Delta(
            text="Grüße, \u2028🙂",
            reasoning="hm hm",
            usage=Usage(prompt_tokens=5, completion_tokens=9, calls=1, unpriced_calls=1),
            finish_reason="length",
            model="m-0613",
        )
    ]


def test_an_answer_without_a_count_has_no_usage(upstream: Upstream) -> None:
    upstream.enqueue("m", Reply(usage=None))
    assert ask(upstream.url)[0].usage is None


def test_deltas_arrive_while_the_answer_is_still_being_written(upstream: Upstream) -> None:
    upstream.enqueue("m", Reply(text="a b c", stall_after=2))

    async def run() -> str:
        text = ""
        async with client_of(upstream.url) as client, aclosing(client.stream(HELLO)) as deltas:
            async for delta in deltas:
                text += delta.text
                if text == "a b ":
                    break
        return text

    assert asyncio.run(run()) == "a b "


def test_a_whole_completion_in_place_of_a_stream_is_an_answer(upstream: Upstream) -> None:
    whole = {
        "model": "m",
        "choices": [{"message": {"content": "<think>hm</think>yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    upstream.enqueue("m", Reply(error=whole))
    assert ask(upstream.url) == [
        Delta(
            text="yes",
            reasoning="hm",
            usage=Usage(prompt_tokens=1, completion_tokens=2, calls=1, unpriced_calls=1),
            finish_reason="stop",
            model="m",
        )
    ]


def test_a_setting_may_turn_streaming_off(upstream: Upstream) -> None:
    still = Request(model="m", messages=HELLO.messages, extra={"stream": False})
    assert ask(upstream.url, still)[0].text == "ok"


def test_a_web_page_under_a_good_status_is_a_bad_response(upstream: Upstream) -> None:
    upstream.enqueue("m", Reply(status=200, error="<html><title>Log in</title></html>"))
    error = refusal(upstream.url)
    assert type(error) is BadResponse
    assert "web page" in error.message


@pytest.mark.parametrize("body", [{"object": "list"}, [], {"choices": []}, {"choices": None}, 7])
def test_json_that_is_no_completion_is_a_bad_response(upstream: Upstream, body: object) -> None:
    upstream.enqueue("m", Reply(error=body))
    error = refusal(upstream.url)
    assert type(error) is BadResponse
    assert error.message == "acme: the answer is not a completion"


@pytest.mark.parametrize("raw", [b"data: {oops\n\n", b"data: 7\n\n"])
def test_a_stream_of_nonsense_is_a_bad_response(upstream: Upstream, raw: bytes) -> None:
    upstream.enqueue("m", Reply(raw=raw))
    assert type(refusal(upstream.url)) is BadResponse


@pytest.mark.parametrize("encoding", ["br", "gzip", "x-gzip", "gzip, gzip"])
def test_a_content_encoding_that_cannot_be_decoded_is_named(
    upstream: Upstream, encoding: str
) -> None:
    raw = b"nonsense" if encoding in ("br", "gzip") else gzip.compress(b"data: {}")
    upstream.enqueue("m", Reply(raw=raw, headers={"Content-Encoding": encoding}))
    error = refusal(upstream.url)
    assert error.message == "acme: the answer could not be read"
    assert error.hint == f"its content encoding, {encoding}, could not be decoded"


@pytest.mark.parametrize("place", ["whole", "first event", "later event"])
@pytest.mark.parametrize(
    ("message", "code", "kind"),
    [
        ("it broke", None, ServerFailed),
        ("it broke", 503, ServerFailed),
        ("slow down", 429, RateLimited),
        ("slow down", "429", RateLimited),
        ("Rate limit reached for m", "rate_limit_exceeded", RateLimited),
        ("who are you", 401, AuthenticationFailed),
        ("Incorrect API key provided", "invalid_api_key", AuthenticationFailed),
        ("the prompt is too long: 9 > 8", "context_length_exceeded", ContextTooLong),
        ("no such", "model_not_found", ModelNotFound),
        ("odd field", 400, RequestRefused),
    ],
)
def test_an_error_under_a_good_status_is_the_error_that_it_says(
    upstream: Upstream, place: str, message: str, code: object, kind: type[ClientError]
) -> None:
    body = error_body(message, code)
    replies = {
        "whole": Reply(error=body),
        "first event": Reply(events=[body]),
        "later event": Reply(events=[{"choices": [{"delta": {"content": "a"}}]}, body]),
    }
    upstream.enqueue("m", replies[place])
    found = refusal(upstream.url)
    if place == "later event" and kind is RequestRefused:
        # An answer had begun, so it was not the request that was refused.
        kind = ServerFailed
    assert type(found) is kind
    assert message in found.message


@pytest.mark.parametrize("body", [{"error": "it broke"}, {"error": {}, "message": "it broke"}])
def test_an_error_is_read_in_whatever_shape_it_comes(upstream: Upstream, body: object) -> None:
    upstream.enqueue("m", Reply(error=body))
    assert refusal(upstream.url).message == "acme failed: it broke"


# --- statuses


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (400, error_body("odd field"), RequestRefused, False),
        (400, error_body("This model's maximum context length is 8 tokens"), ContextTooLong, False),
        (400, error_body("x", "context_length_exceeded"), ContextTooLong, False),
        (400, error_body("x", type="exceed_context_size_error"), ContextTooLong, False),
        (
            400,
            error_body("`inputs` tokens + `max_new_tokens` must be <= 8193"),
            ContextTooLong,
            False,
        ),
        (400, error_body("m is not a valid model ID"), ModelNotFound, False),
        (400, {"message": "The model m has been decommissioned"}, ModelNotFound, False),
        (401, error_body("no"), AuthenticationFailed, False),
        (402, error_body("pay"), NoCredit, False),
        (403, error_body("no"), AuthenticationFailed, False),
        (404, error_body("The model `m` does not exist"), ModelNotFound, False),
        (404, "404 page not found", ModelNotFound, False),
        (408, error_body("late"), ClientTimeout, True),
        (409, error_body("conflict"), RequestRefused, False),
        (413, "<html><title>Too large</title></html>", ContextTooLong, False),
        (422, {"detail": [{"msg": "odd", "loc": ["body"]}]}, RequestRefused, False),
        (429, error_body("slow down"), RateLimited, True),
        (429, error_body("x", "insufficient_quota"), NoCredit, False),
        (
            429,
            error_body(
                "Rate limit reached. Add a payment method at https://x/billing to raise it."
            ),
            RateLimited,
            True,
        ),
        (500, error_body("oops"), ServerFailed, True),
        (500, error_body("maximum context length is 8"), ServerFailed, True),
        (502, "<html><h1>a long page</h1></html>", ServerFailed, True),
        (503, "<html><head><title>Down</title></head></html>", ServerFailed, True),
        (529, "", ServerFailed, True),
        (599, {}, ServerFailed, True),
    ],
)
def test_each_status_becomes_its_error(
    upstream: Upstream, status: int, body: object, kind: type[ClientError], retryable: bool
) -> None:
    upstream.enqueue("m", Reply(status=status, error=body))
    error = refusal(upstream.url)
    assert type(error) is kind
    assert error.retryable is retryable
    assert "acme" in error.message
    assert "<h" not in error.message
    assert len(upstream.chats()) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failed_call_is_not_made_again_behind_our_back(upstream: Upstream, status: int) -> None:
    upstream.enqueue("m", Reply(status=status))
    refusal(upstream.url)
    assert len(upstream.chats()) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_kept(upstream: Upstream, status: int) -> None:
    upstream.enqueue("m", Reply(status=status, headers={"Retry-After": "7.5"}))
    assert refusal(upstream.url).retry_after == 7.5


def test_retry_after_as_a_date_becomes_seconds(upstream: Upstream) -> None:
    date = email.utils.formatdate(time.time() + 1000, usegmt=True)
    upstream.enqueue("m", Reply(status=429, headers={"Retry-After": date}))
    assert refusal(upstream.url).retry_after == pytest.approx(1000, abs=120)


def test_without_retry_after_there_is_none(upstream: Upstream) -> None:
    upstream.enqueue("m", Reply(status=429))
    assert refusal(upstream.url).retry_after is None


def test_what_the_endpoint_says_is_one_line_and_not_endless(upstream: Upstream) -> None:
    upstream.enqueue("m", Reply(status=400, error=error_body("so\r\n  it\tgoes " * 500)))
    message = refusal(upstream.url).message
    assert "\n" not in message
    assert len(message) < 400


# --- the key stays a secret


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=401, error=error_body(f"Incorrect API key provided: {KEY}.")),
        Reply(status=400, error=error_body(f"odd header: Bearer {KEY}")),
        Reply(status=403, error=f"<html><title>{KEY}</title></html>"),
        Reply(status=404, error=f"no route for {KEY}"),
        Reply(status=429, error={"message": KEY}),
        Reply(status=500, error={"unknown": {"shape": KEY}}),
        Reply(error=error_body(f"key {KEY}")),
        Reply(events=[error_body(f"key {KEY}")]),
        Reply(events=[{"error": KEY}]),
    ],
)
def test_a_key_that_the_endpoint_repeats_is_struck_out(upstream: Upstream, reply: Reply) -> None:
    upstream.enqueue("m", reply)
    error = refusal(upstream.url)
    assert KEY not in f"{error} {error.message} {error.hint} {error!r}"
    assert "[key]" in error.message


def test_a_wrong_key_is_refused_without_being_shown() -> None:
    with Upstream(api_key="right", models=["m"]) as up:
        error = refusal(up.url)
        assert type(error) is AuthenticationFailed
        assert "[key]" in error.message
        assert "moa doctor" in str(error.hint)

        async def models() -> None:
            async with client_of(up.url) as client:
                await client.models()

        with pytest.raises(AuthenticationFailed, match=re.escape("[key]")):
            asyncio.run(models())


def test_the_word_none_is_no_secret(upstream: Upstream) -> None:
    upstream.enqueue("m", Reply(status=400, error=error_body("none of this is allowed")))
    assert "none of this" in refusal(upstream.url, key=NO_KEY).message


# --- models that are not there


def test_a_missing_model_gets_the_names_most_like_it() -> None:
    listed = ["qwen/qwen3-32b", "qwen/qwen3-8b", "meta/llama-3", "gemma"]
    with Upstream(models=listed) as up:
        up.enqueue("qwen/qwen3-33b", Reply(status=404, error=error_body("no such model")))
        request = Request(model="qwen/qwen3-33b", messages=HELLO.messages)
        acme = refusal(up.url, request)
        up.enqueue("qwen3-8B", Reply(events=[error_body("no such model", "model_not_found")]))
        tail = refusal(up.url, Request(model="qwen3-8B", messages=HELLO.messages))
        up.enqueue("qwen/qwen3-33b", Reply(status=404))
        together = refusal(up.url, request, provider="together")
    assert type(acme) is ModelNotFound
    assert acme.hint == "did you mean `acme:qwen/qwen3-32b`, `acme:qwen/qwen3-8b`?"
    assert "`acme:qwen/qwen3-8b`" in str(tail.hint)
    assert "`qwen/qwen3-32b`" in str(together.hint)


def test_a_missing_model_unlike_any_other_points_to_the_list() -> None:
    with Upstream(models=["gemma"]) as up:
        error = refusal(up.url, Request(model="zzz", messages=HELLO.messages))
        bare = refusal(
            up.url, Request(model="gpt-4.1", messages=HELLO.messages), provider="together"
        )
    assert error.hint == "`moa models acme` lists its models"
    assert str(bare.hint).endswith("written with its name, as in `openai:gpt-4.1`")


def test_a_missing_model_where_nothing_is_listed_may_mean_a_wrong_base_url(
    upstream: Upstream,
) -> None:
    error = refusal(upstream.url.removesuffix("/v1") + "/wrong")
    assert type(error) is ModelNotFound
    assert "base URL" in str(error.hint)


def test_names_are_fetched_once_for_many_misses() -> None:
    with Upstream(models=["gemma"]) as up:

        async def run() -> None:
            async with client_of(up.url) as client:
                for name in ("gamma", "gemmo"):
                    with pytest.raises(ModelNotFound):
                        await answer(client, Request(model=name, messages=HELLO.messages))

        asyncio.run(run())
        assert [r.path for r in up.requests].count("/v1/models") == 1


# --- fields that an endpoint does not take


LIMITED = Request(model="m", messages=HELLO.messages, temperature=0.7, max_tokens=9)


@pytest.mark.parametrize(
    ("status", "body", "change"),
    [
        (
            400,
            error_body("Unrecognized request argument supplied: stream_options"),
            {"stream_options": None},
        ),
        (
            422,
            {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs not permitted"}]},
            {"stream_options": None},
        ),
        (
            400,
            error_body("Unsupported value: 'temperature' does not support 0.7 with this model."),
            {"temperature": None},
        ),
        (
            400,
            error_body(
                "Unsupported parameter: 'max_tokens' is not supported with this model."
                " Use 'max_completion_tokens' instead."
            ),
            {"max_tokens": None, "max_completion_tokens": 9},
        ),
    ],
    ids=["stream_options", "stream_options by pydantic", "temperature", "max_tokens"],
)
def test_a_refused_field_is_left_out_or_replaced_at_once_and_from_then_on(
    upstream: Upstream, status: int, body: object, change: dict[str, object]
) -> None:
    upstream.enqueue("m", Reply(status=status, error=body))
    assert [item.text for item in ask(upstream.url, LIMITED, LIMITED)] == ["ok", "ok"]
    first, second, third = (request.body for request in upstream.chats())
    changed = {key: value for key, value in {**first, **change}.items() if value is not None}
    assert second == changed
    assert third == changed


def test_the_older_name_of_the_limit_is_tried_where_the_newer_is_refused(
    upstream: Upstream,
) -> None:
    refused = error_body("unknown field max_completion_tokens")
    upstream.enqueue("m", Reply(status=400, error=refused))
    ask(upstream.url, LIMITED, quirks=("max_completion_tokens",))
    assert "max_tokens" not in upstream.chats()[0].body
    assert upstream.chats()[1].body["max_tokens"] == 9
    assert "max_completion_tokens" not in upstream.chats()[1].body


def test_one_model_may_refuse_several_fields_and_another_none(upstream: Upstream) -> None:
    for field in ("max_tokens", "temperature", "stream_options"):
        upstream.enqueue("m", Reply(status=400, error=error_body(f"Unsupported: '{field}'")))
    other = Request(model="other", messages=HELLO.messages, temperature=0.7, max_tokens=9)
    ask(upstream.url, LIMITED, other)
    bodies = [request.body for request in upstream.chats()]
    assert len(bodies) == 5
    assert bodies[3] == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "max_completion_tokens": 9,
    }
    assert bodies[4].keys() >= {"temperature", "max_tokens", "stream_options"}


def test_an_endpoint_that_refuses_a_field_for_ever_is_not_asked_for_ever(
    upstream: Upstream,
) -> None:
    upstream.always("m", Reply(status=400, error=error_body("Unsupported: 'temperature'")))
    assert type(refusal(upstream.url, LIMITED)) is RequestRefused
    assert len(upstream.chats()) == 2


def test_a_refusal_that_only_names_a_field_is_final(upstream: Upstream) -> None:
    upstream.enqueue("m", Reply(status=400, error=error_body("max_tokens must be at most 8")))
    assert type(refusal(upstream.url, LIMITED)) is RequestRefused
    assert len(upstream.chats()) == 1


LED = Request(
    model="m",
    messages=(
        Message("system", "Be brief."),
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
    ),
)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "System role not supported"),
        (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
        (400, "Developer instruction is not enabled for models/gemma-3-27b-it"),
        (422, "This model does not support system messages"),
        (500, "Only user, assistant and tool roles are supported, got system."),
    ],
)
def test_a_model_without_a_system_role_is_told_the_same_by_the_user(
    upstream: Upstream, status: int, words: str
) -> None:
    upstream.enqueue("m", Reply(status=status, error=error_body(words)))
    assert [item.text for item in ask(upstream.url, LED, LED)] == ["ok", "ok"]
    merged = [
        {"role": "user", "content": "Be brief.\n\na"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    first, second, third = (request.body["messages"] for request in upstream.chats())
    assert first[0] == {"role": "system", "content": "Be brief."}
    assert second == third == merged


def test_a_refused_role_is_no_reason_to_ask_again_where_there_is_no_system_message(
    upstream: Upstream,
) -> None:
    upstream.enqueue("m", Reply(status=400, error=error_body("System role not supported")))
    error = refusal(upstream.url)
    assert type(error) is RequestRefused
    assert 'reference_placement = "user"' in str(error.hint)
    assert len(upstream.chats()) == 1


def test_a_field_that_takes_one_value_only_is_left_out(upstream: Upstream) -> None:
    said = error_body("invalid temperature: only 1 is allowed for this model")
    upstream.enqueue("m", Reply(status=400, error=said))
    ask(upstream.url, LIMITED)
    assert "temperature" not in upstream.chats()[1].body


@pytest.mark.parametrize("path", ["/chat/completions", "/chat/completions/", "/responses"])
def test_a_base_url_that_holds_the_path_of_a_call_is_named(upstream: Upstream, path: str) -> None:
    error = refusal(upstream.url + path)
    assert type(error) is RequestRefused
    assert path.rstrip("/") in error.message
    assert path.rstrip("/") in str(error.hint)
    assert not upstream.chats()


def test_an_answer_is_kept_whose_connection_drops_behind_it(upstream: Upstream) -> None:
    choice: dict[str, Any] = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
    end = {"choices": [{**choice, "delta": {}, "finish_reason": "stop"}]}
    dropped = Reply(events=[{"choices": [choice]}, end, "[DONE]"], drop_after=2)
    upstream.enqueue("m", dropped)
    assert ask(upstream.url)[0].text == "x"
    upstream.enqueue("m", Reply(events=[{"choices": [choice]}, end], drop_after=1))
    assert type(refusal(upstream.url)) is ConnectionLost


def test_what_a_refusal_bills_counts(upstream: Upstream) -> None:
    body = {**error_body("no tool was called", "tool_use_failed"), "usage": {"prompt_tokens": 7}}
    upstream.enqueue("m", Reply(status=400, error=body))
    told: list[Delta] = []

    async def run() -> None:
        async with client_of(upstream.url) as client, aclosing(client.stream(HELLO)) as deltas:
            async for delta in deltas:
                told.append(delta)

    with pytest.raises(RequestRefused):
        asyncio.run(run())
    assert joined(told).usage == Usage(prompt_tokens=7, calls=1, unpriced_calls=1)


# --- connections


def test_no_one_listening_is_a_lost_connection() -> None:
    port = nobody()
    error = refusal(f"http://127.0.0.1:{port}/v1")
    assert type(error) is ConnectionLost
    assert error.message == f"acme: no connection to 127.0.0.1:{port} (refused)"
    assert not error.retryable
    started = refusal(f"http://127.0.0.1:{port}/v1", start_hint="start it with `acme serve`")
    assert started.hint == "start it with `acme serve`"
    assert not started.retryable


def test_an_unknown_host_is_a_lost_connection() -> None:
    error = refusal("https://nowhere.invalid/v1")
    assert type(error) is ConnectionLost
    assert error.message == "acme: no connection to nowhere.invalid (unknown host)"
    assert error.hint


def test_a_server_that_speaks_no_tls_is_a_lost_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_plainly() -> None:
            with server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        plain = threading.Thread(target=answer_plainly)
        plain.start()
        error = refusal(f"https://127.0.0.1:{server.getsockname()[1]}/v1")
        plain.join()
    assert type(error) is ConnectionLost
    assert error.message.endswith("(TLS failed: the server does not use TLS)")


def test_a_user_name_and_password_in_the_base_url_are_not_shown() -> None:
    port = nobody()
    for url in (f"http://me:hidden@127.0.0.1:{port}/v1", "http://me:hidden@host:99999/v1"):
        error = refusal(url)
        assert "hidden" not in f"{error.message} {error.hint}"


@pytest.mark.parametrize(
    "reply",
    [Reply(refuse=True), Reply(text="a b c", drop_after=1), Reply(text="a b c", end_early=True)],
    ids=["before any byte", "in the middle", "without an end"],
)
def test_a_connection_that_breaks_is_a_lost_connection(upstream: Upstream, reply: Reply) -> None:
    upstream.enqueue("m", reply)
    error = refusal(upstream.url)
    assert type(error) is ConnectionLost
    assert error.retryable


def test_after_a_broken_connection_the_next_call_works(upstream: Upstream) -> None:
    upstream.enqueue("m", Reply(text="a b c", drop_after=1))

    async def run() -> str:
        async with client_of(upstream.url) as client:
            with pytest.raises(ConnectionLost):
                await answer(client, HELLO)
            return (await answer(client, HELLO)).text

    assert asyncio.run(run()) == "ok"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:1234/v1",
        "ftp://host/v1",
        "http://",
        "http:///v1",
        "http://[::1",
        "http://host:port/v1",
        "http://\ud800/v1",
    ],
)
def test_a_base_url_that_is_none_is_refused_with_a_hint(url: str) -> None:
    error = refusal(url)
    assert type(error) is RequestRefused
    assert error.message == "acme: the base URL is not a web address"
    assert "https://host/v1" in str(error.hint)


@pytest.mark.parametrize("status", [301, 308])
def test_a_redirect_that_loses_the_key_is_named(upstream: Upstream, status: int) -> None:
    with Upstream(api_key=KEY) as other:
        location = {"Location": f"{other.url}/chat/completions?x=1"}
        upstream.enqueue("m", Reply(status=status, headers=location))
        error = refusal(upstream.url)
    assert type(error) is AuthenticationFailed
    assert error.hint == f"the base URL redirects: set it to {other.url}"


def test_a_redirect_that_loses_the_body_is_named(upstream: Upstream) -> None:
    location = {"Location": f"{upstream.url}/chat/completions"}
    upstream.enqueue("m", Reply(status=301, headers=location))
    error = refusal(upstream.url)
    assert type(error) is ModelNotFound
    assert error.hint == f"the base URL redirects: set it to {upstream.url}"


def test_a_slash_at_the_end_of_the_base_url_does_no_harm(upstream: Upstream) -> None:
    assert ask(upstream.url + "/")[0].text == "ok"
    assert upstream.chats()[0].path == "/v1/chat/completions"


# --- leaving


async def _until(condition: Callable[[], bool], upstream: Upstream) -> None:
    await asyncio.to_thread(upstream.wait_for, condition)


def leaves(upstream: Upstream, leave: Callable[[OpenAICompatible], Awaitable[None]]) -> None:
    """Check that after `leave` neither the connection nor a task is there any more."""

    async def run() -> None:
        async with client_of(upstream.url) as client:
            await answer(client, HELLO)
            before = len(asyncio.all_tasks())
            upstream.enqueue("m", Reply(text="a b c", stall_after=1))
            await leave(client)
            await _until(lambda: upstream.chats()[-1].disconnected, upstream)
            await _until(lambda: upstream.open_connections == 0, upstream)
            # The generators inside of httpx are closed by the loop, one after the other.
            async with asyncio.timeout(30):
                while len(asyncio.all_tasks()) > before:
                    await asyncio.sleep(0)
            # The client itself goes on.
            assert (await answer(client, HELLO)).text == "ok"
        await _until(lambda: upstream.open_connections == 0, upstream)

    asyncio.run(run())


def test_cancelling_a_call_closes_its_connection(upstream: Upstream) -> None:
    async def cancel(client: OpenAICompatible) -> None:
        call = asyncio.create_task(answer(client, HELLO))
        await _until(
            lambda: upstream.chats()[1:2] != [] and upstream.chats()[1].sent == 1, upstream
        )
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    leaves(upstream, cancel)


def test_closing_a_stream_midway_closes_its_connection(upstream: Upstream) -> None:
    async def close(client: OpenAICompatible) -> None:
        async with aclosing(client.stream(HELLO)) as deltas:
            async for delta in deltas:
                if delta.text:
                    break

    leaves(upstream, close)


def test_cancelling_before_the_first_byte_closes_the_connection(upstream: Upstream) -> None:
    upstream.enqueue("m", Reply(delay=60))

    async def run() -> None:
        async with client_of(upstream.url) as client:
            call = asyncio.create_task(answer(client, HELLO))
            await _until(lambda: upstream.in_flight == 1, upstream)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await _until(lambda: upstream.chats()[0].disconnected, upstream)

    asyncio.run(run())


def test_a_cancelled_call_does_not_stop_the_opening_that_others_wait_for(
    upstream: Upstream,
) -> None:
    async def run() -> list[str]:
        async with client_of(upstream.url) as client:
            calls = [asyncio.create_task(answer(client, HELLO)) for _ in range(3)]
            await asyncio.sleep(0)
            calls[0].cancel()
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(done[0], asyncio.CancelledError)
            return [each_answer.text for each_answer in done[1:] if isinstance(each_answer, Delta)]

    assert asyncio.run(run()) == ["ok", "ok"]


def test_an_endpoint_that_lingers_after_the_end_does_not_hold_up_the_answer(
    upstream: Upstream,
) -> None:
    events = [{"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}, "[DONE]", "more"]
    upstream.enqueue("m", Reply(events=events, stall_after=2))

    async def run() -> None:
        async with client_of(upstream.url) as client:
            assert (await answer(client, HELLO)).text == "x"
            await _until(lambda: upstream.chats()[0].disconnected, upstream)
            assert (await answer(client, HELLO)).text == "ok"

    asyncio.run(run())


def test_closing_a_client_that_was_never_used_or_never_opened_is_quiet() -> None:
    async def run() -> None:
        unused = OpenAICompatible(
            Provider(name="acme", base_url="http://127.0.0.1:9/v1"), lambda: KEY, **carried
        )
        await unused.aclose()
        wrong = OpenAICompatible(
            Provider(name="acme", base_url="http://[::1"), lambda: KEY, **carried
        )
        with pytest.raises(RequestRefused):
            await wrong.models()
        await wrong.aclose()
        await wrong.aclose()

    asyncio.run(run())


# --- the list of models


def list_models(url: str) -> list[ModelInfo]:
    async def run() -> list[ModelInfo]:
        async with client_of(url) as client:
            return await client.models()

    return asyncio.run(run())


TOGETHER_ROWS: list[dict[str, object]] = [
    {
        "id": "b",
        "context_length": 8192,
        "pricing": {"hourly": 0, "input": 0.88, "output": 0.9, "base": 0, "finetune": 0},
    },
    {"id": "a", "context_length": None, "pricing": None},
]


@pytest.mark.parametrize("bare", [True, False], ids=["bare list", "under data"])
def test_models_are_listed_with_context_and_price_a_million(bare: bool) -> None:
    with Upstream(models=TOGETHER_ROWS, models_bare=bare) as up:
        assert list_models(up.url) == [
            ModelInfo(id="b", context_length=8192, price=Price(0.88, 0.9)),
            ModelInfo(id="a"),
        ]


@pytest.mark.parametrize(
    ("row", "context", "price"),
    [
        ({"pricing": {"prompt": "0.00000018", "completion": "0.0000002"}}, None, (0.18, 0.2, None)),
        (
            {"pricing": {"prompt": "1e-6", "completion": "2e-6", "input_cache_read": "1e-7"}},
            None,
            (1, 2, 0.1),
        ),
        ({"pricing": {"prompt": "0", "completion": "0"}}, None, (0, 0, None)),
        # Together's models that are not sold by the token, and one that is free.
        ({"pricing": {"input": 0, "output": 0, "hourly": 0}}, None, None),
        ({"id": "m-Free", "pricing": {"input": 0, "output": 0}}, None, (0, 0, None)),
        ({"pricing": {"prompt": "-1", "completion": "-1"}}, None, None),
        ({"pricing": {"prompt": "free", "completion": True}}, None, None),
        ({"pricing": {"prompt": "nan", "completion": "inf"}}, None, None),
        ({"pricing": {"prompt": "0.1"}}, None, None),
        ({"pricing": []}, None, None),
        ({"max_model_len": 4096}, 4096, None),
        ({"meta": {"n_ctx": 2048}}, 2048, None),
        ({"meta": None, "context_length": "8k"}, None, None),
    ],
)
def test_what_a_row_tells_is_read_in_each_providers_way(
    row: dict[str, object],
    context: int | None,
    price: tuple[float, float, float | None] | None,
) -> None:
    with Upstream(models=[{"id": "m", **row}]) as up:
        (found,) = list_models(up.url)
    assert found.context_length == context
    if price is None:
        assert found.price is None
    else:
        assert found.price is not None
        told = (found.price.prompt, found.price.completion, found.price.cached)
        assert told == pytest.approx(price)


def test_rows_without_an_id_are_left_out() -> None:
    rows: list[dict[str, object]] = [{"id": "m"}, {"name": "n"}, {"id": 7}]
    with Upstream(models=rows) as up:
        assert list_models(up.url) == [ModelInfo(id="m")]


class _Listing(Upstream):
    """An endpoint whose /models answers as told."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self._reply = reply

    def _arrived(self, request: Any) -> Reply:
        return self._reply if request.route == "/models" else super()._arrived(request)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(error={"data": None}), BadResponse),
        (Reply(error={"object": "list"}), BadResponse),
        (Reply(error=7), BadResponse),
        (Reply(error="<html>log in</html>"), BadResponse),
        (Reply(status=404, error="<html>nginx</html>"), RequestRefused),
        (Reply(status=401), AuthenticationFailed),
        (Reply(status=500), ServerFailed),
        (Reply(refuse=True), ConnectionLost),
    ],
    ids=["data null", "no data", "number", "page", "404", "401", "500", "refused"],
)
def test_a_list_of_models_that_is_none_is_an_error(reply: Reply, kind: type[ClientError]) -> None:
    with _Listing(reply) as up, pytest.raises(ClientError) as raised:
        list_models(up.url)
    assert type(raised.value) is kind
    assert "acme" in raised.value.message
