"""How much of the prompts the model's server had in its cache, by the place of the references.

A conversation of several turns with the embedded model, whose server tells the cached tokens of
each call. With `reference_placement = "system"` (the paper's) the references of a turn stand before
the conversation, so that what follows them is new to the cache; with `"user"` they stand at its
end.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import aclosing
from typing import Literal

from benchmarks.report import environment_line, table
from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config
from moa_cli.core.conversation import Conversation, Usage
from moa_cli.core.stream import deliver
from moa_cli.engine import run_turn
from moa_cli.profile import build

_QUESTIONS = (
    "What is a glacier? Answer in three sentences.",
    "How do glaciers move? Answer in three sentences.",
    "Why are they blue? Answer in three sentences.",
    "What happens to them in summer? Answer in three sentences.",
    "Name two large ones, and say where they are.",
    "What do scientists learn from their ice?",
)
_MODEL = "local:smollm2"


async def usages(placement: Literal["system", "user"], turns: int) -> list[Usage]:
    """What the aggregator's call of each turn took."""
    model = {"model": _MODEL, "max_tokens": 48, "temperature": 0.0, "seed": 1}
    profile = build(
        "cache",
        {
            "reference_placement": placement,
            "system": "You are a helpful assistant. " * 8,
            "proposers": [{**model, "seed": seed} for seed in range(2)],
            "aggregator": model,
        },
    )
    conversation = Conversation()
    found = []
    async with aclosing(ClientPool(Config(), {})) as pool:
        for question in _QUESTIONS[:turns]:
            conversation = conversation.ask(question)
            turn = await deliver(run_turn(profile, conversation, pool))
            if turn.reply is None:
                raise SystemExit(f"the embedded model gave no reply: {turn.error}")
            conversation = conversation.answer(turn.reply)
            proposed = sum((proposal.usage for proposal in turn.proposals[0]), Usage())
            found += [proposed, turn.usage]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prefix_cache")
    parser.add_argument("--turns", type=int, default=len(_QUESTIONS))
    given = parser.parse_args()
    rows = []
    for placement in ("system", "user"):
        found = asyncio.run(usages(placement, given.turns))
        proposers, whole = sum(found[::2], Usage()), sum(found[1::2], Usage())
        aggregator = (
            whole.prompt_tokens - proposers.prompt_tokens,
            whole.cached_tokens - proposers.cached_tokens,
        )
        rows.append(
            [
                f'`reference_placement = "{placement}"`',
                *(
                    f"{cached:,} of {prompt:,} ({cached / prompt:.0%})"
                    for prompt, cached in (
                        (proposers.prompt_tokens, proposers.cached_tokens),
                        aggregator,
                        (whole.prompt_tokens, whole.cached_tokens),
                    )
                ),
            ]
        )
    print(environment_line(f"{given.turns} turns, two proposers"))
    print(table(["", "the proposers' calls", "the aggregator's", "all"], rows))


if __name__ == "__main__":
    main()
