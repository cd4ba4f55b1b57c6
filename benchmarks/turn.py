"""What a warm turn takes beyond its critical path.

The critical path is measured at the endpoint: for each layer the longest call, from the arrival of
the request to the end of the answer, and the aggregator's. What is above it is ours: the time
between the layers, connections, and showing nothing. In one process, connections open, as in a
chat from its second turn on. Beside it, a loop over bare aiohttp that does nothing but ask the same
models in the same order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from benchmarks.lab import lab
from benchmarks.report import environment_line, spread, table
from benchmarks.slow_upstream import Behaviour, Call, calls, serving
from moa_cli.core.conversation import Conversation
from moa_cli.core.stream import deliver
from moa_cli.engine import run_turn
from moa_cli.profile import build

PROPOSERS, AGGREGATOR = [f"p{number}" for number in range(4)], "agg"
# The first token after 1 s and 20 tokens 15 ms apart; and short ones.
LATENCIES = {
    "usual (1.3 s a layer)": Behaviour(first=1.0, tokens=20, pause=0.015),
    "short (0.15 s a layer)": Behaviour(first=0.05, tokens=20, pause=0.005),
}
Ask = Callable[[str], Awaitable[None]]


def critical_path(done: list[Call], prompt: str) -> float:
    """Seconds of the longest call of each layer, and of the aggregator's, by the endpoint's log."""
    times: dict[str, list[float]] = {}
    for call in done:
        if call.prompt == prompt and call.ended is not None:
            times.setdefault(call.model, []).append(call.ended - call.began)
    layers = zip(*(times[model] for model in PROPOSERS), strict=True)
    slowest: list[float] = [max(layer) for layer in layers]
    return sum(slowest) + sum(times[AGGREGATOR])


async def ours(url: str, rounds: int, ask_all: Callable[[Ask], Awaitable[None]]) -> None:
    """Through the engine and our client."""
    profile = build(
        "turn",
        {
            "rounds": rounds,
            "aggregator": {"model": f"lab:{AGGREGATOR}"},
            "proposers": [{"model": f"lab:{model}"} for model in PROPOSERS],
        },
    )
    async with lab(url) as (pool, limits):

        async def ask(prompt: str) -> None:
            turn = await deliver(run_turn(profile, Conversation().ask(prompt), pool, limits=limits))
            assert turn.reply, turn.error

        await ask_all(ask)


async def bare(url: str, rounds: int, ask_all: Callable[[Ask], Awaitable[None]]) -> None:
    """Through aiohttp alone."""
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer some-key"}) as session:

        async def call(model: str, prompt: str, references: list[str]) -> str:
            messages = [
                *({"role": "system", "content": text} for text in references[:1]),
                {"role": "user", "content": prompt},
            ]
            body = {"model": model, "messages": messages, "stream": True}
            words = []
            async with session.post(f"{url}/chat/completions", json=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        for choice in json.loads(line[6:])["choices"]:
                            words.append(choice["delta"].get("content", ""))
            return "".join(words)

        async def ask(prompt: str) -> None:
            references: list[str] = []
            for _ in range(rounds):
                answers = (call(model, prompt, references) for model in PROPOSERS)
                references = ["\n".join(await asyncio.gather(*answers))]
            await call(AGGREGATOR, prompt, references)

        await ask_all(ask)


async def measured(
    way: Callable[[str, int, Callable[[Ask], Awaitable[None]]], Awaitable[None]],
    url: str,
    rounds: int,
    turns: int,
    name: str,
) -> tuple[list[float], list[float]]:
    """Seconds of each turn, and of its critical path."""
    took: dict[str, float] = {}

    async def ask_all(ask: Ask) -> None:
        await ask(f"{name}: warm up")
        for number in range(turns):
            prompt = f"{name}: {number}"
            began = time.perf_counter()
            await ask(prompt)
            took[prompt] = time.perf_counter() - began

    await way(url, rounds, ask_all)
    done = await asyncio.to_thread(calls, url)
    return list(took.values()), [critical_path(done, prompt) for prompt in took]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.turn")
    parser.add_argument("--turns", type=int, default=20)
    given = parser.parse_args()
    ways: dict[str, Any] = {"moa": ours, "bare aiohttp": bare}
    rows = []
    for latency, behaviour in LATENCIES.items():
        models = dict.fromkeys([*PROPOSERS, AGGREGATOR], behaviour)
        with serving(models) as url:
            for rounds in (1, 2):
                for name, way in ways.items():
                    label = f"{name} {latency} {rounds}"
                    took, path = asyncio.run(measured(way, url, rounds, given.turns, label))
                    over = [1000 * (t - p) for t, p in zip(took, path, strict=True)]
                    ratio = statistics.median(took) / statistics.median(path)
                    rows.append(
                        [
                            f"{name}, {latency}, rounds {rounds}",
                            f"{statistics.median(path):.3f}",
                            f"{statistics.median(took):.3f}",
                            f"{ratio:.3f}",
                            spread(over, 1),
                        ]
                    )
    print(environment_line(f"{given.turns} turns each, in one process"))
    print(table(["way", "critical path, s", "turn, s", "ratio", "above it, ms"], rows))


if __name__ == "__main__":
    main()
