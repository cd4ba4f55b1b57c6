"""The events of a turn, and their recording into a store."""

from __future__ import annotations

from collections.abc import Callable

from moa_cli.core.conversation import Failure, Proposal, Usage
from moa_cli.core.events import (
    AggregatorDelta,
    AggregatorFinished,
    AggregatorStarted,
    Caller,
    Event,
    LayerFinished,
    LayerStarted,
    ProposerFailed,
    ProposerFinished,
    ProposerStarted,
    Retrying,
    TurnFinished,
    TurnStarted,
)
from moa_cli.core.stream import TurnFold
from moa_cli.store.recorder import Recorder
from moa_cli.store.store import Store

__all__ = ["GOOD", "LOST", "RecorderAlone", "events", "record"]

GOOD = Proposal(1, 0, "a", "lab:a", "one", usage=Usage(3, 2, calls=1), seconds=1.5)
LOST = Proposal(1, 1, "b", "lab:b", "", error=Failure("ServerFailed", "it failed", "wait"))


def events(prompt: str = "why?", reply: str = "so.") -> list[Event]:
    callers = (Caller(name="a", model="lab:a"), Caller(name="b", model="lab:b"))
    return [
        TurnStarted(profile="trio", prompt=prompt, rounds=1, aggregator="lab:c"),
        LayerStarted(layer=1, proposers=callers),
        ProposerStarted(layer=1, index=0),
        ProposerStarted(layer=1, index=1),
        Retrying(
            layer=1, index=1, model="lab:b", attempt=2, delay=0.1, error=Failure("X", "again")
        ),
        ProposerFailed(layer=1, index=1, proposal=LOST),
        ProposerFinished(layer=1, index=0, proposal=GOOD),
        LayerFinished(layer=1, answered=1, asked=2, seconds=1.5),
        AggregatorStarted(name="c", model="lab:c", references=1),
        AggregatorDelta(text=reply),
        AggregatorFinished(
            model="lab:c",
            text=reply,
            answered_by="c-2",
            usage=Usage(6, 2, calls=1),
            finish_reason="stop",
        ),
        TurnFinished(usage=Usage(9, 4, calls=2), seconds=2.5, lost=("b: it failed",)),
    ]


class RecorderAlone(Recorder):
    """A recorder that is handed the turn so far as `deliver` hands it."""

    def __init__(
        self,
        store: Store,
        conversation: str | None,
        settings: str,
        warn: Callable[[str], None],
        known: int | None = None,
    ) -> None:
        super().__init__(store, conversation, settings, warn, known)
        self._so_far = TurnFold()
        self.follow(self._so_far)

    def handle(self, event: Event) -> None:
        """Take the next event."""
        self._so_far.handle(event)
        super().handle(event)

    def close(self) -> None:
        """No more events will come."""
        self._so_far.close()
        super().close()


def record(
    store: Store, happened: list[Event], conversation: str | None = None, *, alone: bool = True
) -> Recorder:
    """Write a turn. alone: whether nobody else writes, so that there is nothing to wait for."""
    warnings: list[str] = []
    recorder = RecorderAlone(store, conversation, "rounds = 1", warnings.append)
    for event in happened:
        recorder.handle(event)
    recorder.close()
    waits = () if alone else ("another process is writing to the history",)
    assert [warning for warning in warnings if not warning.startswith(waits)] == []
    return recorder
