"""Turns that meet a fault: in round 1, in round 2, and where the reply is written."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from moa_cli.clients.pool import ClientPool
from moa_cli.config.schema import Config, ProviderSettings
from moa_cli.core.conversation import Conversation, Turn, Usage
from moa_cli.core.events import Event
from moa_cli.core.ledger import CallBegun, TurnLedger
from moa_cli.core.money import Price
from moa_cli.core.stream import deliver
from moa_cli.engine import Limits, run_turn
from moa_cli.profile import Profile, build
from tests.faults.endpoint import Asked, Endpoint
from tests.faults.fault import Fault
from tests.faults.places import Place
from tests.faults.script import ENDING, GOOD, ROLE, Script, said, stream
from tests.faults.table import FAULTS

KEY = "lab-key-0123456789"
PROMPT = "What is rain?"
SOUND = "A sound answer."
PRICE = Price(1.0, 2.0)
# A call is made again once, at first after so many seconds; and for so many where its endpoint is
# busy, which is long enough for a busy machine to make a second attempt.
RETRIES, FIRST_DELAY, WAIT = 1, 0.001, 5.0
# Where the reply is written: by an aggregator alone, by one with a fallback, and by one with a
# fallback of which nothing is shown before its end.
Position = Literal["round 1", "round 2", "aggregator", "fallback", "held"]
POSITIONS: tuple[Position, ...] = ("round 1", "round 2", "aggregator", "fallback", "held")


@dataclass(frozen=True)
class Case:
    """A fault, where in the turn it is met, and whether the request after the first is answered."""

    fault: Fault
    position: Position
    once: bool = False

    def __str__(self) -> str:
        return f"{self.fault.name}, {self.position}{', once' if self.once else ''}"

    @property
    def key(self) -> str:
        """What its models are called by."""
        position = POSITIONS.index(self.position)
        return f"m{FAULTS.index(self.fault)}-{position}-{int(self.once)}"

    def profile(self) -> Profile:
        """Two layers and an aggregator, or fewer; one of the models is at fault."""
        faulty = {"model": f"lab:{self.key}", **self.fault.settings}
        sound = [{"model": f"sound:{self.key}-sound{number}"} for number in range(3)]
        layers = [{"proposers": [sound[0]]}]
        aggregator = sound[2]
        if self.position == "round 1":
            layers = [{"proposers": [sound[0], faulty]}, {"proposers": [sound[1]]}]
        elif self.position == "round 2":
            layers = [{"proposers": [sound[0]]}, {"proposers": [sound[1], faulty]}]
        elif self.position == "aggregator":
            aggregator = faulty
        else:
            aggregator = faulty | {"fallbacks": [sound[2]["model"]]}
        return build("mixture", {"layers": layers, "aggregator": aggregator})


def script_of(model: str, before: int) -> Script:
    """What the endpoint does for a model of a case."""
    if "sound" in model:
        return stream(ROLE, said(SOUND), *ENDING)
    number, _, once = model.removeprefix("m").split("-")
    return GOOD if int(once) and before else FAULTS[int(number)].script(before)


@dataclass
class Written:
    """A ledger in memory. begun: by number; ended, void: numbers; usage: of those that ended."""

    begun: dict[int, CallBegun] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    void_: list[int] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def begin_turn(self) -> TurnLedger:
        """It is that of one turn."""
        return self

    def begin(self, call: CallBegun) -> int:
        """See `TurnLedger`."""
        self.begun[len(self.begun)] = call
        return len(self.begun) - 1

    def grown(self, number: int, completion_tokens: int) -> None:
        """See `TurnLedger`."""

    def priced(self, number: int, price: Price) -> None:
        """See `TurnLedger`."""

    def void(self, number: int) -> None:
        """See `TurnLedger`."""
        self.void_.append(number)

    def end(self, numbers: Sequence[int], model: str, usage: Usage) -> None:
        """See `TurnLedger`."""
        self.ended += numbers
        self.usage += usage


@dataclass(frozen=True)
class Played:
    """What came of a case. asked: of the model at fault; next: of the models behind it."""

    case: Case
    events: list[Event]
    turn: Turn
    written: Written
    asked: list[Asked]
    next: list[Asked]


@dataclass
class _Heard:
    events: list[Event] = field(default_factory=list)

    def handle(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing is held."""


async def play(case: Case, endpoint: Endpoint, place: Place) -> Played:
    """One turn, over clients of its own."""
    written, heard = Written(), _Heard()
    limits = Limits(
        retries=RETRIES,
        first_delay=FIRST_DELAY,
        longest_wait=WAIT,
        ledger=written,
        reply_held=case.position == "held",
    )
    async with clients(
        {"lab": place.url, "sound": endpoint.url},
        [case.key],
        many_calls=case.position == "round 2",
    ) as pool:
        events = run_turn(case.profile(), Conversation().ask(PROMPT), pool, limits=limits)
        turn = await deliver(events, heard)
        # While the clients are open still: ending the calls is the engine's duty.
        await over(endpoint, case.key)
    behind = {"round 1": ("sound1", "sound2")}.get(case.position, ("sound2",))
    return Played(
        case,
        heard.events,
        turn,
        written,
        endpoint.of(case.key),
        [asked for name in behind for asked in endpoint.of(f"{case.key}-{name}")],
    )


@asynccontextmanager
async def clients(
    urls: Mapping[str, str], models: Iterable[str], *, many_calls: bool = False
) -> AsyncIterator[ClientPool]:
    """Clients of endpoints by provider, and prices of the models of `lab`."""
    providers = {
        name: ProviderSettings(base_url=url, api_key_env="LAB_API_KEY")
        for name, url in urls.items()
    }
    config = Config(providers=providers, prices={f"lab:{model}": PRICE for model in models})
    pool = ClientPool(config, {**os.environ, "LAB_API_KEY": KEY}, many_calls=many_calls)
    try:
        yield pool
    finally:
        await pool.aclose()


async def over(endpoint: Endpoint, key: str) -> None:
    """Until the endpoint has ended all its answers to the models of a case."""
    for _ in range(4000):
        if all(asked.over for asked in list(endpoint.asked) if asked.model.startswith(key)):
            return
        await asyncio.sleep(0.005)
    raise AssertionError("a call was left open")


def normal(text: str, place: Place) -> str:
    """A sentence without what differs from run to run: the host and port."""
    text = re.sub(r"m\d+-\d-\d", "m-1", text)
    return re.sub(r"127\.0\.0\.1:\d+|127\.0\.0\.1", "HOST", text)


def cases(fault: Fault) -> list[Case]:
    """All cases of a fault; where it is tried again, also those that go well then."""
    found = [Case(fault, position) for position in POSITIONS if position != "held" or fault.begun]
    if fault.again and fault.scripts:
        found += [Case(fault, "round 2", once=True), Case(fault, "aggregator", once=True)]
    return found
