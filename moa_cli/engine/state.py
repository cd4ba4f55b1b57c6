"""What the layers of one turn share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moa_cli.core.conversation import Conversation, Failure, Message, Usage
from moa_cli.core.endpoints import CallPlace, Clients, ModelInfo, Request
from moa_cli.core.errors import BudgetReached, ContextTooLong
from moa_cli.core.events import ReferencesTrimmed, Retrying
from moa_cli.core.ledger import CallBegun
from moa_cli.core.money import priced
from moa_cli.core.tokens import prompt_tokens
from moa_cli.core.unique import unique_name
from moa_cli.engine import budget
from moa_cli.engine.budget import Cap
from moa_cli.engine.call import Call, Limits, Retry, failure, request_of
from moa_cli.engine.control import Control
from moa_cli.engine.estimate import ASSUMED_TOKENS, forecast_call
from moa_cli.engine.fit import fit
from moa_cli.engine.prompts import messages_for
from moa_cli.profile import ModelSettings, Profile

__all__ = ["Planned", "TurnState"]

# Seconds, from when a provider's list of prices was asked for: before a layer that a cap depends
# on, and behind an answer, which as a rule took longer than that anyway.
_PATIENCE_BEFORE, _PATIENCE_BEHIND = 15.0, 1.0


@dataclass(frozen=True)
class Planned:
    """A call to be made. tokens: about how many it is sent. error: why it is not made, if so.

    kept: see `ReferencesTrimmed`. foreseen: tokens of the answer that the caps were asked for.
    """

    place: CallPlace
    settings: ModelSettings
    messages: tuple[Message, ...]
    tokens: int
    info: ModelInfo
    error: Failure | None = None
    kept: int | None = None
    foreseen: int = ASSUMED_TOKENS

    @property
    def usage(self) -> Usage:
        """What it will take, with as long an answer as it may give."""
        return forecast_call(self.settings, self.tokens, self.info.price)


class _OwnSlots:
    """The calls of one turn."""

    def __init__(self, concurrency: int) -> None:
        self._semaphore = asyncio.Semaphore(concurrency)

    def slot(self, model: str) -> asyncio.Semaphore:
        """See `Slots`."""
        del model
        return self._semaphore


class TurnState:
    """One turn as far as it has come.

    rounds: layers of proposers that it has. references: the answers of the layer before.
    usage, lost, causes: see `TurnFinished` and `TurnFailed`.
    arrived: set once there is a proposal. name: unlike any other turn's.
    """

    def __init__(
        self,
        profile: Profile,
        conversation: Conversation,
        clients: Clients,
        control: Control,
        limits: Limits,
        references: Sequence[str] | None,
    ) -> None:
        self.profile = profile
        self.conversation = conversation
        self.control = control
        self.usage = Usage()
        self.lost: list[str] = []
        self.causes: list[Failure] = []
        self.rounds = profile.rounds if references is None else 0
        self.references = list(references or ())
        self.arrived = asyncio.Event()
        self.name = unique_name()
        # By layer; nothing without caps.
        self._foreseen: list[Usage] = []
        self._clients = clients
        self._limits = limits
        self._slots = limits.slots or _OwnSlots(limits.concurrency)
        self._ledger = limits.ledger.begin_turn() if limits.ledger is not None else None
        # What was taken before the layer that runs, and the calls of that.
        self._before = Usage()
        self._layer: list[Call] = []
        self._later = Usage()
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since the turn began."""
        return time.monotonic() - self._began

    def lose(self, name: str, error: Failure) -> None:
        """A model gave no answer."""
        self.lost.append(f"{name}: {error.message}")
        self.causes.append(error)

    async def plan(
        self, layer: int, models: Sequence[ModelSettings], *, first: int = 0
    ) -> list[Planned]:
        """The calls of a layer, each fitted to its model's context.

        layer, first: the place of the first of them; see `CallPlace`.
        Raises BudgetReached if they would go beyond a cap.
        """
        caps = self._limits.caps
        self._before, self._layer = self.usage, []
        patience = _PATIENCE_BEFORE if any(cap.unit == "usd" for cap in caps) else 0.0
        # A cancellation that is due comes before a call is said to begin.
        await asyncio.sleep(0)
        planned: list[Planned] = []
        requests: list[Request] = []
        for index, settings in enumerate(models, first):
            info = await self._clients.facts(settings.model, patience=patience)
            call = self._fitted(CallPlace(layer, index), settings, info)
            request = request_of(settings, call.messages, settings.model)
            place = replace(call.place, sample=requests.count(request))
            planned.append(replace(call, place=place))
            requests.append(request)
        return self._admitted(layer, planned) if caps else planned

    def _admitted(self, layer: int, planned: list[Planned]) -> list[Planned]:
        """The calls within the caps: one of unlimited length may be as long as they allow."""
        caps = self._limits.caps
        asked = [one for one in planned if one.error is None]
        budget.check_prices(caps, _unpriced([(one.settings.model, one.info) for one in asked]))
        ahead = sum((one.usage for one in asked), Usage())
        later = self._later = sum(self._foreseen[layer:], Usage())
        left = [cap.left(self.usage, ahead, later, self.name) for cap in caps]
        endless = [one for one in asked if one.settings.max_tokens is None]
        if not endless:
            return planned
        most = budget.longest_answer(caps, left, [one.info.price for one in endless])
        return [
            replace(one, settings=replace(one.settings, max_tokens=most)) if one in endless else one
            for one in planned
        ]

    async def foresee(self) -> None:
        """Raise BudgetReached if a later layer is certain to go beyond a cap, or its models have
        no price that one could be held to: the layers before it would be paid for nothing."""
        caps = self._limits.caps
        if not caps:
            return
        profile = self.profile
        layers = profile.all_layers(self.rounds)
        infos = {
            one.model: await self._clients.facts(one.model, patience=_PATIENCE_BEFORE)
            for layer in layers
            for one in layer
        }
        budget.check_prices(caps, _unpriced(list(infos.items())))
        used = Usage()
        for layer in layers:
            ahead = certain = Usage()
            for one in layer:
                messages = messages_for(profile, one, self.conversation, self.references)
                prompt, price = prompt_tokens(messages), infos[one.model].price
                ahead += forecast_call(one, prompt, price)
                # Its answer may be short, and the references that come of it.
                certain += priced(Usage(prompt_tokens=prompt, calls=1), price)
            for cap in caps:
                cap.left(used, ahead, Usage(), self.name)
            used += certain
            self._foreseen.append(ahead)

    def release(self) -> None:
        """Give back what was reserved for calls to come."""
        for cap in self._limits.caps:
            cap.release(self.name)

    def _fitted(self, place: CallPlace, one: ModelSettings, info: ModelInfo) -> Planned:
        references = self.references
        context = info.context_length
        try:
            fitted = fit(self.profile, one, self.conversation, references, context)
        except ContextTooLong as error:
            return Planned(place, one, (), 0, info, error=failure(error))
        foreseen = one.max_tokens or ASSUMED_TOKENS
        return Planned(
            place, one, fitted.messages, fitted.tokens, info, kept=fitted.kept, foreseen=foreseen
        )

    def call(self, planned: Planned, timeout: float, layer: int, index: int | None) -> Call:
        """The call, ready to be made. timeout: seconds, where its settings tell none.

        layer, index: its place; see `CallBegun`.
        """
        call = Call(
            planned.settings,
            planned.messages,
            planned.place,
            CallBegun(
                model=planned.settings.model,
                prompt_tokens=planned.tokens,
                completion_tokens=planned.foreseen,
                price=planned.info.price,
                layer=layer,
                index=index,
            ),
            self._clients,
            self._limits,
            self._slots,
            timeout=timeout,
            ledger=self._ledger,
            grow=self._grow if self._limits.caps else None,
        )
        if planned.error is None:
            self._layer.append(call)
        return call

    def _grow(self, call: Call, tokens: int, wanted: int) -> int:
        """How long the answer of `call` may become, so that no cap is passed by all calls that
        run now. tokens: how long it is; 0: it is asked for again, and an attempt was billed.

        Raises BudgetReached if that is too long.
        """
        later = self._later
        for allowed, ahead in ((wanted, later), (tokens, later), (tokens, Usage())):
            cap = self._first_passed(call, allowed, ahead)
            if cap is None:
                return allowed
            if not tokens:
                break
        assert cap is not None
        raise BudgetReached(
            f"stopped at {cap.told()}: {_overrun(call, tokens)}",
            hint=f"raise {cap.name}, or use a model that keeps to its max_tokens",
        )

    def _first_passed(self, call: Call, allowed: int, later: Usage) -> Cap | None:
        """The first cap without room for all calls of the layer, if `call` is allowed so much."""
        used, ahead = self._before, Usage()
        for one in self._layer:
            if one.settled is not None:
                used += one.settled
            else:
                ahead += one.committed(allowed if one is call else 0)
        for cap in self._limits.caps:
            if not cap.holds(used, ahead + later if cap.shared else ahead, self.name):
                return cap
        return None

    async def taken(self, call: Call, model: str, *, ended: bool = True) -> Usage:
        """What a call took, at the price that is known by now.

        ended: else it is not waited for, nor is a price.
        """
        try:
            info = await self._clients.facts(model, patience=_PATIENCE_BEHIND if ended else 0.0)
        except BaseException:
            call.settle(self._clients.known(model).price)
            raise
        return call.settle(info.price)

    def trimmed(self, layer: int, index: int | None, one: Planned) -> list[ReferencesTrimmed]:
        """The event that tells of cut references, if they are."""
        if one.kept is None or one.info.context_length is None:
            return []
        return [
            ReferencesTrimmed(
                at=self.now(),
                layer=layer,
                index=index,
                model=one.settings.model,
                kept=one.kept,
                context=one.info.context_length,
            )
        ]

    def retrying(
        self, layer: int, index: int | None, settings: ModelSettings, retry: Retry
    ) -> Retrying:
        """The event of a call that is made again."""
        return Retrying(
            at=self.now(),
            layer=layer,
            index=index,
            model=settings.model,
            attempt=retry.attempt,
            delay=retry.delay,
            error=retry.error,
        )


def _overrun(call: Call, tokens: int) -> str:
    """Why a call that was foreseen is stopped all the same."""
    if not tokens:
        return f"{call.model} failed when it had begun to answer, and would be paid for again"
    if call.max_tokens is not None:
        return f"{call.model} went on beyond its max_tokens ({call.max_tokens:,})"
    return f"the answer of {call.model} has about {tokens:,} tokens, and goes on"


def _unpriced(asked: Sequence[tuple[str, ModelInfo]]) -> list[tuple[str, str | None]]:
    """The models without a price, and why."""
    return [(model, info.trouble) for model, info in asked if info.price is None]
