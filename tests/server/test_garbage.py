"""What a reply leaves behind: nothing that only the garbage collector finds."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any, cast

from moa_cli.server.delivery import StreamedReply


def test_a_streamed_reply_goes_with_its_last_holder() -> None:
    async def send(message: object) -> None: ...

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def deliver() -> weakref.ref[StreamedReply]:
        reply = StreamedReply(send, cast("Any", object()))
        attending = asyncio.create_task(reply.attend(receive))
        await asyncio.sleep(0)
        attending.cancel()
        reply.rest()
        await asyncio.wait([attending])
        return weakref.ref(reply)

    gc.disable()
    try:
        left = asyncio.run(deliver())
        assert left() is None
    finally:
        gc.enable()
