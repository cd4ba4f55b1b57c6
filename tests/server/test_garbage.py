"""What a reply leaves behind: nothing that only the garbage collector finds."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any, cast

from moa_cli.server.delivery import StreamedReply


def test_a_streamed_reply_goes_with_its_last_holder() -> None:
    async def send(message: object) -> None: ...

    async def answer(task: list[asyncio.Task[Any]]) -> weakref.ref[StreamedReply]:
        def leave() -> None:
            task[0].cancel()

        reply = StreamedReply(send, cast("Any", object()))
        reply.attend(leave)
        try:
            await asyncio.sleep(0)
        finally:
            reply.rest()
        return weakref.ref(reply)

    async def request() -> weakref.ref[StreamedReply]:
        task: list[asyncio.Task[Any]] = []
        task.append(asyncio.create_task(answer(task)))
        left: weakref.ref[StreamedReply] = await task[0]
        return left

    gc.disable()
    try:
        assert asyncio.run(request())() is None
    finally:
        gc.enable()
