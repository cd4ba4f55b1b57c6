"""Turns whose every second is scripted, on a clock of their own: a minute passes at once.

For what depends on who is first, and by how much. What is real in such a turn is the engine; its
endpoints are in this process.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar
from unittest.mock import patch

from moa_cli.core.endpoints import Delta, Endpoint, ModelInfo, Request
from moa_cli.core.errors import ClientTimeout, RequestRefused
from moa_cli.core.events import Event
from moa_cli.engine import Control, Limits, run_turn
from moa_cli.profile import Profile
from tests.support.mixtures import AT_ONCE, asked, check_turn

T = TypeVar("T")


@dataclass(frozen=True)
class Timed:
    """How one call is answered: a pause of so many seconds before each of these pieces.

    finish_reason: told behind them. error: raised then, in place of the end. hangs: nothing more
    comes.
    """

    pieces: Sequence[tuple[float, str]] = ()
    finish_reason: str | None = None
    error: Exception | None = None
    hangs: bool = False

    @property
    def seconds(self) -> float:
        """Until its end, if it has one."""
        return sum(pause for pause, _ in self.pieces)


def after(seconds: float, text: str) -> Timed:
    """A whole answer in one piece."""
    return Timed([(seconds, text)])


def silent(seconds: float) -> Timed:
    """Nothing, until the call is given up."""
    return Timed([(seconds, "")], error=ClientTimeout("test: silent"))


def refused(seconds: float = 0.0) -> Timed:
    return Timed([(seconds, "")], error=RequestRefused("test: refused"))


HANGS = Timed(hangs=True)


@dataclass
class TimedClients:
    """Endpoints by script: of each model its answers in order, the last one again and again.

    asked: the requests, by model. open: the calls that have not ended.
    """

    scripts: Mapping[str, Timed | Sequence[Timed]]
    asked: defaultdict[str, list[Request]] = field(default_factory=lambda: defaultdict(list))
    open: int = 0

    def endpoint(self, model_name: str) -> Endpoint:
        """The model's own client."""
        client = _TimedClient(self, model_name)
        return Endpoint(client=client, model=model_name, provider="test")

    def known(self, model_name: str) -> ModelInfo:
        """Nothing is known."""
        return ModelInfo(id=model_name)

    async def facts(self, model_name: str, *, patience: float = 0.0) -> ModelInfo:
        """Nothing can be found out."""
        del patience
        return self.known(model_name)

    def references_of(self, model: str, call: int = -1) -> str:
        """What a call had after "Responses from models:"; "" without that."""
        system = [m.content for m in self.asked[model][call].messages if m.role == "system"]
        return "".join(system).partition("Responses from models:")[2]


@dataclass
class _TimedClient:
    clients: TimedClients
    model: str

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        given = self.clients.scripts.get(self.model, Timed([(0.0, f"from {self.model}")]))
        answers = [given] if isinstance(given, Timed) else list(given)
        calls = self.clients.asked[self.model]
        answer = answers[min(len(calls), len(answers) - 1)]
        calls.append(request)
        self.clients.open += 1
        try:
            for pause, text in answer.pieces:
                await asyncio.sleep(pause)
                if text:
                    yield Delta(text=text)
            if answer.finish_reason is not None:
                yield Delta(finish_reason=answer.finish_reason)
            if answer.error is not None:
                raise answer.error
            if answer.hangs:
                await asyncio.Event().wait()
        finally:
            self.clients.open -= 1

    async def models(self) -> list[ModelInfo]:
        return []

    async def aclose(self) -> None:
        pass


class _Clock(selectors.SelectSelector):
    """A selector that does not wait: time goes on at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def pass_over(self, seconds: float) -> None:
        self._clock.now += seconds


def block(seconds: float) -> None:
    """Let so much time go on in which nothing runs, inside `run_timed`."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _Loop)
    loop.pass_over(seconds)


def run_timed(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns, in a loop whose time goes on only while all wait. All clocks show it."""
    runner = asyncio.Runner(loop_factory=_Loop)
    with runner, patch("time.monotonic", runner.get_loop().time):
        return runner.run(work)


def play(
    profile: Profile,
    scripts: Mapping[str, Timed | Sequence[Timed]],
    *,
    control: Control | None = None,
    enough_at: Iterable[float] = (),
    watch: Callable[[Event, float], None] | None = None,
    limits: Limits = AT_ONCE,
) -> tuple[list[Event], list[float], TimedClients]:
    """A whole turn, which is checked: its events, when each came, and the endpoints.

    enough_at: when `control` is told that it is enough. watch: called with each event and the time.
    """
    clients = TimedClients({f"lab:{model}": script for model, script in scripts.items()})
    events: list[Event] = []
    times: list[float] = []

    async def turn() -> None:
        loop = asyncio.get_running_loop()
        for at in enough_at:
            assert control is not None
            loop.call_at(at, control.enough)
        async with aclosing(
            run_turn(profile, asked(), clients, control=control, limits=limits)
        ) as running:
            async for event in running:
                events.append(event)
                times.append(loop.time())
                if watch is not None:
                    watch(event, loop.time())
        assert clients.open == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_timed(turn())
    check_turn(events, profile, asked())
    return events, times, clients
