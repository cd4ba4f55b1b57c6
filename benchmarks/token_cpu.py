"""CPU time for each streamed token, beside a bare reader over aiohttp.

CPU time of the whole process for each token of eight streams, from an endpoint in another process
that sends each token in a write of its own. *bare aiohttp* reads the body, splits it at line ends
and parses each line's JSON. *the SDK's create()*: the stream of `together`. *client*: our client's
deltas; *turn*: those of eight proposers through the engine, delivered to no sink; *turn and board*:
with the board at a pseudo-terminal. Medians; the ratio to the bare reader is taken run by run. Each
figure is from a fresh process; the ways take turns, so that what else the machine does meets all.
The board draws ten times a second, however many tokens there are: the fewer, the more it takes of
each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.board_cpu import terminal
from benchmarks.replies import chunks, mixed
from benchmarks.report import environment_line, spread, table
from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, ProviderSettings
from moa_cli.core.conversation import Conversation, Message
from moa_cli.core.endpoints import Request
from moa_cli.core.stream import Sink, deliver
from moa_cli.engine import run_turn
from moa_cli.profile import build
from moa_cli.terminal.board.live import Board

_ROOT = Path(__file__).parents[1]
_STREAMS = 8
# What an endpoint on the way sends with each token.
_CHUNK = {
    "id": "chatcmpl-8f14e45fceea167a5a36dedd4bea2543",
    "object": "chat.completion.chunk",
    "created": 1763800000,
    "model": "meta-llama/Llama-3.3-70B-Instruct-Turbo",
    "system_fingerprint": None,
}
_USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
_MESSAGE = "hi"
BARE, SDK = "bare aiohttp", "the SDK's create()"
WAYS = (BARE, SDK, "client", "turn", "turn and board")


def _event(delta: dict[str, str], reason: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    data = b"data: " + json.dumps({**_CHUNK, "choices": [choice], **more}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(tokens: int, rate: float) -> None:
    """Be the endpoint; models whose name begins with `m` answer at length. Print the port."""
    pieces = list(chunks(mixed(tokens)))[:tokens]
    events = [_event({"content": piece}) for piece in pieces]
    end = _event({}, "stop", usage=_USAGE) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    # The list of models.
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    continue
                lines = head.lower().split(b"\r\n")
                length = next(
                    int(line[15:]) for line in lines if line.startswith(b"content-length")
                )
                body = json.loads(await reader.readexactly(length))
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n"
                )
                now = asyncio.get_running_loop().time
                began = now()
                for number, event in enumerate(events if body["model"][0] == "m" else events[:20]):
                    writer.write(event)
                    wait = began + (number + 1) / rate - now() if rate else 0
                    if wait > 0 or not rate:
                        await asyncio.sleep(max(0, wait))
                writer.write(end)
        except (EOFError, OSError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def _upstream(tokens: int, rate: float) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.token_cpu", "--serve"]
    command += ["--tokens", str(tokens), "--rate", str(rate)]
    with subprocess.Popen(
        command, cwd=_ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.communicate("")


# Asks models at once, and tells how many tokens they gave together.
Way = Callable[[Sequence[str]], Awaitable[int]]


@asynccontextmanager
async def _bare(url: str) -> AsyncIterator[Way]:
    import aiohttp

    async def ask(model: str) -> int:
        messages = [{"role": "user", "content": _MESSAGE}]
        body = {"model": model, "messages": messages, "stream": True}
        tokens = 0
        async with session.post(f"{url}/chat/completions", json=body) as response:
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: ") and line != b"data: [DONE]":
                        choice = json.loads(line[6:])["choices"][0]
                        tokens += bool(choice["delta"].get("content"))
        return tokens

    async def ask_all(models: Sequence[str]) -> int:
        return sum(await asyncio.gather(*map(ask, models)))

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield ask_all


@asynccontextmanager
async def _sdk(url: str) -> AsyncIterator[Way]:
    from together import AsyncTogether

    async def ask(model: str) -> int:
        tokens = 0
        stream: Any = await sdk.chat.completions.create(
            model=model, messages=[{"role": "user", "content": _MESSAGE}], stream=True
        )
        async for chunk in stream:
            if chunk.choices:
                tokens += bool(chunk.choices[0].delta.content)
        return tokens

    async def ask_all(models: Sequence[str]) -> int:
        return sum(await asyncio.gather(*map(ask, models)))

    async with AsyncTogether(api_key="some-key", base_url=url) as sdk:
        yield ask_all


def _tokens(text: str) -> int:
    """Of a text from the endpoint; several that came at once may be told as one."""
    return len(list(chunks(text)))


def _pool(url: str) -> ClientPool:
    settings = ProviderSettings(base_url=url, api_key_env="KEY")
    return ClientPool(Config(providers={"lab": settings}), {"KEY": "some-key-0123456789"})


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[Way]:
    client = _pool(url).endpoint("lab:m").client

    async def ask(model: str) -> int:
        text: list[str] = []
        request = Request(model=model, messages=(Message("user", _MESSAGE),))
        async with aclosing(client.stream(request)) as deltas:
            async for delta in deltas:
                text.append(delta.text)
        return _tokens("".join(text))

    async def ask_all(models: Sequence[str]) -> int:
        return sum(await asyncio.gather(*map(ask, models)))

    async with aclosing(client):
        yield ask_all


@asynccontextmanager
async def _turn(url: str, *, board: bool = False) -> AsyncIterator[Way]:
    async with aclosing(_pool(url)) as pool:

        async def ask_all(models: Sequence[str]) -> int:
            proposers = [{"model": f"lab:{model}"} for model in models]
            profile = build("p", {"aggregator": {"model": "lab:agg"}, "proposers": proposers})
            events = run_turn(profile, Conversation().ask(_MESSAGE), pool)
            if board:
                with terminal() as stream:
                    sinks: list[Sink] = [Board(stream)]
                    turn = await deliver(events, *sinks)
            else:
                turn = await deliver(events)
            assert turn.reply
            return sum(_tokens(proposal.text) for layer in turn.proposals for proposal in layer)

        yield ask_all


async def measure_here(way: str, url: str) -> float:
    """CPU time per token in this process, in microseconds."""
    opened = {
        BARE: lambda: _bare(url),
        SDK: lambda: _sdk(url),
        "client": lambda: _client(url),
        "turn": lambda: _turn(url),
        "turn and board": lambda: _turn(url, board=True),
    }
    async with opened[way]() as ask_all:
        await ask_all(["short"] * 2)
        began = time.process_time()
        tokens = await ask_all([f"m{number}" for number in range(_STREAMS)])
        return (time.process_time() - began) / tokens * 1e6


def measure(way: str, url: str) -> float:
    """The same in a fresh process."""
    environment = {key: value for key, value in os.environ.items() if "COLOR" not in key}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.token_cpu", "--way", way, "--url", url],
        cwd=_ROOT,
        env=environment | {"TERM": "xterm-256color"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(done.stdout)


def measure_all(tokens: int, rate: float, runs: int) -> dict[str, list[float]]:
    """Microseconds per token of each way, run by run. rate: tokens a second of each stream, 0 for
    as many as can be."""
    figures: dict[str, list[float]] = {way: [] for way in WAYS}
    with _upstream(tokens, rate) as url:
        for _ in range(runs):
            for way in WAYS:
                figures[way].append(measure(way, url))
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.token_cpu")
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument(
        "--rate",
        type=float,
        nargs="+",
        default=[200.0, 0.0],
        help="tokens a second of each stream; 0: as many as can be",
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(_serve(given.tokens, given.rate[0]))
    elif given.way:
        print(asyncio.run(measure_here(given.way, given.url)))
    else:
        rows = []
        for rate in given.rate:
            figures = measure_all(given.tokens, rate, given.runs)
            for way, found in figures.items():
                ratios = [ours / bare for ours, bare in zip(found, figures[BARE], strict=True)]
                pace = f"{rate:g} a second" if rate else "as many as can be"
                rows.append([f"{way}, {pace}", f"{statistics.median(found):.1f}", spread(ratios)])
        print(environment_line(f"{_STREAMS} streams, {given.runs} runs"))
        print(table(["way, tokens of each stream", "µs a token", "of the bare reader"], rows))


if __name__ == "__main__":
    main()
