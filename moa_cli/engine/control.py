"""The one handle by which a front end speaks to a turn in flight."""

from __future__ import annotations

import asyncio


class Control:
    """The one way to speak to a turn that runs: pass one to `run_turn`, and call `enough()`."""

    def __init__(self) -> None:
        self._enough = asyncio.Event()

    def enough(self) -> None:
        """Stop waiting for proposers, and go on to the reply with what has arrived.

        Layers that have not begun are skipped. Has no effect before the first proposal of
        a turn has arrived, until it does.
        """
        self._enough.set()

    @property
    def said_enough(self) -> bool:
        """Whether `enough()` was called."""
        return self._enough.is_set()

    async def wait(self) -> None:
        """Return once `enough()` is called."""
        await self._enough.wait()
