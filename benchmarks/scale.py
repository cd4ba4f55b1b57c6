"""A turn of 1, 4, 16, 64 and 200 proposers that answer at the same time.

Each in a process of its own. The critical path is the endpoint's: the longest proposer's call, then
the aggregator's. Memory is the most that the process had, beside that of one with one proposer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time

from benchmarks.lab import lab
from benchmarks.report import environment_line, spread, table
from benchmarks.slow_upstream import ROOT, Behaviour, calls, serving
from moa_cli.core.conversation import Conversation
from moa_cli.core.stream import deliver
from moa_cli.engine import run_turn
from moa_cli.profile import build

COUNTS = (1, 4, 16, 64, 200)
_ANSWER = Behaviour(first=1.0, tokens=100, pause=0.02)
_MODEL, _AGGREGATOR = "p", "agg"


async def turns(url: str, proposers: int, count: int) -> dict[str, list[float]]:
    """Seconds of each turn, of the critical path, and of CPU in this process."""
    table_of = {
        "aggregator": {"model": f"lab:{_AGGREGATOR}"},
        "proposers": [
            {"model": f"lab:{_MODEL}", "name": f"p{number}"} for number in range(proposers)
        ],
    }
    profile = build("scale", table_of)
    found: dict[str, list[float]] = {"took": [], "path": [], "cpu": []}
    async with lab(url, concurrency=1024) as (pool, limits):
        for number in range(count + 1):
            prompt = f"{proposers} {number}"
            began, cpu = time.perf_counter(), time.process_time()
            events = run_turn(profile, Conversation().ask(prompt), pool, limits=limits)
            turn = await deliver(events)
            took, spent = time.perf_counter() - began, time.process_time() - cpu
            assert len(turn.proposals[0]) == proposers
            assert not turn.lost, turn.lost
            done = [call for call in await asyncio.to_thread(calls, url) if call.prompt == prompt]
            layer = [call for call in done if call.model == _MODEL]
            reply = [call for call in done if call.model == _AGGREGATOR]
            path = sum(
                max((call.ended or 0) for call in group) - min(call.began for call in group)
                for group in (layer, reply)
            )
            if number:
                found["took"].append(took)
                found["path"].append(path)
                found["cpu"].append(spent)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cell", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell is not None:
        found = asyncio.run(turns(given.url, given.cell, given.turns))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**found, "peak": peak}))
        return
    rows = []
    models = {_MODEL: _ANSWER, _AGGREGATOR: _ANSWER}
    with serving(models) as url:
        for proposers in COUNTS:
            command = [sys.executable, "-m", "benchmarks.scale", "--url", url]
            command += ["--cell", str(proposers), "--turns", str(given.turns)]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
            cell = json.loads(done.stdout)
            ratios = [took / path for took, path in zip(cell["took"], cell["path"], strict=True)]
            tokens = _ANSWER.tokens * (proposers + 1)
            rows.append(
                [
                    str(proposers),
                    f"{statistics.median(cell['path']):.2f}",
                    f"{statistics.median(cell['took']):.2f}",
                    spread(ratios, 3),
                    f"{1e6 * statistics.median(cell['cpu']) / tokens:.0f}",
                    f"{cell['peak']:.0f}",
                ]
            )
    print(environment_line(f"{given.turns} turns each"))
    heads = ["proposers", "critical path, s", "turn, s", "ratio", "CPU a token, µs", "memory, MB"]
    print(table(heads, rows))


if __name__ == "__main__":
    main()
