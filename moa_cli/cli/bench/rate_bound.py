"""Finds what limits the rate at which work is done, so that the user knows what to change."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

# CPU use is measured over at least this many seconds.
_LOOK = 1.0
# A process that runs, or waits for a CPU, for this share of its time is bound by the CPU.
_BUSY = 0.9
# The time of an answer is a moving average over about this many latest answers.
_RECENT = 50


@dataclass
class RateBound:
    """Finds what limits the rate of a process.

    concurrency: how many calls are allowed at once. wanted: how many the user asked for, which may
    be more than the system has file descriptors for. left: gives how many results are still to
    come. waiting: gives how many calls wait to be made. provider: see `Limiter.bound_by`.
    """

    concurrency: int
    wanted: int
    left: Callable[[], int]
    waiting: Callable[[], int]
    provider: Callable[[], str]
    _share: float = 0.0
    _seconds: float = 0.0
    _at: float = field(default_factory=time.monotonic)
    _ran: float = field(default_factory=lambda: _busy_seconds())

    def answered(self, seconds: float) -> None:
        """Note that a call was answered after this many seconds."""
        weight = 1 / _RECENT if self._seconds else 1.0
        self._seconds += (seconds - self._seconds) * weight

    def text(self) -> str:
        """What limits the rate, in words; "" before the first answer and after the last one.

        If calls wait for a provider, it is that provider. If this process uses a CPU all the time,
        it is the CPU, and more calls at once would not help. Otherwise all allowed calls are in
        flight, or there is no work for more calls, and the limit is the time that the endpoint
        takes for each.
        """
        provider, left = self.provider(), self.left()
        if provider or not left or not self._seconds:
            return provider
        if self._cpu() > _BUSY:
            return "this machine's CPU"
        answer = f"an answer takes {self._seconds:.1f} s"
        if left < self.concurrency and not self.waiting():
            return f"the endpoint ({answer})"
        if self.concurrency < self.wanted:
            return f"`ulimit -n` ({self.concurrency:,} calls at once, {answer})"
        return f"--concurrency {self.concurrency} ({answer})"

    def _cpu(self) -> float:
        """The share of the last seconds in which this process ran, or waited for a CPU."""
        now = time.monotonic()
        if now - self._at >= _LOOK:
            ran = _busy_seconds()
            self._share = (ran - self._ran) / (now - self._at)
            self._at, self._ran = now, ran
        return self._share


def _busy_seconds() -> float:
    """The seconds for which this process ran. On Linux, they are those of its main thread, and
    include the time for which it waited for a CPU."""
    try:
        ran, waited, _ = Path("/proc/self/schedstat").read_text("ascii").split()
        return (int(ran) + int(waited)) / 1e9
    except (OSError, ValueError):
        return time.process_time()
