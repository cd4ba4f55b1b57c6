"""How many calls may be in flight, and which provider may be asked now: the engine's side of it."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol


class CallSlot(Protocol):
    """The place of one attempt among the calls in flight. It is told how the endpoint took it."""

    def accepted(self) -> None:
        """The endpoint has taken the request."""

    def refused(self, retry_after: float | None) -> None:
        """The endpoint takes no more requests for now: too many, or it is overloaded.

        retry_after: seconds that it asks to wait, or None.
        """


class Slot(Protocol):
    """The slot of one attempt, which is made while inside."""

    def enter_at_once(self) -> CallSlot | None:
        """Go in if that takes no waiting. None if it does, or if that is not known."""

    async def __aenter__(self) -> CallSlot:
        """Wait for its turn, and as long as the provider of the model is held back."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool | None:
        """Leave it. An error is why the attempt ended."""


class Slots(Protocol):
    """Lets the attempts of calls in, one by one."""

    def slot(self, model: str) -> Slot:
        """For one attempt of a call of that model."""

    def delay(self, model: str) -> float:
        """Seconds until the provider of that model may be asked again; usually 0."""

    def refused_for(self, model: str) -> float:
        """Seconds for which the provider of that model has refused all calls; usually 0."""

    def reason(self, model: str) -> str | None:
        """What a call of that model would wait for now, in words; None if it would not wait."""

    def silences(self, model: str) -> int:
        """How many of the latest requests to that model in this process, in a row, were given up
        before their first word."""

    def slowest(self, model: str) -> float:
        """The most seconds that a request to that model took to its first word in this process; 0
        if none spoke."""

    def note(self, model: str, seconds: float | None) -> None:
        """A request to that model spoke after so many seconds, or (None) was given up before."""

    def next_turn(self) -> Slots:
        """The slots of a turn that begins now: its calls wait behind those of running turns."""


class OwnSlots:
    """The slots of one turn that shares none; each place in it, too. It holds no provider back."""

    def __init__(self, concurrency: int) -> None:
        self._free = asyncio.Semaphore(concurrency)

    def slot(self, model: str) -> OwnSlots:
        del model
        return self

    def delay(self, model: str) -> float:
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
