"""Whose turn it is to make a call, over all turns, threads and providers of a process."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moa_cli.clients.limiter import Limiter, TurnSlots
from moa_cli.models.table import Provider

_LAB = Provider(name="lab", base_url="https://lab.example/v1", concurrency=2)
_OTHER = Provider(name="other", base_url="https://other.example/v1", concurrency=2)


def _provider_of(model: str) -> Provider:
    return {"lab": _LAB, "other": _OTHER}[model.partition(":")[0]]


class _Calls:
    """Calls that last until they are ended. begun: their names, in order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def begin(self, slots: TurnSlots, name: str, model: str = "lab:m") -> None:
        """Ask for a place; it need not be there yet."""
        end = self._ends[name] = asyncio.Event()

        async def call() -> None:
            async with slots.slot(model):
                self.begun.append(name)
                await end.wait()

        self._tasks[name] = asyncio.create_task(call())
        await self._rest()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._rest()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await self._rest()

    async def finish(self) -> None:
        for end in self._ends.values():
            end.set()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _rest(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


def _run(scenario: Callable[[_Calls], Awaitable[None]]) -> None:
    async def run() -> None:
        calls = _Calls()
        await scenario(calls)
        await calls.finish()

    asyncio.run(run())


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOA_CACHE_DIR", str(tmp_path))


def test_a_running_turn_goes_before_one_that_begins() -> None:
    async def scenario(calls: _Calls) -> None:
        slots = Limiter(2).slots(_provider_of)
        first, second = slots.next_turn(), slots.next_turn()
        await calls.begin(first, "first 1")
        await calls.begin(second, "second 1")
        await calls.begin(second, "second 2")
        await calls.begin(second, "second 3")
        await calls.begin(first, "first 2")
        for name in ("first 1", "second 1", "first 2"):
            await calls.end(name)
        assert calls.begun == ["first 1", "second 1", "first 2", "second 2", "second 3"]

    _run(scenario)


def test_items_go_in_the_order_that_they_are_given() -> None:
    async def scenario(calls: _Calls) -> None:
        limiter = Limiter(1)
        for item in (3, 9, 1, 5):
            await calls.begin(limiter.slots(_provider_of, item), str(item))
        for name in ("3", "1", "5"):
            await calls.end(name)
        assert calls.begun == ["3", "1", "5", "9"]

    _run(scenario)


def test_a_full_provider_does_not_hold_up_another() -> None:
    async def scenario(calls: _Calls) -> None:
        limiter = Limiter(8)
        slots = limiter.slots(_provider_of).next_turn()
        for number in range(4):
            await calls.begin(slots, f"lab {number}")
        await calls.begin(slots, "other", "other:m")
        assert calls.begun == ["lab 0", "lab 1", "other"]
        assert (limiter.in_flight, limiter.waiting) == (3, 2)
        assert slots.reason("lab:m") == "waiting for the limit of lab"
        assert slots.reason("other:m") is None

    _run(scenario)


def test_all_providers_together_keep_to_the_limit_of_the_process() -> None:
    async def scenario(calls: _Calls) -> None:
        slots = Limiter(3).slots(_provider_of).next_turn()
        for number in range(2):
            await calls.begin(slots, f"lab {number}")
            await calls.begin(slots, f"other {number}", "other:m")
        assert calls.begun == ["lab 0", "other 0", "lab 1"]
        assert slots.reason("other:m") == "waiting for the limit of 3 calls in flight"

    _run(scenario)


def test_one_that_is_given_up_leaves_no_hole() -> None:
    async def scenario(calls: _Calls) -> None:
        limiter = Limiter(2)
        slots = limiter.slots(_provider_of).next_turn()
        for number in range(5):
            await calls.begin(slots, str(number))
        await calls.cancel("2")
        await calls.cancel("0")
        await calls.end("1")
        assert calls.begun == ["0", "1", "3", "4"]
        await calls.end("3")
        await calls.end("4")
        assert (limiter.in_flight, limiter.waiting) == (0, 0)

    _run(scenario)


def test_one_that_is_cancelled_as_it_is_let_in_leaves_no_hole() -> None:
    async def run() -> None:
        limiter = Limiter(1)
        slots = limiter.slots(_provider_of).next_turn()
        place = slots.slot("lab:m")
        await place.__aenter__()

        async def call() -> None:
            async with slots.slot("lab:m"):
                raise AssertionError("it was cancelled before")

        waiting = asyncio.create_task(call())
        await asyncio.sleep(0)
        # Both within one step of the event loop.
        await place.__aexit__(None)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (limiter.in_flight, limiter.waiting) == (0, 0)

    asyncio.run(run())


def test_a_refusal_holds_back_all_calls_of_the_provider() -> None:
    async def scenario(calls: _Calls) -> None:
        slots = Limiter(8).slots(_provider_of).next_turn()
        async with slots.slot("lab:m") as place:
            place.refused(120.0)
        await calls.begin(slots, "lab", "lab:another")
        await calls.begin(slots, "other", "other:m")
        assert calls.begun == ["other"]
        assert 120 < slots.delay("lab:another") < 135
        assert slots.delay("other:m") == 0
        reason = slots.reason("lab:m")
        assert reason is not None
        assert reason.startswith("lab is paused for 1")
        await calls.cancel("lab")

    _run(scenario)


def test_a_limit_that_was_found_out_is_told_without_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("moa_cli.clients.limiter.time.monotonic", lambda: now)
    unknown = Provider(name="lab", base_url="https://lab.example/v1")
    slots = Limiter(32).slots(lambda _: unknown).next_turn()
    places = [slots.slot("lab:m").enter_at_once() for _ in range(4)]
    for place in places[:3]:
        assert place is not None
        place.accepted()
    assert places[3] is not None
    places[3].refused(0.001)
    assert slots.reason("lab:m") == "lab is paused for 0 s"
    now += 3
    assert slots.reason("lab:m") == "waiting for the limit of lab"


def test_who_waits_for_time_alone_is_woken() -> None:
    async def run() -> None:
        slots = Limiter(8).slots(_provider_of).next_turn()
        async with slots.slot("lab:m") as place:
            place.refused(0.05)
        async with slots.slot("lab:m"):
            assert slots.delay("lab:m") == 0

    asyncio.run(run())


def test_threads_with_event_loops_of_their_own_share_one_limiter() -> None:
    limiter = Limiter(4)
    lock = threading.Lock()
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def turn() -> None:
        slots = limiter.slots(_provider_of).next_turn()

        async def call(provider: str) -> None:
            async with slots.slot(f"{provider}:m") as place:
                with lock:
                    now[provider] += 1
                    most[provider] = max(most[provider], now[provider])
                place.accepted()
                await asyncio.sleep(0.002)
                with lock:
                    now[provider] -= 1

        await asyncio.gather(*(call(name) for name in ("lab", "other") * 5))

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(asyncio.run, turn()) for _ in range(24)]:
            done.result()
    assert most == {"lab": 2, "other": 2}
    assert (limiter.in_flight, limiter.waiting) == (0, 0)


def test_what_was_learned_serves_the_next_process(tmp_path: Path) -> None:
    open_lab = Provider(name="lab", base_url="https://user:secret@lab.example/v1")

    async def turn(limiter: Limiter, calls: int, taken: int) -> int:
        slots = limiter.slots(lambda _: open_lab).next_turn()
        sent = 0

        async def call() -> None:
            nonlocal sent
            while True:
                async with slots.slot("lab:m") as place:
                    sent += 1
                    await asyncio.sleep(0)
                    if limiter.in_flight > taken:
                        place.refused(0.001)
                        continue
                    place.accepted()
                    await asyncio.sleep(0.01)
                    return

        await asyncio.gather(*(call() for _ in range(calls)))
        return sent

    assert asyncio.run(turn(Limiter(32), 8, 2)) > 8
    (kept,) = (tmp_path / "limits").iterdir()
    assert "secret" not in kept.name + kept.read_text()
    assert asyncio.run(turn(Limiter(32), 8, 2)) == 8
    for broken in ("", "[]", '{"taken": "x"}', '{"taken": -1, "ceiling": 0, "as_of": 1e99}'):
        kept.write_text(broken)
        assert asyncio.run(turn(Limiter(32), 8, 99)) == 8


def test_silences_of_a_model_are_counted_until_it_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("moa_cli.clients.limiter.time.monotonic", lambda: now)
    slots = Limiter(8).slots(_provider_of)
    assert slots.silences("lab:m") == 0
    for expected in (1, 2, 3):
        slots.note("lab:m", None)
        assert slots.next_turn().silences("lab:m") == expected
    assert slots.silences("lab:n") == 0
    slots.note("lab:m", 7.5)
    slots.note("lab:m", 0.5)
    assert slots.silences("lab:m") == 0
    assert slots.slowest("lab:m") == 7.5
    assert slots.slowest("lab:n") == 0
    slots.note("lab:m", None)
    now += 299
    slots.note("lab:m", None)
    assert slots.silences("lab:m") == 2
    # From the first of them on.
    now += 2
    assert slots.silences("lab:m") == 0
