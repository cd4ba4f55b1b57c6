"""Limits on calls in flight, and on busy providers: the protocols that the engine uses."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol


class CallSlot(Protocol):
    """The place of one attempt among the calls in flight. The attempt tells it whether the endpoint
    accepted the request."""

    def accepted(self) -> None:
        """The endpoint has taken the request."""

    def refused(self, retry_after: float | None) -> None:
        """The endpoint takes no more requests for now: too many, or it is overloaded.

        retry_after: seconds that it asks to wait, or None.
        """


class Slot(Protocol):
    """The slot of one attempt: an async context manager around the attempt."""

    def enter_at_once(self) -> CallSlot | None:
        """Enter if no wait is needed. None if a wait is needed, or if that is not known."""

    async def __aenter__(self) -> CallSlot:
        """Wait until it is the attempt's turn, and until the model's provider may be asked."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool | None:
        """Leave the slot. An error is the reason why the attempt ended."""


class Slots(Protocol):
    """Decides when each attempt of a call may begin."""

    def slot(self, model: str) -> Slot:
        """The slot for one attempt of a call of that model."""

    def delay(self, model: str) -> float:
        """Seconds until the provider of that model may be asked again; usually 0."""

    def asked_delay(self, model: str) -> float:
        """Seconds that the provider of that model still asks to wait; 0 if it has not said how
        long."""

    def refused_for(self, model: str) -> float:
        """Seconds for which the provider of that model has refused all calls; usually 0."""

    def reason(self, model: str) -> str | None:
        """The reason why a call of that model would have to wait now; None if it would not wait."""

    def silences(self, model: str) -> int:
        """How many of the latest requests to that model, in a row and in this process, were given
        up before the first word of an answer."""

    def slowest(self, model: str) -> float:
        """The longest time, in seconds, that the model took for the first word of an answer in this
        process; 0 if it has given none."""

    def note(self, model: str, seconds: float | None) -> None:
        """Note how long a request to that model took to the first word of its answer. seconds: None
        if the request was given up before."""

    def next_turn(self) -> Slots:
        """The slots of a turn that begins now. Its calls wait until those of earlier turns are
        let in."""


class OwnSlots:
    """The slots of a turn that shares no slots with other turns. It never makes a call wait because
    of its provider. It is also each of its own slots, since these need no state."""

    def __init__(self, concurrency: int) -> None:
        self._free = asyncio.Semaphore(concurrency)

    def slot(self, model: str) -> OwnSlots:
        del model
        return self

    def delay(self, model: str) -> float:
        del model
        return 0.0

    def asked_delay(self, model: str) -> float:
        del model
        return 0.0

    def refused_for(self, model: str) -> float:
        del model
        return 0.0

    def reason(self, model: str) -> str | None:
        del model
        return "waiting for the limit of calls in flight" if self._free.locked() else None

    def silences(self, model: str) -> int:
        del model
        return 0

    def slowest(self, model: str) -> float:
        del model
        return 0.0

    def note(self, model: str, seconds: float | None) -> None:
        pass

    def next_turn(self) -> OwnSlots:
        return self

    def enter_at_once(self) -> None:
        # A semaphore has no way in without waiting.
        return None

    async def __aenter__(self) -> OwnSlots:
        await self._free.acquire()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._free.release()

    def accepted(self) -> None:
        pass

    def refused(self, retry_after: float | None) -> None:
        pass
