"""Progress reports for a waiting client: how many proposals have arrived, and how far the reply
is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorStarted,
    Event,
    LayerStarted,
    ProposerFailed,
    ProposerFinished,
)
from moa_cli.core.sanitize import one_line
from moa_cli.core.strategy import answer_name
from moa_cli.core.text import plural

Report = tuple[float, float, str]
# After this many seconds, half of a step counts as done.
_HALF_SECONDS = 60.0
_LONGEST_LINE = 200


class CallProgress:
    """The progress of one tool call, over all its turns.

    A model call is a step. Between two steps, the progress grows with time, because the protocol
    requires that each report is larger than the one before.

    steps: the expected number of model calls. news: a future that is done when there is something
    to report. written: the number of characters of replies so far.
    """

    def __init__(self, steps: int) -> None:
        self._steps = max(1, steps)
        self._done = 0
        self._since = time.monotonic()
        self._told = 0.0
        self._lines: list[str] = []
        self._waiting: dict[tuple[str, int, int], str] = {}
        self._ended: set[tuple[str, int, int]] = set()
        self.written = 0
        self.news = asyncio.get_running_loop().create_future()

    def say(self, line: str) -> None:
        self._lines.append(line)
        if not self.news.done():
            self.news.set_result(None)

    def expect(self, place: tuple[str, int, int], name: str) -> None:
        """Note that a proposer was asked. A layer that begins again also names proposers that have
        ended."""
        if place not in self._ended:
            self._waiting[place] = name

    def came(self, place: tuple[str, int, int], line: str) -> None:
        self._waiting.pop(place, None)
        self._ended.add(place)
        self._done += 1
        self._since = time.monotonic()
        self.say(line)

    def reports(self) -> Iterator[Report]:
        """Progress, total and message of each report that is due."""
        self.news = asyncio.get_running_loop().create_future()
        lines, self._lines = self._lines or [self._state()], []
        left = len(lines)
        for line in lines:
            left -= 1
            seconds = time.monotonic() - self._since
            part = seconds / (seconds + _HALF_SECONDS)
            value = max(0, min(self._done, self._steps - 1) - left) + part
            # Always larger than the report before, even if the clock has not advanced.
            self._told = max(value, self._told + 1e-4)
            yield round(self._told, 4), float(self._steps), one_line(line, _LONGEST_LINE)

    def _state(self) -> str:
        if self.written:
            return f"writing the reply: {plural(self.written, 'character')}"
        if self._waiting:
            return f"waiting for {', '.join(self._waiting.values())}"
        return "waiting for the models"


class TurnProgress:
    """A sink that passes the events of one turn to a CallProgress. label: the prefix of its lines,
    "" if there is only one turn."""

    def __init__(self, progress: CallProgress, label: str) -> None:
        self._progress = progress
        self._label = label
        self._before = f"{label}: " if label else ""
        # By layer: how many calls have begun.
        self._begun: dict[int, int] = {}

    def handle(self, event: Event) -> None:
        progress, before = self._progress, self._before
        match event:
            case AggregatorDelta():
                progress.written += len(event.text)
            case LayerStarted():
                known = self._begun.get(event.layer, 0)
                self._begun[event.layer] = len(event.proposers)
                for index, caller in enumerate(event.proposers):
                    # A layer may begin again, with more proposers.
                    if index >= known:
                        progress.expect((self._label, event.layer, index), caller.name)
            case ProposerFinished() | ProposerFailed():
                proposal = event.proposal
                answer = answer_name(proposal.purpose) if proposal.purpose else "answer"
                did = f"gave its {answer}" if proposal.purpose else "answered"
                if isinstance(event, ProposerFailed):
                    why = f": {proposal.error.message}" if proposal.error else ""
                    did = f"gave no {answer}{why}"
                place = self._label, event.layer, event.index
                progress.came(place, f"{before}{proposal.proposer} {did}")
            case AggregatorStarted() if event.copied:
                progress.say(f"{before}the reply is the answer of {event.name}")
            case AggregatorStarted():
                progress.say(f"{before}{event.name} writes the reply")

    def close(self) -> None:
        """Nothing to do: the result shows the end."""
