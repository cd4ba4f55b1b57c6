"""A model endpoint whose models take their time, as told.

`python -m benchmarks.slow_upstream MODELS` prints its URL and serves until it is killed. MODELS is
JSON: a `Behaviour` for each model. How long a model takes depends on the model, the first line of
the prompt, and how many times it was asked that before: it is the same in each run. `GET /log`
tells each request: model, first line, status, and the clock (monotonic, of this machine) at its
beginning and its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Behaviour:
    """How a model answers; times in seconds.

    first: until the first token, the median where `sigma` spreads it (log-normal). stall_share:
    of the requests, which take `stall` longer. tokens: of the answer, `pause` apart. at_once: calls
    that are answered at once; one more is refused.
    """

    first: float = 0.0
    sigma: float = 0.0
    stall_share: float = 0.0
    stall: float = 0.0
    tokens: int = 20
    pause: float = 0.0
    at_once: int | None = None

    def first_token(self, model: str, prompt: str, before: int = 0) -> float:
        """Seconds until the first token of that model for that prompt.

        before: how many times it was asked the same before; each time it takes another time.
        """
        dice = random.Random(f"{model}\n{prompt}\n{before}")
        seconds = self.first * math.exp(dice.gauss(0, self.sigma)) if self.sigma else self.first
        return seconds + (self.stall if dice.random() < self.stall_share else 0.0)


@dataclass
class Call:
    """A request that came, and what became of it; times by the monotonic clock."""

    model: str
    prompt: str
    began: float
    status: int = 200
    ended: float | None = None


class _Endpoint:
    def __init__(self, models: Mapping[str, Behaviour]) -> None:
        self._models = models
        self._in_flight = 0
        self._calls: list[Call] = []
        self._asked: Counter[tuple[str, str]] = Counter()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=1 << 26)
        application.router.add_post("/v1/chat/completions", self._complete)
        application.router.add_get("/v1/models", self._list)
        application.router.add_get("/log", self._log)
        return application

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": model} for model in self._models]})

    async def _log(self, _: web.Request) -> web.Response:
        return web.json_response([asdict(call) for call in self._calls])

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        # References may stand behind the first line.
        prompt = [m["content"] for m in body["messages"] if m["role"] == "user"][-1]
        call = Call(body["model"], prompt.splitlines()[0], time.monotonic())
        before = self._asked[call.model, call.prompt]
        self._asked[call.model, call.prompt] += 1
        self._calls.append(call)
        behaviour = self._models[call.model]
        if behaviour.at_once is not None and self._in_flight >= behaviour.at_once:
            call.status, call.ended = 429, time.monotonic()
            return web.json_response({"error": {"message": "too many requests"}}, status=429)
        self._in_flight += 1
        try:
            await self._answer(request, call, behaviour, before)
        except ConnectionResetError:
            # It was not waited for any longer.
            pass
        finally:
            self._in_flight -= 1
            call.ended = time.monotonic()
        return web.Response()

    async def _answer(
        self, request: web.Request, call: Call, behaviour: Behaviour, before: int
    ) -> None:
        await asyncio.sleep(behaviour.first_token(call.model, call.prompt, before))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(behaviour.tokens):
            await response.write(_chunk({"content": f"word{number} "}))
            if behaviour.pause:
                await asyncio.sleep(behaviour.pause)
        usage = {"prompt_tokens": 100, "completion_tokens": behaviour.tokens}
        usage["total_tokens"] = 100 + behaviour.tokens
        await response.write(_chunk({}, "stop", usage=usage) + b"data: [DONE]\n\n")
        await response.write_eof()


def _chunk(delta: dict[str, str], reason: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json.dumps({**chunk, "choices": [choice], **more}).encode() + b"\n\n"


@contextmanager
def serving(models: Mapping[str, Behaviour]) -> Iterator[str]:
    """The base URL of such an endpoint, in a process of its own."""
    told = json.dumps({model: asdict(behaviour) for model, behaviour in models.items()})
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.slow_upstream", told],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def calls(url: str) -> list[Call]:
    """The requests that came so far."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/log") as answer:
        told: list[dict[str, Any]] = json.load(answer)
    return [Call(**call) for call in told]


async def _serve(models: Mapping[str, Behaviour]) -> None:
    # No time for what is still open when it is killed.
    runner = web.AppRunner(_Endpoint(models).application(), shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", help="JSON: a behaviour for each model")
    told = json.loads(parser.parse_args().models)
    asyncio.run(_serve({model: Behaviour(**values) for model, values in told.items()}))
