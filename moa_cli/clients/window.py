"""How many calls a provider takes at once, learned from what it takes and what it refuses.

No provider reports its limit of concurrent calls, and many limit something else (requests a minute,
tokens, the load of all users). So the limit is found by trying, as TCP finds the capacity of a
line. The rules:

The *window* is the number of calls that may be in flight. It begins at four: a mixture with a few
proposers is sent at once, and a provider that takes two calls refuses two of them; with a window of
eight it would refuse six. It grows by half (a large window doubles) as soon as all the calls that
filled it were taken. A call is taken when the head of its response arrives; because some endpoints
send the head with the first token only, a call that is not refused within a fraction of a second
counts as taken, too. So a healthy provider is slowed down once, by a round trip or two, when it
first gets more than four calls at once. The window is then kept for a day (see
`moa_cli.clients.learned_limits`), so later runs send all their calls at once.

A *wave* of refusals halves the window once: refusals of calls that were sent before the window was
halved say nothing new. The window never falls below the number of calls that the provider is
serving at that moment, which is the best estimate of a limit on concurrent calls, and never below
one. After a wave it grows by one call for each full window that was taken. The smallest number of
calls in flight at which a call was refused is the *ceiling*. It is tried again only after many
calls have been taken, each time after four times as many as before, so that probing costs a few
refusals in a hundred calls.

If the window is full and no call ends for a while, one more call is sent, each time after a longer
wait: a single model that refuses everything shrinks the window, and the provider's other models
must not wait behind one slow call.

After a refusal the provider is *left alone*: for the time that it asks for, plus jitter, or for a
time that doubles with each wave while no call is taken. Then one call is sent first, and the others
follow as calls are taken.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass

_START = 4
# From this size on the window doubles: the refusals at the limit are then few, compared to all
# calls.
_MANY = 16
# Seconds after which a call that was not refused counts as taken, because a refusal takes one round
# trip. If a refusal took longer, the time becomes twice the time of that refusal, up to the second
# value.
_TAKEN_AFTER = 0.25
_LONGEST_TAKEN_AFTER = 2.0
# After this many times that time, a call is certainly taken: a refusal is not expected any more.
_SURELY = 3
# Most seconds of jitter that are added to the time that a provider asks for.
_MOST_JITTER = 1.0
# Seconds for which a provider is left alone that does not say for how long: the first time, which
# doubles with each wave, and the longest.
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.25, 20.0
# Calls that must be taken before the ceiling is tried again: the first and the largest number, and
# the factor between two tries.
_FEWEST_TAKEN, _MOST_TAKEN, _MORE_TAKEN = 10, 1280, 4
# If no call ends and none is refused for this many seconds, one more call is tried. The time
# doubles with each such call, up to the second value.
_STUCK_AFTER, _LONGEST_STUCK_AFTER = 20.0, 300.0
# Seconds of the window for requests a minute. A little longer than a minute, because the provider
# counts from the arrival of a request.
_MINUTE = 60.5


@dataclass(frozen=True)
class Learned:
    """What was learned about a provider. taken: the most calls that it served at once. ceiling: the
    least number of concurrent calls of which it refused one, None if it refused none."""

    taken: int
    ceiling: int | None = None


class Window:
    """The window of one provider. Times are seconds of one monotonic clock.

    most: the most calls in flight at once, never exceeded. told: whether `most` is the known limit
    of the provider, so that it need not be found. rpm: most requests in any minute, None for no
    limit. learned: what was learned before. taken_after: seconds after which a call that was not
    refused counts as taken. held_until: the time from which calls may be sent again. asked_until:
    the time until which the provider itself asked to wait.
    """

    def __init__(
        self,
        most: int,
        *,
        told: bool = False,
        rpm: int | None = None,
        learned: Learned | None = None,
        taken_after: float = _TAKEN_AFTER,
    ) -> None:
        self.told = told
        self.held_until = self.asked_until = -math.inf
        self._most = most
        self._size: float = most if told else min(most, _START)
        # Below this size the window grows fast; from this size on it grows by one call at a time.
        self._fast_below = math.inf
        self._ceiling = self._ceiling_before = math.inf
        # Calls that were answered since the last wave, and how many are needed to try the ceiling.
        self._taken, self._needed = 0, _FEWEST_TAKEN
        self._most_taken = 0
        self._taken_after = taken_after
        # When each call in flight was sent, by its number; the oldest call first.
        self._calls: dict[int, float] = {}
        # The numbers of the calls whose acceptance the provider has not shown yet.
        self._unsure: dict[int, None] = {}
        self._number = 0
        # The numbers of the calls that do not count as taken yet: of the unsure calls, those that
        # are younger than `_taken_after`. And the most such calls at once.
        self._undecided: dict[int, None] = {}
        self._allowance = math.inf
        # The call that filled the window; None while it is not full.
        self._filled_by: int | None = None
        # The last call that was sent before the last wave began; the count of waves that determines
        # the next time to leave the provider alone; whether the number of calls may be the reason
        # for the last wave.
        self._wave_from = 0
        self._waves = 0
        self._too_many_at_once = False
        # When a call last ended or was refused; and how long to wait for the next end of a call
        # before one more is tried.
        self._moved_at = -math.inf
        self._stuck_after = _STUCK_AFTER
        # Since when calls are refused without one being taken; None if the last result was a taken
        # call.
        self._refusing_since: float | None = None
        self._rpm = rpm
        self._starts: deque[float] = deque(maxlen=rpm or 0)
        if learned is not None and not told:
            self._begin_with(learned)

    def _begin_with(self, learned: Learned) -> None:
        self._most_taken = learned.taken
        size: float = max(_START, learned.taken)
        if learned.ceiling is not None:
            self._ceiling = learned.ceiling
            size = self._fast_below = max(1, learned.ceiling - 1)
            self._needed = max(_FEWEST_TAKEN, 2 * size)
        self._size = min(size, self._most)

    @property
    def size(self) -> int:
        """Calls that may be in flight."""
        return int(self._size)

    @property
    def in_flight(self) -> int:
        """Calls that are in flight."""
        return len(self._calls)

    @property
    def learned(self) -> Learned:
        """What was learned. Nothing if no call was refused and no more than the first window was in
        flight."""
        if self._ceiling == math.inf and self._most_taken <= _START:
            return Learned(0)
        return Learned(self._most_taken, None if self._ceiling == math.inf else int(self._ceiling))

    def opens_at(self, now: float) -> float:
        """When the next call may be sent: `now` if at once, a later time if only time must pass,
        infinity if another call must end first."""
        self._assume_taken(now)
        opens = max(now, self.held_until)
        if self._rpm is not None and len(self._starts) == self._rpm:
            opens = max(opens, self._starts[0] + _MINUTE)
        full = self.in_flight >= self.size or len(self._undecided) >= self._allowance
        if opens == now and full:
            # The oldest undecided call counts as taken after a while, which may open the window.
            oldest = next(iter(self._undecided), None)
            if oldest is not None:
                return self._calls[oldest] + self._taken_after
            if self.told or self.size >= self._most:
                return math.inf
            newest = next(reversed(self._calls.values()))
            stuck_at = max(self._moved_at, newest) + self._stuck_after
            if now < stuck_at:
                return stuck_at
            self._try_one_more()
        return opens

    def _try_one_more(self) -> None:
        self._stuck_after = min(_LONGEST_STUCK_AFTER, 2 * self._stuck_after)
        self._size = self.in_flight + 1
        self._ceiling = max(self._ceiling, self._size + 1)
        self._allowance = math.inf

    def refused_for(self, now: float) -> float:
        """Seconds for which the provider has refused all calls; 0 if it takes or serves some."""
        serving = len(self._calls) > len(self._undecided)
        return 0.0 if self._refusing_since is None or serving else now - self._refusing_since

    def send(self, now: float) -> int:
        """Note that a call is sent; returns its number."""
        self._number += 1
        self._calls[self._number] = now
        self._unsure[self._number] = self._undecided[self._number] = None
        if self._rpm is not None:
            self._starts.append(now)
        if self._filled_by is None and self.in_flight >= self.size:
            self._filled_by = self._number
        return self._number

    def late(self, seconds: float, now: float) -> None:
        """The event loop was busy, so the window's timer fired this many seconds late. No response
        was read in that time, also no refusal, so the undecided calls wait anew."""
        if seconds > self._taken_after / 2:
            for number in self._undecided:
                self._calls[number] = now

    def take(self, number: int, now: float) -> None:
        """Note that the provider has taken a call."""
        if number not in self._unsure:
            return
        del self._unsure[number]
        self._refusing_since = None
        if number > self._wave_from:
            self._waves //= 2
        if self.in_flight > min(self._most_taken, self._ceiling - 1, self._size):
            # Otherwise the provider serves no more calls than is known already.
            self._count_served(now)
        self._decide(number)

    def _count_served(self, now: float) -> None:
        surely = now - _SURELY * self._taken_after
        served = len(self._calls) - len(self._unsure)
        # The calls are in the order in which they were sent.
        for number in self._unsure:
            if self._calls[number] > surely:
                break
            served += 1
        self._most_taken = max(self._most_taken, served)
        if served >= self._ceiling:
            # The provider takes more than it did.
            self._ceiling = self._fast_below = math.inf
            self._needed = _FEWEST_TAKEN
        self._size = max(self._size, min(served, self._ceiling - 1, self._most))

    def end(self, number: int, now: float, *, answered: bool) -> None:
        """Note that a call has ended. answered: whether it was answered without an error."""
        self._moved_at = now
        if answered:
            self.take(number, now)
            self._taken += 1
            self._refusing_since = None
        self._remove(number)
        self._grow()

    def _remove(self, number: int) -> None:
        self._calls.pop(number, None)
        self._unsure.pop(number, None)
        self._undecided.pop(number, None)

    def refuse(self, number: int, retry_after: float | None, now: float) -> None:
        """Note that a call was refused, for too many requests or overload. It is not in flight any
        more."""
        sent = self._calls.get(number)
        if sent is None:
            return
        reached = self.in_flight
        self._moved_at = now
        self._remove(number)
        if self._refusing_since is None:
            self._refusing_since = now
        took = 2 * (now - sent)
        self._taken_after = max(self._taken_after, min(took, _LONGEST_TAKEN_AFTER))
        if number > self._wave_from:
            self._begin_wave(reached)
        if reached == 1:
            # Nothing else was in flight: the number of calls is not the reason.
            self._ceiling = self._ceiling_before
        elif self._too_many_at_once:
            self._ceiling = max(2, self._most_taken + 1, min(self._ceiling, reached))
            self._needed = max(self._needed, 2 * int(self._ceiling - 1))
        self._size = max(1, min(self._size, self._ceiling - 1))
        self._fast_below = self._size
        self._taken = 0
        self._filled_by = None
        self._allowance = 1
        self._rest(retry_after, now)

    def _begin_wave(self, reached: int) -> None:
        """Make the window smaller. reached: calls in flight with the first that was refused."""
        self._wave_from = self._number
        self._waves += 1
        self._ceiling_before = self._ceiling
        if reached >= self._ceiling:
            # The ceiling was tried again too early, and fewer calls are still taken.
            self._needed = min(_MOST_TAKEN, _MORE_TAKEN * self._needed)
            self._size = self._ceiling - 1
            return
        serving = len(self._calls) - len(self._undecided)
        self._size = max(1, min(self.size, reached) // 2, min(serving, self.size))
        self._too_many_at_once = reached > self._most_taken
        if not self._too_many_at_once:
            # The provider served more calls before, so it limits something else, or its limit has
            # become lower.
            self._most_taken //= 2

    def _rest(self, retry_after: float | None, now: float) -> None:
        own = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** (self._waves - 1))
        seconds = own * random.uniform(0.5, 1)  # noqa: S311
        if retry_after is not None and retry_after > 0:
            self.asked_until = max(self.asked_until, now + retry_after)
            later = min(_MOST_JITTER, 0.1 * retry_after)
            seconds = max(seconds, retry_after + later * random.uniform(0.1, 1))  # noqa: S311
        self.held_until = max(self.held_until, now + seconds)

    def _assume_taken(self, now: float) -> None:
        while self._undecided:
            number = next(iter(self._undecided))
            if self._calls[number] + self._taken_after > now:
                return
            self._decide(number)

    def _decide(self, number: int) -> None:
        if number not in self._undecided:
            return
        del self._undecided[number]
        if number > self._wave_from:
            self._allowance += 1
            if self._allowance >= self._size:
                self._allowance = math.inf
        self._grow()

    def _grow(self) -> None:
        """Grow if all calls that filled the window were taken."""
        oldest = next(iter(self._undecided), math.inf)
        if self._filled_by is None or oldest <= self._filled_by:
            return
        self._filled_by = None
        size = self._size
        if size + 1 < self._ceiling:
            if size >= self._fast_below:
                size += 1
            else:
                size = 2 * size if size >= _MANY else max(1.5 * size, size + 2)
            size = min(size, self._ceiling - 1)
        elif self._taken >= self._needed:
            size = int(size) + 1
            self._taken = 0
        self._size = min(size, self._most)
