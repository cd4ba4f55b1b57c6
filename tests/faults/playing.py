"""Turns that meet a fault: in round 1, in round 2, in a review, and where the reply is written."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
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
from tests.faults.places import Place, place_of
from tests.faults.script import ENDING, GOOD, ROLE, Script, said, stream
from tests.faults.table import FAULTS, KINDS
from tests.faults.ways import WAYS, Way
from tests.support.mixtures import mixture, no_task_left
from tests.support.tool_calls import TOOLS

KEY = "lab-key-0123456789"
PROMPT = "What is rain?"
SOUND = "A sound answer."
PRICE = Price(1.0, 2.0)
# A call is made again once, at first after so many seconds; and for so many where its endpoint is
# busy, which is long enough for a busy machine to make a second attempt.
RETRIES, FIRST_DELAY, WAIT = 1, 0.001, 10.0
# Where the reply is written: by an aggregator alone, by one with a fallback, and by one with a
# fallback of which nothing is shown before its end.
Position = Literal["round 1", "round 2", "aggregator", "fallback", "held", "review"]
POSITIONS: tuple[Position, ...] = ("round 1", "round 2", "aggregator", "fallback", "held")
# With a strategy: a proposer is at fault, a model that is asked about proposals, the aggregator.
WITH_STRATEGY: tuple[Position, ...] = ("round 1", "review", "aggregator")
# Kinds that change the environment of the process, so that their turns run one after the other.
_ALONE = ("TLS", "Proxies")
# At once: each turn has connections of its own.
_AT_ONCE = 40


@dataclass(frozen=True)
class Case:
    """A fault, where in the turn it is met, whether the request after the first is answered, and
    the name of the strategy, if it is not the paper's."""

    fault: Fault
    position: Position
    once: bool = False
    strategy: str = ""

    def __str__(self) -> str:
        told = (self.fault.name, self.position, "once" * self.once, self.strategy)
        return ", ".join(filter(None, told))

    @property
    def way(self) -> Way | None:
        """What the strategy asks."""
        return WAYS[self.strategy] if self.strategy else None

    @property
    def answers_first(self) -> bool:
        """Whether the model at fault is a proposer that answers, before it meets the fault in what
        it is asked about the others."""
        return self.position == "review" and self.way is not None and self.way.by_members

    @cached_property
    def key(self) -> str:
        """What its models are called by."""
        position = (*POSITIONS, "review").index(self.position)
        key = f"m{FAULTS.index(self.fault)}-{position}-{int(self.once)}"
        return f"{key}-{list(WAYS).index(self.strategy)}" if self.strategy else key

    def profile(self) -> Profile:
        """Two layers and an aggregator, or fewer; one of the models is at fault."""
        faulty = {"model": f"lab:{self.key}", **self.fault.settings}
        if self.way is not None:
            return self._strategic(self.way, faulty)
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

    def _strategic(self, way: Way, faulty: dict[str, object]) -> Profile:
        """Four proposers, a judge and an aggregator; one of the models is at fault."""
        # A judge has the settings of the mixture, which are not meant for those that answer.
        patient: dict[str, object] = dict.fromkeys(
            self.fault.settings.keys() & {"stall", "first_token"}, 60
        )
        proposers: list[dict[str, object]] = [
            {"model": f"sound:{self.key}-sound{number}"} | patient for number in range(4)
        ]
        aggregator: dict[str, object] = {"model": f"sound:{self.key}-sound-writer"}
        judge = f"sound:{self.key}-sound-judge"
        settings = dict(way.settings)
        if self.position == "round 1" or self.answers_first:
            # A route begins with the first ones.
            proposers[0] = faulty
        elif self.position == "review":
            judge = f"lab:{self.key}"
            settings |= self.fault.settings
        else:
            aggregator = faulty
        if way.offers_tools:
            aggregator["extra"] = {"tools": TOOLS}
        told = {"proposers": proposers, "judge": judge, "aggregator": aggregator}
        return build("mixture", settings | told)


def script_of(model: str, before: int) -> Script:
    """What the endpoint does for a model of a case."""
    key, _, role = model.partition("-sound")
    number, position, once, *strategy = key.removeprefix("m").split("-")
    way = WAYS[list(WAYS)[int(strategy[0])]] if strategy else None
    if "sound" in model:
        reviews = way is not None and (role == "-judge" or (way.by_members and before > 0))
        return stream(ROLE, said(way.review if way is not None and reviews else SOUND), *ENDING)
    if way is not None and way.by_members and int(position) == len(POSITIONS):
        if not before:
            return stream(ROLE, said(SOUND), *ENDING)
        before -= 1
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
    behind: tuple[str, ...] = ("sound2",)
    if case.position == "round 1":
        behind = ("sound1", "sound2")
    if case.strategy:
        behind = ("sound1", "sound2", "sound3", "sound-judge", "sound-writer")
    return Played(
        case,
        heard.events,
        turn,
        written,
        endpoint.of(case.key)[case.answers_first :],
        [asked for name in behind for asked in endpoint.of(f"{case.key}-{name}")],
    )


async def play_all(
    kind: str,
    endpoint: Endpoint,
    folder: Path,
    cases_of: Callable[[Fault], Iterable[Case]],
    check: Callable[[Played, Place], Iterable[str]],
) -> list[str]:
    """Play all cases of the faults of a kind, side by side where that can be; what is wrong."""
    room = asyncio.Semaphore(1 if kind in _ALONE else _AT_ONCE)
    wrong: list[str] = []

    async def meet(case: Case, place: Place) -> None:
        async with room:
            played = await asyncio.wait_for(play(case, endpoint, place), 120)
            wrong.extend(f"{case}: {problem}" for problem in check(played, place))

    # Limits of time are short: loading the client does not count.
    async with clients({"sound": endpoint.url}, []) as pool:
        talk = Conversation().ask(PROMPT)
        profile = mixture(rounds=0, aggregator={"model": "sound:m0-0-0-sound"})
        await deliver(run_turn(profile, talk, pool))
    for faults in [[fault] for fault in KINDS[kind]] if kind in _ALONE else [KINDS[kind]]:
        with ExitStack() as stack:
            async with asyncio.TaskGroup() as group:
                for fault in faults:
                    place = stack.enter_context(place_of(fault.at, endpoint, folder))
                    stack.enter_context(_environment(place))
                    for case in cases_of(fault):
                        group.create_task(meet(case, place))
    await no_task_left()
    for _ in range(20_000):
        if not endpoint.open_connections:
            break
        await asyncio.sleep(0.005)
    else:
        wrong.append("a connection was left open")
    return wrong


@contextmanager
def _environment(place: Place) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in place.environment}
    os.environ.update(place.environment)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


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
    for _ in range(20_000):
        if all(asked.over for asked in endpoint.around(key)):
            return
        await asyncio.sleep(0.005)
    raise AssertionError("a call was left open")


def normal(text: str, place: Place) -> str:
    """A sentence without what differs from run to run: the host and port."""
    text = re.sub(r"m\d+-\d-\d(-\d+)?", "m-1", text)
    return re.sub(r"127\.0\.0\.1:\d+|127\.0\.0\.1", "HOST", text)


def cases(fault: Fault) -> list[Case]:
    """All cases of a fault; where it is tried again, also those that go well then."""
    found = [Case(fault, position) for position in POSITIONS if position != "held" or fault.begun]
    if fault.again and fault.scripts:
        found += [Case(fault, "round 2", once=True), Case(fault, "aggregator", once=True)]
    return found


def strategic_cases(fault: Fault) -> Iterator[Case]:
    """The cases of a fault with each strategy.

    It is met in the reviews of each. What a proposer or an aggregator makes of it is no matter of
    the strategy: there each fault is met with a third of the strategies, the next fault with
    another third.
    """
    number = FAULTS.index(fault)
    for place, (strategy, way) in enumerate(WAYS.items()):
        for shift, position in enumerate(WITH_STRATEGY):
            if position != "review" and (number + place + shift) % 3:
                continue
            if position == "aggregator" and not way.writes:
                continue
            if position == "review" and not way.review:
                continue
            case = Case(fault, position, strategy=strategy)
            # An endpoint that cannot be reached gives no proposal to begin with.
            if not (case.answers_first and fault.at):
                yield case
