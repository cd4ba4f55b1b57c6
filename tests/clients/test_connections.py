"""A connection to a far endpoint is used again; one on this machine is not, unless many are."""

from __future__ import annotations

import asyncio

import pytest

from moa_cli.clients import openai_compatible
from moa_cli.clients.openai_compatible import OpenAICompatible
from moa_cli.core.conversation import Message
from moa_cli.core.endpoints import Request
from moa_cli.models.table import Provider
from tests.support.upstream import Reply, Upstream

REQUEST = Request(model="m", messages=(Message("user", "hi"),))


def _open_after_three_calls(upstream: Upstream) -> int:
    async def call() -> int:
        client = OpenAICompatible(Provider(name="lab", base_url=upstream.url), lambda: "k")
        try:
            for _ in range(3):
                assert "".join([delta.text async for delta in client.stream(REQUEST)]) == "ok"
            return upstream.open_connections
        finally:
            await client.aclose()

    return asyncio.run(call())


def test_calls_to_a_far_endpoint_share_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compatible, "is_loopback", lambda url: False)
    monkeypatch.setenv("NO_PROXY", "*")
    with Upstream() as upstream:
        assert _open_after_three_calls(upstream) == 1


def test_calls_on_this_machine_leave_no_connection_open() -> None:
    with Upstream() as upstream:
        _open_after_three_calls(upstream)
        upstream.wait_for(lambda: upstream.open_connections == 0)


async def _streamed(client: OpenAICompatible) -> str:
    return "".join([delta.text async for delta in client.stream(REQUEST)])


def test_many_calls_share_connections_and_leave_none() -> None:
    async def calls(upstream: Upstream) -> None:
        client = OpenAICompatible(
            Provider(name="lab", base_url=upstream.url), lambda: "k", many_calls=True
        )
        try:
            for _ in range(3):
                texts = await asyncio.gather(*(_streamed(client) for _ in range(8)))
                assert texts == ["ok"] * 8
            assert upstream.open_connections <= 8
        finally:
            await client.aclose()

    with Upstream() as upstream:
        asyncio.run(calls(upstream))
        upstream.wait_for(lambda: upstream.open_connections == 0)
        assert len(upstream.chats()) == 24


def test_a_kept_connection_that_the_server_closed_is_no_failure() -> None:
    async def calls(upstream: Upstream) -> None:
        client = OpenAICompatible(
            Provider(name="lab", base_url=upstream.url), lambda: "k", many_calls=True
        )
        try:
            assert await _streamed(client) == "ok"
            # Taken, and closed without a word: as by a server that has just given up waiting.
            upstream.enqueue("m", Reply(refuse=True))
            assert await _streamed(client) == "ok"
        finally:
            await client.aclose()

    with Upstream() as upstream:
        asyncio.run(calls(upstream))
        assert [request.sent for request in upstream.chats()] == [1, 0, 1]


def test_a_call_s_own_headers_and_a_url_s_credentials_are_sent() -> None:
    async def call(url: str) -> None:
        client = OpenAICompatible(
            Provider(name="lab", base_url=url), lambda: "k", headers=lambda: {"x-way": "here"}
        )
        try:
            assert await _streamed(client) == "ok"
        finally:
            await client.aclose()

    with Upstream() as upstream:
        asyncio.run(call(upstream.url.replace("//", "//us%40er:pw@")))
        (request,) = upstream.chats()
    assert request.headers["x-way"] == "here"
    assert request.headers["authorization"] == "Basic dXNAZXI6cHc="
