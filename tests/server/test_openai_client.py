"""Clients made for OpenAI work as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.command import Moa
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream

SAID: Any = [{"role": "user", "content": "why?"}]


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="any") as made:
        yield made


def test_the_sdk_completes(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="blue, as it happens"))
    done = client.chat.completions.create(model="moa", messages=SAID, temperature=0.5)
    assert done.choices[0].message.content == "blue, as it happens"
    assert done.choices[0].finish_reason == "stop"
    assert done.usage is not None
    assert done.usage.total_tokens == sum(upstream.usage_total)
    assert done._request_id is not None
    assert done.model_extra is not None
    assert done.model_extra["moa"]["calls"] == 4


def test_the_sdk_streams(client: openai.OpenAI, upstream: Upstream) -> None:
    pieces = ["one ", "two\n\n", "three é🌍"]
    upstream.always("agg", Reply(chunks=pieces))
    stream = client.chat.completions.create(
        model="moa",
        messages=SAID,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"moa": {"rounds": 2}},
    )
    *told, last = list(stream)
    texts = [event.choices[0].delta.content or "" for event in told]
    assert "".join(texts) == "".join(pieces)
    assert told[-1].choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.total_tokens == sum(upstream.usage_total)
    assert last.model_extra is not None
    assert last.model_extra["moa"]["calls"] == 7


def test_the_sdk_s_own_stream_helper_works(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="moa", messages=SAID) as stream:
        assert stream.get_final_completion().choices[0].message.content == "ok"


def test_the_sdk_lists_models(client: openai.OpenAI) -> None:
    listed = [entry.id for entry in client.models.list()]
    assert listed[0] == "moa"
    assert client.models.retrieve("lab").owned_by == "moa"


def test_the_sdk_raises_what_it_would_for_openai(
    client: openai.OpenAI, upstream: Upstream, moa: Moa
) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=SAID)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="moa", messages=SAID, n=200)
    assert refused.value.param == "n"
    upstream.always("*", Reply(status=429))
    with pytest.raises(openai.RateLimitError):
        client.with_options(max_retries=0).chat.completions.create(model="moa", messages=SAID)
    with (
        serving(moa, "--api-key", "right-key") as locked,
        openai.OpenAI(base_url=locked.url, api_key="wrong-key") as other,
        pytest.raises(openai.AuthenticationError),
    ):
        other.models.list()


def test_the_sdk_does_not_begin_all_over_after_an_upstream_s_failure(
    client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(status=500))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="moa", messages=SAID)
    assert len(upstream.chats("a")) == 1


def test_a_stream_that_breaks_off_raises_in_the_sdk(
    client: openai.OpenAI, upstream: Upstream
) -> None:
    upstream.always("agg", Reply(text="one two three", drop_after=2))
    stream = client.chat.completions.create(model="moa", messages=SAID, stream=True)
    texts = (chunk.choices[0].delta.content or "" for chunk in stream)
    got: list[str] = []
    with pytest.raises(openai.APIError, match="broke"):
        got.extend(texts)
    assert "".join(got) == "one two "


def test_a_client_s_time_out_ends_the_turn(client: openai.OpenAI, upstream: Upstream) -> None:
    upstream.always("*", Reply(stall_after=0))
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5, max_retries=0).chat.completions.create(
            model="moa", messages=SAID
        )
    upstream.wait_for(lambda: upstream.in_flight == 0)


def test_the_async_sdk_completes_streams_and_cancels(server: Server, upstream: Upstream) -> None:
    async def use() -> None:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="any") as client:
            many = [client.chat.completions.create(model="moa", messages=SAID) for _ in range(20)]
            done = await asyncio.gather(*many)
            assert {answer.choices[0].message.content for answer in done} == {"ok"}
            upstream.always("agg", Reply(text="one two", stall_after=1))
            stream = await client.chat.completions.create(model="moa", messages=SAID, stream=True)
            texts = []
            async for chunk in stream:
                texts.append(chunk.choices[0].delta.content)
                if texts[-1]:
                    break
            await stream.close()
            assert texts == ["", "one "]
            upstream.wait_for(lambda: upstream.in_flight == 0)
            task = asyncio.create_task(client.chat.completions.create(model="moa", messages=SAID))
            upstream_busy = asyncio.to_thread(upstream.wait_for, lambda: upstream.in_flight > 0)
            await upstream_busy
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(use())
    upstream.wait_for(lambda: upstream.in_flight == 0)


def test_moa_is_an_upstream_of_moa(moa: Moa, server: Server, upstream: Upstream) -> None:
    upstream.always("agg", Reply(text="from below"))
    env = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "any"}
    ran = moa.run("ask", "-m", "openai:lab", "-a", "openai:moa", "--json", "why?", env=env)
    assert ran.code == 0, ran.err
    assert '"reply": "from below"' in ran.text
    assert '"calls": 2' in ran.text
    assert len(upstream.chats()) == 8
    assert "openai:moa " in moa.run("models", "openai", env=env).text
