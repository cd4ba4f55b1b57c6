"""A time limit over many short waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TypeVar

__all__ = ["Deadline"]

T = TypeVar("T")


class Deadline:
    """`asyncio.timeout` around each of many waits, at the price of one timer.

    A context that belongs to no task, so that a generator may yield inside of it (PEP 789).
    seconds: from entering it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._passed = False
        self._waiting: asyncio.Task[object] | None = None

    def __enter__(self) -> Deadline:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._pass)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()

    @property
    def left(self) -> float:
        """Seconds until it passes."""
        return self._timer.when() - asyncio.get_running_loop().time()

    def _pass(self) -> None:
        self._passed = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def next(self, items: AsyncIterator[T]) -> T:
        """The next item. Raises TimeoutError if it has not come in time."""
        if self.left <= 0:
            raise TimeoutError
        task = asyncio.current_task()
        assert task is not None
        cancelled = task.cancelling()
        self._waiting = task
        try:
            return await anext(items)
        except asyncio.CancelledError:
            # Not ours if somebody else has cancelled the task, too.
            if self._passed and task.uncancel() <= cancelled:
                raise TimeoutError from None
            raise
        finally:
            self._waiting = None
