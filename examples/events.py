"""See the events of a turn as they happen, and do not wait for slow proposers.

After the first two proposals, `Control.enough` says that the reply is to be written from what has
arrived.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

from moa_cli import (
    AggregatorDelta,
    Control,
    Conversation,
    ProposerFailed,
    ProposerFinished,
    TurnFailed,
    TurnFinished,
    load_profile,
    open_clients,
    run_turn,
)


async def main(prompt: str) -> None:
    """Print what happens."""
    clients = open_clients()
    control = Control()
    arrived = 0
    try:
        events = run_turn(
            load_profile("together"), Conversation().ask(prompt), clients, control=control
        )
        async with aclosing(events):
            async for event in events:
                match event:
                    case ProposerFinished():
                        arrived += 1
                        print(f"[{event.proposal.proposer} after {event.at:.1f} s]")
                        if arrived == 2:
                            control.enough()
                    case ProposerFailed() if event.proposal.error is not None:
                        print(f"[lost: {event.proposal.error.message}]")
                    case AggregatorDelta():
                        print(event.text, end="", flush=True)
                    case TurnFinished():
                        print(f"\n[{event.usage.calls} calls, {event.seconds:.1f} s]")
                    case TurnFailed():
                        raise SystemExit(event.error.message)
    finally:
        await clients.aclose()


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "Why is the sky blue?"))
