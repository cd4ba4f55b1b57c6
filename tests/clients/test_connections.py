"""A connection to a far endpoint is used again; one on this machine is not."""

from __future__ import annotations

import asyncio

import pytest

from moa_cli.clients import openai_compatible
from moa_cli.clients.base import Request
from moa_cli.clients.openai_compatible import OpenAICompatible
from moa_cli.conversation import Message
from tests.support.upstream import Upstream

REQUEST = Request(model="m", messages=(Message("user", "hi"),))


def _open_after_three_calls(upstream: Upstream) -> int:
    async def call() -> int:
        client = OpenAICompatible("lab", upstream.url, lambda: "k")
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
