"""Estimates how many calls and tokens a run will take, before any request is sent."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from moa_cli.bench.data.items import Item
from moa_cli.bench.run.arms import Arm
from moa_cli.bench.run.call_cache import CallCache
from moa_cli.bench.run.journal import CallJournal, CallRecord, call_key, occurrence_key
from moa_cli.core.conversation import Conversation, Usage
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import ContextTooLong
from moa_cli.core.money import priced
from moa_cli.core.strategy import Purpose
from moa_cli.core.tokens import estimate_tokens
from moa_cli.engine.advice import view_for
from moa_cli.engine.calls.attempt import request_of
from moa_cli.engine.estimate import ASSUMED_TOKENS
from moa_cli.engine.fit import fit
from moa_cli.engine.forecast import answers_of_calls
from moa_cli.engine.prompts import strip_reasoning
from moa_cli.engine.sight import seen_by
from moa_cli.engine.strategies import wording_of
from moa_cli.profile import ModelSettings, Profile

# Prompts may have this share more or fewer tokens than estimated, because tokenizers differ and no
# tokenizer is used.
MARGIN = 0.25
# At most this many tokens of reviews are put into the aggregator's prompt.
_COMPARISON = 4000


@dataclass(frozen=True)
class RunEstimate:
    """The calls that will be made, without those that the journal has.

    low: only calls that are made in any case, with prompts MARGIN below the estimate, no chat
    template, and empty answers. high: prompts MARGIN above the estimate, each answer as long as its
    max_tokens allows, and the prompts of later models with answers of that length. assumed: whether
    answers without max_tokens are counted as ASSUMED_TOKENS, so that `high` is not a bound.
    """

    low: Usage = field(default_factory=Usage)
    high: Usage = field(default_factory=Usage)
    assumed: bool = False

    def times(self, whole: int, sample: int) -> RunEstimate:
        """The estimate for `whole` items, if this is the estimate for `sample` of them."""
        if whole == sample:
            return self
        low, high = (_scaled(usage, whole / sample) for usage in (self.low, self.high))
        return replace(self, low=low, high=high)


def _scaled(usage: Usage, factor: float) -> Usage:
    counts = {name: round(count * factor) for name, count in asdict(usage).items()}
    return Usage(**{**counts, "cost": usage.cost * factor})


@dataclass(frozen=True)
class _Said:
    """An answer. text: None if it is not known yet. most: then, how many tokens it may have.

    identity: the identity of the call. It shows which calls of several arms are equal even before
    their prompts are known.
    """

    text: str | None
    most: int
    identity: str


@dataclass(frozen=True)
class _Place:
    """A turn of an item. earlier: the replies of earlier turns."""

    arm: Arm
    item: Item
    turn: int
    conversation: Conversation
    earlier: tuple[_Said, ...] = ()


@dataclass(frozen=True)
class _ForeseenCall:
    """A call of a turn. wording: the profile that words its prompt. certain: whether the call is
    made in any case. before: the answers that its prompt includes. reviews: the reviews that its
    prompt includes."""

    purpose: Purpose
    wording: Profile
    settings: ModelSettings
    certain: bool
    before: Sequence[_Said]
    reviews: Sequence[_Said]

    def unsaid(self) -> int:
        """The tokens of those parts of its prompt whose text is not known yet."""
        compared = sum(said.most for said in self.reviews)
        told = min(compared, _COMPARISON)
        return told + sum(said.most for said in self.before if said.text is None)


@dataclass
class RunEstimator:
    """Adds up the calls of items, one arm after another.

    model_id: gives a model's id at its endpoint by its name. given, cache: see `replay.RunContext`.
    A reply that is written with reviews is not looked up in the journal, because only the strategy
    knows how it puts reviews into the prompt. It is the last call of its turn, so no other call
    depends on it.
    """

    facts: Mapping[str, ModelInfo]
    model_id: Callable[[str], str]
    journal: CallJournal = field(default_factory=lambda: CallJournal(None))
    given: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    cache: CallCache | None = None
    total: RunEstimate = field(default_factory=RunEstimate)
    # Calls that are counted already: by key, whether an arm makes them in any case.
    _coming: dict[str, bool] = field(default_factory=dict)

    def add(self, arm: Arm, item: Item) -> None:
        place = _Place(arm, item, 0, Conversation(before=item.before))
        for turn in range(len(item.turns)):
            conversation = item.ask(place.conversation, turn)
            place = replace(place, turn=turn, conversation=conversation)
            said = self._turn(place)
            place = replace(
                place,
                conversation=conversation.answer(strip_reasoning(said.text or "")),
                earlier=(*place.earlier, said),
            )

    def _turn(self, at: _Place) -> _Said:
        """Add the calls of a turn. Returns its reply: the answer of its last call, or one of the
        proposals."""
        profile = at.arm.profile
        proposals: list[_Said] = []
        reviews: list[_Said] = []
        equal = Counter[str]()
        # With a route, the only proposers that are asked in any case are the first ones, as many as
        # its smallest stage has.
        first = min((stage.proposers for stage in profile.route), default=0)
        prompt = at.conversation.turns[-1].user
        for number, stage in enumerate(profile.stages(), 1):
            wording = wording_of(profile, stage)
            given = answers_of_calls(profile, stage, number, prompt, proposals)
            said = []
            for index, settings in enumerate(stage.models):
                asked = _ForeseenCall(
                    stage.purpose,
                    wording,
                    settings,
                    stage.certain or (number == 1 and index < first),
                    given[index],
                    reviews if stage.writes else (),
                )
                said.append(self._call(at, asked, equal))
            if stage.writes:
                return said[0]
            if stage.purpose == "merge":
                proposals = [*said, *proposals[profile.window :]]
            elif not stage.purpose:
                proposals = said
            elif stage.purpose != "verify":
                reviews = [*reviews, *said]
        longest = max(said.most for said in proposals)
        identity = _hash([profile.strategy, _identities(proposals), _identities(reviews)])
        return _Said(None, longest, identity)

    def _call(self, at: _Place, asked: _ForeseenCall, equal: Counter[str]) -> _Said:
        """Add a call. equal: how many equal calls this turn has so far, by key."""
        settings = asked.settings
        if settings.model in self.given:
            text = self.given[settings.model][at.item.id]
            return _Said(text, 0, f"{settings.model} {at.item.id}")
        info = self.facts[settings.model]
        references = [said.text or "" for said in asked.before]
        try:
            context = settings.context or info.context_length
            talk = seen_by(view_for(at.arm.profile, settings, at.conversation), info.sees)
            fitted = fit(asked.wording, settings, talk, references, context)
        except ContextTooLong:
            # The call will not be made, and the item fails.
            return _Said("", 0, "")
        # Tokens of answers that are not in the prompt yet.
        unsaid = asked.unsaid() + sum(said.most for said in at.earlier if said.text is None)
        request = request_of(settings, fitted.messages, self.model_id(settings.model))
        key = call_key(at.item.id, at.turn, settings.model, request)
        if unsaid or asked.reviews:
            known = (at.earlier, asked.before, asked.reviews)
            key = _hash([key, asked.purpose, *map(_identities, known)])
        equal[key] += 1
        sample = equal[key] - 1
        key = occurrence_key(key, sample)
        record = self.journal.find(key)
        if record is None and self.cache is not None and not (unsaid or asked.reviews):
            call = CallRecord(key, at.item.id, at.turn, settings.model)
            record = self.cache.find(call, request, sample)
        if record is not None:
            return _Said(record.text, 0, key)
        coming = _Said(None, settings.max_tokens or ASSUMED_TOKENS, key)
        least = sum(estimate_tokens(message.content) for message in fitted.messages)
        low = Usage(prompt_tokens=math.floor(least * (1 - MARGIN)), calls=1)
        high = Usage(
            prompt_tokens=math.ceil((fitted.tokens + unsaid) * (1 + MARGIN)),
            completion_tokens=coming.most,
            calls=1,
        )
        total = self.total
        if key not in self._coming:
            most = total.high + priced(high, info.price)
            total = replace(total, high=most, assumed=total.assumed or settings.max_tokens is None)
        if asked.certain and not self._coming.get(key, False):
            total = replace(total, low=total.low + priced(low, info.price))
        self.total = total
        self._coming[key] = asked.certain or self._coming.get(key, False)
        return coming


def _identities(group: Sequence[_Said]) -> list[str]:
    return [said.identity for said in group]


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
