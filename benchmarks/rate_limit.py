"""Eight proposers at a provider that takes two calls at once and refuses one more with status 429.

Each answer takes eight seconds (`--seconds`), so that four waves of proposers, and the aggregator,
are the ideal. `cold`: nothing is known of the provider. `warm`: the second turn of the same
process. `told`: its limit is set (`providers.lab.concurrency = 2`).
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

from benchmarks.lab import lab
from benchmarks.report import environment_line, table
from benchmarks.slow_upstream import Behaviour, calls, serving
from moa_cli.core.conversation import Conversation
from moa_cli.core.stream import deliver
from moa_cli.engine import run_turn
from moa_cli.profile import build

_PROPOSERS, _AT_ONCE = 8, 2


async def turns(url: str, names: list[str], settings: dict[str, Any]) -> list[list[str]]:
    """A row for each turn, held one after the other."""
    profile = build(
        "limited",
        {
            "aggregator": {"model": "lab:agg"},
            "proposers": [{"model": "lab:p", "samples": _PROPOSERS}],
        },
    )
    rows = []
    async with lab(url, **settings) as (pool, limits):
        for name in names:
            began = time.perf_counter()
            turn = await deliver(run_turn(profile, Conversation().ask(name), pool, limits=limits))
            took = time.perf_counter() - began
            done = [call for call in await asyncio.to_thread(calls, url) if call.prompt == name]
            ended = [call.ended - call.began for call in done if call.ended and call.status == 200]
            waves = -(-_PROPOSERS // _AT_ONCE) + 1
            ideal = waves * sum(ended) / len(ended)
            answered = sum(not proposal.error for proposal in turn.proposals[0])
            refused = sum(call.status == 429 for call in done)
            rows.append(
                [
                    name,
                    f"{answered} of {_PROPOSERS}",
                    f"{refused} of {len(done)} ({refused / len(done):.0%})",
                    f"{took:.1f}",
                    f"{took / ideal:.2f}",
                ]
            )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rate_limit")
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    answer = Behaviour(first=given.seconds / 2, tokens=20, pause=given.seconds / 40)
    models = {"p": Behaviour(**{**vars(answer), "at_once": _AT_ONCE}), "agg": answer}
    rows = []
    with serving(models) as url:
        rows += asyncio.run(turns(url, ["cold", "warm"], {}))
        rows += asyncio.run(turns(url, ["told"], {"concurrency": _AT_ONCE}))
    print(environment_line(f"{given.seconds:g} s an answer"))
    heads = ["the provider's limit", "answered", "requests refused", "turn, s", "of the ideal"]
    print(table(heads, rows))


if __name__ == "__main__":
    main()
