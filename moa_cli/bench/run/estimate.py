"""What a run will take, told before anything is sent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from moa_cli.bench.data.items import Item
from moa_cli.bench.run.arms import Arm
from moa_cli.bench.run.journal import CallJournal, call_key, occurrence_key
from moa_cli.core.conversation import Conversation, Usage
from moa_cli.core.endpoints import ModelInfo
from moa_cli.core.errors import ContextTooLong
from moa_cli.core.money import priced
from moa_cli.core.tokens import estimate_tokens
from moa_cli.engine.advice import view_for
from moa_cli.engine.attempt import request_of
from moa_cli.engine.estimate import ASSUMED_TOKENS
from moa_cli.engine.fit import fit
from moa_cli.engine.prompts import strip_reasoning
from moa_cli.engine.sight import seen_by
from moa_cli.profile import ModelSettings

# Tokenizers differ, and prompts are counted without one.
MARGIN = 0.25


@dataclass(frozen=True)
class RunEstimate:
    """The calls that will be made, without those in the journal.

    low: prompts as they are (MARGIN less, without any chat template), empty answers.
    high: prompts MARGIN more, each answer as long as its max_tokens allows, and as long again
    in what the next models are sent. assumed: whether answers without max_tokens are counted as
    ASSUMED_TOKENS, so that `high` is no bound.
    """

    low: Usage = field(default_factory=Usage)
    high: Usage = field(default_factory=Usage)
    assumed: bool = False


@dataclass(frozen=True)
class _Said:
    """An answer: its words, or how long it may be while they are not known."""

    text: str | None
    most: int


@dataclass(frozen=True)
class _Place:
    """A turn. unsaid: tokens of earlier replies whose words are not known."""

    arm: Arm
    item: Item
    turn: int
    conversation: Conversation
    unsaid: int


@dataclass
class RunEstimator:
    """Adds up what items will take, one arm after another.

    model_id: a model's id at its endpoint, by its name. given: see `replay.RunContext`.
    """

    journal: CallJournal
    facts: Mapping[str, ModelInfo]
    given: Mapping[str, Mapping[str, str]]
    model_id: Callable[[str], str]
    total: RunEstimate = field(default_factory=RunEstimate)
    # Calls that another arm will have made by then.
    _coming: set[str] = field(default_factory=set)

    def add(self, arm: Arm, item: Item) -> None:
        conversation = Conversation(before=item.before)
        unsaid = 0
        for turn in range(len(item.turns)):
            conversation = item.ask(conversation, turn)
            said = self._turn(_Place(arm, item, turn, conversation, unsaid))
            unsaid += said.most if said.text is None else 0
            conversation = conversation.answer(strip_reasoning(said.text or ""))

    def _turn(self, at: _Place) -> _Said:
        said: list[_Said] = []
        equal = Counter[str]()
        for layer in at.arm.profile.all_layers():
            before = said
            said = [self._call(at, settings, before, equal) for settings in layer]
        return said[0]

    def _call(
        self, at: _Place, settings: ModelSettings, before: Sequence[_Said], equal: Counter[str]
    ) -> _Said:
        """before: the answers of the layer before. equal: calls of this turn by key, so far."""
        if settings.model in self.given:
            return _Said(self.given[settings.model][at.item.id], 0)
        info = self.facts[settings.model]
        references = [said.text or "" for said in before]
        try:
            context = settings.context or info.context_length
            talk = seen_by(view_for(at.arm.profile, settings, at.conversation), info.sees)
            fitted = fit(at.arm.profile, settings, talk, references, context)
        except ContextTooLong:
            # It will not be asked, and the item fails.
            return _Said("", 0)
        coming = _Said(None, settings.max_tokens or ASSUMED_TOKENS)
        # Tokens of answers that are not in the prompt yet.
        unsaid = at.unsaid + sum(said.most for said in before if said.text is None)
        if not unsaid:
            request = request_of(settings, fitted.messages, self.model_id(settings.model))
            key = call_key(at.item.id, at.turn, settings.model, request)
            equal[key] += 1
            key = occurrence_key(key, equal[key] - 1)
            record = self.journal.find(key)
            if record is not None:
                return _Said(record.text, 0)
            if key in self._coming:
                return coming
            self._coming.add(key)
        least = sum(estimate_tokens(message.content) for message in fitted.messages)
        low = Usage(prompt_tokens=math.floor(least * (1 - MARGIN)), calls=1)
        high = Usage(
            prompt_tokens=math.ceil((fitted.tokens + unsaid) * (1 + MARGIN)),
            completion_tokens=coming.most,
            calls=1,
        )
        self.total = RunEstimate(
            self.total.low + priced(low, info.price),
            self.total.high + priced(high, info.price),
            self.total.assumed or settings.max_tokens is None,
        )
        return coming
