"""The least that a server can do, behind starlette and uvicorn, for comparison.

/httpx and /aiohttp pass a request on to the upstream and its answer back; /mixture asks four
times over aiohttp, puts the answers before the fifth request, and streams that one's answer.
Nothing is validated, counted, logged, retried or cancelled. `python -m benchmarks.bare_servers
UPSTREAM` prints its URL.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

__all__: list[str] = []

_EVENTS = "text/event-stream"


class _Bare:
    def __init__(self, upstream: str) -> None:
        self._url = f"{upstream}/chat/completions"

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._aiohttp = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._httpx = httpx.AsyncClient(timeout=None, limits=limits)
        yield
        await self._aiohttp.close()
        await self._httpx.aclose()

    async def over_httpx(self, request: Request) -> Response:
        body = await request.json()
        if not body.get("stream"):
            answer = await self._httpx.post(self._url, json=body)
            return Response(answer.content, media_type="application/json")

        async def chunks() -> AsyncIterator[bytes]:
            async with self._httpx.stream("POST", self._url, json=body) as answer:
                async for chunk in answer.aiter_bytes():
                    yield chunk

        return StreamingResponse(chunks(), media_type=_EVENTS)

    async def over_aiohttp(self, request: Request) -> Response:
        return await self._passed_on(await request.json())

    async def _passed_on(self, body: dict[str, Any]) -> Response:
        if not body.get("stream"):
            async with self._aiohttp.post(self._url, json=body) as answer:
                return Response(await answer.read(), media_type="application/json")

        async def chunks() -> AsyncIterator[bytes]:
            async with self._aiohttp.post(self._url, json=body) as answer:
                async for chunk in answer.content.iter_any():
                    yield chunk

        return StreamingResponse(chunks(), media_type=_EVENTS)

    async def mixture(self, request: Request) -> Response:
        body = await request.json()
        asked = {"model": "m", "messages": body["messages"], "stream": True}
        answers = await asyncio.gather(*(self._proposal(asked) for _ in range(4)))
        references = "\n".join(f"{place}. {text}" for place, text in enumerate(answers, 1))
        messages = [{"role": "system", "content": references}, *body["messages"]]
        return await self._passed_on({**body, "messages": messages})

    async def _proposal(self, body: dict[str, Any]) -> str:
        parts = []
        async with self._aiohttp.post(self._url, json=body) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    parts.append(chunk["choices"][0]["delta"].get("content") or "")
        return "".join(parts)


def main() -> None:
    """Serve on a free port until killed."""
    bare = _Bare(sys.argv[1])
    routes = [
        Route("/httpx", bare.over_httpx, methods=["POST"]),
        Route("/aiohttp", bare.over_aiohttp, methods=["POST"]),
        Route("/mixture", bare.mixture, methods=["POST"]),
    ]
    app = Starlette(routes=routes, lifespan=bare.lifespan)
    # Bound by uvicorn itself: for a socket of ours small writes would wait 40 ms.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
