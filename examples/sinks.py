"""Show a turn to two sinks: one keeps every event in a file, one says how far the turn is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from moa_cli import Event, LayerFinished, LayerStarted, ask, to_dict


class EventLog:
    """Writes each event as a line of JSON."""

    def __init__(self, path: Path) -> None:
        self._out = path.open("w", encoding="utf-8")

    def handle(self, event: Event) -> None:
        """Take the next event."""
        self._out.write(json.dumps(to_dict(event)) + "\n")

    def close(self) -> None:
        """No more events come."""
        self._out.close()


class Progress:
    """Says which layer runs, on standard error."""

    def handle(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case LayerStarted():
                names = ", ".join(caller.name for caller in event.proposers)
                print(f"layer {event.layer}: {names}", file=sys.stderr)
            case LayerFinished():
                print(f"{event.answered} of {event.asked} answered", file=sys.stderr)

    def close(self) -> None:
        """No more events come."""


if __name__ == "__main__":
    turn = ask("Why is the sky blue?", sinks=(EventLog(Path("events.jsonl")), Progress()))
    print(turn.reply)
