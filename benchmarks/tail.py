"""Turns over endpoints with a heavy tail, with and without quorum, patience and hedging.

Four proposers and an aggregator. A first token takes 1.2 s (median, log-normal with sigma 0.6), the
rest of an answer 0.6 s, and one proposer's call in twenty stalls for 20 s. The same prompts
take the same time in each way. The critical path of a turn is what its models took, by the
endpoint's clock: the proposer that completes what is waited for, then the aggregator. Sixteen turns
run at once, the first of them at a provider of which nothing is known yet.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.lab import lab
from benchmarks.report import environment_line, table
from benchmarks.slow_upstream import Behaviour, calls, serving
from moa_cli.core.conversation import Conversation
from moa_cli.core.stream import deliver
from moa_cli.engine import run_turn
from moa_cli.profile import build

PROPOSERS = [f"p{number}" for number in range(4)]
AGGREGATOR = "agg"
_PATIENCE = 1.0
_STEADY = Behaviour(first=1.2, sigma=0.6, tokens=24, pause=0.025)
_SLOW = replace(_STEADY, stall_share=0.05, stall=20.0)
MODELS = {**dict.fromkeys(PROPOSERS, _SLOW), AGGREGATOR: _STEADY}


def all_of_them(times: list[float]) -> float:
    """Seconds of the slowest proposer. times: of all, in order."""
    return times[-1]


def three_and_patience(times: list[float]) -> float:
    """Seconds until three answers stand and the last has had its time."""
    return min(times[3], times[2] + _PATIENCE)


@dataclass(frozen=True)
class Way:
    """How proposers are waited for. layer: seconds that a layer takes, of those that its proposers
    took; None where they are asked more than once."""

    name: str
    settings: Mapping[str, Any]
    layer: Callable[[list[float]], float] | None


WAYS = (
    Way("all are waited for", {}, all_of_them),
    Way(
        "quorum 3 of 4, patience 1 s",
        {"quorum": 3, "patience": _PATIENCE},
        three_and_patience,
    ),
    Way("hedged after 4 s", {"hedge_after": 4.0}, None),
    Way(
        "quorum 3 of 4, patience 1 s, hedged after 4 s",
        {"quorum": 3, "patience": _PATIENCE, "hedge_after": 4.0},
        None,
    ),
)


@dataclass(frozen=True)
class Turns:
    """seconds: of each turn. path: the critical path of each, where it is known. calls: of all."""

    seconds: list[float]
    path: list[float]
    calls: int
    lost: int


async def turns(way: Way, url: str, count: int, at_once: int) -> Turns:
    """Hold so many turns, so many at a time."""
    table_of = {
        "aggregator": {"model": f"lab:{AGGREGATOR}"},
        "proposers": [{"model": f"lab:{model}"} for model in PROPOSERS],
        **way.settings,
    }
    profile = build("tail", table_of)
    slots = asyncio.Semaphore(at_once)
    async with lab(url, concurrency=1024) as (pool, limits):

        async def one_turn(number: int) -> tuple[float, int, int]:
            prompt = f"prompt {number}"
            async with slots:
                began = time.perf_counter()
                events = run_turn(profile, Conversation().ask(prompt), pool, limits=limits)
                turn = await deliver(events)
                took = time.perf_counter() - began
            assert turn.reply, turn.error
            return took, turn.usage.calls, len(turn.lost)

        # The first opens connections and loads what is loaded once.
        await one_turn(-1)
        done = await asyncio.gather(*map(one_turn, range(count)))
    seconds, made, lost = zip(*done, strict=True)
    path = []
    if way.layer is not None:
        times: dict[str, dict[str, float]] = {}
        for call in await asyncio.to_thread(calls, url):
            # What is still open is a call that is not waited for any longer.
            took = math.inf if call.ended is None else call.ended - call.began
            times.setdefault(call.prompt, {})[call.model] = took
        for number in range(count):
            found = times[f"prompt {number}"]
            path.append(way.layer(sorted(found[model] for model in PROPOSERS)) + found[AGGREGATOR])
    return Turns(list(seconds), path, sum(made), sum(lost))


def at(values: list[float], share: float) -> float:
    """The value below which that share of the values lies."""
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tail")
    parser.add_argument("--turns", type=int, default=160)
    parser.add_argument("--at-once", type=int, default=16)
    given = parser.parse_args()
    rows = []
    first: Turns | None = None
    for way in WAYS:
        # An endpoint of its own, which has not been asked these prompts before.
        with serving(MODELS) as url:
            found = asyncio.run(turns(way, url, given.turns, given.at_once))
        first = first or found
        p50, p95 = at(found.seconds, 0.5), at(found.seconds, 0.95)
        path = f"{at(found.path, 0.5):.2f}, {at(found.path, 0.95):.2f}" if way.layer else ""
        rows.append(
            [
                way.name,
                f"{p50:.2f}",
                f"{p95:.2f}",
                f"{p95 / at(first.seconds, 0.95):.2f}",
                path,
                f"{p50 / at(found.path, 0.5):.3f}" if way.layer else "",
                f"{found.calls / given.turns:.2f}",
                str(found.lost),
            ]
        )
    print(environment_line(f"{given.turns} turns each, {given.at_once} at a time"))
    print(
        table(
            [
                "way",
                "p50, s",
                "p95, s",
                "p95 of the first",
                "critical path, p50 and p95",
                "p50 of its path",
                "calls a turn",
                "lost",
            ],
            rows,
        )
    )


if __name__ == "__main__":
    main()
