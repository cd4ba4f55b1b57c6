"""Code that runs in an event loop, such as a web server's handler or a notebook's cell.

`ask` starts an event loop of its own, so it raises an error there; `ask_async` is awaited.
"""

from __future__ import annotations

import asyncio

from moa_cli import ask, ask_async


async def handler(prompt: str) -> str:
    """Answer a request."""
    try:
        ask(prompt)
    except RuntimeError as error:
        print(f"as expected: {error}")
    turn = await ask_async(prompt)
    return turn.reply or ""


if __name__ == "__main__":
    print(asyncio.run(handler("Why is the sky blue?")))
