"""The state of a turn, which its layers and steps share."""

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

# Seconds to wait for a provider's list of prices, counted from the request for the list. Before a
# layer, the wait is long, because a cap depends on the prices. After an answer it is short: the
# answer usually took longer than that, so the list is there.
_PATIENCE_BEFORE, _PATIENCE_BEHIND = 15.0, 1.0
# Seconds to wait for a provider's list that tells whether a model can see images.
_PATIENCE_SIGHT = 5.0


class Control:
    """The only way to control a running turn: pass one to `run_turn`, and call `enough()`."""

    def __init__(self) -> None:
        self._said = False
        # The functions to call when `enough()` is called.
        self._calls: list[Callable[[], None]] = []
        self._leads_to_reply: Callable[[], bool] | None = None

    def enough(self) -> None:
        """Stop waiting for proposers, and go on to the reply with what has arrived.

        Answers that are still being written are used as they are, marked as unfinished, if at least
        a sentence of them has come. Layers that have not begun are skipped, and so are steps that
        the reply does not need, such as a report. Before the first answer, or the first sentence of
        one, the turn goes on until that has arrived.
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
            call: The function. It is called soon if `enough()` was called before.

        Returns:
            A context manager; after it, `call` is forgotten.
        """
        self._calls.append(call)
        if self._said:
            # Not at once, so that tasks that were created before begin first.
            asyncio.get_running_loop().call_soon(call)
        try:
            yield
        finally:
            self._calls.remove(call)

    def follow(self, leads_to_reply: Callable[[], bool]) -> None:
        """Called by the turn that begins.

        Args:
            leads_to_reply: Returns the value of the property of that name.
        """
        self._leads_to_reply = leads_to_reply

    def leave(self, leads_to_reply: Callable[[], bool]) -> None:
        """Called by the turn that has ended; `Control` then releases it.

        Args:
            leads_to_reply: The function that it had passed to `follow`.
        """
        if self._leads_to_reply == leads_to_reply:
            self._leads_to_reply = None


class ReferenceSource(Protocol):
    """A part of the turn that runs, and may give references."""

    @property
    def usable(self) -> bool:
        """Whether a reply could be written from its answers so far."""


class TurnState:
    """The state of a running turn.

    rounds: the number of layers of proposers. references: the answers of the layer before. given:
    whether the caller brought the references along. reused: whether an earlier request made them.
    accepted: why a stage of the route was enough in that request. arrived: whether a proposal has
    arrived. layer: the layer that runs, or ran last, and that "enough" can end; None while the
    reply is written. silent: the models that sent nothing in time, each with the number of the
    layer, and whether its call timed out (and not only the layer's patience was over).

    reviews: the reviews that exist already. used_reviews: the places of those that the turn has
    used. compared: whether the strategy has the proposals compared. refused: for each stage of the
    route that was not enough, a sentence that says why. skipped, saved: see `skip`.

    aggregators: the aggregator, then its fallbacks. response_format: the format of a reply that has
    to be JSON, or None. may_repair: whether such a reply may be asked for once more if it is wrong.
    calls_tools: whether the whole reply calls tools. usage, lost, causes: see `TurnFinished` and
    `TurnFailed`.
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
            # The reply is shown only after its check.
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
        # The conversation that the proposals answer; and the views of it that proposers are sent,
        # by the number of turns left out.
        self._answered = conversation
        self._advised: dict[int, Conversation] = {}
        # The earlier turns, if some may be left out; the turns that each model is not sent; and how
        # many of them an event has reported, by model.
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
        # The foreseen usage of each layer in order, if the layer is certain to be asked. Empty
        # without budgets.
        self._foreseen: list[Usage] = []
        # The calls of the layers that run, and the foreseen usage of all later layers.
        self._calls: list[Call] = []
        self._later = Usage()
        self._began = time.monotonic()
        control.follow(self._leads_to_reply)

    def _leads_to_reply(self) -> bool:
        return self.layer is not None and (bool(self.references) or self.layer.usable)

    def end(self) -> None:
        """The turn has ended: release its control, and what is reserved for it."""
        self.layer = None
        self.control.leave(self._leads_to_reply)
        self.budgets.release()

    def now(self) -> float:
        """Seconds since the turn began."""
        return time.monotonic() - self._began

    def emit(self, event: Event) -> None:
        """Send an event to the consumer of the turn."""
        self._queue.emit(event)

    async def emit_and_wait(self, event: Event) -> None:
        """Send an event, and return only when the consumer asks for the next one. The next step
        costs money, and a consumer that has seen enough closes the turn here."""
        self._queue.emit(event)
        await self._queue.delivered()

    async def unhindered(self) -> None:
        """Wait while a slow consumer holds back the calls."""
        if not self._queue.has_room:
            await self._queue.room()

    def lose(self, name: str, error: Failure) -> None:
        """Note that a model gave no answer."""
        self.lost.append(f"{name}: {error.message}")
        self.causes.append(error)

    def closing(self) -> list[ModelSettings]:
        """The models that are asked for the reply after the proposals, if nothing fails.

        The call for a report is left out, because a report is made in any case. If the profile asks
        for a report, the call for a comparison is left out too: without it, the report would need
        that call.
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
        """An estimate of the usage of calls that are not made, each with the given references.

        An answer is assumed to be as long as the existing proposals are on average.
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
        """Note that a step is not needed. what, why: in words. saved: the usage that it would have
        had, see `would_take`."""
        about = f" and about {usd(saved.cost)}" if saved.cost else ""
        self.skipped.append(f"{what}: {why} ({plural(saved.calls, 'call')}{about} saved)")
        self.saved += saved

    async def claim_fan_out(self) -> None:
        """Take the proposals that another turn has made for the same message, or is making now. If
        there are none, the proposals of this turn will be kept."""
        memory = self._limits.fan_outs
        if memory is None or self.given:
            return
        self._fan_out = await memory.claim(self.profile, self.conversation, self._limits.client)
        if self._fan_out is not None and self._fan_out.references is not None:
            self.references, self.reused = self._fan_out.references, True
            self.rounds = self.depth = 0
            self._share(self._fan_out)

    def _share(self, fan_out: FanOut) -> None:
        """Use the reviews and the messages that belong to a kept fan-out."""
        kept = fan_out.kept
        assert kept is not None
        self.reviews, self.accepted = kept.reviews, kept.accepted
        self.used_reviews = set()
        after = self.conversation.after[: kept.seen]
        self._answered = replace(self.conversation, after=after)

    def keep_fan_out(self, accepted: str | None) -> None:
        """Keep the proposals: all layers of proposers have ended. accepted: why a stage of the
        route was enough, or None."""
        if self._fan_out is not None and not self.reused:
            self._fan_out.keep(self.references, accepted)
            self._share(self._fan_out)

    def end_fan_out(self, *, failed: bool) -> None:
        """The turn has ended. failed: whether its consumer was told that there is no reply."""
        if self._fan_out is not None:
            self._fan_out.end(failed=failed)

    async def check_tools(self) -> None:
        """Raise ToolsUnsupported if tools are offered and it is known that no aggregator can call
        tools. Otherwise the proposers would be paid for nothing."""
        if not advice.offers_tools(self.aggregators[0]):
            return
        unable = []
        for settings in self.aggregators:
            if (await self._clients.facts(settings.model)).tools is not False:
                return
            unable.append(settings.model)
        raise _toolless(" and ".join(unable))

    def _view_for(self, settings: ModelSettings, info: ModelInfo) -> Conversation:
        """The conversation as a model is sent it. It is the same for all proposers that can see
        images and have room for the same number of turns.

        Reviewers are sent the conversation of the proposers. A review is about the message that the
        proposals answer, and not about tool results that came later.
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
        """How many of the oldest turns a model is not sent, because it has no room for them."""
        if self._history is None:
            return 0
        context, assumed = context_of(settings, info.context_length, self._limits.assumed_context)
        use = self._history.use(settings, context, assumed=assumed)
        if use.left_out and use.context is not None:
            model = settings.model
            self._left_out[model] = LeftOutTurns(model, use.left_out, use.context, assumed)
        return use.left_out

    def _tell_left_out(self) -> None:
        """Emit how many turns each model is not sent. This happens once for all models of the turn,
        and again only if more turns are left out. That is possible if a list of models comes
        late."""
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
        """Raise BudgetReached if a later layer is certain to exceed a cap, or if a cap in USD
        depends on a model without a price. Otherwise the layers before it would be paid for
        nothing.

        Raise ImagesNotSeen if the prompt holds images, and no model of the turn can see them.
        """
        parts = self.conversation.turns[-1].parts
        if any(part.kind == "image" for part in parts) and not self.references:
            check_sight(parts, await self._sights())
        if not self.budgets:
            return
        stages = self.profile.stages(self.rounds, references=len(self.references))
        # The report does not count here. Without room for it, only the report is left out, and not
        # the reply. Reviews that are kept already cost nothing.
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
                # Only the prompt is certain. The answer, which later prompts contain, may be short.
                certain += priced(Usage(prompt_tokens=prompt, calls=1), price)
            if stage.certain:
                self.budgets.foresee(used, ahead)
                used += certain
            self._foreseen.append(ahead if stage.certain else Usage())

    async def _sights(self) -> dict[str, ModelInfo]:
        """The facts about each model of the turn. If it is not known whether a model can see
        images, this waits for the list of its provider."""
        models = self.profile.models()
        # This requests all lists before the loop waits for the first one.
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

        A model that was silent is not asked again. layer, first: the place of the first call; see
        `CallPlace`. before: the calls of the layer that were planned already; their places come
        first. wording: a profile whose merge prompt is used in place of the turn's. references: the
        references of each call; None gives each call all references of the state. Raises
        BudgetReached if the calls would exceed a cap.
        """
        profile = wording or self.profile
        patience = _PATIENCE_BEFORE if self.budgets.in_usd else 0.0
        calls: list[Planned] = []
        # The requests so far, by model. A request that is sent several times gets a sample number.
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
            behind = self.aggregators[index + 1 :] if isinstance(settings, Aggregator) else []
            calls.append(
                Planned(
                    place,
                    settings,
                    fitted,
                    info,
                    foreseen,
                    error,
                    shrink=again,
                    behind=tuple(stand_in.model for stand_in in behind),
                    again=self.silent.get(settings.model, (0, False))[1],
                    max_tokens=settings.max_tokens,
                )
            )
        self._tell_left_out()
        return self._admitted(layer, calls) if self.budgets else calls

    async def plan_again(
        self, planned: Planned, call: Call, messages: tuple[Message, ...]
    ) -> Planned | None:
        """A new call to the model of `call` with the given messages; None if they do not fit the
        model's context.

        planned: the plan of `call`, which has ended and is settled. Raises BudgetReached if the new
        call would exceed a cap.
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
        """The reason not to ask a model that was silent in this turn, or None. Another wait for it
        would take as long as the first one."""
        number, timed_out = self.silent.get(settings.model, (0, False))
        if not number:
            return None
        if isinstance(settings, Aggregator):
            # An aggregator is left out only if it timed out and another one can write the reply. If
            # it was only slower than the quorum, it may still be the best one.
            names = [candidate.model for candidate in self.aggregators]
            behind = names[names.index(settings.model) + 1 :]
            if not timed_out or all(name in self.silent for name in behind):
                return None
        return Failure("NotAsked", f"not asked again: it was silent in round {number}")

    def _admitted(self, layer: int, calls: list[Planned]) -> list[Planned]:
        """Reserve what the calls may take, and return the calls. A call without max_tokens gets one
        if the caps require it. Raises BudgetReached if a cap leaves no room."""
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
        """Forget the calls of a layer that has ended: they take nothing more."""
        self._calls = [call for call in self._calls if call not in calls]

    def _grow(self, call: Call, tokens: int, wanted: int) -> int:
        """How many tokens the answer of `call` may have, so that the running calls exceed no cap.

        tokens: the length of the answer so far. 0 means that another attempt is to be made, and the
        earlier one may be billed. wanted: the length that the answer should be allowed. Raises
        BudgetReached if a cap leaves no room even for `tokens`.
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
        """Settle a call that has ended, at the price that is known by now. Returns its usage."""
        try:
            info = await self._clients.facts(call.settings.model, patience=_PATIENCE_BEHIND)
        except BaseException:
            call.settle(self._clients.known(call.settings.model).price)
            raise
        return call.settle(info.price)

    def emit_trimmed(self, planned: Planned) -> None:
        """Emit that a prompt was shortened, if it was."""
        if planned.fitted.context is not None:
            self.emit(planned.trimmed(self.now(), planned.fitted))


def _alike(
    asked: Sequence[tuple[ModelSettings, Fitted]], settings: ModelSettings, fitted: Fitted
) -> int:
    """How many of the model's earlier calls send the same request."""
    if not asked:
        return 0
    request = request_of(settings, fitted.messages, settings.model)
    return [request_of(own, sent.messages, own.model) for own, sent in asked].count(request)


def _toolless(models: str) -> ToolsUnsupported:
    return ToolsUnsupported(f"{models} cannot call tools", hint=ToolsUnsupported.advice)


def _overrun(call: Call, tokens: int) -> str:
    """Why a call takes more than was foreseen, for the error message. tokens: see
    `TurnState._grow`."""
    model, most = call.settings.model, call.settings.max_tokens
    if not tokens:
        return f"{model} failed after it began to answer, and would be paid for again"
    if most is not None:
        return f"{model} exceeded its max_tokens ({most:,})"
    return f"the answer of {model} has about {tokens:,} tokens, and continues"
