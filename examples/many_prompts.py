"""Answer many prompts at once in one event loop. They share connections and the budget."""

from __future__ import annotations

import asyncio
import sys

from moa_cli import ask_async, load_profile, open_clients


async def main(prompts: list[str]) -> None:
    """Answer all prompts, three turns at a time."""
    slots = asyncio.Semaphore(3)
    profile = load_profile("together")
    clients = open_clients()

    async def answer(prompt: str) -> str:
        async with slots:
            turn = await ask_async(prompt, profile=profile, clients=clients)
        return turn.reply if turn.reply is not None else f"failed: {turn.error}"

    try:
        replies = await asyncio.gather(*map(answer, prompts))
    finally:
        await clients.aclose()
    for prompt, reply in zip(prompts, replies, strict=True):
        print(f"> {prompt}\n{reply}\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["Why is the sky blue?", "Why is the sea salty?"]))
