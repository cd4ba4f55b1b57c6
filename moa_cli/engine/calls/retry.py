"""Decides whether, and when, a failed call is made again."""

from __future__ import annotations

import random
import time

from moa_cli.core.errors import ClientError

_LONGEST_DELAY = 60.0


class Backoff:
    """The retries of one call.

    most: how many failed attempts are made again. first_delay: seconds before the first retry.
    longest_wait: seconds for which a busy provider may refuse the call. retries: the number of
    retries so far. refusal: the last error of a busy provider, or None.
    """

    def __init__(self, most: int, first_delay: float, longest_wait: float) -> None:
        self._most = most
        self._first_delay = first_delay
        self._longest_wait = longest_wait
        self._failures = 0
        self._waited = 0.0
        # Seconds for which the slots hold the next attempt back. They are added to `_waited` when
        # it is sent.
        self._held = 0.0
        self._sent = time.monotonic()
        self.retries = 0
        self.refusal: ClientError | None = None

    @property
    def left(self) -> float:
        """Seconds that the call may still be held back by a busy provider."""
        return self._longest_wait - self._waited

    def sent(self) -> None:
        """An attempt is made now."""
        self._sent = time.monotonic()
        self._waited += self._held
        self._held = 0.0

    def next(self, error: ClientError, held: float, left: float) -> tuple[float, bool]:
        """The delay until the next attempt in seconds, and whether the slots enforce it, so that
        the caller need not wait itself.

        If the slots do not hold the provider back, the delay grows exponentially, with jitter, and
        is at least as long as the endpoint asks for. error: of the last attempt; it is raised if
        the call is not made again. held: seconds for which the slots hold the provider back. left:
        seconds that the call may still take.
        """
        if not error.retryable or not self._most:
            raise error
        if error.overloaded:
            self.refusal = error
            self._waited += time.monotonic() - self._sent
        else:
            self._failures += 1
        left = min(left, self.left)
        delay = held
        if held <= 0:
            longest = min(_LONGEST_DELAY, self._first_delay * 2.0**self.retries)
            delay = longest * random.uniform(0.5, 1)  # noqa: S311
            if error.overloaded:
                delay = min(delay, left)
            delay = max(delay, error.retry_after or 0.0)
        if left <= 0 or delay > left or self._failures > self._most:
            raise error
        if error.overloaded and held > 0:
            self._held = held
        elif error.overloaded:
            self._waited += delay
        self.retries += 1
        return delay, held > 0
