"""How many calls a provider is sent at once, by what it takes and refuses; time is simulated."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest

from moa_cli.clients.window import Learned, Window

_SECONDS = 8.0


@dataclass
class _Provider:
    """Takes `limit` calls at once, each of 8 s, and refuses the others.

    late: the head of a response comes with its end. answered, refused, ended, peak: what came of
    a simulation. sent: when each request was.
    """

    limit: int
    late: bool = False
    retry_after: float | None = None
    trip: float = 0.05
    answered: int = 0
    refused: int = 0
    ended: float = 0.0
    peak: int = 0
    sent: list[float] = field(default_factory=list)
    _serving: int = 0

    @property
    def share(self) -> float:
        """The share of requests that were refused."""
        return self.refused / len(self.sent)

    def answer(self, window: Window, calls: int) -> None:
        """Simulate that so many calls come at once, up to the end of the last."""
        numbers = count()
        steps: list[tuple[float, int, Callable[[float], None]]] = []
        waiting = calls
        began = self.ended

        def at(when: float, step: Callable[[float], None]) -> None:
            heapq.heappush(steps, (when, next(numbers), step))

        def arrives(number: int) -> Callable[[float], None]:
            def step(now: float) -> None:
                if self._serving >= self.limit:
                    at(now + self.trip, refuses)
                    return
                self._serving += 1
                self.peak = max(self.peak, self._serving)
                if not self.late:
                    at(now + self.trip, lambda now: window.take(number, now))
                at(now + _SECONDS, leaves)
                at(now + _SECONDS + self.trip, ends)

            def refuses(now: float) -> None:
                nonlocal waiting
                self.refused += 1
                waiting += 1
                window.refuse(number, self.retry_after, now)

            def leaves(now: float) -> None:
                self._serving -= 1

            def ends(now: float) -> None:
                self.answered += 1
                self.ended = now
                window.end(number, now, answered=True)

            return step

        at(began, lambda now: None)
        while steps:
            now, _, step = heapq.heappop(steps)
            step(now)
            while waiting and (opens := window.opens_at(now)) <= now:
                waiting -= 1
                self.sent.append(now)
                at(now + self.trip, arrives(window.send(now)))
            if waiting and opens < math.inf:
                at(opens, lambda now: None)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("retry_after", [None, 0.0, 3.0])
@pytest.mark.parametrize("calls", [8, 16])
@pytest.mark.parametrize("limit", [2, 3, 4, 5, 6, 8])
def test_a_limit_that_nobody_knows_is_found_with_few_refusals(
    limit: int, calls: int, retry_after: float | None, late: bool
) -> None:
    provider = _Provider(limit, late, retry_after)
    provider.answer(Window(32), calls)
    assert provider.answered == calls
    assert provider.share <= 0.2
    assert provider.ended <= 1.3 * math.ceil(calls / limit) * _SECONDS


@pytest.mark.parametrize("limit", [1, 2, 10, 30])
def test_many_calls_fill_what_the_provider_takes(limit: int) -> None:
    provider = _Provider(limit)
    window = Window(64)
    provider.answer(window, 60 * limit)
    assert provider.share <= 0.1
    assert provider.ended <= 1.1 * 60 * _SECONDS
    assert window.size == limit


def test_a_provider_that_refuses_nothing_is_sent_all_soon_and_then_at_once() -> None:
    provider, window = _Provider(100, trip=0.01), Window(32)
    provider.answer(window, 16)
    assert max(provider.sent) <= 4 * 2 * 0.01 + 1e-9
    assert provider.sent[:4] == [0.0] * 4
    again = provider.ended
    provider.answer(window, 16)
    assert provider.sent[16:] == [again] * 16


def test_heads_that_come_late_are_not_waited_for() -> None:
    provider = _Provider(100, late=True)
    provider.answer(Window(32, taken_after=0.1), 16)
    assert max(provider.sent) <= 4 * 0.1 + 1e-9


def test_a_wave_of_refusals_halves_the_window_once() -> None:
    window = Window(32, learned=Learned(16))
    numbers = [window.send(0.0) for _ in range(16)]
    for number in numbers[:6]:
        window.refuse(number, None, 0.1)
    assert window.size == 8
    # It serves ten: that many may stay.
    for number in numbers[6:]:
        window.take(number, 0.2)
    assert window.size == 10


def test_the_window_never_falls_to_nothing() -> None:
    window = Window(32)
    now = 0.0
    for _ in range(20):
        now = window.opens_at(now)
        window.refuse(window.send(now), None, now)
    assert window.size == 1
    assert window.opens_at(now) < math.inf


def test_one_call_goes_first_after_a_refusal() -> None:
    window = Window(32, learned=Learned(16))
    numbers = [window.send(0.0) for _ in range(16)]
    window.refuse(numbers[0], 2.0, 0.1)
    for number in numbers[1:]:
        window.end(number, 0.5, answered=True)
    assert 2.1 < window.opens_at(0.5) < 2.4
    first = window.send(3.0)
    assert window.opens_at(3.0) > 3.0
    window.take(first, 3.1)
    assert window.opens_at(3.1) == 3.1


@pytest.mark.parametrize("asked", [None, 0.0, -5.0])
def test_without_a_time_it_is_left_alone_longer_and_longer(asked: float | None) -> None:
    window = Window(32)
    now, rests = 0.0, []
    for _ in range(6):
        window.refuse(window.send(now), asked, now)
        rests.append(window.held_until - now)
        now = window.held_until
    # Each is between half and the whole of a time that doubles.
    for turn, rest in enumerate(rests):
        assert 0.125 * 2**turn <= rest <= 0.25 * 2**turn
    window.end(window.send(now), now + 1, answered=True)
    window.refuse(window.send(now + 1), asked, now + 1)
    assert window.held_until - (now + 1) < max(rests)


def test_a_limit_that_was_told_is_used_at_once() -> None:
    window = Window(12, told=True)
    for _ in range(12):
        assert window.opens_at(0.0) == 0.0
        window.send(0.0)
    assert window.opens_at(5.0) == math.inf


def test_no_minute_has_more_requests_than_rpm() -> None:
    window = Window(1000, told=True, rpm=30)
    now, sent = 0.0, []
    for _ in range(100):
        now = window.opens_at(now)
        sent.append(now)
        window.end(window.send(now), now, answered=True)
    assert sent[:30] == [0.0] * 30
    assert all(later - earlier > 60 for earlier, later in zip(sent, sent[30:], strict=False))
    assert sent[-1] < 3.1 * 60


def test_what_was_learned_serves_the_next_window() -> None:
    provider, window = _Provider(2), Window(32)
    provider.answer(window, 8)
    assert window.learned == Learned(2, ceiling=3)
    refused = provider.refused
    provider.answer(Window(32, learned=window.learned), 8)
    assert provider.refused == refused
    healthy = Window(32)
    _Provider(100).answer(healthy, 12)
    assert healthy.learned == Learned(12)
    small = Window(32)
    _Provider(100).answer(small, 4)
    assert small.learned == Learned(0)


def test_how_long_nothing_was_taken() -> None:
    window = Window(32)
    assert window.refused_for(5.0) == 0
    first, second, third = (window.send(0.0) for _ in range(3))
    window.refuse(first, None, 1.0)
    assert window.refused_for(4.0) == 3.0
    window.take(second, 5.0)
    window.refuse(third, None, 6.0)
    # It serves one still.
    assert window.refused_for(20.0) == 0
    window.end(second, 20.0, answered=True)
    window.refuse(window.send(20.0), None, 21.0)
    assert window.refused_for(22.0) == 1.0


def test_where_no_call_ends_one_more_is_tried_ever_more_rarely() -> None:
    window = Window(8, learned=Learned(1, 2))
    slow = window.send(0.0)
    window.take(slow, 0.1)
    assert window.opens_at(1.0) == 20.0
    assert window.opens_at(20.0) == 20.0
    refused = window.send(20.0)
    window.refuse(refused, None, 20.1)
    assert window.opens_at(21.0) == pytest.approx(60.1)
    assert window.opens_at(60.2) == 60.2
    other = window.send(60.2)
    window.take(other, 60.3)
    assert window.size == 2


def test_a_limit_that_was_told_is_never_tried() -> None:
    window = Window(1, told=True)
    window.take(window.send(0.0), 0.1)
    assert window.opens_at(1000.0) == math.inf
