"""What the layers of one turn share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

from moa_cli.core.conversation import Conversation, Failure, Message, Proposal, Usage
from moa_cli.core.endpoints import CallPlace, Clients, ModelInfo
from moa_cli.core.errors import BudgetReached, ContextTooLong, ToolsUnsupported
from moa_cli.core.events import (
    Event,
    HistoryTrimmed,
    LeftOutTurns,
)
from moa_cli.core.money import priced, usd
from moa_cli.core.stream import EventQueue
from moa_cli.core.text import plural
from moa_cli.core.tokens import (
    estimate_tokens,
    estimated_usage,
    extra_tokens,
    prompt_tokens,
)
from moa_cli.engine import advice
from moa_cli.engine.agreement.kept_reviews import KeptReviews
from moa_cli.engine.budget import TurnBudgets, check_prices
from moa_cli.engine.calls.attempt import request_of
from moa_cli.engine.calls.call import Call, Limits, Planned, failure
from moa_cli.engine.calls.slots import OwnSlots
from moa_cli.engine.estimate import ASSUMED_TOKENS, forecast_call
from moa_cli.engine.fan_out import FanOut
from moa_cli.engine.fit import Fitted, fit, shrink
from moa_cli.engine.history import (
    History,
    context_of,
    model_settings,
    newest,
    without_turns,
)
from moa_cli.engine.prompts import Reference, messages_for
from moa_cli.engine.sight import check_sight, seen_by
from moa_cli.engine.structured.format import ResponseFormat
from moa_cli.profile import Aggregator, ModelSettings, Profile

# Seconds to wait for a provider's list of prices, from its request on: before a layer that a cap
# depends on, and after an answer, which usually took longer than that anyway.
_PATIENCE_BEFORE, _PATIENCE_BEHIND = 15.0, 1.0
# The same for a list that tells whether a model takes the images of a prompt.
_PATIENCE_SIGHT = 5.0


class Control:
    """The one way to speak to a turn that runs: pass one to `run_turn`, and call `enough()`."""

    def __init__(self) -> None:
        self._said = False
        # What is called once it is said.
        self._calls: list[Callable[[], None]] = []
        self._leads_to_reply: Callable[[], bool] | None = None

    def enough(self) -> None:
        """Stop waiting for proposers, and go on to the reply with what has arrived.

        Answers that are still being written are used as they are, marked as unfinished, where at
        least a sentence of them has come. Layers that have not begun are skipped, and so is what
        the reply does not need, such as a report. Has no effect before the first answer, or the
        first sentence of one, has arrived, until it does.
        """
        self._said = True
        for call in list(self._calls):
            call()

    @property
    def leads_to_reply(self) -> bool:
        """Whether `enough()` would lead to a reply at once.

        True while proposers are asked and at least one answer, or a sentence of one, has come; and
        while the turn waits for what the reply does not need, such as a report. False before that,
        and once the reply is being written.
        """
        return self._leads_to_reply is not None and self._leads_to_reply()

    @property
    def said_enough(self) -> bool:
        """Whether `enough()` was called."""
        return self._said

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """While inside, have `call` called when `enough()` is.

        Args:
            call: Called soon if `enough()` was called before.

        Returns:
            A context; after it, `call` is forgotten.
        """
        self._calls.append(call)
        if self._said:
            # After what was begun before.
            asyncio.get_running_loop().call_soon(call)
        try:
            yield
        finally:
            self._calls.remove(call)

    def follow(self, leads_to_reply: Callable[[], bool]) -> None:
        """Called by the turn that begins.

        Args:
            leads_to_reply: What tells the property of that name.
        """
        self._leads_to_reply = leads_to_reply

    def leave(self, leads_to_reply: Callable[[], bool]) -> None:
        """Called by the turn that has ended; `Control` then releases it.

        Args:
            leads_to_reply: What it had passed to `follow`.
        """
        if self._leads_to_reply == leads_to_reply:
            self._leads_to_reply = None


class ReferenceSource(Protocol):
    """What runs and may give references."""

    @property
    def usable(self) -> bool:
        """Whether a reply could be written from what it has so far."""


class TurnState:
    """The state of a turn that runs. rounds: how many layers of proposers it has. references: the
    answers of the layer before. reused: whether those were made for an earlier request. accepted:
    why a stage of the route was enough then. reviews: those that are there already.
    used_reviews: the places of those that have served the turn. aggregators: the one that is tried
    first, then its fallbacks. usage, lost, causes: see `TurnFinished` and `TurnFailed`.
    calls_tools: whether the reply, once it is whole, calls tools. compared: whether the strategy
    has the proposals compared by itself. given: whether the caller brought the references along.
    refused: why each stage of a route that was asked was not enough. skipped, saved: see `skip`.
    arrived: whether there is a proposal. layer: the layer of proposers that runs, or ran last; None
    where the reply is written. response_format: what the reply has to be, if it is no plain text.
    may_repair: whether it may be asked for once more where it is something else. silent: the models
    that nothing came of in time, each with the number of the layer, and whether its call had run
    out of time (not only the layer's patience).
    """

    def __init__(
        self,
        profile: Profile,
        conversation: Conversation,
        clients: Clients,
        control: Control,
        limits: Limits,
        references: Sequence[Reference] | None,
        queue: EventQueue,
        response_format: ResponseFormat | None = None,
        reviews: KeptReviews | None = None,
    ) -> None:
        if response_format is not None:
            profile = response_format.over(profile)
            # A reply that was not checked is not shown.
            limits = replace(limits, reply_held=True)
        conversation = newest(conversation, profile.max_history)
        self.response_format = response_format
        self.may_repair = True
        self.profile = profile
        self.conversation = conversation
        self.control = control
        self.usage = Usage()
        self.lost: list[str] = []
        self.causes: list[Failure] = []
        self.aggregators = advice.aggregators(profile)
        self.rounds = profile.rounds if references is None else 0
        self.references: Sequence[Reference] = tuple(references or ())
        self.reused = False
        self.accepted: str | None = None
        self._fan_out: FanOut | None = None
        self.given = references is not None
        # The conversation up to what the proposals answer, and as proposers are sent it.
        self._answered = conversation
        self._advised: dict[int, Conversation] = {}
        # The earlier turns, if some may be left out; what each model is not sent, and how much of
        # that was told.
        trims = limits.trims_history and bool(conversation.earlier)
        self._history = History(profile, conversation) if trims else None
        self._left_out: dict[str, LeftOutTurns] = {}
        self._told_left_out: dict[str, int] = {}
        self.arrived = False
        self.layer: ReferenceSource | None = None
        # The number of the last layer that was planned.
        self.depth = self.rounds
        self.reviews = reviews or KeptReviews()
        self.used_reviews: set[int] = set()
        self.calls_tools = self.compared = False
        self.refused: list[str] = []
        self.skipped: list[str] = []
        self.saved = Usage()
        self.silent: dict[str, tuple[int, bool]] = {}
        self.budgets = TurnBudgets(limits.budgets, limits.undisclosed)
        self._queue = queue
        self._clients = clients
        self._limits = limits
        self.reply_held = limits.reply_held
        self.slots = (limits.slots or OwnSlots(limits.concurrency)).next_turn()
        self._ledger = limits.ledger.begin_turn() if limits.ledger is not None else None
        # What each layer will take for certain, in their order; nothing without budgets.
        self._foreseen: list[Usage] = []
        # The calls of the layers that run, and what those behind them will take.
        self._calls: list[Call] = []
        self._later = Usage()
        self._began = time.monotonic()
        control.follow(self._leads_to_reply)

    def _leads_to_reply(self) -> bool:
        return self.layer is not None and (bool(self.references) or self.layer.usable)

    def end(self) -> None:
        """The turn has ended: nothing more can be said to it, and nothing is reserved for it."""
        self.layer = None
        self.control.leave(self._leads_to_reply)
        self.budgets.release()

    def now(self) -> float:
        """Seconds since the turn began."""
        return time.monotonic() - self._began

    def emit(self, event: Event) -> None:
        """Tell the consumer of the turn."""
        self._queue.emit(event)

    async def emit_and_wait(self, event: Event) -> None:
        """The same, and go on only when the consumer asks for more: what follows costs money, and a
        consumer that has seen enough closes the turn here."""
        self._queue.emit(event)
        await self._queue.delivered()

    async def unhindered(self) -> None:
        """Return at once, unless a slow consumer holds back the calls; then once it does not."""
        if not self._queue.has_room:
            await self._queue.room()

    def lose(self, name: str, error: Failure) -> None:
        """A model gave no answer."""
        self.lost.append(f"{name}: {error.message}")
        self.causes.append(error)

    def closing(self) -> list[ModelSettings]:
        """The models that are asked for the reply behind the proposals, if nothing fails.

        Not for a report: that is made however the reply comes about. Without a comparison, it takes
        the call of one.
        """
        stages = self.profile.stages(0, references=len(self.references))
        reporting = ("report", "compare") if self.profile.report else ("report",)
        return [
            settings
            for stage in stages
            if stage.certain and stage.purpose not in reporting
            for settings in stage.models
        ]

    async def would_take(
        self, models: Iterable[ModelSettings], references: Sequence[Reference]
    ) -> Usage:
        """About what calls would take that are not made, each given those references.

        An answer is taken to be as long as the proposals that there are.
        """
        lengths = [
            reference.usage.completion_tokens or estimate_tokens(reference.text)
            for reference in self.references
            if isinstance(reference, Proposal)
        ]
        length = sum(lengths) // len(lengths) if lengths else ASSUMED_TOKENS
        usage = Usage()
        for settings in models:
            info = await self._clients.facts(settings.model, patience=_PATIENCE_BEHIND)
            talk = self._view_for(settings, info)
            messages = messages_for(self.profile, settings, talk, references)
            prompt = prompt_tokens(messages) + extra_tokens(settings.extra)
            answer = min(length, settings.max_tokens or length)
            usage += priced(estimated_usage(prompt, answer), info.price)
        return usage

    def skip(self, what: str, why: str, saved: Usage) -> None:
        """Note that something is not needed. saved: what it would have taken, see `would_take`."""
        about = f" and about {usd(saved.cost)}" if saved.cost else ""
        self.skipped.append(f"{what}: {why} ({plural(saved.calls, 'call')}{about} saved)")
        self.saved += saved

    async def claim_fan_out(self) -> None:
        """Take the proposals that were made for the same message, if there are any; if another turn
        makes them now, wait for them. Else they are to be kept."""
        memory = self._limits.fan_outs
        if memory is None or self.given:
            return
        self._fan_out = await memory.claim(self.profile, self.conversation, self._limits.client)
        if self._fan_out is not None and self._fan_out.references is not None:
            self.references, self.reused = self._fan_out.references, True
            self.rounds = self.depth = 0
            self._share(self._fan_out)

    def _share(self, fan_out: FanOut) -> None:
        """Go on with what is kept of a fan-out."""
        kept = fan_out.kept
        assert kept is not None
        self.reviews, self.accepted = kept.reviews, kept.accepted
        self.used_reviews = set()
        after = self.conversation.after[: kept.seen]
        self._answered = replace(self.conversation, after=after)

    def keep_fan_out(self, accepted: str | None) -> None:
        """All layers of proposers have ended. accepted: why a stage of the route was enough."""
        if self._fan_out is not None and not self.reused:
            self._fan_out.keep(self.references, accepted)
            self._share(self._fan_out)

    def end_fan_out(self, *, failed: bool) -> None:
        """The turn has ended. failed: whether it has told that there is no reply."""
        if self._fan_out is not None:
            self._fan_out.end(failed=failed)

    async def check_tools(self) -> None:
        """Raise ToolsUnsupported if tools are offered, and it is known that no aggregator can call
        any: the proposers would be paid for nothing."""
        if not advice.offers_tools(self.aggregators[0]):
            return
        unable = []
        for settings in self.aggregators:
            if (await self._clients.facts(settings.model)).tools is not False:
                return
            unable.append(settings.model)
        raise _toolless(" and ".join(unable))

    def _view_for(self, settings: ModelSettings, info: ModelInfo) -> Conversation:
        """The conversation as a model is sent it; the same for all proposers that see, and have
        room for as many turns.

        Reviewers are asked as proposers are: a review is about what the proposals answer, and not
        about results of tools that came later.
        """
        left_out = self._turns_to_leave_out(settings, info)
        if isinstance(settings, Aggregator):
            talk = without_turns(self.conversation, left_out)
            view = advice.view_for(self.profile, settings, talk, calls_tools=info.tools)
            return seen_by(view, info.sees)
        if left_out not in self._advised:
            talk = without_turns(self._answered, left_out)
            self._advised[left_out] = advice.view_for(self.profile, settings, talk)
        return seen_by(self._advised[left_out], info.sees)

    def _turns_to_leave_out(self, settings: ModelSettings, info: ModelInfo) -> int:
        """How many of the oldest turns a model is not sent, as it has no room for them."""
        if self._history is None:
            return 0
        context, assumed = context_of(settings, info.context_length, self._limits.assumed_context)
        use = self._history.use(settings, context, assumed=assumed)
        if use.left_out and use.context is not None:
            model = settings.model
            self._left_out[model] = LeftOutTurns(model, use.left_out, use.context, assumed)
        return use.left_out

    def _tell_left_out(self) -> None:
        """Tell which turns models are not sent: once for all models of the turn, and again only if
        more are left out, such as after a list of models that comes late."""
        if self._history is None:
            return
        if not self._told_left_out:
            for model, settings in model_settings(self.profile).items():
                self._turns_to_leave_out(settings, self._clients.known(model))
        more = tuple(
            left
            for model, left in self._left_out.items()
            if left.count > self._told_left_out.get(model, 0)
        )
        if more:
            turns = len(self.conversation.earlier)
            self.emit(HistoryTrimmed(at=self.now(), turns=turns, models=more))
            self._told_left_out |= {left.model: left.count for left in more}

    async def foresee(self) -> None:
        """Raise BudgetReached if a later layer is certain to go beyond a cap, or its models have
        no price that one could be held to: the layers before it would be paid for nothing.

        Raise ImagesNotSeen if the prompt holds images, and no model of the turn sees any.
        """
        parts = self.conversation.turns[-1].parts
        if any(part.kind == "image" for part in parts) and not self.references:
            check_sight(parts, await self._sights())
        if not self.budgets:
            return
        stages = self.profile.stages(self.rounds, references=len(self.references))
        # The report must not cost the reply: without room for it, it is left out.
        stages = [
            stage
            for stage in stages
            if stage.purpose != "report"
            and not (stage.purpose and self.reviews.covers(stage.purpose, stage.models))
        ]
        infos = {
            settings.model: await self._clients.facts(settings.model, patience=_PATIENCE_BEFORE)
            for stage in stages
            for settings in stage.models
        }
        check_prices(self.budgets.budgets, infos.items())
        used = Usage()
        for stage in stages:
            ahead = certain = Usage()
            for settings in stage.models:
                info = infos[settings.model]
                talk = self._view_for(settings, info)
                messages = messages_for(self.profile, settings, talk, self.references)
                prompt = prompt_tokens(messages) + extra_tokens(settings.extra)
                price = info.price
                ahead += forecast_call(settings, prompt, price)
                # Its answer, and so the references made of it, may be short.
                certain += priced(Usage(prompt_tokens=prompt, calls=1), price)
            if stage.certain:
                self.budgets.foresee(used, ahead)
                used += certain
            self._foreseen.append(ahead if stage.certain else Usage())

    async def _sights(self) -> dict[str, ModelInfo]:
        """What is known of each model of the turn; for one whose name does not tell whether it
        sees, its provider's list is waited for."""
        models = self.profile.models()
        # All lists are asked for before the first one is waited for.
        known = {model: await self._clients.facts(model) for model in models}
        for model, info in known.items():
            if info.sees is None:
                known[model] = await self._clients.facts(model, patience=_PATIENCE_SIGHT)
        return known

    async def plan(
        self,
        layer: int,
        models: Sequence[ModelSettings],
        *,
        first: int = 0,
        before: Sequence[Planned] = (),
        wording: Profile | None = None,
        references: Sequence[Sequence[Reference]] | None = None,
    ) -> list[Planned]:
        """The calls of a layer, each fitted to its model's context.

        layer, first: the place of the first of them; see `CallPlace`. before: calls of the layer
        that were planned already, whose places come first. A model that was silent is not asked
        again. wording: a profile that puts references before a model in its own way; None
        is that of the turn. references: those of each call; None gives each all of the state's.
        Raises BudgetReached if they would go beyond a cap.
        """
        profile = wording or self.profile
        patience = _PATIENCE_BEFORE if self.budgets.in_usd else 0.0
        calls: list[Planned] = []
        # By model, for a request that is sent several times.
        asked: dict[str, list[tuple[ModelSettings, Fitted]]] = {}
        for call in before:
            asked.setdefault(call.settings.model, []).append((call.settings, call.fitted))
        first += len(before)
        for index, settings in enumerate(models, first):
            given = self.references if references is None else references[index - first]
            info = await self._clients.facts(settings.model, patience=patience)
            fitted, error = Fitted((), 0), self._silence(settings)
            offered = isinstance(settings, Aggregator) and advice.offers_tools(settings)
            if offered and info.tools is False:
                error = failure(_toolless(settings.model))
            talk = self._view_for(settings, info)
            context = settings.context or info.context_length
            try:
                if error is None:
                    fitted = fit(profile, settings, talk, given, context)
            except ContextTooLong as raised:
                error = failure(raised)
            of_model = asked.setdefault(settings.model, [])
            place = CallPlace(layer, index, sample=_alike(of_model, settings, fitted))
            of_model.append((settings, fitted))
            foreseen = settings.max_tokens or ASSUMED_TOKENS
            again = partial(shrink, profile, settings, talk, tuple(given))
            backed = isinstance(settings, Aggregator) and index + 1 < len(self.aggregators)
            calls.append(
                Planned(
                    place,
                    settings,
                    fitted,
                    info,
                    foreseen,
                    error,
                    shrink=again,
                    backed=backed,
                    again=self.silent.get(settings.model, (0, False))[1],
                    max_tokens=settings.max_tokens,
                )
            )
        self._tell_left_out()
        return self._admitted(layer, calls) if self.budgets else calls

    async def plan_again(
        self, planned: Planned, call: Call, messages: tuple[Message, ...]
    ) -> Planned | None:
        """The call that asks the model of `call` once more, by these messages; None if they do not
        fit its context.

        planned: how `call` was planned; it has ended, and is settled.
        Raises BudgetReached if it would go beyond a cap.
        """
        info = await self._clients.facts(call.settings.model, patience=0.0)
        settings = replace(call.settings, max_tokens=planned.max_tokens)
        fitted = Fitted(messages, prompt_tokens(messages) + extra_tokens(settings.extra))
        context = settings.context or info.context_length
        if context is not None and fitted.tokens + (settings.max_tokens or 0) > context:
            return None
        again = replace(planned, settings=settings, fitted=fitted, info=info, shrink=lambda _: None)
        return self._admitted(planned.place.layer, [again])[0] if self.budgets else again

    def _silence(self, settings: ModelSettings) -> Failure | None:
        """Why a model is not asked again, if it is not: waiting for it once more would take as long
        as the first time."""
        number, timed_out = self.silent.get(settings.model, (0, False))
        if not number:
            return None
        if isinstance(settings, Aggregator):
            # Only where another one can write the reply; and one that was merely slower than a
            # quorum may be the best of all.
            names = [candidate.model for candidate in self.aggregators]
            behind = names[names.index(settings.model) + 1 :]
            if not timed_out or all(name in self.silent for name in behind):
                return None
        return Failure("NotAsked", f"not asked again: it was silent in round {number}")

    def _admitted(self, layer: int, calls: list[Planned]) -> list[Planned]:
        """The calls within the caps: one of unlimited length may be as long as they allow."""
        asked = [call for call in calls if call.error is None]
        check_prices(self.budgets.budgets, [(call.settings.model, call.info) for call in asked])
        self._later = sum(self._foreseen[layer:], Usage())
        # With `overlap`, some calls of the layer before may still run.
        running = [call for call in self._calls if call.settled is None]
        ahead = sum((call.committed() for call in running), Usage())
        for planned in asked:
            ahead += forecast_call(planned.settings, planned.fitted.tokens, planned.info.price)
        self.budgets.hold(ahead, self._later)
        endless = [call for call in asked if call.settings.max_tokens is None]
        if not endless:
            return calls
        most = self.budgets.longest_answer([call.info.price for call in endless])
        return [
            replace(call, settings=replace(call.settings, max_tokens=most))
            if call in endless
            else call
            for call in calls
        ]

    def call(self, planned: Planned) -> Call:
        call = Call(
            planned,
            self._clients,
            self._limits,
            self.slots,
            self._queue,
            turn_began=self._began,
            lost=self.lost,
            ledger=self._ledger,
            grow=self._grow if self.budgets else None,
            spend=self.budgets.spend,
        )
        if planned.error is None:
            self._calls.append(call)
        return call

    def forget(self, calls: Sequence[Call]) -> None:
        """Their layer has ended: they take nothing more."""
        self._calls = [call for call in self._calls if call not in calls]

    def _grow(self, call: Call, tokens: int, wanted: int) -> int:
        """How long the answer of `call` may become, so that the calls that run now exceed no cap.
        tokens: how long it is; 0: it is asked for again, and an attempt was billed.

        Raises BudgetReached if that is too long.
        """
        others = [other for other in self._calls if other.settled is None and other is not call]
        beside = sum((other.committed() for other in others), Usage())
        choices = [(wanted, self._later), (tokens, self._later), (tokens, Usage())]
        for allowed, later in choices if tokens else choices[:1]:
            cap = self.budgets.try_hold(beside + call.committed(allowed), later)
            if cap is None:
                return allowed
        assert cap is not None
        raise BudgetReached(
            f"stopped at {cap}: {_overrun(call, tokens)}",
            hint=f"raise {cap.name}, or use a model that respects its max_tokens",
        )

    async def taken(self, call: Call) -> Usage:
        """What a call took that has ended, at the price that is known by now."""
        try:
            info = await self._clients.facts(call.settings.model, patience=_PATIENCE_BEHIND)
        except BaseException:
            call.settle(self._clients.known(call.settings.model).price)
            raise
        return call.settle(info.price)

    def emit_trimmed(self, planned: Planned) -> None:
        """Tell that a prompt is cut, if it is."""
        if planned.fitted.context is not None:
            self.emit(planned.trimmed(self.now(), planned.fitted))


def _alike(
    asked: Sequence[tuple[ModelSettings, Fitted]], settings: ModelSettings, fitted: Fitted
) -> int:
    """How many of the calls of one model send the same request."""
    if not asked:
        return 0
    request = request_of(settings, fitted.messages, settings.model)
    return [request_of(own, sent.messages, own.model) for own, sent in asked].count(request)


def _toolless(models: str) -> ToolsUnsupported:
    return ToolsUnsupported(f"{models} cannot call tools", hint=ToolsUnsupported.advice)


def _overrun(call: Call, tokens: int) -> str:
    """Why a foreseen call is stopped."""
    model, most = call.settings.model, call.settings.max_tokens
    if not tokens:
        return f"{model} failed after it began to answer, and would be paid for again"
    if most is not None:
        return f"{model} exceeded its max_tokens ({most:,})"
    return f"the answer of {model} has about {tokens:,} tokens, and continues"
